"""A real OpenEnv server of `eapo serve-env`, and its clients."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import httpx
import numpy as np
import pytest
from command import as_options, started
from openenv.core.client_types import StepResult
from programs import ENVIRONMENT, ROOT, run_program

import eapo_env  # noqa: F401, registers EAPO-Math-v0
from eapo_agents.adapters import EapoAction, EapoClient, EapoObservation
from eapo_agents.adapters.openenv import EapoEnvironment, ServedParts
from eapo_agents.cli import main
from eapo_agents.training import with_settings
from eapo_agents.training.presets import preset_named
from eapo_env.prompts import Prompts
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.types import Rules
from eapo_env.validation import UserError

pytestmark = pytest.mark.slow

SMALL = ["problems.num_problems=64", "evaluation.problems.num_problems=4"]
CONSULT = "<consult>\n<query>{}</query>\n</consult>"


@contextmanager
def serving(*options: str, settings: list[str]) -> Iterator[str]:
    """Start a server; give its address."""
    words = ["serve-env", "--port", "0", *options, *as_options([*SMALL, *settings])]
    environment = ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'shared'}"}
    with started(*words, env=environment) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[2]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(settings=[]) as one:
        yield one


def written(observation: str, rng: np.random.Generator) -> str:
    """Consult, use the reply or not, write nonsense now and then."""
    if "<reply" in observation:
        numbers = re.findall(r"<reply>(\d+)</reply>", observation)
        return rf"\boxed{{{numbers[0] if numbers and rng.random() < 0.7 else 7}}}"
    choice = rng.random()
    if choice < 0.6:
        problem = observation.split("\n")[0]
        return CONSULT.format(problem) * int(rng.integers(1, 4))
    return r"\boxed{10}" if choice < 0.9 else "I do not know.\x00"


def test_it_is_the_local_environment(address: str) -> None:
    """Observations, rewards, infos and ends, on 100 seeds, with rules that change."""
    local = gym.make(
        "EAPO-Math-v0",
        problems=synthetic_problems(64, brackets=3),
        rules=Rules(turn_budget=2),
        reward=RewardRule(format_reward=0.0),
        prompts=Prompts.terse(),
        observation="delta",
    )
    ends = set()
    with EapoClient(address).sync() as client:
        for seed in range(100):
            rules = {"turn_budget": seed % 4 + 1, "acceptance_rate": (seed % 3) / 2}
            text, info = local.reset(seed=seed, options=rules)
            result = client.reset(seed=seed, **rules)
            check(result, text, None, False, info)
            rng = np.random.default_rng(seed)
            while not result.done:
                action = written(text, rng)
                text, reward, over, _, info = local.step(action)
                result = client.step(EapoAction(completion=action))
                check(result, text, float(reward), over, info)
            ends.add((info["stop_reason"], info["correct"], bool(info["accepted"])))
    local.close()
    assert len(ends) >= 4


def check(
    result: StepResult[EapoObservation],
    text: str,
    reward: float | None,
    over: bool,
    info: dict[str, Any],
) -> None:
    read = result.observation.model_dump(exclude={"metadata", "reward", "done"})
    assert read == {"text": text, **info}
    assert (result.reward, result.done) == (reward, over)


def test_openenvs_own_validation_passes(address: str) -> None:
    command = [str(Path(sys.executable).with_name("openenv")), "validate", "--url", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Verdict: PASS" in done.stdout
    assert "FAIL" not in done.stdout


def test_the_package_to_push_is_valid() -> None:
    package = ROOT / "recipes" / "openenv"
    command = [str(Path(sys.executable).with_name("openenv")), "validate", str(package)]
    done = subprocess.run(
        [*command, "--level", "static"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    app = runpy.run_path(str(package / "server" / "app.py"))["app"]
    assert {"/health", "/ws"} <= {getattr(route, "path", "") for route in app.routes}


def test_the_example_of_a_client(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "openenv_client.py"))["main"]([address])
    shown = capsys.readouterr().out
    assert [int(one) for one in re.findall(r"replies read (\d)", shown)][::3] == [1, 0]
    assert "step 1  replies read 1  reward 1.0" in shown


def test_problems_are_chosen_by_split_without_their_answers(address: str) -> None:
    shown = httpx.post(f"{address}/eapo_math/tasks", json={"split": "held_out"}).text
    with EapoClient(address).sync() as client:
        first = client.reset(split="held_out", index=2, turn_budget=1)
        again = client.reset(split="held_out", index=2, turn_budget=1)
    held_out = synthetic_problems(4, brackets=3, seed=1)
    assert first.observation == again.observation
    assert first.observation.problem_id == held_out[2].id
    assert held_out[2].statement in first.observation.text
    assert shown.count('"statement"') == 4
    assert "answer" not in shown


def problem_file(folder: Path, problems: dict[str, str]) -> Path:
    """Write problems without ids, so that they are numbered after the file's name."""
    folder.mkdir()
    rows = [{"problem": statement, "answer": answer} for statement, answer in problems.items()]
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_id_names_a_problem_of_any_split_and_no_held_out_one_is_trained_on(
    tmp_path: Path,
) -> None:
    train = problem_file(tmp_path / "a", {"1 + 1": "2", "1 + 2": "3", "2 + 2": "4"})
    held_out = problem_file(tmp_path / "b", {"5 + 5": "10", "1 + 2": "3"})
    config = with_settings(
        preset_named("embedded"),
        [f"problems.source={train}", f"evaluation.problems.source={held_out}"],
    )
    parts = ServedParts.from_config(config)
    assert [problem.statement for problem in parts.splits["train"]] == ["1 + 1", "2 + 2"]
    with closing(parts.verifier):
        environment = EapoEnvironment(parts)
        [*_, last] = environment.list_tasks("train")
        assert "2 + 2" in environment.reset(problem_id=last["id"]).text
        [both, only] = environment.list_tasks("held_out")
        assert "1 + 2" in environment.reset(problem_id=only["id"]).text
        with pytest.raises(UserError, match=f"2 problems have the id '{both['id']}': name split"):
            environment.reset(problem_id=both["id"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem": "1+1"}, "unknown options of reset ['problem']"),
        ({"turn_budget": 0}, "turn_budget must be at least 1, not 0"),
        ({"problem_id": "nothing"}, "no problem has the id 'nothing'"),
        ({"split": "test", "index": 0}, "split must be one of ['train', 'held_out'], not 'test'"),
        ({"split": "train", "index": 64}, "index must be in [0, 64), not 64"),
        ({"split": "train"}, "by split and index"),
        ({"index": 3}, "by split and index"),
        ({"split": "train", "index": 1, "problem_id": "x"}, "or by problem_id"),
    ],
    ids=str,
)
def test_a_bad_reset_is_an_error_that_shows_the_value(
    address: str, options: dict[str, Any], message: str
) -> None:
    with EapoClient(address).sync() as client:
        with pytest.raises(RuntimeError, match=re.escape(message)):
            client.reset(**options)
        assert client.reset(seed=1).observation.turn == 0, "the session goes on"


def test_a_step_without_an_episode_is_an_error(address: str) -> None:
    with EapoClient(address).sync() as client:
        assert client.state().step_count == 0
        with pytest.raises(RuntimeError, match="call reset"):
            client.step(EapoAction(completion="2"))
        client.reset(seed=1, episode_id="mine", turn_budget=1)
        client.step(EapoAction(completion=r"\boxed{2}"))
        state = client.state()
        assert (state.episode_id, state.step_count) == ("mine", 1)
        with pytest.raises(RuntimeError, match="the episode is over"):
            client.step(EapoAction(completion="3"))


async def consulted(address: str, seed: int) -> int:
    async with EapoClient(address) as client:
        await client.reset(seed=seed, turn_budget=2)
        result = await client.step(EapoAction(completion=CONSULT.format("1+1")))
        return int(result.observation.accepted)


async def all_consulted(address: str, count: int) -> list[int]:
    return await asyncio.gather(*(consulted(address, seed) for seed in range(count)))


def test_the_experts_of_all_sessions_are_asked_at_the_same_time() -> None:
    settings = ["experts=python", "experts.factory=crowd:Crowd", 'experts.arguments={"size": 24}']
    with serving(settings=settings) as address:
        assert asyncio.run(all_consulted(address, 24)) == [1] * 24


def test_an_idle_session_ends_and_makes_room() -> None:
    one_short = serving("--sessions", "1", "--session-timeout", "0.1", settings=[])
    with one_short as address, EapoClient(address).sync() as idle:
        idle.reset(seed=1)
        second = EapoClient(address).sync()
        with pytest.raises(RuntimeError, match="CAPACITY_REACHED"), second:
            second.reset(seed=2)
        assert asyncio.run(admitted(address)).observation.turn == 0
        with pytest.raises(RuntimeError, match="this session has ended"):
            idle.step(EapoAction(completion="2"))


async def admitted(address: str) -> StepResult[EapoObservation]:
    """Try until there is room."""
    while True:
        try:
            async with EapoClient(address) as client:
                return await client.reset(seed=2)
        except RuntimeError:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sessions", "0"], "--sessions must be positive: 0"),
        (["--session-timeout", "-1"], "--session-timeout must be positive: -1.0"),
        (["--host", "no.such.host.invalid", "--port", "0"], "cannot listen on no.such.host"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve-env", *options, *as_options(SMALL)]) == 2
    assert message in capsys.readouterr().err


def test_without_openenv_it_says_what_to_install() -> None:
    done = run_program("without_module.py", "openenv", "serve-env")
    assert done.returncode == 2
    assert "pip install 'eapo[openenv]'" in done.stderr
    assert "Traceback" not in done.stderr
