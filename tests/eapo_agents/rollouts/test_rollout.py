"""One episode of a rollout: what is recorded, limits, and that it plays the environment's game."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, repeat

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from written_rollout import CONSULT, PROBLEM, TOKENIZER, VERIFIER, Recording, echo, play, rollout

from eapo_agents.policies.characters import CHARACTERS, char_tokenizer
from eapo_agents.policies.policy import Completion, Sampling
from eapo_agents.rollouts.dynamic_sampling import Sampled
from eapo_agents.rollouts.rollout import TokenLimits
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.summary import step_metrics
from eapo_env.actions import Answer, Consult, Malformed, render_consult
from eapo_env.env import EAPOMathEnv
from eapo_env.experts import ErroneousExperts, ScriptedExperts, SilentExperts
from eapo_env.prompts import CUT_MARK, Prompts
from eapo_env.reward import Overlong, RewardRule
from eapo_env.types import Gate, Rules, StopReason

words = st.text(alphabet=sorted(set(CHARACTERS) - set("<>\\")), max_size=12)
consults = st.lists(words, min_size=1, max_size=4).map(lambda q: render_consult(Consult(tuple(q))))
answers = st.tuples(words, st.integers(0, 9)).map(lambda pair: f"{pair[0]} \\boxed{{{pair[1]}}}")
malformed = st.sampled_from(
    ["", "hm", "<consult>", "<consult></consult>", "\\boxed{7", "<reply>7</reply>", "</consult>"]
)
completions = st.lists(consults | answers | malformed, max_size=5)
all_rules = st.builds(
    Rules,
    turn_budget=st.integers(1, 4),
    acceptance_rate=st.sampled_from([0.0, 0.5, 1.0]),
    queries_per_turn=st.integers(0, 3),
)


@given(completions, all_rules, st.integers(0, 2**63 - 1), st.integers(20, 400))
@settings(max_examples=80, deadline=None)
def test_the_mask_covers_exactly_the_sampled_ids_and_prompts_only_grow(
    texts: list[str], rules: Rules, seed: int, max_response_tokens: int
) -> None:
    policy = Recording(texts)
    limits = TokenLimits(max_response_tokens=max_response_tokens)
    found = asyncio.run(rollout(policy, limits=limits).play(PROBLEM, rules, seed=seed))
    sampled = [token_id for _, completion in policy.calls for token_id in completion.token_ids]
    assert found.token_ids[found.mask].tolist() == sampled
    assert len(sampled) <= max_response_tokens
    assert (found.logprobs == np.where(found.mask, np.float32(-0.5), 0)).all()
    ends = [prompt + completion.token_ids for prompt, completion in policy.calls]
    for end, (prompt, _) in zip(ends, policy.calls[1:], strict=False):
        assert prompt[: len(end)] == end
        assert len(prompt) > len(end)
    assert tuple(found.token_ids.tolist())[: len(ends[-1])] == ends[-1]


@given(completions, all_rules, st.integers(0, 2**32), st.sampled_from(["pre", "post"]))
@settings(max_examples=80, deadline=None)
def test_a_rollout_plays_the_game_of_the_environment(
    texts: list[str], rules: Rules, seed: int, gate: Gate
) -> None:
    experts = ErroneousExperts(inner=ScriptedExperts(echo), error_rate=0.5)
    reward, prompts = RewardRule(consultation_penalty=0.125), Prompts.terse()
    made = gym.make(
        "EAPO-Math-v0",
        problems=(PROBLEM,),
        experts=experts,
        rules=rules,
        reward=reward,
        prompts=prompts,
        gate=gate,
        verifier=VERIFIER,
    )
    env = made.unwrapped
    assert isinstance(env, EAPOMathEnv)
    env.reset(seed=seed)
    earned, done, remaining = 0.0, False, chain(texts, repeat("\\boxed{0}"))
    while not done:
        _, earned, done, _, info = env.step(next(remaining))
    parts = {"experts": experts, "reward": reward, "gate": gate}
    player = rollout(Recording(texts), **parts)
    found = asyncio.run(player.play(PROBLEM, rules, seed=env.episode.seed))
    assert found.episode == env.episode
    assert (found.reward, found.correct) == (earned, info["correct"])


def test_a_box_in_an_experts_reply_is_not_the_policys_answer() -> None:
    experts = ScriptedExperts(lambda query: "It is \\boxed{7}. Answer: 7")
    found = play([CONSULT, "As they say.", "Right."], Rules(turn_budget=3), experts=experts)
    assert "\\boxed{7}" in found.episode.messages[2].content
    assert (found.status, found.correct, found.reward) == ("no_answer", False, 0.0)
    assert found.episode.stop_reason is StopReason.TURN_BUDGET


@pytest.mark.parametrize(
    ("text", "status", "reward"),
    [("\\boxed{7}", "correct", 1.0), ("\\boxed{8}", "wrong", 0.1), ("", "no_answer", 0.0)],
)
def test_the_verdict_makes_the_reward(text: str, status: str, reward: float) -> None:
    found = play([text], Rules.alone())
    assert (found.status, found.reward, found.correct) == (status, reward, status == "correct")


def test_only_what_the_policy_wrote_counts_as_overlong() -> None:
    rule = RewardRule(overlong=Overlong(limit=40, cushion=20))
    experts = ScriptedExperts(lambda query: "x" * 500)
    found = play([CONSULT, "\\boxed{7}"], experts=experts, reward=rule)
    # The consultation: <consult> \n, then 3 queries with 2 tags, newline and text, </consult>.
    written = 2 + 3 * 3 + len("first?second?third?") + 1 + len("B7}") + 1
    assert found.num_policy_tokens == written == 35
    assert found.reward == pytest.approx(1.0 - (35 - 20) / 20)


def test_a_completion_cut_for_length_truncates_and_a_used_up_budget_does_not() -> None:
    cut = play(["no end of thoughts"], limits=TokenLimits(max_response_tokens=7))
    assert cut.episode.stop_reason is StopReason.LENGTH
    assert cut.episode.messages[-1].content == "no end "
    assert [type(action) for action in cut.episode.actions] == [Malformed]
    assert (cut.status, cut.num_policy_tokens) == ("no_answer", 7)
    spent = play(["no", "no"], Rules(turn_budget=2))
    assert spent.episode.stop_reason is StopReason.TURN_BUDGET
    assert not spent.episode.stop_reason.truncated


def test_a_cut_turn_without_text_is_a_turn() -> None:
    """Its ids are special tokens, which have no text; the trajectory holds them."""
    policy = WritesSpecialTokens([])
    cut = asyncio.run(rollout(policy).play(PROBLEM, Rules(), seed=0))
    assert (cut.num_policy_tokens, cut.episode.turn) == (1, 1)
    assert (cut.episode.messages[-1].role, cut.episode.messages[-1].content) == ("assistant", "")
    assert cut.episode.stop_reason is StopReason.LENGTH


def test_an_answer_given_before_the_cut_counts() -> None:
    found = play(["\\boxed{7} or so, I think"], limits=TokenLimits(max_response_tokens=6))
    assert (found.episode.stop_reason, found.correct) == (StopReason.ANSWERED, True)


def test_all_turns_share_the_token_limit() -> None:
    first = len(TOKENIZER.encode(CONSULT))
    limits = TokenLimits(max_response_tokens=first + 3)
    found = play([CONSULT, "12345 \\boxed{7}"], limits=limits)
    assert found.episode.messages[-1].content == "123"
    assert found.episode.stop_reason is StopReason.LENGTH
    assert len(found.episode.consultations) == 1
    exact = play([CONSULT], limits=TokenLimits(max_response_tokens=first))
    assert (exact.episode.stop_reason, exact.episode.turn) == (StopReason.LENGTH, 1)


def test_a_full_context_truncates() -> None:
    opening = len(play(["\\boxed{7}"]).token_ids) - 4
    policy = Recording([CONSULT], max_context_tokens=opening + 60)
    found = asyncio.run(rollout(policy).play(PROBLEM, Rules(), seed=0))
    assert len(found.token_ids) > policy.max_context_tokens, "the replies do not fit"
    assert found.episode.stop_reason is StopReason.LENGTH
    assert (found.episode.turn, len(policy.calls)) == (1, 1)


def test_a_problem_longer_than_the_context_is_a_truncated_episode() -> None:
    policy = Recording([], max_context_tokens=5)
    group = asyncio.run(rollout(policy).play_group(PROBLEM, [Rules()] * 2, seed=0))
    assert [t.episode.stop_reason for t in group.trajectories] == [StopReason.LENGTH] * 2
    assert (policy.calls, group.num_policy_tokens) == ([], 0)
    metrics = step_metrics(Sampled(kept=(), played=(group,)))
    assert (metrics["truncation_rate"], metrics["call_rate_per_turn"]) == (1.0, 0.0)


def test_a_long_reply_is_cut_visibly() -> None:
    limits = TokenLimits(max_reply_tokens=5)
    found = play([CONSULT], limits=limits, experts=ScriptedExperts(lambda query: "x" * 50))
    assert f"<reply>xxxxx{CUT_MARK}</reply>" in found.episode.messages[2].content


def test_the_policy_reads_that_an_expert_is_missing_and_not_why() -> None:
    for experts, rate in ((SilentExperts("the server is on fire"), 1.0), (SilentExperts(), 0.0)):
        found = play([CONSULT], Rules(acceptance_rate=rate), experts=experts)
        assert found.episode.messages[2].content == "<reply>-</reply>\n" * 3 + "turns 3"


def test_consult_tags_are_mere_text_when_alone() -> None:
    found = play([f"{CONSULT} \\boxed{{7}}"], Rules.alone())
    assert found.episode.actions == (Answer("7"),)


@pytest.mark.parametrize("name", ["max_response_tokens", "max_reply_tokens"])
def test_limits_refuse_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        TokenLimits(**{name: 0})


R1_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("body", "status", "reward"),
    [
        ("maybe \\boxed{7}? Wait, let me check", "no_answer", 0.0),
        ("<consult><query>1?</query></consult> or \\boxed{7}", "no_answer", 0.0),
        ("it is 7.\n</think>\n\n\\boxed{7}", "correct", 1.0),
        ("maybe \\boxed{7}\n</think>\n\n\\boxed{6}", "wrong", 0.1),
    ],
)
def test_the_same_words_get_the_same_verdict_whoever_opened_the_thought(
    body: str, status: str, reward: float
) -> None:
    """vllm#13125, deepseek-ai/DeepSeek-R1#352: R1's template opens it, Qwen3's model does."""
    tokenizer = char_tokenizer()
    tokenizer.chat_template = R1_TEMPLATE
    opened = ScriptedPolicy(tokenizer, lambda *_: body)
    own = ScriptedPolicy(char_tokenizer(), lambda *_: f"<think>\n{body}")
    found = [
        asyncio.run(rollout(policy).play(PROBLEM, Rules.alone(), seed=1))
        for policy in (opened, own)
    ]
    for trajectory in found:
        assert (trajectory.status, trajectory.reward) == (status, reward)
    assert found[0].episode.messages[1:] == found[1].episode.messages[1:]
    assert found[0].mask.sum() == len(tokenizer.encode(body)) + 1


@given(completions, st.text(alphabet="<>/consulty \n", min_size=1, max_size=30), all_rules)
@settings(max_examples=80, deadline=None)
def test_what_an_engine_writes_after_the_end_of_a_consultation_is_dropped(
    texts: list[str], after: str, rules: Rules
) -> None:
    """An engine that resumes a request in the middle of a stop text does not see the text."""
    seed = 3
    expected = asyncio.run(rollout(Recording(texts)).play(PROBLEM, rules, seed=seed))
    found = asyncio.run(rollout(WritesOn(texts, after)).play(PROBLEM, rules, seed=seed))
    assert found == expected


class WritesSpecialTokens(Recording):
    """A policy that writes one id without text, and is cut off."""

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        ids = (TOKENIZER.pad_token_id,)
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == ""
        return Completion(token_ids=ids, logprobs=(-1.0,), finish="length")


class WritesOn(Recording):
    """A policy that goes on after a stop text, as far as `max_tokens` lets it."""

    def __init__(self, texts: list[str], after: str) -> None:
        super().__init__(texts)
        self._after = TOKENIZER.encode(after, add_special_tokens=False)

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        found = await super().complete(prompt_ids, sampling, seed)
        if not any(mark in TOKENIZER.decode(found.token_ids) for mark in sampling.stop):
            return found
        ids = (*found.token_ids, *self._after)
        logprobs = (*found.logprobs, *(-9.0 for _ in self._after))
        return Completion(token_ids=ids, logprobs=logprobs, finish="length")
