"""What is said of a file that cannot be written."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from eapo_env.disk import cannot_write, is_write_error


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def raise_another(error: OSError) -> None:
    """Raise an error of another type while that of the system is handled, as torch does."""
    try:
        raise error
    except OSError:
        raise RuntimeError("unexpected pos 4328640 vs 4328528")  # noqa: B904


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (error_of(errno.ENOSPC), r"no space left \(\d+ MB free in {folder}\)"),
        (error_of(errno.EDQUOT), r"the disk quota is used up in {folder}"),
        (error_of(errno.EFBIG), r"a file is larger than the limit on file sizes \(ulimit -f\)"),
        (error_of(errno.EACCES), r"\[Errno 13\] Permission denied"),
        (RuntimeError("No space left on device (os error 28)"), "no space left .*"),
        (RuntimeError("something else (os error 5)"), r"something else \(os error 5\)"),
    ],
)
def test_the_reason_is_said_in_words(error: Exception, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "not" / "made" / "yet"
    message = f"cannot write {path}: {reason.format(folder=tmp_path)}"
    assert re.fullmatch(message, str(cannot_write(path, error)))


def test_what_is_raised_during_the_systems_error_has_its_reason(tmp_path: Path) -> None:
    """A bug in handling another error stays a bug."""
    for number, expected in ((errno.ENOSPC, True), (errno.ENOENT, False)):
        with pytest.raises(RuntimeError) as caught:
            raise_another(error_of(number))
        assert is_write_error(tmp_path / "file", caught.value) is expected
