"""How the learner updates the model: every knob of `learner.py`, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from eapo_agents.learning.batches import Layout
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    """How the learner updates the model; defaults as in the paper's Table 5 where it says.

    Args:
        learning_rate: the optimiser's, after the warm-up (Table 5: 1e-6).
        warmup_steps: updates over which it grows linearly from 1/warmup_steps of it (Table 5: 10).
        weight_decay: the optimiser's (inferred from the DAPO recipe).
        max_grad_norm: gradients are scaled down to this norm; `inf` never scales (inferred).
        max_batch_tokens: tokens of a micro-batch, padding included: memory and speed, not results.
        mini_batches: updates the groups of one call are split into, whole groups in their order.
        epochs: passes over them. With more than one update in all, `logp_old` is computed once
            before the first, and the ratio is 1 only in the first.
        temperature: of the sampler: log-probabilities are those of logits / temperature.
            A training run wants `rollout.temperature` here.
        device: where the model lives; "auto" takes an accelerator if there is one.
        precision: "bfloat16" is autocast with float32 weights; the others are the weights' type.
        layout: how a model reads a batch; "padded" suits all, "packed" wants flash attention,
            "shared" reads a prompt once for all of its group in a batch, through a key-value cache.
        optimizer: "adamw"; "adafactor", which holds almost no state; "sgd", which holds none.
        fused: one kernel for all weights, in the optimisers that have it (the first and the last).
        compile: read batches through `torch.compile` with this backend; "inductor" needs a C++
            compiler (on a GPU, Triton) and a minute at first, "aot_eager" only traces.
        gradient_checkpointing: recompute activations in the backward pass, to save memory. This
            needs the model's training mode and so its dropout, if it has any.

    Raises:
        UserError: a value out of its range, or "shared" with gradient checkpointing.
    """

    learning_rate: float = 1e-6
    warmup_steps: int = 10
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    max_batch_tokens: int = 4096
    mini_batches: int = 1
    epochs: int = 1
    temperature: float = 1.0
    device: str = "auto"
    precision: Literal["float64", "float32", "bfloat16"] = "float32"
    layout: Layout = "padded"
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    fused: bool = True
    compile: Literal["none", "inductor", "aot_eager"] = "none"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("max_grad_norm", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("max_batch_tokens", "mini_batches", "epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.layout == "shared" and self.gradient_checkpointing:
            raise UserError("the layout 'shared' excludes gradient checkpointing")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0: linear warm-up, constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def optimizer_of(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the chosen optimiser of these weights."""
        rate, decay = self.learning_rate, self.weight_decay
        match self.optimizer:
            case "adamw":
                return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=self.fused)
            case "adafactor":
                return torch.optim.Adafactor(weights, lr=rate, weight_decay=decay)
            case "sgd":
                return torch.optim.SGD(weights, lr=rate, weight_decay=decay, fused=self.fused)

    def reader_of(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return what reads batches: the model, or compiled code beside it on its weights."""
        if self.compile == "none":
            return model
        return torch.compile(model, backend=self.compile)

    def autocast(self) -> torch.autocast:
        """Return the context that a batch is read in.

        Its cache of weights in bfloat16 would keep all of them to its end; where activations are
        recomputed, nothing else does.
        """
        return torch.autocast(
            self.torch_device.type,
            torch.bfloat16,
            enabled=self.precision == "bfloat16",
            cache_enabled=not self.gradient_checkpointing,
        )

    @property
    def torch_device(self) -> torch.device:
        """The device meant."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    @property
    def weights_dtype(self) -> torch.dtype:
        """The type of weights, gradients and optimiser state."""
        return torch.float64 if self.precision == "float64" else torch.float32
