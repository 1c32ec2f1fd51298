"""A task and a generator are left open on the background loop at exit."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from eapo_env import event_loop

left_open: list[Any] = []


async def numbers() -> AsyncGenerator[int]:
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        print("closed")


async def sleeper() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        print("cancelled")


async def leave_things_open() -> int:
    generator = numbers()
    left_open.extend([generator, asyncio.create_task(sleeper())])
    await asyncio.sleep(0)
    return await anext(generator)


print(event_loop.run(leave_things_open()))
