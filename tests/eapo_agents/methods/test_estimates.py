"""The arithmetic of a run's time and of a learner's memory, by numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from eapo_agents.methods.doctor.estimates import (
    LearnerMemory,
    RunTime,
    Speed,
    Timed,
    learner_memory,
)


def timed(*pairs: tuple[int, float]) -> list[Timed]:
    return [Timed(episodes=episodes, seconds=seconds) for episodes, seconds in pairs]


def speed(*pairs: tuple[int, float], at_once: int | None = None, mean_length: float = 1) -> Speed:
    return Speed.measured(timed(*pairs), at_once=at_once, mean_length=mean_length)


def test_a_line_goes_through_the_last_two_measurements() -> None:
    # (6 - 4) / (32 - 16) = 0.125 s an episode, 4 - 16 * 0.125 = 2 s whatever their number
    measured = speed((8, 100.0), (16, 4.0), (32, 6.0))
    assert (measured.fixed_s, measured.episode_s) == (2.0, 0.125)
    assert measured.seconds(128) == 18.0


def test_more_episodes_than_decode_together_take_the_places_of_those_that_ended() -> None:
    # 2 s for the first 64; 128 others, twice as many, of half the longest one's length: 2 s more
    measured = speed((16, 4.0), (32, 6.0), at_once=64, mean_length=0.5)
    assert measured.seconds(64) == 2.0 + 8.0
    assert measured.seconds(192) == 2.0 * (1 + 2 * 0.5) + 24.0


def test_a_single_measurement_is_proportional() -> None:
    assert speed((8, 4.0)).seconds(16) == 8.0


def test_noise_makes_no_part_negative() -> None:
    faster = speed((16, 5.0), (32, 4.0))  # the larger one took less
    assert (faster.fixed_s, faster.episode_s) == (4.0, 0.0)
    steeper = speed((16, 1.0), (32, 4.0))  # of which the line begins below 0
    assert (steeper.fixed_s, steeper.episode_s) == (0.0, 0.125)


def test_episodes_that_take_half_as_long() -> None:
    assert speed((16, 4.0), (32, 6.0)).times(0.5).seconds(128) == 9.0


seconds = st.floats(0.001, 1000)


@given(st.integers(1, 500), st.integers(1, 500), seconds, seconds, st.floats(0.01, 1))
def test_what_was_measured_is_estimated_and_more_takes_no_less(
    first: int, more: int, first_s: float, last_s: float, mean_length: float
) -> None:
    last = first + more
    one = speed((first, first_s), (last, last_s), at_once=last, mean_length=mean_length)
    assert one.seconds(last) == pytest.approx(last_s)
    assert one.seconds(last) <= one.seconds(last + 1) <= one.seconds(2 * last + 1)


def test_the_time_of_a_run() -> None:
    run_time = RunTime(
        steps=80, round_s=3.0, max_rounds=2, update_s=1.5, evaluations=4, evaluation_s=90.0
    )
    assert run_time.seconds(1) == 80 * 4.5 + 360 == 720
    assert run_time.seconds(2) == 80 * 7.5 + 360 == 960
    assert run_time.told(128, 64) == (
        "80 steps of 4.5 s (3.0 sampling 128 episodes, 1.5 updating on 64) and 4 evaluations of"
        " 90 s: 12.0 minutes (16.0 minutes with 2 rounds)"
    )
    longer = replace(run_time, steps=800).told(128, 64)
    assert longer.endswith(" 90 s: 1.1 hours (1.8 hours with 2 rounds)")


def test_the_memory_of_the_paper_s_learner() -> None:
    # 7,615,616,512 weights of 16 bytes; 28 x 3,584 x 4 bytes and twice 152,064 x 2 a token
    memory = learner_memory(
        trained=7_615_616_512,
        frozen=0,
        moments=2,
        weight_bytes=4,
        bfloat16=True,
        layers=28,
        hidden=3584,
        vocabulary=152_064,
        tokens=22_528,
    )
    assert memory.constant / 2**30 == pytest.approx(113.5, abs=0.05)  # docs/scaling.md
    assert memory.sequence == 22_528 * 986 * 1024
    assert memory.num_processes(139 << 30) == 1
    assert memory.num_processes(80 << 30) == 2
    assert memory.num_processes(21 << 30) is None


def test_frozen_weights_have_neither_gradient_nor_moments() -> None:
    sizes = {"layers": 0, "hidden": 0, "vocabulary": 0, "tokens": 1, "weight_bytes": 4}
    half = learner_memory(trained=10, frozen=100, moments=2, bfloat16=True, **sizes)
    assert half == LearnerMemory(constant=10 * 16 + 100 * 2, sequence=0)
    whole = learner_memory(trained=10, frozen=100, moments=0, bfloat16=False, **sizes)
    assert whole.constant == 10 * 8 + 100 * 4
