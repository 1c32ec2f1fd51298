"""Three ways to run vLLM, compared: its engine in a thread, in the event loop, or in a process.

    python benchmarks/vllm_engine.py

For each: seconds to start, tokens per second (and per second of processor time, which other work on
the machine disturbs less) over ragged episodes (prompts of 16-200 and completions of 4-256 ids, all
asked for at once, per-request seeds, log-probabilities), how long the event loop was blocked (an
expert's reply waits as long), and milliseconds for new weights. `thread` is
`VLLMPolicy`; `loop` steps the same engine inside the event loop; `process` is vLLM's `AsyncLLM`.
Each runs in a separate interpreter. The model is small and fresh, in float32.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from completions import endless_tokenizer, ragged_work
from safetensors.torch import save_file
from shapes import SHAPES
from transformers import Qwen2ForCausalLM

from eapo_agents.policies import Sampling
from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy, _parameters

SETTINGS = VLLMEngine(dtype="float32", max_batch=256, max_context_tokens=512)
PERIOD_S = 0.02


class InThread:
    def __init__(self, folder: Path) -> None:
        self.policy = VLLMPolicy(folder, SETTINGS)

    async def complete(self, prompt: list[int], length: int, seed: int) -> int:
        done = await self.policy.complete(prompt, Sampling(max_tokens=length), seed)
        return len(done.token_ids)

    async def load(self, folder: Path) -> None:
        self.policy.load_weights(Qwen2ForCausalLM.from_pretrained(folder).state_dict())

    def close(self) -> None:
        self.policy.close()


class InLoop:
    def __init__(self, folder: Path) -> None:
        self.engine = SETTINGS.engine(str(folder))
        self.futures: dict[str, asyncio.Future[int]] = {}
        self.driver: asyncio.Task[None] | None = None

    async def complete(self, prompt: list[int], length: int, seed: int) -> int:
        from vllm.inputs import tokens_input

        name = str(seed)
        params = _parameters(Sampling(max_tokens=length), length, seed, [])
        self.engine.add_request(name, tokens_input(prompt), params)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.futures[name] = future
        if self.driver is None or self.driver.done():
            self.driver = asyncio.create_task(self._drive())
        return await future

    async def _drive(self) -> None:
        while self.futures:
            for output in self.engine.step():
                self.futures.pop(output.request_id).set_result(len(output.outputs[0].token_ids))
            await asyncio.sleep(0)

    async def load(self, folder: Path) -> None:
        weights = Qwen2ForCausalLM.from_pretrained(folder).state_dict()
        reload = {"weights_iterator": iter(weights.items())}
        self.engine.collective_rpc("reload_weights", kwargs=reload)
        self.engine.reset_prefix_cache()

    def close(self) -> None:
        self.engine.engine_core.shutdown()


class InProcess:
    def __init__(self, folder: Path) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**SETTINGS.arguments(str(folder), on_cpu=True))
        self.engine = AsyncLLM.from_engine_args(arguments)

    async def complete(self, prompt: list[int], length: int, seed: int) -> int:
        from vllm.inputs import tokens_input

        params = _parameters(Sampling(max_tokens=length), length, seed, [])
        async for output in self.engine.generate(tokens_input(prompt), params, str(seed)):
            count = len(output.outputs[0].token_ids)
        return count

    async def load(self, folder: Path) -> None:
        weights = Qwen2ForCausalLM.from_pretrained(folder).state_dict()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
            copies = {name: weight.clone() for name, weight in weights.items()}
            save_file(copies, Path(place) / "model.safetensors")
            await self.engine.collective_rpc("reload_weights", kwargs={"weights_path": place})
        await self.engine.reset_prefix_cache()

    def close(self) -> None:
        self.engine.shutdown()


KINDS: dict[str, Callable[[Path], Any]] = {"thread": InThread, "loop": InLoop, "process": InProcess}


@asynccontextmanager
async def stalls_s() -> AsyncIterator[list[float]]:
    """Yield a list that collects the event loop's wake-up delays, in seconds."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(PERIOD_S)
            found.append(time.perf_counter() - start - PERIOD_S)

    watcher = asyncio.create_task(watch())
    yield found
    watcher.cancel()


def cpu_s() -> float:
    """The processor time of this process and its children so far."""
    import psutil  # comes with vLLM

    me = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (me, *me.children(recursive=True)))


async def measure(kind: str, folder: Path, repeats: int) -> dict[str, float]:
    start = time.perf_counter()
    engine = KINDS[kind](folder)
    await engine.complete([5], 1, 1 << 40)
    started = time.perf_counter() - start
    work = ragged_work(256, np.random.default_rng(0))
    rates, cpu_rates, updates, waits = [], [], [], []
    for repeat in range(repeats + 1):  # the first one warms up
        async with stalls_s() as stalls:
            start, cpu_start = time.perf_counter(), cpu_s()
            numbered = enumerate(work, start=repeat << 20)
            lengths = await asyncio.gather(
                *(engine.complete(prompt, length, seed) for seed, (prompt, length) in numbered)
            )
            seconds, cpu = time.perf_counter() - start, cpu_s() - cpu_start
        assert lengths == [length for _, length in work]
        start = time.perf_counter()
        await engine.load(folder)
        if repeat:
            rates.append(sum(lengths) / seconds)
            cpu_rates.append(sum(lengths) / cpu)
            updates.append(time.perf_counter() - start)
            waits += stalls
    engine.close()
    return {
        "start s": started,
        "tokens/s": statistics.median(rates),
        "tokens per processor second": statistics.median(cpu_rates),
        "event loop waits, median ms": 1e3 * statistics.median(waits),
        "event loop waits, longest ms": 1e3 * max(waits),
        "new weights, ms": 1e3 * statistics.median(updates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=KINDS, help="measure this one, in this interpreter")
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(asyncio.run(measure(args.only, args.model, args.repeats))))
        return
    with tempfile.TemporaryDirectory() as folder:
        SHAPES["1M"].model().save_pretrained(folder)
        endless_tokenizer().save_pretrained(folder)
        found = {}
        for kind in KINDS:
            command = [sys.executable, __file__, "--only", kind, "--model", folder]
            command += ["--repeats", str(args.repeats)]
            quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "TORCH_COMPILE_DISABLE": "1"}
            result = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | quiet
            )
            found[kind] = json.loads(result.stdout.splitlines()[-1])
    print(f"torch {torch.__version__}\n| | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    for row in found["thread"]:
        print(f"| {row} | {' | '.join(f'{found[kind][row]:,.1f}' for kind in KINDS)} |")


if __name__ == "__main__":
    main()
