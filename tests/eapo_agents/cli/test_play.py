"""Playing in the terminal: a person at a real terminal or behind a pipe, and a model."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import ENVIRONMENT, as_options, eapo, started, succeed

from eapo_agents.training.config import TrainConfig

pytestmark = pytest.mark.slow

DUMB = ENVIRONMENT | {"TERM": "dumb"}


class Terminal:
    """What a person sees and types."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.seen = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character

    def wait_for(self, pattern: str) -> None:
        """Read on until the pattern appears after what was waited for before."""
        deadline = time.monotonic() + 120
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.handle], [], [], 1.0)[0]:
                self.seen += self.decoder.decode(os.read(self.handle, 65536))
        self.seen = self.seen[found.end() :]

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())


@contextmanager
def terminal(*arguments: str | Path) -> Iterator[tuple[Terminal, subprocess.Popen[str]]]:
    ours, theirs = pty.openpty()
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    child = started("play", *arguments, **ends, env=DUMB, start_new_session=True)
    os.close(theirs)
    try:
        yield Terminal(ours), child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(ours)


def test_a_person_consults_and_answers_at_a_terminal() -> None:
    with terminal("--episodes", "2", "--seed", "3", "--turns", "3") as (person, child):
        person.wait_for(r"what the policy may do")
        person.wait_for(r"write up to 3 turns")
        person.wait_for(r"ask up to 3 questions a turn, of calculator")
        person.wait_for(r"read a reply with probability 1,")
        person.wait_for(r"mod 100")
        person.wait_for("> ")
        person.type("I ask:\n")
        person.wait_for("> ")
        person.type("<consult><query>(47+38)*6</query></consult>\n\n")
        person.wait_for(r"policy · turn 1")
        person.wait_for(r"query 1 · gate: accepted · calculator · [\d.e-]+ s")
        person.wait_for(r"\b10\b")
        person.wait_for(r'<reply query="1" expert="calculator">')
        person.wait_for(r"\b10\b")
        person.wait_for(r"Turns left: 2")
        person.wait_for("> ")
        person.type("\\boxed{nothing}\n\n")
        person.wait_for(r"answer +nothing")
        person.wait_for(r"turns +2 of 3")
        person.wait_for(r"queries +1, of which 1 had a reply to read")
        person.wait_for(r"answered: not correct; the answer is \d+, reward 0")
        person.wait_for(r"mod 100")
        person.wait_for("> ")
        person.type("\x04")  # Ctrl-D
        assert child.wait(timeout=60) == 0


def test_a_person_behind_a_pipe(tiny_config: TrainConfig) -> None:
    words = "Easy.\n\\boxed{3}\n\n\\boxed{4}\n\n"
    problems = ("--problems", tiny_config.problems.source)
    done = eapo("play", *problems, "--episodes", "3", input=words, env=DUMB)
    shown = done.stdout
    assert done.returncode == 0
    assert "nobody can be asked about these problems" in done.stderr
    assert "answered: correct, reward 1" in shown
    assert "answered: not correct; the answer is 3, reward 0" in shown
    assert shown.count("Problem: p") == 3, "the input ends in the third episode"
    assert "of nobody: there is no expert for these problems" in shown


def test_a_refused_query_is_shown_as_such_and_a_terminal_executes_no_text() -> None:
    evil = "\x1b[2J[bold]\u202e"
    words = f"<consult><query>{evil}</query></consult>\n\n\\boxed{{{evil}}}\n\n"
    done = eapo("play", "--acceptance-rate", "0", "--seed", "1", input=words, env=DUMB)
    assert done.returncode == 0, done.stderr
    assert "query 1 · gate: refused" in done.stdout
    assert "no reply: refused by the gate" in done.stdout
    assert not {"\x1b", "\u202e"} & set(done.stdout)
    assert done.stdout.count(r"\x1b[2J[bold]\u202e") == 4, "turn, query, answering turn, answer"
    assert "queries      1, of which 0 had a reply to read" in done.stdout


def test_the_settings_of_problems_verifier_and_reward_hold(tmp_path: Path) -> None:
    """Answers in words, from another column, and a reward for the right format."""
    problems = tmp_path / "words.jsonl"
    problems.write_text('{"question": "Who?", "answer": "Marie Curie"}\n')
    settings = [
        'evaluation.problems.columns={"statement":"question"}',
        "evaluation.problems.answers=words",
        "verifier.kind=f1",
        "reward.format_reward=0.3",
        "experts=silent",
    ]
    play = ["play", "--problems", str(problems), *as_options(settings)]
    for answer, reward in (("Curie, Marie", "1"), ("Bohr", "0.3")):
        done = eapo(*play, input=f"\\boxed{{{answer}}}\n\n", env=DUMB)
        assert f"reward {reward}\n" in done.stdout


def test_a_policy_alone_is_told_that_it_may_only_answer() -> None:
    done = eapo("play", "--turns", "1", input="\\boxed{1}\n\n", env=DUMB)
    assert "write one turn, alone: answer with \\boxed{...}" in done.stdout


def test_a_setting_changes_what_a_model_reads(tiny_model: Path, tiny_config: TrainConfig) -> None:
    held_out = tiny_config.evaluation.problems.source
    chosen = ("rollout.wording=full", f"evaluation.problems.source={held_out}")
    options = [option for setting in chosen for option in ("--set", setting)]
    shown = succeed("play", "--model", tiny_model, "--turns", "1", *options)
    assert "Solve the problem below." in shown
    assert "Problem: q" in shown


def test_episodes_are_of_different_problems_and_a_seed_repeats_them() -> None:
    """Seed 3 once drew its first problem again."""
    told = []
    for seed in ("3", "3", "4"):
        words = "\\boxed{1}\n\n" * 20
        done = eapo("play", "--seed", seed, "--episodes", "20", input=words, env=DUMB)
        told.append(re.findall(r"Problem: (.+mod 100)", done.stdout))
    assert [len(set(problems)) for problems in told] == [20, 20, 20]
    assert told[0] == told[1] != told[2]
    done = eapo("play", "--seed", "-1", env=DUMB)
    assert (done.returncode, done.stderr) == (2, "eapo: seed must be at least 0, not -1\n")


def test_a_model_samples_the_same_problem_anew(tiny_model: Path, tmp_path: Path) -> None:
    """It guesses a digit: the same one ten times would be one in 10^9."""
    problems = tmp_path / "one.jsonl"
    problems.write_text('{"problem": "p", "answer": "3"}\n')
    played = ("play", "--model", tiny_model, "--problems", problems, "--turns", "1", "--seed", "1")
    answers = re.findall(r"^answer +(.+)$", succeed(*played, "--episodes", "10"), re.MULTILINE)
    assert len(answers) == 10
    assert len(set(answers)) > 1


@pytest.mark.parametrize(
    ("model", "read"), [("embedded", "There"), ("some/model", "There is nothing I c")]
)
def test_a_reply_is_cut_as_in_training(model: str, read: str) -> None:
    """The embedded model has a token a character, any other one for about four."""
    settings = ["rollout.limits.max_reply_tokens=5", "experts=meaningless", f"model.path={model}"]
    words = "<consult><query>?</query></consult>\n\n\\boxed{1}\n\n"
    done = eapo("play", *as_options(settings), input=words, env=DUMB)
    assert f"up to {len(read)} characters of it" in done.stdout
    assert f"│ {read}... [cut] " in done.stdout


@pytest.mark.parametrize("turns", ["1", "2"])
def test_a_model_plays_with_the_wording_it_was_trained_on(
    tiny_model: Path, tiny_config: TrainConfig, turns: str
) -> None:
    options = ("--problems", tiny_config.problems.source, "--turns", turns, "--seed", "1")
    shown = succeed("play", "--model", tiny_model, *options)
    assert ("ask 3, turns 2" in shown) == (turns == "2")
    assert "Solve the problem" not in shown
    assert re.search(r"(answered|turn_budget): (not )?correct", shown)
    assert re.search(r"policy · turn 1 · \d+ tokens", shown)
    counts = [int(count) for count in re.findall(r"policy · turn \d+ · (\d+) tokens", shown)]
    assert f"tokens       {sum(counts)} written" in shown
