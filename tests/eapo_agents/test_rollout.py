"""Rollouts: what is recorded, that they play the environment's game, who waits for whom, luck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eapo_agents.char_tokenizer import CHARACTERS, char_tokenizer
from eapo_agents.dynamic_sampling import DynamicSampling, Sampled
from eapo_agents.policy import Completion, Sampling, ScriptedPolicy
from eapo_agents.rollout import Rollout, TokenLimits, derive_seed, gather
from eapo_agents.summary import step_metrics
from eapo_agents.trajectory import Group, Trajectory
from eapo_env.actions import Answer, Consult, Malformed, render_consult
from eapo_env.env import EAPOMathEnv
from eapo_env.episode import begin
from eapo_env.experts import ErroneousExperts, ScriptedExperts, SilentExperts
from eapo_env.prompts import CUT_MARK, Prompts
from eapo_env.reward import Overlong, RewardRule
from eapo_env.types import ExpertReply, Gate, Problem, Query, Reply, Rules, StopReason
from eapo_env.verifier import Verifier

TOKENIZER = char_tokenizer()
VERIFIER = Verifier()  # only whole numbers are checked here: it starts no process
PROBLEM = Problem(id="p", statement="3 + 4 = ?", answer="7")
CONSULT = render_consult(Consult(("first?", "second?", "third?")))


class Recording:
    """A policy that writes texts in order, then answers, and remembers every call."""

    def __init__(self, texts: Iterable[str], max_context_tokens: int = 1 << 20) -> None:
        endless = chain(texts, repeat("\\boxed{0}"))
        self._inner = ScriptedPolicy(
            TOKENIZER, lambda *_: next(endless), max_context_tokens=max_context_tokens
        )
        self.tokenizer = TOKENIZER
        self.max_context_tokens = max_context_tokens
        self.calls: list[tuple[tuple[int, ...], Completion]] = []

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        completion = await self._inner.complete(prompt_ids, sampling, seed)
        self.calls.append((tuple(prompt_ids), completion))
        return completion

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        pass


def echo(query: Query) -> str:
    return f"{query.text} is 12"


def rollout(policy: Any, **changes: Any) -> Rollout:
    parts = {"experts": ScriptedExperts(echo), "verifier": VERIFIER, "prompts": Prompts.terse()}
    return Rollout(policy=policy, **{**parts, **changes})


def play(texts: Iterable[str], rules: Rules | None = None, **changes: Any) -> Trajectory:
    return asyncio.run(rollout(Recording(texts), **changes).play(PROBLEM, rules or Rules(), seed=1))


def within(coroutine: Awaitable[Any]) -> Any:
    """Run a coroutine that never ends where something waits that should not."""

    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, timeout=60)

    return asyncio.run(limited())


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
    [("\\boxed{7}", "correct", 1.0), ("\\boxed{8}", "wrong", 0.0), ("", "no_answer", 0.0)],
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


# --- many episodes at once


@dataclass
class Meeting:
    """Experts that answer once this many calls are waiting together."""

    size: int

    def __post_init__(self) -> None:
        self._barrier = asyncio.Barrier(self.size)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        await self._barrier.wait()
        return [Reply("expert", "7")] * len(queries)


def consult_first(prompt: str, rng: np.random.Generator) -> str:
    return "\\boxed{7}" if "<reply>" in prompt else CONSULT


def test_the_expert_calls_of_all_episodes_overlap() -> None:
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first), experts=Meeting(32))
    groups = within(gather(player.play_group(PROBLEM, [Rules()] * 8, seed=n) for n in range(4)))
    assert all(group.correct_G.all() for group in groups)


class OneSlot(Recording):
    """A policy that completes one prompt at a time."""

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        async with self.slot:
            return await super().complete(prompt_ids, sampling, seed)

    slot = asyncio.Semaphore(1)


def test_an_episode_that_waits_for_an_expert_leaves_the_policy_to_the_others() -> None:
    others_done = asyncio.Event()

    class Slow:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            await others_done.wait()
            return [Reply("expert", "7")] * len(queries)

    async def both() -> tuple[Trajectory, Trajectory]:
        player = rollout(OneSlot([CONSULT]), experts=Slow())
        waiting = asyncio.create_task(player.play(PROBLEM, Rules(), seed=0))
        await asyncio.sleep(0)  # it comes first, and so is the one that consults
        other = await player.play(PROBLEM, Rules(), seed=1)
        assert not waiting.done()
        others_done.set()
        return await waiting, other

    waited, other = within(both())
    assert [waited.episode.turn, other.episode.turn] == [2, 1]


def test_an_error_ends_the_others_and_comes_as_itself() -> None:
    asked, cancelled, all_asked = [], [], asyncio.Event()

    class Broken:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            asked.append(queries[0].seed)
            if len(asked) == 6:
                all_asked.set()
            if queries[0].seed != first:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(queries[0].seed)
                    raise
            await all_asked.wait()
            raise LookupError("a bug in the pool") from KeyError("its cause")

    first = derive_seed(derive_seed(5), 0)
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first), experts=Broken())
    groups = [player.play_group(PROBLEM, [Rules()] * 3, seed=derive_seed(n)) for n in (5, 6)]
    with pytest.raises(LookupError, match="a bug in the pool") as caught:
        within(gather(groups))
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(cancelled) == 5


def test_a_pool_that_loses_replies_is_an_error() -> None:
    class Forgetful:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            return [Reply("expert", "7")]

    with pytest.raises(ValueError, match="1 replies to 3 queries"):
        play([CONSULT], experts=Forgetful())


def test_a_group_shares_its_problem_and_nothing_else() -> None:
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first))
    rules = [Rules(acceptance_rate=0.5)] * 32
    group = asyncio.run(player.play_group(PROBLEM, rules, seed=3))
    accepted = [t.episode.consultations[0].accepted for t in group.trajectories]
    assert {t.episode.problem for t in group.trajectories} == {PROBLEM}
    assert len({t.episode.seed for t in group.trajectories}) == 32
    assert set(map(len, accepted)) == {3}
    assert len(set(accepted)) == 8, "every outcome of three draws occurs"
    assert 30 <= sum(map(sum, accepted)) <= 66  # 48 expected, 4 standard deviations of 4.9


def test_each_member_plays_by_its_own_rules() -> None:
    rules = (Rules.alone(), Rules(turn_budget=2), Rules(turn_budget=3))
    group = asyncio.run(rollout(Recording([])).play_group(PROBLEM, rules, seed=0))
    assert tuple(t.episode.rules for t in group.trajectories) == rules


def test_the_result_does_not_depend_on_who_is_fast() -> None:
    class Dawdling:
        def __init__(self, luck: int) -> None:
            self.luck = np.random.default_rng(luck)

        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            await asyncio.sleep(float(self.luck.random()) * 0.02)
            return [Reply("expert", str(query.slot)) for query in queries]

    def write(prompt: str, rng: np.random.Generator) -> str:
        return CONSULT if rng.random() < 0.6 else f"\\boxed{{{rng.integers(6, 8)}}}"

    def group(luck: int) -> Group:
        player = rollout(ScriptedPolicy(TOKENIZER, write), experts=Dawdling(luck))
        return asyncio.run(player.play_group(PROBLEM, [Rules(acceptance_rate=0.5)] * 12, seed=9))

    first, *others = [group(luck) for luck in range(3)]
    assert first.has_signal
    assert any(t.episode.consultations for t in first.trajectories)
    assert all(first == other for other in others)


def test_seeds_are_a_function_of_their_key() -> None:
    keys = [(a, b) for a in range(40) for b in range(40)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)


# --- dynamic sampling


def made(number: int, correct: Sequence[bool]) -> Group:
    problem = replace(PROBLEM, id=str(number))
    episode = replace(begin(problem, Rules.alone()), stop_reason=StopReason.ANSWERED)
    members = [
        Trajectory(
            token_ids=(1, 2),
            mask=(False, True),
            logprobs=(0.0, -1.0),
            reward=float(right),
            status="correct" if right else "wrong",
            correct=right,
            episode=episode,
        )
        for right in correct
    ]
    return Group(problem=problem, trajectories=tuple(members))


def sampled(
    sampling: DynamicSampling, has_signal: Callable[[int], bool], first: int, delays: list[int]
) -> Sampled:
    async def one(number: int) -> Group:
        for _ in range(delays[number % len(delays)]):
            await asyncio.sleep(0)
        return made(number, (True, not has_signal(number)))

    return asyncio.run(sampling.sample(one, first))


@given(
    signals=st.lists(st.booleans(), min_size=1, max_size=12),
    sampling=st.builds(
        DynamicSampling,
        groups_per_step=st.integers(1, 8),
        problems_per_round=st.integers(1, 6),
        max_rounds=st.integers(1, 4),
    ),
    first=st.integers(0, 1000),
    delays=st.lists(st.integers(0, 5), min_size=1, max_size=7),
)
@settings(max_examples=80, deadline=None)
def test_dynamic_sampling_is_bounded_and_keeps_groups_with_signal_in_order(
    signals: list[bool], sampling: DynamicSampling, first: int, delays: list[int]
) -> None:
    def has_signal(number: int) -> bool:
        return signals[number % len(signals)]

    found = sampled(sampling, has_signal, first, delays)
    numbers = [int(group.problem.id) for group in found.played]
    rounds, rest = divmod(len(numbers), sampling.problems_per_round)
    assert rest == 0
    assert 1 <= rounds <= sampling.max_rounds
    assert numbers == list(range(first, first + len(numbers)))
    useful = [number for number in numbers if has_signal(number)]
    kept = [int(group.problem.id) for group in found.kept]
    assert kept == useful[: sampling.groups_per_step]
    before_last = numbers[: -sampling.problems_per_round]
    assert sum(map(has_signal, before_last)) < sampling.groups_per_step or rounds == 1
    if len(kept) < sampling.groups_per_step:
        assert rounds == sampling.max_rounds
    assert found == sampled(sampling, has_signal, first, delays[::-1])


def test_dynamic_sampling_makes_do_when_nothing_teaches() -> None:
    sampling = DynamicSampling(groups_per_step=4, problems_per_round=3, max_rounds=2)
    found = sampled(sampling, lambda number: False, 0, [0])
    assert (len(found.kept), len(found.played)) == (0, 6)


@pytest.mark.parametrize("name", ["groups_per_step", "problems_per_round", "max_rounds"])
def test_dynamic_sampling_refuses_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        DynamicSampling(**{name: 0})
