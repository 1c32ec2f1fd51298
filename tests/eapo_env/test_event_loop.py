"""The background loop: from any thread, within a running loop, after a fork, under Ctrl-C."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from eapo_env import event_loop


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


def test_the_result_comes_back():
    assert event_loop.run(double(21)) == 42


def test_an_exception_comes_back():
    async def fail():
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        event_loop.run(fail())


def test_every_call_runs_on_the_same_loop_and_not_in_the_callers_thread():
    async def here():
        return asyncio.get_running_loop(), threading.current_thread()

    loop, thread = event_loop.run(here())
    assert event_loop.run(here()) == (loop, thread)
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_threads_wait_side_by_side():
    """Each of 8 threads waits for all the others: one after the other would wait for ever."""
    everybody = event_loop.run(_barrier(8))

    async def meet():
        await everybody.wait()
        return "met"

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: event_loop.run(meet()), range(8))) == ["met"] * 8


async def _barrier(parties):
    return asyncio.Barrier(parties)


def test_it_works_inside_a_running_loop():
    """As in a notebook, whose cells run inside a loop."""

    async def cell():
        return event_loop.run(double(4))

    assert asyncio.run(cell()) == 8


def test_waiting_for_itself_is_an_error_and_no_deadlock():
    async def inner():
        return event_loop.run(double(1))

    with pytest.raises(RuntimeError, match="await the coroutine"):
        event_loop.run(inner())


def _child(number, results):
    results.put((event_loop.run(double(number)), os.getpid()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_loop_of_its_own_and_the_parents_goes_on():
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


INTERRUPTED = """
import asyncio, os, signal, threading
from eapo_env import event_loop

cleaned_up = threading.Event()

async def interrupted():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    finally:
        cleaned_up.set()

async def after():
    return "and goes on"

try:
    event_loop.run(interrupted())
except KeyboardInterrupt:
    cleaned_up.wait()
    print("cancelled", event_loop.run(after()))
"""

EXITING = """
import asyncio
from eapo_env import event_loop

async def numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        print("closed")

async def sleeper():
    try:
        await asyncio.sleep(3600)
    finally:
        print("cancelled")

async def leave_things_open():
    global generator, task
    generator = numbers()
    task = asyncio.create_task(sleeper())
    await asyncio.sleep(0)
    return await anext(generator)

print(event_loop.run(leave_things_open()))
"""

FORKED_AND_EXITING = """
import os, sys
from eapo_env import event_loop

async def one():
    return 1

event_loop.run(one())
child = os.fork()
if child == 0:
    sys.exit(41 + event_loop.run(one()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), event_loop.run(one()))
"""


def _python(program):
    # From 3.12 on, a fork beside other threads warns; that it works here is what is tested.
    strict = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program]
    return subprocess.run(strict, capture_output=True, text=True, check=False)


def test_an_interrupt_cancels_the_coroutine_and_the_loop_goes_on():
    done = _python(INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled and goes on\n", "")


def test_at_exit_what_was_left_open_is_closed():
    done = _python(EXITING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\ncancelled\nclosed\n", "")


def test_a_child_that_exits_leaves_the_parents_loop_alone():
    done = _python(FORKED_AND_EXITING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42 1\n", "")


def test_the_interpreter_exits_while_a_thread_still_waits():
    done = _python(
        "import asyncio, threading\n"
        "from eapo_env import event_loop\n"
        "def wait():\n"
        "    try:\n"
        "        event_loop.run(asyncio.sleep(3600))\n"
        "    except BaseException as error:\n"
        "        print(type(error).__name__)\n"
        "thread = threading.Thread(target=wait, daemon=True)\n"
        "thread.start()\n"
        "thread.join(0.3)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
