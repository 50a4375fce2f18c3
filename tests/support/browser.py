"""A real browser without a window, for pages with scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


def chromium() -> Iterator[Any]:
    """The body of a fixture: a driver of Chromium, or a skipped test where there is none."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver to test pages in it")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def wait(browser: Any, condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda _: condition())


def ready(browser: Any) -> bool:
    """Whether the script of a page has run."""
    return browser.execute_script("return document.documentElement.dataset.ready") == "true"


def complaints(browser: Any) -> list[str]:
    """What the browser complained of, such as files that are missing or forbidden."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
