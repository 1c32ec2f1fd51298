"""Two pools of experts are asked at the address of the argument and left open at exit."""

import asyncio
import sys

from eapo_env import event_loop
from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.types import ExpertReply, Query


async def rollout() -> list[ExpertReply]:
    pool = OpenAIExperts(endpoints=[Endpoint(base_url=sys.argv[1], models=["echo"])])
    return list(await pool.ask([Query(text="a")]))


print(len(asyncio.run(rollout())), len(event_loop.run(rollout())))
