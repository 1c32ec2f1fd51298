"""The learner's settings: optimiser, batches, precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eapo_env.validation import UserError, at_least, positive

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_TABLE_5_RATE = 1e-6

Layout = Literal["padded", "packed", "shared", "tree"]
"""How a model reads a micro-batch; see `batches.py`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSettings:
    """Optimiser, batches and precision of the learner; defaults from the paper's Table 5 if there.

    Args:
        learning_rate: learning rate after the warm-up; null follows the model of a run: 3e-4 for
            the embedded one, for any other 1e-6 (Table 5), for adapters 1e-3 and 1e-5.
        warmup_steps: updates of linear warm-up from learning_rate / warmup_steps (Table 5: 10).
        weight_decay: the optimiser's (inferred from the DAPO recipe).
        max_grad_norm: gradients are clipped to this norm; `inf` never clips (inferred).
        max_batch_tokens: tokens of a micro-batch, padding included: memory and speed, not results.
        mini_batches: number of updates per call, each on whole groups in their order.
        epochs: passes over the groups. With several updates in all, `logp_old` is computed once
            before the first, and the ratio is 1 only in the first.
        device: the model's device: "cpu", "cuda", "cuda:1", ...; "auto" is an accelerator if there
            is one.
        precision: "bfloat16" is autocast with float32 weights, of which those that LoRA leaves as
            they are stay in bfloat16; the others are the weights' dtype.
        layout: of a batch; "padded" suits every model, "packed" is for flash attention, "shared"
            computes a prompt once for its group in a batch, through a key-value cache, and "tree"
            all that sequences have in common, in one row with a mask: for short sequences, in
            batches of about one group.
        optimizer: "adamw"; "adafactor", with almost no state, for a single process; "sgd", with
            none.
        fused: use the fused kernels of "adamw" and, in a single process, "sgd".
        compile: backend of `torch.compile`; "inductor" needs a C++ compiler (on a GPU, Triton) and
            a minute at the start, "aot_eager" only traces.
        gradient_checkpointing: recompute activations in the backward pass, to save memory. This
            needs the model's training mode and so its dropout, if it has any.

    Raises:
        UserError: a value out of its range, or "shared" with gradient checkpointing.
    """

    learning_rate: float | None = None
    warmup_steps: int = 10
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    max_batch_tokens: int = 4096
    mini_batches: int = 1
    epochs: int = 1
    device: str = "auto"
    precision: Literal["float64", "float32", "bfloat16"] = "float32"
    layout: Layout = "padded"
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    fused: bool = True
    compile: Literal["none", "inductor", "aot_eager"] = "none"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        positive(self, "max_grad_norm")
        at_least(1, self, "max_batch_tokens", "mini_batches", "epochs")
        at_least(0, self, "warmup_steps", "weight_decay")
        if self.learning_rate is not None:
            at_least(0, self, "learning_rate")
        if self.layout == "shared" and self.gradient_checkpointing:
            raise UserError("the layout 'shared' excludes gradient checkpointing")

    def check_device(self) -> None:
        """Check that this machine has the device.

        Raises:
            UserError: it has not, or there is no device of this name; those it has are listed.
        """
        import torch

        names, accelerator = ["auto", "cpu"], torch.accelerator.current_accelerator(True)
        if accelerator:
            count = torch.accelerator.device_count()
            names += [accelerator.type, *(f"{accelerator.type}:{n}" for n in range(count))]
        if self.device not in names:
            known = " or ".join(map(repr, names))
            raise UserError(f"learner.device must be {known} on this machine, not {self.device!r}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0: linear warm-up, constant."""
        return self.peak_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up: Table 5's where none is set."""
        return _TABLE_5_RATE if self.learning_rate is None else self.learning_rate

    def optimizer_of(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these weights.

        Raises:
            UserError: one that torch does not have for weights that several processes share.
        """
        import torch
        from torch.distributed.tensor import DTensor

        rate, decay = self.peak_rate, self.weight_decay
        sharded = any(isinstance(weight.data, DTensor) for weight in weights)
        match self.optimizer:
            case "adamw":
                return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=self.fused)
            case "adafactor" if sharded:
                raise UserError("torch's Adafactor is for one process: set learner.optimizer=adamw")
            case "adafactor":
                return torch.optim.Adafactor(weights, lr=rate, weight_decay=decay)
            case "sgd":  # torch's fused kernel takes no sharded weights
                fused = self.fused and not sharded
                return torch.optim.SGD(weights, lr=rate, weight_decay=decay, fused=fused)

    def reader_of(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model, or its compiled version on the same weights, for forward passes."""
        if self.compile == "none":
            return model
        import torch

        return torch.compile(model, backend=self.compile)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass.

        Its cache would hold all weights in bfloat16 until the end, which gradient checkpointing
        otherwise avoids.
        """
        import torch

        return torch.autocast(
            self.torch_device.type,
            torch.bfloat16,
            enabled=self.precision == "bfloat16",
            cache_enabled=not self.gradient_checkpointing,
        )

    @property
    def torch_device(self) -> torch.device:
        """The device, with "auto" resolved."""
        import torch

        if self.device != "auto":
            return torch.device(self.device)
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    def typed(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with its weights in their types, in place."""
        model.to(self.weights_dtype)
        for weight in model.parameters():
            weight.data = weight.data.to(self.dtype_of(weight))
        return model

    def dtype_of(self, weight: nn.Parameter) -> torch.dtype:
        """The dtype of a weight: in bfloat16, a frozen one is bfloat16 itself."""
        import torch

        is_small = self.precision == "bfloat16" and not weight.requires_grad
        return torch.bfloat16 if is_small else self.weights_dtype

    @property
    def rounding(self) -> float:
        """The mean difference of two computations of log-probabilities, in nats, that is rounding.

        Rounding in bfloat16 was seen to reach 0.06 nats, on text that a model of 135 million
        parameters finds unlikely; how little a fault differs has not been measured.
        """
        return 0.15 if self.precision == "bfloat16" else 1e-3

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype of what is trained, of gradients and of the optimiser's state."""
        import torch

        return torch.float64 if self.precision == "float64" else torch.float32
