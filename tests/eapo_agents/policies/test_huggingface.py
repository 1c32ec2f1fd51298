"""The embedded policy on tiny models: the same ids in any company, honest log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from asked import Asked, together
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.decoding import StopTable, draw, slots_after
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.policy import Completion, Sampling
from eapo_agents.policies.slot_cache import grouped_sdpa
from eapo_agents.testing import check_policy
from eapo_env.validation import UserError

TOKENIZER = char_tokenizer()
END = TOKENIZER.eos_token_id
SIZES = {
    "vocab_size": 112,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
    # Far from uniform, so that a wrong position or a wrong neighbour changes what is drawn.
    "initializer_range": 0.3,
}


def tiny_model(kind: str = "qwen2", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    match kind:
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))
        case _:
            return LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 4}))


def policy_of(kind: str = "qwen2", *, seed: int = 0, max_batch: int = 64) -> HFPolicy:
    return HFPolicy(tiny_model(kind, seed), TOKENIZER, max_batch=max_batch)


def ask(number: int, *, temperature: float = 1.0, stop: tuple[str, ...] = ()) -> Asked:
    """A request of its own: prompts of 1 to 40 ids, completions of up to 2 to 50."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(4, 109, rng.integers(1, 41)).tolist()
    length = int(rng.integers(2, 51))
    return prompt, Sampling(max_tokens=length, temperature=temperature, stop=stop), number


@cache
def drawn_alone(number: int) -> Completion:
    return together(policy_of(), [ask(number)])[0]


def same(one: Completion, other: Completion) -> bool:
    return (
        one.token_ids == other.token_ids
        and one.finish == other.finish
        and np.allclose(one.logprobs, other.logprobs, atol=1e-4)
    )


@torch.no_grad()
def teacher_forced(
    model: PreTrainedModel, prompt: Sequence[int], done: Completion, t: float
) -> Sequence[float]:
    ids = torch.tensor([[*prompt, *done.token_ids]])
    logp = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1] / t, dim=-1)
    return logp[torch.arange(len(done.token_ids)), torch.tensor(done.token_ids)].tolist()


@contextmanager
def forward_shapes(model: PreTrainedModel) -> Iterator[list[tuple[int, ...]]]:
    """Collect the shape of the ids of each forward pass."""
    shapes: list[tuple[int, ...]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, args: shapes.append(tuple(args[0].shape))
    )
    yield shapes
    hook.remove()


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_policy_keeps_the_protocol(kind: str) -> None:
    asyncio.run(check_policy(policy_of(kind), TOKENIZER.encode("2 + 3")))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_what_a_seed_samples_does_not_depend_on_the_company(kind: str) -> None:
    asked = [ask(number, stop=("</consult>", "7")) for number in range(24)]
    policy = policy_of(kind)
    alone = [together(policy, [request])[0] for request in asked]
    assert len({completion.finish for completion in alone}) == 2
    crowd = together(policy, asked)
    assert all(map(same, alone, crowd))
    backwards = together(policy, asked[::-1])[::-1]
    assert all(map(same, alone, backwards))
    one_by_one = together(policy_of(kind, max_batch=3), asked)
    assert all(map(same, alone, one_by_one))


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 30)), min_size=1, max_size=12),
    st.integers(1, 6),
)
@settings(max_examples=15, deadline=None)
def test_joining_in_any_step_changes_nothing(
    arrivals: list[tuple[int, int]], max_batch: int
) -> None:
    policy = policy_of(max_batch=max_batch)

    async def late(number: int, steps: int) -> Completion:
        for _ in range(steps):
            await asyncio.sleep(0)
        return await policy.complete(*ask(number))

    async def run() -> list[Completion]:
        return await asyncio.gather(*(late(*arrival) for arrival in arrivals))

    for (number, _), completion in zip(arrivals, asyncio.run(run()), strict=True):
        assert same(completion, drawn_alone(number))


def test_the_same_requests_in_the_same_order_give_the_same_floats() -> None:
    asked = [ask(number) for number in range(20)]
    one, other = (together(policy_of(max_batch=6), asked) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_logprobs_are_the_models_own(kind: str, temperature: float) -> None:
    asked = [ask(number, temperature=temperature) for number in range(12)]
    policy = policy_of(kind)
    model = tiny_model(kind).eval()
    for (prompt, _, _), done in zip(asked, together(policy, asked), strict=True):
        expected = teacher_forced(model, prompt, done, temperature or 1.0)
        np.testing.assert_allclose(done.logprobs, expected, atol=1e-4)


def test_greedy_is_transformers_own_greedy() -> None:
    model = tiny_model().eval()
    prompt = TOKENIZER.encode("Solve 12 * 34")
    expected = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=30, eos_token_id=END, pad_token_id=0
    )[0, len(prompt) :].tolist()
    asked = [(prompt, Sampling(max_tokens=30, temperature=0.0), 5), ask(1), ask(2)]
    assert list(together(HFPolicy(model, TOKENIZER), asked)[0].token_ids) == expected


def test_a_group_shares_one_prefill_and_gets_what_each_gets_alone() -> None:
    model = tiny_model()
    policy = HFPolicy(model, TOKENIZER)
    prompt, other = TOKENIZER.encode("Solve 12 * 34"), TOKENIZER.encode("and 5")
    asked = [(prompt, Sampling(max_tokens=20), seed) for seed in range(8)]
    asked += [(other, Sampling(max_tokens=20), seed) for seed in range(8)]
    with forward_shapes(model) as shapes:
        group = together(policy, asked)
    assert [shape for shape in shapes if shape[1] > 1] == [(2, len(prompt) - 1)]
    assert len({completion.token_ids for completion in group}) == 16
    assert all(
        same(done, together(policy, [one])[0]) for done, one in zip(group, asked, strict=True)
    )


def test_rows_that_have_drawn_the_same_ids_are_computed_as_one() -> None:
    model = tiny_model()
    prompt = TOKENIZER.encode("Solve 12 * 34")
    asked = [(prompt, Sampling(max_tokens=12, temperature=0.2), seed) for seed in range(16)]
    with forward_shapes(model) as shapes:
        group = [done.token_ids for done in together(HFPolicy(model, TOKENIZER), asked)]
    unfinished = [[ids[:count] for ids in group if len(ids) > count] for count in range(12)]
    histories = [len(set(some)) for some in unfinished]
    assert [rows for rows, width in shapes if width == 1] == histories
    assert histories[:2] == [1, 1]
    assert sum(histories) < sum(map(len, group)) / 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=14))
def test_histories_get_the_first_slots_and_none_is_copied_over(sources: list[int]) -> None:
    source = np.sort(np.array(sources))
    target = slots_after(source)
    assert sorted(target) == list(range(len(source)))
    moved = source != target
    assert not set(target[moved]) & set(source)
    assert set(source[~moved]) == {old for old in sources if old < len(sources)}


def test_finished_rows_leave_the_batch() -> None:
    model = tiny_model()
    asked = [(TOKENIZER.encode("abc"), Sampling(max_tokens=n), n) for n in (3, 9, 6)]
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    with forward_shapes(model) as shapes:
        together(HFPolicy(model, tokenizer), asked)
    assert [rows for rows, width in shapes if width == 1] == [1] + [3] * 2 + [2] * 3 + [1] * 3


def test_a_stop_text_may_span_ids_and_is_kept() -> None:
    policy = policy_of()
    prompt, seed = TOKENIZER.encode("abc"), 3
    known = together(policy, [(prompt, Sampling(max_tokens=40), seed)])[0]
    text = TOKENIZER.decode(known.token_ids[10:13])
    asked = (prompt, Sampling(max_tokens=40, stop=("never there", text)), seed)
    done = together(policy, [asked, ask(1), ask(2)])[0]
    assert done.finish == "stop"
    assert done.token_ids == known.token_ids[:13]


def test_a_stop_text_may_be_spelt_in_bytes() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    table = StopTable(tiny_model(), tokenizer)
    ids = np.array([tokenizer.encode("no, é: né")])
    stops = np.array([table.index(("né",))])
    hits = [table.hit(ids, np.array([count]), stops)[0] for count in range(1, ids.shape[1] + 1)]
    assert hits == [False] * (ids.shape[1] - 1) + [True]


def test_a_sampled_end_of_turn_is_kept_and_ends_the_turn() -> None:
    asked = [(TOKENIZER.encode("abc"), Sampling(max_tokens=100), seed) for seed in range(30)]
    ended = [done for done in together(policy_of(), asked) if END in done.token_ids]
    assert ended
    for done in ended:
        assert done.finish == "stop"
        assert done.token_ids.index(END) == len(done.token_ids) - 1


def test_a_full_context_ends_for_length_and_a_prompt_without_room_is_refused() -> None:
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    policy = HFPolicy(tiny_model(), tokenizer, max_context_tokens=20)
    done = together(policy, [([5] * 15, Sampling(max_tokens=50), 0)])[0]
    assert (len(done.token_ids), done.finish) == (5, "length")
    for prompt in ([], [5] * 20):
        with pytest.raises(ValueError, match="prompt"):
            together(policy, [(prompt, Sampling(max_tokens=50), 0)])


def test_cancelling_frees_the_row_and_disturbs_nobody() -> None:
    policy = policy_of(max_batch=3)
    asked = [ask(number) for number in range(6)]

    async def run() -> list[Completion | BaseException]:
        tasks = [asyncio.create_task(policy.complete(*request)) for request in asked]
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[1].cancel()  # among the rows
        tasks[5].cancel()  # among the waiting
        return await asyncio.gather(*tasks, return_exceptions=True)

    for number, outcome in enumerate(asyncio.run(run())):
        if number in (1, 5):
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert isinstance(outcome, Completion)
            assert same(outcome, drawn_alone(number))


def test_a_cancelled_row_costs_no_further_step() -> None:
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    model = tiny_model()
    policy = HFPolicy(model, tokenizer)
    prompt, sampling = TOKENIZER.encode("abc"), Sampling(max_tokens=10)

    async def run() -> None:
        doomed, other = (
            asyncio.create_task(policy.complete(prompt, sampling, seed)) for seed in (1, 2)
        )
        while len(shapes) < 4:  # a prefill and three steps
            await asyncio.sleep(0)
        doomed.cancel()
        await other

    with forward_shapes(model) as shapes:
        asyncio.run(run())
    rows = [rows for rows, width in shapes if width == 1]
    assert rows[:3] == [1, 2, 2]
    assert rows[-6:] == [1] * 6
    assert len(rows) == 10


def test_an_event_loop_that_ends_early_leaves_a_usable_policy() -> None:
    policy = policy_of()
    expected = together(policy, [ask(1)])[0]

    async def leave() -> None:
        for number in range(5):
            asyncio.ensure_future(policy.complete(*ask(number)))  # noqa: RUF006
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert same(together(policy, [ask(1)])[0], expected)


def test_loaded_weights_are_the_ones_that_sample() -> None:
    policy, other = policy_of(seed=0), policy_of(seed=1)
    before = together(policy, [ask(1)])[0]
    weights = tiny_model(seed=1).state_dict()
    expected = together(other, [ask(1)])[0]
    assert expected.token_ids != before.token_ids
    policy.load_weights({name: w for name, w in weights.items() if name != "lm_head.weight"})
    assert together(policy, [ask(1)])[0] == expected


def test_weights_that_do_not_fit_are_refused() -> None:
    weights = tiny_model().state_dict()
    with pytest.raises(ValueError, match=r"unknown \['stray'\]"):
        policy_of().load_weights({**weights, "stray": torch.zeros(1)})
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"missing \['model\.norm\.weight'\]"):
        policy_of().load_weights(weights)


def test_weights_cannot_change_under_a_completion() -> None:
    policy = policy_of()

    async def run() -> None:
        task = asyncio.create_task(policy.complete(*ask(1)))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="1 completions in progress"):
            policy.load_weights(tiny_model().state_dict())
        await task

    asyncio.run(run())


def test_the_learners_module_is_used_in_place() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True, attention_dropout=0.5))
    policy = HFPolicy(model, TOKENIZER)
    model.train()
    model.load_state_dict(tiny_model(seed=1).state_dict())
    assert together(policy, [ask(1)])[0] == together(policy_of(seed=1), [ask(1)])[0]
    assert model.training
    assert model.config._attn_implementation == "sdpa"


def test_spoilt_weights_are_an_error_for_everyone_who_waits_and_leave_nothing_behind() -> None:
    policy = policy_of(max_batch=2)
    good = tiny_model().state_dict()
    spoilt = {name: torch.full_like(weight, torch.nan) for name, weight in good.items()}
    policy.load_weights(spoilt)

    async def run() -> list[Completion | BaseException]:
        prompt = [5] * 60
        asked = [policy.complete(prompt, Sampling(max_tokens=5), seed) for seed in range(4)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(outcome, ValueError) for outcome in asyncio.run(run()))
    policy.load_weights(good)
    longest_last = sorted(range(8), key=lambda number: len(ask(number)[0]))
    outcomes = together(policy, [ask(number) for number in longest_last])
    assert all(map(same, outcomes, map(drawn_alone, longest_last)))


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_batch"):
        policy_of(max_batch=0)
    with pytest.raises(ValueError, match="161"):
        HFPolicy(tiny_model(), TOKENIZER, max_context_tokens=161)


WINDOW = 32


def windowed(family: str) -> PreTrainedModel:
    """Return a fresh model with a sliding window in all layers, or in some."""
    torch.manual_seed(0)
    sizes = SIZES | {"initializer_range": 0.3, "sliding_window": WINDOW}
    match family:
        case "Mistral":
            return MistralForCausalLM(MistralConfig(**sizes)).eval()
        case _:
            config = Gemma3TextConfig(
                **sizes,
                head_dim=16,
                layer_types=["sliding_attention", "full_attention"],
                query_pre_attn_scalar=16,
            )
            return Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize("family", ["Mistral", "Gemma3"])
def test_a_window_bounds_the_context(family: str, caplog: pytest.LogCaptureFixture) -> None:
    """Up to there it computes what a model without a window would: its own log-probabilities."""
    model = windowed(family)
    policy = HFPolicy(model, TOKENIZER)
    assert policy.max_context_tokens == WINDOW
    assert f"a window of {WINDOW} tokens" in caplog.text
    assert HFPolicy(model, TOKENIZER, max_context_tokens=20).max_context_tokens == 20
    with pytest.raises(UserError, match=r"=33 is more than .* window of 32 tokens; engine.kind=v"):
        HFPolicy(model, TOKENIZER, max_context_tokens=WINDOW + 1)
    prompts = [[5, 6, 7], [5] * 12]
    asked = [(prompt, Sampling(max_tokens=WINDOW), seed) for seed, prompt in enumerate(prompts)]
    for (prompt, _, _), completion in zip(asked, together(policy, asked), strict=True):
        assert len(prompt) + len(completion.token_ids) <= WINDOW
        own = teacher_forced(model, prompt, completion, 1.0)
        np.testing.assert_allclose(completion.logprobs, own, atol=1e-4)


def test_layers_that_are_no_attention_and_sinks_are_refused() -> None:
    model = tiny_model()
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UserError, match=r"not \['linear_attention'\]; engine.kind=vllm"):
        HFPolicy(model, TOKENIZER)
    query = torch.zeros(1, 2, 1, 8)
    with pytest.raises(UserError, match=r"attention has sinks: engine.kind=vllm"):
        grouped_sdpa(model, query, query, query, None, s_aux=torch.zeros(2))


def test_draw_inverts_the_cumulative_distribution() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.0, 0.7])).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.09, 0.11, 0.31, 0.999], dtype=torch.float64)
    ids, logprobs = draw(logits, torch.ones(5, dtype=torch.float64), uniforms)
    assert ids.tolist() == [0, 0, 1, 3, 3]
    np.testing.assert_allclose(logprobs.exp(), [0.1, 0.1, 0.2, 0.7, 0.7], rtol=1e-5)


def test_draw_takes_the_temperature_of_each_row() -> None:
    logits = torch.log(torch.tensor([0.2, 0.8])).repeat(3, 1)
    temperature = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    ids, logprobs = draw(logits, temperature, torch.full((3,), 0.1, dtype=torch.float64))
    # At temperature 1/2 the odds are squared: 0.04 to 0.64, that is 1/17 to 16/17.
    assert ids.tolist() == [0, 1, 1]
    np.testing.assert_allclose(logprobs.exp(), [0.2, 16 / 17, 0.8], rtol=1e-5)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=20), st.floats(0.1, 3.0))
@settings(deadline=None)
def test_draw_has_the_law_of_the_softmax(logits: list[float], temperature: float) -> None:
    num_draws = 400
    uniforms = (torch.arange(num_draws, dtype=torch.float64) + 0.5) / num_draws
    rows = torch.tensor(logits).repeat(num_draws, 1)
    ids, _ = draw(rows, torch.full((num_draws,), temperature, dtype=torch.float64), uniforms)
    share = np.bincount(ids.numpy(), minlength=len(logits)) / num_draws
    law = torch.softmax(torch.tensor(logits, dtype=torch.float64) / temperature, -1).numpy()
    np.testing.assert_allclose(share, law, atol=1.001 / num_draws + 1e-6)
