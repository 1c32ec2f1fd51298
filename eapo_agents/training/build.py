"""[edge] Build what a config describes: policies, evaluations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eapo_agents.evaluation import OnAttempts, Player, ProblemResult, Report, evaluate
from eapo_agents.learning import SINGLE_PROCESS, Processes
from eapo_agents.policies import (
    SHIPPED,
    HFEngine,
    OpenAIEngine,
    VLLMEngine,
    VLLMServerEngine,
    load_model,
    model_folder,
)
from eapo_agents.training.model_defaults import warn_of_high_rate, warn_of_long_warm_up
from eapo_env.synthetic import work_out
from eapo_env.types import Query
from eapo_env.validation import UserError

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from eapo_agents.learning import SyncProbe
    from eapo_agents.policies import Policy
    from eapo_agents.training.config import TrainConfig
    from eapo_agents.training.trackers import Tracker
    from eapo_env.types import Problem


def check_model(config: TrainConfig) -> None:
    """Check that the model's path is a folder or a hub id; behind a server it is any name.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(config.engine, OpenAIEngine):
        model_folder(config.model.path)


def check_before_loading(config: TrainConfig, trackers: Sequence[Tracker] | None) -> None:
    """Check what is told at once, before a training loads its problems and its model.

    Args:
        trackers: replace those of the config, which are then not checked.

    Raises:
        UserError: no model folder, no such device on this machine, or a tracker that cannot work.
    """
    check_model(config)
    warn_of_high_rate(config)
    warn_of_long_warm_up(config)
    config.learner.check_device()
    if trackers is None:
        for tracker in config.trackers:
            tracker.check()


def check_trains(config: TrainConfig, processes: Processes = SINGLE_PROCESS) -> None:
    """Check that a training can sample from the engine, before a model is loaded.

    Raises:
        UserError: it gives no tokens, or is for one process only.
    """
    match config.engine:
        case OpenAIEngine() as engine:
            raise _no_tokens(engine)
        case VLLMEngine() if processes.world_size > 1:
            raise UserError(
                f"engine=vllm is for one process, not for {processes.world_size}: use vllm-server"
            )


def check_plays_ahead(config: TrainConfig) -> None:
    """Check that the engine can play a step while another one is learned, if it shall.

    Raises:
        UserError: it samples in the learner's process.
    """
    match config.engine:
        case HFEngine() | VLLMEngine() as engine if config.rollout.steps_ahead:
            raise UserError(
                f"rollout.steps_ahead={config.rollout.steps_ahead} needs a sampler in another"
                f" process, and engine={engine.kind} samples in the learner's: use"
                " engine=vllm-server"
            )


def policy_of(config: TrainConfig) -> Policy:
    """Return the policy of a config's model, without a learner.

    Raises:
        UserError: no model can be loaded, one that the engine refuses, or an engine without tokens.
    """
    match config.engine:
        case OpenAIEngine() as engine:
            raise _no_tokens(engine)
        case VLLMServerEngine() as engine:
            policy = engine.build(config.model)
            model, _ = load_model(config.model)
            policy.load_weights(model.state_dict())  # it has those that it was given last
            return policy
        case engine:
            return engine.build(config.model)


def training_policy(
    config: TrainConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    processes: Processes = SINGLE_PROCESS,
) -> Policy:
    """Return the policy that samples for a learner of this model.

    With the engine "hf" in a single process it samples from this module, which is moved to the
    learner's device and dtype; otherwise from its own copy of the weights.

    Raises:
        UserError: a model that the engine refuses, an engine that cannot be trained, or vLLM in one
            of several processes: both need torch's default process group.
    """
    check_trains(config, processes)
    match config.engine:
        case HFEngine() as engine:
            sampled = processes.policy_copy(model.to(config.learner.weights_dtype))
            sampled.to(config.learner.torch_device)
            return engine.build(config.model, (sampled, tokenizer))
        case OpenAIEngine() as engine:
            raise _no_tokens(engine)
        case engine:
            return engine.build(config.model)


def probe_of(config: TrainConfig, processes: Processes = SINGLE_PROCESS) -> SyncProbe | None:
    """Return the check of each weight update; None where sampler and learner share weights."""
    shared = isinstance(config.engine, HFEngine) and processes.world_size == 1
    return None if shared else config.sync


async def evaluate_alone(
    config: TrainConfig,
    player: Player,
    problems: Sequence[Problem],
    *,
    done: Sequence[ProblemResult] = (),
    on_result: Callable[[ProblemResult], None] = lambda result: None,
    on_attempts: OnAttempts = lambda attempts: None,
) -> Report:
    """Return the report of a config's evaluation; the same weights give the same report."""
    return await evaluate(
        player,
        problems,
        samples_per_problem=config.evaluation.samples_per_problem,
        seed=config.evaluation_seed,
        done=done,
        on_result=on_result,
        on_attempts=on_attempts,
    )


def strangers(config: TrainConfig, problems: Sequence[Problem]) -> str:
    """Return, if the experts know other problems alone than these, what is said of it; else ""."""
    kind = config.experts.kind
    if config.is_alone or kind not in ("synthetic", "synthetic-parts"):
        return ""
    if any(map(_is_procedural, problems)):
        return ""
    return (
        f"experts.kind={kind} knows the procedural problems alone: nobody will answer questions"
        " about these; see experts.kind, or train without experts by annealing.turn_budget=1"
    )


def warn_of_strangers(config: TrainConfig, problems: Sequence[Problem]) -> None:
    """Log a warning if the experts know other problems alone than these."""
    if told := strangers(config, problems):
        _LOG.warning(told)


def warn_of_untaught_model(config: TrainConfig, problems: Sequence[Problem]) -> None:
    """Log a warning if a model of this package was taught other problems alone than these."""
    if config.model.path in SHIPPED and not any(map(_is_procedural, problems)):
        _LOG.warning(
            "model.path=%s was taught the procedural problems alone, and none of these is one: it"
            " will hardly answer any; set model.path to a model of your own",
            config.model.path,
        )


def warn_of_foreign_evaluation(config: TrainConfig) -> None:
    """Log a warning if a config evaluates on procedural problems, and trains on others."""
    if config.problems.source != "synthetic" == config.evaluation.problems.source:
        _LOG.warning(
            "problems.source=%s, but evaluation.problems.source=synthetic: evaluations are on"
            " procedural problems, which say little about these",
            config.problems.source,
        )


def _is_procedural(problem: Problem) -> bool:
    reply = work_out(Query(text=problem.statement))  # of one bracket: "a=64"
    answer = problem.answer.lstrip("0")
    return reply is not None and reply.rpartition("=")[2].lstrip("0") == answer


def _no_tokens(engine: OpenAIEngine) -> UserError:
    return UserError(
        f"engine=openai ({engine.base_url}) gives no token ids: a model behind such a server can be"
        " evaluated, not trained"
    )
