"""Cells, tables, base models and copies as experts."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eapo_agents.policies.models import ModelSettings
from eapo_agents.reproduction import experiments
from eapo_agents.reproduction.base_models import Base, CopyExperts
from eapo_agents.reproduction.experiments import TABLES, cells_of
from eapo_agents.training.config import TrainConfig
from eapo_env.experts import check_expert_pool
from eapo_env.types import Query, Reply

HERE = Path("base")


def changed(one: TrainConfig, other: TrainConfig) -> set[str]:
    """The settings in which two configs differ."""

    def flat(tree: dict[str, object], where: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in tree.items():
            inner = flat(value, f"{where}{key}.") if isinstance(value, dict) else None
            found |= inner if inner is not None else {where + key: value}
        return found

    a, b = flat(dataclasses.asdict(one)), flat(dataclasses.asdict(other))
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


@pytest.mark.parametrize(
    ("cell", "differs"),
    [
        (experiments.SELF_EXPLORATORY, {"annealing.turn_budget"}),
        (experiments.WEAK, {"experts.error_rate"}),
        (experiments.SLOW, {"annealing.schedule"}),
        (experiments.COPIES, {"experts.kind"}),
        (experiments.WHOLES, {"experts.kind"}),
        (experiments.PER_MEMBER, {"rollout.turn_budgets"}),
    ],
)
def test_a_cell_differs_from_eapo_in_what_its_name_says(
    cell: experiments.Trained, differs: set[str]
) -> None:
    assert changed(experiments.EAPO.config(1, HERE), cell.config(1, HERE)) == {"name", *differs}


def test_one_query_or_three_a_turn_is_all_that_sequential_and_parallel_differ_in() -> None:
    assert experiments.SEQUENTIAL.base == experiments.PARALLEL.base == experiments.ASKING_EITHER_WAY
    sequential, parallel = (
        cell.config(1, HERE) for cell in (experiments.SEQUENTIAL, experiments.PARALLEL)
    )
    assert changed(sequential, parallel) == {"name", "annealing.queries_per_turn"}
    assert changed(experiments.EAPO.config(1, HERE), parallel) == {"name", "annealing.turn_budget"}


def test_names_are_unique_and_configs_whole() -> None:
    found = cells_of(None)
    assert len({cell.name for cell in found}) == len(found) > 20
    for cell in found:
        config = cell.config(3, HERE)
        assert (config.name, config.seed) == (cell.name, 3)
        assert config.model.path == str(HERE)
        assert TrainConfig.from_json(config.to_json()) == config


def test_tables_have_enough_seeds() -> None:
    for table in TABLES:
        for cell in table.cells:
            assert cell.num_seeds >= (5 if table.key == "1" else 3)
    assert experiments.EAPO in cells_of("9")
    assert experiments.SLOW not in cells_of("1")


def test_a_base_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    base = Base(slip=0.25, steps=2, batch_size=4)
    one, other = (base.make(tmp_path / name) for name in ("one", "other"))
    assert one.name == "slip-0.25"
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for change in ({"slip": 0.75}, {"queries_per_turn": (1,)}, {"queries_per_turn": (3, 1)}):
        different = dataclasses.replace(base, **change).make(tmp_path / "one")
        changed_weights = load_file(different / "model.safetensors")
        assert any(not torch.equal(weights[0][name], changed_weights[name]) for name in weights[0])
    assert different.name == "slip-0.25-asks-3-1"
    written = (one / "model.safetensors").stat().st_mtime_ns
    assert base.make(tmp_path / "one") == one
    assert (one / "model.safetensors").stat().st_mtime_ns == written


def test_a_base_that_slips_more_than_always_is_refused() -> None:
    with pytest.raises(ValueError, match=r"slip must be in \[0, 1\], not 1\.5"):
        Base(slip=1.5)


def test_a_base_that_may_never_ask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"queries_per_turn must not be empty, not \(\)"):
        Base(slip=0.5, queries_per_turn=())
    with pytest.raises(ValueError, match="queries_per_turn must be at least 1, not 0"):
        Base(slip=0.5, queries_per_turn=(3, 0))


def test_copies_of_the_model_answer_parts_as_well_as_it_can() -> None:
    pool = CopyExperts(ModelSettings())
    asyncio.run(check_expert_pool(pool))
    queries = [Query(text="a:((47+8)*6)", seed=seed, statement="") for seed in range(48)]
    replies = asyncio.run(pool.ask(queries))
    texts = [reply.text for reply in replies if isinstance(reply, Reply)]
    assert len(texts) > 40
    assert all(text.startswith("a=") for text in texts)
    # it slips at every third step: about four of nine are right
    assert 8 < texts.count("a=30") < 40
    assert replies == asyncio.run(pool.ask(queries)), "the seed decides"
