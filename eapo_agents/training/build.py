"""[edge] The policy that a config names: transformers or vLLM, in this process or on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, assert_never

from eapo_agents.evaluation import Player, ProblemResult, Report, evaluate
from eapo_agents.learning import SINGLE_PROCESS, Processes
from eapo_agents.policies import HFPolicy, VLLMServerPolicy, load_model, model_folder
from eapo_agents.rollouts import Rollout, derive_seed
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from eapo_agents.learning import SyncProbe
    from eapo_agents.policies import Policy
    from eapo_agents.training.config import TrainConfig


def policy_of(config: TrainConfig) -> Policy:
    """Return the policy of a config's model, with weights of its own.

    Raises:
        UserError: no model can be loaded, or one that the engine refuses.
        ConnectionError: the policy's server does not answer.
    """
    if config.model.engine == "vllm":
        return _vllm(config)
    model, tokenizer = load_model(config.model)
    policy = training_policy(config, model, tokenizer)
    policy.load_weights(model.state_dict())  # a server has those that it was given last
    return policy


def training_policy(
    config: TrainConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    processes: Processes = SINGLE_PROCESS,
) -> Policy:
    """Return the policy that samples for a learner of this model.

    In "hf" the policy computes with this very module, in the others with a copy.

    Raises:
        UserError: a model that the engine refuses, or vLLM in one of several processes: both
            want torch's default process group.
    """
    if config.model.engine == "vllm" and processes.world > 1:
        raise UserError(
            f"model.engine=vllm is for one process, not for {processes.world}: use vllm-server"
        )
    match config.model.engine:
        case "hf":
            return HFPolicy(model, tokenizer, max_batch=config.model.max_batch)
        case "vllm":
            return _vllm(config)
        case "vllm-server":
            return VLLMServerPolicy(model_folder(config.model.path), config.policy_server)
        case _:
            assert_never(config.model.engine)


def probe_of(config: TrainConfig, processes: Processes = SINGLE_PROCESS) -> SyncProbe | None:
    """Return what checks each hand-over of weights; None where the weights are the learner's."""
    return None if config.model.engine == "hf" and processes.world == 1 else config.sync


def _vllm(config: TrainConfig) -> Policy:
    try:
        from eapo_agents.policies import VLLMPolicy

        return VLLMPolicy(model_folder(config.model.path), config.vllm)
    except ModuleNotFoundError as error:
        raise UserError(f"model.engine=vllm wants vLLM (docs/vllm.md): {error}") from error


def make_rollout(config: TrainConfig, policy: Policy) -> Rollout:
    """Return the rollout that a config describes, around a policy."""
    return Rollout(
        policy=policy,
        experts=config.experts.pool(),
        verifier=Verifier(),
        reward=config.reward,
        prompts=config.rollout.prompts,
        limits=config.rollout.limits,
        temperature=config.rollout.temperature,
        truncation=config.rollout.truncation,
    )


async def evaluate_alone(
    config: TrainConfig,
    player: Player,
    problems: Sequence[Problem],
    *,
    done: Sequence[ProblemResult] = (),
    on_result: Callable[[ProblemResult], None] = lambda result: None,
) -> Report:
    """Return the report that a config asks for; the same weights always give the same one."""
    return await evaluate(
        player,
        problems,
        samples_per_problem=config.evaluation.samples_per_problem,
        seed=derive_seed(config.seed, 2),
        done=done,
        on_result=on_result,
    )


def without(held_out: Sequence[Problem], problems: Sequence[Problem]) -> Sequence[Problem]:
    """Return the problems whose statements are not held out for evaluation.

    Raises:
        UserError: none is left.
    """
    statements = {problem.statement for problem in held_out}
    rest = [problem for problem in problems if problem.statement not in statements]
    if not rest:
        raise UserError(f"all {len(problems)} problems are held out: none is left to train on")
    return rest
