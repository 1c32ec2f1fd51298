"""The commands of workflows and recordings, for real."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import as_options
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.methods.solutions import read_solutions
from eapo_agents.training.run_folder import read_evaluation


def test_the_commands_on_a_model_and_served_experts(
    tiny_model: Path,
    settings_without_model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every held-out problem's answer is 3; one expert knows it, the other says 4."""
    model, recording, out = str(tiny_model), tmp_path / "recording.jsonl", tmp_path / "out"
    with StubServer("solve:3", "solve:4") as server:
        endpoint = {"base_url": server.url, "models": ["solve:3", "solve:4"]}
        pool = ["experts.kind=openai", f"experts.endpoints={json.dumps([endpoint])}"]
        options = as_options([*settings_without_model, *pool])
        options += ["--pool", "solve:3 + solve:4 x3"]
        record = ["record-experts", str(recording), "--samples", "4", *options]
        assert main(record) == 0
        assert "16 solutions of 4 problems, 4 right, 12 wrong" in capsys.readouterr().out
        asked = len(server.records("solve:4"))
        assert main(record) == 0
        assert len(server.records("solve:4")) == asked, "what is recorded is not asked again"
        conditions = ["alone", "self", "experts", "recorded", "erroneous", "meaningless"]
        command = ["workflow", model, *conditions, "--recording", str(recording), *options]
        assert main([*command, "--out", str(out)]) == 0
        texts = [call["text"] for call in server.records("solve:3")]
    assert {"q0", "q1", "q2", "q3"} <= set(texts)
    assert len(read_solutions(recording)["q0"]) == 4
    files = [out / f"{condition}.json" for condition in conditions]
    assert sorted(out.iterdir()) == sorted(files)
    found = {file.stem: read_evaluation(file) for file in files}
    assert found["erroneous"].wrong_replies == {"held_out": 1.0}
    assert found["recorded"].wrong_replies["held_out"] >= 2 / 3
    reports = [one.reports["held_out"] for one in found.values()]
    assert all(len(report.correct_PK) == 4 for report in reports)
    assert [report.call_rate for report in reports] == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    alone = str(tmp_path / "alone.json")
    assert main(["evaluate", model, *options[:-2], "--json", alone]) == 0
    assert read_evaluation(Path(alone)).reports == found["alone"].reports
    assert main(["compare", str(out / "experts.json"), alone]) == 0
    assert f"{model}, experts - {model}, alone" in " ".join(capsys.readouterr().out.split())


def test_a_served_model_collaborates_with_itself(
    settings_without_model: list[str], tmp_path: Path
) -> None:
    with StubServer() as server:
        options = as_options(
            [
                *settings_without_model,
                "engine=openai",
                f"engine.base_url={server.url}",
                "rollout.wording=terse",
                "experts.batch_timeout_s=0.001",  # of training, not of copies in an evaluation
            ]
        )
        command = ["workflow", "solve:3", "self", "--replies", "3", *options]
        assert main([*command, "--out", str(tmp_path)]) == 0
        calls = server.records("solve:3")
    assert len(calls) == 4 * 2 * (3 + 1), "three replicas and the policy in each episode"
    last = [call["body"]["messages"] for call in calls if len(call["body"]["messages"]) == 3]
    assert len(last) == 4 * 2
    assert all(messages[2]["content"].count("<reply>3</reply>") == 3 for messages in last)
    assert read_evaluation(tmp_path / "self.json").reports["held_out"].mean_at_k == 1.0


def test_a_workflow_whose_server_died_goes_on(
    settings_without_model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight turns, half a second each, one at a time; the server dies in the fifth."""
    with StubServer() as server:
        engine = [
            f"engine.base_url={server.url}",
            "engine.max_live_calls=1",
            "engine.max_retries=0",
        ]
        settings = [*settings_without_model, "engine=openai", *engine]
        options = [*as_options(settings), "--out", str(tmp_path)]
        command = ["workflow", "delay:0.5", "meaningless", *options]
        with ThreadPoolExecutor() as pool:
            status = pool.submit(main, command)
            server.wait_for("delay:0.5", 5)
            server.kill()
        assert status.result() == 2
        assert "eapo: " in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["meaningless.json.partial"]
        _, *done = (tmp_path / "meaningless.json.partial").read_text().splitlines()
        assert done
        server.start()
        assert main(command) == 0
        assert len(server.records("delay:0.5")) == 8 - 2 * len(done)
    (report,) = read_evaluation(tmp_path / "meaningless.json").reports.values()
    assert report.num_problems == 4
    assert not (tmp_path / "meaningless.json.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recorded"], "0 recorded solutions of problem 'q0', of 1 wanted"),
        (["experts", "--turns", "1"], "a turn budget of 2 or more: 1"),
        (["experts", "--replies", "0"], "num_replies must be at least 1, not 0"),
        (["experts", "--pool", "32B"], "'32B' fits none of the served models []"),
    ],
)
def test_bad_input_is_told_in_a_line(
    tiny_model: Path,
    settings_without_model: list[str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = as_options(settings_without_model)
    assert main(["workflow", str(tiny_model), *arguments, *options]) == 2
    error = capsys.readouterr().err
    last = error.splitlines()[-1]
    assert last.startswith("eapo: ")
    assert message in last
