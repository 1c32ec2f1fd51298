"""EAPO in TRL: its `GRPOTrainer` owns the model and the update, `EapoRollouts` plays the episodes.

    pip install "eapo[trl]"
    python examples/trl_eapo.py --steps 40
    torchrun --nproc-per-node 2 examples/trl_eapo.py --groups 4    # half of the groups in each

It trains the embedded model, a Llama of a million parameters, on made-up sums, with an expert who
is withdrawn as the training goes on. With another model, change `model.path` and what is in
`docs/trl.md`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

from trl import GRPOConfig, GRPOTrainer

from eapo_agents import TrainConfig, presets, with_settings
from eapo_agents.adapters import EapoRollouts
from eapo_agents.policies import load_model


def trainer_of(eapo: EapoRollouts, args: GRPOConfig) -> GRPOTrainer:
    """Return TRL's trainer of the config's model, which gets its episodes from `eapo`."""
    model, tokenizer = load_model(eapo.config.model)
    return GRPOTrainer(
        model,
        args=args,
        processing_class=tokenizer,
        rollout_func=eapo,
        reward_funcs=eapo.eapo_reward,
        train_dataset=eapo.train_dataset,
        eval_dataset=eapo.eval_dataset,
    )


def arguments_of(config: TrainConfig, folder: str, steps: int, groups: int) -> GRPOConfig:
    """Return TRL's settings for so many steps, of so many groups on each device."""
    size = config.rollout.group_size
    return GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        num_generations=size,
        per_device_train_batch_size=groups * size,  # whole groups on each device
        per_device_eval_batch_size=64,
        num_generations_eval=4,
        eval_strategy="steps",
        eval_steps=steps,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        warmup_steps=10,
        weight_decay=0.1,
        epsilon_high=0.28,
        bf16=False,
        use_cpu=True,  # leave this out where there is a GPU
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print what each step did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--groups", type=int, default=8, help="problems of a step on each device")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    config = with_settings(presets.embedded(), options.settings)
    with EapoRollouts.from_config(config) as eapo, tempfile.TemporaryDirectory() as folder:
        args = arguments_of(config, folder, options.steps, options.groups)
        trainer = trainer_of(eapo, args)
        trainer.train()
    if not trainer.is_world_process_zero():
        return
    for row in trainer.state.log_history:
        if "eapo/accuracy" in row:
            accuracy, calls = row["eapo/accuracy"], row["eapo/call_rate"]
            print(
                f"step {row['step']:3}  loss {row['loss']:.6f}  accuracy {accuracy:.2f}"
                f"  call rate {calls:.2f}"
            )
        elif "eval_eapo/accuracy" in row:
            print(f"alone, on held-out problems: accuracy {row['eval_eapo/accuracy']:.2f}")


if __name__ == "__main__":
    main()
