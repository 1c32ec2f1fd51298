"""Experts who answer when so many episodes ask at the same time, and never before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from eapo_env.types import ExpertReply, Query, Reply


class Crowd:
    cooperative: ClassVar[bool] = True

    def __init__(self, size: int) -> None:
        self.size, self.asking = size, 0
        self.complete = asyncio.Event()

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        self.asking += 1
        if self.asking == self.size:
            self.complete.set()
        await self.complete.wait()
        return [Reply("one of many", "3") for _ in queries]
