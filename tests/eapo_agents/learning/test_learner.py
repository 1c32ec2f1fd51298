"""The learner on a tiny Qwen2 model: right log-probabilities, invariance, learning, refusal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from eapo_agents.learning.advantages import group_advantages
from eapo_agents.learning.algorithms import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    RLOO,
    Algorithm,
    CustomAlgorithm,
    DrGRPO,
    MaxRL,
)
from eapo_agents.learning.learner import Learner
from eapo_agents.learning.losses import Loss, LossInputs, LossOutput, dapo_loss
from eapo_agents.learning.settings import Layout, LearnerSettings
from eapo_agents.rollouts.trajectory import Demonstration, Group, Logprobs, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules

VOCABULARY = 13
PROBLEM = Problem(id="p", statement="1 + 1 = ?", answer="2")
EPISODE = begin(PROBLEM, Rules(), seed=0)
FLOAT64 = LearnerSettings(
    precision="float64", device="cpu", learning_rate=1e-2, warmup_steps=1, max_grad_norm=math.inf
)


def tiny_model(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config)


def trajectory(rng: np.random.Generator, *, reward: float) -> Trajectory:
    """Two turns with the environment's words between, of drawn lengths."""
    lengths = rng.integers(1, 8, size=4)
    mask = np.repeat([False, True, False, True], lengths)
    return Trajectory(
        token_ids=rng.integers(0, VOCABULARY, mask.size).astype(np.int32),
        mask=mask,
        logprobs=np.where(mask, -rng.exponential(2.5, mask.size), 0.0),
        reward=reward,
        status="correct" if reward else "wrong",
        correct=bool(reward),
        episode=EPISODE,
    )


def drawn_groups(seed: int = 0, num: int = 4, size: int = 4) -> list[Group]:
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 2, (num, size)).astype(float)
    rewards[:, 0], rewards[:, 1] = 0.0, 1.0
    return [
        Group(problem=PROBLEM, trajectories=tuple(trajectory(rng, reward=r) for r in row))
        for row in rewards
    ]


def gradient_of(
    groups: Sequence[Group], settings: LearnerSettings, algorithm: Algorithm | None = None
) -> torch.Tensor:
    """Return the gradient of an update as one vector: AdamW's step would hide a wrong scale."""
    learner = Learner(tiny_model(), algorithm=algorithm, settings=settings)
    learner.update(groups)
    return torch.cat([weight.grad.flatten() for weight in learner.model.parameters()])


def test_logprobs_are_those_of_the_model_run_on_each_sequence_alone() -> None:
    records = [t for group in drawn_groups() for t in group.trajectories]
    learner = Learner(tiny_model(), settings=FLOAT64, temperature=0.7)
    for record, found in zip(records, learner.logprobs(records), strict=True):
        ids = torch.tensor(record.token_ids, dtype=torch.int64)[None]
        with torch.no_grad():
            logp_TV = (learner.model(ids).logits[0] / 0.7).log_softmax(-1)
        expected = [
            logp_TV[t - 1, ids[0, t]].item() if own else 0.0 for t, own in enumerate(record.mask)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "algorithm",
    [DAPO(), GRPO(), DrGRPO(), GSPO(), CISPO(), RLOO(), MaxRL()],
    ids=lambda algorithm: algorithm.name,
)
@pytest.mark.parametrize(
    "cut",
    [
        {"max_batch_tokens": 1},
        {"max_batch_tokens": 64},
        {"max_batch_tokens": 10_000, "layout": "packed"},
        {"max_batch_tokens": 64, "layout": "packed"},
        {"max_batch_tokens": 64, "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_the_gradient_does_not_depend_on_how_the_step_is_cut(
    algorithm: Algorithm, cut: dict[str, object]
) -> None:
    groups = drawn_groups()
    whole = gradient_of(groups, replace(FLOAT64, max_batch_tokens=10_000), algorithm)
    parts = gradient_of(groups, replace(FLOAT64, **cut), algorithm)  # type: ignore[arg-type]
    assert whole.norm() > 1e-3
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", ["shared", "tree"])
@pytest.mark.parametrize("max_batch_tokens", [1, 70, 10_000])
def test_reading_prompts_once_changes_neither_gradient_nor_logprobs(
    max_batch_tokens: int, layout: Layout
) -> None:
    """With GPT-2's norm: that of Qwen2 rounds gradients to float32, a prompt's before their sum."""
    lengths = (5, 9, 6, 7)
    groups = [with_prompt(*pair) for pair in zip(drawn_groups(), lengths, strict=True)]
    records = [member for group in groups for member in group.trajectories]
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    state = GPT2LMHeadModel(config).state_dict()

    def found(change: LearnerSettings) -> tuple[torch.Tensor, list[Logprobs]]:
        model = GPT2LMHeadModel(config)
        model.load_state_dict(state)
        learner = Learner(model, settings=change)
        logprobs = learner.logprobs(records)
        learner.update(groups)
        return torch.cat([weight.grad.flatten() for weight in model.parameters()]), logprobs

    gradient, logprobs = found(replace(FLOAT64, max_batch_tokens=max_batch_tokens, layout=layout))
    expected_gradient, expected_logprobs = found(replace(FLOAT64, max_batch_tokens=1))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    for one, other in zip(logprobs, expected_logprobs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def with_prompt(group: Group, length: int) -> Group:
    """The group, each of its trajectories behind one prompt, another for each length."""
    prompt = (np.arange(length) + length) % VOCABULARY
    return replace(
        group,
        trajectories=tuple(
            replace(
                member,
                token_ids=np.concatenate([prompt, member.token_ids]),
                mask=np.concatenate([np.zeros(length), member.mask]),
                logprobs=np.concatenate([np.zeros(length), member.logprobs]),
            )
            for member in group.trajectories
        ),
    )


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(4)), members=st.permutations(range(4)))
def test_the_gradient_does_not_depend_on_the_order_of_trajectories(
    order: list[int], members: list[int]
) -> None:
    groups = drawn_groups()
    shuffled = [
        replace(groups[i], trajectories=tuple(groups[i].trajectories[j] for j in members))
        for i in order
    ]
    limited = replace(FLOAT64, max_batch_tokens=50)
    torch.testing.assert_close(
        gradient_of(shuffled, limited), gradient_of(groups, limited), rtol=1e-10, atol=1e-12
    )


def test_the_gradient_is_that_of_the_equation_written_out() -> None:
    """DAPO at ratio 1: -sum A min(pi / pi_sampler, 2) grad log pi / N, without any batching."""
    groups = drawn_groups()
    model = tiny_model().double()
    total, num_tokens = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        rewards = group.rewards_G
        for member, reward in zip(group.trajectories, rewards, strict=True):
            advantage = (reward - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
            ids = torch.tensor(member.token_ids, dtype=torch.int64)
            logp_TV = model(ids[None]).logits[0].log_softmax(-1)
            for t in np.flatnonzero(member.mask):
                logp = logp_TV[t - 1, ids[t]]
                weight = min(math.exp(logp.item() - member.logprobs[t].item()), 2.0)
                total, num_tokens = total - advantage * weight * logp, num_tokens + 1
    (total / num_tokens).backward()
    expected = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    torch.testing.assert_close(gradient_of(groups, FLOAT64), expected, rtol=1e-10, atol=1e-12)


def test_rewarded_sequences_become_likelier_and_others_less_likely() -> None:
    groups = drawn_groups()
    learner = Learner(tiny_model(), settings=replace(FLOAT64, learning_rate=3e-3))

    def mean_logp(correct: bool) -> float:
        chosen = [t for group in groups for t in group.trajectories if t.correct == correct]
        return float(np.mean([logp.sum() for logp in learner.logprobs(chosen)]))

    right, wrong = mean_logp(True), mean_logp(False)
    for _ in range(5):
        learner.update(groups)
    assert mean_logp(True) > right
    assert mean_logp(False) < wrong


def test_imitation_lowers_its_loss_to_almost_nothing() -> None:
    rng = np.random.default_rng(0)
    demonstrations = [
        Demonstration(token_ids=t.token_ids, mask=t.mask)
        for t in (trajectory(rng, reward=0.0) for _ in range(4))
    ]
    learner = Learner(tiny_model(), settings=FLOAT64)
    losses = [learner.sft_update(demonstrations)["loss"] for _ in range(60)]
    tokens = sum(demonstration.num_policy_tokens for demonstration in demonstrations)
    nats = -sum(
        logp.sum() for logp in Learner(tiny_model(), settings=FLOAT64).logprobs(demonstrations)
    )
    assert losses[0] == pytest.approx(nats / tokens)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("mini_batches", [1, 2])
def test_the_advantages_of_the_last_update_are_told_group_by_group(mini_batches: int) -> None:
    groups = drawn_groups()
    learner = Learner(tiny_model(), settings=replace(FLOAT64, mini_batches=mini_batches))
    assert learner.advantages == ()
    learner.update(groups)
    expected = [learner.algorithm.advantages(group.rewards_G) for group in groups]
    assert learner.advantages == tuple(np.concatenate(expected).tolist())


def test_metrics_by_their_meaning() -> None:
    groups = drawn_groups()
    records = [t for group in groups for t in group.trajectories]
    learner = Learner(tiny_model(), settings=replace(FLOAT64, max_batch_tokens=50))
    logp = np.concatenate(
        [found[t.mask] for t, found in zip(records, learner.logprobs(records), strict=True)]
    )
    gap = logp - np.concatenate([t.logprobs[t.mask] for t in records])
    found = learner.update(groups)
    assert found["learned_tokens"] == len(logp)
    assert found["learned_sequences"] == 16
    assert found["mismatch_kl"] == pytest.approx(np.mean(np.exp(gap) - gap - 1), rel=1e-5)
    assert found["max_mismatch_ratio"] == pytest.approx(np.exp(np.abs(gap).max()), rel=1e-5)
    assert 0.0 < found["entropy"] < np.log(VOCABULARY)
    assert found["clip_high_rate"] == found["clip_low_rate"] == 0.0
    assert found["learning_rate"] == 1e-2
    assert found["grad_norm"] > 0.0


def test_a_uniform_model_has_the_entropy_of_its_vocabulary() -> None:
    model = tiny_model()
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    found = Learner(model, settings=replace(FLOAT64, learning_rate=0.0)).update(drawn_groups())
    assert found["entropy"] == pytest.approx(np.log(VOCABULARY))


def test_the_learning_rate_warms_up_and_stays() -> None:
    rates = LearnerSettings(learning_rate=1.0, warmup_steps=4)
    assert [rates.learning_rate_at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert LearnerSettings(learning_rate=1.0, warmup_steps=0).learning_rate_at(0) == 1.0
    learner = Learner(tiny_model(), settings=replace(FLOAT64, warmup_steps=4))
    seen = [learner.update(drawn_groups())["learning_rate"] for _ in range(5)]
    assert seen == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_imitation_takes_a_learning_rate_for_one_step() -> None:
    """A schedule is the caller's: SGD's step is the rate times the gradient, then the default's."""
    records = [t for group in drawn_groups() for t in group.trajectories]
    demonstrations = [Demonstration(token_ids=t.token_ids, mask=t.mask) for t in records]
    settings = replace(FLOAT64, optimizer="sgd", weight_decay=0.0, warmup_steps=4)
    learner = Learner(tiny_model(), settings=settings)

    def moved(**how: float) -> tuple[float, float]:
        before = [weight.clone() for weight in learner.model.parameters()]
        found = learner.sft_update(demonstrations, **how)
        gaps = [w - b for w, b in zip(learner.model.parameters(), before, strict=True)]
        norm = math.sqrt(sum(gap.square().sum().item() for gap in gaps))
        return found["learning_rate"], norm / found["grad_norm"]

    assert moved(learning_rate=0.3) == pytest.approx((0.3, 0.3))
    assert moved() == pytest.approx((0.005, 0.005)), "the second step of the warm-up"


def test_gradients_are_clipped_to_their_norm() -> None:
    free = gradient_of(drawn_groups(), FLOAT64)
    clipped = gradient_of(drawn_groups(), replace(FLOAT64, max_grad_norm=free.norm().item() / 4))
    torch.testing.assert_close(clipped, free / 4, rtol=1e-4, atol=1e-12)


def recorder(seen: list[LossInputs]) -> Algorithm:
    """A custom algorithm: sequence-level REINFORCE that also records what it is given."""

    def loss(inputs: LossInputs) -> LossOutput:
        seen.append(replace(inputs, logp_BT=inputs.logp_BT.detach()))
        logp_B = (inputs.logp_BT * inputs.mask_BT).sum(1)
        mine = -(inputs.advantage_B * logp_B).sum() / inputs.num_sequences
        unlikeliest = {"mine": -logp_B.min()}  # with a gradient, which no metric needs
        return LossOutput(loss=mine, sums={"mine_rate": inputs.mask_BT.sum()}, maxima=unlikeliest)

    return CustomAlgorithm(name="mine", advantages=lambda rewards_G: 2.0 * rewards_G, loss=loss)


@pytest.mark.filterwarnings("error")
def test_a_custom_algorithm_plugs_in() -> None:
    seen: list[LossInputs] = []
    learner = Learner(tiny_model(), algorithm=recorder(seen), settings=FLOAT64)
    found = learner.update(drawn_groups())
    assert found["mine_rate"] == pytest.approx(1.0)
    assert found["max_mine"] > 0
    assert sorted(seen[0].advantage_B.tolist()) == sorted(
        2.0 * t.reward for group in drawn_groups() for t in group.trajectories
    )
    assert (seen[0].num_sequences, seen[0].num_groups) == (16.0, 4.0)


def test_with_several_updates_a_step_the_ratio_is_to_the_policy_before_the_first() -> None:
    seen: list[LossInputs] = []
    settings = replace(FLOAT64, mini_batches=2, epochs=2, max_batch_tokens=10_000)
    learner = Learner(tiny_model(), algorithm=recorder(seen), settings=settings)
    found = learner.update(drawn_groups())
    ratios = [bool((one.logp_BT == one.logp_old_BT).all()) for one in seen]
    assert ratios == [True, False, False, False]
    assert torch.equal(seen[0].logp_old_BT, seen[2].logp_old_BT)
    assert torch.equal(seen[1].logp_old_BT, seen[3].logp_old_BT)
    assert [one.num_groups for one in seen] == [2.0] * 4
    assert learner.step == 4
    assert found["learned_sequences"] == 8.0


def test_more_mini_batches_than_groups_are_as_many_as_there_are_groups() -> None:
    learner = Learner(tiny_model(), settings=replace(FLOAT64, mini_batches=99))
    learner.update(drawn_groups(num=3))
    assert learner.step == 3


def nan_loss(inputs: LossInputs) -> LossOutput:
    return LossOutput(loss=inputs.logp_BT.sum() * float("nan"))


def nan_gradient(inputs: LossInputs) -> LossOutput:
    """A finite loss whose gradient is 0 / 0."""
    return LossOutput(loss=(inputs.logp_BT * 0.0).sum().sqrt())


@pytest.mark.parametrize("loss", [nan_loss, nan_gradient])
def test_what_is_not_finite_is_refused_and_changes_nothing(
    loss: Loss,
) -> None:
    broken = False

    def sometimes(inputs: LossInputs) -> LossOutput:
        return loss(inputs) if broken else dapo_loss(inputs)

    algorithm = CustomAlgorithm(name="sometimes", advantages=group_advantages, loss=sometimes)
    learner = Learner(tiny_model(), algorithm=algorithm, settings=FLOAT64)
    learner.update(drawn_groups())
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    broken = True
    with pytest.raises(FloatingPointError, match="update 1 is not applied: its loss is"):
        learner.update(drawn_groups())
    for name, weight in learner.model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert learner.step == 1
    broken = False
    untouched = Learner(tiny_model(), settings=FLOAT64)
    untouched.update(drawn_groups())
    assert learner.update(drawn_groups(seed=1)) == untouched.update(drawn_groups(seed=1))


def test_a_saved_learner_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = LearnerSettings(device="cpu", learning_rate=1e-3)
    first = Learner(tiny_model(), settings=settings)
    first.update(drawn_groups(seed=0))
    first.save(str(tmp_path))
    second, third = (Learner(tiny_model(seed=7), settings=settings) for _ in range(2))
    second.load(str(tmp_path))
    third.load_state_dict(first.state_dict())
    expected = [first.update(drawn_groups(seed=seed)) for seed in (1, 2)]
    assert [second.update(drawn_groups(seed=seed)) for seed in (1, 2)] == expected
    for name, weight in second.model.state_dict().items():
        assert torch.equal(weight, first.model.state_dict()[name])


def test_a_checkpoint_that_is_not_whole_is_an_error_that_names_it(tmp_path: Path) -> None:
    learner = Learner(tiny_model(), settings=FLOAT64)
    learner.save(tmp_path)
    (tmp_path / "learner.pt").write_bytes(b"half of a file")
    with pytest.raises(ValueError, match=f"cannot restore a learner from {tmp_path}"):
        learner.load(tmp_path)


def test_bfloat16_is_near_float32_and_keeps_float32_weights() -> None:
    exact = replace(FLOAT64, precision="float32")
    learner = Learner(tiny_model(), settings=replace(exact, precision="bfloat16"))
    found, expected = (
        learner.update(drawn_groups()),
        Learner(tiny_model(), settings=exact).update(drawn_groups()),
    )
    assert {weight.dtype for weight in learner.model.parameters()} == {torch.float32}
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.05)
    assert found["grad_norm"] != expected["grad_norm"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_grad_norm": float("nan")}, "max_grad_norm must be positive, not nan"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"mini_batches": 0}, "mini_batches must be at least 1, not 0"),
        ({"max_batch_tokens": 0}, "max_batch_tokens must be at least 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, not -1.0"),
        ({"layout": "shared", "gradient_checkpointing": True}, "'shared' excludes gradient"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnerSettings(**change)  # type: ignore[arg-type]


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature must be positive, not 0.0"):
        Learner(tiny_model(), temperature=0.0)


def test_algorithm_and_settings_are_fixed() -> None:
    """In several processes the others would not hear of a change."""
    learner = Learner(tiny_model(), settings=FLOAT64)
    for name in ("algorithm", "settings"):
        with pytest.raises(AttributeError):
            setattr(learner, name, None)


def test_an_update_without_groups_or_policy_tokens_is_refused() -> None:
    learner = Learner(tiny_model(), settings=FLOAT64)
    with pytest.raises(ValueError, match="at least one group"):
        learner.update([])
    with pytest.raises(ValueError, match="no policy token"):
        learner.sft_update([Demonstration(token_ids=(1, 2), mask=(False, False))])  # type: ignore[arg-type]


def test_a_sequence_without_policy_tokens_is_carried_along() -> None:
    one = drawn_groups()[0]
    silent = replace(
        one.trajectories[0],
        mask=np.zeros(one.trajectories[0].num_tokens, bool),
        logprobs=np.zeros(one.trajectories[0].num_tokens, np.float32),
    )
    group = replace(one, trajectories=(silent, *one.trajectories[1:]))
    learner = Learner(tiny_model(), settings=replace(FLOAT64, max_batch_tokens=1))
    assert learner.update([group])["grad_norm"] > 0.0
