"""Which ids a sampler may draw: top-p, top-k and min-p as one value.

How they are applied to a distribution stands in `hf_sampling.py`; vLLM and other servers do it
themselves, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """The likeliest ids, among which one is drawn; by default all of them.

    Where several are set, min-p comes first, then top-k, then top-p of what these leave.

    Args:
        top_p: the fewest likeliest ids that together hold at least this share; 1 is all.
        top_k: this many of the likeliest ids; -1 is all (as in the paper's Table 5).
        min_p: the ids that are at least this many times as likely as the likeliest; 0 is all.

    Raises:
        ValueError: a value out of its range.
    """

    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k != -1 and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or -1 for all, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")

    @property
    def keeps_all(self) -> bool:
        """Whether every id may be drawn."""
        return self.top_p == 1 and self.top_k == -1 and self.min_p == 0

    def keeps_one(self, num_ids: int) -> bool:
        """Return whether, of so many ids, only the likeliest may be drawn, however they are spread.

        The likeliest of N ids holds at least 1/N.
        """
        return self.top_k == 1 or self.min_p == 1 or self.top_p * num_ids <= 1

    def __str__(self) -> str:
        return f"top_p={self.top_p:g}, top_k={self.top_k}, min_p={self.min_p:g}"


WHOLE = Truncation()
"""Every id may be drawn."""
