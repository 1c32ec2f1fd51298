"""Range checks: what is no number is refused as what is out of range is, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from eapo_env.validation import UserError, at_least, positive, probability, whole

Check = Callable[..., None]
RANGES: list[Check] = [partial(at_least, 0), positive, probability]


@pytest.mark.parametrize("check", [*RANGES, whole])
@pytest.mark.parametrize("value", [1, np.int64(1)])
def test_a_number_in_range_is_accepted(check: Check, value: object) -> None:
    check(SimpleNamespace(size=value), "size")


@pytest.mark.parametrize("check", RANGES)
@pytest.mark.parametrize("value", [0.5, np.float32(0.5), Fraction(1, 2)])
def test_a_number_need_not_be_whole(check: Check, value: object) -> None:
    check(SimpleNamespace(size=value), "size")
    with pytest.raises(UserError, match="size must be a whole number, not "):
        whole(SimpleNamespace(size=value), "size")


@pytest.mark.parametrize("check", RANGES)
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_number_out_of_range_is_shown(check: Check, value: float) -> None:
    with pytest.raises(UserError, match=f"^size must be .*, not {value}$"):
        check(SimpleNamespace(size=value), "size")


@pytest.mark.parametrize("check", RANGES)
@pytest.mark.parametrize("value", ["3", None, True, [1], 1j])
def test_what_is_no_number_is_shown(check: Check, value: object) -> None:
    with pytest.raises(UserError) as refused:
        check(SimpleNamespace(size=value), "size")
    assert str(refused.value) == f"size must be a number, not {value!r}"
