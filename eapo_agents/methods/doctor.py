"""[edge] Whether a model can be a policy here: what a run would find out, before an hour is spent.

The parts are examined one after the other: the experts, the weights, the chat template, the check
at the start, a few trial episodes, one update, and from their speeds the run that is asked for.
What fails ends the examination of the model, in the words of the error that a run would have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eapo_agents.evaluation import EpisodeRow, episode_row, two_examples
from eapo_agents.learning import (
    SINGLE_PROCESS,
    LearnerSpec,
    LoRA,
    check_layout,
    check_policy,
    check_sampler,
    check_saves,
)
from eapo_agents.policies import Chat, Policy, load_model
from eapo_agents.rollouts import Demonstration, Rollout, Trajectory, gather
from eapo_agents.training import (
    TrainConfig,
    fitted_to_model,
    make_rollout,
    peak_memory_mib,
    training_policy,
)
from eapo_env.actions import Consult
from eapo_env.experts import ExpertPool
from eapo_env.prompts import cut
from eapo_env.reachability import unreachable
from eapo_env.types import ExpertReply, Message, Problem, Query, Reply, Unavailable
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUM_TRIALS = 8
"""Trial episodes."""

_QUESTION = "What is 6 * 7?"
_SECONDS_AN_HOUR = 3600
_MANY = 0.5
"""The share of trials from which a fault is pointed out."""

Verdict = Literal["good", "look", "bad"]


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
    verdict: Verdict = "good"
    episode: EpisodeRow | None = None


def examine(config: TrainConfig) -> Iterator[Finding]:
    """Yield what is found of a config's experts and model, as it is found."""
    config = fitted_to_model(config)
    with asyncio.Runner() as runner:
        yield from _experts(config, runner)
        try:
            yield from _model(config, runner)
        except UserError as error:
            yield Finding(part="policy", text=str(error), verdict="bad")


def _experts(config: TrainConfig, runner: asyncio.Runner) -> Iterator[Finding]:
    """Yield each endpoint's list of models, and an answer of each expert to a question."""
    if config.schedule.rules_at(1).is_alone:
        yield Finding(part="experts", text="none: the run is alone from its first step")
        return
    for endpoint in config.experts.endpoints:
        reason, names = runner.run(unreachable(endpoint)), ", ".join(endpoint.models)
        yield Finding(
            part=endpoint.base_url,
            text=reason or f"serves {names}",
            verdict="bad" if reason else "good",
        )
    try:
        pool = config.experts.build()
        question = _QUESTION if config.experts.endpoints else _first(config).statement
    except UserError as error:
        yield Finding(part="experts", text=str(error), verdict="bad")
        return
    yield from runner.run(_answers(pool, question, _num_experts(config)))


def _num_experts(config: TrainConfig) -> int:
    return sum(len(endpoint.models) for endpoint in config.experts.endpoints) or 1


async def _answers(pool: ExpertPool, question: str, num_experts: int) -> list[Finding]:
    asked = [Query(text=question, slot=slot) for slot in range(num_experts)]
    return [_answer(question, reply) for reply in await pool.ask(asked)]


def _answer(question: str, reply: ExpertReply) -> Finding:
    part = f"expert {reply.expert}".rstrip()
    match reply:
        case Reply(text=text):
            return Finding(part=part, text=f"answers {question!r} with {cut(text, 200)!r}")
        case Unavailable(reason=reason):
            told = f"does not answer {question!r}: {reason}"
            return Finding(part=part, text=told, verdict="look")


def _model(config: TrainConfig, runner: asyncio.Runner) -> Iterator[Finding]:
    model, tokenizer = load_model(config.model)
    yield _weights(model, config)
    chat = Chat(tokenizer)
    yield from _template(chat)
    with closing(training_policy(config, model, tokenizer)) as policy:
        rounding = config.learner.rounding
        check = runner.run(check_policy(policy, rounding))
        ends = "" if check.ends is None else f"; a turn ends with {' or '.join(check.ends)}"
        pad = tokenizer.pad_token or "no token"
        yield Finding(part="tokens", text=f"padded with {pad}{ends}")
        rollout = make_rollout(config, policy)
        problems = config.problems.load()
        yield _prompts(config, rollout, chat, policy, problems)
        trial = runner.run(_trial(config, rollout, rollout.short_enough(problems)))
        yield from trial.findings
        yield from _update(config, model, policy, trial, runner)


def _weights(model: PreTrainedModel, config: TrainConfig) -> Finding:
    number = sum(weight.numel() for weight in model.parameters())
    dtype = str(model.dtype).removeprefix("torch.")
    return Finding(
        part="model",
        text=f"{type(model).__name__}, {number / 1e6:.1f} million parameters in {dtype}, sampled by"
        f" engine.kind={config.engine.kind}",
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


def _prompts(
    config: TrainConfig,
    rollout: Rollout,
    chat: Chat,
    policy: Policy,
    problems: Sequence[Problem],
) -> Finding:
    """Return how long the first problem's prompt is, beside what there is room for."""
    rules, limits = config.schedule.rules_at(1), config.rollout.limits
    length = len(chat.opening([rollout.prompts.opening(problems[0], rules)]))
    needed = length + limits.max_response_tokens
    fits = needed <= policy.max_context_tokens
    return Finding(
        part="prompt",
        text=f"{length} tokens in {config.rollout.wording} wording; with"
        f" {limits.max_response_tokens} of responses {needed}, beside replies, of a context of"
        f" {policy.max_context_tokens}",
        verdict="good" if fits else "look",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Trial episodes, and how long they took in all."""

    played: Sequence[Trajectory]
    seconds: float

    @property
    def findings(self) -> Iterator[Finding]:
        """What they were worth, one of them, and their speed."""
        episodes = [one.episode for one in self.played]
        turns = max(1, sum(episode.turn for episode in episodes))
        malformed = sum(episode.num_malformed for episode in episodes) / turns
        shares = {
            "consulted": _share([bool(_consultations(one)) for one in self.played]),
            "answered": _share([one.status != "no_answer" for one in self.played]),
            "right": _share([one.correct for one in self.played]),
            "cut by a limit": _share(
                [bool(e.stop_reason and e.stop_reason.truncated) for e in episodes]
            ),
        }
        said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        text = f"{len(self.played)} episodes: {said}; malformed turns {malformed:.2f}"
        [example, *_] = two_examples([episode_row(one) for one in self.played])
        if malformed > _MANY or shares["answered"] < _MANY:
            text += ". Teach the format first: eapo cold-start"
        troubled = malformed > _MANY or shares["answered"] < _MANY or shares["right"] == 0
        yield Finding(
            part="trial", text=text, verdict="look" if troubled else "good", episode=example
        )
        yield Finding(
            part="sampling",
            text=f"{self.tokens_a_second:.0f} tokens a second, {len(self.played)} at a time",
        )

    @property
    def policy_tokens(self) -> float:
        """The mean number of sampled tokens of an episode."""
        return sum(one.num_policy_tokens for one in self.played) / len(self.played)

    @property
    def tokens(self) -> float:
        """The mean number of tokens of an episode."""
        return sum(one.num_tokens for one in self.played) / len(self.played)

    @property
    def tokens_a_second(self) -> float:
        """The speed of sampling."""
        return self.policy_tokens * len(self.played) / self.seconds


def _consultations(trajectory: Trajectory) -> list[Consult]:
    return [one for one in trajectory.episode.actions if isinstance(one, Consult)]


async def _trial(config: TrainConfig, rollout: Rollout, problems: Sequence[Problem]) -> _Trial:
    rules, start = config.schedule.rules_at(1), time.perf_counter()
    chosen = [problems[number % len(problems)] for number in range(NUM_TRIALS)]
    played = await gather(
        rollout.play(problem, rules, seed=seed) for seed, problem in enumerate(chosen)
    )
    return _Trial(played=played, seconds=time.perf_counter() - start)


def _update(
    config: TrainConfig,
    model: PreTrainedModel,
    policy: Policy,
    trial: _Trial,
    runner: asyncio.Runner,
) -> Iterator[Finding]:
    """Yield the check of the learner, the cost of an update, and that of the run.

    The update imitates the trial episodes at a learning rate of 0.
    """
    spec = LearnerSpec(
        model=config.model,
        algorithm=config.algorithm.build(),
        settings=config.learner,
        temperature=config.rollout.temperature,
        lora=LoRA.of(config.model.lora, config.seed),
    )
    learner = spec.start(SINGLE_PROCESS, model=model)
    check_saves(learner)
    layout = check_layout(learner)
    sampler = runner.run(check_sampler(policy, learner, config.learner.rounding))
    yield Finding(
        part="check",
        text=f"sampler and learner agree to {sampler:.1e} nats a token, layout"
        f" {config.learner.layout} to {layout:.1e}",
    )
    records = [Demonstration(token_ids=one.token_ids, mask=one.mask) for one in trial.played]
    start = time.perf_counter()
    learner.sft_update(records, learning_rate=0.0)
    seconds = time.perf_counter() - start
    rate = trial.tokens * len(records) / seconds
    yield Finding(
        part="update",
        text=f"{rate:.0f} tokens a second; {peak_memory_mib() / 1024:.1f} GiB at its peak with"
        f" {len(records)} episodes of {trial.tokens:.0f} tokens"
        f" (micro-batches have up to {config.learner.max_batch_tokens})",
    )
    yield _run(config, trial, rate)


def _run(config: TrainConfig, trial: _Trial, update_tokens_a_second: float) -> Finding:
    """Return how long the run would take at these speeds, with one round of problems a step."""
    rollout, evaluation = config.rollout, config.evaluation
    played = rollout.sampling.problems_per_round * rollout.group_size
    learned = rollout.sampling.groups_per_step * rollout.group_size
    sampling_s = played * trial.policy_tokens / trial.tokens_a_second
    update_s = learned * trial.tokens / update_tokens_a_second
    times = 1 + (config.steps // evaluation.every if evaluation.every else 0)
    times += evaluation.baseline == "evaluated"
    held_out = len(evaluation.problems.load()) * evaluation.samples_per_problem
    evaluations_s = times * held_out * trial.policy_tokens / trial.tokens_a_second
    hours = (config.steps * (sampling_s + update_s) + evaluations_s) / _SECONDS_AN_HOUR
    return Finding(
        part="run",
        text=f"{config.steps} steps of {sampling_s + update_s:.0f} s ({sampling_s:.0f} sampling"
        f" {played} episodes, {update_s:.0f} updating on {learned}) and {times} evaluations of"
        f" {evaluations_s / times:.0f} s: {hours:.1f} hours at these speeds; more rows at a time"
        " are faster",
    )


def _first(config: TrainConfig) -> Problem:
    return config.problems.load()[0]


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
