"""What every process needs to know to make the same learner."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.learning.algorithms import Algorithm
from eapo_agents.learning.distributed import SINGLE_PROCESS, Processes, Refused
from eapo_agents.learning.learner import Learner
from eapo_agents.learning.lora import LoRA
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.policies import ModelSettings, load_model
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """A learner as a value that can be sent to other processes; arguments as of `Learner`.

    Args:
        model: what the learner's model is loaded from.
        lora: adapters to train instead of the model's own weights; None trains all weights.
    """

    model: ModelSettings
    algorithm: Algorithm
    settings: LearnerSettings
    temperature: float = 1.0
    lora: LoRA | None = None

    def check_picklable(self, processes: Processes) -> None:
        """Refuse, in all processes, an algorithm that cannot be sent to the others.

        Raises:
            UserError: there are several processes, and the algorithm cannot be pickled.
        """
        if processes.world_size == 1:
            return
        try:
            pickle.dumps(self.algorithm)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            reason = (
                f"the algorithm {self.algorithm.name!r} cannot be sent to the other processes"
                f" ({error}): define its functions and classes at the top level of a module, not"
                " as lambdas or inside a function"
            )
            processes.announce(Refused(reason))
            raise UserError(reason) from error

    def start(
        self, processes: Processes = SINGLE_PROCESS, *, model: PreTrainedModel | None = None
    ) -> Learner:
        """Return the learner, after the other processes were told to make the same one.

        Args:
            model: the loaded model; by default it is loaded here.
        """
        processes.announce(Begin(self))
        return self.build(processes, model=model)

    def build(self, processes: Processes, *, model: PreTrainedModel | None = None) -> Learner:
        """Return the learner of this process."""
        if model is None:
            model, _ = load_model(self.model)
        return Learner(
            model,
            algorithm=self.algorithm,
            settings=self.settings,
            temperature=self.temperature,
            adapters=self.lora.attach(model, self.model) if self.lora else None,
            processes=processes,
        )


@dataclass(frozen=True, slots=True)
class Begin:
    """The first process has the others make the same learner as it does."""

    spec: LearnerSpec
