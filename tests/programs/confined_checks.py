"""A worker whose checks misbehave as the answer says: argument of each request."""

import os
import time

from eapo_env.verifier_worker import answer_requests


def check(answer: str, gold: str) -> bool:
    match answer:
        case "memory":
            bytearray(2**31)
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(60)
        case "write":
            open(gold, "w").close()
        case "crash":
            os.kill(os.getpid(), 11)
        case "recurse":
            return check(answer, gold)
    return answer == gold


answer_requests(check, cpu_s=0.4, memory_bytes=2**30, channel=1)
