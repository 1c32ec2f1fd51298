"""The site as built: complete, strict, and without a network."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from browser import chromium

from eapo_agents.cli.settings import parts
from eapo_agents.training.config import TrainConfig
from website.__main__ import build, render
from website.generated import anchors, public_names

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def texts(site: Path) -> dict[str, str]:
    return {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
        for path in site.rglob("*.html")
    }


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_public_name_is_in_the_reference(texts: dict[str, str]) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', "".join(texts.values())))
    assert set(anchors(public_names()).values()) <= ids


def test_every_setting_and_every_command_is_there(texts: dict[str, str]) -> None:
    names = [row.name for part in parts(TrainConfig, TrainConfig(), "") for row in part.rows]
    assert all(f"<code>{name}</code>" in texts["settings.html"] for name in names)
    assert "usage: eapo train" in texts["commands.html"]


def test_every_page_is_in_the_navigation(texts: dict[str, str]) -> None:
    linked = set(re.findall(r'href="(?:\./)?([\w./-]+\.html)"', texts["index.html"]))
    assert set(texts) - {"404.html"} <= linked


def test_words_of_the_glossary_have_tooltips(texts: dict[str, str]) -> None:
    tooltip = r'<abbr [^>]*title="decides which replies enter the history">([Gg]ates?)</abbr>'
    assert len(re.findall(tooltip, texts["decisions.html"])) == 1
    assert "<abbr" not in texts["reference/eapo_env.html"]


def test_nothing_is_loaded_from_elsewhere(texts: dict[str, str]) -> None:
    for page, text in texts.items():
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]*)"', text)
        assert not [link for link in loaded if "://" in link or link.startswith("//")], page


def test_broken_links_end_the_build(
    tmp_path: Path, site: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Zensical's own check, with the options of `mkdocs.yml`."""
    source = tmp_path / "site-source"
    source.mkdir()
    (source / "index.md").write_text("[nowhere](nothing.md), [no anchor](#nothing)\n")
    config = (site.parent / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"(?ms)^nav:.*?^theme", "theme", config))
    with pytest.raises(CalledProcessError):
        render(tmp_path / "mkdocs.yml")
    assert "2 issues found" in "".join(capfd.readouterr())


@pytest.mark.parametrize("width", [360, 1300])
@pytest.mark.parametrize("page", ["index", "environment", "methods", "settings"])
def test_pages_fit_and_load_without_errors(address: str, page: str, width: int) -> None:
    with chromium() as browser:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(f"{address}/{page}.html")
        loaded = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert loaded
        assert all(name.startswith(address) for name in loaded)
        assert not browser.get_log("browser")
        overflow = (
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert browser.execute_script(overflow) <= 0
