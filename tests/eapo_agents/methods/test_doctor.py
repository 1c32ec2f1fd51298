"""The examination of a model: what it says of one that works, and of what prevents a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from command import eapo
from policy_routes import PolicyRoutes, served
from stub_server import StubServer
from transformers import AutoModelForCausalLM, Qwen2Config

from eapo_agents.cli import main
from eapo_agents.methods.doctor.examination import examine
from eapo_agents.methods.doctor.finding import Finding
from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.serving.process import free_port
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import demo, embedded, r1_distill_qwen_7b
from eapo_env.event_loop import run
from eapo_env.reachability import endpoint_at
from eapo_env.validation import UserError


def found(config: TrainConfig) -> Mapping[str, Finding]:
    return {finding.part: finding for finding in examine(config)}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with StubServer("echo:ada", "echo:bob") as server:
        yield server


@pytest.fixture(scope="module")
def of_tiny_model(tiny_config: TrainConfig) -> Mapping[str, Finding]:
    return found(tiny_config)


def test_every_part_is_examined_in_order(of_tiny_model: Mapping[str, Finding]) -> None:
    parts = [part for part in of_tiny_model if not part.startswith("expert")]
    assert parts == [
        *("problems", "model", "chat template", "prompt", "memory", "tokens"),
        *("trial", "sampling", "check", "update", "run"),
    ]
    assert "bad" not in {finding.verdict for finding in of_tiny_model.values()}


def test_what_is_said_of_the_model(of_tiny_model: Mapping[str, Finding]) -> None:
    said = {part: finding.text for part, finding in of_tiny_model.items()}
    assert said["model"].startswith("LlamaForCausalLM, 0.0 million parameters in float32")
    assert said["chat template"] == (
        "takes several turns, has a system role, knows no reasoning; adds 2 tokens to a prompt"
    )
    assert said["tokens"] == "padded with <pad>; a turn ends with <|im_end|>"
    assert "in terse wording; with 48 of responses" in said["prompt"]
    assert "agree to" in said["check"]
    assert said["run"].startswith("4 steps of ")
    assert "24 episodes" in said["run"]
    assert "updating on 16" in said["run"]
    assert "1 evaluations of" in said["run"]
    assert "measured with 24 episodes at a time" in said["run"]
    assert "24 episodes at a time" in said["sampling"]
    assert said["problems"] == "24 to train on, 4 held out"


def test_the_trial_has_shares_and_an_episode(of_tiny_model: Mapping[str, Finding]) -> None:
    trial = of_tiny_model["trial"]
    assert trial.text.startswith("8 episodes: consulted 0.")
    assert trial.episode is not None
    assert trial.episode["messages"][0]["content"].startswith("p")


def test_limits_that_cut_every_episode_are_pointed_out(tiny_config: TrainConfig) -> None:
    short = with_settings(tiny_config, ["rollout.limits.max_response_tokens=1"])
    trial = found(short)["trial"]
    assert trial.verdict == "look"
    assert "answered 0.00" in trial.text
    assert "cut by a limit 1.00" in trial.text
    assert "Raise rollout.limits.max_response_tokens" in trial.text


def test_a_model_that_cannot_be_loaded_is_bad(tiny_config: TrainConfig, tmp_path: Path) -> None:
    model = replace(tiny_config.model, path=str(tmp_path))
    policy = found(replace(tiny_config, model=model))["policy"]
    assert policy.verdict == "bad"
    assert "no model can be loaded from" in policy.text


def asking(config: TrainConfig, *endpoints: Mapping[str, object]) -> TrainConfig:
    return with_settings(
        config, ["experts.kind=openai", f"experts.endpoints={json.dumps(endpoints)}"]
    )


def test_an_expert_that_is_right_is_good(tiny_config: TrainConfig, server: Any) -> None:
    problems = ["problems.source=synthetic", "problems.num_problems=8"]
    held_out = ["evaluation.problems.source=synthetic", "evaluation.problems.num_problems=4"]
    seen = found(with_settings(tiny_config, [*problems, *held_out]))["expert calculator"]
    assert seen.verdict == "good"
    assert seen.text.endswith(", which is right")


def test_an_expert_that_is_wrong_is_pointed_out(tiny_config: TrainConfig, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"problem": "How many primes are below 10?", "answer": "4"}')
    asked = examine(with_settings(tiny_config, [f"problems.source={mine}"]))
    strangers, wrong = list(islice((one for one in asked if one.part.startswith("expert")), 2))
    assert strangers.verdict == wrong.verdict == "look"
    assert strangers.text.startswith("experts.kind=synthetic knows the procedural problems alone")
    assert wrong.part == "expert calculator"
    assert wrong.text.startswith(
        "answers 'How many primes are below 10?' with '10', and the answer"
    )


def test_an_expert_on_parts_has_no_answer_and_prevents_nothing() -> None:
    seen = next(one for one in examine(demo()) if one.part == "expert calculator")
    assert seen.verdict == "look"
    assert "has no answer to" in seen.text


def test_experts_that_cannot_be_asked_anything(tiny_config: TrainConfig, tmp_path: Path) -> None:
    silent = found(with_settings(tiny_config, ["experts=silent"]))["experts"]
    assert (silent.verdict, silent.text) == ("look", "experts.kind=silent: none replies")
    recording = tmp_path / "recorded.jsonl"
    replayed = with_settings(tiny_config, ["experts.kind=replay", f"experts.recording={recording}"])
    assert "there is no file" in found(replayed)["experts"].text
    recording.touch()
    assert found(replayed)["experts"].text == f"replies are those of {recording}"


FAILING = """
import time

class Experts:
    def __init__(self, seconds):
        self.seconds = seconds
    async def ask(self, queries):
        time.sleep(self.seconds)
        raise OSError("no line")
"""


@pytest.mark.parametrize(("seconds", "reason"), [(0, "no line"), (30, "within 1 s")])
def test_a_pool_that_fails_or_hangs_does_not_answer(
    tiny_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    reason: str,
) -> None:
    (tmp_path / "failing_experts.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["experts.kind=python", "experts.factory=failing_experts:Experts"]
    settings += [f"experts.arguments.seconds={seconds}", "experts.batch_timeout_s=1"]
    asked = examine(with_settings(tiny_config, settings))
    seen = next(one for one in asked if one.part.startswith("expert"))
    assert seen.verdict == "bad"
    assert reason in seen.text


def test_servers_are_asked_a_sum_and_graded(tiny_config: TrainConfig, server: Any) -> None:
    config = asking(tiny_config, {"base_url": server.url, "models": ["echo:ada", "echo:eve"]})
    seen = found(config)
    assert seen[server.url].verdict == "bad"
    assert seen[server.url].text == (
        "serves echo:ada, echo:bob, not echo:eve: name one that it serves in experts.endpoints"
    )
    assert seen["expert echo:ada"].verdict == "look"
    assert "with 'echo: What is 6 * 7?', and the answer is '42'" in seen["expert echo:ada"].text
    assert "expert echo:eve" not in seen
    assert seen["trial"].episode is not None  # played with the others


def test_a_server_that_does_not_answer_is_one_finding_with_its_command(
    tiny_config: TrainConfig,
) -> None:
    names = ["nobody"] * 3
    config = asking(tiny_config, {"base_url": "http://127.0.0.1:9/v1", "models": names})
    told = [one for one in examine(config) if "nobody" in one.text]
    assert [one.part for one in told] == ["http://127.0.0.1:9/v1"]
    assert told[0].verdict == "bad"
    assert told[0].text.endswith("; start it: eapo serve-expert nobody --port 9")
    skipped = with_settings(config, ["experts.preflight=skipped"])
    assert found(skipped)["http://127.0.0.1:9/v1"].verdict == "look"


def test_a_key_that_is_missing_is_not_cured_by_a_server(tiny_config: TrainConfig) -> None:
    endpoint = {"base_url": "https://a.example/v1", "models": ["m"], "api_key_env": "NO_SUCH_KEY"}
    seen = found(asking(tiny_config, endpoint))["https://a.example/v1"]
    assert seen.text == "the environment variable NO_SUCH_KEY holds no key"


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of a model of 7B and a tokenizer, and no weights."""
    return without_weights(tmp_path_factory.mktemp("7b"), intermediate_size=18_944)


def without_weights(folder: Path, intermediate_size: int) -> Path:
    Qwen2Config(
        num_hidden_layers=28,
        hidden_size=3584,
        intermediate_size=intermediate_size,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152_064,
        max_position_embeddings=131_072,
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def test_what_needs_no_server_is_examined_without_one(seven_billion: Path) -> None:
    experts = {"base_url": "http://127.0.0.1:9/v1", "models": ["Qwen/QwQ-32B"] * 3}
    config = with_settings(
        asking(r1_distill_qwen_7b(), experts),
        [
            f"model.path={seven_billion}",
            'engine.base_urls=["http://127.0.0.1:10", "http://127.0.0.1:11"]',
            "engine.transfer=nccl",
            "learner.device=cpu",
            "problems.source=synthetic",
            "evaluation.problems.source=synthetic",
            "evaluation.problems.num_problems=8",
            "evaluation.problems.seed=1",
        ],
    )
    seen = found(config)
    assert [part for part, one in seen.items() if one.verdict == "bad"] == [
        *("http://127.0.0.1:9/v1", "http://127.0.0.1:10", "http://127.0.0.1:11")
    ]
    assert seen["http://127.0.0.1:9/v1"].text.endswith("eapo serve-expert Qwen/QwQ-32B --port 9")
    assert seen["http://127.0.0.1:11"].text.endswith(
        f"; start it: eapo serve-policy {seven_billion} --transfer nccl --port 11"
    )
    assert "7615.6 million parameters" in seen["model"].text
    assert "with 20480 of responses" in seen["prompt"].text
    assert seen["prompt"].text.endswith("of a context of 131072")
    assert "113.5 GiB for weights, gradients and moments" in seen["memory"].text
    assert seen["tokens"].text == "padded with <pad>; a turn ends with <|im_end|>"
    assert seen["trial"].text.endswith("a server of the policy does not answer")


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A folder as of a model of some 10^12 parameters."""
    return without_weights(tmp_path, intermediate_size=4_000_000)


def test_a_learner_too_large_for_this_machine_is_not_loaded(huge: Path) -> None:
    seen = found(with_settings(embedded(), [f"model.path={huge}", "learner.device=cpu"]))
    assert seen["memory"].verdict == "look"
    assert "(docs/scaling.md)" in seen["memory"].text
    assert seen["trial"].text.endswith(
        "the learner does not fit into this process, where the policy samples"
    )


def test_servers_play_for_a_learner_that_is_too_large(
    tiny_config: TrainConfig, tiny_model: Path, huge: Path
) -> None:
    with served_tiny(tiny_model) as root:
        seen = found(with_settings(tiny_config, [f"model.path={huge}", *on_servers(root)]))
    assert seen[root].text == "serves policy, with a context of 160 tokens"
    assert seen["prompt"].text.endswith("of a context of 160")
    assert seen["trial"].episode is not None
    assert seen["update"].text == "not tried: the learner does not fit into this process"
    assert "run" not in seen


def test_all_is_examined_on_a_server_and_nothing_is_played_unless_all_answer(
    tiny_config: TrainConfig, tiny_model: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with served_tiny(tiny_model) as root:
        seen = found(with_settings(tiny_config, on_servers(root)))
        half = found(with_settings(tiny_config, on_servers(root, nobody)))
    assert "4 steps of" in seen["run"].text
    assert (half[root].verdict, half[nobody].verdict) == ("good", "bad")
    assert half["trial"].text.startswith("not played")


@contextmanager
def served_tiny(model: Path) -> Iterator[str]:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with served(PolicyRoutes(HFPolicy(loaded, char_tokenizer()))) as root:
        yield root


def on_servers(*roots: str) -> list[str]:
    return ["engine.kind=vllm-server", f"engine.base_urls={json.dumps(roots)}"]


def test_adapters_need_less_memory(seven_billion: Path) -> None:
    settings = [f"model.path={seven_billion}", "model.lora.rank=16", "learner.precision=bfloat16"]
    asked = examine(with_settings(embedded(), [*settings, "learner.device=cpu"]))
    memory = next(one for one in asked if one.part == "memory")
    assert "14.8 GiB for weights, gradients and moments" in memory.text  # docs/one-gpu.md


def test_problems_that_cannot_be_read_do_not_end_the_examination(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    missing = with_settings(tiny_config, [f"problems.source={tmp_path / 'no.jsonl'}"])
    seen = found(missing)
    assert seen["problems"].verdict == "bad"
    assert "no.jsonl" in seen["problems"].text
    assert "up to 2048 tokens" in seen["prompt"].text
    assert seen["trial"].text.endswith("there is no problem to play")
    same = [f"evaluation.problems.source={tiny_config.problems.source}"]
    assert "problems are held out" in found(with_settings(tiny_config, same))["problems"].text


def test_prompts_over_the_limit_are_counted(tiny_config: TrainConfig) -> None:
    length = "terse wording; with 48 of responses"
    some = found(with_settings(tiny_config, ["rollout.limits.max_prompt_tokens=26"]))["prompt"]
    assert length in some.text
    none = found(with_settings(tiny_config, ["rollout.limits.max_prompt_tokens=5"]))
    assert none["prompt"].verdict == "bad"
    assert "24 problems with longer prompts are left out" in none["prompt"].text
    assert "policy" not in none


def test_a_setting_that_prevents_a_run_is_bad(tiny_config: TrainConfig) -> None:
    ahead = found(with_settings(tiny_config, ["rollout.steps_ahead=1"]))
    assert ahead["settings"].verdict == "bad"
    assert "engine=vllm-server" in ahead["settings"].text
    assert ahead["trial"].text.endswith("the settings prevent it")
    nowhere = found(with_settings(tiny_config, ["learner.device=cuda:99"]))
    assert [part for part, one in nowhere.items() if one.verdict == "bad"] == ["settings"]
    assert "'cuda:99'" in nowhere["settings"].text
    hosted = with_settings(tiny_config, ["engine.kind=openai", "engine.base_url=http://h/v1"])
    assert "gives no token ids" in found(hosted)["policy"].text


def test_alone_there_are_no_experts_to_ask(tiny_config: TrainConfig) -> None:
    alone = with_settings(tiny_config, ["annealing.turn_budget=1"])
    assert found(alone)["experts"].text == "none: the run is alone from its first step"


def test_an_address_is_enough_to_name_experts(server: Any) -> None:
    for url in (server.url, server.url.removesuffix("/v1") + "/"):
        endpoint = run(endpoint_at(url))
        assert (endpoint.base_url, endpoint.models) == (server.url, ("echo:ada", "echo:bob"))
    with pytest.raises(UserError, match=r"127.0.0.1:9/v1: "):
        run(endpoint_at("http://127.0.0.1:9"))
    with StubServer() as silent, pytest.raises(UserError, match="lists no models: name them in"):
        run(endpoint_at(silent.url))


def test_the_page_ends_with_a_verdict(
    server: Any, tiny_settings: list[str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option for setting in tiny_settings for option in ("--set", setting)]
    assert main(["doctor", str(tiny_model), "--experts", server.url, *given]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "expert echo:bob: answers 'What is 6 * 7?'" in page
    assert "example: problem p" in page
    assert "This model can be a policy here" in page


def test_an_address_without_a_server_does_not_end_the_page(
    tiny_settings: list[str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option for setting in tiny_settings for option in ("--set", setting)]
    assert main(["doctor", str(tiny_model), "--experts", "http://127.0.0.1:9", *given]) == 1
    page = " ".join(capsys.readouterr().out.split())
    assert "start it: eapo serve-expert MODEL --port 9" in page
    assert "tokens a second" in page


@pytest.mark.slow
def test_what_prevents_a_run_is_the_exit_status(tmp_path: Path) -> None:
    done = eapo("doctor", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "This model cannot be a policy with these settings" in " ".join(done.stdout.split())
