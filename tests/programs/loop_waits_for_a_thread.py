"""A coroutine on the background loop waits for a thread at exit."""

import asyncio
import time
from threading import Event

from eapo_env import event_loop

begun = Event()


def block() -> None:
    begun.set()
    time.sleep(3600)


async def wait() -> None:
    try:
        await asyncio.to_thread(block)
    finally:
        print("cancelled")


event_loop.submit(wait())
begun.wait()
print("begun")
