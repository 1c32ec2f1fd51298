"""[edge] What the doctor finds of a model without its weights, and of the policy's servers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.learning import LoRA
from eapo_agents.methods.doctor.estimates import LearnerMemory, learner_memory
from eapo_agents.methods.doctor.finding import Finding, Grade, how_to_start
from eapo_agents.policies import (
    Chat,
    Engine,
    HFEngine,
    VLLMEngine,
    VLLMServerEngine,
    attention_window,
    usable_positions,
)
from eapo_agents.serving import Control, ServerError
from eapo_agents.training import TrainConfig, prompts_of
from eapo_env.types import Message, Problem, Rules

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MOMENTS = {"adamw": 2, "adafactor": 0, "sgd": 0}
_POLICY_PORT = 8100


def weights_finding(outline: PreTrainedModel, config: TrainConfig) -> Finding:
    """Return architecture and size."""
    number = sum(weight.numel() for weight in outline.parameters())
    dtype = str(outline.dtype).removeprefix("torch.")
    return Finding(
        part="model",
        text=f"{type(outline).__name__}, {number / 1e6:.1f} million parameters in {dtype}, sampled"
        f" by engine.kind={config.engine.kind}",
    )


def template_findings(chat: Chat) -> Iterator[Finding]:
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


def server_roots(engine: Engine) -> Sequence[str]:
    """Return the addresses of the policy's servers."""
    return engine.roots if isinstance(engine, VLLMServerEngine) else ()


def ask_server(config: TrainConfig, root: str) -> tuple[int | None, Finding]:
    """Return the context of a policy's server, None if it does not answer; and what is found."""
    engine = config.engine
    assert isinstance(engine, VLLMServerEngine)
    try:
        name, length = Control(root).model()
    except ServerError as error:
        transfer = "" if engine.transfer == "file" else f" --transfer {engine.transfer}"
        command = f"eapo serve-policy {config.model.path}{transfer}"
        told = f"{error}; {how_to_start(command, root, _POLICY_PORT)}"
        return None, Finding(part=root, text=told, verdict="bad")
    return length, Finding(part=root, text=f"serves {name}, with a context of {length} tokens")


def context_of(engine: Engine, outline: PreTrainedModel, served: Sequence[int]) -> int | None:
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
class OpeningPrompts:
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
    ) -> OpeningPrompts:
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


def tokens_finding(tokenizer: PreTrainedTokenizerBase, ends: Sequence[str | int] | None) -> Finding:
    """Return how rows are padded, and which tokens, given by name or id, end a turn."""
    names = [
        end if isinstance(end, str) else str(tokenizer.convert_ids_to_tokens(end))
        for end in ends or ()
    ]
    told = f"; a turn ends with {' or '.join(names)}" if names else ""
    return Finding(part="tokens", text=f"padded with {tokenizer.pad_token or 'no token'}{told}")


def memory_of(config: TrainConfig, outline: PreTrainedModel, tokens: int) -> LearnerMemory:
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


def device_and_room(config: TrainConfig) -> tuple[str, int]:
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


def memory_finding(memory: LearnerMemory, num_processes: int | None, room: str) -> Finding:
    """Return what the learner needs, and how many processes have that much."""
    told = (
        f"computed: {in_gib(memory.constant)} for weights, gradients and moments, and at least"
        f" {in_gib(memory.sequence)} for the longest sequence; {room}"
    )
    match num_processes:
        case 1:
            return Finding(part="memory", text=told)
        case None:
            told += ", too little for the sequence: lower rollout.limits.max_response_tokens"
        case number:
            told += f": it takes at least {number} processes, each with as much (docs/scaling.md)"
    return Finding(part="memory", text=told, verdict="look")


def in_gib(number: int) -> str:
    """Return a number of bytes in GiB, a small one in MiB."""
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{1024 * gib:.1f} MiB"
