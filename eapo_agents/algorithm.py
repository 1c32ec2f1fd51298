"""An algorithm as a value: how rewards become advantages, and advantages a loss.

A trainer takes any `Algorithm`; these are the ones at hand. A variant is a value too:

    replace(DAPO, name="dapo-symmetric", loss=partial(dapo_loss, clip_high=0.2))
"""

from __future__ import annotations

from dataclasses import dataclass

from eapo_agents.advantages import (
    Advantages,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
)
from eapo_agents.losses import (
    Loss,
    cispo_loss,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    gspo_loss,
    rloo_loss,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A name for the records, an advantage function and a loss."""

    name: str
    advantages: Advantages
    loss: Loss


DAPO = Algorithm(name="dapo", advantages=group_advantages, loss=dapo_loss)
"""The algorithm of the paper (3.1, Table 5); its dynamic sampling is the rollout's part."""
GRPO = Algorithm(name="grpo", advantages=group_advantages, loss=grpo_loss)
DR_GRPO = Algorithm(name="dr_grpo", advantages=centred_advantages, loss=dr_grpo_loss)
GSPO = Algorithm(name="gspo", advantages=group_advantages, loss=gspo_loss)
CISPO = Algorithm(name="cispo", advantages=group_advantages, loss=cispo_loss)
RLOO = Algorithm(name="rloo", advantages=leave_one_out_advantages, loss=rloo_loss)

ALGORITHMS = (DAPO, GRPO, DR_GRPO, GSPO, CISPO, RLOO)
"""Those above, for a command line to choose from by name."""
