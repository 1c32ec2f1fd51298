"""Sections of a config: problems, experts, rollout, reward, verifier, evaluation.

Each has the method that builds what it describes. The other sections stand beside what they
configure: `engine` in `policies/engines.py`, `model` in `policies/models.py`, `algorithm` in
`learning/algorithms.py`, `learner` in `learning/settings.py`, `trackers` in `trackers.py`,
`distillation` and `cold_start` in `imitation_settings.py`, and `annealing` in
`eapo_env/annealing.py`.

To add a built-in kind of experts: its pool in `eapo_env`, and its kind in `ExpertKind`,
`_EXPERTS_OWN` and `ExpertSettings.build` below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never, get_args

from eapo_agents.factories import Factory
from eapo_agents.policies import NO_TRUNCATION, Truncation
from eapo_agents.rollouts import DynamicSampling, GateDraws, TokenLimits
from eapo_env.demonstrator import worked_solution
from eapo_env.endpoints import Endpoint
from eapo_env.event_loop import run
from eapo_env.experts import (
    ErroneousExperts,
    ExpertPool,
    MeaninglessExperts,
    SilentExperts,
)
from eapo_env.f1_grader import F1Grader
from eapo_env.openai_experts import SYSTEM_PROMPT, OpenAIExperts, read_with_reasoning
from eapo_env.problems import AnswerKind, Columns, MissingColumnError, load_problems
from eapo_env.recordings import ReplayExperts
from eapo_env.reward import Reward, RewardRule
from eapo_env.spending import Budget
from eapo_env.synthetic import ProceduralExperts, synthetic_experts, synthetic_problems
from eapo_env.types import Problem
from eapo_env.validation import UserError, at_least, positive
from eapo_env.verifier import Grader, Verifier

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSettings(Factory):
    """The problems.

    Args:
        source: "synthetic", what `eapo_env.load_problems` takes (a name, a file, a hub id), or
            "python": the sequence of problems that `factory(**arguments)` returns.
        num_problems: number of synthetic problems.
        brackets: number of brackets of a synthetic problem, which is their sum.
        operations: number of operations in a synthetic bracket.
        carry_rate: the probability that a synthetic step carries or borrows; null is as it comes.
        seed: random seed of the synthetic problems.
        columns: columns of statement, answer and id in a file or data set; null is the default.
        split: split of a hub data set; null is its default.
        subset: subset of a hub data set that has several.
        limit: use the first `limit` problems only; null is all.
        answers: "math" refuses a gold answer that the verifier cannot check, "words" takes any,
            for `verifier.kind=f1` or a custom one.
        skip_bad: leave out rows that cannot be read or checked, with a warning that counts them.

    Raises:
        UserError: a value out of its range.
    """

    source: str = "synthetic"
    num_problems: int = 4096
    brackets: int = 3
    operations: int = 2
    carry_rate: float | None = None
    seed: int = 0
    columns: Columns | None = None
    split: str | None = None
    subset: str | None = None
    limit: int | None = None
    answers: AnswerKind = "math"
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None:
            at_least(1, self, "limit")
        if self.source == "python" and not self.factory:
            raise UserError("source=python needs factory=package.module:callable")

    @property
    def label(self) -> str:
        """The source's name; of a file, its name without suffix."""
        path = Path(self.source)
        return path.stem if path.suffix in (".jsonl", ".csv", ".parquet") else self.source

    def load(self) -> tuple[Problem, ...]:
        """Return the problems.

        Raises:
            UserError: they cannot be read, or there are none.
        """
        match self.source:
            case "synthetic":
                made = synthetic_problems(
                    self.num_problems,
                    brackets=self.brackets,
                    operations=self.operations,
                    carry_rate=self.carry_rate,
                    seed=self.seed,
                )
                return made[: self.limit]
            case "python":
                given = self.make("eapo.problems")
                problems = tuple(given) if isinstance(given, Iterable) else ()
                if not problems or not all(isinstance(one, Problem) for one in problems):
                    raise UserError(
                        f"{self.factory!r} must return problems (eapo_env.Problem), at least one,"
                        f" not {given!r:.200}"
                    )
                return problems[: self.limit]
            case _:
                try:
                    return load_problems(
                        self.source,
                        columns=self.columns,
                        split=self.split,
                        subset=self.subset,
                        limit=self.limit,
                        answers=self.answers,
                        skip_bad=self.skip_bad,
                    )
                except MissingColumnError as error:
                    error.add_note(
                        "On the command line: --set 'problems.columns={...}' for training, --set"
                        " 'evaluation.problems.columns={...}' for evaluation and --problems"
                    )
                    raise


ExpertKind = Literal[
    "synthetic", "synthetic-parts", "openai", "replay", "python", "meaningless", "silent"
]

_EXPERTS_OWN: dict[str, set[str]] = {
    "synthetic": {"error_rate"},
    "synthetic-parts": {"error_rate"},
    "openai": {
        *("endpoints", "extra_body", "preflight", "system_prompt", "cost_limit", "token_limit")
    },
    "replay": {"recording"},
    "python": {"factory", "arguments"},
    "meaningless": set(),
    "silent": set(),
}
"""The settings of each kind of experts, beside `batch_timeout_s`, which all have."""
assert set(_EXPERTS_OWN) == set(get_args(ExpertKind))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSettings(Factory):
    """The experts.

    Args:
        kind: "synthetic" solves the procedural problems, "synthetic-parts" only one bracket at a
            time, "openai" queries servers, "replay" answers from a recording, "meaningless" gives
            every query the same empty reply, "silent" never replies, and "python" is a custom pool:
            what `factory(**arguments)` returns.
        error_rate: probability that a synthetic expert is wrong.
        endpoints: the servers of "openai".
        extra_body: more fields of a request to them, or other values; null omits one, for models
            that refuse `temperature`, `top_p` or `max_tokens`.
        system_prompt: the instruction of every request; null is the default one, "" is none.
        batch_timeout_s: timeout for the replies to one consultation, the wait for a free call
            included; later replies are unavailable. In evaluations "openai" has none but
            `call_timeout_s` of an endpoint.
        preflight: "required" asks the endpoints of "openai" for their models before anything else,
            and refuses to start without; "skipped" starts in any case.
        cost_limit: the most that the tokens of "openai" may cost in a run, in the currency of
            `endpoints.price`. Once it is spent the gate refuses all queries, and the run goes on;
            null for no limit. Resuming keeps what the checkpoint says was spent.
        token_limit: as `cost_limit`, the most tokens of prompts and completions together.
        recording: the file of "replay".

    Raises:
        UserError: a setting that this kind does not use, or a value out of its range.
    """

    kind: ExpertKind = "synthetic"
    error_rate: float = 0.0
    endpoints: tuple[Endpoint, ...] = ()
    extra_body: Mapping[str, object] = field(default_factory=dict, hash=False)
    system_prompt: str | None = None
    batch_timeout_s: float = 300.0
    preflight: Literal["required", "skipped"] = "required"
    cost_limit: float | None = None
    token_limit: int | None = None
    recording: str = ""

    def __post_init__(self) -> None:
        refuse_foreign(self, "experts", _EXPERTS_OWN)
        positive(self, "batch_timeout_s")
        Budget(cost_limit=self.cost_limit, token_limit=self.token_limit)

    def check(self) -> None:
        """Ask the servers of "openai", if there are any, whether they serve the experts.

        Raises:
            UserError: they do not.
        """
        if self.kind != "openai" or self.preflight == "skipped":
            return
        pool = self.build()
        assert isinstance(pool, OpenAIExperts)
        try:
            run(pool.check())
        except UserError as error:
            raise UserError(f"{error}. experts.preflight=skipped starts without them") from None

    def build(self) -> ExpertPool:
        """Return the expert pool.

        Raises:
            UserError: the key of "openai" is not in the environment, the recording of "replay" is
                missing, or the factory is not found.
        """
        match self.kind:
            case "synthetic":
                return synthetic_experts(self.error_rate)
            case "synthetic-parts":
                return synthetic_experts(self.error_rate, parts_only=True)
            case "openai":
                for endpoint in self.endpoints:
                    endpoint.check_key()
                return OpenAIExperts(
                    endpoints=self.endpoints,
                    extra_body=self.extra_body,
                    system_prompt=(
                        SYSTEM_PROMPT if self.system_prompt is None else self.system_prompt
                    ),
                    batch_timeout_s=self.batch_timeout_s,
                    budget=Budget(cost_limit=self.cost_limit, token_limit=self.token_limit),
                )
            case "replay":
                if not Path(self.recording).is_file():
                    raise UserError(f"experts.recording: there is no file {self.recording!r}")
                return ReplayExperts(self.recording)
            case "python":
                pool: ExpertPool = self.make("eapo.experts")
                return pool
            case "meaningless":
                return MeaninglessExperts()
            case "silent":
                return SilentExperts()

    def without_batch_deadline(self) -> ExpertPool:
        """Return the same experts for evaluations, with no timeout but that of each call.

        All episodes of an evaluation start at once and queue for free calls: a timeout that
        includes the wait would measure the queue.

        Raises:
            UserError: as `build`.
        """
        pool = self.build()
        return replace(pool, batch_timeout_s=math.inf) if isinstance(pool, OpenAIExperts) else pool

    @property
    def evaluation_timeout_s(self) -> float:
        """The timeout of one consultation in evaluations; infinite if each call has its own."""
        return math.inf if self.kind == "openai" else self.batch_timeout_s

    def solvers(self, *, max_tokens: int, timeout_s: float) -> ExpertPool:
        """Return the same experts as solvers of whole problems, for distillation.

        Servers get no system prompt, and their reasoning is kept.

        Raises:
            UserError: as `build`, or experts that cannot solve whole problems.
        """
        match self.kind:
            case "synthetic":
                solver = ProceduralExperts(worked_solution, names=("student",))
                return ErroneousExperts(inner=solver, error_rate=self.error_rate)
            case "synthetic-parts" | "meaningless" | "silent":
                raise UserError(f"experts.kind={self.kind} cannot solve whole problems")
            case "openai" | "replay" | "python":
                pool = self.without_batch_deadline()
            case _:
                assert_never(self.kind)
        if not isinstance(pool, OpenAIExperts):
            return pool
        return replace(
            pool,
            endpoints=[replace(e, call_timeout_s=timeout_s) for e in pool.endpoints],
            system_prompt="",
            max_tokens=max_tokens,
            read=read_with_reasoning,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings(RewardRule):
    """The reward of an episode.

    Args:
        kind: "rule" is the paper's, with the penalties below; "python" a custom reward: what
            `factory(**arguments)` returns.
        format_reward: for a wrong answer in the right format (paper: 0.1).
        consultation_penalty: subtracted per query, at most 0.5 in all.
        overlong: DAPO's overlong punishment; null for none.
        factory: `package.module:callable`, or the name of an installed entry point.
        arguments: keyword arguments of the factory.

    Raises:
        UserError: a value out of its range, or a setting that this kind does not use.
    """

    kind: Literal["rule", "python"] = "rule"
    factory: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        RewardRule.__post_init__(self)
        rule = {"format_reward", "consultation_penalty", "overlong"}
        own = {"rule": rule, "python": {"factory", "arguments"}}
        refuse_foreign(self, "reward", own)

    def build(self) -> Reward:
        """Return the reward.

        Raises:
            UserError: a factory that is not found.
        """
        if self.kind == "rule":
            return RewardRule(
                format_reward=self.format_reward,
                consultation_penalty=self.consultation_penalty,
                overlong=self.overlong,
            )
        factory = Factory(factory=self.factory, arguments=self.arguments)
        reward: Reward = factory.make("eapo.rewards")
        return reward


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings(Factory):
    """The grader of answers.

    Args:
        kind: "math" is `eapo_env.Verifier`; "f1" is `eapo_env.F1Grader`, for answers in words;
            "python" a custom grader: what `factory(**arguments)` returns.
        time_limit_s: CPU time limit of one check; twice that in wall time is the hard limit.
        num_workers: worker processes, each running one check at a time.

    Raises:
        UserError: a value out of its range, or a setting that this kind does not use.
    """

    kind: Literal["math", "f1", "python"] = "math"
    time_limit_s: float = 1.0
    num_workers: int = 2

    def __post_init__(self) -> None:
        positive(self, "time_limit_s", "num_workers")
        own = {
            "math": {"time_limit_s", "num_workers"},
            "f1": set(),
            "python": {"factory", "arguments"},
        }
        refuse_foreign(self, "verifier", own)

    def build(self) -> Grader:
        """Return the grader.

        Raises:
            UserError: a factory that is not found.
        """
        if self.kind == "math":
            return Verifier(time_limit_s=self.time_limit_s, num_workers=self.num_workers)
        if self.kind == "f1":
            return F1Grader()
        grader: Grader = self.make("eapo.verifiers")
        return grader


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How episodes are played.

    Args:
        group_size: G, the trajectories per problem, at least 2: advantages compare them.
        temperature: sampling temperature of the policy, in evaluations too.
        truncation: truncated sampling in training.
        truncated_sampling: top-p, top-k and min-p remove ids from the sampler's distribution but
            not from the learner's, which biases every importance ratio. Training with them is
            "refused" unless this is "biased".
        wording: the prompts: "full" sentences, "few-shot" with an example before the problem, or
            "terse" for character-level models; "auto" follows the model: terse for the embedded
            one and models trained from it, full for any other.
        turn_budgets: a fractional turn budget is rounded at random per "member" of a group, so
            that episodes with experts and without are compared, or once per "group".
        gate_draws: each "member" of a group has draws of its own at the acceptance gate, or the
            "group" has common ones: then its rewards compare work, not random draws.
        help_for: experts may be consulted on "all" problems, or on those that a whole group has
            "failed_alone" just before: then a second group plays it as the annealing says (ours;
            as in NuRL, arXiv 2509.25666).
        steps_ahead: 1 plays training step s+1 while step s is learned, with the weights after step
            s-1: a staleness of one step, which the importance weights of the algorithm correct.
            0 plays a step after the one before is learned.
        sampling: dynamic sampling.
        limits: token limits.
    """

    group_size: int = 16
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    truncated_sampling: Literal["refused", "biased"] = "refused"
    wording: Literal["auto", "full", "few-shot", "terse"] = "auto"
    turn_budgets: Literal["member", "group"] = "member"
    gate_draws: GateDraws = "member"
    help_for: Literal["all", "failed_alone"] = "all"
    steps_ahead: Literal[0, 1] = 0
    sampling: DynamicSampling = DynamicSampling()
    limits: TokenLimits = TokenLimits()

    def __post_init__(self) -> None:
        at_least(2, self, "group_size")
        if self.truncated_sampling == "refused" and not self.truncation.keeps_all:
            raise UserError(
                f"training with {self.truncation} biases the ratios of learner and sampler:"
                " evaluations have evaluation.truncation; truncated_sampling=biased allows it here"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How the policy is evaluated: alone, on held-out problems.

    Args:
        problems: the held-out problems.
        samples_per_problem: k, the samples per problem.
        truncation: truncated sampling there, and in workflows, LeaP and play.
        every: training steps between evaluations; 0 evaluates only at the end.
        baseline: "evaluated" also evaluates the model before the first step, as step 0.
    """

    problems: ProblemSettings = ProblemSettings(num_problems=64, seed=1)
    samples_per_problem: int = 32
    truncation: Truncation = NO_TRUNCATION
    every: int = 0
    baseline: Literal["skipped", "evaluated"] = "skipped"

    def __post_init__(self) -> None:
        at_least(1, self, "samples_per_problem")
        at_least(0, self, "every")


def refuse_foreign(section: DataclassInstance, name: str, own: Mapping[str, set[str]]) -> None:
    """Check that a section changes only what its kind uses.

    Args:
        section: has a field `kind`.
        name: the section's name, for the message.
        own: the fields that each kind uses, beside those that all use.

    Raises:
        UserError: a field of another kind differs from its default.
    """
    kind: str = section.kind  # type: ignore[attr-defined]
    if kind == "python" and not section.factory:  # type: ignore[attr-defined]
        raise UserError(f"{name}.kind=python needs {name}.factory=package.module:callable")
    for each in fields(section):
        made = each.default_factory
        default = each.default if made is MISSING else made()
        users = " or ".join(other for other, names in own.items() if each.name in names)
        used = not users or each.name in own[kind]
        if not used and getattr(section, each.name) != default:
            raise UserError(f"{name}.{each.name} is for {name}.kind={users}, not {kind}")
