"""The seven non-mathematical benchmarks (paper, Tables 4 and 7) as tasks of the harness Inspect.

Five are `inspect_evals`' own tasks. It lacks EvalPlus and HotpotQA: those are put together here
from the harness's parts (data loading, solver, scorer, sandbox). With `sample`, each task reads the
rows that ship with this package, in the schema of the real data, and is graded by the same scorer.
The harness is imported when a task is made: the list of benchmarks is there without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.dataset import Dataset, Sample

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
class Parts:
    """What the tasks of a benchmark are made of.

    Args:
        full: returns the task on the real data, which is downloaded.
        to_sample: turns a row of the real data into a sample of the harness.
        around: turns a data set into the task on it.
    """

    full: Callable[[], Task]
    to_sample: Callable[[dict[str, Any]], Sample]
    around: Callable[[Dataset], Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark of the paper's Table 4.

    Args:
        title: as the paper writes it.
        metric: the harness's metric in the paper's column, by whichever scorer.
        parts: imports the harness and returns what the tasks are made of.
        runs_code: responses are run, in the harness's sandbox.
    """

    title: str
    metric: str
    parts: Callable[[], Parts]
    runs_code: bool = False

    def task(self, name: str, *, sample: bool) -> Task:
        """Return the task on the real data, or on the rows that ship with this package."""
        from inspect_ai import task_with

        parts = self.parts()
        task = parts.around(_shipped(name, parts.to_sample)) if sample else parts.full()
        return task_with(task, name=name)


def _shipped(name: str, to_sample: Callable[[dict[str, Any]], Sample]) -> Dataset:
    from inspect_ai.dataset import json_dataset

    rows = resources.files("eapo_agents.methods.benchmarks") / "rows" / f"{name}.jsonl"
    with resources.as_file(rows) as path:
        return json_dataset(str(path), to_sample)


def _humaneval() -> Parts:
    from inspect_evals import humaneval
    from inspect_evals.humaneval.humaneval import record_to_sample

    return Parts(full=humaneval.humaneval, to_sample=record_to_sample(), around=_code)


def _evalplus() -> Parts:
    from inspect_evals.humaneval.humaneval import record_to_sample
    from inspect_evals.utils.huggingface import hf_dataset

    def full() -> Task:
        path, to_sample = "evalplus/humanevalplus", record_to_sample()
        return _code(hf_dataset(path, "test", sample_fields=to_sample, revision="main"))

    return Parts(full=full, to_sample=record_to_sample(), around=_code)


def _code(dataset: Dataset) -> Task:
    from inspect_ai import Task
    from inspect_ai.solver import generate
    from inspect_evals.humaneval.humaneval import verify

    return Task(dataset=dataset, solver=generate(), scorer=verify(), sandbox=DOCKER)


def _gpqa() -> Parts:
    from inspect_evals import gpqa
    from inspect_evals.gpqa.gpqa import record_to_sample

    return Parts(full=gpqa.gpqa_diamond, to_sample=record_to_sample, around=_choices)


def _mmlu() -> Parts:
    from inspect_evals import mmlu
    from inspect_evals.mmlu.mmlu import record_to_sample_mmlu

    return Parts(
        full=lambda: mmlu.mmlu_0_shot(cot=True), to_sample=record_to_sample_mmlu, around=_choices
    )


def _choices(dataset: Dataset) -> Task:
    from inspect_ai import Task
    from inspect_ai.scorer import choice
    from inspect_ai.solver import multiple_choice

    return Task(dataset=dataset, solver=multiple_choice(cot=True), scorer=choice())


def _hle() -> Parts:
    from inspect_ai import Task
    from inspect_ai.solver import generate
    from inspect_evals import hle
    from inspect_evals.hle.dataset import record_to_sample
    from inspect_evals.utils import scorers_from_spec

    return Parts(
        full=lambda: hle.hle(
            include_multi_modal=False, only_hle_verified_gold=False, scorer=dict(_HLE_JUDGE)
        ),
        to_sample=record_to_sample,
        around=lambda dataset: Task(
            dataset=dataset, solver=generate(), scorer=scorers_from_spec(dict(_HLE_JUDGE))
        ),
    )


def _hotpotqa() -> Parts:
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import exact, f1
    from inspect_ai.solver import generate
    from inspect_evals.utils.huggingface import hf_dataset

    def to_sample(row: dict[str, Any]) -> Sample:
        asked = f"{row['question']}\n\nReply with the answer alone, in as few words as possible."
        return Sample(id=row["id"], input=asked, target=row["answer"])

    def around(dataset: Dataset) -> Task:
        return Task(dataset=dataset, solver=generate(), scorer=[f1(), exact()])

    def full() -> Task:
        path, split = "hotpotqa/hotpot_qa", "validation"
        return around(
            hf_dataset(path, split, name="fullwiki", sample_fields=to_sample, revision="main")
        )

    return Parts(full=full, to_sample=to_sample, around=around)


def _simpleqa() -> Parts:
    from inspect_ai import Task
    from inspect_ai.solver import generate
    from inspect_evals import simpleqa
    from inspect_evals.simpleqa.dataset import simpleqa_record_to_sample
    from inspect_evals.simpleqa.scorer import simpleqa_scorer

    return Parts(
        full=lambda: simpleqa.simpleqa(scorer="original"),
        to_sample=simpleqa_record_to_sample,
        around=lambda dataset: Task(dataset=dataset, solver=generate(), scorer=simpleqa_scorer()),
    )


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "humaneval": Benchmark(title="HumanEval", metric="accuracy", parts=_humaneval, runs_code=True),
    "hle": Benchmark(title="HLE", metric="hle/accuracy", parts=_hle),
    "gpqa": Benchmark(title="GPQA", metric="accuracy", parts=_gpqa),
    "mmlu": Benchmark(title="MMLU", metric="accuracy", parts=_mmlu),
    "evalplus": Benchmark(title="EvalPlus", metric="accuracy", parts=_evalplus, runs_code=True),
    "hotpotqa": Benchmark(title="HotpotQA", metric="mean", parts=_hotpotqa),
    "simpleqa": Benchmark(title="SimpleQA", metric="correct", parts=_simpleqa),
}
"""The benchmarks by name, in the order of the paper's Table 4."""
