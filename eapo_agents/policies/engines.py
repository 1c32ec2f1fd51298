"""Sampling engines, the section `engine` of a run's config: one class per engine.

To add one: a module with its policy and settings, and a line in `Engine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eapo_agents.factories import Factory
from eapo_agents.policies.models import ModelSettings, load_model, model_folder
from eapo_agents.policies.openai import OpenAIEngine
from eapo_agents.policies.vllm import VLLMEngine
from eapo_agents.policies.vllm_server import VLLMServerEngine
from eapo_env.validation import at_least

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from eapo_agents.policies.policy import Policy

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True, slots=True, kw_only=True)
class HFEngine:
    """transformers in this process; in training, on the learner's own weights.

    Args:
        max_batch: maximum number of completions that decode together; the rest wait.
        max_context_tokens: maximum number of ids of prompt plus completion; null is all that the
            model attends to in full: its positions or, if that is less, its sliding window.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["hf"] = "hf"
    max_batch: int = 256
    max_context_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "max_batch")
        if self.max_context_tokens is not None:
            at_least(2, self, "max_context_tokens")

    def build(self, model: ModelSettings, loaded: Loaded | None = None) -> Policy:
        """Return the policy, on the loaded model if one is given.

        Raises:
            UserError: no model can be loaded, or one that does not attend to its whole context.
        """
        from eapo_agents.policies.huggingface import HFPolicy

        return HFPolicy(
            *(loaded or load_model(model)),
            max_batch=self.max_batch,
            max_context_tokens=self.max_context_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonEngine(Factory):
    """A custom policy: what `factory(path, **arguments)` returns.

    `path` is the model's folder or hub id. Training calls `load_weights` after every update.
    With `rollout.steps_ahead=1`, `complete` runs in another thread, while the learner learns.
    """

    kind: Literal["python"] = "python"
    factory: str

    def build(self, model: ModelSettings, loaded: Loaded | None = None) -> Policy:
        """Return the policy.

        Raises:
            UserError: nothing callable is found under the factory's name.
        """
        policy: Policy = self.make("eapo.engines", model_folder(model.path))
        return policy


Engine = HFEngine | VLLMEngine | VLLMServerEngine | OpenAIEngine | PythonEngine
"""The section `engine`, distinguished by `kind`."""
