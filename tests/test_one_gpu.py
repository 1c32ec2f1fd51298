"""`docs/one-gpu.md`: its tables are what the command beside them prints, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked import run_forked

from eapo_agents.learning.algorithms import DAPO
from eapo_agents.learning.learner import Learner
from eapo_agents.learning.lora import LoRA
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.spec import LearnerSpec
from eapo_agents.policies.models import ModelSettings
from eapo_agents.rollouts.trajectory import Demonstration

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "one-gpu.md").read_text(encoding="utf-8")
DEMONSTRATION = Demonstration(token_ids=np.arange(1, 9, dtype=np.int32), mask=np.arange(8) > 0)


@pytest.mark.slow
def test_the_tables_are_those_of_the_command() -> None:
    """Of the smallest size; the others take a minute, and go the same way."""
    command = "python benchmarks/one_gpu.py"
    assert command in PAGE
    done = run_forked(*command.split()[1:], "0.5B")
    assert done.returncode == 0, done.stderr
    tables = done.stdout.strip().split("\n\n")
    assert [len(table.splitlines()) for table in tables] == [4, 3, 10]
    for row in done.stdout.split("\n"):
        assert row in PAGE, row


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        (None, lambda model, adapters: 12 * model),
        (LoRA(rank=4, alpha=8.0, seed=0), lambda model, adapters: 2 * model + 12 * adapters),
    ],
)
def test_a_checkpoint_has_the_bytes_that_the_page_promises(
    lora: LoRA | None, expected: Callable[[int, int], int], tmp_path: Path
) -> None:
    """Of the embedded model, up to what files have beside weights and moments."""
    assert "12 bytes a weight" in PAGE
    learner = LearnerSpec(
        model=ModelSettings(dtype="bfloat16"),
        algorithm=DAPO(),
        settings=LearnerSettings(device="cpu"),
        lora=lora,
    ).start()
    learner.sft_update([DEMONSTRATION])
    learner.save(tmp_path)
    adapters = num_weights(learner, trained=True) if lora else 0
    model = num_weights(learner) - adapters
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    promised = expected(model, adapters)
    assert promised <= written < 1.02 * promised + 100_000


def num_weights(learner: Learner, *, trained: bool = False) -> int:
    weights = learner.model.parameters()
    return sum(weight.numel() for weight in weights if weight.requires_grad or not trained)
