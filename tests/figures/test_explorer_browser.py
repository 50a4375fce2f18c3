"""The page of the explorer in a real browser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from causal_sgd.analysis import final, summary
from causal_sgd.figures import explorer
from support.browser import chromium, wait
from support.explorer import RATES, SPREADS, STEPS, deep, diagram

TWO = {"HeteroSGD": diagram(), "PooledSGD": diagram(1)}
COMPARED = "compare=dataset&with=PooledSGD"
browser = pytest.fixture(chromium, scope="module")


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    def open_page(datasets: Any = TWO, *, at: str = "", **options: Any) -> Any:
        path = explorer.write_page(tmp_path / "page.html", datasets, **options)
        new_tab(browser)  # with a history of its own, of which Chromium keeps 50 entries
        browser.get(f"{path.as_uri()}#{at}")
        wait_until_ready(browser)
        return browser

    yield open_page
    logged = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not logged


def new_tab(browser: Any) -> None:
    old = browser.current_window_handle
    browser.switch_to.new_window("tab")
    new = browser.current_window_handle
    browser.switch_to.window(old)
    browser.close()
    browser.switch_to.window(new)


def wait_until_ready(browser: Any) -> None:
    script = "return document.documentElement.dataset.ready"
    wait(browser, lambda: browser.execute_script(script) == "true")


def go(browser: Any, steps: int) -> None:
    """Go through the history, unlike the driver also to entries that no person visited."""
    browser.execute_script("history.go(arguments[0])", steps)


def text(browser: Any, identifier: str) -> str:
    return browser.find_element("id", identifier).text


def choose(browser: Any, identifier: str, words: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", identifier)).select_by_visible_text(words)


def options_of(browser: Any, identifier: str) -> list[str]:
    found = browser.find_elements("css selector", f"#{identifier} option")
    return [option.text for option in found]


def colours(browser: Any, panel: int = 0) -> np.ndarray:
    """What the colours of a panel show, [row, column]; NaN where a cell has another mark."""
    script = """
        const {table, xs, ys} = explorer.stages[arguments[0]];
        return [xs.length - 1, ys.length - 1, Array.from(table.z)];
    """
    columns, rows, values = browser.execute_script(script, panel)
    return np.array(values, float).reshape(rows, columns)


def expected(dataset: xr.Dataset, metric: str, level: str = "median") -> np.ndarray:
    table = summary(final(dataset), metric).transpose("learning_rate", "spread")
    return np.where(table.diverged_fraction >= 0.5, np.nan, table[level])


def median(dataset: xr.Dataset, metric: str, column: int, row: int) -> str:
    value = float(summary(final(dataset), metric)["median"].isel(spread=column, learning_rate=row))
    return f"{value:.4g}"


def point(browser: Any, column: int, row: int, *, panel: int = 0, click: bool = False) -> None:
    """Move the mouse to a cell of a panel."""
    from selenium.webdriver.common.action_chains import ActionChains

    script = """
        const {over, xs, ys} = explorer.stages[arguments[0]], bounds = over.getBoundingClientRect();
        const [column, row] = [arguments[1], arguments[2]];
        return [(xs[column] + xs[column + 1] - bounds.width) / 2,
          (-ys[row] - ys[row + 1] - bounds.height) / 2];
    """
    across, down = browser.execute_script(script, panel, column, row)
    over = browser.find_elements("css selector", "#diagram canvas.over")[panel]
    actions = ActionChains(browser).move_to_element_with_offset(over, round(across), round(down))
    (actions.click() if click else actions).perform()


def cursor(browser: Any, panel: int, column: int, row: int) -> bool:
    """Whether the cursor's canvas of a panel has an outline around a cell."""
    script = """
        const {over, xs, ys} = explorer.stages[arguments[0]], pen = over.getContext("2d");
        const [column, row] = [arguments[1], arguments[2]], ratio = window.devicePixelRatio;
        const x = xs[column] * ratio, y = -(ys[row] + ys[row + 1]) / 2 * ratio;
        return Array.from(pen.getImageData(x - 2, y - 2, 5, 5).data).some(v => v > 0);
    """
    return browser.execute_script(script, panel, column, row)


def send(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.find_element("id", "diagram").send_keys(*(getattr(Keys, key) for key in keys))


def shown_tips(browser: Any) -> list[str]:
    return [tip.text for tip in browser.find_elements("css selector", ".tip") if tip.text]


def test_hovering_over_a_cell_shows_its_numbers(visit) -> None:
    browser = visit()
    point(browser, 2, 1)
    wait(browser, lambda: shown_tips(browser))
    (tip,) = shown_tips(browser)
    assert f"median {median(diagram(), 'spurious_signal', 2, 1)}" in tip
    assert f"heterogeneity M = {SPREADS[2]:g}" in tip
    assert cursor(browser, 0, 2, 1)


def test_clicking_a_cell_draws_its_trajectories(visit) -> None:
    browser = visit()
    point(browser, 4, 3, click=True)
    value = median(diagram(), "spurious_signal", 4, 3)
    wait(browser, lambda: f"at the last step: median {value}" in text(browser, "cell"))
    drawn = browser.execute_script("return explorer.trajectories.series")
    assert [line["name"] for line in drawn] == ["HeteroSGD", "PooledSGD"]
    assert drawn[0]["xs"] == STEPS.tolist()
    table = summary(diagram(), "spurious_signal").isel(spread=4, learning_rate=3)
    for ours, theirs in (("middle", "median"), ("low", "low"), ("high", "high")):
        # Trajectories have two bytes a number.
        np.testing.assert_allclose(drawn[0][ours], table[theirs].values, rtol=2e-4)


@pytest.mark.slow
def test_the_browser_decodes_trajectories_as_python_does(visit) -> None:
    from causal_sgd.figures.explorer._packing import restored
    from causal_sgd.figures.explorer._payload import payload

    dataset = diagram()
    dataset["batch_loss"] = np.log(dataset["batch_loss"])  # of both signs
    browser = visit(dataset)
    content = payload({"": dataset})
    assert content["tracks"] is not None
    tracks = restored(content["tracks"], (2, 35, len(STEPS), 3))
    for metric in (0, 1):
        script = "return [3, 34].map(cell => explorer.trackAt(arguments[0], 2, cell))"
        shown = np.array(browser.execute_script(script, metric), float)
        np.testing.assert_allclose(shown, tracks[metric, [3, 34], :, 2], rtol=1e-6)


@pytest.mark.slow
def test_the_page_says_which_steps_it_has(visit) -> None:
    thinned = text(visit(diagram(), most_numbers=2 * 35 * 3 * 2), "frames")
    assert "This page contains 2 of 5 recorded steps." in thinned
    assert "record_every" not in thinned
    two = text(visit(diagram().isel(step=[0, -1])), "frames")
    assert "Only the first and the last step were recorded (record_every records more)." in two
    one = text(visit(final(diagram())), "frames")
    assert "Only the last step was recorded (record_every records more)." in one
    none = text(visit(diagram(), most_numbers=1), "frames")
    assert "The trajectories of so many cells do not fit on a page." in none


def test_the_keyboard_reaches_every_cell(visit) -> None:
    browser = visit(diagram())
    for key, column, row in (
        ("HOME", 0, 2),
        ("PAGE_DOWN", 0, 0),
        ("ARROW_RIGHT", 1, 0),
        ("ARROW_UP", 1, 1),
    ):
        send(browser, key)
        value = median(diagram(), "spurious_signal", column, row)
        assert f"at the last step: median {value}" in text(browser, "cell")
        assert cursor(browser, 0, column, row)
    send(browser, "END", "PAGE_UP")
    assert "100 % of 6 runs diverged" in text(browser, "cell")


def test_everything_has_a_name_for_readers_of_the_screen(visit) -> None:
    browser = visit(deep(), at="compare=variant&with=irmv1")
    for control in browser.find_elements("css selector", "select, input, button"):
        assert control.accessible_name, control.get_attribute("id")
    box = browser.find_element("id", "diagram")
    assert "arrow keys" in box.accessible_name
    assert box.get_attribute("tabindex") == "0"
    live = browser.find_element("id", "cell")
    assert (live.aria_role, live.get_attribute("aria-live")) == ("status", "polite")


def test_menus_change_metric_method_quantile_and_scale(visit) -> None:
    browser = visit()
    np.testing.assert_allclose(colours(browser), expected(diagram(), "spurious_signal"), rtol=1e-6)
    choose(browser, "metric", "batch loss")
    np.testing.assert_allclose(colours(browser), expected(diagram(), "batch_loss"), rtol=1e-6)
    choose(browser, "at-dataset", "PooledSGD")
    choose(browser, "shown", "90 % quantile")
    high = expected(diagram(1), "batch_loss", "high")
    np.testing.assert_allclose(colours(browser), high, rtol=1e-6)
    browser.find_element("id", "log").click()
    np.testing.assert_allclose(colours(browser), np.log10(high), rtol=1e-5)
    choose(browser, "shown", "diverged fraction")
    fractions = summary(final(diagram(1)), "batch_loss").diverged_fraction
    expected_fractions = fractions.transpose("learning_rate", "spread").values
    np.testing.assert_allclose(colours(browser), expected_fractions, rtol=1e-6)
    browser.refresh()  # the address holds the view
    wait_until_ready(browser)
    np.testing.assert_allclose(colours(browser), expected_fractions, rtol=1e-6)


@pytest.mark.slow
def test_any_two_axes_are_those_of_the_diagram_and_the_others_controls(visit) -> None:
    browser = visit(deep())
    everything = summary(final(deep()), "spurious_signal").sortby("batch_size")
    lost = everything.diverged_fraction >= 0.5
    table = everything["median"].where(~lost)
    # The others begin at the middle of numbers and at the first of names.
    choose(browser, "x", "learning rate η")
    choose(browser, "y", "batch size m")
    shown = table.isel(variant=0, spread=3).transpose("batch_size", "learning_rate")
    np.testing.assert_allclose(colours(browser), shown.values, rtol=1e-6)
    assert browser.find_element("id", "at-spread").get_attribute("type") == "range"
    assert options_of(browser, "at-variant") == ["erm", "irmv1"]
    slider = browser.find_element("id", "at-spread")
    browser.execute_script(
        "arguments[0].value = 5; arguments[0].dispatchEvent(new Event('input'))", slider
    )
    shown = table.isel(variant=0, spread=5).transpose("batch_size", "learning_rate")
    wait(browser, lambda: np.allclose(colours(browser), shown.values, 1e-6, equal_nan=True))
    choose(browser, "y", "variant")  # names as rows
    shown = table.isel(spread=5, batch_size=1).transpose("variant", "learning_rate")
    np.testing.assert_allclose(colours(browser), shown.values, rtol=1e-6)
    choose(browser, "x", "variant")  # the axes change places
    np.testing.assert_allclose(colours(browser), shown.values.T, rtol=1e-6)


def test_two_methods_are_compared_with_one_scale_a_linked_cursor_and_their_difference(
    visit,
) -> None:
    browser = visit()
    choose(browser, "compare", "dataset")
    first, second = (expected(diagram(seed), "spurious_signal") for seed in (0, 1))
    for panel, wanted in enumerate((first, second, second - first)):
        np.testing.assert_allclose(colours(browser, panel), wanted, rtol=1e-5, atol=1e-6)
    bars = browser.execute_script("return explorer.stages.map(stage => stage.barTicks)")
    assert bars[0] == bars[1], "one scale"
    signed = [float(label) for label in bars[2]]
    assert signed == [-value for value in reversed(signed)], "centred at 0"
    point(browser, 1, 2, panel=1)
    wait(browser, lambda: shown_tips(browser))
    assert all(cursor(browser, panel, 1, 2) for panel in range(3))
    (tip,) = shown_tips(browser)
    assert f"A, HeteroSGD: median {first[2, 1]:.4g}" in tip
    assert f"B, PooledSGD: median {second[2, 1]:.4g}" in tip
    assert f"difference B - A of the medians: {second[2, 1] - first[2, 1]:.4g}" in tip
    browser.find_element("id", "log").click()
    ratio = np.log10(second / first)
    np.testing.assert_allclose(colours(browser, 2), ratio, rtol=1e-4, atol=1e-5)
    browser.find_element("id", "difference").click()
    assert len(browser.find_elements("css selector", "#diagram figure")) == 2


@pytest.mark.slow
def test_two_values_or_two_metrics_are_compared(visit) -> None:
    diagram_of = "x=spread&y=learning_rate&"
    browser = visit(deep(), at=diagram_of + "compare=batch_size&with=40&at.batch_size=10")
    everything = final(deep()).isel(variant=0)
    for panel, size in ((0, 10), (1, 40)):
        wanted = expected(everything.sel(batch_size=size), "spurious_signal")
        np.testing.assert_allclose(colours(browser, panel), wanted, rtol=1e-6)
    titles = browser.execute_script("return explorer.stages.map(stage => stage.title.textContent)")
    assert titles == ["A: batch size m = 10", "B: batch size m = 40", "difference: B - A"]
    choose(browser, "compare", "metrics")
    choose(browser, "metric", "weights[0]")
    choose(browser, "b", "weights[2]")
    for panel, component in ((0, 0), (1, 2)):
        chosen = everything.sel(batch_size=10).isel(weights_0=component)
        wanted = expected(chosen, "weights")
        np.testing.assert_allclose(colours(browser, panel), wanted, rtol=1e-5)


@pytest.mark.slow
def test_one_scale_for_all_slices_has_the_range_of_all(visit) -> None:
    browser = visit(deep(), at="x=spread&y=learning_rate&everywhere=1")
    table = summary(final(deep()), "spurious_signal")
    every = table["median"].where(table.diverged_fraction < 0.5)
    low, high = browser.execute_script("return explorer.stages[0].range")
    assert (low, high) == pytest.approx((float(every.min()), float(every.max())), rel=1e-6)


def test_one_axis_is_drawn_as_lines(visit) -> None:
    browser = visit(deep().isel(spread=2, batch_size=0))
    assert text(browser, "diagram-title").startswith("median of spurious signal")
    lines = browser.execute_script("return explorer.stages[0].series")
    assert [line["name"] for line in lines] == ["erm", "irmv1"]
    table = summary(final(deep()), "spurious_signal").isel(spread=2, batch_size=0)
    for index, line in enumerate(lines):
        lost = table.diverged_fraction[index] >= 0.5
        for ours, theirs in (("middle", "median"), ("low", "low"), ("high", "high")):
            wanted = table[theirs][index].where(~lost)
            np.testing.assert_allclose(np.array(line[ours], float), wanted, rtol=1e-6)
    send(browser, "HOME", "ARROW_UP", "ARROW_RIGHT")
    assert text(browser, "cell-title") == f"Trajectories at learning rate η = {RATES[1]:.4g}"
    point(browser, 3, 0)
    wait(browser, lambda: shown_tips(browser))
    assert f"irmv1: median {table['median'][1, 3]:.4g}" in shown_tips(browser)[0]


@pytest.mark.slow
def test_theory_is_drawn_where_it_holds(visit) -> None:
    ends = np.array([0.0, 9.0]), np.array([0.03, 0.1])
    curve = explorer.Curve("theory", "spread", "learning_rate", *ends, {"batch_size": 20.0})
    browser = visit(deep(), x="spread", y="learning_rate", curves=[curve])
    assert text(browser, "legend").splitlines()[0] == "theory"
    browser.execute_script("""
        const slider = document.getElementById("at-batch_size");
        slider.value = 0;
        slider.dispatchEvent(new Event("input"));
    """)
    wait(browser, lambda: "theory" not in text(browser, "legend"))
    browser = visit(deep(), x="learning_rate", y="spread", curves=[curve])
    assert "theory" in text(browser, "legend")  # with exchanged axes


@pytest.mark.slow
def test_cells_without_runs_are_drawn_as_part_of_the_nearest(visit) -> None:
    dataset = diagram()
    dims = ("spread", "learning_rate")
    visited = np.random.default_rng(3).uniform(size=(7, 5)) < 0.3
    done = np.repeat(visited[..., None], 6, -1)
    browser = visit(dataset.assign_coords(done=((*dims, "seed"), done)), merge=True)
    owner = browser.execute_script("return Array.from(explorer.stages[0].table.owner)")
    places = np.argwhere(visited.T)  # [row, column]
    for cell, own in enumerate(owner):
        row, column = divmod(cell, 7)
        distance = ((places - (row, column)) ** 2).sum(1)
        chosen = divmod(own, 7)
        assert visited.T[chosen]
        assert (chosen[0] - row) ** 2 + (chosen[1] - column) ** 2 == distance.min()
    browser.find_element("id", "merge").click()
    assert "not run" in text(browser, "legend")


@pytest.mark.slow
def test_the_address_restores_a_view_and_the_history_goes_back(visit) -> None:
    browser = visit()
    choose(browser, "compare", "dataset")
    choose(browser, "metric", "batch loss")
    browser.find_element("id", "log").click()
    point(browser, 2, 1, panel=1, click=True)
    view = browser.execute_script("return JSON.stringify(explorer.state)")
    link = browser.current_url
    fragment = link.partition("#")[2]
    for part in (COMPARED, "metric=batch_loss", "log=1", f"at.spread={SPREADS[2]:g}"):
        assert part in fragment
    new_tab(browser)
    browser.get(link)
    wait_until_ready(browser)
    assert browser.execute_script("return JSON.stringify(explorer.state)") == view
    browser = visit()
    choose(browser, "metric", "batch loss")
    choose(browser, "shown", "25 % quantile")
    go(browser, -1)
    wait(browser, lambda: text(browser, "diagram-title") == "median of batch loss")
    assert browser.find_element("id", "metric").get_property("selectedIndex") == 1
    go(browser, -1)
    wait(browser, lambda: "median of spurious signal" in text(browser, "diagram-title"))
    go(browser, 2)
    wait(browser, lambda: text(browser, "diagram-title") == "25 % quantile of batch loss")


@pytest.mark.slow
def test_moves_of_the_cursor_do_not_fill_the_history(visit) -> None:
    browser = visit()
    choose(browser, "metric", "batch loss")
    send(browser, "HOME", "ARROW_RIGHT")
    moved = f"at.spread={SPREADS[1]:g}"
    wait(browser, lambda: moved in browser.current_url)
    go(browser, -1)
    wait(browser, lambda: "median of spurious signal" in text(browser, "diagram-title"))
    assert "#metric" not in browser.current_url


@pytest.mark.parametrize(
    ("address", "ignored"),
    [
        ("metric=nothing&log=1", "metric=nothing"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("at.spread=77&at.dim=3", "at.spread=77; at.dim=3"),
                ("x=spread&y=spread", "x and y, which are the same axis"),
                ("compare=spread&with=0.0", "compare=spread"),
                ("show=0.3&log=yes", "show=0.3; log=yes"),
                ("%7B%22metric%22%3A0%7D&&=", '{"metric":0}'),
            )
        ),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ],
)
def test_what_an_address_has_beyond_the_page_is_ignored_with_a_message(
    address: str, ignored: str, visit
) -> None:
    browser = visit(at=address)
    assert text(browser, "note").startswith(
        f"Ignored in the address, because it does not fit this page: {ignored}"
    )
    np.testing.assert_array_equal(colours(browser).shape, (5, 7))
    choose(browser, "metric", "batch loss")
    go(browser, -1)
    wait(browser, lambda: text(browser, "note"))


@pytest.mark.slow
def test_ticks_never_overlap_and_have_one_notation(browser: Any, visit) -> None:
    browser = visit()
    script = """
        const [low, high, log, length] = arguments;
        return explorer.chooseTicks(explorer.makeScale(low, high, log), length,
          label => 7 * label.length, 10).map(tick => [tick.value, tick.label, tick.unit]);
    """

    def ticks(low: float, high: float, *, log: bool, length: int = 400) -> list[Any]:
        return browser.execute_script(script, low, high, log, length)

    def labels(*arguments: Any, **options: Any) -> list[str]:
        return [label for _, label, _ in ticks(*arguments, **options)]

    assert labels(0.017, 0.23, log=True) == ["0.02", "0.05", "0.1", "0.2"]
    assert labels(0.03, 0.08, log=True) == ["0.03", "0.04", "0.05", "0.06", "0.07", "0.08"]
    assert labels(1e-6, 1e3, log=True, length=200) == [
        f"10{n}" for n in ("⁻⁶", "⁻⁴", "⁻²", "⁰", "²")
    ]
    assert labels(0, 9, log=False) == [str(n) for n in range(10)]
    assert labels(-0.22, 0.22, log=False, length=250) == ["-0.2", "-0.1", "0.0", "0.1", "0.2"]
    assert labels(0, 3e8, log=False)[1] == "0.5·10⁸"
    rng = np.random.default_rng(0)
    for _ in range(60):
        log, length = bool(rng.integers(2)), int(rng.integers(60, 600))
        low = float(10.0 ** rng.uniform(-9, 5))
        high = low * float(10.0 ** rng.uniform(0.02, 9))
        drawn = ticks(low, high, log=log, length=length)
        case = low, high, log, length, drawn
        assert drawn, case
        assert all(-1e-6 <= place <= 1 + 1e-6 for _, _, place in drawn), case
        assert len({label for _, label, _ in drawn}) == len(drawn), case
        for (_, left, start), (_, right, end) in itertools.pairwise(drawn):
            assert (end - start) * length >= 7 * (len(left) + len(right)) / 2 + 10, case
        powers = ["·" in label or "⁻" in label for _, label, _ in drawn]
        if not log:
            decimals = {
                len(label.partition("·")[0].partition(".")[2])
                for _, label, _ in drawn
                if label != "0"
            }
            assert len(decimals) <= 1, case
        elif all(value < 1e4 and value > 1e-3 for value, _, _ in drawn):
            assert not any(powers), case


@pytest.mark.slow
def test_ten_thousand_cells_are_fluid(visit) -> None:
    large = diagram(spreads=np.linspace(0, 9, 100), rates=np.geomspace(0.02, 0.2, 100), seeds=3)
    browser = visit({"a": large, "b": large}, at="compare=dataset&with=b")
    send(browser, "HOME", "PAGE_DOWN", *["ARROW_RIGHT"] * 10)
    value = median(large, "spurious_signal", 10, 0)
    assert f"A, a: median {value}" in text(browser, "cell")
    script = """
        const {over} = explorer.stages[0], bounds = over.getBoundingClientRect(), times = [];
        for (let i = 0; i < 500; i++) {
          const event = new PointerEvent("pointermove", {
            clientX: bounds.left + 80 + (i * 7) % 200, clientY: bounds.top + 30 + (i * 11) % 280});
          const begin = performance.now();
          over.dispatchEvent(event);
          times.push(performance.now() - begin);
        }
        return times.sort((a, b) => a - b);
    """
    times = browser.execute_script(script)
    print(f"a move of the mouse takes {times[250]:.2f} ms, at most {times[-1]:.2f} ms")
    assert shown_tips(browser)
    frame = 1000 / 60
    assert times[len(times) // 2] < frame / 2, times[len(times) // 2]
    assert times[int(0.95 * len(times))] < frame, times[int(0.95 * len(times))]
