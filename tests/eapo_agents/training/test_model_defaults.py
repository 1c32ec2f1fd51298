"""Settings that follow the model: decided last, and never the toy's for a pretrained model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_llama import tiny_llama

from eapo_agents.policies.models import EMBEDDED, LoRASettings, ModelSettings, is_character_level
from eapo_agents.training.build import check_before_loading
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.model_defaults import (
    Lesson,
    fitted_to_model,
    prompts_of,
    usual_rate,
    warn_of_high_rate,
    warn_of_long_warm_up,
    wording_of,
)
from eapo_agents.training.presets import PRESETS, distilled, embedded, for_model, local
from eapo_agents.training.trainer import Trainer
from eapo_env.prompts import Prompts


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The folder of a model that does not read characters."""
    folder = tmp_path / "other"
    tiny_llama().save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {"a": 0}}}')
    return str(folder)


def model_set_to(path: str, config: TrainConfig, *settings: str) -> TrainConfig:
    return fitted_to_model(with_settings(config, [f"model.path={path}", *settings]))


def test_the_wording_is_terse_for_the_embedded_model_and_its_descendants(
    tiny_model: Path, other: str, tmp_path: Path
) -> None:
    for path in (EMBEDDED, str(tiny_model)):
        assert is_character_level(path)
        assert prompts_of(model_set_to(path, embedded())) == Prompts.terse()
        assert for_model(path) == embedded()
    (tmp_path / "tokenizer.json").write_text("[]")
    for path in (other, "Qwen/Qwen3-8B", str(tmp_path), str(tmp_path / "none")):
        assert not is_character_level(path)
        assert prompts_of(model_set_to(path, embedded())) == Prompts()
        assert for_model(path) == local()


@pytest.mark.parametrize("path", [EMBEDDED, "Qwen/Qwen3-8B"])
def test_a_wording_that_is_set_stays(path: str) -> None:
    for wording in ("full", "terse"):
        assert wording_of(model_set_to(path, embedded(), f"rollout.wording={wording}")) == wording


@pytest.mark.parametrize(
    ("lesson", "rates"),
    [("rewards", (3e-4, 1e-3, 1e-6, 1e-5)), ("imitation", (1e-3, 3e-3, 1e-5, 1e-4))],
)
def test_usual_rates(lesson: Lesson, rates: tuple[float, ...]) -> None:
    found = [
        usual_rate(lesson, ModelSettings(path=path, lora=LoRASettings(rank=rank)))
        for path in (EMBEDDED, "Qwen/Qwen3-8B")
        for rank in (0, 8)
    ]
    assert tuple(found) == rates


def test_rates_are_decided_after_the_settings(other: str) -> None:
    """The model and the adapters come from `--set`, and the rates follow them."""
    rl = model_set_to(other, embedded())
    assert rl.learner.learning_rate == 1e-6
    assert fitted_to_model(embedded()).learner.learning_rate == 3e-4
    full = model_set_to(other, distilled(embedded()))
    lora = model_set_to(other, distilled(embedded()), "model.lora.rank=8")
    own = model_set_to(other, distilled(embedded()), "distillation.learning_rate=0.5")
    rates = [one.distillation and one.distillation.learning_rate for one in (full, lora, own)]
    assert rates == [1e-5, 1e-4, 0.5]
    assert full.rollout.wording == "full"


def test_fitting_is_done_once() -> None:
    for config in [preset() for preset in PRESETS]:
        fitted = fitted_to_model(config)
        assert fitted_to_model(fitted) == fitted
        assert fitted.rollout.wording != "auto"
        assert fitted.learner.learning_rate
        assert replace(fitted, rollout=config.rollout, learner=config.learner) == config


def test_a_trainer_records_what_was_decided(tiny_settings: list[str]) -> None:
    settings = [one for one in tiny_settings if not one.startswith("learner.learning_rate")]
    trainer = Trainer.from_config(with_settings(embedded(), settings))
    assert trainer.recorded_config.rollout.wording == "terse"
    assert trainer.recorded_config.learner.learning_rate == 3e-4
    assert trainer.learner.settings.learning_rate_at(100) == 3e-4
    assert trainer.rollout.prompts == Prompts.terse()


def test_a_rate_of_30_times_the_usual_one_is_warned_of(
    other: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for config in (
        model_set_to(other, embedded(), "learner.learning_rate=2.9e-5"),
        model_set_to(other, embedded(), "learner.learning_rate=2e-4", "model.lora.rank=4"),
        model_set_to(other, distilled(embedded()), "distillation.learning_rate=2.9e-4"),
        embedded(),
    ):
        warn_of_high_rate(config)
    assert not caplog.records
    check_before_loading(model_set_to(other, embedded(), "learner.learning_rate=3e-4"), [])
    assert "learner.learning_rate=0.0003 IS 300 TIMES WHAT IS USUAL" in caplog.text
    assert f"FOR {other} (1e-06)" in caplog.text
    warn_of_high_rate(model_set_to(other, distilled(embedded()), "distillation.learning_rate=1e-3"))
    assert "distillation.learning_rate=0.001 IS 100 TIMES" in caplog.text


def test_a_warm_up_that_outlasts_the_run_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Three steps of two mini-batches are six updates, of a distillation three."""
    caplog.set_level(logging.WARNING)
    for settings in (
        ["steps=10"],
        ["steps=3", "learner.warmup_steps=3"],
        ["steps=3", "learner.warmup_steps=6", "learner.mini_batches=2"],
    ):
        warn_of_long_warm_up(with_settings(embedded(), settings))
    assert not caplog.records
    check_before_loading(with_settings(embedded(), ["steps=3"]), [])
    assert "learner.warmup_steps=10 IS MORE THAN THE 3 UPDATES OF steps=3" in caplog.text
    assert "ends at 30% of what is set" in caplog.text
    caplog.clear()
    settings = ["steps=3", "learner.warmup_steps=6", "learner.mini_batches=2"]
    warn_of_long_warm_up(with_settings(distilled(embedded()), settings))
    assert "THE 3 UPDATES" in caplog.text
