"""Configs: JSON there and back, settings from the command line, and errors a person can act on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from eapo_agents.learning.algorithms import CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO, MaxRL
from eapo_agents.policies.engines import HFEngine
from eapo_agents.policies.models import ModelSettings
from eapo_agents.policies.vllm_server import VLLMServerEngine
from eapo_agents.reproduction.pretraining import Pretraining
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import embedded, one_gpu, r1_distill_qwen_7b, self_exploratory
from eapo_agents.training.settings import ExpertSettings, ProblemSettings
from eapo_env.annealing import Annealing
from eapo_env.breaker import Breaker
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ErroneousExperts, MeaninglessExperts, SilentExperts
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.problems import Columns
from eapo_env.recordings import ReplayExperts
from eapo_env.reward import Overlong
from eapo_env.synthetic import ProceduralExperts, work_out, work_out_part
from eapo_env.validation import UserError

PRESETS = [
    embedded(),
    one_gpu(),
    r1_distill_qwen_7b(),
    self_exploratory(embedded()),
    self_exploratory(r1_distill_qwen_7b()),
]
KEY = "sk-a-secret-that-must-stay-where-it-is"


def leaves(tree: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every setting that is no section."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*where, key))
        else:
            yield (*where, key)


LEAVES = sorted(leaves(dataclasses.asdict(TrainConfig())))


@pytest.mark.parametrize("config", PRESETS, ids=lambda config: config.name)
def test_a_preset_survives_json(config: TrainConfig, tmp_path: Path) -> None:
    assert TrainConfig.from_json(config.to_json()) == config
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    assert TrainConfig.read(path) == TrainConfig.read(str(path)) == config


def test_settings_that_json_has_no_word_for_survive() -> None:
    config = with_settings(embedded(), ["learner.max_grad_norm=Infinity", "reward.overlong={}"])
    assert config.reward.overlong == Overlong()
    assert TrainConfig.from_json(config.to_json()) == config


def test_a_partial_json_is_filled_up_with_defaults() -> None:
    config = TrainConfig.from_json('{"seed": 3, "rollout": {"group_size": 4}}')
    assert (config.seed, config.rollout.group_size) == (3, 4)
    assert config.learner == TrainConfig().learner


def test_settings_change_what_they_name_and_nothing_else() -> None:
    config = with_settings(
        embedded(), ["seed=5", "rollout.sampling.max_rounds=7", "annealing.schedule=ours_fast"]
    )
    back = with_settings(
        config, ["seed=0", "rollout.sampling.max_rounds=1", "annealing.schedule=ours_linear"]
    )
    assert (config.seed, config.rollout.sampling.max_rounds) == (5, 7)
    assert config.annealing.schedule == "ours_fast"
    assert back == embedded()


def test_the_last_setting_of_a_key_counts() -> None:
    assert with_settings(embedded(), ["seed=1", "seed=2"]).seed == 2


def test_a_value_may_hold_an_equals_sign_and_spaces() -> None:
    assert with_settings(embedded(), [" name = a=b "]).name == "a=b"


def test_tuples_and_none_can_be_set() -> None:
    endpoints = (
        '[{"base_url": "http://here/v1", "models": ["a", "b"], "breaker": {"max_failures": 9}}]'
    )
    settings = ["experts.kind=openai", f"experts.endpoints={endpoints}", "reward.overlong.limit=99"]
    with pytest.raises(ValueError, match=r"reward\.overlong: cushion must be in \(0, limit=99\]"):
        with_settings(embedded(), settings)
    config = with_settings(embedded(), [*settings, "reward.overlong.cushion=9"])
    assert config.reward.overlong == Overlong(limit=99, cushion=9)
    (endpoint,) = config.experts.endpoints
    assert (endpoint.models, endpoint.breaker) == (("a", "b"), Breaker(max_failures=9))
    without = with_settings(config, ["reward.overlong=null", "experts.endpoints=[]"])
    assert (without.reward.overlong, without.experts.endpoints) == (None, ())


@given(st.sampled_from(LEAVES), st.integers(0, 100), st.sampled_from("abcdefghij"))
def test_a_misspelt_key_names_the_right_one(path: tuple[str, ...], at: int, letter: str) -> None:
    *section, key = path
    place = at % (len(key) + 1)
    misspelt = key[:place] + letter.upper() + key[place:]
    with pytest.raises(ValueError, match="unknown setting") as caught:
        with_settings(TrainConfig(), [".".join([*section, misspelt]) + "=1"])
    right = ".".join([*section, key])
    wrong = ".".join([*section, misspelt])
    guess, _, pointer = str(caught.value).partition("? ")
    assert guess == f"unknown setting {wrong!r}: did you mean {right!r}"
    assert pointer == "`eapo settings` lists all"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "must be section.key=value, not 'seed'"),
        ("seed=-1", "seed must be at least 0, not -1"),
        ("zzz=1", r"unknown setting 'zzz'\. `eapo settings` lists all"),
        ("learner.lr=1", r"unknown setting 'learner\.lr'\. `eapo settings` lists all"),
        ("learning_rate=1", r"'learning_rate': did you mean 'learner\.learning_rate'\?"),
        ("learner.seed=1", "'learner.seed': did you mean 'seed' or 'problems.seed' or 'eval"),
        ("steps=many", "^steps must be a whole number, not 'many'$"),
        ("steps=2.5", "^steps must be a whole number, not 2.5$"),
        ("steps=1e400", "^steps must be a finite number, not Infinity$"),
        ("rollout.temperature=hot", "^rollout.temperature must be a number, not 'hot'$"),
        ("learner.fused=maybe", "^learner.fused must be true or false, not 'maybe'$"),
        ("name=5", """^name must be a text, not 5; as a text it is '"5"'$"""),
        ("name=[1]", r"^name must be a text, not \[1\]$"),
        ("experts.extra_body=3", "^experts.extra_body must be a JSON object, not 3$"),
        ("experts.endpoints=3", "^experts.endpoints must be a list, not 3$"),
        ('experts.endpoints=[{"models": ["m"]}]', r"^experts.endpoints.0.base_url is missing$"),
        (
            'experts.endpoints=[{"base_url": "http://x", "models": 3}]',
            "^experts.endpoints.0.models must be a list, not 3$",
        ),
        ("steps=0", "steps must be at least 1, not 0"),
        ("steps=null", "^steps must be a whole number, not null$"),
        ("name=", "name must be a valid folder name, not ''"),
        ("name=../elsewhere", "name must be a valid folder name, not '../elsewhere'"),
        ("rollout=5", "^rollout must be a section of settings, not 5$"),
        ("rollout.sampling.x.y=5", r"unknown setting 'rollout.sampling.x'\. `eapo"),
        ("problems.source.x=5", "bad setting 'problems.source.x=5': source is 'synthetic', not a"),
        ("rollout.group_size=1", "rollout: group_size must be at least 2, not 1"),
        (
            "rollout.wording=verbose",
            "rollout.wording must be 'auto', 'full', 'few-shot' or 'terse', not 'verbose'",
        ),
        ("algorithm=ppo", "algorithm.kind must be one of 'dapo', .*'python', not 'ppo'"),
        ("evaluation.samples_per_problem=0", "samples_per_problem must be at least 1, not 0"),
        ("evaluation.every=-1", "every must be at least 0, not -1"),
        ("model.dtype=float8", "model.dtype must be 'float32' or 'bfloat16', not 'float8'"),
        ("learner.learning_rate=nan", "learner: learning_rate must be at least 0, not nan"),
        ("annealing.initial_acceptance_rate=2", r"annealing: .* must be in \[0, 1\], not 2"),
        ('experts.endpoints=[{"base_url": "x", "models": ["m"]}]', "base_url must begin with"),
        (
            'experts.endpoints=[{"base_ur": "http://x", "models": ["m"]}]',
            r"'experts.endpoints.0.base_ur': did you mean 'experts.endpoints.0.base_url'\?",
        ),
        (
            'experts.endpoints=[{"base_url": "http://x", "breaker": {"failures": 1}}]',
            r"unknown setting 'experts.endpoints.0.breaker.failures': did you mean .*max_failures'",
        ),
        (
            'trackers=["tensorboard", {"kind": "wandb", "projec": 3}]',
            r"unknown setting 'trackers.1.projec': did you mean 'trackers.1.project'\?",
        ),
        (
            'trackers=[{"kind": "python", "factor": "a:b"}]',
            r"unknown setting 'trackers.0.factor': did you mean 'trackers.0.factory'\?",
        ),
        (
            "algorithm.factory=mine:loss",
            "^algorithm.factory is for algorithm.kind=python, not dapo$",
        ),
        (
            'trackers=[{"kind": "wandb", "factory": "a:b"}]',
            "^trackers.0.factory is for trackers.0.kind=python, not wandb$",
        ),
        (
            'algorithm={"kind": "grpo", "clipp": "x"}',
            r"unknown setting 'algorithm.clipp': did you mean 'algorithm.clip'\?",
        ),
        ('engine={"kind": "hff", "max_bat": 1}', "engine.kind must be one of .*, not 'hff'"),
        ('rollout=[{"group_size": 4}]', "^rollout must be a section of settings, not "),
        (
            'experts.endpoints=[{"base_url": "http://x", "models": ["m"], "api_key_envv": "K"}]',
            "did you mean 'experts.endpoints.0.api_key_env'",
        ),
    ],
)
def test_a_bad_setting_is_an_error_that_says_what_is_wrong(setting: str, message: str) -> None:
    served = with_settings(TrainConfig(), ["experts=openai"])
    with pytest.raises(ValueError, match=message) as caught:
        with_settings(served, [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sede": 1}', "unknown setting 'sede': did you mean 'seed'"),
        ('{"learner": {"epoch": 1}}', "unknown setting 'learner.epoch': did you mean 'learner"),
        ("[1]", r"config must be a section of settings, not \[1\]"),
        ("not json", "Expecting value"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        TrainConfig.read(path)
    assert str(path) in str(caught.value)


def test_settings_change_any_value() -> None:
    changed = with_settings(Pretraining(), ["format_steps=3", "demonstrator.step_error_rate=0.1"])
    assert changed == Pretraining(
        format_steps=3, demonstrator=NoisyDemonstrator(step_error_rate=0.1)
    )
    with pytest.raises(ValueError, match=r"did you mean 'demonstrator\.step_error_rate'"):
        with_settings(Pretraining(), ["demonstrator.step_error_rat=1"])


# --- secrets


def test_no_config_can_hold_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERT_KEY", KEY)  # a real environment variable, as a user sets one
    endpoint = Endpoint(base_url="http://here/v1", models=("m",), api_key_env="EXPERT_KEY")
    experts = ExpertSettings(kind="openai", endpoints=(endpoint,))
    config = dataclasses.replace(embedded(), experts=experts)
    experts.build()
    assert KEY not in config.to_json() + repr(config) + repr(experts.build())
    assert json.loads(config.to_json())["experts"]["endpoints"][0]["api_key_env"] == "EXPERT_KEY"


def test_the_only_setting_about_keys_is_the_name_of_a_variable() -> None:
    endpoint = dataclasses.asdict(Endpoint(base_url="http://here/v1", models=("m",)))
    names = [path[-1] for path in (*LEAVES, *leaves(endpoint))]
    assert [name for name in names if "key" in name or "secret" in name] == ["api_key_env"]
    setting = 'experts.endpoints=[{"base_url": "http://x", "models": ["m"], "api_key": "sk"}]'
    served = with_settings(TrainConfig(), ["experts=openai"])
    with pytest.raises(ValueError, match=r"did you mean 'experts\.endpoints\.0\.api_key_env'"):
        with_settings(served, [setting])


# --- sections make what they describe


def test_every_algorithm_can_be_chosen_by_its_name_and_has_settings_of_its_own() -> None:
    kinds = {"dapo": DAPO, "grpo": GRPO, "dr_grpo": DrGRPO, "gspo": GSPO, "cispo": CISPO}
    for kind, algorithm in (kinds | {"rloo": RLOO, "max_rl": MaxRL}).items():
        for setting in (f"algorithm={kind}", f"algorithm.kind={kind}"):
            config = with_settings(embedded(), [setting])
            assert config.algorithm == algorithm()
            assert config.algorithm.build().name == kind
    settings = ["algorithm.clip=0.1", "algorithm=grpo", "algorithm.importance_cap=null"]
    assert with_settings(TrainConfig(), settings).algorithm == GRPO(clip=0.1, importance_cap=None)
    with pytest.raises(UserError, match=r"clip_high is for algorithm.kind=dapo, .*, not grpo"):
        with_settings(TrainConfig(), ["algorithm.clip_high=0.3", "algorithm=grpo"])


def test_a_section_of_another_kind_begins_with_that_kinds_defaults() -> None:
    served = with_settings(embedded(), ["engine=vllm-server", "engine.transfer=nccl"])
    assert served.engine == VLLMServerEngine(transfer="nccl")
    assert with_settings(served, ["engine=vllm-server"]) == served, "the same kind: nothing changes"
    assert with_settings(served, ["engine.max_batch=3", "engine=hf"]).engine == HFEngine(
        max_batch=3
    )


@given(st.permutations(["experts.kind=openai", "experts.batch_timeout_s=9", "seed=4"]))
def test_the_kind_of_a_section_counts_wherever_it_stands(settings: list[str]) -> None:
    config = with_settings(with_settings(embedded(), ["experts.error_rate=0.5"]), settings)
    assert config.experts == ExpertSettings(kind="openai", batch_timeout_s=9.0)


def test_details_of_a_value_go_with_it() -> None:
    mine = with_settings(one_gpu(), ["problems.source=a.jsonl", "problems.limit=3"])
    assert one_gpu().problems.columns
    assert mine.problems == dataclasses.replace(
        one_gpu().problems, source="a.jsonl", columns=None, limit=3
    )
    assert mine.evaluation == one_gpu().evaluation
    held_out = with_settings(one_gpu(), ["evaluation.problems.source=b.jsonl"]).evaluation.problems
    assert (one_gpu().evaluation.problems.split, held_out.split) == ("test", None)
    named = ["problems.columns.statement=q", "problems.source=a.jsonl"]
    assert with_settings(one_gpu(), named).problems.columns == Columns(statement="q")
    same = f"problems.source={one_gpu().problems.source}"
    assert with_settings(one_gpu(), [same]) == one_gpu(), "the same source: nothing changes"


def test_another_schedule_has_its_own_rate() -> None:
    half = with_settings(embedded(), ["annealing.schedule=constant", "annealing.rate=0.5"])
    linear = with_settings(half, ["annealing.schedule=ours_linear"])
    assert linear == with_settings(embedded(), ["annealing.schedule=ours_linear"])
    with pytest.raises(UserError, match=r"rate=0.5 means nothing for the schedule ours_linear"):
        with_settings(half, ["annealing.schedule=ours_linear", "annealing.rate=0.5"])


def test_the_settings_of_dapo_are_checked() -> None:
    for setting, message in {
        "clip_low=1": "algorithm: clip_low must be between 0 and 1, not 1",
        "clip_high=-0.1": "algorithm: clip_high must be positive and finite, not -0.1",
        "dual_clip=0.5": "algorithm: dual_clip must be above 1, or null, not 0.5",
        "importance_cap=0": "algorithm: importance_cap must be positive, or null, not 0",
        "max_tokens=0": "algorithm: max_tokens must be at least 1, not 0",
        "normalisation=tokens": "algorithm.normalisation must be 'batch', ",
    }.items():
        with pytest.raises(UserError, match=message):
            with_settings(TrainConfig(), [f"algorithm.{setting}"])


def test_what_a_kind_does_not_use_is_refused() -> None:
    for setting, message in {
        "experts.recording=x": "experts.recording is for experts.kind=replay, not synthetic",
        "experts.factory=a:b": "experts.factory is for experts.kind=python, not synthetic",
        "experts=python": "experts.kind=python needs experts.factory=package.module:callable",
        "reward=python": "reward.kind=python needs reward.factory=package.module:callable",
        "verifier=python": "verifier.kind=python needs verifier.factory=package.module:callable",
        "problems.source=python": "source=python needs factory=package.module:callable",
        "algorithm=python": "algorithm.factory is missing",
        "engine=python": "engine.factory is missing",
        "trackers=python": "trackers.0.factory is missing",
        "trackers=tensorboard, paper": "trackers.1.kind must be one of .*, not 'paper'",
    }.items():
        with pytest.raises(UserError, match=message):
            with_settings(TrainConfig(), [setting])


def test_success_alone_needs_all_groups_that_play_alone() -> None:
    given = ["annealing.schedule=ours_by_success", "rollout.help_for=failed_alone"]
    with pytest.raises(UserError, match=r"help_for=failed_alone with annealing\.schedule=ours_by"):
        with_settings(TrainConfig(), [*given, "annealing.initial_acceptance_rate=0.6"])


def test_the_experts_are_withdrawn_over_the_training_unless_said_otherwise() -> None:
    assert with_settings(embedded(), ["steps=7"]).schedule.steps == 7
    assert with_settings(embedded(), ["steps=7", "annealing.steps=5"]).schedule.steps == 5
    with pytest.raises(UserError, match=r"annealing\.steps is not set"):
        Annealing().rules_at(1)


def test_experts_are_of_their_kind(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    recording.write_text("", encoding="utf-8")
    endpoint = Endpoint(base_url="http://here/v1", models=("m",))
    assert ExpertSettings().build() == ProceduralExperts(work_out, names=("calculator",))
    parts = ExpertSettings(kind="synthetic-parts").build()
    assert parts == ProceduralExperts(work_out_part, names=("calculator",))
    assert ExpertSettings(kind="silent").build() == SilentExperts()
    assert ExpertSettings(kind="meaningless").build() == MeaninglessExperts()
    wrong = ExpertSettings(error_rate=0.25).build()
    assert isinstance(wrong, ErroneousExperts)
    assert wrong.error_rate == 0.25
    asked = ExpertSettings(kind="openai", endpoints=(endpoint,)).build()
    assert isinstance(asked, OpenAIExperts)
    keyed = dataclasses.replace(endpoint, api_key_env="EAPO_TESTS_HAVE_NO_SUCH_KEY")
    with pytest.raises(ValueError, match="variable EAPO_TESTS_HAVE_NO_SUCH_KEY holds no key"):
        ExpertSettings(kind="openai", endpoints=(endpoint, keyed)).build()
    replayed = ExpertSettings(kind="replay", recording=str(recording)).build()
    assert isinstance(replayed, ReplayExperts)


def test_experts_of_parts_solve_no_whole_problem() -> None:
    for kind in ("synthetic-parts", "meaningless", "silent"):
        experts = with_settings(TrainConfig(), [f"experts={kind}"]).experts
        with pytest.raises(UserError, match=f"experts.kind={kind} cannot solve whole problems"):
            experts.solvers(max_tokens=8, timeout_s=1.0)


def test_columns_and_limit_are_settings(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    rows = [{"number": n, "question": f"{n}+1", "solution": str(n + 1)} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ["columns.statement=question", "columns.answer=solution", "columns.id=number"]
    given = [f"problems.{setting}" for setting in [f"source={path}", "limit=2", *settings]]
    problems = with_settings(TrainConfig(), given).problems.load()
    assert [(one.id, one.statement, one.answer) for one in problems] == [
        ("0", "0+1", "1"),
        ("1", "1+1", "2"),
    ]
    assert len(with_settings(TrainConfig(), ["problems.limit=3"]).problems.load()) == 3
    with pytest.raises(UserError, match="column 'problem': missing") as caught:
        with_settings(TrainConfig(), given[:1]).problems.load()
    assert "--set 'problems.columns={...}'" in caught.value.__notes__[0]
    remedy = str(caught.value).rpartition("name them: ")[2]
    for section in ("problems", "evaluation.problems"):
        config = with_settings(TrainConfig(), [f"{section}.source={path}", f"{section}.{remedy}"])
        chosen = config.problems if section == "problems" else config.evaluation.problems
        assert [one.answer for one in chosen.load()] == ["1", "2", "3", "4"]


def test_problems_come_from_their_source(tmp_path: Path) -> None:
    made = ProblemSettings(num_problems=3, brackets=1, operations=1, seed=2).load()
    assert [problem.id for problem in made] == [f"synthetic-1x1-2-{n}" for n in range(3)]
    path = tmp_path / "some.jsonl"
    path.write_text('{"id": "a", "problem": "1+1", "answer": "2"}\n', encoding="utf-8")
    assert [problem.statement for problem in ProblemSettings(source=str(path)).load()] == ["1+1"]


def test_the_embedded_model_is_the_default() -> None:
    assert ModelSettings().path == "embedded"
