#!/usr/bin/env bash
# Train a real model with EAPO and without experts, evaluate both alone, and compare them.
#
#     bash examples/real_model.sh
#
# By default: the preset one_gpu, Qwen2.5-0.5B-Instruct with a 7B expert on one GPU of 80 GB, which
# takes `pip install -e ".[vllm]"` (docs/one-gpu.md has memory, cost and what to watch). Nothing
# here has run on a GPU yet. Other models and problems by variables:
#
#     PRESET      whose settings to start from
#     EXPERT      a hub id to serve as the expert on this GPU; "" if it is served already
#     SETTINGS    more settings, as for --set, separated by spaces
#     FOLDER      where runs and results go; what is there is resumed or kept
set -euo pipefail
PRESET=${PRESET:-one_gpu}
EXPERT=${EXPERT-Qwen/Qwen2.5-7B-Instruct}
FOLDER=${FOLDER:-runs/real-model}
read -ra settings <<<"${SETTINGS:-}"
settings=("${settings[@]/#/--set=}")

if [ -n "$EXPERT" ]; then
  eapo serve-expert "$EXPERT" -- --gpu-memory-utilization 0.35 &
  trap 'kill $!' EXIT
  until curl --silent --fail --output /dev/null http://127.0.0.1:8000/v1/models; do
    kill -0 $! # the server has ended: its message is above
    sleep 5
  done
fi

train() { # NAME [--set=...]...
  local name=$1 run=$FOLDER/$1-1
  shift
  if [ -e "$run/config.json" ]; then
    eapo train --resume "$run"
  else
    eapo train "$PRESET" --runs "$FOLDER" --set "name=$name" "${settings[@]}" "$@"
  fi
  eapo evaluate "$run" --json "$FOLDER/$name.json"
}

train eapo
train self-exploratory --set=annealing.turn_budget=1
eapo compare "$FOLDER/eapo.json" "$FOLDER/self-exploratory.json"
eapo report "$FOLDER/eapo-1" "$FOLDER/self-exploratory-1" --out "$FOLDER/report"
