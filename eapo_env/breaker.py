"""A circuit breaker: when to stop calling an endpoint that fails, and when to try it again.

    Closed -(max_failures in a row)-> Open -(cooldown_s)-> Probing -> Closed or Open

While it is open nothing is sent. After the cool-down a single call probes the endpoint; the others
are refused until the probe has an outcome. A health check that the endpoint passes closes the
circuit before that, until the next failure. Times are seconds on any one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from eapo_env.validation import at_least


@dataclass(frozen=True, slots=True)
class Closed:
    """Calls pass; `failures` of them failed in a row."""

    failures: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """Calls are refused until a time, then the next one probes."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Probing:
    """One call is out to see whether the endpoint answers; the others are refused."""


Circuit = Closed | Open | Probing


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The settings of a circuit breaker: when a circuit opens, and for how long.

    Args:
        max_failures: this number of failures in a row opens the circuit, at least 1.
        cooldown_s: how long it stays open before a call probes it.

    Raises:
        UserError: a value out of its range.
    """

    max_failures: int = 5
    cooldown_s: float = 10.0

    def __post_init__(self) -> None:
        at_least(1, self, "max_failures")
        at_least(0, self, "cooldown_s")

    def admits(self, circuit: Circuit, now_s: float) -> bool:
        """Return whether a call may be sent now; a call that is sent must be told to `sent`."""
        match circuit:
            case Closed():
                return True
            case Open(until_s):
                return now_s >= until_s
            case Probing():
                return False

    def sent(self, circuit: Circuit) -> Circuit:
        """Return the circuit after an admitted call was sent: from open, it is the probe."""
        return Probing() if isinstance(circuit, Open) else circuit

    def answered(self) -> Circuit:
        """Return the circuit after the endpoint answered any call."""
        return Closed()

    def healthy(self) -> Circuit:
        """Return the circuit after the endpoint passed a health check: one failure opens it."""
        return Closed(self.max_failures - 1)

    def gave_up(self, circuit: Circuit, now_s: float) -> Circuit:
        """Return the circuit after its last call ended without an outcome: the next one probes."""
        return Open(now_s) if isinstance(circuit, Probing) else circuit

    def failed(self, circuit: Circuit, now_s: float) -> Circuit:
        """Return the circuit after a call failed.

        Calls that were sent before the circuit opened do not keep it open longer.
        """
        match circuit:
            case Closed(failures) if failures + 1 < self.max_failures:
                return Closed(failures + 1)
            case Closed() | Probing():
                return Open(now_s + self.cooldown_s)
            case Open():
                return circuit
