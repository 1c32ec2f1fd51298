"""A worker whose checks misbehave as the answer says: confined_checks.py WALL_SECONDS."""

import os
import sys
import time

from eapo_env.verifier_worker import answer_requests


def check(answer: str, gold: str) -> bool:
    match answer:
        case "memory":
            bytearray(2**31)
        case "spin":
            while time.process_time() < 2:
                pass
            return True
        case "sleep":
            time.sleep(10)
            return True
        case "write":
            open(gold, "w").close()
        case "crash":
            os.kill(os.getpid(), 11)
        case "recurse":
            return check(answer, gold)
    return answer == gold


answer_requests(check, cpu_s=0.4, wall_s=float(sys.argv[1]), memory_bytes=2**30, channel=1)
