"""Serve the embedded model behind the OpenAI interface on a free port of loopback; print it."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from eapo_agents.policies import (
    HFPolicy,
    ModelSettings,
    PolicyChat,
    Sampling,
    Truncation,
    load_model,
)
from eapo_env.types import Message

app = FastAPI()
model, tokenizer = load_model(ModelSettings())
chat = PolicyChat(HFPolicy(model, tokenizer))


@app.post("/v1/chat/completions")
async def complete(body: dict[str, Any]) -> dict[str, Any]:
    turn = await chat.write(
        [Message(role=m["role"], content=m["content"]) for m in body["messages"]],
        Sampling(
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            stop=tuple(body.get("stop") or ()),
            truncation=Truncation(
                top_p=body["top_p"], top_k=body.get("top_k", -1), min_p=body.get("min_p", 0.0)
            ),
        ),
        body["seed"],
    )
    message = {"role": "assistant", "content": turn.text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": turn.finish}],
        "usage": {"prompt_tokens": 1, "completion_tokens": turn.num_tokens, "total_tokens": 1},
    }


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
