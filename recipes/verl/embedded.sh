#!/usr/bin/env bash
# The miniature on verl and one GPU, in minutes: the embedded model learns to do without its experts.
#
#   recipes/verl/embedded.sh [FOLDER] [OPTION=VALUE ...]
#
# FOLDER gets the data files and the checkpoints. Further options are verl's, and EAPO's under `+eapo.`.
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:-runs/verl-embedded}")
model=$(python3 -c 'from eapo_agents.policies import model_folder; print(model_folder("embedded"))')
[ -e "$folder/data/val.parquet" ] || eapo export-verl embedded "$folder/data"

exec python3 -m verl.trainer.main_ppo \
  +eapo.preset=embedded \
  data.train_files="$folder/data/train.parquet" \
  data.val_files="$folder/data/val.parquet" \
  data.train_batch_size=16 \
  data.max_prompt_length=384 \
  data.max_response_length=1024 \
  data.return_raw_chat=True \
  actor_rollout_ref.model.path="$model" \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
  actor_rollout_ref.actor.ppo_mini_batch_size=16 \
  actor_rollout_ref.actor.optim.lr=3e-4 \
  actor_rollout_ref.actor.clip_ratio_low=0.2 \
  actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.clip_ratio_c=10 \
  actor_rollout_ref.actor.loss_agg_mode=token-mean \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.calculate_log_probs=True \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=16384 \
  actor_rollout_ref.rollout.val_kwargs.n=4 \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  critic.enable=False \
  algorithm.filter_groups.enable=True \
  algorithm.filter_groups.metric=acc \
  trainer.project_name=eapo \
  trainer.experiment_name=verl-embedded \
  trainer.logger='["console"]' \
  trainer.default_local_dir="$folder/checkpoints" \
  trainer.n_gpus_per_node=1 \
  trainer.nnodes=1 \
  trainer.total_training_steps=40 \
  trainer.total_epochs=100 \
  trainer.save_freq=10 \
  trainer.test_freq=10 \
  trainer.use_v1=True \
  trainer.v1.trainer_mode=sync \
  "${@:2}"
