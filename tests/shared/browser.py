"""Headless Chromium for tests: the machine's own, driven by Selenium.

Where it is missing, tests that need it are skipped, unless the variable EAPO_BROWSER is "required",
as in continuous integration: then they fail. `CHROMIUM` and `CHROMEDRIVER` name other programs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_PROGRAMS = {"CHROMIUM": "chromium", "CHROMEDRIVER": "chromedriver"}
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1400,1000"),
)
PATIENCE_S = 60.0


@contextmanager
def chromium(*options: str) -> Iterator[Chrome]:
    """Yield a browser with a profile of its own; what its pages log is kept."""
    browser, driver = (shutil.which(os.environ.get(k, v)) for k, v in _PROGRAMS.items())
    if not (browser and driver):
        told = "Chromium and ChromeDriver are needed: apt-get install chromium chromium-driver"
        if os.environ.get("EAPO_BROWSER") == "required":
            pytest.fail(told)
        pytest.skip(told)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chosen = ChromeOptions()
        chosen.binary_location = browser
        for option in (*_OPTIONS, f"--user-data-dir={profile}", *options):
            chosen.add_argument(option)
        chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        opened = Chrome(options=chosen, service=Service(driver))
        try:
            yield opened
        finally:
            opened.quit()


class Page:
    """A page in a browser, as a reader sees and uses it; elements are named by id."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.wait_for(lambda: self.run("return document.documentElement.dataset.state"))

    @classmethod
    def of_file(cls, browser: Chrome, path: Path, tab: str) -> Page:
        browser.get("about:blank")  # a change of the part after # alone would load nothing
        return cls(browser, f"{path.absolute().as_uri()}#{tab}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait_for(self, holds: Callable[[], Any]) -> Any:
        """Return what a function returns once it is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert time.monotonic() < deadline, self.text("status")
            time.sleep(0.02)
        return found

    def text(self, name: str) -> str:
        """The text of an element, shown or not."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def click(self, name: str) -> None:
        self.browser.find_element("id", name).click()

    def choose(self, name: str, value: str) -> None:
        """Choose an option, or type into a field, as a reader would."""
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "for (const t of ['input', 'change']) e.dispatchEvent(new Event(t, {bubbles: true}))",
            name,
            value,
        )

    def options(self, name: str) -> list[str]:
        """The values of the options of a select."""
        found: list[str] = self.run(
            "return [...document.getElementById(arguments[0]).options].map(o => o.value)", name
        )
        return found

    def texts(self, selector: str) -> list[str]:
        """The texts of the elements of a CSS selector."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )
        return found

    def problems(self) -> list[str]:
        """What the browser's console has logged since the last look."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log]
