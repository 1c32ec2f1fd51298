"""EAPO-Math-v0: a Gymnasium environment in which a policy may consult experts."""

from __future__ import annotations

import gymnasium as gym

gym.register(
    id="EAPO-Math-v0",
    entry_point="eapo_env.env:EAPOMathEnv",
    vector_entry_point="eapo_env.vector_env:EAPOMathVectorEnv",
)
