"""Asks the experts of a server: URL MODEL FOLDER LIMIT QUERIES; prints how many replied.

It says when it is ready, and begins once it reads a line. All processes that name the folder share
the limit on live calls.
"""

import asyncio
import sys

import openai  # noqa: F401  # loaded before it says that it is ready

from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.types import Query, Reply

url, model, folder, limit, num_queries = sys.argv[1:]
endpoint = Endpoint(
    base_url=url, models=[model], max_live_calls=int(limit), shared_slots=folder, max_retries=0
)
pool = OpenAIExperts(endpoints=[endpoint])
print("ready", flush=True)
input()
replies = asyncio.run(pool.ask([Query(text="a")] * int(num_queries)))
print(sum(isinstance(reply, Reply) for reply in replies))
