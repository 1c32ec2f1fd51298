"""Pools of served experts by short names: `7B+14B+32B`, `32B x3` (paper, Tables 6 and 10)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from eapo_env.endpoints import Endpoint

_PART = re.compile(r"\s*(.+?)(?:\s+x\s*([1-9][0-9]?))?\s*")


def pool_endpoints(pool: str, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Return an endpoint per expert of a pool: parallel queries meet them in this order.

    Args:
        pool: names of models joined by "+", each with " x3" behind it for three of them. A name is
            a model's own, or a part of it that only one model has, in any case of letters.
        endpoints: which models are served where.

    Raises:
        ValueError: a name that fits no model, or several.
    """
    experts: list[Endpoint] = []
    for part in pool.split("+"):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"a pool reads NAME+NAME or NAME x3, not {pool!r}")
        experts += [_served(match[1], endpoints)] * int(match[2] or 1)
    return tuple(experts)


def _served(name: str, endpoints: Sequence[Endpoint]) -> Endpoint:
    homes = {model: endpoint for endpoint in endpoints for model in endpoint.models}
    fits = [name] if name in homes else [m for m in homes if name.lower() in m.lower()]
    if len(fits) != 1:
        raise ValueError(f"{name!r} fits {fits or 'none'} of the served models {sorted(homes)}")
    return replace(homes[fits[0]], models=(fits[0],))
