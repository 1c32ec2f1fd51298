"""An interrupt cancels the coroutine that is waited for; the loop goes on."""

import asyncio
import os
import signal
import threading

from eapo_env import event_loop

cleaned_up = threading.Event()


async def interrupted() -> None:
    await asyncio.sleep(0.2)  # until the main thread waits for this coroutine
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    finally:
        cleaned_up.set()


async def after() -> str:
    return "and goes on"


try:
    event_loop.run(interrupted())
except KeyboardInterrupt:
    cleaned_up.wait()
    print("cancelled", event_loop.run(after()))
