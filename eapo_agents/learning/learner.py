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

from eapo_agents.learning.algorithms import DAPO, Algorithm
from eapo_agents.learning.batches import (
    LAYOUTS,
    Batch,
    MiniBatch,
    Row,
    make_batches,
    mini_batch,
    rows_of_groups,
)
from eapo_agents.learning.distributed import SINGLE_PROCESS, Processes
from eapo_agents.learning.logprobs import token_logprobs
from eapo_agents.learning.losses import Loss, LossOutput, mismatch, sft_loss
from eapo_agents.learning.settings import LearnerSettings as LearnerSettings
from eapo_agents.policies import with_fast_linears
from eapo_agents.rollouts import Demonstration, Floats, Group, Trajectory
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Learner:
    """Updates a causal language model from groups of trajectories, or from demonstrations.

    Args:
        model: a transformers causal language model; it is moved to the settings' device and type,
            and updated in place.
        algorithm: the advantages and the loss; any value of the type, one's own included.
        settings: see `LearnerSettings`.
        processes: those that share the updates. The public methods are called in the first one; the
            others do the same when they are told (`follower.py`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        algorithm: Algorithm = DAPO,
        settings: LearnerSettings | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self.settings = settings or LearnerSettings()
        self.algorithm = algorithm
        self.processes = processes
        self.model = with_fast_linears(model).to(self.settings.weights_dtype)
        self._kind = type(model)
        processes.place(model, self.settings.torch_device)
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
            UserError: no groups, or no policy token in one of the optimiser steps.
            FloatingPointError: the loss or a gradient is not finite; that step is not applied.
        """
        self.processes.announce("update", groups)
        minis = [
            self._mini_batch(
                rows_of_groups(chunk, self.algorithm.advantages), num_groups=len(chunk)
            )
            for chunk in _split(groups, self.settings.mini_batches)
        ]
        only_one = len(minis) * self.settings.epochs == 1
        old = [None if only_one else self._logps(mini.batches) for mini in minis]
        return mean_of_steps(
            [
                self._apply(mini, self.algorithm.loss, logp_old)
                for _ in range(self.settings.epochs)
                for mini, logp_old in zip(minis, old, strict=True)
            ]
        )

    def sft_update(self, demonstrations: Sequence[Demonstration]) -> dict[str, float]:
        """Imitate the demonstrations with one step of cross-entropy; return its metrics.

        Raises:
            UserError: no demonstrations, or not a single token to learn.
            FloatingPointError: the loss or a gradient is not finite; the step is not applied.
        """
        self.processes.announce("sft_update", demonstrations)
        rows = [Row(record=record) for record in demonstrations]
        report = self._apply(self._mini_batch(rows, num_groups=len(rows)), sft_loss, None)
        return {name: value for name, value in report.items() if "mismatch" not in name}

    def logprobs(self, records: Sequence[Trajectory | Demonstration]) -> list[Floats]:
        """Return each record's log-probabilities under the model, 0 off the mask, in order."""
        self.processes.announce("logprobs", records)
        rows = [Row(record=record) for record in records]
        batches = self._placed(make_batches(rows, max_tokens=self.settings.max_batch_tokens))
        found: dict[int, Floats] = {}
        for batch, logp_BT in zip(batches, self._logps(batches), strict=True):
            for row, logp_T in zip(batch.row_B.tolist(), logp_BT.float().cpu(), strict=True):
                found[row] = logp_T[: records[row].num_tokens].numpy().copy()
        return [found[row] for row in range(len(records))]

    def weights(self) -> dict[str, Tensor]:
        """Return the model's weights, in the first process; live tensors where there is one."""
        self.processes.announce("weights")
        return self.processes.weights(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on as if nothing had happened; as `weights`."""
        self.processes.announce("state_dict")
        return {
            "model": self.processes.weights(self.model),
            "optimizer": self.processes.optimizer_state(self._optimizer),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore weights, optimiser and step, from the first process's state."""
        self.processes.announce("load_state_dict", {})
        self.step = self.processes.load(self.model, self._optimizer, state)

    def save(self, folder: Path) -> None:
        """Write a checkpoint: the model in Hugging Face format, the rest in `learner.pt`."""
        state = self.state_dict()
        self.model.save_pretrained(folder, state_dict=state.pop("model"))
        torch.save(state, folder / "learner.pt")

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, and go on as if nothing had happened.

        Raises:
            UserError: a folder that does not hold such a checkpoint, or a damaged one.
        """
        try:
            weights = self._kind.from_pretrained(folder, dtype=self.settings.weights_dtype)
            state = torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
            self.load_state_dict(state | {"model": weights.state_dict()})
        except Exception as error:
            raise UserError(f"cannot restore a learner from {folder}: {error}") from error

    def _mini_batch(self, rows: Sequence[Row], *, num_groups: int) -> MiniBatch:
        limit = self.settings.max_batch_tokens
        mini = mini_batch(rows, max_tokens=limit, num_groups=num_groups)
        mini = self.processes.share(mini, rows, max_tokens=limit)
        return replace(mini, batches=self._placed(mini.batches))

    def _placed(self, batches: Sequence[Batch]) -> list[Batch]:
        device, dtype = self.settings.torch_device, self.settings.weights_dtype
        return [batch.to(device, dtype) for batch in batches]

    def _apply(self, mini: MiniBatch, loss: Loss, old: Sequence[Tensor] | None) -> dict[str, float]:
        """Take one optimiser step; `old` None means that the ratio is 1."""
        self._optimizer.zero_grad(set_to_none=True)
        tally: dict[str, Tensor] = {}
        for i, batch in enumerate(mini.batches):
            logp_BT, entropy = self._forward(batch)
            inputs = mini.loss_inputs(batch, logp_BT, logp_BT.detach() if old is None else old[i])
            output = loss(inputs)
            output.loss.backward()  # type: ignore[no-untyped-call]
            gap = mismatch(inputs)
            add(
                tally, [output, replace(gap, sums=gap.sums | {"entropy": entropy})], mini.num_tokens
            )
        tally["padding_rate"] = torch.tensor(mini.padding_rate / self.processes.world)
        report = self.processes.total(tally)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        grad_norm = float(self.processes.whole(norm))
        self._refuse_non_finite(report["loss"], grad_norm)
        self._optimizer.param_groups[0]["lr"] = self.settings.learning_rate_at(self.step)
        self._optimizer.step()
        self.step += 1
        return report | {
            "grad_norm": grad_norm,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "learned_tokens": mini.num_tokens,
            "learned_sequences": mini.num_sequences,
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
        layout = LAYOUTS[self.processes.layout(settings.layout)]
        with settings.autocast():
            return token_logprobs(self._reader, batch, layout, settings.temperature)


def _split(groups: Sequence[Group], num: int) -> list[Sequence[Group]]:
    """Cut the groups into `num` runs of nearly equal size, in order; fewer if there are fewer."""
    if not groups:
        raise UserError("an update needs at least one group")
    num = min(num, len(groups))
    return [groups[len(groups) * i // num : len(groups) * (i + 1) // num] for i in range(num)]


def add(report: dict[str, Tensor], outputs: Sequence[LossOutput], num_tokens: float) -> None:
    """Add a micro-batch to the report: shares of losses, sums a token, `max_` of maxima."""
    for output in outputs:
        report["loss"] = report.get("loss", 0.0) + output.loss.detach()
        for name, value in output.sums.items():
            report[name] = report.get(name, 0.0) + value.detach() / num_tokens
        for name, value in output.maxima.items():
            report[f"max_{name}"] = torch.maximum(report.get(f"max_{name}", value), value.detach())


def mean_of_steps(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the optimiser steps, or the largest of a maximum."""
    return {
        name: (max if name.startswith("max_") else fmean)([report[name] for report in reports])
        for name in reports[0]
    }
