"""[edge] The policy that a config names: transformers or vLLM, in this process or on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from eapo_agents.hf_policy import HFPolicy
from eapo_agents.models import load_model, model_folder
from eapo_agents.processes import ALONE, Processes
from eapo_agents.vllm_server_policy import VLLMServerPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from eapo_agents.config import TrainConfig
    from eapo_agents.policy import Policy
    from eapo_agents.sync_probe import SyncProbe


def policy_of(config: TrainConfig) -> Policy:
    """Return the policy of a config's model, with weights of its own.

    Raises:
        ValueError: no model can be loaded, or one that the engine refuses.
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
    processes: Processes = ALONE,
) -> Policy:
    """Return the policy that samples for a learner of this model.

    In "hf" the policy computes with this very module, in the others with a copy.

    Raises:
        ValueError: a model that the engine refuses, or vLLM in one of several processes: both
            want torch's default process group.
    """
    if config.model.engine == "vllm" and processes.world > 1:
        raise ValueError(
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


def probe_of(config: TrainConfig, processes: Processes = ALONE) -> SyncProbe | None:
    """Return what checks each hand-over of weights; None where the weights are the learner's."""
    return None if config.model.engine == "hf" and processes.world == 1 else config.sync


def _vllm(config: TrainConfig) -> Policy:
    try:
        from eapo_agents.vllm_policy import VLLMPolicy

        return VLLMPolicy(model_folder(config.model.path), config.vllm)
    except ModuleNotFoundError as error:
        raise ValueError(f"model.engine=vllm wants vLLM (docs/vllm.md): {error}") from error
