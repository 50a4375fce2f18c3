"""The page of the explorer: its numbers, and the command that writes and serves it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import urllib.request
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from causal_sgd import cli
from causal_sgd.analysis import final, summary
from causal_sgd.cli import explore, serving
from causal_sgd.figures import explorer
from causal_sgd.figures.explorer._labels import plain_name
from causal_sgd.figures.explorer._packing import TOP, quantised, restored
from causal_sgd.figures.explorer._page import PROGRAM
from causal_sgd.figures.explorer._payload import LEVELS, Payload, payload
from support.explorer import RATES, SPREADS, STEPS, deep, diagram


def numbers(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def sizes(content: Payload) -> tuple[int, ...]:
    return tuple(len(axis["values"]) for axis in content["axes"])


def test_the_quantiles_of_the_page_are_those_of_the_summary() -> None:
    dataset = diagram()
    content = payload({"": dataset})
    assert [metric["name"] for metric in content["metrics"]] == ["spurious_signal", "batch_loss"]
    shape = sizes(content)
    assert shape == (len(SPREADS), len(RATES))
    shown = numbers(content["final"], 2, len(LEVELS), *shape)
    for place, metric in enumerate(("spurious_signal", "batch_loss")):
        table = summary(final(dataset), metric, (0.1, 0.9)).transpose("spread", "learning_rate")
        for level, name in ((0, "low"), (2, "median"), (4, "high")):
            np.testing.assert_allclose(shown[place, level], table[name].values, rtol=1e-6)
    lost = numbers(content["diverged"], *shape)
    np.testing.assert_allclose(lost, table.diverged_fraction.values, rtol=1e-6)
    assert lost[-1, -1] == 1
    assert np.isnan(shown[:, :, -1, -1]).all()


def test_trajectories_in_two_bytes_are_those_of_the_summary() -> None:
    content = payload({"": diagram()})
    assert content["tracks"] is not None
    tracks = restored(content["tracks"], (2, *sizes(content), len(STEPS), 3))
    bands = summary(diagram(), "batch_loss").transpose("spread", "learning_rate", "step")
    for band, name in enumerate(("low", "median", "high")):
        np.testing.assert_allclose(tracks[1, ..., band], bands[name].values, rtol=2e-4)


def test_quantised_trajectories_are_exact_to_what_a_scale_shows() -> None:
    rng = np.random.default_rng(0)
    decay = np.exp(-rng.uniform(0, 40, size=(50, 20, 3)))  # positive, over 17 decades
    signed = rng.normal(size=(50, 20, 3)) * 10.0 ** rng.integers(-8, 8, size=(50, 1, 1))
    for values in (decay, signed):
        shown = restored(quantised(values), values.shape)
        low, high = (end(values, (1, 2), keepdims=True) for end in (np.min, np.max))
        if (values > 0).all():
            bound = np.log(high / low) / TOP / 2 + 1e-5  # the rounding of float32 logarithms
            assert (abs(np.log(shown / values)) <= bound).all()
        else:
            bound = (high - low) / TOP / 2 + 2e-7 * abs(values).max((1, 2), keepdims=True)
            assert (abs(shown - values) <= bound).all()


def test_quantised_trajectories_keep_constants_and_what_is_missing() -> None:
    values = np.full((4, 2, 3), 2.5)
    values[1] = np.nan
    values[2, 0] = -np.inf
    values[3] = 0
    values[0, 1, 1] = 1e300  # beyond float32
    shown = restored(quantised(values), values.shape)
    expected = np.where(np.isfinite(values) & (values < 1e300), values, np.nan)
    np.testing.assert_allclose(shown, expected, rtol=1e-7)


def test_missing_runs_do_not_count() -> None:
    dataset = diagram()
    done = np.ones(dataset.diverged_at.shape, bool)
    done[0, 0, :4] = False
    content = payload({"": dataset.assign_coords(done=(dataset.diverged_at.dims, done))})
    runs = numbers(content["runs"], *sizes(content))
    assert (runs[0, 0], runs[1, 1]) == (2, 6)
    with pytest.raises(ValueError, match="at least one completed run, got none"):
        payload({"": dataset.assign_coords(done=dataset.diverged_at < -1)})


def test_frames_are_thinned_to_the_limit() -> None:
    content = payload({"": diagram()}, most_numbers=2 * 35 * 3 * 3)
    assert content["steps"] == [0, 20, 40]
    assert content["recorded"] == 5
    assert payload({"": diagram()}, most_numbers=0)["steps"] is None


def test_a_page_has_all_axes_in_ascending_order_and_names_as_they_are() -> None:
    content = payload({"": deep()}, x="learning-rate", y="batch-size")
    axes = {axis["name"]: axis for axis in content["axes"]}
    assert list(axes) == ["variant", "batch_size", "spread", "learning_rate"]
    assert [axis["numeric"] for axis in axes.values()] == [False, True, True, True]
    assert axes["variant"]["values"] == ["erm", "irmv1"]
    assert axes["batch_size"]["values"] == [10, 20, 40]  # stored as 40, 10, 20
    assert axes["learning_rate"]["log"]
    assert (content["x"], content["y"]) == ("learning_rate", "batch_size")
    shown = numbers(content["final"], len(content["metrics"]), len(LEVELS), *sizes(content))
    table = summary(final(deep()), "spurious_signal")["median"].sortby("batch_size")
    np.testing.assert_allclose(shown[0, 2], table.transpose(*axes).values, rtol=1e-6)


def test_vectors_are_shown_by_component_and_what_cannot_be_shown_is_named() -> None:
    content = payload({"": deep()})
    names = [metric["name"] for metric in content["metrics"]]
    assert names == ["spurious_signal", "batch_loss", "weights[0]", "weights[1]", "weights[2]"]
    assert content["left_out"] == [
        "spectrum, which has 17 numbers per run (at most 16 are shown)",
        "root, whose values are complex",
    ]
    shown = numbers(content["final"], len(names), len(LEVELS), *sizes(content))
    last = final(deep()).isel(weights_0=1).sortby("batch_size")
    dims = [axis["name"] for axis in content["axes"]]
    table = summary(last, "weights")["median"].transpose(*dims)
    np.testing.assert_allclose(shown[3, 2], table.values, rtol=1e-6)
    with pytest.raises(ValueError, match=r"got none that can be shown: root, whose.* complex"):
        payload({"": deep()[["root", "diverged_at"]]})


def test_several_datasets_are_an_axis() -> None:
    content = payload({"a": diagram(0), "b": diagram(1)})
    assert content["axes"][0]["values"] == ["a", "b"]
    both = xr.concat([diagram(0), diagram(1)], xr.Variable("variant", ["HeteroSGD", "PooledSGD"]))
    names = payload({"a": both, "b": diagram()})["axes"][0]["values"]
    assert names == ["a, HeteroSGD", "a, PooledSGD", "b"]
    axes = payload({"a": both, "b": both})["axes"]
    assert [axis["name"] for axis in axes] == ["dataset", "variant", "spread", "learning_rate"]


def test_one_axis_makes_lines() -> None:
    content = payload({"": diagram().isel(spread=0)})
    assert (content["x"], content["y"]) == ("learning_rate", None)
    named = deep().isel(spread=0, batch_size=0)
    assert payload({"": named})["y"] is None
    assert payload({"": named}, y="variant")["y"] == "variant"


def test_infinite_values_of_an_axis_are_names() -> None:
    axis = payload({"": diagram(rates=np.array([1.0, 3.0, np.inf]))})["axes"][1]
    assert (axis["numeric"], axis["values"]) == (False, ["1.0", "3.0", "inf"])


def test_curves_belong_to_axes_values_and_datasets() -> None:
    ends = np.array([0.1, 0.2]), np.array([3.0, 4.0])
    curve = explorer.Curve("theory", "learning_rate", "spread", *ends, {"batch_size": 20.0})
    (entry,) = payload({"": deep()}, curves=[curve])["curves"]
    assert (entry["x"], entry["y"], entry["at"]) == ("learning_rate", "spread", [[1, 1]])
    np.testing.assert_allclose(numbers(entry["xs"], 2), ends[0], rtol=1e-6)
    entries = payload({"a": diagram(), "b": diagram()}, curves={"b": {"theory": ends}})["curves"]
    assert [(each["x"], each["y"], each["at"]) for each in entries] == [
        ("spread", "learning_rate", [[0, 1]])
    ]
    named = payload({"": deep()}, curves={"irmv1": {"theory": ends}})["curves"]
    assert named[0]["at"] == [[0, 1]]
    for wrong, message in (
        ({"c": {"theory": ends}}, "a curve must be of one of the datasets 'a', 'b', got 'c'"),
        ([curve._replace(at={"spread": 77.0})], "must be at a value of 'spread', got 77.0"),
        ([curve._replace(x_axis="dim")], "the x axis of a curve must be one of"),
        ([curve._replace(at={}, xs=np.zeros(3))], "must be two arrays of one shape"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            payload({"a": diagram(), "b": diagram()}, curves=wrong)  # pyright: ignore


@pytest.mark.parametrize(
    ("datasets", "options", "message"),
    [
        ({}, {}, "name at least one"),
        (
            {"a": diagram(), "b": diagram(rates=RATES * 2)},
            {},
            "the same axes, got a different 'learning_rate' in 'b'",
        ),
        (
            {"a": diagram(), "b": diagram().expand_dims({"dim": [3]})},
            {},
            "the same axes, got also 'dim' in 'b'",
        ),
        (
            {"a": diagram(), "b": diagram().drop_vars("batch_loss")},
            {},
            "got no 'batch_loss' in 'b'",
        ),
        ({"a": diagram().isel(spread=0, learning_rate=0)}, {}, "at least one axis beside the"),
        ({"a": diagram().isel(spread=[])}, {}, "got none along 'spread'"),
        ({"a": diagram(rates=RATES * np.nan)}, {}, "got NaN along 'learning_rate'"),
        ({"a": diagram()}, {"x": "dim"}, "x must be"),
        ({"a": diagram()}, {"x": "spread", "y": "spread"}, "y must be"),
    ],
)
def test_datasets_that_form_no_diagram_are_refused(
    datasets: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        payload(datasets, **options)


def test_plain_names_have_no_tex() -> None:
    assert plain_name("learning_rate") == "learning rate η"
    assert plain_name("invariant_error") == "invariant error ‖UUᵀ - A*‖"
    assert plain_name("my_metric") == "my metric"
    from causal_sgd.figures._theme import NAMES

    assert not [name for name in NAMES if re.search(r"[\\$]", plain_name(name))]


def test_the_page_has_the_colours_and_marks_of_figures() -> None:
    import inspect

    import matplotlib as mpl

    from causal_sgd import figures
    from causal_sgd.figures import _theme

    look = payload({"": diagram()})["theme"]
    defaults = inspect.signature(figures.phase_diagram).parameters
    cividis = mpl.colormaps[defaults["cmap"].default]
    shown = np.frombuffer(base64.b64decode(look["map"]), "u1").reshape(256, 3)
    np.testing.assert_array_equal(shown, cividis(np.arange(256), bytes=True)[:, :3])
    assert look["colours"] == list(figures.COLOURS)
    assert len(look["dashes"]) == len(_theme.DASHES)
    assert look["diverged"] == {"face": "#dbdbdb", "edge": "#404040"}  # 0.86 and 0.25
    cells = resources.files("causal_sgd.figures.explorer").joinpath("program", "cells.js")
    threshold = re.search(r"THRESHOLD = ([0-9.]+)", cells.read_text("utf-8"))
    assert threshold is not None
    assert float(threshold[1]) == defaults["diverged"].default


def test_differences_are_white_at_zero() -> None:
    look = payload({"": diagram()})["theme"]
    shown = np.frombuffer(base64.b64decode(look["differences"]), "u1").reshape(256, 3)
    assert (shown[[127, 128]] > 240).all()
    np.testing.assert_array_equal(shown[0] > 100, [False, False, False])  # dark at both ends
    assert shown[0, 2] > shown[0, 0], "blue below"
    assert shown[255, 0] > shown[255, 2], "red above"


def test_the_page_is_self_contained_and_escapes_its_arguments() -> None:
    text = explorer.page(
        diagram(), title="<b>&", about={"cell": "</script><script>alert(1)</script>"}
    )
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert not re.findall(r"https?://", text)
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert "alert(1)</script>" not in text


def test_every_file_of_the_program_is_on_the_page() -> None:
    folder = resources.files("causal_sgd.figures.explorer").joinpath("program")
    assert {file.name for file in folder.iterdir()} == {f"{name}.js" for name in PROGRAM}
    text = explorer.page(diagram())
    for file in folder.iterdir():
        assert file.read_text("utf-8") in text


def test_names_inside_the_data_cannot_end_their_element() -> None:
    name = "<!--<script>&</script>"
    text = explorer.page({name: diagram(), "b": diagram()}, curves={name: {name: ([0, 1], [0, 1])}})
    data = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)
    assert data is not None
    assert not set("<>&") & set(data[1])
    assert json.loads(data[1])["axes"][0]["values"] == [name, "b"]


def test_a_page_of_ten_thousand_cells_is_of_moderate_size() -> None:
    large = diagram(spreads=np.linspace(0, 9, 100), rates=np.geomspace(0.02, 0.2, 100), seeds=3)
    assert len(explorer.page(large)) < 2e6


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "hetero.nc"
    from causal_sgd.experiment import Experiment

    dataset = diagram()
    dataset.attrs["experiment"] = json.dumps(Experiment().describe())
    dataset.to_netcdf(path, engine="scipy")
    diagram(1).to_netcdf(path.with_name("pooled.nc"), engine="scipy")
    return path


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code  # pyright: ignore


def test_explore_writes_a_page_with_the_theory_curve(stored: Path, capsys) -> None:
    assert run("explore", stored, stored.with_name("pooled.nc")) == 0
    assert "open it in a browser" in capsys.readouterr().out
    data = data_of(stored.with_suffix(".html"))
    assert data["axes"][0]["values"] == ["hetero", "pooled"]
    (curve,) = data["curves"]
    assert (curve["x"], curve["y"], curve["at"]) == ("spread", "learning_rate", [[0, 0]])
    spreads, rates = numbers(curve["xs"], -1), numbers(curve["ys"], -1)
    # The closed form for a mean of 1.
    np.testing.assert_allclose(spreads, np.sqrt(2 / rates + 1), rtol=1e-5)


def test_theory_follows_the_axes_and_the_slice() -> None:
    from causal_sgd.experiment import Experiment, theory_curve

    axes = {"mean": [0.5, 1.5], "spread": SPREADS, "learning_rate": RATES}
    runs = xr.Dataset({"diverged_at": ((*axes, "seed"), np.full((2, 7, 5, 1), -1))}, axes)
    found = explore.theory_curves(Experiment(), runs, "a")
    pairs = {(curve.x_axis, curve.y_axis) for curve in found}
    assert pairs == {("spread", "learning_rate"), ("spread", "mean"), ("learning_rate", "mean")}
    (curve,) = [each for each in found if each.at == {"mean": 1.5}]
    own = theory_curve(Experiment(mean=1.5), "spread", SPREADS, "learning_rate", RATES)
    assert own is not None
    np.testing.assert_array_equal(curve.xs, own["theory"][0])
    assert {
        each.at["learning_rate"]
        for each in found
        if each.y_axis == "mean" and each.x_axis == "spread"
    } == {*RATES}


def data_of(path: Path) -> Any:
    return json.loads(re.findall(r'(?s)id="data">(.*?)</script>', path.read_text("utf-8"))[0])


def test_a_page_is_written_again_but_another_file_only_with_force(
    stored: Path, tmp_path: Path, capsys
) -> None:
    path, page = tmp_path / "again.nc", tmp_path / "again.html"
    shutil.copy(stored, path)
    assert run("explore", path) == 0
    assert run("explore", path, "--x", "learning-rate") == 0
    assert data_of(page)["x"] == "learning_rate"
    capsys.readouterr()
    assert run("explore", path, "--out", page) == 2
    assert f"--out must be a new file, got {page}, which exists" in capsys.readouterr().err
    page.write_text("<p>my notes</p>")
    assert run("explore", path) == 2
    error = capsys.readouterr().err
    assert f"would replace {page}, which it did not write; replace it with --force" in error
    assert error.count("\n") == 1
    assert page.read_text() == "<p>my notes</p>"
    assert run("explore", path, "--force") == 0
    assert data_of(page)["x"] == "spread"


def test_a_store_without_a_completed_run_is_refused(tmp_path: Path, capsys) -> None:
    from causal_sgd.sweeps import sweep
    from support.stores import forget

    path = tmp_path / "none.zarr"
    axes = {"spread": [0.0, 1.0], "level": [0.0, 1.0]}
    sweep(constant, axes=axes, seeds=1, tile=4, store=path)
    forget(path, [0])
    assert run("explore", path) == 2
    error = capsys.readouterr().err
    assert f"{path} must have at least one completed run, got none" in error
    assert "causal-sgd status" in error
    assert error.count("\n") == 1


def constant(key: Any, *, spread: Any, level: Any) -> Any:
    import jax.numpy as jnp

    from causal_sgd.types import Trace

    return Trace(jnp.zeros(1, jnp.int32), {"sum": jnp.asarray(spread + level)[None]}, jnp.int32(-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at least one store"),
        (("nothing.nc",), "nothing.nc"),
        (("nothing.zarr",), "nothing.zarr"),
        (("diagram.txt",), "suffix"),
        (("HERE", "--out", "page.txt"), "--out must end in .html"),
        (("HERE", "--x", "dim"), "--x must be"),
        (("HERE", "--y", "dim"), "--y must be"),
        (("HERE", "--serve", "--port", "70000"), "--port must be"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    arguments: tuple[str, ...], message: str, stored: Path, capsys
) -> None:
    assert run("explore", *(stored if word == "HERE" else word for word in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_of_another_program_is_drawn_or_refused(
    stored: Path, tmp_path: Path, capsys
) -> None:
    other = xr.load_dataset(stored).assign_attrs(experiment="{not json")
    other.to_netcdf(tmp_path / "other.nc", engine="scipy")
    assert run("explore", tmp_path / "other.nc") == 0
    (tmp_path / "text.nc").write_text("no netCDF")
    assert run("explore", tmp_path / "text.nc") == 2
    assert (
        "text.nc must be a netCDF file of a sweep, got one that cannot be read"
        in capsys.readouterr().err
    )


def test_the_error_of_a_missing_library_names_it(stored: Path, monkeypatch, capsys) -> None:
    def half_installed(path: Path) -> xr.Dataset:
        raise ImportError("No module named 'h5py'")

    monkeypatch.setattr(xr, "load_dataset", half_installed)
    assert run("explore", stored) == 2
    assert "No module named 'h5py'; pip install 'causal_sgd[netcdf4]'" in capsys.readouterr().err


def test_a_served_page_is_read_again_on_each_visit(
    stored: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    path = tmp_path / "live.nc"
    shutil.copy(stored, path)
    servers = []
    plain = serving.http.server.ThreadingHTTPServer
    monkeypatch.setattr(
        serving.http.server,
        "ThreadingHTTPServer",
        lambda *a: servers.append(plain(*a)) or servers[0],
    )
    thread = threading.Thread(target=explore.Explore(paths=(path,), serve=True, port=0))
    thread.start()
    while not (output := capsys.readouterr().out):
        thread.join(0.05)
    address = output.split()[0]
    with urllib.request.urlopen(address) as answer:
        assert "live.nc" in answer.read().decode()
    path.unlink()
    with urllib.request.urlopen(address) as answer:
        assert "live.nc" in answer.read().decode()  # reports the missing file
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + "other")
    servers[0].shutdown()
    thread.join()
