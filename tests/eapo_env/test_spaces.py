"""UnicodeText: membership by type, length and encoding; short samples; no numbers, aloud."""

from __future__ import annotations

import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Tuple
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import (
    batch_differing_spaces,
    batch_space,
    concatenate,
    create_empty_array,
    create_shared_memory,
    iterate,
)
from hypothesis import given, strategies as st

from eapo_env.spaces import SAMPLE_CHARS, UnicodeText
from eapo_env.validation import UserError

ANY_TEXT = st.text(st.characters())  # lone surrogates included


def encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@given(ANY_TEXT)
def test_a_string_is_contained_exactly_when_utf8_holds_it(text: str) -> None:
    assert (text in UnicodeText()) is encodes(text)


@given(st.text(), st.integers(0, 12), st.integers(0, 12))
def test_lengths_are_inclusive_bounds(text: str, shortest: int, more: int) -> None:
    space = UnicodeText(shortest + more, min_length=shortest)
    assert (text in space) is (shortest <= len(text) <= shortest + more)


def test_mathematics_emoji_and_null_are_contained_and_surrogates_are_not() -> None:
    space = UnicodeText()
    for text in ("", "∑√≤𝔽", "😀", "\0"):
        assert text in space
    for other in ("\ud800", "a\udfffb", 1, None, b"bytes", ["a"]):
        assert other not in space


@pytest.mark.parametrize("bounds", [(0, 2**31 - 1), (0, 0), (0, 5), (3, 3), (100, 2000)])
def test_samples_are_contained_short_and_seeded(bounds: tuple[int, int]) -> None:
    shortest, longest = bounds
    space = UnicodeText(longest, min_length=shortest, seed=3)
    samples = [space.sample() for _ in range(50)]
    assert all(sample in space for sample in samples)
    assert max(map(len, samples)) <= max(SAMPLE_CHARS, shortest)
    space.seed(3)
    assert [space.sample() for _ in range(50)] == samples
    if longest > shortest:
        assert len(set(samples)) > 1


def test_gymnasiums_masks_work() -> None:
    space = UnicodeText(seed=0)
    only_b = np.array([char == "b" for char in space.character_list], dtype=np.int8)
    assert space.sample(mask=(3, only_b)) == "bbb"
    assert set(space.sample(mask=(None, only_b))) <= {"b"}
    assert space.sample(probability=(2, only_b.astype(np.float64))) == "bb"
    with pytest.raises(ValueError, match="Only one"):
        space.sample(mask=(1, None), probability=(1, None))


def test_equality_and_repr_are_about_lengths() -> None:
    assert UnicodeText(9) == UnicodeText(9, seed=4)
    assert UnicodeText(9) != UnicodeText(8)
    assert UnicodeText(9) != UnicodeText(9, min_length=1)
    text = gym.spaces.Text(9, min_length=0, charset=UnicodeText(9).characters)
    assert UnicodeText(9) != text
    assert text != UnicodeText(9)
    assert repr(UnicodeText(9, min_length=2)) == "UnicodeText(2, 9)"


def test_it_never_flattens_to_numbers() -> None:
    space = UnicodeText()
    assert not space.is_np_flattenable
    assert flatten_space(space) == space
    assert unflatten(space, flatten(space, "√2")) == "√2"
    with pytest.raises(ValueError, match="no flat size"):
        flatdim(space)
    nested = gym.spaces.Dict({"text": space, "number": gym.spaces.Discrete(3)})
    value = {"text": "√2", "number": np.int64(1)}
    assert unflatten(nested, flatten(nested, value)) == value


def test_shared_memory_is_refused_aloud() -> None:
    with pytest.raises(UserError, match="pass shared_memory=False to AsyncVectorEnv"):
        create_shared_memory(UnicodeText(), n=2)


def test_it_batches_for_vector_environments() -> None:
    space = UnicodeText(seed=1)
    batch = batch_space(space, 3)
    strings = ("a", "", "√")
    assert strings in batch
    assert batch.sample() in batch
    assert tuple(iterate(batch, strings)) == strings
    empty = create_empty_array(space, n=3)
    assert empty == ("", "", "")
    assert concatenate(space, strings, empty) == strings
    both = batch_differing_spaces([UnicodeText(3), UnicodeText(4)])
    assert isinstance(both, Tuple)
    assert len(both.spaces) == 2


def test_copies_and_pickles_keep_the_stream_of_samples() -> None:
    space = UnicodeText(50, min_length=2, seed=5)
    space.sample()
    twins = [copy.deepcopy(space), pickle.loads(pickle.dumps(space))]
    expected = space.sample()
    assert [twin.sample() for twin in twins] == [expected, expected]
    assert all(twin == space for twin in twins)


@given(st.lists(st.text()))
def test_json_round_trip(texts: list[str]) -> None:
    space = UnicodeText()
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(texts)))) == texts
