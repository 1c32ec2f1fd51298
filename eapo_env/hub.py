"""What names a repository of the Hugging Face hub, and what a file or folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"([\w.-]+)/[\w.-]+", re.ASCII)


def is_hub_id(path: str) -> bool:
    """Return whether a path is a hub id: `owner/name`, where no folder `owner` is here.

    So a run or file that is missing beside others (`runs/nothing`) is never looked for on the hub.
    """
    found = _HUB_ID.fullmatch(path)
    return found is not None and not Path(found[1]).is_dir()
