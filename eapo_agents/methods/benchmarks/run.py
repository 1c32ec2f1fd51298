"""[edge] Run the non-mathematical benchmarks against a served model, with the harness Inspect.

The harness has the data, the prompts, the graders, the sandbox and the logs; what is done here is
to serve the policy, to put experts before it where they are wanted, to hand it over, and to write
down what comes out.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from eapo_agents.files import json_lines, validated, write_text
from eapo_agents.methods.benchmarks.served_model import ServedModel, served
from eapo_agents.methods.workflows import Replicas
from eapo_agents.policies import NO_TRUNCATION, ApiSettings, Sampling, Truncation
from eapo_agents.rollouts import CHARS_A_TOKEN, MonitoredExperts
from eapo_agents.training import ExpertSettings
from eapo_env.experts import ExpertPool
from eapo_env.types import Rules
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

P = ParamSpec("P")
T = TypeVar("T")

NAMES = ("humaneval", "hle", "gpqa", "mmlu", "evalplus", "hotpotqa", "simpleqa")
"""The benchmarks, in the order of the paper's Table 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSettings:
    """How the benchmarks are run.

    Args:
        tasks: which, by name.
        sample: only the few rows that ship with this package, which need no download.
        limit: the most rows of each benchmark; None is all.
        max_tokens: of one response.
        temperature: of the policy.
        truncation: which ids it may sample.
        sandbox: where the harness runs generated code: "docker", or "local", which is a process of
            this machine without any isolation.
        grader: the model that grades HLE and SimpleQA, as the harness names it
            ("openai/gpt-4o"); None lets the policy grade itself, which shows that it runs and
            compares with nothing.
        max_connections: calls to the model under way at a time.

    Raises:
        UserError: a benchmark that is unknown, or a value out of its range.
    """

    tasks: Sequence[str] = NAMES
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
            if name not in NAMES:
                raise UserError(f"unknown benchmark {name!r}: they are {', '.join(NAMES)}")
        for name in ("limit", "max_tokens", "max_connections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkExperts:
    """Whose replies the policy reads before it answers (paper, Table 7).

    Args:
        experts: who; None asks replicas of the policy itself, each alone with the question.
        num_replies: experts asked in parallel.
        max_reply_tokens: the most of a reply that the policy reads.

    Raises:
        UserError: a number below 1, or experts that know procedural problems only.
    """

    experts: ExpertSettings | None = None
    num_replies: int = 3
    max_reply_tokens: int = 4096

    def __post_init__(self) -> None:
        for name in ("num_replies", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.experts and self.experts.kind in ("synthetic", "synthetic-parts"):
            raise UserError(
                f"experts.kind={self.experts.kind} knows procedural problems only:"
                " name a --preset with served experts, or set experts.kind and experts.endpoints"
            )

    def before(self, policy: Model, address: ServedModel, settings: BenchmarkSettings) -> Model:
        """Return the policy as a model of the harness that consults before it answers.

        Raises:
            UserError: as `ExpertSettings.pool`.
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
        from eapo_agents.methods.benchmarks.model import WORDS

        if self.experts:
            return MonitoredExperts(inner=self.experts.without_batch_deadline())
        fields = address.sampling_fields(settings.temperature, settings.truncation)
        own = {"top_k": None, "min_p": None} | fields  # the server's own words for these
        replica = ApiSettings(base_url=address.base_url, extra_body=own).policy(address.name)
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            truncation=settings.truncation,
        )
        return Replicas(model=replica, prompts=WORDS, sampling=sampling)


def run_benchmarks(
    model: str,
    settings: BenchmarkSettings,
    folder: Path,
    experts: BenchmarkExperts | None = None,
) -> tuple[BenchmarkResult, ...]:
    """Serve a model and return its results, which are also written to `folder/results.json`.

    Without experts it answers alone. What is finished is kept beside that file until all is, and
    the same call goes on after an interruption.

    Raises:
        UserError: the harness is not installed, or what is kept is of another model or settings.
        ChildProcessError, TimeoutError: the model could not be served.
    """
    if find_spec("inspect_evals") is None:
        raise UserError("the harness is not installed: pip install 'eapo[benchmarks]'")
    from inspect_ai.model import get_model

    subject = {
        "model": model,
        "settings": asdict(settings),
        "experts": asdict(experts) if experts else None,
    }
    kept = Kept.open(folder / "results.json.partial", subject)
    with served(model) as address:
        name = f"openai-api/eapo/{address.name}"
        policy = get_model(name, base_url=address.base_url, api_key="none")
        asked = experts.before(policy, address, settings) if experts else policy
        results = evaluate_model(
            asked,
            settings,
            folder,
            grader=policy,
            kept=kept,
            fields=address.sampling_fields(settings.temperature, settings.truncation),
        )
    report = {**subject, "results": [asdict(result) for result in results]}
    text = json.dumps(report, indent=1) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    kept.path.unlink()
    return results


def evaluate_model(
    policy: Model,
    settings: BenchmarkSettings,
    folder: Path,
    *,
    grader: Model,
    kept: Kept | None = None,
    fields: Mapping[str, object] = MappingProxyType({}),
) -> tuple[BenchmarkResult, ...]:
    """Return the results of a model of the harness, in the order of the settings' tasks.

    The grader is asked where the settings name none. What is kept is not run again. `fields` are
    sent with every request to the policy.

    The harness's logs go to `folder/logs`. A benchmark that fails, because its data cannot be
    downloaded say, says so in its result and does not keep the others from being run.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    found = dict(kept.results) if kept else {}
    for name in settings.tasks:
        if name not in found:
            found[name] = _run(name, policy, settings, folder, grader, fields)
            if kept:
                kept.add(found[name])
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

    from eapo_agents.methods.benchmarks.tasks import BENCHMARKS, DOCKER

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


def interruptible(run: Callable[P, T]) -> Callable[P, T]:
    """Return a function that Ctrl-C ends, though the harness takes Ctrl-C for a failure."""

    def interrupted_or(*args: P.args, **kwargs: P.kwargs) -> T:
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

    return interrupted_or


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """What one benchmark found.

    Args:
        name, title: of the benchmark.
        status: the harness's: "success", or how it failed.
        samples: rows that were answered.
        error: why it, or the first row of it that did, failed; empty where nothing failed.
        value: the paper's column, as a share; None where nothing was graded.
        metrics: everything the harness measured, by `scorer/metric`.
        log: the harness's own log, which holds every sample.
    """

    name: str
    title: str
    status: str
    samples: int
    error: str = ""
    value: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The results of benchmarks that are not all finished: what they are of, then one a line.

    A benchmark of which anything failed is not kept: it is run again.
    """

    path: Path
    results: Mapping[str, BenchmarkResult]

    @classmethod
    def open(cls, path: Path, subject: Mapping[str, object]) -> Kept:
        """Return what a file keeps; the file is made if it is not there.

        Raises:
            UserError: the file keeps results of something else, or none.
        """
        subject = json.loads(json.dumps(subject))
        rows = json_lines(path) or [subject]
        if rows[0] != subject:
            raise UserError(
                f"{path} keeps results of another model or settings; delete it to start anew"
            )
        results = [validated(row, BenchmarkResult, path) for row in rows[1:]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        return cls(path=path, results={result.name: result for result in results})

    def add(self, result: BenchmarkResult) -> None:
        """Keep a result."""
        if result.status == "success" and not result.error:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
