"""[edge] What a server says of itself: whether it answers, and which models it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from json import JSONDecodeError
from typing import TYPE_CHECKING

from eapo_env.api_client import MAX_REASON_CHARS, is_an_answer, log_once, open_client
from eapo_env.endpoints import Endpoint
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CHECK_TIMEOUT_S = 10.0
_NO_LIST = (404, 405, 501)
_REFUSALS = (400, 422, 429)
_MAX_SHOWN = 5


async def is_healthy(endpoint: Endpoint, client: AsyncOpenAI) -> bool:
    """Return whether a server answers: its `/health`, as vLLM has it, else its list of models.

    One that has neither page, and says so, is there.
    """
    once = client.with_options(timeout=_CHECK_TIMEOUT_S, max_retries=0)
    for page in (f"{endpoint.base_url.rstrip('/').removesuffix('/v1')}/health", "/models"):
        try:
            await once.get(page, cast_to=object)
        except Exception as error:
            if getattr(error, "status_code", None) not in _NO_LIST:
                return is_an_answer(error)
        else:
            return True
    return True


class NoAnswerError(UserError):
    """A server does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What came of asking an endpoint for its models.

    Args:
        failure: why it cannot be asked at all; "" if it can.
        served: the names that it lists; none where it has no list.
        missing: those of its models that it does not list.
    """

    failure: str = ""
    served: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why not all of its models can be asked; "" if they can."""
        if self.failure or not self.missing:
            return self.failure
        return f"serves {', '.join(self.served[:_MAX_SHOWN])}, not {', '.join(self.missing)}"


async def unreachable(endpoint: Endpoint) -> str:
    """Return why an endpoint, or one of its models, cannot be asked; "" if all can."""
    return (await reached(endpoint)).reason


async def reached(endpoint: Endpoint) -> Reach:
    """Return whether an endpoint can be asked, and which of its models it does not serve.

    It is asked for its list of models or, where it has none, as some gateways, for a token of each.
    """
    if not (api_key := endpoint.api_key):
        return Reach(failure=f"the environment variable {endpoint.api_key_env} holds no key")
    client = open_client(endpoint, api_key, timeout_s=_CHECK_TIMEOUT_S)
    try:
        served = await _served(client)
        if not served:
            for model in dict.fromkeys(endpoint.models):
                await _say_something(client, model)
            return Reach()
    except Exception as error:
        told = str(error.__cause__ or error).replace(api_key, "[key]")
        return Reach(failure=told[:MAX_REASON_CHARS])
    finally:
        await client.close()
    return _listed(endpoint, served)


def _listed(endpoint: Endpoint, served: Sequence[str]) -> Reach:
    """Return which models of an endpoint are not among those served; none if there is no list."""
    missing = dict.fromkeys(model for model in endpoint.models if model not in served)
    return Reach(served=tuple(served), missing=tuple(missing) if served else ())


async def endpoint_at(url: str) -> Endpoint:
    """Return the endpoint of all models that a server without a key lists.

    Args:
        url: with or without `/v1` at its end.

    Raises:
        UserError: it does not answer (`NoAnswerError`), or lists no model.
    """
    base_url = url.rstrip("/")
    base_url += "" if base_url.endswith("/v1") else "/v1"
    endpoint = Endpoint(base_url=base_url, models=("any",))
    client = open_client(endpoint, endpoint.api_key, timeout_s=_CHECK_TIMEOUT_S)
    try:
        served = await _served(client)
    except Exception as error:
        raise NoAnswerError(f"{base_url}: {error.__cause__ or error}") from None
    finally:
        await client.close()
    if not served:
        raise UserError(f"{base_url} lists no models: name them in experts.endpoints")
    return replace(endpoint, models=served)


async def _served(client: AsyncOpenAI) -> list[str]:
    """Return the names of the models that a server lists; none if it has no list."""
    try:
        return [model.id for model in (await client.models.list()).data]
    except JSONDecodeError:
        return []
    except Exception as error:
        if getattr(error, "status_code", None) in _NO_LIST:
            return []
        raise


async def _say_something(client: AsyncOpenAI, model: str) -> None:
    """Ask a model for a token; a refusal of the request is an answer, too."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        await client.post("/chat/completions", body=body, cast_to=object)
    except JSONDecodeError:
        return
    except Exception as error:
        if getattr(error, "status_code", None) not in _REFUSALS:
            raise


async def warn_of_unserved(endpoint: Endpoint, client: AsyncOpenAI) -> None:
    """Log the models that a server does not list: some servers answer with another in its place."""
    once = client.with_options(timeout=_CHECK_TIMEOUT_S, max_retries=0)
    try:
        served = await _served(once)
    except Exception:
        return  # the calls will say what is wrong
    if missing := _listed(endpoint, served).reason:
        log_once(f"{endpoint.base_url} {missing}: what it answers may be another model's")
