"""[edge] Run the non-mathematical benchmarks against a served model, with the harness Inspect.

The harness has the data, the prompts, the graders, the sandbox and the logs. Done here: the policy
is served, experts are put before it where they are wanted, and the results are written down.

    FOLDER/results.json          what was run, and every metric
    FOLDER/results.json.partial  until all are finished: what is run, then one line a benchmark
    FOLDER/logs/                 the harness's logs, with every sample
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from eapo_agents.files import resume_journal, write_text
from eapo_agents.methods.benchmarks.served_model import ServedModel, serve_model
from eapo_agents.methods.benchmarks.tasks import BENCHMARKS, DOCKER
from eapo_agents.methods.workflows import Replicas
from eapo_agents.policies import NO_TRUNCATION, ModelSettings, OpenAIEngine, Sampling, Truncation
from eapo_agents.rollouts import CHARS_A_TOKEN
from eapo_agents.training import ExpertSettings
from eapo_env.experts import ExpertPool
from eapo_env.guarded_experts import GuardedExperts
from eapo_env.json_lines import JsonLines
from eapo_env.types import Rules
from eapo_env.validation import UserError, at_least

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSettings:
    """How the benchmarks are run.

    Args:
        tasks: names of benchmarks.
        sample: only the few rows that ship with this package, which need no download.
        limit: the most rows of each benchmark; None is all.
        max_tokens: the most tokens of a response.
        temperature: of the policy.
        truncation: of the policy's distribution over tokens (top-p, top-k, min-p).
        sandbox: where the harness runs generated code: "docker", or "local": a process on this
            machine without isolation.
        grader: the model that grades HLE and SimpleQA, as the harness names it
            ("openai/gpt-4o"); None lets the policy grade itself: a check that everything runs,
            whose numbers compare with no others.
        max_connections: the most concurrent calls to the model.

    Raises:
        UserError: an unknown benchmark, or a value out of its range.
    """

    tasks: Sequence[str] = tuple(BENCHMARKS)
    sample: bool = False
    limit: int | None = None
    max_tokens: int = 20_480
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    sandbox: Literal["docker", "local"] = "docker"
    grader: str | None = None
    max_connections: int = 16

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in BENCHMARKS:
                raise UserError(f"unknown benchmark {name!r}: they are {', '.join(BENCHMARKS)}")
        at_least(1, self, "max_tokens", "max_connections")
        at_least(0, self, "temperature")
        if self.limit is not None:
            at_least(1, self, "limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkExperts:
    """The experts whose replies the policy reads before it answers (paper, Table 7).

    Args:
        experts: the pool; None asks replicas of the policy itself, each alone with the question.
        num_replies: experts asked in parallel.
        max_reply_tokens: longer replies are cut.

    Raises:
        UserError: a number below 1, or experts that know procedural problems only.
    """

    experts: ExpertSettings | None = None
    num_replies: int = 3
    max_reply_tokens: int = 4096

    def __post_init__(self) -> None:
        at_least(1, self, "num_replies", "max_reply_tokens")
        if self.experts and self.experts.kind in ("synthetic", "synthetic-parts"):
            raise UserError(
                f"experts.kind={self.experts.kind} knows procedural problems only:"
                " name a --preset with served experts, or set experts.kind and experts.endpoints"
            )

    def before(self, policy: Model, address: ServedModel, settings: BenchmarkSettings) -> Model:
        """Return the policy as a model of the harness that consults before it answers.

        Raises:
            UserError: as `ExpertSettings.build`.
        """
        from inspect_ai.model import GenerateConfig, Model

        from eapo_agents.methods.benchmarks.model import Consulting

        rules = Rules(
            turn_budget=2,
            queries_per_turn=self.num_replies,
            max_reply_chars=CHARS_A_TOKEN * self.max_reply_tokens,
        )
        return Model(Consulting(policy, self._pool(address, settings), rules), GenerateConfig())

    def _pool(self, address: ServedModel, settings: BenchmarkSettings) -> ExpertPool:
        from eapo_agents.methods.benchmarks.model import PROMPTS

        if self.experts:
            self.experts.check()
            return GuardedExperts(
                inner=self.experts.without_batch_deadline(),
                timeout_s=self.experts.evaluation_timeout_s,
            )
        fields = address.sampling_fields(settings.temperature, settings.truncation)
        body = {"top_k": None, "min_p": None} | fields  # the fields that this server reads
        replica = OpenAIEngine(base_url=address.base_url, extra_body=body).build(
            ModelSettings(path=address.name)
        )
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            truncation=settings.truncation,
        )
        return Replicas(model=replica, prompts=PROMPTS, sampling=sampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """The result of one benchmark.

    Args:
        name, title: of the benchmark.
        status: the harness's: "success", or how it failed.
        samples: number of rows that were answered.
        error: of the benchmark, or of the first of its rows that failed; empty without a failure.
        value: the paper's column, from 0 to 1; None where nothing was graded.
        metrics: everything the harness measured, by `scorer/metric`.
        log: path of the harness's log, which holds every sample.
    """

    name: str
    title: str
    status: str
    samples: int
    error: str = ""
    value: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    log: str = ""

    @property
    def failed(self) -> bool:
        """Whether the benchmark, or any row of it, failed."""
        return self.status != "success" or bool(self.error)


def run_benchmarks(
    model: str,
    settings: BenchmarkSettings,
    folder: str | PathLike[str],
    experts: BenchmarkExperts | None = None,
) -> tuple[BenchmarkResult, ...]:
    """Return the results of a model, which is served for the run; write them to a folder.

    Finished benchmarks are kept in a journal until all are: called again after an interruption or a
    failure, it runs the others only.

    Args:
        model: a model folder or hub id.
        settings: which benchmarks, and how they are run.
        folder: where `results.json` and the harness's logs go.
        experts: asked before the policy answers; None lets it answer alone.

    Raises:
        UserError: the harness is not installed, or the journal is of another model or settings.
        ServerError: the model could not be served.
    """
    if find_spec("inspect_evals") is None:
        raise UserError("the harness is not installed: pip install 'eapo[benchmarks]'")
    from inspect_ai.model import get_model

    folder = Path(folder)
    subject = {
        "model": model,
        "settings": asdict(settings),
        "experts": asdict(experts) if experts else None,
    }
    journal = JsonLines(folder / "results.json.partial")
    finished = resume_journal(journal, subject, BenchmarkResult)
    with serve_model(model) as address:
        name = f"openai-api/eapo/{address.name}"
        policy = get_model(name, base_url=address.base_url, api_key="none")
        asked = experts.before(policy, address, settings) if experts else policy
        results = evaluate_model(
            asked,
            settings,
            folder,
            grader=policy,
            finished=finished,
            journal=journal,
            fields=address.sampling_fields(settings.temperature, settings.truncation),
        )
    report = {**subject, "results": [asdict(result) for result in results]}
    write_text(folder / "results.json", json.dumps(report, indent=1) + "\n")
    if not any(result.failed for result in results):  # what failed is run again, the rest is not
        journal.path.unlink()
    return results


def evaluate_model(
    policy: Model,
    settings: BenchmarkSettings,
    folder: Path,
    *,
    grader: Model,
    finished: Sequence[BenchmarkResult] = (),
    journal: JsonLines | None = None,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> tuple[BenchmarkResult, ...]:
    """Return the results of a model of the harness, in the order of the settings' tasks.

    A benchmark that fails, because its data cannot be downloaded say, has the error in its result;
    the others are run all the same.

    Args:
        policy: the model that answers.
        settings: which benchmarks, and how they are run.
        folder: the harness's logs go to `folder/logs`.
        grader: the model that grades where the settings name none.
        finished: results that are not computed again.
        journal: gets each new result of a benchmark in which nothing failed.
        fields: sent with every request to the policy.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    found = {result.name: result for result in finished}
    for name in settings.tasks:
        if name not in found:
            found[name] = _run(name, policy, settings, folder, grader, fields)
            if journal and not found[name].failed:
                journal.append(asdict(found[name]))
    return tuple(found[name] for name in settings.tasks)


def _run(
    name: str,
    policy: Model,
    settings: BenchmarkSettings,
    folder: Path,
    grader: Model,
    fields: Mapping[str, object],
) -> BenchmarkResult:
    from inspect_ai import eval

    benchmark = BENCHMARKS[name]
    sandbox = DOCKER if settings.sandbox == "docker" else settings.sandbox
    failed = BenchmarkResult(name=name, title=benchmark.title, status="error", samples=0)
    try:
        (log,) = interruptible(eval)(
            benchmark.task(name, sample=settings.sample),
            model=policy,
            model_roles={"grader": settings.grader or grader},
            sandbox=sandbox if benchmark.runs_code else None,
            limit=settings.limit,
            log_dir=str(folder / "logs"),
            display="none",
            fail_on_error=False,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.truncation.top_p,
            extra_body=dict(fields),
            max_connections=settings.max_connections,
        )
    except Exception as error:
        return replace(failed, error=f"{type(error).__name__}: {error}")
    return _result(failed, benchmark.metric, log)


def _result(failed: BenchmarkResult, wanted: str, log: EvalLog) -> BenchmarkResult:
    errors = [log.error, *(sample.error for sample in log.samples or ())]
    failed = replace(
        failed,
        error=next((error.message for error in errors if error), ""),
        log=str(log.location),
    )
    if log.results is None:
        return failed
    measured = {
        f"{score.name}/{metric.name}": float(metric.value)
        for score in log.results.scores
        for metric in score.metrics.values()
    }
    metrics = {name: None if math.isnan(value) else value for name, value in measured.items()}
    return replace(
        failed,
        status=log.status,
        samples=log.results.completed_samples,
        value=next((v for name, v in metrics.items() if name.endswith(f"/{wanted}")), None),
        metrics=metrics,
    )


def interruptible(run: Callable[P, T]) -> Callable[P, T]:
    """Return a function that Ctrl-C interrupts, though the harness takes Ctrl-C for a failure."""

    def interruptible_run(*args: P.args, **kwargs: P.kwargs) -> T:
        came: list[int] = []

        def note(number: int, frame: FrameType | None) -> None:
            came.append(number)
            signal.default_int_handler(number, frame)

        before = signal.signal(signal.SIGINT, note)
        try:
            return run(*args, **kwargs)
        finally:
            signal.signal(signal.SIGINT, before)
            if came:
                raise KeyboardInterrupt

    return interruptible_run
