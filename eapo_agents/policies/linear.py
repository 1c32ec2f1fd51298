"""Linear layers computed by oneDNN on a CPU, where torch uses MKL.

torch multiplies float32 matrices with MKL, which does not use AVX-512 on processors that are not
Intel's. Where these compute it at full width, as AMD's do from Zen 5 on, oneDNN, which torch uses
for bfloat16 and in compiled code, is twice as fast. Zen 4 computes it in halves: there oneDNN's
products take 0.6 to 1.1 of MKL's time, but each some 15 microseconds more to start, so that a small
model's training takes a third longer. On Intel's, and without AVX-512, oneDNN is slower. Results
differ by rounding only. Other devices and dtypes, autocast and compiled code use torch's own layer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_PROCESSOR = Path("/proc/cpuinfo")  # of Linux; elsewhere the layers are torch's
_ZEN_5 = 26  # AMD's family; that of Zen 4 is 25
_LARGE = 8_000_000  # weights, from which on Zen 4 too the products outweigh oneDNN's start


def with_fast_linears(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model, its linear layers turned into `FastLinear` in place; parameters are kept.

    `load_model` does so where it is faster; `HFPolicy` and `Learner` leave a caller's layers alone.
    """
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in model.modules():
            if type(module) is nn.Linear:  # a subclass may override forward
                module.__class__ = FastLinear
    return model


def onednn_is_faster(num_weights: int, cpuinfo: str) -> bool:
    """Return whether oneDNN computes a model's float32 products faster than MKL.

    Args:
        num_weights: of the model.
        cpuinfo: `/proc/cpuinfo` of a machine with AVX-512.
    """
    family = re.search(r"^cpu family\s*: (\d+)$", cpuinfo, re.MULTILINE)
    if "AuthenticAMD" not in cpuinfo or family is None:
        return False
    return int(family[1]) >= _ZEN_5 or num_weights >= _LARGE


def cpuinfo_with_avx512() -> str:
    """Return this machine's `/proc/cpuinfo`; empty if it has none, or no AVX-512."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _PROCESSOR.exists():
        return ""
    return _PROCESSOR.read_text(encoding="utf-8")


class FastLinear(nn.Linear):
    """`nn.Linear`, computed by oneDNN where that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input @ weight.T + bias."""
        if not _suits(input, self.weight):
            return super().forward(input)
        if not torch.is_grad_enabled():
            return _times_transposed(input, self.weight, self.bias)
        product: Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


def _suits(input: Tensor, weight: Tensor) -> bool:
    return (
        input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and input.dim() > 1
        and input.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Product(torch.autograd.Function):
    """x_NI @ weight_OI.T + bias_O, and its three gradients."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight_OI)
        return _times_transposed(input, weight_OI, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight_OI = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        gradient_NO, input_NI = gradient.flatten(0, -2), input.flatten(0, -2)
        return (
            _times_transposed(gradient, weight_OI.t()) if of_input else None,
            _times_transposed(gradient_NO.t(), input_NI.t()) if of_weight else None,
            gradient_NO.sum(0) if of_bias else None,
        )


def _times_transposed(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left @ right.T + bias through the operator that torch's compiler uses."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
