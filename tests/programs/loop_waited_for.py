"""The interpreter exits while a thread waits for the background loop."""

import asyncio
import threading

from eapo_env import event_loop


def wait() -> None:
    try:
        event_loop.run(asyncio.sleep(3600))
    except BaseException as error:
        print(type(error).__name__)


thread = threading.Thread(target=wait, daemon=True)
thread.start()
thread.join(0.3)
