"""EAPO's settings inside a verl config, and problems as rows of verl's data files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import succeed
from datasets import Dataset
from hypothesis import given, settings, strategies as st

from eapo_agents.adapters.verl_config import problem_of, verl_rows, verl_settings
from eapo_agents.policies import EMBEDDED
from eapo_agents.training.presets import embedded
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

text = st.text(min_size=1).filter(lambda t: t.strip() and t.isprintable())
problems = st.lists(
    st.builds(Problem, id=text, statement=text, answer=text, source=text), max_size=4
)


def verl(eapo: Any, **trainer: Any) -> dict[str, Any]:
    return {
        "eapo": eapo,
        "actor_rollout_ref": {"rollout": {"n": 6}, "model": {"path": EMBEDDED}},
        "trainer": {"total_training_steps": 30, **trainer},
    }


def test_what_verl_decides_comes_from_verl() -> None:
    config = verl_settings(
        verl({"preset": "embedded", "annealing": {"schedule": "constant", "rate": 0.25}})
    )
    assert (config.steps, config.rollout.group_size, config.model.path) == (30, 6, EMBEDDED)
    assert config.rollout.wording == "terse"  # the model's
    assert config.schedule.acceptance_rate_at(30) == 0.25


def test_a_list_is_one_setting() -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "models": ["m"]}
    own = {"preset": "embedded", "experts": {"kind": "openai", "endpoints": [endpoint]}}
    [found] = verl_settings(verl(own)).experts.endpoints
    assert (found.base_url, found.models) == ("http://127.0.0.1:9/v1", ("m",))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (verl(None), r"no \+eapo.preset=NAME"),
        (verl({"preset": "embeded"}), "did you mean 'embedded'"),
        (verl({"preset": "embedded", "anealing": {"rate": 1}}), "unknown setting 'anealing"),
        (verl({"preset": "embedded", "steps": 9}), r"verl decides steps: leave out \+eapo.steps"),
        (verl({"preset": "embedded"}, total_training_steps=None), "total_training_steps"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        verl_settings(config)


@given(problems)
@settings(deadline=None)
def test_a_row_gives_its_problem_back(given: list[Problem]) -> None:
    rows = verl_rows(given, embedded(), rules=Rules())
    assert [problem_of(row) for row in rows] == given
    assert [row["extra_info"]["index"] for row in rows] == list(range(len(given)))


def test_a_row_of_another_program_is_refused() -> None:
    with pytest.raises(UserError, match="a row without 'id': write data files by eapo export-verl"):
        problem_of({"data_source": "a", "extra_info": {}, "reward_model": {"ground_truth": "1"}})


@pytest.mark.slow
def test_the_command_writes_training_problems_and_those_of_evaluation(tmp_path: Path) -> None:
    for name, numbers in (("train", (1, 2, 3)), ("val", (3, 4))):
        lines = [json.dumps({"id": f"{name}{n}", "problem": f"{n}?", "answer": n}) for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    printed = succeed(
        *("export-verl", "embedded", tmp_path / "data"),
        *("--set", f"problems.source={tmp_path / 'train.jsonl'}"),
        *("--set", f"evaluation.problems.source={tmp_path / 'val.jsonl'}"),
    )
    assert f"{tmp_path / 'data' / 'train.parquet'}: 2 problems" in printed
    train, val = (
        Dataset.from_parquet(str(tmp_path / "data" / f"{name}.parquet")).to_list()
        for name in ("train", "val")
    )
    assert [problem_of(row).id for row in train] == ["train1", "train2"]  # 3 is held out
    assert [problem_of(row).id for row in val] == ["val3", "val4"]
    assert [row["extra_info"]["alone"] for row in (*train, *val)] == [False] * 2 + [True] * 2
    assert {row["agent_name"] for row in train} == {"eapo"}
    alone = Prompts.terse().opening(problem_of(val[0]), Rules.alone()).content
    assert val[0]["prompt"] == [{"role": "user", "content": alone}]
