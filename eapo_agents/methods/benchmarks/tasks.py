"""The seven non-mathematical benchmarks (paper, Tables 4 and 7) as tasks of the harness Inspect.

Five are `inspect_evals`' own tasks. It lacks EvalPlus and HotpotQA: those are put together here
from the harness's parts (data loading, solver, scorer, sandbox). With `sample`, each task reads the
rows that ship with this package, in the schema of the real data, and is graded by the same scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from inspect_ai import Task, task_with
from inspect_ai.dataset import Dataset, Sample, json_dataset
from inspect_ai.scorer import choice, exact, f1
from inspect_ai.solver import generate, multiple_choice
from inspect_evals import gpqa, hle, humaneval, mmlu, simpleqa
from inspect_evals.gpqa.gpqa import record_to_sample as gpqa_sample
from inspect_evals.hle.dataset import record_to_sample as hle_sample
from inspect_evals.humaneval.humaneval import record_to_sample as humaneval_sample, verify
from inspect_evals.mmlu.mmlu import record_to_sample_mmlu
from inspect_evals.simpleqa.dataset import simpleqa_record_to_sample
from inspect_evals.simpleqa.scorer import simpleqa_scorer
from inspect_evals.utils import scorers_from_spec
from inspect_evals.utils.huggingface import hf_dataset

DOCKER: Final = (
    "docker",
    str(resources.files("eapo_agents.methods.benchmarks") / "rows" / "Dockerfile"),
)
"""The sandbox of generated code: a container with what the tests of EvalPlus import."""

_HLE_JUDGE: Final[Mapping[str, Any]] = {
    "scorer": "inspect_evals/hle/regex_judge",
    "metrics": ["inspect_evals/hle/accuracy", "inspect_evals/hle/unscored"],
    "graders": ["grader"],
    "args": {
        "template": "regex_judge_template",
        "instructions": "regex_judge_instructions",
        "max_grader_attempts": 3,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Args:
        title: as the paper writes it.
        metric: the harness's metric that the paper's column shows, of which scorer's it may be.
        full: the task on the real data, which is downloaded.
        to_sample: a row of the real data to a sample of the harness.
        around: a data set to the task on it.
        runs_code: whether responses are run, in the harness's sandbox.
    """

    title: str
    metric: str
    full: Callable[[], Task]
    to_sample: Callable[[dict[str, Any]], Sample]
    around: Callable[[Dataset], Task]
    runs_code: bool = False

    def task(self, name: str, *, sample: bool) -> Task:
        """Return the task on the real data, or on the rows that ship with this package."""
        task = self.around(_shipped(name, self.to_sample)) if sample else self.full()
        return task_with(task, name=name)


def _shipped(name: str, to_sample: Callable[[dict[str, Any]], Sample]) -> Dataset:
    rows = resources.files("eapo_agents.methods.benchmarks") / "rows" / f"{name}.jsonl"
    with resources.as_file(rows) as path:
        return json_dataset(str(path), to_sample)


def _code(dataset: Dataset) -> Task:
    return Task(dataset=dataset, solver=generate(), scorer=verify(), sandbox=DOCKER)


def _evalplus() -> Task:
    path, to_sample = "evalplus/humanevalplus", humaneval_sample()
    return _code(hf_dataset(path, "test", sample_fields=to_sample, revision="main"))


def _choices(dataset: Dataset) -> Task:
    return Task(dataset=dataset, solver=multiple_choice(cot=True), scorer=choice())


def _hle(dataset: Dataset) -> Task:
    return Task(dataset=dataset, solver=generate(), scorer=scorers_from_spec(dict(_HLE_JUDGE)))


def _hotpotqa_sample(row: dict[str, Any]) -> Sample:
    asked = f"{row['question']}\n\nReply with the answer alone, in as few words as possible."
    return Sample(id=row["id"], input=asked, target=row["answer"])


def _hotpotqa(dataset: Dataset) -> Task:
    return Task(dataset=dataset, solver=generate(), scorer=[f1(), exact()])


def _hotpotqa_full() -> Task:
    path, split = "hotpotqa/hotpot_qa", "validation"
    return _hotpotqa(
        hf_dataset(path, split, name="fullwiki", sample_fields=_hotpotqa_sample, revision="main")
    )


def _simpleqa(dataset: Dataset) -> Task:
    return Task(dataset=dataset, solver=generate(), scorer=simpleqa_scorer())


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "humaneval": Benchmark(
        title="HumanEval",
        metric="accuracy",
        full=humaneval.humaneval,
        to_sample=humaneval_sample(),
        around=_code,
        runs_code=True,
    ),
    "hle": Benchmark(
        title="HLE",
        metric="hle/accuracy",
        full=lambda: hle.hle(
            include_multi_modal=False, only_hle_verified_gold=False, scorer=dict(_HLE_JUDGE)
        ),
        to_sample=hle_sample,
        around=_hle,
    ),
    "gpqa": Benchmark(
        title="GPQA",
        metric="accuracy",
        full=gpqa.gpqa_diamond,
        to_sample=gpqa_sample,
        around=_choices,
    ),
    "mmlu": Benchmark(
        title="MMLU",
        metric="accuracy",
        full=lambda: mmlu.mmlu_0_shot(cot=True),
        to_sample=record_to_sample_mmlu,
        around=_choices,
    ),
    "evalplus": Benchmark(
        title="EvalPlus",
        metric="accuracy",
        full=_evalplus,
        to_sample=humaneval_sample(),
        around=_code,
        runs_code=True,
    ),
    "hotpotqa": Benchmark(
        title="HotpotQA",
        metric="mean",
        full=_hotpotqa_full,
        to_sample=_hotpotqa_sample,
        around=_hotpotqa,
    ),
    "simpleqa": Benchmark(
        title="SimpleQA",
        metric="correct",
        full=lambda: simpleqa.simpleqa(scorer="original"),
        to_sample=simpleqa_record_to_sample,
        around=_simpleqa,
    ),
}
"""In the order of the paper's Table 4."""
