"""[edge] The learner: a causal language model, its optimiser, and one update at a time.

Owns the order of an update: advantages, micro-batches, one forward and backward each, the check
that everything is finite, gradient clipping, the optimiser's step. Because each micro-batch adds
its share of a loss normalised over the whole step (`losses.py`), the update does not depend on how
the step is cut into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eapo_agents.algorithm import DAPO, Algorithm
from eapo_agents.batches import (
    LAYOUTS,
    Batch,
    MiniBatch,
    Row,
    make_batches,
    mini_batch,
    rows_of_groups,
)
from eapo_agents.learner_settings import LearnerSettings as LearnerSettings
from eapo_agents.linear import with_fast_linears
from eapo_agents.logprobs import token_logprobs
from eapo_agents.losses import Loss, mismatch, sft_loss
from eapo_agents.trajectory import Demonstration, Floats, Group, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Learner:
    """Updates a causal language model from groups of trajectories, or from demonstrations.

    Args:
        model: a transformers causal language model; it is moved to the settings' device and type,
            and updated in place.
        algorithm: the advantages and the loss; any value of the type, one's own included.
        settings: see `LearnerSettings`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        algorithm: Algorithm = DAPO,
        settings: LearnerSettings | None = None,
    ) -> None:
        self.settings = settings or LearnerSettings()
        self.algorithm = algorithm
        self.model = with_fast_linears(model)
        self.model.to(self.settings.torch_device, self.settings.weights_dtype)
        if self.settings.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.step = 0
        self._parameters = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._optimizer = self.settings.optimizer_of(self._parameters)
        self._reader = self.settings.reader_of(self.model)

    def update(self, groups: Sequence[Group]) -> dict[str, float]:
        """Improve the model on the groups; return the update's metrics.

        These are `loss`, `grad_norm` (before clipping), `learning_rate`, `entropy` (nats a policy
        token), `mismatch_kl`, `max_mismatch_ratio`, `learned_tokens`, `learned_sequences`,
        `padding_rate` and the diagnostics of the loss; with several optimiser steps, the mean of
        each over them, or the largest for a maximum.

        Raises:
            ValueError: no groups, or no policy token in one of the optimiser steps.
            FloatingPointError: the loss or a gradient is not finite; that step is not applied.
        """
        minis = [
            self._mini_batch(
                rows_of_groups(chunk, self.algorithm.advantages), num_groups=len(chunk)
            )
            for chunk in _split(groups, self.settings.mini_batches)
        ]
        only_one = len(minis) * self.settings.epochs == 1
        old = [None if only_one else self._logps(mini.batches) for mini in minis]
        return _summary(
            [
                self._apply(mini, self.algorithm.loss, logp_old)
                for _ in range(self.settings.epochs)
                for mini, logp_old in zip(minis, old, strict=True)
            ]
        )

    def sft_update(self, demonstrations: Sequence[Demonstration]) -> dict[str, float]:
        """Imitate the demonstrations with one step of cross-entropy; return its metrics.

        Raises:
            ValueError: no demonstrations, or not a single token to learn.
            FloatingPointError: the loss or a gradient is not finite; the step is not applied.
        """
        rows = [Row(record=record) for record in demonstrations]
        report = self._apply(self._mini_batch(rows, num_groups=len(rows)), sft_loss, None)
        return {name: value for name, value in report.items() if "mismatch" not in name}

    def logprobs(self, records: Sequence[Trajectory | Demonstration]) -> list[Floats]:
        """Return each record's log-probabilities under the model, 0 off the mask, in order."""
        rows = [Row(record=record) for record in records]
        batches = self._placed(make_batches(rows, max_tokens=self.settings.max_batch_tokens))
        found: dict[int, Floats] = {}
        for batch, logp_BT in zip(batches, self._logps(batches), strict=True):
            for row, logp_T in zip(batch.row_B.tolist(), logp_BT.float().cpu(), strict=True):
                found[row] = logp_T[: records[row].num_tokens].numpy().copy()
        return [found[row] for row in range(len(records))]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on as if nothing had happened; live tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore weights, optimiser and step."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self, folder: Path) -> None:
        """Write a checkpoint: the model in Hugging Face format, the rest in `learner.pt`."""
        self.model.save_pretrained(folder)
        state = {"optimizer": self._optimizer.state_dict(), "step": self.step}
        torch.save(state, folder / "learner.pt")

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, and go on as if nothing had happened.

        Raises:
            ValueError: a folder that does not hold such a checkpoint, or a damaged one.
        """
        try:
            weights = type(self.model).from_pretrained(folder, dtype=self.settings.weights_dtype)
            state = torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
            self.load_state_dict(state | {"model": weights.state_dict()})
        except Exception as error:
            raise ValueError(f"cannot restore a learner from {folder}: {error}") from error

    def _mini_batch(self, rows: Sequence[Row], *, num_groups: int) -> MiniBatch:
        mini = mini_batch(rows, max_tokens=self.settings.max_batch_tokens, num_groups=num_groups)
        return replace(mini, batches=self._placed(mini.batches))

    def _placed(self, batches: Sequence[Batch]) -> list[Batch]:
        device, dtype = self.settings.torch_device, self.settings.weights_dtype
        return [batch.to(device, dtype) for batch in batches]

    def _apply(self, mini: MiniBatch, loss: Loss, old: Sequence[Tensor] | None) -> dict[str, float]:
        """Take one optimiser step; `old` None means that the ratio is 1."""
        self._optimizer.zero_grad(set_to_none=True)
        report: dict[str, Tensor] = {}
        for i, batch in enumerate(mini.batches):
            logp_BT, entropy = self._forward(batch)
            inputs = mini.loss_inputs(batch, logp_BT, logp_BT.detach() if old is None else old[i])
            output, gap = loss(inputs), mismatch(inputs)
            output.loss.backward()  # type: ignore[no-untyped-call]
            report["loss"] = report.get("loss", 0.0) + output.loss.detach()
            sums = {"entropy": entropy} | output.sums | gap.sums
            _add(report, sums, output.maxima | gap.maxima, mini.num_tokens)
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        self._refuse_non_finite(float(report["loss"]), float(grad_norm))
        self._optimizer.param_groups[0]["lr"] = self.settings.learning_rate_at(self.step)
        self._optimizer.step()
        self.step += 1
        return {name: float(value) for name, value in report.items()} | {
            "grad_norm": float(grad_norm),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "learned_tokens": mini.num_tokens,
            "learned_sequences": mini.num_sequences,
            "padding_rate": mini.padding_rate,
        }

    def _refuse_non_finite(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise FloatingPointError(
                f"update {self.step} is not applied: its loss is {loss}, its gradient norm "
                f"{grad_norm}; weights and optimiser are as they were before it"
            )

    @torch.no_grad()
    def _logps(self, batches: Sequence[Batch]) -> list[Tensor]:
        return [self._forward(batch)[0] for batch in batches]

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        settings = self.settings
        self.model.train(settings.gradient_checkpointing)
        bfloat16 = settings.precision == "bfloat16"
        with torch.autocast(settings.torch_device.type, torch.bfloat16, enabled=bfloat16):
            return token_logprobs(
                self._reader, batch, LAYOUTS[settings.layout], settings.temperature
            )


def _add(
    report: dict[str, Tensor],
    sums: Mapping[str, Tensor],
    maxima: Mapping[str, Tensor],
    num_tokens: float,
) -> None:
    """Add a micro-batch's diagnostics to the report of its optimiser step."""
    for name, value in sums.items():
        report[name] = report.get(name, 0.0) + value.detach() / num_tokens
    for name, value in maxima.items():
        report[f"max_{name}"] = torch.maximum(report.get(f"max_{name}", value), value.detach())


def _summary(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the optimiser steps, or the largest of a maximum."""
    return {
        name: (max if name.startswith("max_") else fmean)([report[name] for report in reports])
        for name in reports[0]
    }


def _split(groups: Sequence[Group], num: int) -> list[Sequence[Group]]:
    """Cut the groups into `num` runs of nearly equal size, in order; fewer if there are fewer."""
    if not groups:
        raise ValueError("an update needs at least one group")
    num = min(num, len(groups))
    return [groups[len(groups) * i // num : len(groups) * (i + 1) // num] for i in range(num)]
