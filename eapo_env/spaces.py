"""`UnicodeText`: the Gymnasium space of all strings that UTF-8 can encode.

Gymnasium's `Text` has a fixed alphabet, checks every character in a Python loop, and under
`AsyncVectorEnv`'s shared memory returns the character "0" for every string, without an error. Here
membership depends on type, length and encoding; text never flattens to numbers; and shared memory,
which has a fixed size, is refused with an error that says what to pass.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from gymnasium.spaces import Text
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import batch_differing_spaces, create_shared_memory

from eapo_env.validation import UserError

_MAX_LENGTH = 2**31 - 1
SAMPLE_CHARS = 64
SAMPLE_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789\n+-*/=<>(){}\\$.,?éαπ∑√≤∞ℝ𝔽😀"

_Choice = tuple[int | None, Any] | None  # gymnasium's mask: a length, and weights of characters


class UnicodeText(Text):
    """The space of strings of `min_length` to `max_length` characters that UTF-8 can encode.

    All characters are allowed except lone surrogates. Two such spaces are equal if their lengths
    are. `sample` draws short strings from `SAMPLE_ALPHABET`: a uniform length up to `max_length`
    would be gigabytes.

    Args:
        max_length: the most characters.
        min_length: the fewest characters.
        seed: random seed or generator of `sample`.
    """

    def __init__(
        self,
        max_length: int = _MAX_LENGTH,
        *,
        min_length: int = 0,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(max_length, min_length=min_length, charset=SAMPLE_ALPHABET, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a string of the right length that UTF-8 can encode."""
        return (
            isinstance(x, str) and self.min_length <= len(x) <= self.max_length and _is_encodable(x)
        )

    def sample(self, mask: _Choice = None, probability: _Choice = None) -> str:
        """Return a random string of at most `SAMPLE_CHARS` characters, unless it must be longer.

        `mask` and `probability` are those of `gymnasium.spaces.Text`, over `SAMPLE_ALPHABET`.
        """
        if mask is None and probability is None:
            mask = (None, None)
        return super().sample(self._short(mask), self._short(probability))

    def _short(self, choice: _Choice) -> _Choice:
        if choice is None or choice[0] is not None:
            return choice
        longest = min(self.max_length, max(self.min_length, SAMPLE_CHARS))
        return int(self.np_random.integers(self.min_length, longest + 1)), choice[1]

    @property
    def is_np_flattenable(self) -> bool:
        """False: a string of any length is no vector."""
        return False

    def __repr__(self) -> str:
        return f"UnicodeText({self.min_length}, {self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return (
            isinstance(other, UnicodeText)
            and self.min_length == other.min_length
            and self.max_length == other.max_length
        )


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@flatdim.register(UnicodeText)
def _flatdim(space: UnicodeText) -> NoReturn:
    raise ValueError(f"{space} has no flat size: its strings have no fixed length")


@flatten_space.register(UnicodeText)
def _flatten_space(space: UnicodeText) -> UnicodeText:
    return space


@flatten.register(UnicodeText)
@unflatten.register(UnicodeText)
def _flatten(space: UnicodeText, x: str) -> str:  # type: ignore[misc]  # Gymnasium's T
    return x


@create_shared_memory.register(UnicodeText)
def _create_shared_memory(space: UnicodeText, n: int = 1, ctx: Any = None) -> NoReturn:
    # Not Gymnasium's CustomSpaceError: AsyncVectorEnv would replace its message.
    raise UserError(
        f"{space} has strings of any length, and shared memory a fixed size: pass"
        " shared_memory=False to AsyncVectorEnv (vector_kwargs={'shared_memory': False} to"
        " make_vec), or leave vectorization_mode out to ask experts in one batch"
    )


batch_differing_spaces.register(UnicodeText, batch_differing_spaces.dispatch(Text))
