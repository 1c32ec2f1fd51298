#!/usr/bin/env bash
# mlflow-skinny 3.17.2: the light client cannot keep a training's metrics on this machine.
#
# A good guess: `pip install mlflow-skinny` is MLflow's logging API without its server, so a run with
# a `file:` or `sqlite:` tracking URI is written to disk.
# Behaviour: both are refused at the first call. The file store is in maintenance mode and must be
# switched on by an environment variable; SQL stores need packages that only the full `mlflow` brings,
# and the message speaks of the model registry, which was not asked for. What is left is a server.
# Seen:
#   file MlflowException: The filesystem tracking backend (e.g., './mlruns') is in maintenance mode
#   sqlite UnsupportedModelRegistryStoreURIException: Model registry functionality is unavailable
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlflow-skinny==3.17.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from mlflow.tracking import MlflowClient


def refusal(uri: str) -> str:
    try:
        MlflowClient(uri).create_experiment("a training")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise SystemExit(f"{uri} is taken now: this finding is out of date")


file, sqlite = refusal("file:runs"), refusal("sqlite:///runs.db")
print("file", file[:90])
print("sqlite", sqlite[:90])
assert "maintenance mode" in file, file
assert "Model registry functionality is unavailable" in sqlite, sqlite
PY
