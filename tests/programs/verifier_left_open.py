"""A verifier in use when its process ends: `exit`, or `die` by SIGKILL."""

import os
import signal
import sys

from eapo_env.verifier import Verifier

verifier = Verifier()
assert verifier.verify([(r"\boxed{x+1}", "1+x")])[0].correct
print(verifier._pool._idle[0].process.pid, flush=True)
if sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
