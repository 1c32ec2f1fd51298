from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from eapo_agents.char_tokenizer import char_tokenizer
from eapo_agents.hf_sampling import Truncations, truncated
from eapo_agents.learner import Learner, LearnerSettings
from eapo_agents.policy import Completion, Sampling, check_policy
from eapo_agents.sync_probe import SyncProbe
from eapo_agents.truncation import Truncation
from eapo_agents.vllm_engine import VLLMSettings
from eapo_agents.vllm_policy import VLLMPolicy

SETTINGS = VLLMSettings(dtype="float32", max_batch=32, cache_bytes=32 << 20)
PROMPT = [5 + number % 90 for number in range(100)]
LONG = 4000
Asked = tuple[Sequence[int], Sampling, int]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def tied(request: pytest.FixtureRequest) -> bool:
    """Whether input and output embeddings are one."""
    return bool(request.param)


def llama(*, tied: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    tokenizer = char_tokenizer()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=LONG + 100,
            initializer_range=0.1,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@pytest.fixture(scope="module")
def folder(tied: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    llama(tied=tied).save_pretrained(place)
    char_tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def shared_policy(folder: Path) -> Iterator[VLLMPolicy]:
    policy = VLLMPolicy(folder, SETTINGS)
    yield policy
    policy.close()


@pytest.fixture
def model(tied: bool) -> PreTrainedModel:
    return llama(tied=tied).eval()


@pytest.fixture
def policy(shared_policy: VLLMPolicy, model: PreTrainedModel) -> VLLMPolicy:
    """The engine with the weights it was made from."""
    shared_policy.load_weights(model.state_dict())
    return shared_policy


def changed(model: PreTrainedModel, seed: int = 1, scale: float = 0.05) -> PreTrainedModel:
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return other


def learner_of(model: PreTrainedModel, temperature: float = 1.0) -> Learner:
    settings = LearnerSettings(device="cpu", temperature=temperature)
    return Learner(copy.deepcopy(model), settings=settings)


def ask(number: int, *, stop: tuple[str, ...] = ()) -> Asked:
    """A request of its own: prompts of 1 to 80 ids, completions of up to 2 to 40."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(4, 109, rng.integers(1, 81)).tolist()
    return prompt, Sampling(max_tokens=int(rng.integers(2, 41)), stop=stop), number


def together(policy: VLLMPolicy, asked: Sequence[Asked]) -> list[Completion]:
    async def run() -> list[Completion]:
        return await asyncio.gather(*(policy.complete(*request) for request in asked))

    return asyncio.run(run())


@torch.no_grad()
def gap(model: PreTrainedModel, asked: Asked, done: Completion) -> float:
    """The largest difference of the model's and the policy's log-probabilities."""
    prompt, sampling, _ = asked
    ids = torch.tensor([[*prompt, *done.token_ids]])
    logits = model(ids).logits[0, len(prompt) - 1 : -1] / (sampling.temperature or 1.0)
    chosen = torch.tensor(done.token_ids)[:, None]
    logp = torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]
    return float((logp - torch.tensor(done.logprobs)).abs().max())


def test_the_policy_keeps_the_protocol(policy: VLLMPolicy) -> None:
    asyncio.run(check_policy(policy, policy.tokenizer.encode("2 + 3")))


def test_what_a_seed_samples_does_not_depend_on_the_company(policy: VLLMPolicy) -> None:
    asked = [ask(number, stop=("</consult>", "7")) for number in range(48)]
    alone = [together(policy, [request])[0] for request in asked]
    assert {completion.finish for completion in alone} == {"stop", "length"}
    for crowd in (together(policy, asked), together(policy, asked[::-1])[::-1]):
        assert [one.token_ids for one in alone] == [one.token_ids for one in crowd]
        assert [one.finish for one in alone] == [one.finish for one in crowd]
        for one, other in zip(alone, crowd, strict=True):
            assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprobs_are_the_models(
    policy: VLLMPolicy, model: PreTrainedModel, temperature: float
) -> None:
    sampling = Sampling(max_tokens=40, temperature=temperature)
    asked = [(PROMPT[: 10 * n + 1], sampling, n) for n in range(8)]
    for request, done in zip(asked, together(policy, asked), strict=True):
        assert gap(model, request, done) < 1e-4


@pytest.mark.parametrize(
    "truncation",
    [Truncation(top_p=0.6), Truncation(top_k=7), Truncation(top_p=0.8, top_k=40, min_p=0.05)],
    ids=str,
)
def test_truncated_logprobs_are_those_of_transformers(
    policy: VLLMPolicy, model: PreTrainedModel, truncation: Truncation
) -> None:
    """Both give those of what could be drawn: an id that the other could not would have -inf."""
    temperature = 0.8
    sampling = Sampling(max_tokens=40, temperature=temperature, truncation=truncation)
    asked = [(PROMPT[: 10 * n + 1], sampling, n) for n in range(8)]
    limits = truncation.top_p, truncation.top_k, truncation.min_p
    drawn = set()
    for (prompt, _, _), done in zip(asked, together(policy, asked), strict=True):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *done.token_ids]])
            logp_TV = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        rows = Truncations(*(torch.tensor([limit] * len(logp_TV)) for limit in limits))
        chosen = torch.tensor(done.token_ids)[:, None]
        expected = truncated(logp_TV, rows).gather(1, chosen)[:, 0]
        np.testing.assert_allclose(done.logprobs, expected, atol=1e-4)
        drawn |= set(done.token_ids)
    assert len(drawn) > 10


def test_a_temperature_that_vllm_would_change_is_refused(policy: VLLMPolicy) -> None:
    with pytest.raises(ValueError, match=r"at least 0\.01, not 0\.001"):
        together(policy, [(PROMPT, Sampling(max_tokens=2, temperature=0.001), 0)])


def test_an_id_that_the_model_does_not_know_spoils_nobody_elses_completion(
    policy: VLLMPolicy,
) -> None:
    async def run() -> list[Completion | BaseException]:
        prompts = ([128], [100_000], PROMPT)
        return await asyncio.gather(
            *(policy.complete(prompt, Sampling(max_tokens=8), 0) for prompt in prompts),
            return_exceptions=True,
        )

    beyond, far_beyond, good = asyncio.run(run())
    assert isinstance(far_beyond, ValueError)
    assert isinstance(beyond, ValueError)
    assert isinstance(good, Completion)


def test_the_stop_text_ends_the_completion_and_is_kept(policy: VLLMPolicy) -> None:
    [close] = policy.tokenizer.encode("</consult>")
    asked = [
        (PROMPT, Sampling(max_tokens=100, stop=("</consult>",)), number) for number in range(64)
    ]
    done = together(policy, asked)
    stopped = [one for one in done if close in one.token_ids]
    assert len(stopped) > 4
    assert all(one.finish == "stop" for one in stopped)
    assert all(one.token_ids.index(close) == len(one.token_ids) - 1 for one in stopped)
    assert all(len(one.logprobs) == len(one.token_ids) for one in stopped)


def test_new_weights_are_in_the_next_completion(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    asked = [(PROMPT, Sampling(max_tokens=40), number) for number in range(8)]
    before = together(policy, asked)
    other = changed(model)
    policy.load_weights(other.state_dict())
    after = together(policy, asked)
    assert [one.token_ids for one in before] != [one.token_ids for one in after]
    for request, old, new in zip(asked, before, after, strict=True):
        assert gap(other, request, new) < 1e-4
        assert gap(other, request, old) > 0.1
    policy.load_weights(model.state_dict())
    assert [one.token_ids for one in together(policy, asked)] == [one.token_ids for one in before]


def test_tied_weights_may_be_named_once(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    other = changed(model)
    policy.load_weights(dict(other.named_parameters()))
    request = (PROMPT, Sampling(max_tokens=40), 0)
    assert gap(other, request, together(policy, [request])[0]) < 1e-4


def test_weights_that_do_not_fit_are_refused(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    state = model.state_dict()
    norm = state.pop("model.norm.weight")
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['model.norm.weight'\]"):
        policy.load_weights(state)
    with pytest.raises(ValueError, match=r"unknown \['what.weight'\], missing \[\]"):
        policy.load_weights(state | {"model.norm.weight": norm, "what.weight": norm})


def test_weights_are_refused_while_completions_are_under_way(
    policy: VLLMPolicy, model: PreTrainedModel
) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(policy.complete(PROMPT, Sampling(max_tokens=100), 0))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="1 completions under way"):
            policy.load_weights(model.state_dict())
        await task

    asyncio.run(run())


def test_the_prefix_cache_serves_a_group_and_the_next_turn(policy: VLLMPolicy) -> None:
    def cached(asked: Sequence[Asked]) -> tuple[list[Completion], int]:
        before = policy.num_cached_tokens
        return together(policy, asked), policy.num_cached_tokens - before

    sampling = Sampling(max_tokens=40)
    group, hits = cached([(PROMPT, sampling, seed) for seed in range(8)])
    assert hits == 7 * 96  # 100 ids are three whole blocks of 32, computed once
    longest = max(group, key=lambda one: len(one.token_ids))
    turn = [*PROMPT, *longest.token_ids, *PROMPT[:10]]
    _, hits = cached([(turn, sampling, 0)])
    assert hits >= (100 + len(longest.token_ids) - 1) // 32 * 32 > 96


def test_the_cache_is_dropped_with_the_weights(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    together(policy, [(PROMPT, Sampling(max_tokens=2), 0)])
    policy.load_weights(model.state_dict())
    before = policy.num_cached_tokens
    together(policy, [(PROMPT, Sampling(max_tokens=2), 0)])
    assert policy.num_cached_tokens == before


def test_cancelling_aborts_in_the_engine(policy: VLLMPolicy) -> None:
    """Four completions of thousands of ids are cancelled: the engine never comes to their ends.

    The likeliest ids of a random model go round in a circle and never end by themselves.
    """
    known = together(policy, [(PROMPT, Sampling(max_tokens=60), 0)])[0]
    before = policy.num_prompt_tokens

    async def run() -> Completion:
        long = Sampling(max_tokens=LONG, temperature=0.0)
        doomed = [asyncio.ensure_future(policy.complete([5 + n], long, n)) for n in range(4)]
        kept = asyncio.ensure_future(policy.complete(PROMPT, Sampling(max_tokens=60), 0))
        async with asyncio.timeout(120):
            while not policy._engine.get_num_unfinished_requests():
                await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        await asyncio.wait(doomed)
        assert all(task.cancelled() for task in doomed)
        async with asyncio.timeout(120):
            done = await kept
            while policy._engine.get_num_unfinished_requests():
                await asyncio.sleep(0)
        return done

    assert asyncio.run(run()).token_ids == known.token_ids
    assert policy.num_prompt_tokens - before == len(PROMPT)  # which counts what came to its end


def test_a_loop_that_dies_leaves_nothing_behind(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    async def abandon() -> None:
        for seed in range(16):
            asyncio.ensure_future(policy.complete(PROMPT, Sampling(max_tokens=150), seed))  # noqa: RUF006
        await asyncio.sleep(0.02)

    asyncio.run(abandon())
    policy.load_weights(model.state_dict())
    assert not policy._engine.has_unfinished_requests()
    request = (PROMPT, Sampling(max_tokens=10), 0)
    assert gap(model, request, together(policy, [request])[0]) < 1e-4


def test_a_policy_serves_one_loop_at_a_time(policy: VLLMPolicy) -> None:
    async def inner() -> None:
        await policy.complete(PROMPT, Sampling(max_tokens=2), 0)

    async def outer() -> None:
        task = asyncio.ensure_future(policy.complete(PROMPT, Sampling(max_tokens=100), 0))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="one event loop at a time"):
            await asyncio.to_thread(asyncio.run, inner())
        await task

    asyncio.run(outer())


def test_the_probe_passes_a_right_hand_over(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    other = changed(model)
    policy.load_weights(other.state_dict())
    assert asyncio.run(SyncProbe(tolerance=1e-4).check(policy, learner_of(other, 0.7))) < 1e-4


@pytest.mark.parametrize("part", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", ""])
def test_the_probe_refuses_a_wrong_hand_over(
    policy: VLLMPolicy, model: PreTrainedModel, part: str
) -> None:
    """A part of the weights (all of them for "") is still that of the model before."""
    other = changed(model)
    stale = {name: weight for name, weight in model.state_dict().items() if name.startswith(part)}
    policy.load_weights(other.state_dict() | stale)
    with pytest.raises(
        RuntimeError, match=r"log-probability -.*, the learner -.*tolerance is 0.01"
    ):
        asyncio.run(SyncProbe().check(policy, learner_of(other)))


def test_the_probe_refuses_old_keys_and_values(policy: VLLMPolicy, model: PreTrainedModel) -> None:
    """The weights are new, but the cache was not dropped (as `reload_weights` alone leaves it)."""
    probe, other = SyncProbe(), changed(model)
    asyncio.run(probe.check(policy, learner_of(model)))
    reload = {"weights_iterator": iter(other.state_dict().items())}
    policy._thread.submit(policy._engine.collective_rpc, "reload_weights", kwargs=reload).result()
    with pytest.raises(RuntimeError, match="does not sample from the learner's weights"):
        asyncio.run(probe.check(policy, learner_of(other)))


def test_the_process_keeps_its_luck_and_its_threads(folder: Path) -> None:
    threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    VLLMPolicy(folder, SETTINGS).close()
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert (torch.get_num_threads(), torch.set_num_threads) == (threads, set_num_threads)


@pytest.mark.parametrize(
    "wrong",
    [{"max_batch": 0}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        VLLMSettings(**wrong)
