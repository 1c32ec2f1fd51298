"""[edge] The HTTP client of an endpoint, and how its errors read."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from eapo_env.endpoints import Endpoint

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LOG = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 5.0
MAX_REASON_CHARS = 300
"""A longer reason of a failure is cut there."""


def open_client(endpoint: Endpoint, api_key: str, *, timeout_s: float) -> AsyncOpenAI:
    """Return a client, whose caller closes it."""
    from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout

    timeout = Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=api_key,
        timeout=timeout,
        max_retries=endpoint.max_retries,
        http_client=DefaultAioHttpClient(timeout=timeout),
    )


def told(error: Exception) -> str:
    """Return an error's kind and text: the server's message if there is one, else its cause.

    The text of openai's own errors has more or less of that, depending on its version; their kind
    can mislead: a connection that is refused is an `APITimeoutError`.
    """
    match getattr(error, "status_code", None), getattr(error, "body", None):
        case int(status), {"message": str(message)}:
            return f"{type(error).__name__}: Error code: {status} - {message}"
    text = str(error.__cause__ or "") or str(error)
    found: BaseException = error
    cause = error.__cause__
    while cause is not None:
        found = cause if str(cause) == text else found
        cause = cause.__cause__
    return f"{type(found).__name__}: {text}"


def is_an_answer(error: Exception) -> bool:
    """Return whether the server answered, though not as it was asked to."""
    status = getattr(error, "status_code", None)
    return isinstance(error, ValueError) if status is None else int(status) < 500


@cache
def log_once(text: str) -> None:
    """Log why a whole run does without an expert; once, not at every query."""
    _LOG.warning(text)
