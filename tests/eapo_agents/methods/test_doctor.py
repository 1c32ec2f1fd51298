"""The examination of a model: what it says of one that works, and of what prevents a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import eapo
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.methods.doctor import Finding, examine
from eapo_agents.training.config import TrainConfig, with_settings
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
        *("model", "chat template", "tokens", "prompt", "trial", "sampling"),
        *("check", "update", "run"),
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
    assert "Teach the format first: eapo cold-start" in trial.text


def test_a_model_that_cannot_be_loaded_is_bad(tiny_config: TrainConfig, tmp_path: Path) -> None:
    model = replace(tiny_config.model, path=str(tmp_path))
    policy = found(replace(tiny_config, model=model))["policy"]
    assert policy.verdict == "bad"
    assert "no model can be loaded from" in policy.text


def test_experts_are_asked(tiny_config: TrainConfig, server: Any) -> None:
    endpoints = [
        {"base_url": server.url, "models": ["echo:ada", "echo:eve"]},
        {"base_url": "http://127.0.0.1:9/v1", "models": ["nobody"], "max_retries": 0},
    ]
    settings = ["experts.kind=openai", f"experts.endpoints={json.dumps(endpoints)}"]
    seen = found(with_settings(tiny_config, settings))
    assert seen[server.url].text == "serves echo:ada, echo:bob, not echo:eve"
    assert seen[server.url].verdict == seen["http://127.0.0.1:9/v1"].verdict == "bad"
    assert "answers 'What is 6 * 7?' with 'echo: What is 6 * 7?'" in seen["expert echo:ada"].text
    assert seen["expert nobody"].verdict == "look"


def test_alone_there_are_no_experts_to_ask(tiny_config: TrainConfig) -> None:
    alone = with_settings(tiny_config, ["annealing.turn_budget=1"])
    assert next(iter(examine(alone))).text == "none: the run is alone from its first step"


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


@pytest.mark.slow
def test_what_prevents_a_run_is_the_exit_status(tmp_path: Path) -> None:
    done = eapo("doctor", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "This model cannot be a policy with these settings" in " ".join(done.stdout.split())
