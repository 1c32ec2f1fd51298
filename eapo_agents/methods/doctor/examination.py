"""[edge] The examination: all parts of a config, one after the other.

First what needs neither the model's weights nor a server of the policy: the settings, the problems,
the experts, the architecture, the chat template, the length of the prompts, the learner's memory.
Then, on the model itself, a few trial episodes, the check at the start, one update, and from their
times the run that is asked for. What fails is told in the words of the error that a run would have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.learning import check_policy
from eapo_agents.methods.doctor.experts import ask_experts
from eapo_agents.methods.doctor.finding import Finding, Findings, refused
from eapo_agents.methods.doctor.model import (
    OpeningPrompts,
    ask_server,
    context_of,
    device_and_room,
    in_gib,
    memory_finding,
    memory_of,
    server_roots,
    template_findings,
    tokens_finding,
    weights_finding,
)
from eapo_agents.methods.doctor.trial import (
    check_findings,
    learner_of,
    measure_pace,
    play_trial,
    run_finding,
    time_update,
    trial_finding,
)
from eapo_agents.policies import (
    Chat,
    HFEngine,
    OpenAIEngine,
    Policy,
    VLLMEngine,
    end_ids,
    load_model,
    outline_model,
)
from eapo_agents.training import (
    ProblemSettings,
    TrainConfig,
    check_before_loading,
    check_plays_ahead,
    fitted_to_model,
    make_rollout,
    policy_of,
    training_policy,
    without,
)
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def examine(config: TrainConfig) -> Iterator[Finding]:
    """Yield what is found of a config's problems, experts and model, as it is found."""
    config = fitted_to_model(config)
    with asyncio.Runner() as runner:
        settled = yield from refused("settings", _settings(config))
        problems = yield from _problems(config)
        experts = yield from refused("experts", ask_experts(config, problems.train, runner))
        examination = _Examination(
            config=config,
            problems=problems,
            experts=experts or SilentExperts(),
            runner=runner,
            prevented="" if settled else "the settings prevent it",
        )
        yield from refused("policy", examination.findings())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
    train: Sequence[Problem] = ()
    held_out: Sequence[Problem] = ()


def _settings(config: TrainConfig) -> Findings[TrainConfig]:
    """Yield nothing; return the settings with which a training would begin."""
    yield from ()
    check_before_loading(config, None)
    check_plays_ahead(config)
    return config


def _problems(config: TrainConfig) -> Findings[_Problems]:
    """Yield how many problems there are; return none of a kind that cannot be read."""
    held_out = yield from refused("held-out problems", _loaded(config.evaluation.problems))
    train = yield from refused("problems", _loaded(config.problems))
    if train and held_out:
        train = yield from refused("problems", _trained_on(held_out, train))
    return _Problems(train=train or (), held_out=held_out or ())


def _loaded(settings: ProblemSettings) -> Findings[Sequence[Problem]]:
    """Yield nothing; return the problems."""
    yield from ()
    return settings.load()


def _trained_on(
    held_out: Sequence[Problem], problems: Sequence[Problem]
) -> Findings[Sequence[Problem]]:
    train = without(held_out, problems)
    shared = len(problems) - len(train)
    apart = f" ({shared} more are among those held out)" if shared else ""
    told = f"{len(train)} to train on{apart}, {len(held_out)} held out"
    yield Finding(part="problems", text=told)
    return train


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
        yield weights_finding(outline, config)
        chat = Chat(tokenizer)
        yield from template_findings(chat)
        servers = [ask_server(config, root) for root in server_roots(config.engine)]
        yield from (finding for _, finding in servers)
        context = context_of(config.engine, outline, [length for length, _ in servers if length])
        prompts = OpeningPrompts.of(config, chat, self.problems.train, context)
        yield prompts.finding(config)
        memory = memory_of(config, outline, prompts.longest_episode)
        device, room = device_and_room(config)
        num_processes = memory.num_processes(room)
        yield memory_finding(memory, num_processes, f"{device} has {in_gib(room)}")
        if self.prevented:
            yield _unplayed(self.prevented)
        elif not all(length for length, _ in servers):
            yield tokens_finding(tokenizer, end_ids(None, tokenizer))
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
        yield tokens_finding(policy.tokenizer, check.ends)
        rollout = make_rollout(config, policy, experts=self.experts)
        played = runner.run(play_trial(config, rollout, problems))
        yield trial_finding(played)
        pace = runner.run(measure_pace(config, rollout, problems))
        yield pace.finding
        if num_processes == 1:
            learner = learner_of(config, model)
            yield from check_findings(config, learner, policy, runner)
            update_s = yield from time_update(config, learner, played, pace.groups)
            yield run_finding(config, pace, update_s, len(self.problems.held_out))
        else:
            told = "not tried: the learner does not fit into this process"
            yield Finding(part="update", text=told, verdict="look")


def _unplayed(reason: str) -> Finding:
    told = f"not played, and no speed is measured: {reason}"
    return Finding(part="trial", text=told, verdict="look")
