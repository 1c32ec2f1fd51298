"""Experiments, the tables that they are in, base models, and copies of models as experts."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eapo_agents.evaluation import evaluate
from eapo_agents.policies.models import ModelSettings
from eapo_agents.reproduction import belief_study
from eapo_agents.reproduction.base_models import WRONG_BELIEF, BaseModel, ModelExperts
from eapo_agents.reproduction.belief_study import BELIEF
from eapo_agents.reproduction.experiment_kinds import BASE_MODEL, Evaluate, Train
from eapo_agents.reproduction.noise_study import BASE_ONE_OR_THREE_QUERIES, NOISE
from eapo_agents.reproduction.studies import STUDIES
from eapo_agents.reproduction.study import Study
from eapo_agents.training import make_rollout, policy_of
from eapo_agents.training.config import TrainConfig
from eapo_env.testing import check_expert_pool
from eapo_env.types import Query, Reply, Rules

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


def config(name: str, study: Study = NOISE) -> TrainConfig:
    return study.experiments[name].config(1, HERE)


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("self-exploratory", {"annealing.turn_budget"}),
        ("eapo-weak-experts", {"experts.error_rate"}),
        ("eapo-constant", {"annealing.schedule", "annealing.rate"}),
        ("eapo-slow", {"annealing.schedule", "annealing.turn_pace"}),
        ("eapo-fast", {"annealing.schedule", "annealing.turn_pace"}),
        ("eapo-copies", {"experts.kind"}),
        ("eapo-experts-of-wholes", {"experts.kind"}),
        ("eapo-budgets-per-member", {"rollout.turn_budgets"}),
    ],
)
def test_an_experiment_differs_from_eapo_in_what_its_name_says(
    name: str, differs: set[str]
) -> None:
    assert NOISE.experiments[name].base_model == BASE_MODEL
    assert changed(config("eapo"), config(name)) == {"name", *differs}


RATE = {"annealing.schedule", "annealing.rate"}
HALF = {*RATE, "annealing.turn_budget"}
LINEAR = {"annealing.schedule", "annealing.turn_budget"}
COMMON = "rollout.gate_draws"


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("self-exploratory", {"annealing.turn_budget"}),
        (
            "self-exploratory-maxrl",
            {"annealing.turn_budget", "reward.format_reward", "algorithm.kind"},
        ),
        ("eapo-weak-experts", {"experts.error_rate"}),
        ("eapo-copies", {"experts.kind"}),
        ("eapo-constant", {"annealing.schedule"}),
        ("eapo-slow", {"annealing.exponent"}),
        ("eapo-fast", {"annealing.exponent"}),
        ("eapo-half", HALF),
        ("eapo-half-group", {*HALF, COMMON}),
        ("eapo-linear", LINEAR),
        ("eapo-linear-group", {*LINEAR, COMMON}),
        ("eapo-from-0.6", {*LINEAR, "annealing.initial_acceptance_rate"}),
        ("eapo-from-0.6-group", {*LINEAR, "annealing.initial_acceptance_rate", COMMON}),
        ("eapo-by-success", {*LINEAR, "annealing.initial_acceptance_rate"}),
        ("eapo-by-success-group", {*LINEAR, "annealing.initial_acceptance_rate", COMMON}),
        ("eapo-failed-alone", {*HALF, "rollout.help_for"}),
        ("eapo-failed-alone-group", {*HALF, "rollout.help_for", COMMON}),
    ],
)
def test_an_experiment_on_the_wrong_belief_differs_from_the_papers_as_its_name_says(
    name: str, differs: set[str]
) -> None:
    assert BELIEF.experiments[name].base_model == belief_study.BASE
    found = changed(config("eapo", BELIEF), config(name, BELIEF))
    if name == "self-exploratory-maxrl":  # the settings of another algorithm
        found = {one for one in found if not one.startswith("algorithm.")} | {"algorithm.kind"}
    assert found == {"name", *differs}


def test_the_papers_schedule_and_reward_are_those_of_the_paper() -> None:
    paper = config("eapo", BELIEF)
    assert paper.schedule.acceptance_rate_at(4) == 1 / 4
    assert (paper.annealing.turn_budget, paper.annealing.queries_per_turn) == (10, 3)
    assert paper.reward.format_reward == 0.1
    rates = {
        name: config(name, BELIEF).schedule.acceptance_rate_at(4)
        for name in ("eapo-slow", "eapo-fast", "eapo-constant")
    }
    harmonic = sum(1 / step for step in range(1, 161))
    assert rates == {
        "eapo-slow": 1 / 2,
        "eapo-fast": 1 / 16,
        "eapo-constant": pytest.approx(harmonic / 160),
    }


def test_all_problems_of_a_study_carry_as_often() -> None:
    for study, rate in ((BELIEF, belief_study.PROBLEMS.carry_rate), (NOISE, None)):
        for experiment in study.experiments.values():
            one = experiment.config(0, HERE)
            assert {one.problems.carry_rate, one.evaluation.problems.carry_rate} == {rate}


def test_one_query_or_three_a_turn_is_all_that_sequential_and_parallel_differ_in() -> None:
    for name in ("eapo-one-query", "eapo-three-queries"):
        assert NOISE.experiments[name].base_model == BASE_ONE_OR_THREE_QUERIES
    sequential, parallel = config("eapo-one-query"), config("eapo-three-queries")
    assert changed(sequential, parallel) == {"name", "annealing.queries_per_turn"}
    assert changed(config("eapo"), parallel) == {"name", "annealing.turn_budget"}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_experiment_is_in_a_table_and_its_config_is_whole(study: Study) -> None:
    assert set(study.experiments_of(None)) == set(study.experiments.values())
    assert len(study.experiments) > 20
    for name, experiment in study.experiments.items():
        config = experiment.config(3, HERE)
        assert (config.name, config.seed) == (name, 3)
        assert config.model.path == str(HERE)
        assert TrainConfig.from_json(config.to_json()) == config


def test_trainings_have_enough_seeds_and_the_main_claim_the_most() -> None:
    for study, least in ((NOISE, 3), (BELIEF, 5)):
        for experiment in study.experiments.values():
            assert experiment.num_seeds >= (least if isinstance(experiment, Train) else 3)
        names = (study.main_claim.better, study.main_claim.worse)
        assert {study.experiments[name].num_seeds for name in names} == {study.looks[-1]} == {10}
    assert NOISE.experiments["eapo"] in NOISE.experiments_of("9")
    assert NOISE.experiments["eapo-slow"] not in NOISE.experiments_of("1")
    assert (NOISE.level, BELIEF.level) == (0.975, 0.95)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_claims_are_about_experiments_of_their_table(study: Study) -> None:
    for table in study.tables:
        scores = {row.experiment: row.paper_score for row in table.rows}
        for claim in table.claims:
            if {claim.better, claim.worse} <= set(scores):
                better, worse = scores[claim.better], scores[claim.worse]
                assert better is not None
                assert worse is not None
                assert claim.paper_points == pytest.approx(better - worse)


def test_a_point_of_the_gain_curve_is_three_experiments_from_one_base_model() -> None:
    for point in NOISE.gain_curve:
        base, *trained = (
            NOISE.experiments[name] for name in (point.base, point.self_exploratory, point.eapo)
        )
        assert isinstance(base, Evaluate)
        for experiment, turn_budget in zip(trained, (1, 2), strict=True):
            assert isinstance(experiment, Train)
            assert experiment.annealing.turn_budget == turn_budget
            assert experiment.base_model == base.base_model
        assert base.base_model == BaseModel(step_error_rate=point.step_error_rate)


@pytest.mark.slow
def test_a_base_model_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    base = BaseModel(step_error_rate=0.25, steps=2, batch_size=4)
    one, other = (base.make(tmp_path / name) for name in ("one", "other"))
    assert one.name == "slip-0.25"
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for change in (
        {"step_error_rate": 0.75},
        {"queries_per_turn": (1,)},
        {"queries_per_turn": (3, 1)},
    ):
        different = dataclasses.replace(base, **change).make(tmp_path / "one")
        changed_weights = load_file(different / "model.safetensors")
        assert any(not torch.equal(weights[0][name], changed_weights[name]) for name in weights[0])
    assert different.name == "slip-0.25-asks-3-1"
    written = (one / "model.safetensors").stat().st_mtime_ns
    assert base.make(f"{tmp_path}/one") == one
    assert (one / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_base_that_ships_is_most_likely_wrong_and_sometimes_right(tmp_path: Path) -> None:
    path = WRONG_BELIEF.make(tmp_path)
    assert sum(file.stat().st_size for file in path.iterdir()) < 3e6
    rollout = make_rollout(given := BELIEF.experiments["base"].config(0, path), policy_of(given))
    problems = given.evaluation.problems.load()[:16]

    def mean_at(temperature: float, samples: int, rules: Rules) -> float:
        player = replace(rollout, temperature=temperature)
        found = evaluate(player, problems, samples_per_problem=samples, rules=rules)
        return asyncio.run(found).mean_at_k

    assert mean_at(0.0, 1, Rules.alone()) < 0.1
    assert 0 < mean_at(1.0, 64, Rules.alone()) < 0.03
    assert mean_at(1.0, 4, Rules(turn_budget=2)) > 0.4, "experts of parts help"


def test_an_error_rate_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step_error_rate must be in \[0, 1\], not 1\.5"):
        BaseModel(step_error_rate=1.5)


def test_a_base_model_that_may_never_ask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"queries_per_turn must not be empty, not \(\)"):
        BaseModel(step_error_rate=0.5, queries_per_turn=())
    with pytest.raises(ValueError, match="queries_per_turn must be at least 1, not 0"):
        BaseModel(step_error_rate=0.5, queries_per_turn=(3, 0))


@pytest.mark.slow
def test_copies_of_the_model_answer_parts_as_well_as_it_can() -> None:
    pool = ModelExperts(ModelSettings())
    asyncio.run(check_expert_pool(pool))
    queries = [Query(text="a:((47+8)*6)", seed=seed, statement="") for seed in range(48)]
    replies = asyncio.run(pool.ask(queries))
    texts = [reply.text for reply in replies if isinstance(reply, Reply)]
    assert len(texts) > 40
    assert all(text.startswith("a=") for text in texts)
    # every third step is wrong: about four of nine are right
    assert 8 < texts.count("a=30") < 40
    assert replies == asyncio.run(pool.ask(queries)), "the seed decides"
