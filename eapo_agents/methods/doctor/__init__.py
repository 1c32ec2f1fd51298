"""Whether a model can be a policy here: what a run would find out, before an hour is spent."""
