"""The scripts of benchmarks/ run to their end at tiny sizes and print what they promise.

Each runs in its own process, as users run it: a script chooses the devices before jax starts.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.peers")

ROOT = Path(__file__).parents[1]


# What is compiled in a third less of the time may be slow here: no timing is looked at.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def run(
    script: str, *arguments: str | Path, check: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / script, *arguments]
    environment = os.environ | ENVIRONMENT | more
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def tables(text: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a text, each a list of rows by the names of its columns."""
    found = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        head, rule, *rows = (
            [cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()
        )
        assert set("".join(rule)) == {"-"}
        assert rows
        assert all(len(row) == len(head) for row in rows), (
            "a row has another number of columns than its table"
        )
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def check_curves(out: str, path: Path) -> set[str]:
    numbers, slopes = tables(out)
    assert {row["curve"] for row in numbers} == {row["curve"] for row in slopes}
    assert all(math.isfinite(float(row["median"])) for row in numbers)
    assert all(path.with_suffix(suffix).stat().st_size > 5000 for suffix in (".png", ".pdf"))
    return {row["curve"].split(",")[0] for row in slopes}


@pytest.mark.slow
@pytest.mark.long
def test_curves_of_totals(tmp_path):
    out = run(
        "curves.py",
        "--quick",
        "--repeats",
        "1",
        "--only",
        "totals",
        "--out",
        tmp_path / "totals.png",
    ).stdout
    assert check_curves(out, tmp_path / "totals.png") == {"a sweep"}


@pytest.mark.slow  # compiles two dozen programs
@pytest.mark.long
def test_all_curves(tmp_path):
    out = run("curves.py", "--quick", "--repeats", "1", "--out", tmp_path / "all.png").stdout
    panels = {"a step", "a sweep", "compilation", "peak memory of the process"}
    assert check_curves(out, tmp_path / "all.png") == panels


@pytest.mark.slow
@pytest.mark.long
def test_the_comparison_runs_to_its_end():
    sizes = "--repeats", "1", "--peer-steps", "2", "--seeds", "8", "--works", "a"
    steps, chain, work = tables(run("versus.py", *sizes).stdout)
    assert [row["batch"] for row in steps] == ["100", "1000", "4000"]
    assert {row["r + k = 8"] for row in chain} == {"chain", "low-rank"}
    assert {row["d"] for row in chain} == {"100", "1000", "100000", "10000000"}
    assert {row["what"].split()[0] for row in work} >= {"causal_sgd", "jit(vmap)", "NumPy"}
    assert all(float(row["seconds"].replace(",", "")) > 0 for row in work)


def copied(folder: Path) -> Path:
    """README and benchmarks/README.md in another folder."""
    (folder / "benchmarks").mkdir()
    for name in ("README.md", "benchmarks/README.md"):
        (folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    return folder


def test_the_comparison_is_put_into_the_readmes(tmp_path):
    versus = importlib.import_module("benchmarks.versus")
    summary = importlib.import_module("benchmarks.summary")
    works = {
        letter: versus.Work(
            "diagram" if letter == "c" else f"work {letter}",
            "10, 20",
            seconds,
            1.5,
            {"numpy_loop": 60.0, "jax_drawn": 30.0},
        )
        for letter, seconds in zip(versus.WORKS, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True)
    }
    assert [row["times the engine"] for row in tables(works["c"].table())[0]] == ["1", "20", "10"]
    rows = {row[""]: row for row in tables(versus.overview(works))[0]}
    assert rows["causal_sgd"]["(d) work d"] == "4"
    assert rows["NumPy loop tuned, threaded draws"]["(b) work b"] == "60 (30)"
    page = copied(tmp_path) / "benchmarks" / "README.md"
    before = {row["work"]: row for row in summary.rows_of(ROOT / "README.md", summary.PLACE)}
    versus.write_tables(tmp_path, works)
    after = summary.rows_of(tmp_path / "README.md", summary.PLACE)
    assert [(row["here"], row["times as long"]) for row in after[:2]] == [
        ("3 s", "10"),
        ("5 s", "6"),
    ]
    assert all(row == before[row["work"]] for row in after[2:]), "other commands' rows changed"
    rest = re.compile(r"(?s)<!-- versus.py.*?<!-- end of versus.py[^>]*>")
    texts = [
        rest.sub("", path.read_text("utf-8")) for path in (page, ROOT / "benchmarks" / "README.md")
    ]
    assert texts[0] == texts[1], "something else was changed"
    with pytest.raises(ValueError, match="once each"):
        summary.write(page, "no such place", "| new |")


def test_a_part_of_the_comparison_replaces_its_table_only(tmp_path):
    versus = importlib.import_module("benchmarks.versus")
    assert versus.written("abcd") == set("abcd")
    assert versus.written("abe") == {"e"}
    assert versus.written("abc") == set()
    done = run("versus.py", "--works", "a", "e", "--write", tmp_path, check=False)
    assert done.returncode == 2
    assert "--write needs the works a, b, c and d, or e" in done.stderr


def test_the_costs_of_the_unit_tests_are_put_into_the_readmes(tmp_path, capsys):
    unit_tests = importlib.import_module("benchmarks.unit_tests")
    summary = importlib.import_module("benchmarks.summary")
    shown = unit_tests.cost_table(1000, 10**7, 20.0, [4.0, 8.0])
    assert tables(shown)[0][0]["runs in a job's time"] == "300"
    summary.write(copied(tmp_path) / "benchmarks" / "README.md", summary.UNIT_TESTS, shown)
    summary.summarise(tmp_path)
    row = summary.rows_of(tmp_path / "README.md", summary.PLACE)[2]
    assert (row["here"], row["times as long"]) == ("20 s", "300")
    assert "1,000 runs" in row["work"]
    with pytest.raises(SystemExit) as stop:
        unit_tests.main(["--tables", str(tmp_path), "--quick", "--write", str(ROOT)])
    assert stop.value.code == 2
    assert "--write needs --all without --quick" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_the_gpu_benchmark_says_that_it_ran_on_a_cpu():
    out = run("gpu.py", "--quick", "--repeats", "1", "--only", "step", "sizes", "diagram").stdout
    assert "(cpu)" in out.splitlines()[0]
    assert "not on a GPU" in out
    versus, sizes, diagram = tables(out)
    assert {row["what"].split()[0] for row in versus} >= {"causal_sgd,", "jit(vmap)", "NumPy"}
    assert {row["law"] for row in sizes} == {"gaussian_law", "low_rank_law"}
    assert diagram[0]["runs"].startswith("8 = ")


@pytest.mark.long
@pytest.mark.slow
def test_the_gpu_benchmark_trains_unit_tests_and_networks():
    out = run("gpu.py", "--quick", "--only", "unit-tests", "networks").stdout
    jobs, networks = tables(out)
    assert [(row["examples x methods"], row["runs"]) for row in jobs] == [("2 x 2", "16")]
    assert [row["runs"] for row in networks] == ["10", "10"]
    assert all(float(row["s, compiled"]) > 0 for row in networks)


def test_the_gpu_benchmark_refuses_full_sizes_on_a_cpu():
    done = run("gpu.py", check=False)
    assert done.returncode == 2
    assert "jax sees no GPU" in done.stderr
    assert "Traceback" not in done.stderr


SCRIPTS = ("gpu.py", "memory.py", "stores.py", "sweep_overhead.py")


@pytest.mark.parametrize(
    "script", ["curves.py", *(pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS)]
)
def test_no_repeats_is_refused(script):
    done = run(script, "--repeats", "0", check=False)
    assert done.returncode == 2
    assert "--repeats must be at least 1, got 0" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_overhead_of_a_sweep():
    out = run("sweep_overhead.py", "--dim", "6", "--steps", "5", "--repeats", "1").stdout
    (rows,) = tables(out)
    assert [row["variant"] for row in rows][:3] == [
        "bare program",
        "sweep in memory",
        "sweep in a store",
    ]
    assert float(rows[0]["over the bare program"]) == 1


@pytest.mark.slow
def test_the_costs_of_stores_are_shown_for_each_tile():
    sizes = "--runs", "27", "--tiles", "2", "16", "--requests", "2", "--repeats", "1"
    (rows,) = tables(run("stores.py", *sizes).stdout)
    shown = {row["seconds"]: row for row in rows}
    goals = {
        name: float(row["goal at 10^6 runs"])
        for name, row in shown.items()
        if row["goal at 10^6 runs"]
    }
    assert goals == {
        "a call with nothing to do": 0.3,
        "one metric as a whole": 1.5,
        "2 new runs, beyond the same in memory": 0.3,
        "verification": 4,
    }
    assert "2 new runs after 2 requests" in shown
    assert all(math.isfinite(float(row[tile])) for row in rows for tile in ("tile 2", "tile 16"))


@pytest.mark.slow
def test_some_costs_of_stores_are_measured_alone():
    sizes = "--runs", "8", "--tiles", "4", "--repeats", "1", "--only", "verify"
    (rows,) = tables(run("stores.py", *sizes).stdout)
    assert [row["seconds"] for row in rows] == ["files", "the sweep that fills it", "verification"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)
def test_the_memory_of_a_sweep(tmp_path):
    # two processes run one program: the first keeps it for the other
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    out = run("memory.py", "--runs", "100", "--repeats", "1", **cache).stdout
    (rows,) = tables(out)
    assert [row["runs"] for row in rows] == ["100"]
    assert all(50 < float(row["in a store, MiB"]) < 5000 for row in rows)


@pytest.mark.slow  # test_refinement.py has the property of a made-up transition
@pytest.mark.long
def test_a_refined_diagram_takes_fewer_runs():
    (rows,) = tables(
        run(
            "refinement.py",
            "--size",
            "16",
            "--seeds",
            "8",
            "--keys",
            "2",
            "--reference-seeds",
            "32",
        ).stdout
    )
    assert rows[0]["seeds"] == "8"
    assert float(rows[0]["times fewer"]) > 1.5
    refused = run("refinement.py", "--seeds", "4", check=False)
    assert refused.returncode == 2
    assert "--seeds must be at least 8" in refused.stderr


@pytest.mark.long
@pytest.mark.slow
def test_compilation_of_some_studies():
    out = run("compilation.py", "--quick", "finite-time", "tilt").stdout
    (rows,) = tables(out)
    assert [row["study"] for row in rows] == ["finite-time", "tilt"]
    assert all(int(row["programs"]) > 0 for row in rows)
    slowest = max(float(row["slowest, s"]) for row in rows)
    assert out.splitlines()[-1] == f"slowest of all: {slowest:.2f} s"
    refused = run("compilation.py", "nonsense", check=False)
    assert "study must be one of" in refused.stderr


@pytest.mark.long
@pytest.mark.slow
def test_what_is_waited_for():
    out = run("cold_start.py", "--only", "imports", "figure", "--quick", "--repeats", "1").stdout
    (rows,) = tables(out)
    seconds = {row["what"]: float(row["s"]) for row in rows}
    assert list(seconds) == [
        "import jax",
        "import causal_sgd, after jax",
        "reproduce trajectories, until the figure is there",
        "reproduce trajectories, whole",
    ]
    assert (
        0
        < seconds["reproduce trajectories, until the figure is there"]
        < seconds["reproduce trajectories, whole"]
    )


def claims(path: Path, *measured: float, key: str = "pooled", holds: bool | None = True) -> Path:
    claim = {"study": "tilt", "low": 0, "high": 2, "text": "", "source": ""}
    document = {
        "claims": [
            claim | {"name": f"{key}_{index}", "measured": value, "holds": holds}
            for index, value in enumerate(measured)
        ]
    }
    path.write_text(json.dumps(document))
    return path


def test_claims_that_differ_are_listed(tmp_path, capsys):
    compare_claims = importlib.import_module("benchmarks.compare_claims")
    old = claims(tmp_path / "old.json", 1.0, math.nan, 0.5)

    def compare(new: Path) -> tuple[int, list[dict[str, str]], str]:
        status = compare_claims.main([str(old), str(new)])
        out = capsys.readouterr().out
        return status, [row for table in tables(out) for row in table], out.splitlines()[-1]

    status, rows, last = compare(old)
    assert (status, rows) == (0, [])
    assert last.startswith("3 claims in both: 0 values, 0 intervals and 0 verdicts differ")
    status, rows, last = compare(claims(tmp_path / "value.json", 1.5, math.nan, 0.5))
    assert status == 0
    assert [row["claim"] for row in rows] == ["pooled_0"]
    assert rows[0]["relative change"] == "+0.5"
    status, rows, last = compare(claims(tmp_path / "verdict.json", 1.0, math.nan, 0.5, holds=False))
    assert status == 1
    assert {row["verdicts"] for row in rows} == {"holds -> fails"}
    status, rows, last = compare(claims(tmp_path / "found.json", 1.0, math.nan, 0.5, holds=None))
    assert status == 1
    assert {row["verdicts"] for row in rows} == {"holds -> finding"}
    assert last.endswith("0 claims fail in the new file")
    status, rows, last = compare(claims(tmp_path / "key.json", 1.0, key="other"))
    assert status == 1
    assert "4 claims in one file only" in last


def test_two_checkouts_are_measured_in_turns(tmp_path):
    side_by_side = importlib.import_module("benchmarks.side_by_side")
    for name, seconds in (("old", 2.0), ("new", 1.0)):
        folder = tmp_path / name / "benchmarks"
        folder.mkdir(parents=True)
        (tmp_path / name / "causal_sgd").mkdir()
        (folder / "toy.py").write_text(
            "import os, sys\n"
            f"print({name!r}, file=open({str(tmp_path / 'order')!r}, 'a'))\n"
            "assert os.environ['PYTHONPATH'] == os.getcwd()\n"
            f"print('| way {name} | seconds |\\n|---|---|\\n| a | {seconds} |\\n| b | 3,000 |')\n"
        )
    toy = side_by_side.Benchmark("toy.py", (), "seconds", "s")
    rows = side_by_side.alternate(toy, [tmp_path / "old", tmp_path / "new"], 2)
    assert [(row.name, row.old, row.new) for row in rows] == [
        ("a", [2.0, 2.0], [1.0, 1.0]),
        ("b", [3000.0, 3000.0], [3000.0, 3000.0]),
    ]
    assert (tmp_path / "order").read_text().split() == ["old", "new", "new", "old"]
    assert "| 2 | 1 | 0.500 | 0.500 to 0.500 |" in rows[0].text("toy", "s")
    (tmp_path / "new" / "benchmarks" / "toy.py").write_text("raise SystemExit('broken')")
    with pytest.raises(ValueError, match="broken"):
        side_by_side.alternate(toy, [tmp_path / "old", tmp_path / "new"], 1)


def test_the_tables_of_the_benchmarks_are_read():
    side_by_side = importlib.import_module("benchmarks.side_by_side")
    roofline = (
        "| law | d | k | tile | step, us a run | products |\n|---|---|---|---|---|---|\n"
        "| exact | 20 | 20 | 128 | 1,001.76 | 0.76 |\n"
    )
    versus = (
        "| batch | us a step and run, d = 50 | of that |\n|---|---|---|\n| 100 | 9.93 | 1.0 |\n\n"
        "| what | seconds | times the engine |\n|---|---|---|\n"
        "| causal_sgd (the first call: +4.9 s) | 29.8 | 1 |\n| NumPy loop | 5.1e+05 | 17 |\n"
    )
    read = {
        name: side_by_side.timings(side_by_side.BENCHMARKS[name], text)
        for name, text in (("roofline", roofline), ("versus", versus))
    }
    assert read["roofline"] == {"exact, 20, 20, 128": 1001.76}
    assert read["versus"] == {"100": 9.93, "causal_sgd": 29.8}
    with pytest.raises(ValueError, match="printed no numbers"):
        side_by_side.timings(side_by_side.BENCHMARKS["cold_start"], roofline)


@pytest.mark.slow
@pytest.mark.long
def test_weighed_batches_are_timed_beside_gathered_ones():
    (rows,) = tables(run("gathered.py", "--quick").stdout)
    assert [(row["examples"], row["batch"]) for row in rows] == [("40", "1")]
    # A difference of times, which at this size is noise of either sign.
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())


@pytest.mark.slow
@pytest.mark.long
def test_networks_are_timed_beside_pytorch():
    found = tables(run("networks.py", "--quick", "--threads", "1").stdout)
    assert len(found) == 2
    for rows, kind in zip(
        found, ("labels and colours drawn anew", "rows of fixed arrays"), strict=True
    ):
        assert rows[0][kind].startswith("causal_sgd (the first call")
        assert rows[0]["times the engine"] == "1"
        names = [row[kind].split(",")[0] for row in rows[1:]]
        assert names in ([], ["PyTorch", "PyTorch"])


@pytest.mark.slow
@pytest.mark.long
def test_the_costs_of_invariance_are_shown_beside_peers():
    steps, search, sizes = tables(run("invariance.py", "--quick").stdout)
    assert {row["method"] for row in steps} == {"ERM", "IRMv1", "V-REx"}
    assert {row["what"].split()[0] for row in steps} >= {"causal_sgd", "NumPy"}
    # The engine's is the difference of two sweeps, which at this size is noise of either sign.
    costs = [(row["what"], float(row["us a step and run"].replace(",", ""))) for row in steps]
    assert all(cost > 0 for what, cost in costs if "causal_sgd" not in what)
    assert all(math.isfinite(cost) for _, cost in costs)
    assert [row["EILLS, 4096 subsets"].split()[0] for row in search] == ["causal_sgd", "NumPy"]
    one, eight = sizes
    assert [row["values of n"] for row in sizes] == ["1", "8"]
    # Programs are compiled once, or once for each device, whatever the number of values.
    assert all(1 <= int(row["compilations"]) <= int(row["devices"]) for row in (one, eight))


@pytest.mark.slow
@pytest.mark.long
def test_the_tables_for_the_literature_are_complete(tmp_path):
    done = run("invariance.py", "--quick", "--tables", tmp_path)
    assert "runs" in done.stdout
    assert "s left" in done.stderr
    chain, demo = (
        list(csv.DictReader((tmp_path / name).open())) for name in ("chain.csv", "eills.csv")
    )
    assert [row["method"] for row in chain] == ["ERM", "ICP", "IRM"]
    assert all(row["scramble"] == "1" and float(row["causal_mean"]) > 0 for row in chain)
    assert [bool(row["empty_share"]) for row in chain] == [True, True, False]
    both = {"EILLS", "EILLS+refit", "oracle", "without_G", "pooled"}
    one = {"FAIR-BF", "anchor", "ICP", "ICP-oracle", "IRM-oracle"}
    assert {row["method"] for row in demo if row["n"] == "100"} == both | one
    assert {row["method"] for row in demo if row["n"] == "300"} == both
    assert all(float(row["mean"]) > 0 and float(row["median"]) > 0 for row in demo)
