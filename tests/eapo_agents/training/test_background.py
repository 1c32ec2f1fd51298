"""A coroutine runs in another thread while this one goes on, and never outlives its context."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from eapo_agents.training.background import in_background


def test_both_sides_run_at_once() -> None:
    """Each waits for the other: neither would end alone."""
    here, there = threading.Event(), threading.Event()

    async def work() -> str:
        there.set()
        assert await asyncio.to_thread(here.wait, 60)
        return "done"

    with asyncio.Runner() as runner, in_background(runner, work()) as result:
        assert there.wait(60)
        here.set()
        assert result() == "done"


def test_what_it_computes_at_first_is_done_before_the_context_is_entered() -> None:
    rounds, asked = [], asyncio.Event()

    async def work() -> None:
        for number in range(20):
            time.sleep(0.005)  # computes
            rounds.append(number)
            await asyncio.sleep(0)
        await asked.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        with in_background(runner, work()) as result:
            assert len(rounds) == 20
            loop.call_soon_threadsafe(asked.set)
            result()


def test_one_that_never_waits_does_not_keep_the_context_waiting() -> None:
    entered = threading.Event()

    async def work() -> None:
        while not entered.is_set():
            time.sleep(0.002)
            await asyncio.sleep(0)

    with asyncio.Runner() as runner, in_background(runner, work()) as result:
        entered.set()
        result()


def test_what_the_coroutine_opened_on_the_loop_is_found_there_again() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with asyncio.Runner() as runner:
        before = runner.run(loop())
        for _ in range(2):
            with in_background(runner, loop()) as result:
                assert result() is before
        assert runner.run(loop()) is before


def test_its_error_is_raised_where_its_result_is_wanted() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    def wait() -> None:
        with asyncio.Runner() as runner, in_background(runner, fail()) as result:
            result()

    with pytest.raises(LookupError, match="gone"):
        wait()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_here_cancels_it_and_waits_for_its_end(error: type[BaseException]) -> None:
    began, ended = threading.Event(), []

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    def leave(runner: asyncio.Runner) -> None:
        with in_background(runner, endless()):
            assert began.wait(60)
            raise error

    with asyncio.Runner() as runner:
        with pytest.raises(error):
            leave(runner)
        assert ended == [True]


def test_it_may_be_left_before_it_has_begun_or_after_it_has_ended() -> None:
    async def nothing() -> None:
        pass

    with asyncio.Runner() as runner:
        for _ in range(50):
            with in_background(runner, nothing()):
                pass
        with in_background(runner, nothing()) as result:
            result()
        runner.run(asyncio.sleep(0))  # a late cancellation would hit this
