"""vLLM in process: honest log-probabilities, the same ids in any company, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from asked import Asked, gap, together
from tiny_llama import saved
from transformers import PreTrainedModel

from eapo_agents.policies.decoding import Truncations, truncated
from eapo_agents.policies.policy import Completion, Sampling, Truncation
from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy
from eapo_agents.testing import check_policy

PROMPT = [5 + number % 90 for number in range(100)]
LONG = 4000


def ask(number: int, *, stop: tuple[str, ...] = ()) -> Asked:
    """A request of its own: prompts of 1 to 80 ids, completions of up to 2 to 40."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(4, 109, rng.integers(1, 81)).tolist()
    return prompt, Sampling(max_tokens=int(rng.integers(2, 41)), stop=stop), number


def test_the_policy_keeps_the_protocol(vllm: VLLMPolicy) -> None:
    asyncio.run(check_policy(vllm, vllm.tokenizer.encode("2 + 3")))


def test_what_a_seed_samples_does_not_depend_on_the_company(vllm: VLLMPolicy) -> None:
    asked = [ask(number, stop=("</consult>", "7")) for number in range(48)]
    alone = [together(vllm, [request])[0] for request in asked]
    assert {completion.finish for completion in alone} == {"stop", "length"}
    for crowd in (together(vllm, asked), together(vllm, asked[::-1])[::-1]):
        assert [one.token_ids for one in alone] == [one.token_ids for one in crowd]
        assert [one.finish for one in alone] == [one.finish for one in crowd]
        for one, other in zip(alone, crowd, strict=True):
            assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprobs_are_the_models(
    vllm: VLLMPolicy, llama: PreTrainedModel, temperature: float
) -> None:
    sampling = Sampling(max_tokens=40, temperature=temperature)
    asked = [(PROMPT[: 10 * n + 1], sampling, n) for n in range(8)]
    for request, done in zip(asked, together(vllm, asked), strict=True):
        assert gap(llama, request, done) < 1e-4


@pytest.mark.parametrize(
    "truncation",
    [Truncation(top_p=0.6), Truncation(top_k=7), Truncation(top_p=0.8, top_k=40, min_p=0.05)],
    ids=str,
)
def test_truncated_logprobs_are_those_of_transformers(
    vllm: VLLMPolicy, llama: PreTrainedModel, truncation: Truncation
) -> None:
    """Both give those of what could be drawn: an id that the other could not would have -inf."""
    temperature = 0.8
    sampling = Sampling(max_tokens=40, temperature=temperature, truncation=truncation)
    asked = [(PROMPT[: 10 * n + 1], sampling, n) for n in range(8)]
    limits = truncation.top_p, truncation.top_k, truncation.min_p
    drawn = set()
    for (prompt, _, _), done in zip(asked, together(vllm, asked), strict=True):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *done.token_ids]])
            logp_TV = (llama(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        rows = Truncations(*(torch.tensor([limit] * len(logp_TV)) for limit in limits))
        chosen = torch.tensor(done.token_ids)[:, None]
        expected = truncated(logp_TV, rows).gather(1, chosen)[:, 0]
        np.testing.assert_allclose(done.logprobs, expected, atol=1e-4)
        drawn |= set(done.token_ids)
    assert len(drawn) > 10


def test_a_temperature_that_vllm_would_change_is_refused(vllm: VLLMPolicy) -> None:
    with pytest.raises(ValueError, match=r"in \[0\.01, 2\.0\], not 0\.001"):
        together(vllm, [(PROMPT, Sampling(max_tokens=2, temperature=0.001), 0)])


def test_an_id_that_the_model_does_not_know_spoils_nobody_elses_completion(
    vllm: VLLMPolicy,
) -> None:
    async def run() -> list[Completion | BaseException]:
        prompts = ([128], [100_000], PROMPT)
        return await asyncio.gather(
            *(vllm.complete(prompt, Sampling(max_tokens=8), 0) for prompt in prompts),
            return_exceptions=True,
        )

    beyond, far_beyond, good = asyncio.run(run())
    assert isinstance(far_beyond, ValueError)
    assert isinstance(beyond, ValueError)
    assert isinstance(good, Completion)


def test_the_stop_text_ends_the_completion_and_is_kept(vllm: VLLMPolicy) -> None:
    [close] = vllm.tokenizer.encode("</consult>")
    asked = [
        (PROMPT, Sampling(max_tokens=100, stop=("</consult>",)), number) for number in range(64)
    ]
    done = together(vllm, asked)
    stopped = [one for one in done if close in one.token_ids]
    assert len(stopped) > 4
    assert all(one.finish == "stop" for one in stopped)
    assert all(one.token_ids.index(close) == len(one.token_ids) - 1 for one in stopped)
    assert all(len(one.logprobs) == len(one.token_ids) for one in stopped)


def test_the_prefix_cache_serves_a_group_and_the_next_turn(vllm: VLLMPolicy) -> None:
    def cached(asked: Sequence[Asked]) -> tuple[list[Completion], int]:
        before = vllm.num_cached_tokens
        return together(vllm, asked), vllm.num_cached_tokens - before

    sampling = Sampling(max_tokens=40)
    group, hits = cached([(PROMPT, sampling, seed) for seed in range(8)])
    assert hits == 7 * 96  # 100 ids are three whole blocks of 32, computed once
    longest = max(group, key=lambda one: len(one.token_ids))
    turn = [*PROMPT, *longest.token_ids, *PROMPT[:10]]
    _, hits = cached([(turn, sampling, 0)])
    assert hits >= (100 + len(longest.token_ids) - 1) // 32 * 32 > 96


def test_cancelling_aborts_in_the_engine(vllm: VLLMPolicy) -> None:
    """Four completions of thousands of ids are cancelled: the engine never comes to their ends.

    The likeliest ids of a random model go round in a circle and never end by themselves.
    """
    known = together(vllm, [(PROMPT, Sampling(max_tokens=60), 0)])[0]
    before = vllm.num_prompt_tokens

    async def run() -> Completion:
        long = Sampling(max_tokens=LONG, temperature=0.0)
        doomed = [asyncio.ensure_future(vllm.complete([5 + n], long, n)) for n in range(4)]
        kept = asyncio.ensure_future(vllm.complete(PROMPT, Sampling(max_tokens=60), 0))
        async with asyncio.timeout(120):
            while not vllm._engine.get_num_unfinished_requests():
                await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        await asyncio.wait(doomed)
        assert all(task.cancelled() for task in doomed)
        async with asyncio.timeout(120):
            done = await kept
            while vllm._engine.get_num_unfinished_requests():
                await asyncio.sleep(0)
        return done

    assert asyncio.run(run()).token_ids == known.token_ids
    assert vllm.num_prompt_tokens - before == len(PROMPT)  # which counts what came to its end


def test_a_loop_that_dies_leaves_nothing_behind(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    async def abandon() -> None:
        for seed in range(16):
            asyncio.ensure_future(vllm.complete(PROMPT, Sampling(max_tokens=150), seed))  # noqa: RUF006
        await asyncio.sleep(0.02)

    asyncio.run(abandon())
    vllm.load_weights(llama.state_dict())
    assert not vllm._engine.has_unfinished_requests()
    request = (PROMPT, Sampling(max_tokens=10), 0)
    assert gap(llama, request, together(vllm, [request])[0]) < 1e-4


def test_a_policy_serves_one_loop_at_a_time(vllm: VLLMPolicy) -> None:
    async def inner() -> None:
        await vllm.complete(PROMPT, Sampling(max_tokens=2), 0)

    async def outer() -> None:
        task = asyncio.ensure_future(vllm.complete(PROMPT, Sampling(max_tokens=100), 0))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="one event loop at a time"):
            await asyncio.to_thread(asyncio.run, inner())
        await task

    asyncio.run(outer())


def test_the_process_keeps_its_luck_and_its_threads(llama: PreTrainedModel, tmp_path: Path) -> None:
    folder = saved(llama, tmp_path)
    threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    VLLMPolicy(folder, VLLMEngine(dtype="float32", cache_bytes=32 << 20)).close()
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert (torch.get_num_threads(), torch.set_num_threads) == (threads, set_num_threads)


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch": 0}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        VLLMEngine(**wrong)
