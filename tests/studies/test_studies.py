"""Every study follows the protocol of `causal_sgd.studies`; tests that simulate are slow."""

from __future__ import annotations

import csv
import inspect
import math
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from packaging.requirements import Requirement

from causal_sgd import studies, training
from causal_sgd.studies.reproduction._running import outcomes
from causal_sgd.studies.reproduction._sources import fingerprint
from causal_sgd.studies.reproduction._tables import STATISTICS, write
from causal_sgd.studies.sensing import small_batch
from causal_sgd.studies.sensing._predictions import second_order_floor
from causal_sgd.sweeps import _sweep
from causal_sgd.sweeps._datasets import labelled
from causal_sgd.sweeps._grid import Grid
from causal_sgd.types import Trace
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MODULES = {
    path.stem.replace("_", "-"): path
    for system in studies.SYSTEMS
    for path in Path(studies.__path__[0], system).glob("[!_]*.py")
}

# Claims about failures, of which a quick run may have none, and about runs that it leaves out.
UNDECIDED = {"fair": {"thresholds"}, "diagnostic": {"squares"}}


def installed(name: str) -> studies.Study:
    """A study; the test is skipped where packages with its data are missing."""
    study = studies.load(name)
    if lacking := studies.lacking(study):
        pytest.skip(f"{name} {lacking}")
    return study


def test_packages_that_a_study_requires_are_in_their_extra() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in studies.NAMES:
        for package, extra in studies.requirements(studies.load(name)).items():
            assert package in {Requirement(text).name for text in extras[extra]}, name


def test_every_module_is_a_listed_study() -> None:
    assert set(studies.NAMES) == set(MODULES)
    assert len(set(studies.NAMES)) == len(studies.NAMES)
    assert set(studies.CORE) <= set(studies.NAMES)
    assert all(studies.system_of(name) == MODULES[name].parent.name for name in studies.NAMES)


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_study_documents_its_finding_and_claims(name: str) -> None:
    study = studies.load(name)
    first, _, rest = inspect.cleandoc(study.__doc__ or "").partition("\n\n")
    assert first.endswith("."), "the first line is a sentence that states the finding"
    assert "\n" not in first
    assert len(rest) > 80, "the docstring explains the finding in a few sentences"
    for function in (study.run, study.measure, study.figure):
        assert inspect.getdoc(function), f"{function.__name__} has a docstring, which is published"
    assert study.CLAIMS
    for short, claim in study.CLAIMS.items():
        assert claim.text.strip(), short
        assert claim.source.strip(), short
        assert claim.judged != claim.source.startswith("this study"), f"{short}: see `Claim`"
        if not claim.judged:
            assert (claim.low, claim.high) == (-math.inf, math.inf), short
            continue
        assert claim.low <= claim.high, short  # NaN fails too
        assert math.isfinite(claim.low) or math.isfinite(claim.high), f"{short} excludes nothing"
        assert claim.low < math.inf, short
        assert claim.high > -math.inf, short
    texts = [claim.text for claim in study.CLAIMS.values()]
    assert len(set(texts)) == len(texts), "two claims read the same"


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_study_has_the_functions_of_the_protocol(name: str) -> None:
    study = studies.load(name)
    run = inspect.signature(study.run).parameters
    assert {short: parameter.default for short, parameter in run.items()} == {
        "quick": False,
        "key": 0,
        "progress": None,
    }
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in run.values())
    assert list(inspect.signature(study.measure).parameters) == ["data"]
    assert list(inspect.signature(study.figure).parameters) == ["data"]
    if (table := getattr(study, "table", None)) is not None:
        assert list(inspect.signature(table).parameters) == ["data"]
        assert inspect.getdoc(table)


@pytest.mark.slow
def test_the_source_that_a_run_reaches_differs_between_studies() -> None:
    assert len({fingerprint(path, "run") for path in MODULES.values()}) == len(MODULES)


@pytest.fixture
def unsimulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of the right axes and shapes with random values: no algorithm is traced, none runs."""
    recorded: dict[int, np.ndarray] = {}

    def run(
        key: Any, *, algorithm: Any, metrics: Any, num_steps: int, record_every: int | None = None
    ) -> Trace:
        names = [metric if isinstance(metric, str) else metric.__name__ for metric in metrics]
        frames = np.unique(np.append(np.arange(0, num_steps, record_every or num_steps), num_steps))
        inner = {
            "singular_values": (5,),
            "environment_losses": (2,),
            "accuracies": (4,),
            "residuals": (2,),
            "validation": (2,),
            "validation_losses": (2,),
            "halves": (2, 3),
            "fit": (2,),
        }
        recorded[len(frames)] = frames
        values = {name: jnp.ones((len(frames), *inner.get(name, ()))) for name in names}
        return Trace(jnp.asarray(frames), values, jnp.asarray(-1))

    def results(sweep: Any) -> xr.Dataset:
        seeds, trace = sweep.seeds, sweep.shapes
        grid = Grid.make(
            sweep.cell, sweep.axes or {}, min(seeds, 6) if isinstance(seeds, int) else seeds
        )
        random = np.random.default_rng(0)
        values = {
            name: np.exp(0.5 * random.normal(size=(*grid.shape, *leaf.shape))).astype(leaf.dtype)
            for name, leaf in trace.metrics.items()
        }
        frames = trace.step.shape[0]
        latest = next(reversed(recorded.values()), np.arange(frames))  # a cell may run nothing
        steps = recorded.get(frames, latest[-frames:])  # a time average has one
        return labelled(grid, values | {"diverged_at": np.full(grid.shape, -1)}, steps, {})

    monkeypatch.setattr(training, "run", run)
    monkeypatch.setattr(_sweep.Sweep, "begin", lambda sweep, pool: None)
    monkeypatch.setattr(_sweep.Sweep, "run", results)


SLOW = (
    "collapse",
    "finite-time",
    "grokking-linear",
    "heterogeneity-lasso",
    "icp-power",
    "incremental-learning",
    "natural-tables",
    "proportional-limit",
    "rotating-bases",
)  # their theory takes seconds to compile
LONG = ("federated", "max-learning-rate", "optimizers")
NONSENSE = (ValueError, IndexError, ArithmeticError)  # what random values raise in analyses


@pytest.mark.filterwarnings("ignore")  # of nonsense
@pytest.mark.parametrize("name", few(studies.NAMES, set(studies.NAMES) - {*SLOW, *LONG}, SLOW))
def test_a_study_tabulates_its_numbers_and_measures_what_it_claims(
    name: str, unsimulated: None, tmp_path: Path
) -> None:
    study = installed(name)
    data = study.run(quick=True, key=0, progress=False)
    try:
        file = write(study, data, tmp_path / name)
    except NONSENSE as error:  # in what it derives
        if "unlike those of run" in str(error):
            raise
        file = write(cast(studies.Study, SimpleNamespace()), data, tmp_path / name)
    check_table(file, data)
    try:
        measured = study.measure(data)
    except NONSENSE as error:
        pytest.skip(
            f"measures nothing in nonsense: {error!r}"
        )  # its quick run, which is slow, does
    assert set(measured) == set(study.CLAIMS)
    assert all(isinstance(float(value), float) for value in measured.values())


def check_table(file: Path, data: Mapping[str, xr.Dataset]) -> None:
    """Compare the medians and counts in a table with those of the last frames of all datasets."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert next(iter(rows[0])) == "dataset"
    assert [*rows[0]][-8:] == ["metric", *STATISTICS]
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[row["dataset"], row["metric"]].append(row)
    for name, dataset in data.items():
        for metric, values in dataset.data_vars.items():
            if metric == "diverged_at":
                continue
            last = values.isel(step=-1) if "step" in values.dims else values
            if "diverged_at" in dataset:
                last = last.where(dataset.diverged_at < 0)
            runs = last.transpose(..., "seed") if "seed" in last.dims else last.expand_dims(seed=1)
            found = rows_of[name, metric]
            if "step" in values.dims:
                step = str(values.step.values[-1])
                found = [row for row in found if row["step"] == step]
            medians, counts = (np.array([row[key] for row in found]) for key in ("median", "count"))
            shown = np.where(medians == "", "nan", medians).astype(float)
            expected = runs.median("seed").values.ravel()
            np.testing.assert_allclose(shown, expected, rtol=1e-6)
            np.testing.assert_array_equal(counts.astype(int), runs.count("seed").values.ravel())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", studies.NAMES)
def test_a_quick_run_measures_every_claim_and_draws(name: str, tmp_path: Path) -> None:
    installed(name)
    (outcome,) = outcomes([name], tmp_path, quick=True, progress=False)
    assert outcome.error is None
    assert list(outcome.verdicts) == list(studies.load(name).CLAIMS)
    unknown = {short for short, one in outcome.verdicts.items() if math.isnan(one.measured)}
    assert unknown <= UNDECIDED.get(name, set())
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert 500 < (tmp_path / f"{name}.csv").stat().st_size < 4_000_000
    (again,) = outcomes(
        [name], tmp_path, quick=True, progress=False
    )  # from the disk: the same to the last bit
    assert again.reused
    assert again.verdicts == outcome.verdicts
    assert again.drawing == outcome.drawing


def test_verdicts_compare_measured_numbers_with_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.load("small-batch")
    claims = {
        "a": studies.Claim("a", 0, 1, "here"),
        "b": studies.Claim("b", 0, math.inf, "here"),
        "c": studies.Claim.finding("c"),
    }
    monkeypatch.setattr(study, "CLAIMS", claims)
    monkeypatch.setattr(study, "measure", lambda data: {"b": math.nan, "a": 1, "c": math.nan})
    assert [verdict.holds for verdict in studies.verdicts(study, {})] == [True, False, None]
    monkeypatch.setattr(study, "measure", lambda data: {"a": 1})
    with pytest.raises(RuntimeError, match=r"must measure \['a', 'b', 'c'\], got \['a'\]"):
        studies.verdicts(study, {})


def test_a_claim_states_its_interval_in_words() -> None:
    assert studies.Claim("", 0.85, 1.15, "").interval == "0.85 to 1.15"
    assert studies.Claim("", 2, math.inf, "").interval == "at least 2"
    assert studies.Claim("", -math.inf, -1.5, "").interval == "at most -1.5"
    assert studies.Claim.finding("").interval == "not judged"


def test_the_readme_counts_claims_and_findings() -> None:
    claims = [claim for name in studies.NAMES for claim in studies.load(name).CLAIMS.values()]
    judged = sum(claim.judged for claim in claims)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    counts = f"{len(studies.NAMES)} studies check {judged} claims"
    assert f"{counts} against them and report {len(claims) - judged} findings" in text


def test_a_floor_is_nan_where_the_noise_grows_by_itself() -> None:
    base = small_batch.BASE
    floors = second_order_floor(
        base, base.spread, learned=3, rows=27, learning_rate=0.1, batch_size=np.array([20, 80])
    )
    assert np.isnan(floors[0])
    np.testing.assert_allclose(floors[1], 2, atol=0.6)
