"""The circuit breaker: what it promises over any sequence of calls, worked through once by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from eapo_env.breaker import Breaker, Circuit, Closed, Open, Probing

events = st.lists(st.sampled_from(["answered", "failed", "call", "wait"]), max_size=60)


def test_a_life_worked_by_hand() -> None:
    breaker = Breaker(max_failures=2, cooldown_s=10)
    circuit = breaker.failed(Closed(), 0)
    assert circuit == Closed(1)
    assert breaker.answered() == Closed(0)
    circuit = breaker.failed(circuit, 5)
    assert circuit == Open(15)
    assert not breaker.admits(circuit, 14.9)
    assert breaker.failed(circuit, 14.9) == Open(15), "a late failure keeps it open no longer"
    assert breaker.admits(circuit, 15)
    circuit = breaker.sent(circuit)
    assert circuit == Probing()
    assert not breaker.admits(circuit, 1000), "one probe at a time"
    assert breaker.failed(circuit, 20) == Open(30)
    assert breaker.answered() == Closed(0)


@given(st.integers(1, 5), events)
def test_it_opens_exactly_after_so_many_failures_in_a_row(
    max_failures: int, happened: list[str]
) -> None:
    breaker = Breaker(max_failures=max_failures, cooldown_s=1e9)
    circuit: Circuit = Closed()
    in_a_row = 0
    for event in happened:
        if event == "answered":
            circuit, in_a_row = breaker.answered(), 0
        elif event == "failed":
            circuit, in_a_row = breaker.failed(circuit, 0), in_a_row + 1
        assert breaker.admits(circuit, 0) == (in_a_row < max_failures)


@given(events)
def test_after_the_cool_down_one_call_passes_until_an_outcome(happened: list[str]) -> None:
    breaker = Breaker(max_failures=1, cooldown_s=1)
    circuit, now_s, probes_out = breaker.failed(Closed(), 0), 0.0, 0
    for event in happened:
        match event:
            case "wait":
                now_s += 0.6
            case "call" if breaker.admits(circuit, now_s):
                probes_out += not isinstance(circuit, Closed)
                circuit = breaker.sent(circuit)
            case "answered" if probes_out:
                circuit, probes_out = breaker.answered(), 0
            case "failed" if probes_out:
                circuit, probes_out = breaker.failed(circuit, now_s), 0
        assert probes_out <= 1
        assert isinstance(circuit, Probing) == (probes_out == 1)


@given(events)
def test_an_open_circuit_always_tries_again(happened: list[str]) -> None:
    breaker = Breaker(max_failures=1, cooldown_s=1)
    circuit: Circuit = Closed()
    for event in happened:
        if event == "failed":
            circuit = breaker.failed(circuit, 0)
        elif event == "answered":
            circuit = breaker.answered()
    assert breaker.admits(circuit, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_failures": 0}, "max_failures must be at least 1, not 0"),
        ({"cooldown_s": -1}, "cooldown_s must be at least 0, not -1"),
        ({"cooldown_s": float("nan")}, "not nan"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Breaker(**settings)
