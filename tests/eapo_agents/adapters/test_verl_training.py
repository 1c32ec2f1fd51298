"""verl's own trainer with our agent loop: three steps in two processes, one kill, and the recipes.

Needs verl: `make test-verl`. Two processes learn by FSDP2 on gloo, and each hands its weights to a
policy server of its own (`tests/shared/verl_cpu.py`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("verl")

from datasets import Dataset
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from eapo_agents.adapters.verl_config import verl_settings
from eapo_agents.policies import char_tokenizer, model_folder
from eapo_agents.rollouts import derive_seed
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training import ScheduledRollout, TrainConfig
from eapo_env.acceptance import draw_acceptance

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'shared'}",
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
    "GLOO_SOCKET_IFNAME": "lo",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 leaves its workers 3% of a core that other tests use
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
STEPS, BATCH, GROUP = 3, 4, 8
SMALL = (
    "trainer.device=cpu",
    "trainer.n_gpus_per_node=2",
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=1",
    f"trainer.test_freq={STEPS}",
    "trainer.val_before_train=False",
    f"actor_rollout_ref.rollout.n={GROUP}",
    "actor_rollout_ref.rollout.name=hf",
    "actor_rollout_ref.rollout.free_cache_engine=False",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "actor_rollout_ref.rollout.val_kwargs.n=2",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    f"data.train_batch_size={BATCH}",
    "data.val_max_samples=4",
    "data.dataloader_num_workers=0",
    "reward.num_workers=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "ray_kwargs.ray_init.num_cpus=32",
    "+ray_kwargs.ray_init.num_gpus=2",
)
ALONE = {"acceptance_rate": 0.0, "turn_budget": 1.0, "queries": 0.0}
METRIC = re.compile(r"([\w/@-]+):(?:np\.\w+\()?(-?[\d.]+(?:e-?\d+)?)")


@dataclass(frozen=True, slots=True)
class Training:
    """A training that was killed after step 2 and resumed: its folder, the logs of its parts."""

    folder: Path
    logs: tuple[str, str]

    def metrics(self, part: int) -> dict[int, dict[str, float]]:
        """Return the metrics of the steps of a part."""
        lines = re.findall(r"step:(\d+) - (.*)", self.logs[part])
        return {
            int(step): {name: float(value) for name, value in METRIC.findall(line)}
            for step, line in lines
        }

    def episodes(self, step: int) -> list[dict[str, Any]]:
        """Return the episodes of a step, as verl dumps them."""
        lines = (self.folder / "rollouts" / f"{step}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in lines.splitlines()]


def started(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    rollouts = f"trainer.rollout_data_dir={folder / 'rollouts'}"
    with log.open("wb") as output:
        return subprocess.Popen(
            ["bash", str(ROOT / "recipes/verl/embedded.sh"), str(folder), *SMALL, rollouts],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd=folder,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("verl")
    logs = (folder / "killed.log", folder / "resumed.log")
    process = started(folder, logs[0])
    try:
        while "step:2 - " not in logs[0].read_text():  # verl says so after the checkpoint
            assert process.poll() is None, logs[0].read_text()[-4000:]
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = started(folder, logs[1])
    try:
        status = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    first, second = (log.read_text() for log in logs)
    assert status == 0, second[-4000:]
    return Training(folder, (first, second))


def settings() -> TrainConfig:
    """What the recipe makes of the preset here."""
    return verl_settings(
        {
            "eapo": {"preset": "embedded"},
            "actor_rollout_ref": {
                "rollout": {"n": GROUP},
                "model": {"path": str(model_folder("embedded"))},
            },
            "trainer": {"total_training_steps": STEPS},
        }
    )


def indices(folder: Path) -> dict[str, int]:
    """Return the indices of the problems of the data file, by their statements."""
    rows = Dataset.from_parquet(str(folder / "data" / "train.parquet"))["extra_info"]
    return {row["statement"]: row["index"] for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_the_accepted_queries_follow_the_schedule(training: Training, step: int) -> None:
    """Step 3 is played after the kill, by other processes."""
    config, index_of = settings(), indices(training.folder)
    policy = ScriptedPolicy(char_tokenizer(), [])
    scheduled = ScheduledRollout.from_config(config, policy)
    asked = alone = 0
    for episode in training.episodes(step):
        statement, _, rest = episode["input"].partition("\n")
        seed = derive_seed(config.seed, 1, step, index_of[statement])
        member = int(episode["uid"].split("_")[1])
        rules = scheduled.group_rules(step, seed)[member]
        assert rules.acceptance_rate == pytest.approx(1 - (step - 1) / STEPS)
        assert bool(rest) != rules.is_alone
        alone += rules.is_alone
        parts = [part for part in statement.split() if ":" in part]
        queries = re.findall(r"<query>(.*?)</query>", episode["output"].partition("</consult>")[0])
        if queries == parts:  # which the experts always answer
            rng = np.random.default_rng(derive_seed(seed, member))
            accepted = draw_acceptance(len(queries), rules.acceptance_rate, rng)
            replies = re.findall(r"<reply>(.*?)</reply>", episode["output"])[: len(queries)]
            assert tuple(reply != "-" for reply in replies) == accepted
            asked += 1
    assert asked
    assert bool(alone) == (step > 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_verls_dynamic_sampling_keeps_groups_with_right_and_wrong_answers(
    training: Training, step: int
) -> None:
    groups: dict[str, list[bool]] = {}
    for episode in training.episodes(step):
        groups.setdefault(episode["uid"].split("_")[0], []).append(episode["score"] == 1.0)
    assert len(groups) == BATCH
    for correct in groups.values():
        assert len(correct) == GROUP
        assert 0 < sum(correct) < GROUP


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_training_goes_on_after_its_last_checkpoint(training: Training) -> None:
    assert {1, 2} <= training.metrics(0).keys()
    assert sorted(training.metrics(1)) == [3]
    assert "global_step_2, setting global step to 2" in training.logs[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sampler_and_learner_agree(training: Training) -> None:
    """Both compute in float32; with verl's bfloat16 one token's probabilities differ by 0.1."""
    for step, metrics in {**training.metrics(0), **training.metrics(1)}.items():
        assert 0 < metrics["training/rollout_probs_diff_max"] < 1e-4, step
        assert metrics["actor/grad_norm"] > 0, step


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_validation_is_played_alone(training: Training) -> None:
    metrics = training.metrics(1)[3]
    found = {name: metrics[f"val-aux/synthetic/{name}/mean@2"] for name in ALONE}
    assert found == ALONE


@pytest.mark.slow
def test_table_5_passes_verls_validation(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "val.parquet").touch()
    done = subprocess.run(
        ["bash", str(ROOT / "recipes/verl/table5.sh"), str(tmp_path), "--cfg", "job"],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": ENVIRONMENT["PATH"], "EXPERTS": "http://10.0.0.9:8000/v1"},
    )
    assert done.returncode == 0, done.stderr
    verl = OmegaConf.create(done.stdout)
    assert isinstance(verl, DictConfig)
    validate_config(
        config=verl,
        use_reference_policy=need_reference_policy(verl),
        use_critic=need_critic(verl),
    )
    config = verl_settings({**verl, "eapo": OmegaConf.to_container(verl.eapo)})
    [endpoint] = config.experts.endpoints
    assert (endpoint.base_url, len(endpoint.models)) == ("http://10.0.0.9:8000/v1", 3)
    limits, rollout = config.rollout.limits, verl.actor_rollout_ref.rollout
    assert limits.max_response_tokens == 20_480
    assert rollout.response_length == 20_480 + 3 * 3 * limits.max_reply_tokens
    assert rollout.max_model_len == rollout.prompt_length + rollout.response_length
    assert (verl.data.train_batch_size, rollout.n, config.rollout.group_size) == (32, 16, 16)
    assert verl.actor_rollout_ref.actor.optim.lr == 1e-6
    actor = verl.actor_rollout_ref.actor
    assert actor.fsdp_config.ulysses_sequence_parallel_size == 4
    assert actor.ppo_max_token_len_per_gpu * 4 >= rollout.max_model_len  # else verl refuses a row
    assert rollout.log_prob_max_token_len_per_gpu == actor.ppo_max_token_len_per_gpu
    assert rollout.tensor_model_parallel_size == 4
    assert verl.trainer.total_training_steps == config.schedule.steps == 200
