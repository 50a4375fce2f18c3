"""The page of the explorer in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from causal_sgd.analysis import final, summary
from causal_sgd.figures import explorer
from support.explorer import RATES, SPREADS, diagram

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None or DRIVER is None:
        pytest.skip(
            "no browser: install Debian's chromium and chromium-driver to test the explorer in one"
        )
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


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    def open_page(*datasets: Any, **options: Any) -> Any:
        named = {"HeteroSGD": diagram(), "PooledSGD": diagram(1)} if not datasets else datasets[0]
        path = explorer.write_page(tmp_path / "page.html", named, **options)
        browser.get(path.as_uri())
        wait(
            browser,
            lambda: (
                browser.execute_script("return document.documentElement.dataset.ready") == "true"
            ),
        )
        return browser

    yield open_page
    logged = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not logged


def wait(browser: Any, condition: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: condition())


def status(browser: Any) -> str:
    return browser.find_element("id", "cell").text


def median(dataset: xr.Dataset, metric: str, column: int, row: int) -> str:
    value = float(summary(final(dataset), metric)["median"].isel(spread=column, learning_rate=row))
    return f"{value:.4g}"


def place(browser: Any, column: int, row: int) -> tuple[float, float]:
    """The centre of a cell, in pixels from the centre of the diagram."""
    script = """
        const box = document.getElementById('diagram'), bounds = box.getBoundingClientRect();
        const {xaxis, yaxis} = box._fullLayout;
        const x = xaxis._offset + xaxis.d2p(arguments[0]);
        const y = yaxis._offset + yaxis.d2p(arguments[1]);
        return [x - bounds.width / 2, y - bounds.height / 2];
    """
    return tuple(browser.execute_script(script, float(SPREADS[column]), float(RATES[row])))


def point(browser: Any, column: int, row: int, *, click: bool = False) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    across, down = place(browser, column, row)
    actions = ActionChains(browser).move_to_element_with_offset(
        browser.find_element("id", "diagram"), round(across), round(down)
    )
    (actions.click() if click else actions).perform()


def test_hovering_over_a_cell_shows_its_numbers(visit) -> None:
    browser = visit()
    point(browser, 2, 1)
    wait(browser, lambda: browser.find_elements("css selector", "#diagram .hovertext"))
    shown = browser.find_element("css selector", "#diagram .hovertext").text
    assert f"median {median(diagram(), 'spurious_signal', 2, 1)}" in shown
    assert f"heterogeneity M = {SPREADS[2]:g}" in shown


def test_clicking_a_cell_draws_its_trajectories(visit) -> None:
    browser = visit()
    point(browser, 4, 3, click=True)
    wait(browser, lambda: f"step: {median(diagram(), 'spurious_signal', 4, 3)};" in status(browser))
    drawn = browser.execute_script(
        "return document.getElementById('trajectories').data.map(t => Array.from(t.y))"
    )
    assert len(drawn) == 6  # two edges of the band and the median, for two methods
    expected = summary(diagram(), "spurious_signal").isel(spread=4, learning_rate=3)
    np.testing.assert_allclose(drawn[2], expected["median"].values, rtol=1e-6)
    np.testing.assert_allclose(drawn[0], expected.low.values, rtol=1e-6)


def test_the_status_reports_thinned_and_missing_frames(visit) -> None:
    thinned = status(visit({"": diagram()}, most_numbers=2 * 35 * 3 * 2))
    assert "This page contains 2 of 5 recorded steps." in thinned
    assert "record_every" not in thinned
    browser = visit({"": diagram().isel(step=[0, -1])})
    text = status(browser)
    assert "Only the first and the last step were recorded (record_every records more)." in text
    modes = browser.execute_script(
        "return document.getElementById('trajectories').data.map(t => t.mode)"
    )
    assert modes == ["lines", "lines", "lines+markers"]  # the edges of the band and the median


def test_the_keyboard_reaches_every_cell(visit) -> None:
    browser = visit()
    box = browser.find_element("id", "diagram")
    for key, column, row in (
        ("HOME", 0, 2),
        ("PAGE_DOWN", 0, 0),
        ("ARROW_RIGHT", 1, 0),
        ("ARROW_UP", 1, 1),
    ):
        from selenium.webdriver.common.keys import Keys

        box.send_keys(getattr(Keys, key))
        assert f"step: {median(diagram(), 'spurious_signal', column, row)};" in status(browser)
    box.send_keys(Keys.END, Keys.PAGE_UP)
    assert "100 % of 6 runs diverged" in status(browser)


def test_switches_change_metric_method_quantile_and_scale(visit) -> None:
    from selenium.webdriver.support.ui import Select

    browser = visit()

    def shown() -> np.ndarray:
        z = browser.execute_script("return document.getElementById('diagram').data[0].z")
        return np.array(z, float)

    def expected(dataset: xr.Dataset, metric: str, level: str) -> np.ndarray:
        table = summary(final(dataset), metric).transpose("learning_rate", "spread")
        return np.where(table.diverged_fraction >= 0.5, np.nan, table[level])

    np.testing.assert_allclose(shown(), expected(diagram(), "spurious_signal", "median"), rtol=1e-6)
    Select(browser.find_element("id", "metric")).select_by_index(1)
    np.testing.assert_allclose(shown(), expected(diagram(), "batch_loss", "median"), rtol=1e-6)
    Select(browser.find_element("id", "view")).select_by_visible_text("PooledSGD")
    np.testing.assert_allclose(shown(), expected(diagram(1), "batch_loss", "median"), rtol=1e-6)
    Select(browser.find_element("id", "shown")).select_by_visible_text("90 % quantile")
    np.testing.assert_allclose(shown(), expected(diagram(1), "batch_loss", "high"), rtol=1e-6)
    browser.find_element("id", "log").click()
    np.testing.assert_allclose(
        shown(), np.log10(expected(diagram(1), "batch_loss", "high")), rtol=1e-5
    )
    Select(browser.find_element("id", "shown")).select_by_visible_text("diverged fraction")
    fractions = summary(final(diagram(1)), "batch_loss").diverged_fraction.transpose(
        "learning_rate", "spread"
    )
    np.testing.assert_allclose(shown(), fractions.values, rtol=1e-6)
    title = browser.find_element("id", "diagram-title").text
    assert title == "PooledSGD: fraction of diverged runs"
    browser.refresh()  # the address holds the state
    wait(browser, lambda: browser.find_element("id", "diagram-title").text == title)


def test_the_keyboard_works_with_ten_thousand_cells(visit) -> None:
    from selenium.webdriver.common.keys import Keys

    large = diagram(spreads=np.linspace(0, 9, 100), rates=np.geomspace(0.02, 0.2, 100), seeds=3)
    browser = visit({"": large})
    browser.find_element("id", "diagram").send_keys(
        Keys.HOME, Keys.PAGE_DOWN, *[Keys.ARROW_RIGHT] * 10
    )
    assert f"step: {median(large, 'spurious_signal', 10, 0)};" in status(browser)
