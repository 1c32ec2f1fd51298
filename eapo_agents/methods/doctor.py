"""[edge] Whether a model can be a policy here: what a run would find out, before an hour is spent.

The parts are examined one after the other. First what needs neither the model's weights nor a
server of the policy: the settings, the problems, the experts, the architecture, the chat template,
the length of the prompts, the learner's memory. Then, on the model itself, a few trial episodes,
the check at the start, one update, and from their times the run that is asked for. What fails is
told in the words of the error that a run would have.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from eapo_agents.evaluation import EpisodeRow, episode_row, two_examples
from eapo_agents.learning import (
    SINGLE_PROCESS,
    Learner,
    LearnerSpec,
    LoRA,
    check_layout,
    check_policy,
    check_sampler,
    check_saves,
)
from eapo_agents.methods.estimates import LearnerMemory, RunTime, Speed, Timed, learner_memory
from eapo_agents.policies import (
    Chat,
    Engine,
    HFEngine,
    OpenAIEngine,
    Policy,
    VLLMEngine,
    VLLMServerEngine,
    attention_window,
    end_ids,
    load_model,
    outline_model,
    usable_positions,
)
from eapo_agents.rollouts import Demonstration, Group, Rollout, Trajectory, derive_seed, gather
from eapo_agents.serving import Control, ServerError
from eapo_agents.training import (
    ProblemSettings,
    ScheduledRollout,
    TrainConfig,
    check_before_loading,
    check_plays_ahead,
    fitted_to_model,
    make_rollout,
    peak_memory_mib,
    policy_of,
    prompts_of,
    strangers,
    training_policy,
    without,
)
from eapo_env.actions import Consult
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.guarded_experts import GuardedExperts
from eapo_env.prompts import cut
from eapo_env.reachability import NoAnswerError, endpoint_at, reached
from eapo_env.types import ExpertReply, Message, Problem, Query, Reply, Rules, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Grader, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_TRIALS = 8
"""Trial episodes."""

T = TypeVar("T")

_SUM = Problem(id="sum", statement="What is 6 * 7?", answer="42")
_MANY = 0.5
"""The share of trials from which a fault is pointed out."""
_TIMING_S = 20.0
"""Larger numbers of episodes are timed until this has passed."""
_ROWS_OF_A_SERVER = 256
"""What one of `eapo serve-policy` decodes together, by default."""
_MOMENTS = {"adamw": 2, "adafactor": 0, "sgd": 0}
_EXPERT_PORT, _POLICY_PORT = 8000, 8100

Grade = Literal["good", "look", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one part.

    Args:
        part: its name.
        text: in a sentence.
        verdict: "good"; "look" for what may spoil a run; "bad" for what prevents it.
        episode: a trial episode that shows it.
    """

    part: str
    text: str
    verdict: Grade = "good"
    episode: EpisodeRow | None = None


Findings = Generator[Finding, None, T]
"""What is found of a part, as it is found, and what the next parts take from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
    train: Sequence[Problem] = ()
    held_out: Sequence[Problem] = ()


def examine(config: TrainConfig) -> Iterator[Finding]:
    """Yield what is found of a config's problems, experts and model, as it is found."""
    config = fitted_to_model(config)
    with asyncio.Runner() as runner:
        settled = yield from _refused("settings", _settings(config))
        problems = yield from _problems(config)
        experts = yield from _refused("experts", _experts(config, problems.train, runner))
        examination = _Examination(
            config=config,
            problems=problems,
            experts=experts or SilentExperts(),
            runner=runner,
            prevented="" if settled else "the settings prevent it",
        )
        yield from _refused("policy", examination.findings())


def _refused(part: str, findings: Findings[T]) -> Findings[T | None]:
    """Yield the findings of a part; an error that a run would have ends them, and is the last."""
    import torch

    try:
        return (yield from findings)
    except UserError as error:
        told = "; ".join([str(error), *getattr(error, "__notes__", [])])
        yield Finding(part=part, text=told, verdict="bad")
    except torch.OutOfMemoryError as error:
        told = (
            f"the device's memory is too small (docs/scaling.md): {str(error).partition('. ')[0]}"
        )
        yield Finding(part=part, text=told, verdict="bad")
    return None


def _settings(config: TrainConfig) -> Findings[TrainConfig]:
    """Yield nothing; return the settings with which a training would begin."""
    yield from ()
    check_before_loading(config, None)
    check_plays_ahead(config)
    return config


def _problems(config: TrainConfig) -> Findings[_Problems]:
    """Yield how many problems there are; return none of a kind that cannot be read."""
    held_out = yield from _refused("held-out problems", _loaded(config.evaluation.problems))
    train = yield from _refused("problems", _loaded(config.problems))
    if train and held_out:
        train = yield from _refused("problems", _trained_on(held_out, train))
    return _Problems(train=train or (), held_out=held_out or ())


def _loaded(settings: ProblemSettings) -> Findings[Sequence[Problem]]:
    """Yield nothing; return the problems."""
    yield from ()
    return settings.load()


def _trained_on(
    held_out: Sequence[Problem], problems: Sequence[Problem]
) -> Findings[Sequence[Problem]]:
    train = without(held_out, problems)
    yield Finding(part="problems", text=f"{len(train)} to train on, {len(held_out)} held out")
    return train


# The experts.


def experts_at(urls: Sequence[str]) -> Findings[tuple[Endpoint, ...]]:
    """Yield which servers of experts do not answer; return the endpoints of the others.

    Raises:
        UserError: one lists no models.
    """
    found = []
    for url in urls:
        try:
            found.append(asyncio.run(endpoint_at(url)))
        except NoAnswerError as error:
            told = f"{error}; {_start_expert(url, 'MODEL')}"
            yield Finding(part="experts", text=told, verdict="bad")
    return tuple(found)


def _experts(
    config: TrainConfig, problems: Sequence[Problem], runner: asyncio.Runner
) -> Findings[ExpertPool]:
    """Yield whether the experts answer a question, and rightly; return those that can be asked."""
    settings = config.experts
    if config.schedule.rules_at(1).is_alone:
        yield Finding(part="experts", text="none: the run is alone from its first step")
        return SilentExperts()
    match settings.kind:
        case "silent":
            yield Finding(part="experts", text="experts.kind=silent: none replies", verdict="look")
            return settings.build()
        case "replay":  # which answers the questions of its recording alone
            pool = settings.build()
            yield Finding(part="experts", text=f"replies are those of {settings.recording}")
            return pool
    if problems and (told := strangers(config, problems)):
        yield Finding(part="experts", text=told, verdict="look")
    with closing(config.verifier.build()) as grader:
        test = _test(config, problems, grader)
        if settings.kind != "openai":
            pool = settings.build()
            slots = max(1, config.schedule.rules_at(1).queries_per_turn)
            yield from runner.run(test.asked(pool, slots)) if test else ()
            return pool
        asked = runner.run(gather(_endpoint(config, one, test) for one in settings.endpoints))
    for _, findings in asked:
        yield from findings
    endpoints = tuple(endpoint for endpoint, _ in asked if endpoint)
    return replace(settings, endpoints=endpoints).build() if endpoints else SilentExperts()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """A problem that experts are asked, and what grades their replies."""

    problem: Problem
    grader: Grader
    timeout_s: float

    async def asked(self, pool: ExpertPool, slots: int) -> list[Finding]:
        """Return what each expert replies to the question."""
        text = self.problem.statement
        guarded = GuardedExperts(inner=pool, timeout_s=self.timeout_s)
        replies = await guarded.ask([Query(text=text, slot=slot) for slot in range(slots)])
        by_name = {reply.expert: reply for reply in reversed(replies)}
        return [await self._graded(reply) for reply in reversed(by_name.values())]

    async def _graded(self, reply: ExpertReply) -> Finding:
        text = reply.text if isinstance(reply, Reply) else ""
        [verdict] = await self.grader.averify([(text, self.problem.answer)])
        return _answer(self.problem, reply, verdict)


def _test(config: TrainConfig, problems: Sequence[Problem], grader: Grader) -> _Test | None:
    """Return a sum for servers, unless answers are words; the first problem for other experts."""
    is_sum = config.experts.kind == "openai" and config.verifier.kind == "math"
    if not (is_sum or problems):
        return None
    problem = _SUM if is_sum else problems[0]
    return _Test(problem=problem, grader=grader, timeout_s=config.experts.batch_timeout_s)


def _answer(problem: Problem, reply: ExpertReply, verdict: Verdict) -> Finding:
    part, question = f"expert {reply.expert}".rstrip(), cut(problem.statement, 200)
    match reply:
        case Reply(text=text) if verdict.correct:
            told = f"answers {question!r} with {cut(text, 200)!r}, which is right"
            return Finding(part=part, text=told)
        case Reply(text=text):
            told = (
                f"answers {question!r} with {cut(text, 200)!r}, and the answer is"
                f" {problem.answer!r}; an expert on parts need not know the whole"
            )
            return Finding(part=part, text=told, verdict="look")
        case Unavailable() if not reply.is_failure:
            told = f"has no answer to {question!r}; an expert on parts need not know the whole"
            return Finding(part=part, text=told, verdict="look")
        case Unavailable(reason=reason):
            told = f"does not answer {question!r}: {reason}"
            return Finding(part=part, text=told, verdict="bad")


async def _endpoint(
    config: TrainConfig, endpoint: Endpoint, test: _Test | None
) -> tuple[Endpoint | None, list[Finding]]:
    """Return the endpoint with the models that it serves, None if it serves none; what is found."""
    reach = await reached(endpoint)
    named = tuple(dict.fromkeys(endpoint.models))
    there = tuple(model for model in named if not reach.failure and model not in reach.missing)
    prevented: Grade = "bad" if config.experts.preflight == "required" else "look"
    told = f"serves {', '.join(named)}"
    if reach.failure:
        started = "" if endpoint.api_key_env else f"; {_start_expert(endpoint.base_url, *named)}"
        told = reach.failure + started
    elif reach.missing:
        told = f"{reach.reason}: name one that it serves in experts.endpoints"
    verdict = prevented if reach.reason else "good"
    findings = [Finding(part=endpoint.base_url, text=told, verdict=verdict)]
    if not there:
        return None, findings
    if test:
        once = replace(config.experts, endpoints=(replace(endpoint, models=there),))
        findings += await test.asked(once.build(), len(there))
    served = tuple(model for model in endpoint.models if model in there)
    return replace(endpoint, models=served), findings


def _start_expert(url: str, *models: str) -> str:
    """Return how a server of experts is started; each has one model."""
    return "; ".join(_start(f"eapo serve-expert {one}", url, _EXPERT_PORT) for one in models)


def _start(command: str, url: str, usual_port: int) -> str:
    where = urlsplit(url)
    port = f" --port {where.port}" if where.port not in (None, usual_port) else ""
    host = "" if where.hostname in ("127.0.0.1", "localhost", "::1") else f" on {where.hostname}"
    return f"start it{host}: {command}{port}"


# The model.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examination:
    """The examination of the model.

    Args:
        experts: those that can be asked.
        prevented: why nothing can be played; "" if nothing is known yet.
    """

    config: TrainConfig
    problems: _Problems
    experts: ExpertPool
    runner: asyncio.Runner
    prevented: str = ""

    def findings(self) -> Findings[None]:
        """Yield what needs neither weights nor servers, then the rest if nothing prevents it."""
        config = self.config
        if isinstance(config.engine, OpenAIEngine):
            policy_of(config)  # which says that it gives no tokens
        outline, tokenizer = outline_model(config.model)
        yield _weights(outline, config)
        chat = Chat(tokenizer)
        yield from _template(chat)
        servers = [_server(config, root) for root in _roots(config.engine)]
        yield from (finding for _, finding in servers)
        context = _context(config.engine, outline, [length for length, _ in servers if length])
        prompts = _Prompts.of(config, chat, self.problems.train, context)
        yield prompts.finding(config)
        memory = _memory(config, outline, prompts.longest_episode)
        device, room = _device(config)
        num_processes = memory.num_processes(room)
        yield _memory_finding(memory, num_processes, f"{device} has {_size(room)}")
        if self.prevented:
            yield _unplayed(self.prevented)
        elif not all(length for length, _ in servers):
            yield _tokens(tokenizer, end_ids(None, tokenizer))
            yield _unplayed("a server of the policy does not answer")
        elif not prompts.short:
            yield _unplayed("there is no problem to play")
        elif num_processes != 1 and isinstance(config.engine, HFEngine | VLLMEngine):
            yield _unplayed("the learner does not fit into this process, where the policy samples")
        else:
            loaded = load_model(config.model) if num_processes == 1 else (outline, tokenizer)
            with closing(training_policy(config, *loaded)) as policy:
                yield from self._on_policy(policy, prompts.short, loaded[0], num_processes)

    def _on_policy(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        model: PreTrainedModel,
        num_processes: int | None,
    ) -> Findings[None]:
        """Yield what is found by playing and, if the learner fits into the process, by learning."""
        config, runner = self.config, self.runner
        check = runner.run(check_policy(policy, config.learner.rounding))
        yield _tokens(policy.tokenizer, check.ends)
        rollout = make_rollout(config, policy, experts=self.experts)
        played = runner.run(_trial(config, rollout, problems))
        yield _trial_finding(played)
        pace = runner.run(_pace(config, rollout, problems))
        yield pace.finding
        if num_processes == 1:
            learner = _learner(config, model)
            yield from _check(config, learner, policy, runner)
            update_s = yield from _update(config, learner, played, pace.groups)
            yield _run(config, pace, update_s, len(self.problems.held_out))
        else:
            told = "not tried: the learner does not fit into this process"
            yield Finding(part="update", text=told, verdict="look")


def _unplayed(reason: str) -> Finding:
    told = f"not played, and no speed is measured: {reason}"
    return Finding(part="trial", text=told, verdict="look")


def _weights(outline: PreTrainedModel, config: TrainConfig) -> Finding:
    number = sum(weight.numel() for weight in outline.parameters())
    dtype = str(outline.dtype).removeprefix("torch.")
    return Finding(
        part="model",
        text=f"{type(outline).__name__}, {number / 1e6:.1f} million parameters in {dtype}, sampled"
        f" by engine.kind={config.engine.kind}",
    )


def _template(chat: Chat) -> Iterator[Finding]:
    """Yield what the chat template does: `Chat` has checked that it takes two turns of a user."""
    tokenizer = chat.tokenizer
    own = len(chat.opening([Message("user", "x")])) - 1
    system = "has a system role" if chat.has_system_role else "has no system role"
    template = str(tokenizer.chat_template)
    if chat.opened:
        thinking = "opens the reasoning by itself"
    elif "enable_thinking" in template:
        thinking = "lets the model reason or not (model.template.enable_thinking)"
    else:
        thinking = "knows no reasoning"
    yield Finding(
        part="chat template",
        text=f"takes several turns, {system}, {thinking}; adds {own} tokens to a prompt",
    )


def _roots(engine: Engine) -> Sequence[str]:
    return engine.roots if isinstance(engine, VLLMServerEngine) else ()


def _server(config: TrainConfig, root: str) -> tuple[int | None, Finding]:
    """Return the context of a policy's server, None if it does not answer; and what is found."""
    engine = config.engine
    assert isinstance(engine, VLLMServerEngine)
    try:
        name, length = Control(root).model()
    except ServerError as error:
        transfer = "" if engine.transfer == "file" else f" --transfer {engine.transfer}"
        command = f"eapo serve-policy {config.model.path}{transfer}"
        told = f"{error}; {_start(command, root, _POLICY_PORT)}"
        return None, Finding(part=root, text=told, verdict="bad")
    return length, Finding(part=root, text=f"serves {name}, with a context of {length} tokens")


def _context(engine: Engine, outline: PreTrainedModel, served: Sequence[int]) -> int | None:
    """Return the tokens of the context: the servers', the engine's or the model's; None if any."""
    config = outline.config.get_text_config()
    bounded = hasattr(config, "max_position_embeddings")
    bounds = [*served, *([usable_positions(config)] if bounded else [])]
    match engine:
        case HFEngine(max_context_tokens=int(length)) | VLLMEngine(max_context_tokens=int(length)):
            return length
        case HFEngine() if window := attention_window(config):
            bounds.append(window)
    return min(bounds, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompts:
    """The opening prompts of the problems.

    Args:
        short: the problems whose prompts are within the limit.
        left_out: number of the others.
        longest: the most tokens of a prompt; without problems, the limit.
        context: its tokens; None if nothing bounds them.
        responses: the most tokens of the policy in an episode.
    """

    short: Sequence[Problem]
    left_out: int
    longest: int
    context: int | None
    responses: int

    @classmethod
    def of(
        cls, config: TrainConfig, chat: Chat, problems: Sequence[Problem], context: int | None
    ) -> _Prompts:
        """Return the prompts of the problems."""
        prompts, limits = prompts_of(config), config.rollout.limits
        lengths = [len(chat.opening([prompts.opening(one, Rules())])) for one in problems]
        short = [
            one
            for one, length in zip(problems, lengths, strict=True)
            if length <= limits.max_prompt_tokens
        ]
        return cls(
            short=short,
            left_out=len(problems) - len(short),
            longest=min(max(lengths, default=limits.max_prompt_tokens), limits.max_prompt_tokens),
            context=context,
            responses=limits.max_response_tokens,
        )

    @property
    def needed(self) -> int:
        """The tokens of the longest prompt and the responses; replies come on top."""
        return self.longest + self.responses

    @property
    def longest_episode(self) -> int:
        """The tokens of the longest episode, without replies: no longer than the context."""
        return min(self.needed, self.context or self.needed)

    def finding(self, config: TrainConfig) -> Finding:
        """Return how long they are, beside what there is room for."""
        told = (
            f"up to {self.longest} tokens in {config.rollout.wording} wording; with"
            f" {self.responses} of responses {self.needed}, beside replies, of a context of"
            f" {self.context or 'any number'}"
        )
        if self.left_out:
            told += f"; {self.left_out} problems with longer prompts are left out"
            told += " (rollout.limits.max_prompt_tokens)"
        too_long = self.context is not None and self.needed > self.context
        verdict: Grade = "look" if too_long or self.left_out > len(self.short) else "good"
        if self.left_out and not self.short:
            verdict = "bad"
        return Finding(part="prompt", text=told, verdict=verdict)


def _tokens(tokenizer: PreTrainedTokenizerBase, ends: Sequence[str | int] | None) -> Finding:
    """Return how rows are padded, and which tokens, given by name or id, end a turn."""
    names = [
        end if isinstance(end, str) else str(tokenizer.convert_ids_to_tokens(end))
        for end in ends or ()
    ]
    told = f"; a turn ends with {' or '.join(names)}" if names else ""
    return Finding(part="tokens", text=f"padded with {tokenizer.pad_token or 'no token'}{told}")


def _memory(config: TrainConfig, outline: PreTrainedModel, tokens: int) -> LearnerMemory:
    """Return what the learner needs at least, for sequences of so many tokens."""
    import torch

    sizes, settings = outline.config.get_text_config(), config.learner
    if lora := LoRA.of(config.model.lora, config.seed):
        with torch.device("meta"):
            lora.attach(outline, config.model)
    number = sum(weight.numel() for weight in outline.parameters())
    trained = sum(weight.numel() for weight in outline.parameters() if weight.requires_grad)
    return learner_memory(
        trained=trained,
        frozen=number - trained,
        moments=_MOMENTS[settings.optimizer],
        weight_bytes=settings.weights_dtype.itemsize,
        bfloat16=settings.precision == "bfloat16",
        layers=sizes.num_hidden_layers,
        hidden=sizes.hidden_size,
        vocabulary=sizes.vocab_size,
        tokens=tokens,
    )


def _device(config: TrainConfig) -> tuple[str, int]:
    """Return the learner's device, and the bytes of its memory that the policy's engine leaves."""
    import torch

    device = config.learner.torch_device
    if device.type != "cuda" or not torch.cuda.is_available():
        return "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total: int = torch.cuda.get_device_properties(device).total_memory
    match config.engine:
        case VLLMEngine(gpu_memory_utilization=share):
            return f"beside engine=vllm, {device}", int((1 - share) * total)
        case _:
            return str(device), total


def _memory_finding(memory: LearnerMemory, num_processes: int | None, room: str) -> Finding:
    told = (
        f"computed: {_size(memory.constant)} for weights, gradients and moments, and at least"
        f" {_size(memory.sequence)} for the longest sequence; {room}"
    )
    match num_processes:
        case 1:
            return Finding(part="memory", text=told)
        case None:
            told += ", too little for the sequence: lower rollout.limits.max_response_tokens"
        case number:
            told += f": it takes at least {number} processes, each with as much (docs/scaling.md)"
    return Finding(part="memory", text=told, verdict="look")


def _size(number: int) -> str:
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{1024 * gib:.1f} MiB"


# Trial episodes.


def _trial_finding(played: Sequence[Trajectory]) -> Finding:
    """Return what trial episodes were worth, with one of them."""
    episodes = [one.episode for one in played]
    turns = max(1, sum(episode.turn for episode in episodes))
    malformed = sum(episode.num_malformed for episode in episodes) / turns
    shares = {
        "consulted": _share([bool(_consultations(one)) for one in played]),
        "answered": _share([one.status != "no_answer" for one in played]),
        "right": _share([one.correct for one in played]),
        "cut by a limit": _share(
            [bool(e.stop_reason and e.stop_reason.truncated) for e in episodes]
        ),
    }
    said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    text = f"{len(played)} episodes: {said}; malformed turns {malformed:.2f}"
    [example, *_] = two_examples([episode_row(one) for one in played])
    unformed = malformed > _MANY or shares["answered"] < _MANY
    if shares["cut by a limit"] > _MANY:
        text += (
            ". Raise rollout.limits.max_response_tokens, above all for a model that reasons, or"
            " teach a shorter format: eapo cold-start"
        )
    elif unformed:
        text += ". Teach the format first: eapo cold-start"
    troubled = unformed or shares["right"] == 0 or shares["cut by a limit"] > _MANY
    return Finding(part="trial", text=text, verdict="look" if troubled else "good", episode=example)


def _consultations(trajectory: Trajectory) -> list[Consult]:
    return [one for one in trajectory.episode.actions if isinstance(one, Consult)]


async def _trial(
    config: TrainConfig, rollout: Rollout, problems: Sequence[Problem]
) -> list[Trajectory]:
    rules = config.schedule.rules_at(1)
    chosen = [problems[number % len(problems)] for number in range(NUM_TRIALS)]
    return await gather(
        rollout.play(problem, rules, seed=seed) for seed, problem in enumerate(chosen)
    )


# The time of a run.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How fast groups are played: measured of growing numbers of them, up to a round.

    Args:
        timed: the measurements, in order.
        speed: of the episodes of a first step.
        alone: of those of an evaluation.
        groups: that were played last.
    """

    timed: Sequence[Timed]
    speed: Speed
    alone: Speed
    groups: Sequence[Group]

    @property
    def finding(self) -> Finding:
        """The tokens a second of the last measurement."""
        last = self.timed[-1]
        tokens = sum(group.num_policy_tokens for group in self.groups)
        return Finding(
            part="sampling",
            text=f"{tokens / last.seconds:.0f} tokens a second, {last.episodes} episodes at a time",
        )


async def _pace(config: TrainConfig, rollout: Rollout, problems: Sequence[Problem]) -> _Pace:
    """Time 1, 2, 4, ... groups until they are a round, or two of them have taken long enough."""
    scheduled, size = ScheduledRollout(config=config, rollout=rollout), config.rollout.group_size
    a_round, timed, number = config.rollout.sampling.problems_per_round, list[Timed](), 1
    while True:
        seeds = [derive_seed(config.seed, 1, index) for index in range(number)]
        start = time.perf_counter()
        groups = await gather(
            scheduled.play_group(problems[index % len(problems)], step=1, seed=seed)
            for index, seed in enumerate(seeds)
        )
        timed.append(Timed(episodes=number * size, seconds=time.perf_counter() - start))
        spent_s = sum(one.seconds for one in timed)
        if number == a_round or (len(timed) > 1 and spent_s > _TIMING_S):
            break
        number = min(2 * number, a_round)
    start = time.perf_counter()
    alone = replace(rollout, truncation=config.evaluation.truncation)
    await gather(
        alone.play_group(group.problem, [Rules.alone()] * size, seed=seed)
        for group, seed in zip(groups, seeds, strict=True)
    )
    factor = (time.perf_counter() - start) / timed[-1].seconds
    tokens = [one.num_policy_tokens for group in groups for one in group.trajectories]
    speed = Speed.measured(
        timed,
        at_once=_rows_at_once(config.engine),
        mean_length=sum(tokens) / len(tokens) / max(tokens),
    )
    return _Pace(timed=timed, speed=speed, alone=speed.times(factor), groups=groups)


def _rows_at_once(engine: Engine) -> int | None:
    """Return how many episodes an engine decodes together; None if it does not say."""
    match engine:
        case HFEngine(max_batch=number) | VLLMEngine(max_batch=number):
            return number
        case VLLMServerEngine(base_urls=urls):
            return _ROWS_OF_A_SERVER * len(urls)
        case _:
            return None


def _learner(config: TrainConfig, model: PreTrainedModel) -> Learner:
    spec = LearnerSpec(
        model=config.model,
        algorithm=config.algorithm.build(),
        settings=config.learner,
        temperature=config.rollout.temperature,
        lora=LoRA.of(config.model.lora, config.seed),
    )
    return spec.start(SINGLE_PROCESS, model=model)


def _check(
    config: TrainConfig, learner: Learner, policy: Policy, runner: asyncio.Runner
) -> Iterator[Finding]:
    """Yield the check that a training makes before its first step."""
    check_saves(learner)
    layout = check_layout(learner)
    sampler = runner.run(check_sampler(policy, learner, config.learner.rounding))
    yield Finding(
        part="check",
        text=f"sampler and learner agree to {sampler:.1e} nats a token, layout"
        f" {config.learner.layout} to {layout:.1e}",
    )


def _update(
    config: TrainConfig, learner: Learner, trial: Sequence[Trajectory], groups: Sequence[Group]
) -> Findings[float]:
    """Yield the cost of an update on groups; return the seconds of that of a step.

    One that imitates the trial episodes at a learning rate of 0 comes first: it takes memory, loads
    what is loaded on first use, and says how many groups take long enough.
    """
    start = time.perf_counter()
    records = [Demonstration(token_ids=one.token_ids, mask=one.mask) for one in trial]
    learner.sft_update(records, learning_rate=0.0)
    first_s = time.perf_counter() - start
    affordable = int(_TIMING_S * len(trial) / (first_s * config.rollout.group_size))
    wanted = config.rollout.sampling.groups_per_step
    chosen = groups[: max(1, min(wanted, affordable))]
    start = time.perf_counter()
    learner.update(chosen)
    seconds = time.perf_counter() - start
    played = [one for group in chosen for one in group.trajectories]
    tokens = sum(one.num_tokens for one in played)
    yield Finding(
        part="update",
        text=f"{tokens / seconds:.0f} tokens a second; {peak_memory_mib() / 1024:.1f} GiB at its"
        f" peak with {len(played)} episodes of {tokens / len(played):.0f} tokens"
        f" (micro-batches have up to {config.learner.max_batch_tokens})",
    )
    return seconds * wanted / len(chosen)


def _run(config: TrainConfig, pace: _Pace, update_s: float, num_held_out: int) -> Finding:
    """Return how long the run would take, and what that assumes."""
    rollout, evaluation = config.rollout, config.evaluation
    played = rollout.sampling.problems_per_round * rollout.group_size
    times = evaluation.every and config.steps // evaluation.every
    last = not evaluation.every or config.steps % evaluation.every > 0
    evaluations = times + last + (evaluation.baseline == "evaluated")
    run_time = RunTime(
        steps=config.steps,
        round_s=pace.speed.seconds(played),
        max_rounds=rollout.sampling.max_rounds,
        update_s=update_s,
        evaluations=evaluations,
        evaluation_s=pace.alone.seconds(num_held_out * evaluation.samples_per_problem),
    )
    learned = rollout.sampling.groups_per_step * rollout.group_size
    return Finding(part="run", text=f"{run_time.told(played, learned)}; {_assumed(pace, played)}")


def _assumed(pace: _Pace, played: int) -> str:
    sizes = [one.episodes for one in pace.timed][-2:]
    measured = f"measured with {sizes[-1]} episodes at a time"
    if sizes[-1] < played:
        measured = f"on a line through {' and '.join(map(str, sizes))} episodes at a time"
    return f"assumed: each step as the first, {measured}"


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
