"""The background loop: from any thread, within a running loop, after a fork, under Ctrl-C."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from programs import run_program

from eapo_env import event_loop


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_the_result_comes_back() -> None:
    assert event_loop.run(double(21)) == 42


def test_an_exception_comes_back() -> None:
    async def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        event_loop.run(fail())


def test_every_call_runs_on_the_same_loop_and_not_in_the_callers_thread() -> None:
    async def here() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    loop, thread = event_loop.run(here())
    assert event_loop.run(here()) == (loop, thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_threads_wait_side_by_side() -> None:
    """Each of 8 threads waits for all the others: one after the other would wait for ever."""
    everybody = event_loop.run(_barrier(8))

    async def meet() -> str:
        await everybody.wait()
        return "met"

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: event_loop.run(meet()), range(8))) == ["met"] * 8


async def _barrier(parties: int) -> asyncio.Barrier:
    return asyncio.Barrier(parties)


def test_it_works_inside_a_running_loop() -> None:
    """As in a notebook, whose cells run inside a loop."""

    async def cell() -> int:
        return event_loop.run(double(4))

    assert asyncio.run(cell()) == 8


def test_waiting_for_itself_is_an_error_and_no_deadlock() -> None:
    async def inner() -> int:
        return event_loop.run(double(1))

    with pytest.raises(RuntimeError, match="await the coroutine"):
        event_loop.run(inner())


def test_a_blocked_loop_is_replaced_until_it_answers_again() -> None:
    blocked, released = threading.Event(), threading.Event()

    async def here() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def block() -> None:
        blocked.set()
        released.wait()

    usual = event_loop.run(here())
    blocking = event_loop.submit(block())
    blocked.wait()
    blocking.abandon_loop()
    other = event_loop.run(here())
    assert other is not usual
    assert event_loop.run(here()) is other
    released.set()
    blocking.future.result()
    assert event_loop.run(here()) is usual


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_coroutine_that_wants_to_exit_ends_itself_alone(error: type[BaseException]) -> None:
    async def leave() -> None:
        raise error

    other = event_loop.submit(asyncio.sleep(0.1, "goes on")).future
    with pytest.raises(error):
        event_loop.run(leave())
    assert other.result() == "goes on"
    assert event_loop.run(double(2)) == 4


def test_a_coroutine_cannot_stop_the_loop() -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)

    event_loop.run(stop())
    assert event_loop.run(double(2)) == 4


def test_a_coroutine_may_wait_for_a_thread() -> None:
    assert event_loop.run(asyncio.to_thread(threading.current_thread)).daemon
    with pytest.raises(ValueError, match="invalid literal"):
        event_loop.run(asyncio.to_thread(int, "x"))


def _child(number: int, results: Any) -> None:
    results.put((event_loop.run(double(number)), os.getpid()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_loop_of_its_own_and_the_parents_goes_on() -> None:
    assert event_loop.run(double(1)) == 2
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    children = [fork.Process(target=_child, args=(number, results)) for number in (10, 20)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    answers = dict(results.get() for _ in children)
    assert set(answers) == {20, 40}
    assert os.getpid() not in answers.values()
    assert event_loop.run(double(2)) == 4


def test_an_interrupt_cancels_the_coroutine_and_the_loop_goes_on() -> None:
    done = run_program("loop_interrupted.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled and goes on\n", "")


def test_at_exit_what_was_left_open_is_closed() -> None:
    done = run_program("loop_left_open.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\ncancelled\nclosed\n", "")


def test_at_exit_no_thread_is_waited_for() -> None:
    done = run_program("loop_waits_for_a_thread.py", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\ncancelled\n", "")


def test_a_child_that_exits_leaves_the_parents_loop_alone() -> None:
    # From 3.12 on, a fork beside other threads warns; that it works here is what is tested.
    done = run_program("loop_forked.py", options=("-W", "ignore::DeprecationWarning"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "42 1\n", "")


def test_the_interpreter_exits_while_a_thread_still_waits() -> None:
    done = run_program("loop_waited_for.py")
    assert (done.returncode, done.stderr) == (0, "")
