"""The page of the explorer: its numbers, and the command that writes and serves it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from causal_sgd import cli
from causal_sgd.analysis import final, summary
from causal_sgd.cli import explore, serving
from causal_sgd.figures import explorer
from causal_sgd.figures.explorer._payload import LEVELS, payload, plain_name
from support.explorer import RATES, SPREADS, STEPS, diagram


def numbers(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def test_the_quantiles_of_the_page_are_those_of_the_summary() -> None:
    dataset = diagram()
    content = payload({"": dataset})
    assert [metric["name"] for metric in content["metrics"]] == ["spurious_signal", "batch_loss"]
    shown = numbers(content["views"][0]["final"], 2, len(LEVELS), len(RATES), len(SPREADS))
    for place, metric in enumerate(("spurious_signal", "batch_loss")):
        table = summary(final(dataset), metric, (0.1, 0.9)).transpose("learning_rate", "spread")
        for level, name in ((0, "low"), (2, "median"), (4, "high")):
            np.testing.assert_allclose(shown[place, level], table[name].values, rtol=1e-6)
    lost = numbers(content["views"][0]["diverged"], len(RATES), len(SPREADS))
    np.testing.assert_allclose(lost, table.diverged_fraction.values, rtol=1e-6)
    assert lost[-1, -1] == 1
    assert np.isnan(shown[:, :, -1, -1]).all()
    tracks = numbers(content["views"][0]["tracks"], 2, len(RATES), len(SPREADS), len(STEPS), 3)
    bands = summary(dataset, "batch_loss").transpose("learning_rate", "spread", "step")
    np.testing.assert_allclose(tracks[1, ..., 1], bands["median"].values, rtol=1e-6)


def test_missing_runs_do_not_count() -> None:
    dataset = diagram()
    done = np.ones(dataset.diverged_at.shape, bool)
    done[0, 0, :4] = False
    content = payload({"": dataset.assign_coords(done=(dataset.diverged_at.dims, done))})["views"][
        0
    ]
    runs = numbers(content["runs"], len(RATES), len(SPREADS))
    assert (runs[0, 0], runs[1, 1]) == (2, 6)


def test_frames_are_thinned_to_the_limit() -> None:
    content = payload({"": diagram()}, most_numbers=2 * 35 * 3 * 3)
    assert content["steps"] == [0, 20, 40]
    assert content["recorded"] == 5
    assert payload({"": diagram()}, most_numbers=0)["steps"] is None


def test_other_axes_and_named_dims_become_switches() -> None:
    both = xr.concat([diagram(0), diagram(1)], xr.Variable("variant", ["HeteroSGD", "PooledSGD"]))
    assert [view["name"] for view in payload({"": both})["views"]] == ["HeteroSGD", "PooledSGD"]
    assert [view["name"] for view in payload({"a": both, "b": diagram()})["views"]] == [
        "a, HeteroSGD",
        "a, PooledSGD",
        "b",
    ]
    deeper = xr.concat([diagram(0), diagram(1)], xr.Variable("batch_size", [10, 20]))
    content = payload({"": deeper}, x="learning-rate", y="spread")
    assert [axis["name"] for axis in content["axes"]] == ["learning_rate", "spread"]
    assert [axis["log"] for axis in content["axes"]] == [True, False]
    assert [axis["name"] for axis in content["others"]] == ["batch_size"]


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
            {"a": diagram(), "b": diagram().drop_vars("batch_loss")},
            {},
            "got no 'batch_loss' in 'b'",
        ),
        ({"a": diagram().isel(spread=0)}, {}, "at least two axes of numbers"),
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


def test_the_page_is_self_contained_and_escapes_its_arguments() -> None:
    text = explorer.page(
        diagram(), title="<b>&", about={"cell": "</script><script>alert(1)</script>"}
    )
    own = re.sub(r"(?s)<script>/\*\*\n\* plotly.*?</script>", "", text, count=1)
    assert len(own) < len(text) - 10**6
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", own)
    assert "<title>&lt;b&gt;&amp;</title>" in own
    assert "alert(1)</script>" not in own


def test_names_inside_the_data_cannot_end_their_element() -> None:
    name = "<!--<script>&</script>"
    text = explorer.page({name: diagram(), "b": diagram()}, curves={name: {name: ([0, 1], [0, 1])}})
    data = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)
    assert data is not None
    assert not set("<>&") & set(data[1])
    assert [entry["name"] for entry in json.loads(data[1])["views"]] == [name, "b"]


def test_a_page_of_ten_thousand_cells_is_of_moderate_size() -> None:
    large = diagram(spreads=np.linspace(0, 9, 100), rates=np.geomspace(0.02, 0.2, 100), seeds=3)
    assert len(explorer.page(large)) < 12e6


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
    data = json.loads(
        re.findall(r'(?s)id="data">(.*?)</script>', stored.with_suffix(".html").read_text("utf-8"))[
            0
        ]
    )
    assert [view["name"] for view in data["views"]] == ["hetero", "pooled"]
    (curve,) = data["curves"]["hetero"]
    rates = np.array(curve["y"])
    np.testing.assert_allclose(
        curve["x"], np.sqrt(2 / rates + 1), rtol=1e-5
    )  # the closed form for a mean of 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at least one store"),
        (("nothing.nc",), "nothing.nc"),
        (("nothing.zarr",), "nothing.zarr"),
        (("diagram.txt",), "suffix"),
        (("HERE", "--out", "page.txt"), "--out must end in .html"),
        (("HERE", "--x", "dim", "--force"), "--x must be"),
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
    assert run("explore", stored, "--force") == 2
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
