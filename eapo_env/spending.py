"""What experts cost: the tokens that servers count, their prices, and a budget that can be spent.

Prices and costs are in any one currency. A budget is counted in one process: each process that asks
experts has its own.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from eapo_env.types import Usage
from eapo_env.validation import UserError, at_least

_LOG = logging.getLogger(__name__)
_COUNTING = Lock()  # a budget may be charged on several event loops, each in a thread of its own
_A_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a million tokens.

    Args:
        prompt: of prompts.
        completion: of completions, reasoning included.

    Raises:
        UserError: a price that is negative or not finite.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        at_least(0, self, "prompt", "completion")
        if not math.isfinite(self.prompt + self.completion):
            raise UserError(f"prices must be finite, not {self.prompt} and {self.completion}")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _A_MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What has been spent on experts: tokens of prompts and completions, and their cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @classmethod
    def of(cls, usages: Iterable[Usage | None]) -> Spent:
        """Return what is known of so many usages, in all."""
        counted = [usage for usage in usages if usage]
        return cls(
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in counted),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in counted),
            cost=float(sum(usage.cost or 0.0 for usage in counted)),
        )

    def metrics(self) -> dict[str, float]:
        """Return tokens and cost by their names as metrics."""
        return {
            "expert_prompt_tokens": float(self.prompt_tokens),
            "expert_completion_tokens": float(self.completion_tokens),
            "expert_cost": self.cost,
        }

    @property
    def tokens(self) -> int:
        """The tokens of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True, kw_only=True)
class Budget:
    """The most that may be spent on experts, and what has been spent.

    Once one of the limits is reached, the gate is closed: a pool refuses further queries, which is
    logged once. Calls that are under way then are still answered and charged. A copy, pickled or
    not, has the limits and has spent nothing.

    Args:
        cost_limit: the most that tokens may cost, in the currency of the prices; None for no limit.
        token_limit: the most tokens of prompts and completions together; None for no limit.

    Raises:
        UserError: a limit that is negative or no number.
    """

    cost_limit: float | None = None
    token_limit: int | None = None
    _spent: Spent = field(default=Spent(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("cost_limit", "token_limit"):
            if getattr(self, name) is not None:
                at_least(0, self, name)

    def __reduce__(self) -> tuple[partial[Budget], tuple[()]]:
        return partial(Budget, cost_limit=self.cost_limit, token_limit=self.token_limit), ()

    @property
    def spent(self) -> Spent:
        """What has been spent; set it to count on from there, as a resumed run does."""
        return self._spent

    @spent.setter
    def spent(self, spent: Spent) -> None:
        self._spent = spent

    @property
    def is_spent(self) -> bool:
        """Whether a limit is reached."""
        return self._used(self._spent) >= 1.0

    def charge(self, prompt_tokens: int, completion_tokens: int, price: Price | None) -> None:
        """Count a call."""
        with _COUNTING:
            before = self._spent
            cost = price.of(prompt_tokens, completion_tokens) if price else 0.0
            self._spent = Spent(
                prompt_tokens=before.prompt_tokens + prompt_tokens,
                completion_tokens=before.completion_tokens + completion_tokens,
                cost=before.cost + cost,
            )
            closes = self._used(before) < 1.0 <= self._used(self._spent)
        if closes:
            _LOG.warning(
                "THE EXPERTS' BUDGET IS SPENT (%d tokens, cost %.4g): the gate refuses all further"
                " queries",
                self._spent.tokens,
                self._spent.cost,
            )

    def metrics(self) -> dict[str, float]:
        """Return the share of the budget that is spent, `expert_budget_used`; none of no limit."""
        if self.cost_limit is None and self.token_limit is None:
            return {}
        return {"expert_budget_used": self._used(self._spent)}

    def _used(self, spent: Spent) -> float:
        """Return the share of the limit that is used most, at least 1 once it is reached."""
        pairs = ((spent.cost, self.cost_limit), (spent.tokens, self.token_limit))
        shares = [used / limit if limit else 1.0 for used, limit in pairs if limit is not None]
        return max(shares, default=0.0)


def budget_of(pool: object) -> Budget:
    """Return the budget of a pool or of the pool in it; one without limits if there is none."""
    while pool is not None:
        if isinstance(budget := getattr(pool, "budget", None), Budget):
            return budget
        pool = getattr(pool, "inner", None)
    return Budget()


def read_usage(content: object, price: Price | None) -> Usage:
    """Return the usage in a decoded chat completion; unknown where it is missing or no count."""
    match content:
        case {"usage": {"prompt_tokens": int(prompt), "completion_tokens": int(completion)}}:
            if prompt >= 0 and completion >= 0:
                return Usage(prompt, completion, price.of(prompt, completion) if price else None)
    return Usage()


def tokens_to_charge(body: Mapping[str, Any], content: object) -> tuple[int, int]:
    """Return the tokens of prompt and completion that an answered call is charged with.

    What the server counted, or else the most that the call can have used: a token is at least a
    byte of the request, and the completion has at most `max_tokens` or `max_completion_tokens`;
    without them, a token is at least a byte of it. What is no chat completion is charged nothing.
    """
    match read_usage(content, None), content:
        case Usage(int(prompt), int(completion)), _:
            return prompt, completion
        case _, {"choices": [{"message": {**message}}, *_]}:
            limits = [body.get("max_tokens"), body.get("max_completion_tokens")]
            written = sum(_num_bytes(part) for part in message.values() if isinstance(part, str))
            limit = next((one for one in limits if isinstance(one, int)), written)
            return _num_bytes(json.dumps(body.get("messages"), ensure_ascii=False)), limit
        case _:
            return 0, 0


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
