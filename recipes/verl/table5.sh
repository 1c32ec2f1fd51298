#!/usr/bin/env bash
# The paper's training (Table 5) on verl: eight GPUs of 80 GiB a node, experts on servers of their own.
#
#   EXPERTS=http://HOST:8000/v1 recipes/verl/table5.sh [FOLDER] [OPTION=VALUE ...]
#
# FOLDER, which all nodes see, gets the data files and the checkpoints. Further options are verl's, and
# EAPO's under `+eapo.`. NODES is the number of nodes; start Ray on all of them first.
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:-runs/verl-table5}")
preset=r1_distill_qwen_7b
[ -e "$folder/data/val.parquet" ] || eapo export-verl "$preset" "$folder/data"

# verl plays in 8 processes, each with a pool of experts of its own: 8 x 32 calls at a time.
workers=8
expert="{base_url: '${EXPERTS:-http://127.0.0.1:8000/v1}', max_live_calls: 32, call_timeout_s: 900,\
 models: [Qwen/QwQ-32B, Qwen/QwQ-32B, Qwen/QwQ-32B]}"

# A response holds 20,480 tokens of the policy (a limit of the preset) and the experts' replies to it:
# three turns of three replies of 2,048 tokens, so 38,912 in all.
exec python3 -m verl.trainer.main_ppo \
  +eapo.preset="$preset" \
  "+eapo.experts.endpoints=[$expert]" \
  data.train_files="$folder/data/train.parquet" \
  data.val_files="$folder/data/val.parquet" \
  data.train_batch_size=32 \
  data.max_prompt_length=2048 \
  data.max_response_length=38912 \
  data.filter_overlong_prompts=True \
  data.return_raw_chat=True \
  actor_rollout_ref.model.path=deepseek-ai/DeepSeek-R1-Distill-Qwen-7B \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.model.enable_gradient_checkpointing=True \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=4 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=12288 \
  actor_rollout_ref.actor.ppo_mini_batch_size=32 \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.optim.lr_warmup_steps=10 \
  actor_rollout_ref.actor.optim.weight_decay=0.1 \
  actor_rollout_ref.actor.grad_clip=1.0 \
  actor_rollout_ref.actor.clip_ratio_low=0.2 \
  actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.clip_ratio_c=10 \
  actor_rollout_ref.actor.loss_agg_mode=token-mean \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.entropy_coeff=0 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.tensor_model_parallel_size=4 \
  actor_rollout_ref.rollout.n=16 \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.top_p=1.0 \
  actor_rollout_ref.rollout.top_k=-1 \
  actor_rollout_ref.rollout.calculate_log_probs=True \
  actor_rollout_ref.rollout.max_model_len=40960 \
  actor_rollout_ref.rollout.agent.num_workers="$workers" \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=12288 \
  actor_rollout_ref.rollout.val_kwargs.n=32 \
  actor_rollout_ref.rollout.val_kwargs.do_sample=True \
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0 \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  critic.enable=False \
  algorithm.filter_groups.enable=True \
  algorithm.filter_groups.metric=acc \
  algorithm.filter_groups.max_inflight_gen_batches=3 \
  algorithm.rollout_correction.rollout_is=token \
  algorithm.rollout_correction.rollout_is_threshold=2.0 \
  trainer.project_name=eapo \
  trainer.experiment_name=verl-table5 \
  trainer.default_local_dir="$folder/checkpoints" \
  trainer.n_gpus_per_node=8 \
  trainer.nnodes="${NODES:-1}" \
  trainer.total_training_steps=200 \
  trainer.total_epochs=100 \
  trainer.save_freq=20 \
  trainer.test_freq=20 \
  trainer.use_v1=True \
  trainer.v1.trainer_mode=sync \
  "${@:2}"
