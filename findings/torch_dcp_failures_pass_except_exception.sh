#!/usr/bin/env bash
# torch 2.13.0: a failed save or load of torch.distributed.checkpoint is not caught by
# `except Exception`.
#
# A good guess: a checkpoint that cannot be read or written raises an OSError, or at least an Exception,
# so that a training which catches Exception can report it, clean up and go on.
# Behaviour: CheckpointException derives from BaseException, and passes every such handler as a Ctrl-C
# would.
# Seen:
#   save into a file: only BaseException caught CheckpointException
#   load of no checkpoint: only BaseException caught CheckpointException
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp


def caught(action, **where):
    try:
        try:
            action({"weight": torch.ones(2)}, no_dist=True, **where)
        except Exception as error:
            return f"Exception caught {type(error).__name__}"
    except BaseException as error:
        return f"only BaseException caught {type(error).__name__}"
    return "nothing was raised"


Path("file").write_text("")
found = {
    "save into a file": caught(dcp.save, checkpoint_id="file/inside"),
    "load of no checkpoint": caught(dcp.load, checkpoint_id="nothing"),
}
print("\n".join(f"{name}: {what}" for name, what in found.items()))
expected = "only BaseException caught CheckpointException"
assert set(found.values()) == {expected}, "this finding is out of date"
PY
