"""Recording and replaying: a round trip, shared files, later runs, and files that are damaged."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, strategies as st
from programs import ENVIRONMENT
from recording import record

from eapo_env.experts import ExpertPool, ScriptedExperts, SilentExperts
from eapo_env.recordings import RecordingExperts, ReplayExperts
from eapo_env.testing import check_expert_pool
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

texts = st.text(st.characters(codec=None), max_size=20)
numbers = st.integers(0, 2)
queries = st.builds(Query, text=texts, statement=texts, seed=numbers, turn=numbers, slot=numbers)
replies = st.builds(Reply, texts, texts) | st.builds(Unavailable, texts, texts)


@dataclass(frozen=True)
class Table:
    """Experts that look the reply up."""

    replies: tuple[tuple[Query, ExpertReply], ...]

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        table = dict(self.replies)
        return [table[query] for query in queries]


def echo(query: Query) -> str:
    return f"{query.text}: {query.seed}/{query.turn}/{query.slot}"


def ask(pool: ExpertPool, *asked: Query) -> list[ExpertReply]:
    return list(asyncio.run(pool.ask(asked)))


@given(st.dictionaries(queries, replies, max_size=6), st.randoms(use_true_random=False))
def test_a_recording_is_replayed_reply_by_reply(
    table: dict[Query, ExpertReply], random: Random
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts.jsonl"
        asked = list(table)
        recorded = ask(RecordingExperts(Table(tuple(table.items())), path), *asked)
        assert recorded == list(table.values())
        random.shuffle(asked)
        assert ask(ReplayExperts(path), *asked) == [table[query] for query in asked]


def test_both_conform(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    asyncio.run(check_expert_pool(RecordingExperts(ScriptedExperts(echo), path)))
    asyncio.run(check_expert_pool(ReplayExperts(path)))


def test_a_replay_is_a_value_before_and_after_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    ask(RecordingExperts(ScriptedExperts(echo), path), Query(text="a"))
    pool = ReplayExperts(path)
    before = pickle.dumps(pool)
    replies = ask(pool, Query(text="a"))
    assert pickle.dumps(pool) == before
    assert pickle.loads(before) == pool
    assert ask(pickle.loads(before), Query(text="a")) == replies


def test_an_unknown_query_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    ask(RecordingExperts(ScriptedExperts(echo), path), Query(text="a", statement="p"))
    asked = [Query(text="a", statement="q"), Query(text="b", statement="p")]
    assert ask(ReplayExperts(path), *asked) == [Unavailable("not in the recording")] * 2


def test_another_slot_gets_one_of_the_replies_always_the_same(tmp_path: Path) -> None:
    path, turned = tmp_path / "experts.jsonl", tmp_path / "turned.jsonl"
    recorded = ask(
        RecordingExperts(ScriptedExperts(echo), path), *(Query(text="a", seed=s) for s in range(4))
    )
    turned.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    others = [Query(text="a", seed=seed) for seed in range(4, 60)]
    replayed = ask(ReplayExperts(path), *others)
    assert set(replayed) == set(recorded)
    assert ask(ReplayExperts(turned), *reversed(others)) == replayed[::-1]


def test_failures_are_recorded_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    ask(RecordingExperts(SilentExperts("asleep"), path), Query(text="a"))
    assert json.loads(path.read_text())["unavailable"] == "asleep"
    assert ask(ReplayExperts(path), Query(text="a")) == [Unavailable("asleep")]


def test_threads_and_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "experts.jsonl"
    other = subprocess.Popen([sys.executable, "-m", "recording", path, "0"], env=ENVIRONMENT)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(record, [path] * 3, range(1, 4)))
    assert other.wait() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({(line["seed"], line["turn"], line["slot"]) for line in lines}) == len(lines) == 240


@pytest.mark.parametrize("cut", [1, 2, 20, 150_000])
def test_a_later_run_goes_on_even_after_a_torn_line(tmp_path: Path, cut: int) -> None:
    path, long = tmp_path / "experts.jsonl", Query(text="a" * 200_000)
    pool = RecordingExperts(ScriptedExperts(lambda query: query.text[:1]), path)
    ask(pool, Query(text="b"))
    ask(pool, long)
    path.write_bytes(path.read_bytes()[:-cut])
    torn = cut > 1  # else only the end of the line is missing
    assert len(ask(ReplayExperts(path), Query(text="b"))) == 1
    ask(pool, Query(text="c"))
    found = ask(ReplayExperts(path), Query(text="b"), long, Query(text="c"))
    assert found[0] == Reply("scripted", "b")
    assert found[1] == (Unavailable("not in the recording") if torn else Reply("scripted", "a"))
    assert found[2] == Reply("scripted", "c")
    assert len(path.read_bytes().splitlines()) == (2 if torn else 3)


GOOD = {"text": "a", "statement": "", "seed": 0, "turn": 0, "slot": 0, "expert": "e", "reply": "r"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "7",
        "[]",
        '"text"',
        "{}",
        b"\xff\xfe",
        "[" * 100_000,
        json.dumps({**GOOD, "seed": "0"}),
        json.dumps({**GOOD, "reply": None}),
        json.dumps({**GOOD, "text": 7}),
        json.dumps({key: GOOD[key] for key in GOOD if key != "expert"}),
    ],
    ids=repr,
)
def test_a_malformed_line_is_an_error_that_names_it(tmp_path: Path, line: str | bytes) -> None:
    path = tmp_path / "experts.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(
        ValueError, match=r"experts\.jsonl, line 3(: not a recorded reply| is not JSON)"
    ):
        ask(ReplayExperts(path), Query(text="a"))


def test_solutions_of_whole_problems_are_named(tmp_path: Path) -> None:
    """What `eapo record-experts` writes."""
    path = tmp_path / "experts.jsonl"
    row = {"problem": "p", "sample": 0, "expert": "e", "text": "3", "status": "correct"}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"holds solutions .* eapo distill --recording"):
        ask(ReplayExperts(path), Query(text="a"))


def test_a_missing_recording_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no recording .*nowhere\.jsonl"):
        ask(ReplayExperts(tmp_path / "nowhere.jsonl"), Query(text="a"))


def test_a_repeated_identity_keeps_every_reply_a_candidate(tmp_path: Path) -> None:
    """Two runs with the same seeds record two replies to one question: both can be served."""
    path = tmp_path / "experts.jsonl"
    asked = [Query(text=str(n)) for n in range(40)]
    for expert in ("first", "second"):
        ask(RecordingExperts(ScriptedExperts(echo, names=(expert,)), path), *asked)
    replayed = ask(ReplayExperts(path), *asked)
    assert {reply.expert for reply in replayed} == {"first", "second"}
    assert ask(ReplayExperts(path), *asked) == replayed
