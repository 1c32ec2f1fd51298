"""Top-p, top-k and min-p: what may be drawn, what it is worth, and that training refuses them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st

from eapo_agents.policies.decoding import Truncations, draw, truncated
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.models import load_model
from eapo_agents.policies.policy import NO_TRUNCATION, Sampling, Truncation
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

ANY = st.builds(
    Truncation,
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.one_of(st.just(-1), st.integers(1, 25)),
    min_p=st.floats(0, 1),
)
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=20)


def rows(*each: Truncation) -> Truncations:
    return Truncations(
        *(torch.tensor([getattr(one, n) for one in each]) for n in ("top_p", "top_k", "min_p"))
    )


def left(probabilities: list[float], truncation: Truncation) -> list[float]:
    logp = torch.log(torch.tensor([probabilities]))
    return truncated(logp, rows(truncation)).exp()[0].tolist()


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        (Truncation(), [0.1, 0.4, 0.2, 0.3]),
        (Truncation(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Truncation(top_p=0.39), [0, 1, 0, 0]),
        (Truncation(top_p=0.41), [0, 4 / 7, 0, 3 / 7]),
        (Truncation(top_p=0.71), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Truncation(min_p=0.49), [0, 4 / 9, 2 / 9, 3 / 9]),  # at least 0.196
        (Truncation(min_p=0.51), [0, 4 / 7, 0, 3 / 7]),
        # Of 0.4, 0.3 and 0.2, which min-p leaves, 0.4 and 0.3 hold 7/9 = 0.778.
        (Truncation(min_p=0.49, top_p=0.75), [0, 4 / 7, 0, 3 / 7]),
        (Truncation(top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Truncation(top_k=2, top_p=0.56), [0, 1, 0, 0]),  # 4/7 = 0.571
        (Truncation(top_k=9), [0.1, 0.4, 0.2, 0.3]),
    ],
)
def test_what_is_left_by_hand(truncation: Truncation, expected: list[float]) -> None:
    np.testing.assert_allclose(left([0.1, 0.4, 0.2, 0.3], truncation), expected, atol=1e-6)


def test_of_equally_likely_ids_the_first_are_kept() -> None:
    assert left([0.25] * 4, Truncation(top_k=2)) == pytest.approx([0.5, 0.5, 0, 0])


@example([-(2.0**-52), 0.0], Truncation(top_p=0.5))
@given(LOGITS, ANY)
def test_the_likeliest_stay_and_share_what_there_is(
    logits: list[float], truncation: Truncation
) -> None:
    p = torch.softmax(torch.tensor(logits, dtype=torch.float64), -1)
    kept = truncated(torch.tensor([logits]).log_softmax(-1), rows(truncation))[0].double().exp()
    allowed = kept > 0
    assert float(kept.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(kept[allowed], p[allowed] / p[allowed].sum(), rtol=1e-4, atol=1e-7)
    nearly = 1 + 1e-5  # ids that differ by less are equally likely in float32
    assert p[allowed].max() * nearly >= p.max()
    assert (p[~allowed] <= p[allowed].min() * nearly).all()
    if truncation.top_k != -1:
        assert allowed.sum() <= truncation.top_k
    assert (p[allowed] >= (truncation.min_p - 1e-6) * p.max()).all()
    if truncation == replace(NO_TRUNCATION, top_p=truncation.top_p):  # no fewer would reach top-p
        assert p[allowed].sum() >= truncation.top_p - 1e-6
        assert p[allowed].sum() - p[allowed].min() < truncation.top_p + 1e-6


@given(LOGITS, ANY, st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.5, 1.0]))
def test_only_what_is_left_is_drawn(
    logits: list[float], truncation: Truncation, uniform: float, temperature: float
) -> None:
    """A row without truncation beside it is drawn as if it were alone."""
    logits_BV, uniforms = torch.tensor([logits, logits]), torch.full((2,), uniform).double()
    uniforms = uniforms.clamp(max=math.nextafter(1, 0))
    temperatures = torch.full((2,), temperature).double()
    ids, logprobs = draw(logits_BV, temperatures, uniforms, rows(truncation, NO_TRUNCATION))
    alone = draw(logits_BV[1:], temperatures[1:], uniforms[1:])
    assert ids[1] == alone[0][0]
    torch.testing.assert_close(logprobs[1], alone[1][0])
    logp = torch.log_softmax(logits_BV / (temperature or 1.0), -1)
    expected = truncated(logp[:1], rows(truncation))[0] if temperature else logp[0]
    torch.testing.assert_close(logprobs[0], expected[ids[0]])
    assert logprobs[0] > -math.inf


@given(LOGITS, ANY)
def test_what_keeps_one_id_keeps_one(logits: list[float], truncation: Truncation) -> None:
    kept = truncated(torch.tensor([logits]).log_softmax(-1), rows(truncation))[0]
    tied = sum(one == max(logits) for one in logits)
    if truncation.keeps_one(len(logits)):
        assert (kept > -math.inf).sum() <= tied
    if truncation.keeps_all:
        assert (kept > -math.inf).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"top_k": 0},
        {"top_k": -2},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": math.nan},
    ],
)
def test_values_out_of_range_are_refused(bad: dict[str, float]) -> None:
    [(name, value)] = bad.items()
    with pytest.raises(ValueError, match=f"{name} must be .*, not {value}"):
        Truncation(**bad)  # type: ignore[arg-type]


def test_completions_of_different_truncations_share_a_batch(tiny_config: TrainConfig) -> None:
    """The likeliest id is the only one where one is left, and its log-probability is 0."""
    policy = HFPolicy(*load_model(tiny_config.model))
    prompt = policy.tokenizer.encode("p3 = ")
    each = [Truncation(top_k=1), NO_TRUNCATION, Truncation(top_p=1e-6), Truncation(min_p=1.0)]
    asked = [Sampling(max_tokens=20, truncation=one) for one in each]
    asked.append(Sampling(max_tokens=20, temperature=0.0))

    async def together(asked: list[Sampling]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        done = await asyncio.gather(*(policy.complete(prompt, one, 7) for one in asked))
        return [(one.token_ids, one.logprobs) for one in done]

    top_k, whole, top_p, min_p, greedy = asyncio.run(together(asked))
    assert top_k[0] == top_p[0] == min_p[0] == greedy[0] != whole[0]
    np.testing.assert_allclose([*top_k[1], *top_p[1], *min_p[1]], 0, atol=1e-6)
    assert min(greedy[1]) < -0.01
    assert asyncio.run(together([asked[1]]))[0][0] == whole[0]


def test_training_refuses_them_unless_the_bias_is_known(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    for setting in ("top_p=0.5", "top_k=3", "min_p=0.5"):
        with pytest.raises(ValueError, match=rf"{setting}.*biases.*truncated_sampling=biased"):
            with_settings(tiny_config, [f"rollout.truncation.{setting}"])
    known = ["rollout.truncation.min_p=1", "rollout.truncated_sampling=biased", "steps=1"]
    config = with_settings(tiny_config, [*known, "annealing.turn_budget=1"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    [row] = run.metrics  # the members of a group are one and the same
    assert row["groups_all_right"] + row["groups_all_wrong"] == 1


def test_evaluations_have_their_own(tiny_config: TrainConfig) -> None:
    """Under top-k 1 all samples of a problem are the same one, and training samples as ever."""
    config = with_settings(
        tiny_config, ["evaluation.truncation.top_k=1", "evaluation.samples_per_problem=6"]
    )
    trainer = Trainer.from_config(config)
    report = asyncio.run(trainer.evaluate())
    assert report.variance == 0
    free = Trainer.from_config(with_settings(config, ["evaluation.truncation.top_k=-1"]))
    assert asyncio.run(free.evaluate()).variance > 0
    assert trainer.rollout.truncation == NO_TRUNCATION
