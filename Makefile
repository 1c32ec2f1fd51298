# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
# torch's OpenMP threads must not spin while they wait: on a busy machine that costs 10x.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint check format clean

demo: $(VENV)/installed
	$(VENV)/bin/eapo demo

test: $(VENV)/installed
	$(RUN) pytest

lint: $(VENV)/installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

check: lint test

format: $(VENV)/installed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
