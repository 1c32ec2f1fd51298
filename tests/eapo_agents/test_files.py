"""Folders that are whole or absent: on a full disk, and when a bug ends the writing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_files import small_files
from tiny_llama import tiny_llama

from eapo_agents.files import write_folder, write_text, writing
from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError


def save_text(folder: Path) -> None:
    (folder / "state.json").write_text("x" * 1000, encoding="utf-8")


def save_weights(folder: Path) -> None:
    save_file({"w": torch.zeros(1000)}, folder / "model.safetensors")


def save_learner(folder: Path) -> None:
    Learner(tiny_llama(), settings=LearnerSettings(device="cpu")).save(folder)


@pytest.mark.parametrize("write", [save_text, save_weights, save_learner])
def test_a_limit_on_file_sizes_is_called_so_whoever_writes(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    place = tmp_path / "step-1"
    message = re.escape(f"cannot write {place}: a file is larger than the limit on file sizes")
    with pytest.raises(UserError, match=message), small_files():
        write_folder(place, write, mode=0o644)
    assert not place.exists()


@pytest.mark.parametrize("write", [save_text, save_learner])
def test_a_full_disk_is_called_so_whoever_writes(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    """The device `/dev/full` has no room for anything."""
    place = tmp_path / "step-1"

    def without_room(folder: Path) -> None:
        for name in ("state.json", "learner.pt"):
            (folder / name).symlink_to("/dev/full")
        write(folder)

    message = rf"cannot write {place}: no space left \(\d+ MB free in {tmp_path}\)$"
    with pytest.raises(UserError, match=message):
        write_folder(place, without_room, mode=0o644)
    assert not place.exists()


def test_a_bug_in_writing_stays_a_bug(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        try:
            (folder / "nothing").read_text(encoding="utf-8")
        except OSError:
            raise KeyError("a bug") from None

    with pytest.raises(KeyError, match="a bug"):
        write_folder(tmp_path / "step-1", broken, mode=0o644)


def test_an_error_of_the_user_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folder"
    with pytest.raises(UserError, match=f"^cannot write {path}: "), writing(tmp_path / "other"):
        JsonLines(path).append({"n": 1})


def test_a_text_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'file' / 'text'}: "):
        write_text(tmp_path / "file" / "text", json.dumps({}))
