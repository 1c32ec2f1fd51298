#!/usr/bin/env bash
# A real pretrained model on CPUs: SmolLM2-135M-Instruct, taught to consult, then trained with experts
# (EAPO) and alone (self-exploratory RL) from the same weights.
#
#     make real                             # from nothing: 10 steps of one seed
#     make real STEPS=16 SEEDS="0 1 2"      # what docs/real-model.md shows
#
# GGUF names the file of the weights, FOLDER where all results go; what is there is resumed or kept.
# SETTINGS holds more settings, as for --set, separated by spaces.
set -euo pipefail
FOLDER=${FOLDER:-runs/smollm2}
STEPS=${STEPS:-10}
SEEDS=${SEEDS:-0}
read -ra settings <<<"${SETTINGS:-}"
settings=("${settings[@]/#/--set=}")
model=$FOLDER/model
start=$FOLDER/smollm2-cold-start-1

train_in() { # RUN COMMAND...: resumes the run if it has begun
  local run=$1
  shift
  if [ -e "$run/config.json" ]; then
    eapo "$1" --resume "$run"
  else
    eapo "$@"
  fi
}

[ -e "$model/config.json" ] || eapo import-gguf "$GGUF" "$model"
train_in "$start" cold-start "$model" --preset smollm2 --runs "$FOLDER" --set steps=10 \
  --set cold_start.batch_size=8 --set cold_start.learning_rate=2e-4 "${settings[@]}"
weights=$(ls -d "$start"/checkpoints/step-* | tail -n 1)

for seed in $SEEDS; do
  for turns in 2 1; do # of the first steps: one turn leaves none to consult in
    [ $turns = 2 ] && name=eapo || name=self-exploratory
    train_in "$FOLDER/seed-$seed/$name-1" train smollm2 --runs "$FOLDER/seed-$seed" \
      --set name=$name --set seed="$seed" --set steps="$STEPS" --set model.path="$weights" \
      --set annealing.turn_budget=$turns "${settings[@]}"
  done
done
for seed in $SEEDS; do
  eapo compare "$start" "$FOLDER/seed-$seed/eapo-1" "$FOLDER/seed-$seed/self-exploratory-1"
done
