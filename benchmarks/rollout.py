"""Overhead of the rollout: ids per second in the loop, beside the engine's own.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/rollout.py [--engine vllm]

The engine samples a length drawn for each turn from a fresh model, a small one or `--shape`; what
it wrote is then replaced by text that consults or answers and has as many ids, since a fresh model
does neither.
Alone: one turn an episode. Experts: up to four turns, each but the last consults with probability
0.6; each query takes lognormal time, and a turn asks one to three at once. Groups of 16, verified.

`loop` is `Rollout`, `raw` the same engine given all the same prompts, lengths and seeds at once,
and `lock-step` the same turns with a barrier after all completions and one after all replies. The
three take turns; medians. `floor` is the longest time that one episode spends waiting for experts:
no loop can be faster.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from completions import endless_tokenizer
from shapes import SHAPES
from transformers import PreTrainedTokenizerFast

from eapo_agents.policies import (
    Completion,
    HFPolicy,
    Policy,
    Sampling,
    char_tokenizer,
    with_fast_linears,
)
from eapo_agents.rollouts import Rollout, TokenLimits, derive_seed, gather
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import query_rng
from eapo_env.prompts import Prompts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules
from eapo_env.verifier import Verifier

GROUP = 16
CONSULT_RATE = 0.6
TOKENIZER = char_tokenizer()
Call = tuple[list[int], int, int]  # prompt ids, how many ids to sample, seed


@dataclass
class Shaped:
    """A policy whose ids an engine samples, with lengths and texts drawn here."""

    engine: Policy
    lengths: tuple[int, int]
    experts: bool
    calls: list[Call] = field(default_factory=list)
    tokenizer: PreTrainedTokenizerFast = TOKENIZER

    @property
    def max_context_tokens(self) -> int:
        return self.engine.max_context_tokens

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        rng = np.random.default_rng(seed)
        length = int(rng.integers(*self.lengths))
        self.calls.append((list(prompt_ids), length, seed))
        sampled = await self.engine.complete(prompt_ids, Sampling(max_tokens=length), seed)
        text = "\\boxed{7}"
        if self.experts and rng.random() < CONSULT_RATE:
            text = render_consult(Consult(tuple("3+4?" for _ in range(rng.integers(1, 4)))))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        ids = self.tokenizer.encode("x" * (length - len(ids)), add_special_tokens=False) + ids
        return Completion(token_ids=tuple(ids), logprobs=sampled.logprobs, finish="stop")

    def load_weights(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Slow:
    """Experts that take lognormal time, a function of the query; records how long each waited."""

    median_s: float
    sigma: float
    waits_s: dict[int, list[float]] = field(default_factory=dict)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        draws = [
            query_rng(query, 0).lognormal(np.log(self.median_s), self.sigma) for query in queries
        ]
        self.waits_s.setdefault(queries[0].seed, []).append(max(draws))
        await asyncio.sleep(max(draws))
        return [Reply("expert", "7") for _ in queries]


@dataclass(kw_only=True)
class Case:
    """Episodes to play; `play` fills in what the other two ways repeat."""

    policy: Shaped
    experts: Slow
    rules: Rules
    num_groups: int
    turns: list[list[Call]] = field(default_factory=list)

    async def loop(self) -> None:
        self.policy.calls.clear()
        self.experts.waits_s.clear()
        player = Rollout(
            policy=self.policy,
            experts=self.experts,
            verifier=Verifier(),
            prompts=Prompts.terse(),
            limits=TokenLimits(max_response_tokens=1 << 20),
        )
        groups = await gather(
            player.play_group(
                Problem(id=str(n), statement=f"{n:03d}: 3 + 4 = ?" + " " * 40, answer="7"),
                [self.rules] * GROUP,
                seed=derive_seed(n),
            )
            for n in range(self.num_groups)
        )
        seeds = [t.episode.seed for group in groups for t in group.trajectories]
        assert all(group.correct_G.any() for group in groups)
        by_seed = {call[2]: call for call in self.policy.calls}
        turn_seeds = [
            [s for n in range(self.rules.turn_budget) if (s := derive_seed(seed, 1, n)) in by_seed]
            for seed in seeds
        ]
        self.turns = [[by_seed[seed] for seed in episode] for episode in turn_seeds]

    async def raw(self) -> None:
        await self._complete([call for episode in self.turns for call in episode])

    async def lock_step(self) -> None:
        waits = list(self.experts.waits_s.values())
        for turn in range(self.rules.turn_budget):
            await self._complete([episode[turn] for episode in self.turns if turn < len(episode)])
            await asyncio.sleep(max((w[turn] for w in waits if turn < len(w)), default=0.0))

    async def _complete(self, calls: Sequence[Call]) -> None:
        done = await gather(
            self.policy.engine.complete(prompt, Sampling(max_tokens=length), seed)
            for prompt, length, seed in calls
        )
        assert [len(one.token_ids) for one in done] == [length for _, length, _ in calls]

    @property
    def num_tokens(self) -> int:
        return sum(length for episode in self.turns for _, length, _ in episode)

    @property
    def floor_s(self) -> float:
        return max((sum(waits) for waits in self.experts.waits_s.values()), default=0.0)


def engine_of(options: argparse.Namespace, folder: Path, context: int) -> Policy:
    model = SHAPES[options.shape].model().to(getattr(torch, options.dtype)).eval()
    tokenizer = endless_tokenizer()
    if options.engine == "hf":
        return HFPolicy(with_fast_linears(model), tokenizer, max_batch=options.max_batch)
    from eapo_agents.policies import VLLMEngine, VLLMPolicy

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    limits = {"max_batch": options.max_batch, "max_context_tokens": context}
    return VLLMPolicy(folder, VLLMEngine(dtype=options.dtype, **limits))


async def seconds(work: Coroutine[Any, Any, None]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def measure(name: str, case: Case, repeats: int) -> None:
    found: dict[str, list[float]] = {"loop": [], "raw": [], "lock-step": []}
    for repeat in range(repeats + 1):  # the first one warms up
        for way, work in zip(found, (case.loop, case.raw, case.lock_step), strict=True):
            took = await seconds(work())
            if repeat:
                found[way].append(took)
    loop, raw, lock = (statistics.median(values) for values in found.values())
    turns = sum(map(len, case.turns))
    print(
        f"| {name}, {GROUP * case.num_groups} episodes, {turns} turns, {case.num_tokens:,} ids"
        f" | {case.num_tokens / loop:,.0f} | {case.num_tokens / raw:,.0f} | {raw / loop:.2f}"
        f" | {lock / loop:.2f} | {case.floor_s:.1f} of {loop:.1f} |",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["hf", "vllm"], default="hf")
    parser.add_argument("--shape", choices=SHAPES, default="1M")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--max-batch", type=int, default=64, help="the engine's")
    parser.add_argument("--turn-ids", type=int, nargs=2, default=(100, 400), help="from, below")
    parser.add_argument("--latency", type=float, default=0.5, help="median seconds of a query")
    parser.add_argument("--sigma", type=float, default=0.6, help="of the lognormal")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    lengths = tuple(args.turn_ids)
    with tempfile.TemporaryDirectory() as folder:
        context = 4 * lengths[1] + 600
        engine = engine_of(args, Path(folder), context)
        print(
            f"{args.shape} in {args.dtype}, {args.engine}, at most {args.max_batch} rows, turns of"
            f" {lengths[0]} to {lengths[1]} ids, experts' median {args.latency} s (sigma"
            f" {args.sigma}), {os.cpu_count()} cores, {torch.get_num_threads()} threads, load"
            f" {os.getloadavg()[0]:.1f}\n"
            "| | loop, ids/s | raw, ids/s | loop / raw | lock-step / loop, time | floor, s |\n"
            "|---|---|---|---|---|---|"
        )
        for name, experts, rules in (
            ("alone", False, Rules.alone()),
            ("experts", True, Rules(turn_budget=4)),
        ):
            case = Case(
                policy=Shaped(engine, lengths, experts),
                experts=Slow(args.latency, args.sigma),
                rules=rules,
                num_groups=args.episodes // GROUP,
            )
            await measure(name, case, args.repeats)
        engine.close()


if __name__ == "__main__":
    asyncio.run(main())
