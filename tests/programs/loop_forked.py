"""A forked child uses the loop and exits; the parent uses its own again."""

import os
import sys

from eapo_env import event_loop


async def one() -> int:
    return 1


event_loop.run(one())
child = os.fork()
if child == 0:
    sys.exit(41 + event_loop.run(one()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), event_loop.run(one()))
