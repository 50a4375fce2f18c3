"""The report in a real browser: search, keyboard, address, and a narrow window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from causal_sgd import studies
from causal_sgd.studies.reproduction import outcomes, report
from support.browser import chromium, complaints, ready, wait
from support.studies import three_studies, write

browser = pytest.fixture(chromium, scope="module")

ABSENT = {"SPREADS =": "REQUIRES = {'no-package-of-this-name': 'data'}\nSPREADS ="}


@pytest.fixture(scope="module")
def folder(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on disk: a claim of the second study fails, the third is skipped."""
    out = tmp_path_factory.mktemp("report")
    shelves = contextlib.contextmanager(three_studies)
    with pytest.MonkeyPatch.context() as patch, shelves(out, patch) as shelf:
        write(shelf, "second-one", opened=9)
        write(shelf, "third-one", **ABSENT)  # pyright: ignore[reportArgumentType]
        done = list(outcomes(studies.NAMES, out))
        text = report(done, studies.NAMES, quick=False, seed=0, created="today")
    (out / "report.html").write_text(text, "utf-8")
    return out


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[str]:
    """The address of the report, of which the browser must not complain."""
    yield (folder / "report.html").as_uri()
    assert complaints(browser) == []


def visible(browser: Any, selector: str) -> list[str]:
    """The elements that are displayed: their study, or study and claim."""
    nodes = [one for one in browser.find_elements("css selector", selector) if one.is_displayed()]
    return [
        " ".join(filter(None, map(one.get_attribute, ("id", "data-of", "data-row"))))
        for one in nodes
    ]


def visit(browser: Any, address: str) -> Any:
    browser.get("about:blank")  # or only the fragment would change
    browser.get(address)
    wait(browser, lambda: ready(browser))
    return browser.find_element("id", "query")


@pytest.mark.slow
def test_words_narrow_studies_claims_and_failures_and_stay_in_the_address(
    browser: Any, page: str
) -> None:
    box = visit(browser, page)
    assert visible(browser, "article") == ["first-one", "second-one", "third-one"]
    assert visible(browser, "#failed tr[data-of]") == ["second-one open"]
    assert visible(browser, "#absent li") == ["third-one"]
    box.send_keys("half second")
    assert visible(browser, "article") == ["second-one"]
    assert visible(browser, "article tr[data-row]") == ["half"]
    assert visible(browser, ".contents tr[data-of]") == ["second-one"]
    assert visible(browser, "#failed, #absent") == []
    assert browser.find_element("id", "count").text == "1 of 3 studies, 1 of 4 claims"
    wait(browser, lambda: browser.current_url.endswith("#q=half+second"))
    browser.refresh()
    wait(browser, lambda: ready(browser))
    assert browser.find_element("id", "query").get_attribute("value") == "half second"
    assert visible(browser, "article") == ["second-one"]
    visit(browser, page + "#q=FAILS%20open")
    assert visible(browser, "article tr[data-row]") == ["open"]
    assert visible(browser, "#failed tr[data-of]") == ["second-one open"]
    visit(browser, page + "#q=unheard-of")
    assert visible(browser, "article, .contents tr[data-of], .group, .listed") == []
    assert "Nothing matches" in browser.find_element("id", "count").text


def test_the_search_works_from_the_keyboard(browser: Any, page: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    box = visit(browser, page)
    ActionChains(browser).send_keys("/", "third", Keys.ENTER).perform()
    assert box.get_attribute("value") == "third"
    assert browser.switch_to.active_element.get_attribute("id") == "third-one"
    ActionChains(browser).send_keys("/", Keys.ESCAPE).perform()
    assert box.get_attribute("value") == ""
    assert len(visible(browser, "article")) == 3
    wait(browser, lambda: browser.current_url == page)


def test_links_lead_to_studies_with_and_without_a_search(browser: Any, page: str) -> None:
    box = visit(browser, page + "#q=one")
    browser.find_element("css selector", ".contents a[href='#second-one']").click()
    wait(browser, lambda: browser.current_url.endswith("#q=one&at=second-one"))
    top = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    assert 0 <= browser.execute_script(top, "second-one") < 150
    visit(browser, page + "#q=one&at=second-one")
    assert 0 <= browser.execute_script(top, "second-one") < 150
    box = visit(browser, page + "#q=first")
    browser.execute_script("location.hash = 'second-one'")  # hidden, so that the search ends
    wait(browser, lambda: visible(browser, "#second-one"))
    assert box.get_attribute("value") == ""


def test_figures_are_shown_from_files_and_nothing_is_wider_than_a_phone(
    browser: Any, page: str
) -> None:
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visit(browser, page)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        figure = "const img = document.querySelector('#first-one img'); img.scrollIntoView();"
        browser.execute_script(figure)
        wait(browser, lambda: browser.execute_script(f"{figure} return img.naturalWidth") > 0)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
