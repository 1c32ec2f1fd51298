"""Agents that learn in EAPO-Math-v0: policies, rollouts, the DAPO learner, evaluation."""
