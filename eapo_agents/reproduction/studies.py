"""The studies of the miniature reproduction, by name."""

from __future__ import annotations

from collections.abc import Mapping

from eapo_agents.reproduction.belief_study import BELIEF
from eapo_agents.reproduction.noise_study import NOISE
from eapo_agents.reproduction.study import Study

STUDIES: Mapping[str, Study] = {study.name: study for study in (BELIEF, NOISE)}
