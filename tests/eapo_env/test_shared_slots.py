"""Slots that processes share: real processes, one of which is killed while it holds all."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from programs import start_program
from stub_server import StubServer

from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.shared_slots import SharedSlots
from eapo_env.types import Query
from eapo_env.validation import UserError


@settings(max_examples=30)
@given(actions=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_no_more_slots_are_held_than_there_are(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[int, bool]]
) -> None:
    """Three holders take and free slots at random; the clock runs an hour between any two."""
    hours = iter(range(0, 10**9, 3600))
    folder = str(tmp_path_factory.mktemp("slots"))
    holders = [SharedSlots(folder, "a", 4, clock=lambda: float(next(hours))) for _ in range(3)]
    held = [0, 0, 0]
    for number, takes in actions:
        if takes:
            taken = holders[number].take()
            assert taken == (sum(held) < 4)
            held[number] += taken
        else:
            holders[number].free()
            held[number] -= held[number] > 0
    for number, holder in enumerate(holders):
        for _ in range(held[number]):
            holder.free()


def test_a_freed_slot_is_left_to_the_others_for_a_moment(tmp_path: Path) -> None:
    now = 0.0
    greedy, other = (SharedSlots(str(tmp_path), "a", 2, clock=lambda: now) for _ in range(2))
    assert [greedy.take(), greedy.take(), greedy.take(), other.take()] == [True, True, False, False]
    greedy.free()
    assert not greedy.take()
    assert other.take()
    greedy.free()
    now = 0.11
    assert greedy.take()
    for holder in (greedy, other):
        holder.free()


@contextmanager
def asking(*arguments: str | Path, number: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that ask experts, all from now on; those that are left are killed."""
    children = [
        start_program("asks_experts.py", *arguments, stdin=subprocess.PIPE) for _ in range(number)
    ]
    try:
        for child in children:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_processes_share_the_limit_of_a_server(tmp_path: Path) -> None:
    model = "delay:0.2"
    with (
        StubServer() as server,
        asking(server.url, model, tmp_path / "slots", "3", "6", number=3) as children,
    ):
        told = [child.communicate()[0] for child in children]
        assert server.max_live(model) == 3
    assert told == ["6\n"] * 3


def test_the_slots_of_a_killed_process_are_free(tmp_path: Path) -> None:
    with StubServer() as server, asking(server.url, "hang", tmp_path, "3", "3") as [victim]:
        server.wait_for("hang", 3)
        slots = SharedSlots(str(tmp_path), server.url, 3)
        assert not slots.take()
        with asking(server.url, "delay:0.02", tmp_path, "3", "9") as [heir]:
            victim.kill()
            assert heir.communicate()[0] == "9\n"
        assert server.max_live("delay:0.02") <= 3
        assert [slots.take() for _ in range(4)] == [True, True, True, False]
        for _ in range(3):
            slots.free()


def test_an_impossible_folder_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    endpoint = Endpoint(
        base_url="http://127.0.0.1:9/v1", models=["m"], shared_slots=str(tmp_path / "file")
    )
    with pytest.raises(UserError, match=r"shared_slots: .*file"):
        asyncio.run(OpenAIExperts(endpoints=[endpoint]).ask([Query(text="a")]))
