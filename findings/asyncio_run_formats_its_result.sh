#!/usr/bin/env bash
# CPython 3.11 and 3.12 (seen with 3.11.7 and 3.12.1): asyncio.run writes its result out as text.
#
# A good guess: `asyncio.run(main())` costs nothing that grows with what `main` returns, since it
# only hands it on.
# Behaviour: in the main thread `asyncio.Runner` sets a handler of SIGINT that holds the main task,
# and afterwards asks for it with `signal.getsignal`. That tries to find the handler among the members
# of an enumeration; the error that says that it is none, which is dropped, holds the handler's repr,
# and so that of the task and of its result (of a data class, all of it): twice a run. Python 3.13
# looks up integers alone.
# Seen:
#   3.11.7: a result was written out 2 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 - <<'PY'
import asyncio
import sys


class Result:
    written = 0

    def __repr__(self):
        Result.written += 1
        return "Result()"


async def main():
    return Result()


asyncio.run(main())
print(f"{sys.version.split()[0]}: a result was written out {Result.written} times")
assert Result.written == 2 or sys.version_info >= (3, 13), "this finding is out of date"
assert Result.written == 0 or sys.version_info < (3, 13), "it is back"
PY
