"""[edge] The learner: a causal language model, its optimiser, and one update at a time.

Owns the order of an update: advantages, micro-batches, one forward and backward pass each, the
check that loss and gradient are finite, gradient clipping, the optimiser's step. Because each
micro-batch adds its share of a loss normalised over the whole step (`losses.py`), the update does
not depend on how the step is cut into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import chain
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import torch
from torch import Tensor, nn

from eapo_agents.learning.algorithms import DAPO, Algorithm, StatefulAlgorithm
from eapo_agents.learning.batches import (
    LAYOUTS,
    Batch,
    MiniBatch,
    Row,
    make_batches,
    mini_batch,
    rows_of_groups,
)
from eapo_agents.learning.distributed import SINGLE_PROCESS, Processes, check_all_joined
from eapo_agents.learning.logprobs import token_logprobs
from eapo_agents.learning.lora import Adapters
from eapo_agents.learning.losses import Loss, LossOutput, mismatch, sft_loss
from eapo_agents.learning.process_commands import (
    Command,
    ComputeLogprobs,
    GatherState,
    GatherWeights,
    Imitate,
    LoadShards,
    LoadState,
    SaveShards,
    Update,
)
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.shards import SHARDS, load_shards, save_shards
from eapo_agents.policies import recompute_activations
from eapo_agents.rollouts import Demonstration, Group, Logprobs, Trajectory
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Metrics = dict[str, float]

_OWN_METRICS = {
    *("loss", "entropy", "mismatch_kl", "max_mismatch_ratio", "padding_rate", "grad_norm"),
    *("learning_rate", "learned_tokens", "learned_sequences"),
}


class NonFiniteUpdateError(UserError, FloatingPointError):
    """The loss or the gradient of an update is not finite; the update is not applied."""


class Learner:
    """Updates a causal language model from groups of trajectories, or from demonstrations.

    Args:
        model: a transformers causal language model. It is moved to the settings' device and type,
            and updated in place; with several processes it is sharded over them.
        algorithm: the advantages and the loss; `DAPO()` by default, a custom one plugs in.
        settings: see `LearnerSettings`.
        temperature: the sampler's; log-probabilities are those of logits / temperature.
        adapters: the LoRA adapters on the model, which are trained instead of its own weights.
        processes: those that share the updates. The public methods are called in the first one; the
            others `perform` what it announces. `LearnerSpec.start` makes the same learner in all.

    Raises:
        UserError: a temperature that is not positive, a device that this machine lacks, or a single
            process where a launcher started several.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        algorithm: Algorithm | None = None,
        settings: LearnerSettings | None = None,
        temperature: float = 1.0,
        adapters: Adapters | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        check_all_joined(processes)
        if not temperature > 0:
            raise UserError(f"temperature must be positive, not {temperature}")
        self._settings = settings or LearnerSettings()
        self._settings.check_device()
        self._algorithm: Algorithm = DAPO() if algorithm is None else algorithm
        self.temperature = temperature
        self.processes = processes
        self.model = self.settings.typed(model)
        self._adapters = adapters
        self._model_class = type(model)
        processes.place(model, self.settings.torch_device)
        if self.settings.gradient_checkpointing:
            recompute_activations(self.model)
        self.step = 0
        self.advantages: tuple[float, ...] = ()
        self._performing = False
        self._parameters = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._optimizer = self.settings.optimizer_of(self._parameters)
        self._reader = self.settings.reader_of(self.model)

    @property
    def algorithm(self) -> Algorithm:
        """The advantages and the loss; fixed, because all processes must have the same."""
        return self._algorithm

    @property
    def settings(self) -> LearnerSettings:
        """How the model is updated; fixed, as the algorithm is."""
        return self._settings

    def update(self, groups: Sequence[Group]) -> Metrics:
        """Improve the model on the groups; return the update's metrics.

        These are `loss`, `grad_norm` (before clipping), `learning_rate`, `entropy` (nats a policy
        token), `mismatch_kl`, `max_mismatch_ratio`, `learned_tokens`, `learned_sequences`,
        `padding_rate` and the diagnostics of the loss; with several optimiser steps, the mean of
        each over them, or the largest for a maximum. `advantages` then holds the advantage of each
        trajectory, group by group.

        Raises:
            UserError: no groups, or no policy token in one of the optimiser steps.
            NonFiniteUpdateError: the loss or a gradient is not finite; that step is not applied.
        """
        metrics: Metrics = self._perform_in_all(Update(groups=groups))
        return metrics

    def sft_update(
        self, demonstrations: Sequence[Demonstration], *, learning_rate: float | None = None
    ) -> Metrics:
        """Imitate the demonstrations with one step of cross-entropy; return its metrics.

        Args:
            learning_rate: of this step; by default that of the settings, with their warm-up.

        Raises:
            UserError: no demonstrations, or not a single token to learn.
            NonFiniteUpdateError: the loss or a gradient is not finite; the step is not applied.
        """
        command = Imitate(demonstrations=demonstrations, learning_rate=learning_rate)
        metrics: Metrics = self._perform_in_all(command)
        return metrics

    def logprobs(self, records: Sequence[Trajectory | Demonstration]) -> list[Logprobs]:
        """Return each record's log-probabilities under the model, 0 off the mask, in order."""
        found: list[Logprobs] = self._perform_in_all(ComputeLogprobs(records=records))
        return found

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of a plain model, adapters merged; live tensors of a single process.

        Names are those of the model's `state_dict` before adapters were attached.
        """
        weights: dict[str, Tensor] = self._perform_in_all(GatherWeights())
        return self._adapters.merged(weights) if self._adapters else weights

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to resume exactly.

        It holds `model`, `optimizer`, `step` and, of an algorithm that has a state, `algorithm`.
        """
        state: dict[str, Any] = self._perform_in_all(GatherState())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore weights, optimiser, step and the algorithm's state."""
        self._perform_in_all(LoadState(state))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a checkpoint: a plain model in Hugging Face format, the rest in `learner.pt`.

        Adapters are merged into the model, and kept by themselves in `adapter/`. Of several
        processes, each writes its part of weights and moments into `shards/`: all see the folder.
        """
        folder = Path(folder).resolve()
        self._save_model(self._perform_in_all(GatherWeights()), folder)
        state = self._progress()
        if self.processes.world_size == 1:
            state["optimizer"] = self._optimizer.state_dict()
        else:
            self._perform_in_all(SaveShards(folder))
        with (folder / "learner.pt").open("wb") as file:  # whose errors say why
            torch.save(state, file)

    def load(self, folder: str | PathLike[str]) -> None:
        """Restore what `save` wrote in however many processes, to resume exactly.

        Raises:
            UserError: the folder holds no such checkpoint, or a damaged one.
        """
        folder = Path(folder).resolve()
        try:
            state = _read(folder)
            if "optimizer" in state:
                self.load_state_dict(state | {"model": self._read_model(folder)})
            else:
                self._perform_in_all(LoadShards(folder))
        except Exception as error:
            raise UserError(f"cannot restore a learner from {folder}: {error}") from error

    def _save_model(self, weights: dict[str, Tensor], folder: Path) -> None:
        if self._adapters:
            self._adapters.save(weights, folder)
        else:
            self.model.save_pretrained(folder, state_dict=weights)

    def _read_model(self, folder: Path) -> dict[str, Tensor]:
        weights: dict[str, Tensor]
        if self._adapters:
            weights = self._perform_in_all(GatherWeights())
            return weights | self._adapters.read(folder)
        dtype = self.settings.weights_dtype
        weights = self._model_class.from_pretrained(folder, dtype=dtype).state_dict()
        return weights

    def perform(self, command: Command) -> Any:
        """Do this process's part of a command, which all processes perform together."""
        self._performing = True
        try:
            match command:
                case Update(groups=groups):
                    return self._update(groups)
                case Imitate(demonstrations=demonstrations, learning_rate=learning_rate):
                    return self._imitate(demonstrations, learning_rate)
                case ComputeLogprobs(records=records):
                    return self._logprobs(records)
                case GatherWeights():
                    return self.processes.full_weights(self.model)
                case GatherState():
                    return self._full_state()
                case LoadState(state=state):
                    step = self.processes.load_full_state(self.model, self._optimizer, state)
                    self._go_on_from({**state, "step": step})
                case SaveShards(checkpoint=checkpoint):
                    save_shards(self.model, self._optimizer, checkpoint / SHARDS)
                case LoadShards(checkpoint=checkpoint):
                    load_shards(self.model, self._optimizer, checkpoint / SHARDS)
                    self._go_on_from(_read(checkpoint))
                case _:
                    assert_never(command)
        finally:
            self._performing = False

    def _perform_in_all(self, command: Command) -> Any:
        """As the first process, perform a command together with the others."""
        self.processes.announce(command)
        return self.perform(command)

    def _update(self, groups: Sequence[Group]) -> Metrics:
        chunks = _split(groups, self.settings.mini_batches)
        rows = [rows_of_groups(chunk, self.algorithm.advantages) for chunk in chunks]
        self.advantages = tuple(row.advantage for row in chain.from_iterable(rows))
        minis = [
            self._mini_batch(part, num_groups=len(chunk))
            for part, chunk in zip(rows, chunks, strict=True)
        ]
        only_one = len(minis) * self.settings.epochs == 1
        old = [None if only_one else self._logps(mini.batches) for mini in minis]
        return _combined_metrics(
            [
                self._optimizer_step(mini, self.algorithm.loss, logp_old)
                for _ in range(self.settings.epochs)
                for mini, logp_old in zip(minis, old, strict=True)
            ]
        )

    def _imitate(
        self, demonstrations: Sequence[Demonstration], learning_rate: float | None
    ) -> Metrics:
        rows = [Row(record=record) for record in demonstrations]
        mini = self._mini_batch(rows, num_groups=len(rows))
        metrics = self._optimizer_step(mini, sft_loss, None, learning_rate)
        return {name: value for name, value in metrics.items() if "mismatch" not in name}

    def _logprobs(self, records: Sequence[Trajectory | Demonstration]) -> list[Logprobs]:
        rows = [Row(record=record) for record in records]
        limit, layout = self.settings.max_batch_tokens, self.settings.layout
        batches = self._placed(make_batches(rows, max_tokens=limit, layout=layout))
        found: dict[int, Logprobs] = {}
        for batch, logp_BT in zip(batches, self._logps(batches), strict=True):
            for row, logp_T in zip(batch.row_B.tolist(), logp_BT.float().cpu(), strict=True):
                found[row] = logp_T[: records[row].num_tokens].numpy().copy()
        return [found[row] for row in range(len(records))]

    def _full_state(self) -> dict[str, Any]:
        return self._progress() | {
            "model": self.processes.full_weights(self.model),
            "optimizer": self.processes.full_optimizer_state(self._optimizer),
        }

    def _progress(self) -> dict[str, Any]:
        """Return what `_go_on_from` needs: the state beside weights and moments."""
        state: dict[str, Any] = {"step": self.step}
        if isinstance(self.algorithm, StatefulAlgorithm):
            state["algorithm"] = saved_state(self.algorithm)
        return state

    def _go_on_from(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        if isinstance(self.algorithm, StatefulAlgorithm) and "algorithm" in state:
            self.algorithm.load_state_dict(state["algorithm"])

    def _mini_batch(self, rows: Sequence[Row], *, num_groups: int) -> MiniBatch:
        limit, layout = self.settings.max_batch_tokens, self.settings.layout
        mini = mini_batch(rows, max_tokens=limit, num_groups=num_groups, layout=layout)
        mini = self.processes.local_mini_batch(mini, rows, max_tokens=limit, layout=layout)
        return replace(mini, batches=self._placed(mini.batches))

    def _placed(self, batches: Sequence[Batch]) -> list[Batch]:
        device, dtype = self.settings.torch_device, self.settings.weights_dtype
        return [batch.to(device, dtype) for batch in batches]

    def _optimizer_step(
        self,
        mini: MiniBatch,
        loss: Loss,
        old: Sequence[Tensor] | None,
        learning_rate: float | None = None,
    ) -> Metrics:
        """Take one optimiser step; `old` None means that the ratio is 1."""
        self._optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(mini.batches):
            logp_BT, entropy = self._forward(batch)
            inputs = mini.loss_inputs(batch, logp_BT, logp_BT.detach() if old is None else old[i])
            output = loss(inputs)
            check_metric_names(output)
            output.loss.backward()  # type: ignore[no-untyped-call]
            gap = mismatch(inputs)
            gap = replace(gap, sums=gap.sums | {"entropy": entropy})
            _add_outputs(sums, [output, gap], mini.num_tokens)
        sums["padding_rate"] = torch.tensor(mini.padding_rate / self.processes.world_size)
        metrics = self.processes.all_reduce(sums)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        grad_norm = float(self.processes.full_tensor(norm))
        self._refuse_non_finite(metrics["loss"], grad_norm)
        if learning_rate is None:
            learning_rate = self.settings.learning_rate_at(self.step)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        self.step += 1
        return metrics | {
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "learned_tokens": mini.num_tokens,
            "learned_sequences": mini.num_sequences,
        }

    def _refuse_non_finite(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NonFiniteUpdateError(
                f"update {self.step} is not applied: its loss is {loss}, its gradient norm "
                f"{grad_norm}; weights and optimiser are as they were before it"
            )

    @torch.no_grad()
    def _logps(self, batches: Sequence[Batch]) -> list[Tensor]:
        return [self._forward(batch)[0] for batch in batches]

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert self._performing, "only commands run the model: in several processes, all must"
        settings = self.settings
        self.model.train(settings.gradient_checkpointing)
        layout = LAYOUTS[self.processes.layout(settings.layout)]
        with settings.autocast():
            return token_logprobs(self._reader, batch, layout, self.temperature)


def check_metric_names(output: LossOutput) -> None:
    """Check that a loss names no metric as the update names its own.

    Raises:
        UserError: it does, or a sum begins with `max_`, as maxima are named.
    """
    names = {*output.sums, *(f"max_{name}" for name in output.maxima)}
    if taken := sorted(names & _OWN_METRICS):
        raise UserError(
            f"a loss cannot name a metric {taken[0]!r}: the update has one of that name"
        )
    if sums := sorted(name for name in output.sums if name.startswith("max_")):
        raise UserError(f"a loss cannot name a sum {sums[0]!r}: so maxima are named")


def saved_state(algorithm: StatefulAlgorithm) -> Any:
    """Return an algorithm's state as a checkpoint keeps it; numpy's numbers become Python's.

    Raises:
        UserError: it holds something that a checkpoint cannot give back.
    """
    state, file = _without_numpy(algorithm.state_dict()), BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise UserError(
            f"no checkpoint can give back the state_dict of the algorithm {algorithm!r:.80}:"
            f" numbers, texts, tensors, and lists and dicts of these it can ({error!r:.200})"
        ) from error
    return state


def _without_numpy(value: Any) -> Any:
    """Return the value with Python's numbers in the place of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _without_numpy(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy, value))
    return value


def _read(checkpoint: Path) -> dict[str, Any]:
    """Return what the first process wrote beside the model."""
    state: dict[str, Any] = torch.load(
        checkpoint / "learner.pt", map_location="cpu", weights_only=True
    )
    return state


def _split(groups: Sequence[Group], num: int) -> list[Sequence[Group]]:
    """Cut the groups into `num` runs of nearly equal size, in order; fewer if there are fewer."""
    if not groups:
        raise UserError("an update needs at least one group")
    num = min(num, len(groups))
    return [groups[len(groups) * i // num : len(groups) * (i + 1) // num] for i in range(num)]


def _add_outputs(
    metrics: dict[str, Tensor], outputs: Sequence[LossOutput], num_tokens: float
) -> None:
    """Add a micro-batch to the metrics: its share of the loss, sums per token, `max_` of maxima."""
    for output in outputs:
        metrics["loss"] = metrics.get("loss", 0.0) + output.loss.detach()
        for name, value in output.sums.items():
            metrics[name] = metrics.get(name, 0.0) + value.detach() / num_tokens
        for name, value in output.maxima.items():
            value = value.detach()
            metrics[f"max_{name}"] = torch.maximum(metrics.get(f"max_{name}", value), value)


def _combined_metrics(steps: Sequence[Mapping[str, float]]) -> Metrics:
    """Return the mean of each metric over the optimiser steps, or the largest of a maximum."""
    found: dict[str, list[float]] = {}
    for metrics in steps:
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    return {
        name: (max if name.startswith("max_") else fmean)(values) for name, values in found.items()
    }
