"""[edge] Slots for calls that the processes of one machine share: files, of which each is a lock.

A slot is taken by locking its file (`flock`) and freed by the end of the lock, also when the
process that holds it is killed. A slot that a process frees is left to the others for a moment:
without that, a process with many waiting calls would take its own slots again before any other saw
that they were free.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from eapo_env.validation import UserError

LOOK_AGAIN_S = 0.05
"""How soon to look again for slots that other processes have freed."""
_LEFT_TO_OTHERS_S = 0.1


class SharedSlots:
    """The slots of a server, of which this object holds some.

    Every object with the same folder and name shares them, in this process and in others. Forked
    children hold what their parent held until they end.

    Args:
        folder: on a disk of this machine; it is made if need be.
        name: what the slots are for.
        limit: the number of slots.
        clock: the time in seconds, from any origin.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(
        self, folder: str, name: str, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = Path(folder) / quote(name, safe="")
        self._limit = limit
        self._clock = clock
        self._held: dict[int, int] = {}
        self._freed_s: dict[int, float] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"shared_slots: {error}") from error

    def take(self) -> bool:
        """Take a slot; return whether one was free.

        Raises:
            UserError: the files cannot be opened or locked.
        """
        left = self._clock() - _LEFT_TO_OTHERS_S
        for slot in range(self._limit):
            may_be_free = slot not in self._held and self._freed_s.get(slot, left) <= left
            if may_be_free and (handle := self._locked(slot)) is not None:
                self._held[slot] = handle
                return True
        return False

    def free(self) -> None:
        """Free one of the slots held, if there are any."""
        if self._held:
            slot, handle = self._held.popitem()
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may hold the file open as well
            os.close(handle)
            self._freed_s[slot] = self._clock()

    def _locked(self, slot: int) -> int | None:
        """Return the open file of a slot that was free; None if it is taken."""
        try:
            handle = os.open(self._folder / f"{slot:04d}", os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise UserError(f"shared_slots: {error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return None
            raise UserError(f"shared_slots: {self._folder}: {error}") from error
        return handle
