"""An endpoint: an OpenAI-compatible server, the models it serves, and how it may be called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from eapo_env.breaker import Breaker
from eapo_env.spending import Price
from eapo_env.validation import UserError, at_least, positive, whole

_MOST_LIVE_CALLS = 1000  # the connections that the client's own pool opens at most
_MOST_HEDGED = 0.5

Thinking = Literal["maybe", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible server and the expert models it serves.

    Args:
        base_url: up to and including `/v1`.
        models: the names under which the server serves the experts.
        api_key_env: the environment variable that holds the key, read when the first connection is
            opened and stored nowhere else; None for a server without a key.
        max_live_calls: the most concurrent calls in one event loop, at most 1000.
        shared_slots: a folder on this machine. All event loops of all processes that name it share
            `max_live_calls` of this server; None gives each its own.
        call_timeout_s: timeout of one call once it is sent, retries included.
        max_retries: how often the client repeats a call that was refused with 408, 409, 429 or 5xx
            or lost its connection; it waits as Retry-After says, else 0.5 s, doubled each time.
        breaker: when calls to a dead server stop, and when it is tried again.
        thinking: "maybe" takes a reply that the token limit cut for unfinished reasoning, unless
            the reply or the server tells reasoning apart; "none" is for models that never reason,
            whose cut replies are relayed with a mark.
        hedged_share: a call that takes longer than all but this share of the latest 200 to the
            model is sent to another of its endpoints as well, once one has a slot to spare. The
            first answer counts, the other call is cancelled. In [0, 0.5]; 0 never does.
        price: of a million tokens, for all its models; None if it is unknown. Models of different
            prices are in endpoints of their own.

    Raises:
        UserError: a value out of its range.
    """

    base_url: str
    models: Sequence[str]
    api_key_env: str | None = None
    max_live_calls: int = 64
    shared_slots: str | None = None
    call_timeout_s: float = 120.0
    max_retries: int = 2
    breaker: Breaker = field(default_factory=Breaker)
    thinking: Thinking = "maybe"
    hedged_share: float = 0.0
    price: Price | None = None

    def __post_init__(self) -> None:
        if not str(self.base_url).startswith(("http://", "https://")):
            raise UserError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        try:
            netloc = urlsplit(self.base_url).netloc
        except ValueError as error:
            raise UserError(f"base_url is no address: {self.base_url!r} ({error})") from None
        if "@" in netloc:
            raise UserError("base_url must hold no user and password: name a variable, api_key_env")
        if isinstance(self.models, str) or not self.models:
            raise UserError(f"models must be a non-empty tuple of names, not {self.models!r}")
        object.__setattr__(self, "models", tuple(self.models))
        whole(self, "max_live_calls", "max_retries")
        if not 1 <= self.max_live_calls <= _MOST_LIVE_CALLS:
            raise UserError(
                f"max_live_calls must be in [1, {_MOST_LIVE_CALLS}], not {self.max_live_calls}"
            )
        positive(self, "call_timeout_s")
        at_least(0, self, "max_retries")
        if self.thinking not in get_args(Thinking):
            raise UserError(f"thinking must be maybe or none, not {self.thinking!r}")
        at_least(0, self, "hedged_share")
        if self.hedged_share > _MOST_HEDGED:
            raise UserError(f"hedged_share must be in [0, {_MOST_HEDGED}], not {self.hedged_share}")

    def check_key(self) -> None:
        """Raise a `UserError` if the environment variable of the key is not set or empty."""
        if self.api_key_env is not None and not self.api_key:
            raise UserError(f"the environment variable {self.api_key_env} holds no key")

    @property
    def api_key(self) -> str:
        """The key; "" if the variable holds none, "none" for a server without one."""
        return "none" if self.api_key_env is None else os.environ.get(self.api_key_env, "")
