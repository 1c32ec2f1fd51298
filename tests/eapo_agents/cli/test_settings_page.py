"""The page of all settings is complete, and the committed one is what the code makes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eapo_agents.cli import main
from eapo_agents.cli.settings_page import Row, parts, settings_page
from eapo_agents.learning.algorithms import DapoSettings
from eapo_agents.reproduction.pretraining import Pretraining
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.settings import DistillationSettings
from eapo_env.reward import Overlong

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
ROWS = [row for part in parts(TrainConfig, TrainConfig(), "") for row in part.rows]
NAMED = {row.name: row for row in ROWS}


def names(tree: dict[str, Any], where: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from names(value, f"{where}{key}.")
        else:
            yield where + key


def test_the_committed_page_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["settings"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), (
        "the settings have changed: eapo settings > docs/settings.md"
    )


def test_every_setting_of_a_config_is_there_once() -> None:
    config = with_settings(TrainConfig(), ["reward.overlong={}", "distillation={}"])
    there = {row.name for row in ROWS if "[]" not in row.name}
    assert set(names(dataclasses.asdict(config))) == there - {"reward.overlong", "distillation"}
    assert len(NAMED) == len(ROWS)
    pretraining = {row.name for part in parts(Pretraining, Pretraining(), "") for row in part.rows}
    assert set(names(dataclasses.asdict(Pretraining()))) == pretraining


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_has_type_default_and_meaning(row: Row) -> None:
    assert row.type
    assert row.default
    assert len(row.meaning) > 1


@pytest.mark.parametrize("row", [row for row in ROWS if "[]" not in row.name])
def test_a_default_as_it_stands_can_be_set(row: Row) -> None:
    config = TrainConfig()
    for name, section in (("reward.overlong", Overlong), ("distillation", DistillationSettings)):
        if row.name.startswith(f"{name}."):
            config = with_settings(config, [f"{name}={json.dumps(dataclasses.asdict(section()))}"])
    value = re.fullmatch("`(.*)`", row.default)
    assert value
    assert with_settings(config, [f"{row.name}={value[1]}"]) == config


def test_a_row_says_what_the_class_says() -> None:
    assert NAMED["dapo.dual_clip"] == Row(
        name="dapo.dual_clip",
        type="number or null",
        default=f"`{DapoSettings().dual_clip}`",
        meaning="with a negative advantage, the largest ratio that counts; None for no bound"
        " (inferred from the DAPO recipe: 10).",
    )
    assert NAMED["evaluation.problems.num_problems"].default == "`64`"
    assert NAMED["problems.num_problems"].default == "`4096`"
    assert NAMED["rollout.wording"].type == "`full`, `terse`"
    assert NAMED["experts.endpoints[].models"].type == "list of texts"
    assert NAMED["experts.endpoints[].models"].default == "required"
    assert NAMED["model.api.extra_body"].type == "JSON object"
    assert "Missing by default" in settings_page()
