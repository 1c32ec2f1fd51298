"""[edge] Build the documentation's site, strictly: python -m website [FOLDER].

A copy of the pages is made in build/site-source, with what is made from the code: the settings,
the help of the commands, the public names of each package, examples and notebooks as pages,
tooltips for the words of the glossary. Zensical builds it (mkdocs.yml) into build/site; any
broken link, anchor or name ends it with an error. FOLDER holds the two in the place of build.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from website.pages import ROOT, pages

_ASSETS = (".png", ".svg", ".css")


def build(folder: Path) -> Path:
    """Write the site into `folder`/site and return that path.

    Raises:
        CalledProcessError: a page has a broken link, anchor or name; zensical has printed which.
        ValueError: as for `render`.
    """
    source, site = folder / "site-source", folder / "site"
    shutil.rmtree(source, ignore_errors=True)
    for asset in (*(ROOT / "docs").rglob("*"), *(ROOT / "website").glob("*.css")):
        if asset.suffix in _ASSETS:
            top = ROOT / "docs" if asset.is_relative_to(ROOT / "docs") else ROOT
            _write(source / asset.relative_to(top), asset.read_bytes())
    for name, text in pages().items():
        _write(source / name, text.encode())
    config = folder / "mkdocs.yml"
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    places = f"\ndocs_dir: {source.name}\nsite_dir: {site.name}\n"
    config.write_text(settings + places, encoding="utf-8")
    render(config)
    return site


def render(config: Path) -> None:
    """Let zensical build what a configuration says.

    Raises:
        CalledProcessError: as for `build`.
        ValueError: a docstring describes a parameter that does not exist; strict mode lets it pass.
    """
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    command += ["--config-file", str(config.resolve())]
    done = subprocess.run(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout, end="")
    done.check_returncode()
    if "griffe: " in done.stdout:
        raise ValueError("a docstring does not fit its signature; the output above says which")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    print(build(Path(*sys.argv[1:] or ["build"])) / "index.html")
