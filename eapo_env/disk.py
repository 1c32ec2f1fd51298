"""[edge] Why a file could not be written, in words: a full disk, a quota, a limit on file sizes."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from eapo_env.validation import UserError

_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
"""Where safetensors and tokenizers name the operating system's error."""


def cannot_write(path: Path, error: BaseException) -> UserError:
    """Return the error of a file that could not be written: its path, and the reason in words."""
    return UserError(f"cannot write {path}: {_reason_in_words(path, error) or error}")


def is_write_error(path: Path, error: BaseException) -> bool:
    """Return whether an error says that a file could not be written.

    It is an `OSError`, or on a full disk what torch and safetensors raise instead of one.
    """
    return isinstance(error, OSError) or _reason_in_words(path, error) is not None


def _reason_in_words(path: Path, error: BaseException) -> str | None:
    numbers = set(_system_errors(error))
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if errno.ENOSPC in numbers:
        return f"no space left ({shutil.disk_usage(folder).free // 10**6} MB free in {folder})"
    if errno.EDQUOT in numbers:
        return f"the disk quota is used up in {folder}"
    if errno.EFBIG in numbers:
        return "a file is larger than the limit on file sizes (ulimit -f)"
    return None


def _system_errors(error: BaseException | None) -> Iterator[int]:
    """Yield the numbers (`errno`) of the operating system's errors behind an error.

    torch raises its own while it handles that of the system; safetensors gives the number in words.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            yield error.errno
        yield from map(int, _RUST_ERROR.findall(str(error)))
        error = error.__cause__ or error.__context__
