"""The second system from the shell: the same verbs, stores, figures and pages."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import causal_sgd
from causal_sgd import cli
from causal_sgd.experiment import SYSTEMS, SupervisedExperiment
from causal_sgd.sweeps import sweep
from support.shell import call, words
from support.stores import forget

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PLANE = words("phase supervised --x mean=0.1:0.5:3 --y spread=0:2:2 --metrics spurious_weight")
PLANE += words("--seeds 2 --method pooled")


def test_run_prints_one_json_object_that_equals_the_sweep(capsys, tmp_path: Path) -> None:
    line = "run supervised --world anticausal --method vrex --weight 10 --steps 20 --seeds 3"
    line += " --metrics spurious_weight --json"
    files = ["--out", str(tmp_path / "run.nc"), "--plot", str(tmp_path / "run.png")]
    code, out, _ = call(*words(line), *files, capsys=capsys)
    assert code == 0
    report = json.loads(out)
    assert report["config"]["system"] == "supervised"
    experiment = SupervisedExperiment(
        world="anticausal",
        method="vrex",
        weight=10.0,
        steps=20,
        metrics=("spurious_weight",),
        record_every=1,
    )
    assert list(report["metrics"]) == ["spurious_weight"]
    values = sweep(experiment.cell(), seeds=3).spurious_weight.isel(step=-1)
    assert report["metrics"]["spurious_weight"]["median"] == pytest.approx(
        float(values.median()), rel=1e-5
    )
    with xr.open_dataset(tmp_path / "run.nc") as stored:
        assert stored.sizes["seed"] == 3
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_methods_with_batches_of_one_environment_report_means_over_time(capsys) -> None:
    line = "run supervised --sampler hetero --steps 250 --seeds 3 --metrics spurious_weight"
    experiment = SupervisedExperiment(
        sampler="hetero", steps=250, metrics=("spurious_weight",), record_every=2
    )
    runs = sweep(experiment.cell(), seeds=3)
    late = runs.spurious_weight.sel(step=runs.step > 0.75 * 250).mean("step")
    last = runs.spurious_weight.isel(step=-1)
    assert late.sizes == {"seed": 3}
    assert abs(float(late.median() - last.median())) > 0.01 * float(last.median())
    for options, values in (("", late), ("--last", last)):
        code, out, _ = call(*words(f"{line} {options} --json"), capsys=capsys)
        assert code == 0
        report = json.loads(out)
        assert report["time_average"] == (values is late)
        found = report["metrics"]["spurious_weight"]["median"]
        assert found == pytest.approx(float(values.median()), rel=1e-4)


@pytest.mark.slow
def test_the_table_says_what_it_averages(capsys) -> None:
    line = "run supervised --steps 20 --seeds 3 --metrics spurious_weight"
    for options, words_of_it in (
        ("--sampler hetero", "(over 3 seeds; means over the last quarter)"),
        ("--sampler hetero --average tail", "(over 3 seeds)"),
        ("--sampler pooled", "(over 3 seeds)"),
    ):
        assert words_of_it in call(*words(f"{line} {options}"), capsys=capsys)[1]


def test_without_a_system_a_run_is_of_sensing(capsys) -> None:
    line = "--sampler hetero --dim 4 --invariant-rank 1 --spurious-rank 1 --steps 5 --seeds 2"
    line += " --measurement population --basis canonical --model diagonal --json"
    line += " --metrics spurious_signal"
    reports = []
    for system in ("", "sensing"):
        code, out, _ = call(*words(f"run {system} {line}"), capsys=capsys)
        assert code == 0
        reports.append({**json.loads(out), "seconds": 0})
    assert reports[0] == reports[1]
    assert "system" not in reports[0]["config"]


def test_a_store_is_resumed_and_explored(capsys, tmp_path: Path) -> None:
    path = str(tmp_path / "plane.zarr")
    plot = ["--plot", str(tmp_path / "plane.png"), "--level", "0.1"]
    code, out, _ = call(*PLANE, "--out", path, *plot, capsys=capsys)
    assert code == 0
    assert "12 runs" in out
    assert (tmp_path / "plane.png").stat().st_size > 10_000
    whole = causal_sgd.open_results(path).load()
    expected = np.array([0.1, 0.3, 0.5]) / 4
    weights = whole.spurious_weight.isel(step=-1, seed=0, spread=0)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    forget(Path(path), [0])
    assert "complete it with: causal-sgd resume" in call("status", path, capsys=capsys)[1]
    code, out, _ = call("resume", path, capsys=capsys)
    assert code == 0
    assert "12 of 12 runs done" in out
    assert causal_sgd.open_results(path).equals(whole)
    code, _, err = call(*PLANE, "--variance", "3", "--out", path, capsys=capsys)
    assert code == 2
    assert "--variance is 4.0 in the store and 3.0 now" in err
    code, out, _ = call("explore", path, capsys=capsys)
    assert code == 0
    assert "pooled" in Path(tmp_path / "plane.html").read_text("utf-8")
    code, _, err = call("run", "--out", path, capsys=capsys)
    assert code == 2
    assert "plane.zarr holds another configuration" in err


@pytest.mark.slow
def test_a_refined_plane_has_theory_and_a_default_level(capsys) -> None:
    line = "phase supervised --x mean=0.3:0.6:3 --y spread=0:1.3:9 --sampler hetero --steps 1000 "
    line += "--model hadamard --learning-rate 0.7 --refine --seeds 8 --metrics spurious_weight"
    code, out, _ = call(*words(line), capsys=capsys)
    assert code == 0
    assert "where half of the seeds reject, spread by mean" in out
    assert "theory" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run superv", "system must be one of sensing, supervised, got 'superv'; did you mean"),
        ("run supervised --methd vrex", "did you mean --method"),
        ("run supervised --method vrx", "--method must be one of .* did you mean 'vrex'"),
        ("run supervised --rank 3", "unknown flag --rank"),
        (
            "run supervised --method vrex --sampler hetero",
            "error: --sampler must be 'stratified' or .* where --method is 'vrex'.* "
            "(see causal-sgd run supervised --help)",
        ),
        (
            "run supervised --world chain --dim-invariant 0",
            "--dim-invariant must be a whole number",
        ),
        ("run supervised --loss logistic", "--world must be .* its labels are numbers"),
        ("run supervised --loss hinge", "--loss must be one of .* logistic"),
        ("run supervised --metrics test_risk", "--world must have test environments"),
        (
            "phase supervised --x mean=0:1:2 --y learning-rate=0.1,0.2 --method pooled",
            "--y .* learning-rate has none where --method is 'pooled', which fits in one step",
        ),
        ("phase supervised --x dim=1:2:2 --y mean=0:1:2", "--x parameter must be one of"),
        (
            "phase supervised --x angle=0:1:2 --y mean=0:1:2 --refine --world anticausal",
            "--level must be given with --refine, unless the metric is spurious_weight, the world",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: str, message: str, capsys) -> None:
    code, out, err = call(*words(arguments), capsys=capsys)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for part in message.split(".*"):
        assert part.strip() in err


def test_help_and_list_show_both_systems(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for verb in ("run", "phase"):
        code, out, _ = call(verb, "supervised", "--help", capsys=capsys)
        assert code == 0
        assert f"usage: causal-sgd {verb} supervised" in out
        whole = call(verb, "supervised", "--help-all", capsys=capsys)[1]
        assert "--method {erm," in whole
        assert "experiment." not in out + whole, "options have no prefix"
        assert f"{verb} supervised --help" in call(verb, "--help", capsys=capsys)[1]
    code, out, _ = call("list", "--names", capsys=capsys)
    assert code == 0
    for kind in SYSTEMS.values():
        for names in kind.choices().values():
            assert ", ".join(names).replace("_", "-") in " ".join(out.split())
    code, out, _ = call("list", "--json", capsys=capsys)
    assert "vrex" in json.loads(out)["systems"]["supervised"]["names"]["method"]


def complete(script: str, line: str) -> list[str]:
    """What bash offers for the last word of a line, by the script for it."""
    entered = line.split(" ")
    ask = f"COMP_WORDS=({shlex.join(entered)}); COMP_CWORD={len(entered) - 1}; _tyro_causal_sgd"
    program = f'{script}\n{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    options = {"capture_output": True, "text": True, "check": True}
    return subprocess.run(["bash"], input=program, **options).stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_the_options_of_each_system(capsys) -> None:
    code, script, _ = call("--tyro-print-completion", "bash", capsys=capsys)
    assert code == 0
    options = complete(script, "causal-sgd run supervised --")
    assert {"--method", "--data-file", "--seeds"} <= set(options)
    assert "--family" not in options
    assert all(option.startswith("-") for option in options), "no lines of help are among them"
    for line, offered in (
        ("phase supervised --met", ["--method", "--metric", "--metrics"]),
        ("run supervised --method irm", ["irm", "irmv1"]),
        ("run supervised --loss lo", ["logistic"]),
        (
            "run supervised --world unit",
            ["unit-test-cows", "unit-test-margin", "unit-test-regression"],
        ),
        ("run --fam", ["--family"]),
        ("run sup", ["supervised"]),
    ):
        assert sorted(complete(script, f"causal-sgd {line}")) == offered


def test_entries_of_arrays_are_rows_of_the_table(capsys) -> None:
    line = "run supervised --method oracle --metrics estimation_error weights --seeds 2"
    code, out, _ = call(*words(line), "--dim-invariant", "17", capsys=capsys)
    assert code == 0
    header, *lines = out.splitlines()
    assert len({line.rindex(" ") for line in lines[1:17]}) == 1, "right-aligned"
    assert len(header.partition("   (")[0]) == len(lines[0])
    table = [line.split() for line in lines[1:17]]
    assert [row[0] for row in table] == [f"weights[{place}]" for place in range(16)]
    assert all(float(each) == pytest.approx(1, rel=1e-3) for row in table for each in row[1:])
    assert lines[17].strip() == "weights: 2 more with --json"


def test_every_system_has_its_commands() -> None:
    assert all(list(systems) == list(SYSTEMS) for systems in cli.OF_SYSTEMS.values())
