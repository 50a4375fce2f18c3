"""`causal-sgd phase`, in full and refined: output, figures, stores, and mistakes in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causal_sgd.cli.axes import parse_axis
from causal_sgd.cli.diagrams import Diagram
from causal_sgd.experiment import Experiment, theory_curve
from causal_sgd.sweeps.store import Store
from causal_sgd.theory import momentum_critical_spread
from support.shell import call, words

MAP = words("--dim 2 --invariant-rank 1 --spurious-rank 1 --measurement population")
MAP += words(
    "--model diagonal --basis canonical --steps 100 --init-scale 0.01 --metrics spurious_signal"
)
AXES = words("--x spread=1:8:12 --y learning-rate=0.08:0.2:9:log")


@pytest.mark.slow
def test_a_refined_diagram_continues_from_its_store_and_prints_the_boundary(
    capsys, tmp_path: Path
) -> None:
    path = tmp_path / "refined.zarr"
    command = [*AXES, *MAP, "--refine", "--level", "0.1", "--seeds", "16", "--out", str(path)]
    code, out, _ = call("phase", *command, "--budget", "200", capsys=capsys)
    assert code == 0
    assert "where half of the seeds reject, spread by learning_rate" in out
    assert "at finite time" in out
    assert "200 runs, 8.6 times fewer than all" in out
    assert Store(path).progress() == (200, 200)
    code, out, _ = call(
        "phase", *command, "--json", "--plot", str(tmp_path / "refined.png"), capsys=capsys
    )
    report = json.loads(out)
    assert Store(path).progress() == (report["runs"],) * 2
    assert 200 < report["runs"] < 12 * 9 * 16 / 2
    assert (tmp_path / "refined.png").stat().st_size > 10_000
    boundary = report["boundary"]
    assert boundary["along"] == "spread"
    assert len(boundary["learning_rate"]) == 9
    value, low, high = (np.array(boundary[name], float) for name in ("value", "low", "high"))
    assert (low <= value).all()
    assert (value <= high).all()
    assert (np.diff(value) < 0.3).all(), "a larger step needs less heterogeneity"
    runs = np.array(report["cells"]["runs"])
    assert runs.shape == (9, 12)
    assert runs.sum() <= report["runs"]
    assert (runs == 0).any()


@pytest.mark.slow
def test_a_full_diagram_has_a_boundary_where_a_level_is_given(capsys, tmp_path: Path) -> None:
    options = words("--level 0.1 --along learning-rate --seeds 4")
    options += ["--out", str(tmp_path / "d.nc")]
    code, out, _ = call(
        "phase", *AXES, *MAP, *options, "--plot", str(tmp_path / "d.svg"), capsys=capsys
    )
    assert code == 0
    assert "rows learning_rate, columns spread" in out
    assert "where half of the seeds reject, learning_rate by spread" in out
    assert "undecided" in (tmp_path / "d.svg").read_text()
    with xr.open_dataset(tmp_path / "d.nc") as stored:
        assert "spurious_signal" in stored


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "10"], "--budget must not be given without --refine"),
        (["--precision", "0.1"], "--precision must not be given without --refine"),
        (["--refine", "--budget", "0"], "budget must be a whole number, at least 1"),
        (["--refine", "--precision", "0"], "precision must be a finite number above 0"),
        (["--refine", "--metric", "invariant_error"], "--level must be given with --refine"),
        (["--refine", "--mean", "0"], "--level must be given with --refine"),
        (
            ["--refine", "--along", "mean"],
            "--along must be one of spread, learning-rate, got 'mean'",
        ),
        (["--level", "nan"], "level must be a finite number"),
        (["--refine", "--seeds", "0"], "seeds must be a whole number"),
        (["--refine", "--y", "learning-rate=0.1"], "at least two increasing values"),
    ],
)
def test_mistakes_are_reported_in_one_line(options: list[str], message: str, capsys) -> None:
    code, out, err = call("phase", *AXES, *MAP, *options, capsys=capsys)
    assert code == 2
    assert not out
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "asymmetric"},
        {"model": "deep"},
        {"model": "relu", "measurement": "examples"},
        {"model": "quadratic", "measurement": "rank-one", "trace_correction": False},
        {"probabilities": (0.5, 0.2, 0.2, 0.1), "spurious_rank": 2},
        {"sampler": "pooled"},
        {"rotation": 0.5},
    ],
)
def test_no_curve_is_drawn_where_the_theory_is_about_something_else(changes: dict) -> None:
    axes = "spread", np.linspace(0, 9, 3), "learning_rate", np.array([0.05, 0.1])
    assert theory_curve(Experiment(), *axes) is not None
    assert theory_curve(Experiment(**changes), *axes) is None


def test_the_curve_of_given_environments_is_their_own() -> None:
    deviations, shares = (-2.0, 0.5, 1.5), (0.2, 0.5, 0.3)
    experiment = Experiment(family="discrete", deviations=deviations, probabilities=shares)
    rates, spreads = np.array([0.05, 0.1]), np.linspace(0, 9, 3)
    for axes in (
        ("spread", spreads, "learning_rate", rates),
        ("mean", np.array([0.5, 1.0]), "learning_rate", rates),
    ):
        values = {"spread": 6.0, "mean": 1.0}
        curves = theory_curve(experiment, *axes)
        assert curves is not None
        first, values["learning_rate"] = curves["theory"]
        values[axes[0]] = first
        eigenvalues = values["mean"] + values["spread"] * np.array(deviations)[:, None]
        factors = np.log(np.abs(1 + values["learning_rate"] * eigenvalues))
        np.testing.assert_allclose(shares @ factors, 0, atol=1e-5)
    assert experiment.SYSTEM.environments(experiment) == "these environments"


@pytest.mark.slow
def test_momentum_has_its_own_curve() -> None:
    axes = "spread", np.linspace(0, 9, 3), "momentum", np.array([0.1, 0.5])
    experiment = Experiment(optimizer="momentum", learning_rate=0.02)
    curves = theory_curve(experiment, *axes)
    assert curves is not None
    spread, momentum = curves["theory"]
    for place in (0, -1):
        expected = momentum_critical_spread(0.02, 1.0, momentum[place])
        np.testing.assert_allclose(spread[place], expected, rtol=1e-5)
    assert theory_curve(experiment.replace(sampler="cyclic"), *axes) is None
    assert theory_curve(experiment.replace(optimizer="sgd"), *axes) is None
    rates = "mean", np.array([0.5, 1.0]), "learning_rate", np.array([0.01, 0.02])
    assert theory_curve(experiment, *rates) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "these"),
        ({"num_environments": 10}, "these"),
        ({"evolution": "redraw"}, "infinitely many"),
        ({"family": "uniform"}, "infinitely many"),
    ],
)
def test_theory_says_for_which_environments_it_holds(fields: dict, words: str) -> None:
    experiment = Experiment(**fields)
    assert experiment.SYSTEM.environments(experiment) == f"{words} environments"


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_the_columns_of_a_table_are_apart_whatever_the_numbers(scale: float, capsys) -> None:
    xs, ys = np.array([-1.5e-05, 0.000143, 1.96e-05, 1000.1, 1000.2]), np.array([-1e-10, 0.25])
    medians = scale * np.array([[0.00055, 0.000143, 1.96e-05, 1.2345e-300, np.nan]] * 2)
    dataset = xr.Dataset(
        {
            "loss": (("mean", "spread", "seed"), medians[..., None]),
            "diverged_at": (("mean", "spread", "seed"), np.full((2, 5, 1), -1)),
        },
        {"spread": xs, "mean": ys, "seed": [0]},
    )
    axes = {"spread": xs, "mean": ys}
    Diagram(dataset, "loss", axes, None, "spread", None, None, {}, "", 0.0).print_table(1)
    _, head, *rows, legend = capsys.readouterr().out.splitlines()
    assert legend == "-: no run has a value"
    np.testing.assert_allclose([float(word) for word in head.split()], xs, rtol=1e-2)
    assert len(set(head.split())) == len(xs)
    for row, value in zip(rows, ys, strict=True):
        numbers = [float(word) if word != "-" else np.nan for word in row.split()]
        np.testing.assert_allclose(numbers, [value, *medians[0]], rtol=1e-2)


def test_a_boundary_beyond_the_axis_is_told_in_words(capsys) -> None:
    spreads, means = np.array([0.0, 2.5]), np.array([0.1, 0.2, 0.3])
    ends = {"value": [np.nan, 1.5, np.nan], "low": [-np.inf, 1.2, np.inf]}
    ends["high"] = [-np.inf, np.inf, np.inf]
    boundary = xr.Dataset({name: ("mean", values) for name, values in ends.items()})
    dataset = xr.Dataset(
        {
            "loss": (("mean", "spread", "seed"), np.ones((3, 2, 1))),
            "diverged_at": (("mean", "spread", "seed"), np.full((3, 2, 1), -1)),
        },
        {"spread": spreads, "mean": means, "seed": [0]},
    )
    band, share = boundary.assign_coords(mean=means), dataset["loss"].mean("seed")
    cells = xr.Dataset(dict.fromkeys(("runs", "decided", "fraction", "low", "high"), share))
    curves = {"theory": (np.array([1.0, np.nan]), means[[0, -1]])}
    diagram = Diagram(
        dataset, "loss", {"spread": spreads, "mean": means}, 0.5, "spread", band, cells, curves,
        "these environments", 0.0,
    )  # fmt: skip
    diagram.print_boundary()
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[2:5]] == [
        ["0.1", "none", "below", "below", "1"],
        ["0.2", "1.5", "1.2", "above", "none"],
        ["0.3", "none", "above", "above", "none"],
    ]
    assert "none: no crossing between spread 0 and 2.5; below, above: an end of the band" in out
    assert max(map(len, out.splitlines())) <= 80
    values = json.loads(json.dumps(diagram.report(), allow_nan=False))
    assert values["boundary"]["high"] == [None, None, None]
    assert values["theory"]["theory"]["spread"] == [1.0, None]


def test_axes_of_whole_numbers_have_whole_numbers() -> None:
    for field in Experiment.integer_axes():
        name = field.replace("_", "-")
        assert parse_axis("--x", f"{name}=1:10:3", Experiment)[1].tolist() == [1, 6, 10]
        with pytest.raises(ValueError, match=f"--x must have whole numbers for {name}"):
            parse_axis("--x", f"{name}=1,2.5", Experiment)
