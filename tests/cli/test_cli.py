"""The command line: one JSON object, files as requested, one line for a mistake."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import optax
import pytest
import xarray as xr

from causal_sgd import cli, studies
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Key, Trace
from support.shell import call, words

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SMALL = words("--dim 6 --invariant-rank 2 --spurious-rank 1 --steps 20 --seeds 3")
QUICK = words("--measurement population --basis canonical")  # compiles quickly


def test_run_prints_one_json_object_that_equals_the_sweep(capsys, tmp_path) -> None:
    files = ["--out", str(tmp_path / "run.nc"), "--plot", str(tmp_path / "run.png")]
    code, out, _ = call("run", *SMALL, *QUICK, "--json", "--seed", "4", *files, capsys=capsys)
    report = json.loads(out)
    assert code == 0
    assert set(report) == {
        "config",
        "time_average",
        "metrics",
        "diverged_fraction",
        "trajectories",
        "seconds",
    }
    assert not report["time_average"]  # of matrix sensing the last frame
    assert {
        "invariant_error",
        "pooled_error",
        "invariant_signal",
        "spurious_signal",
        "complement_signal",
    } <= set(report["metrics"])
    experiment = Experiment(
        dim=6,
        invariant_rank=2,
        spurious_rank=1,
        steps=20,
        measurement="population",
        basis="canonical",
        record_every=1,
    )
    values = sweep(experiment.cell(), seeds=3, key=4).spurious_signal.isel(step=-1)
    for level, quantile in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
        np.testing.assert_allclose(
            report["metrics"]["spurious_signal"][level], np.quantile(values, quantile), rtol=1e-5
        )
    with xr.open_dataset(tmp_path / "run.nc") as stored:
        assert stored.sizes["seed"] == 3
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_phase_writes_the_diagram_and_the_table(capsys, tmp_path) -> None:
    axes = words("--x spread=0:6:3 --y learning-rate=0.02:0.2:2:log")
    files = ["--out", str(tmp_path / "d.nc"), "--plot", str(tmp_path / "d.png")]
    code, out, _ = call("phase", *axes, *SMALL, *QUICK, *files, capsys=capsys)
    assert code == 0
    assert "18 runs" in out
    with xr.open_dataset(tmp_path / "d.nc") as stored:
        assert dict(stored.sizes) | {"step": 2} == {
            "spread": 3,
            "learning_rate": 2,
            "seed": 3,
            "step": 2,
        }
        np.testing.assert_allclose(stored.learning_rate, [0.02, 0.2])
    assert (tmp_path / "d.png").exists()


def test_a_world_from_a_file(capsys, tmp_path) -> None:
    own = np.diag([0.0, 0.0, 2.0])
    np.savez(
        tmp_path / "signals.npz", invariant=np.diag([1.0, 1.0, 0.0]), spurious=np.stack([own, -own])
    )
    options = words("--steps 5 --seeds 2 --json --measurement population --metrics invariant_error")
    file = str(tmp_path / "signals.npz")
    code, out, _ = call("run", "--world-file", file, *options, capsys=capsys)
    assert code == 0
    assert json.loads(out)["metrics"]["invariant_error"]["median"] == pytest.approx(
        2**0.5, abs=1e-2
    )


@pytest.mark.slow
def test_a_fixed_design_equals_the_one_by_hand(capsys) -> None:
    _, out, _ = call("list", "--names", capsys=capsys)
    assert "fixed-design" in out
    data = "--measurement fixed-design --num-examples 12 --label-noise 0.5 --fresh-noise 0.3"
    others = "--batch-size 3 --basis canonical --sampler cyclic --metrics invariant_error"
    code, out, _ = call("run", *SMALL, *data.split(), *others.split(), "--json", capsys=capsys)
    assert code == 0

    def cell(key: Key) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=6, invariant_rank=2, spurious_rank=1, mean=1.0, spread=6.0, basis="canonical"
            ),
            sampler=samplers.cyclic(batch_size=3),
            measurement=measurements.fixed_design(num_examples=12, noise=0.5, fresh_noise=0.3),
            model=models.factored(dim=6, init_scale=1e-3),
            optimizer=optax.sgd(0.1),
        )
        return run(key, algorithm=algorithm, metrics=[metrics.invariant_error], num_steps=20)

    expected = float(sweep(cell, seeds=3).invariant_error.isel(step=-1).median())
    assert json.loads(out)["metrics"]["invariant_error"]["median"] == pytest.approx(
        expected, rel=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --sampler heter", "did you mean 'hetero'"),
        ("run --optimizer adma", "did you mean 'adam'"),
        ("run --dmi 3", "unknown flag --dmi; did you mean --dim. .see causal-sgd run --help"),
        ("phase", "--x and --y must be given .see causal-sgd phase --help"),
        ("run --steps", "--steps must be followed by a value .see causal-sgd run --help"),
        ("doctor --jsn", "unknown flag --jsn; did you mean --json[?]"),
        ("report", "PATH must be given"),
        ("report no.csv", "PATH must be a file, got no.csv, which does not exist"),
        ("report README.md", "PATH must end in .npz or .csv"),
        (
            "run supervised --data-file no.csv",
            r"--data-file must be .* .No such file or directory.$",
        ),
        (
            "phase --x foo=1:2:3 --y spread=0:1:2",
            "must be one of .. names .`causal-sgd list --names` lists them., got 'foo'",
        ),
        (
            "reproduce foo",
            "study must be .* got 'foo'; `causal-sgd list` has the names",
        ),
        ("run --means 1 x", "--means must be a number, got 'x'"),
        (
            "run --sampler block --probabilities 0.5 0.5",
            "error: --probabilities must not be given where --sampler is 'block'",
        ),
        ("run --dim x", "--dim"),
        ("run --measurement fixed-design --num-examples 9", "--batch-size must be at most 9"),
        (
            "run --measurement fixed-design --num-examples 0",
            "--num-examples must be a whole number",
        ),
        ("", "command must be one of run, phase, .*reproduce, report, list, doctor, got none"),
        (
            "runn",
            "command must be one of run, phase, .*report, list.* got 'runn'; did you mean 'run'",
        ),
        ("--tyro-print-completion tcsh", "completion must be for bash, zsh or fish"),
        ("run --seeds 1.5", "--seeds must be a whole number, got '1.5' .see causal-sgd run --help"),
        ("run --learning-rate big", "--learning-rate must be a number, got 'big'"),
        (
            "phase --x spread=0:9:3 --y mean=0:1:2 --level low",
            "--level must be a number, got 'low' .see causal-sgd phase --help",
        ),
        ("run --momentum 0.5", "--momentum must not be given unless --optimizer is momentum or"),
        ("run --mean 2 --means 1 1 1", "--mean must not be given where --means is given"),
        (
            "run --family discrete --eigenvalues=-2,1,4 --mean 2",
            "--mean must not be given where --eigenvalues is given",
        ),
        ("run --family discrete", "--eigenvalues or --deviations must be given where --family is"),
        (
            "run --family discrete --eigenvalues=-2,1 --deviations=-1,1",
            "--deviations must not be given where --eigenvalues is given",
        ),
        ("run --deviations=-1,1", "--deviations must not be given where --family is 'two-point'"),
        ("run --eigenvalues=-2,y", "--eigenvalues must be a number, got 'y'"),
        (
            "phase --x spread=0:9:3 --y mean=0:1:2 --spread 3",
            "--spread must not be given where it is the axis --x",
        ),
        ("phase --x spread=0:9:3 --y mean=0:1:2 --along mean", "--along .* without --level or"),
        ("run --learning_rat 1", "unknown flag --learning_rat; did you mean --learning-rate"),
        ("run --batch_size 0", "error: --batch_size must be"),
        ("doctor 3", "unexpected word 3"),
        ("run --tilt 2", "--tilt must be .* at most pi / 2, got 2.0; angles are in radians"),
        ("run --evolution rotate --rotation-angle 1.6", "--rotation-angle must be .* pi / 2"),
        ("run supervised --angle -1.6", "--angle must be .* at least -pi / 2"),
        ("run --scheduler tcp://localhost", "--scheduler must be .* with its port, such as tcp"),
        ("list trajectories --names", "--names must not be given with a study"),
        ("--hlp", "did you mean '--help'"),
        ("run --seed 4294967296", "seed must be a whole number, .* at most 4294967295"),
        ("reproduce --seed 4294967296", "seed must be a whole number, .* at most 4294967295"),
        ("run --label-noise -1", "--label-noise must be a finite number at least 0, got -1"),
        ("run --sampler block --block-length 0", "--block-length must be"),
        ("run --sam-radius -1", "--sam-radius must be"),
        ("run --average tail --average-start -1", "--average-start must be"),
        ("run --invariant-eigenvalue 0", "--invariant-eigenvalue must be"),
        ("run --means 1 2", "means must be a number or have shape"),
        ("run --evolution drift --steps 0", "error: --steps must be .* got 0"),
        ("run --learning-rate -1 --steps 5", "--learning-rate must be a finite number above 0"),
        ("run --learning-rate nan --steps 5", "--learning-rate must be a finite number above 0"),
        ("run --learning-rate 1e-50", "--learning-rate must be 0 or from .* float32, got 1e-50"),
        ("run --means 1 1e39 1", "means must be 0 or from .* got 1e.39"),
        ("run --optimizer sgdw --weight-decay 1e-40", "--weight-decay must be 0 or from .* 1e-40"),
        ("run --accumulate 3000000000", "accumulate must be from .* int32, .* got 3000000000"),
        (
            "run --evolution drift --mean-drift 1e-37 --steps 100",
            "--mean-drift / steps must be 0 or from .* got 1e-39",
        ),
        ("run --spurious-rank 99999999999999999999", "--spurious-rank must be from .* int32"),
        ("run --spurious-rank 2000000000", "--num-environments must be given .* make 2.2000000000"),
        ("run --model deep --depth 2000000000", "depth must be .* at most 1000, got"),
        ("phase --x spread=0:1:2000000000 --y mean=1,2", "--x must have at most 1000000 values"),
        ("run --dim " + "9" * 5000, "--dim must be a whole number, got '9{60}'... .see"),
        ("run --invariant-rank 60", "--invariant-rank must be"),
        ("run --dim 5 --invariant-rank 3 --spurious-rank 3", "must be at most dim"),
        ("run --probabilities 0.5 0.6", "probabilities must have one entry|sum to one"),
        ("run --seeds 0", "seeds must be"),
        ("run --steps 0", "error: --steps must be"),
        ("run --metrics spurious_signl", "did you mean 'spurious-signal'"),
        ("run --out nowhere/at/all.nc", "--out must be a file that can be written"),
        ("run --out results.txt", "--out must end in .csv or .nc or .zarr"),
        ("run --plot figure.gif", "--plot must end in"),
        ("run --world-file nowhere.npz", "--world-file must be"),
        ("phase --x spread=9:0 --y mean=0:1:2", "--x must have the form"),
        ("phase --x spread=a:b:c --y mean=0:1:2", "--x must have the form"),
        ("phase --x spread=0:inf:3 --y mean=0:1:2", "--x must run over finite, increasing values"),
        (
            "phase --x batch-size=1:2e9:3 --y mean=0:1:2",
            "--x batch-size must be .* at most 1.07374e",
        ),
        ("phase --x batch-size=1:1e30:3 --y mean=0:1:2", "--x must have whole numbers .* int32"),
        ("phase --x batch-size=1,3e9 --y mean=0:1:2", "--x must have whole numbers .* int32"),
        (
            "phase --x stay=0:0.9:3 --y mean=0:1:2",
            "--x .*; stay has none unless --sampler is sticky, got 'hetero'",
        ),
        (
            "phase --x spread=0:9:3 --y mean=0:1:2 --means 1 1 1",
            "--y .*; mean has none where --means is given",
        ),
        (
            "phase --x spread=0:9:3 --y mean=0:1:2 --metric singular_values",
            "metric must be one number a frame, got",
        ),
        ("phase --x spread=9:0:3 --y mean=0:1:2", "--x must run over finite, increasing values"),
        ("phase --x spread=0:9:3:log --y mean=0:1:2", "ends above 0 for a logarithmic axis"),
        ("phase --x spread=0:9:3 --y spread=0:1:2", "--x and --y must be different"),
        ("phase --x dim=2:9:3 --y mean=0:1:2", "--x must be .* dim cannot unless --model is"),
        ("phase --x spred=0:9:3 --y mean=0:1:2", "did you mean 'spread'"),
        (
            "phase --x spread=-1:9:3 --y mean=0:1:2 --steps 5",
            "--x spread must be a finite number at least 0",
        ),
        ("reproduce trajectorys", "did you mean 'trajectories'"),
        (
            "reproduce trajectories --all",
            "--all must not be given with names of studies, got 'trajectories'",
        ),
        (
            "reproduce --fresh --redraw",
            "--fresh must not be given with --redraw",
        ),
        ("reproduce --seed -1", "seed must be"),
        ("list trajectorys", "did you mean 'trajectories'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: str, message: str, capsys) -> None:
    code, out, err = call(*arguments.split(), capsys=capsys)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err)


def test_help_does_not_start_jax_and_list_names_every_study(capsys) -> None:
    script = "import sys, causal_sgd.cli as c\ntry: c.main(['run', '--help'])\n"
    script += "except SystemExit: pass\nassert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    code, out, _ = call("list", capsys=capsys)
    assert code == 0
    assert all(name in out for name in studies.NAMES)


def test_an_exhausted_machine_is_reported_in_one_line(capsys, monkeypatch) -> None:
    for error, text in (
        (MemoryError("Unable to allocate 1 TiB"), "out of memory"),
        (OSError("No space left"), "No space left"),
    ):

        def fail(self: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(cli.Run, "__call__", fail)
        code, out, err = call("run", capsys=capsys)
        assert (code, out) == (1, "")
        assert len(err.strip().splitlines()) == 1
        assert text in err


def test_help_fits_into_a_terminal_of_few_columns(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "5")
    code, out, _ = call("--help", capsys=capsys)
    assert code == 0
    assert len(out.splitlines()) < 200
    assert os.environ["COLUMNS"] == "5"


def test_all_help_shows_the_choices_within_the_columns(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call("run", "--help-all", capsys=capsys)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "--sampler {hetero,pooled,cyclic,shuffled,block,sticky,mixed,stratified}" in out
    assert "--means [FLOAT ...]" in out


def test_hyphens_and_underscores_are_the_same(capsys) -> None:
    options = words("--family log_normal --num_environments 3 --metrics effective-rank --json")
    code, out, _ = call("run", *options, *SMALL, *QUICK, capsys=capsys)
    assert code == 0
    report = json.loads(out)
    assert report["config"]["family"] == "log-normal"
    assert list(report["metrics"]) == ["effective_rank"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_choices(shell: str, capsys) -> None:
    code, out, _ = call("--tyro-print-completion", shell, capsys=capsys)
    assert code == 0
    assert all(name in out for name in (*cli.COMMANDS, "stratified", "low-rank-law"))
