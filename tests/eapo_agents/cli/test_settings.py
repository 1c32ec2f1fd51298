"""The page of all settings: complete, with defaults that can be set as they stand."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eapo_agents.cli import main
from eapo_agents.cli.settings import Part, Row, parts, settings_page
from eapo_agents.learning.algorithms import DAPO
from eapo_agents.reproduction.pretraining import Pretraining
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import PRESETS

PARTS = {part.title: part for part in parts(TrainConfig, TrainConfig(), "")}
ROWS = [row for part in PARTS.values() for row in part.rows]
NAMED = {row.name: row for row in ROWS}


def names(tree: dict[str, Any], where: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from names(value, f"{where}{key}.")
        else:
            yield where + key


def kind_of(part: Part) -> str:
    found = re.search("kind `(.*)`", part.title)
    return found[1] if found else ""


def config_has(config: TrainConfig, section: str) -> bool:
    """Return whether a section is there; the config itself is the section ""."""
    value: object = config
    for name in filter(None, section.split(".")):
        value = getattr(value, name, None)
    return value is not None


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    page = capsys.readouterr().out
    assert page == settings_page(TrainConfig())
    assert all(f"| `{row.name}` | {row.type} | {row.default} | " in page for row in ROWS)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_a_presets_values_as_they_stand_can_be_set(
    preset: Callable[[], TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings", preset.__name__]) == 0
    page = capsys.readouterr().out
    config = preset()
    for part in parts(TrainConfig, config, ""):
        if not kind_of(part) and config_has(config, part.title):
            for row in part.rows:
                assert f"| `{row.name}` | {row.type} | {row.default} | " in page
                if "[]" not in row.name:
                    value = row.default.strip("`")
                    assert with_settings(config, [f"{row.name}={value}"]) == config, row


def test_every_setting_of_a_config_is_there_once() -> None:
    optional = ["reward.overlong", "distillation", "cold_start", "problems.columns"]
    optional += ["evaluation.problems.columns"]
    config = with_settings(TrainConfig(), [f"{name}={{}}" for name in optional])
    defaults = {kind_of(part): part for part in PARTS.values() if kind_of(part) in ("hf", "dapo")}
    shown = [
        row.name
        for part in PARTS.values()
        if not kind_of(part) or part in defaults.values()
        for row in part.rows
        if "[]" not in row.name
    ]
    assert len(set(shown)) == len(shown)
    kinds = {"engine.kind", "algorithm.kind"}
    sections = {"engine", "algorithm", *optional}
    assert set(names(dataclasses.asdict(config))) - kinds == set(shown) - sections
    pretraining = {row.name for part in parts(Pretraining, Pretraining(), "") for row in part.rows}
    assert set(names(dataclasses.asdict(Pretraining()))) == pretraining


def test_every_kind_of_a_section_is_there() -> None:
    kinds: dict[str, set[str]] = {}
    for title, part in PARTS.items():
        if kind := kind_of(part):
            kinds.setdefault(title.partition(",")[0], set()).add(kind)
    assert kinds["algorithm"] == {
        "dapo",
        "grpo",
        "dr_grpo",
        "gspo",
        "cispo",
        "rloo",
        "max_rl",
        "python",
    }
    assert kinds["engine"] == {"hf", "vllm", "vllm-server", "openai", "python"}
    assert {"tensorboard", "wandb", "python"} <= kinds["trackers[]"]
    for section, named in kinds.items():
        row = NAMED[section.removesuffix("[]")]
        assert all(f"`{kind}`" in row.type for kind in named)


def test_every_setting_has_type_default_and_meaning() -> None:
    for row in ROWS:
        assert row.type, row.name
        assert row.default, row.name
        assert len(row.meaning) > 1, row.name


def test_a_default_as_it_stands_can_be_set() -> None:
    for part in PARTS.values():
        chosen = [f"{part.title.partition(',')[0]}.kind={kind_of(part)}"] if kind_of(part) else []
        rows = [row for row in part.rows if "[]" not in row.name]
        required = [f"{row.name}=package:name" for row in rows if row.default == "required"]
        if not rows:
            continue
        config = with_settings(TrainConfig(), [*chosen, *required])
        if (
            part.title in ("distillation", "cold_start", "reward.overlong")
            or "columns" in part.title
        ):
            config = with_settings(config, [f"{part.title}={{}}"])
        for row in rows:
            if row.default == "required":
                continue
            value = re.fullmatch("`(.*)`", row.default)
            assert value, row
            assert with_settings(config, [f"{row.name}={value[1]}"]) == config, row


def test_a_row_says_what_the_class_says() -> None:
    assert NAMED["algorithm.dual_clip"] == Row(
        name="algorithm.dual_clip",
        type="number or null",
        default=f"`{DAPO().dual_clip}`",
        meaning="upper bound of the ratio where the advantage is negative; None for no bound"
        " (inferred from the DAPO recipe: 10).",
    )
    assert NAMED["evaluation.problems.num_problems"].default == "`64`"
    assert NAMED["problems.num_problems"].default == "`4096`"
    assert NAMED["rollout.wording"].type == "`auto`, `full`, `few-shot`, `terse`"
    assert NAMED["experts.endpoints[].models"].type == "list of texts"
    assert NAMED["experts.endpoints[].models"].default == "required"
    assert NAMED["engine.extra_body"].type == "JSON object"
    assert NAMED["trackers"].default == '`[{"kind": "tensorboard"}]`'
    assert NAMED["algorithm"].type.startswith("section of kind `dapo`, `grpo`, ")
    assert NAMED["algorithm"].default == "`dapo`"
    assert "Missing by default" in settings_page(TrainConfig())
