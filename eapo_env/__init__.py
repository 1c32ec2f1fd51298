"""EAPO-Math-v0: a Gymnasium environment in which a policy may consult experts."""
