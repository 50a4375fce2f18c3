"""Every command and every page of the documentation uses all cores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from causal_sgd import sweep
from causal_sgd.experiment import Experiment
from support import first_use
from support.markdown import blocks, save_files
from support.shell import call, words
from support.stores import forget

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = "--steps 5 --seeds 2 --measurement population --metrics spurious_signal"
FIELDS = {"steps": 5, "measurement": "population", "metrics": ("spurious_signal",)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a world file, and a damaged and incomplete store of its runs."""
    own = np.diag([0.0, 0.0, 2.0, 0.0])
    invariant = np.diag([1.0, 1.0, 0.0, 0.0])
    np.savez(tmp_path / "world.npz", invariant=invariant, spurious=np.stack([own, -own]))
    cell = Experiment(**FIELDS, world_file=tmp_path / "world.npz").cell()
    sweep(cell, seeds=4, tile=2, store=tmp_path / "d.zarr")
    forget(tmp_path / "d.zarr", [0])
    max((tmp_path / "d.zarr" / "spurious_signal").glob("c.*")).write_bytes(b"")
    return tmp_path


def assert_all_cores(codes: list[str], folder: Path) -> None:
    """Let a process run pieces of code up to their first sweeps."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, first_use.__file__, *codes],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def command(line: str) -> str:
    """The code of a command."""
    return f"from causal_sgd import cli; cli.main({line.split()})"


@pytest.mark.slow
def test_commands_for_stores_and_world_files_use_all_cores(folder: Path) -> None:
    lines = [f"run {SMALL} --world-file world.npz --out run.zarr", "resume d.zarr", "repair d.zarr"]
    code = "import causal_sgd as cs; cell = cs.Experiment(world_file='world.npz').cell()"
    assert_all_cores([*map(command, lines), f"{code}; cs.sweep(cell, seeds=2)"], folder)


def test_worlds_of_data_outside_of_a_cell_start_no_devices(folder: Path) -> None:
    first = "import causal_sgd as cs, numpy as np; from causal_sgd.supervised import worlds;"
    last = "cs.sweep(lambda key: None, seeds=2)"
    x = "np.random.default_rng(0).normal(size=(8, 2))"
    drawn = "lambda key, environment, n: (np.ones((n, 2)), np.ones(n))"
    calls = [
        f"worlds.from_arrays({x}, np.ones(8), [0] * 4 + [1] * 4, tests=[1], target=[1.0, 0.0])",
        f"worlds.from_draws({drawn}, 2, num_tests=1, probabilities=[0.5, 0.5])",
        "worlds.coloured_digits(images=(np.ones((9, 4)), np.arange(9)), fixed=True)",
    ]
    assert_all_cores([f"{first} {call}; {last}" for call in calls], folder)


@pytest.mark.slow
def test_networks_of_other_packages_start_no_devices(folder: Path) -> None:
    for package in ("equinox", "flax"):
        pytest.importorskip(package)
    first = "import causal_sgd as cs, numpy as np; from causal_sgd.supervised import models;"
    last = "cs.sweep(lambda key: None, seeds=2)"
    x = "np.zeros(2)"
    calls = [
        "import equinox; models.from_equinox(lambda key: equinox.nn.Linear(2, 1, key=key))",
        f"from flax import linen; models.from_flax(linen.Dense(1), {x})",
        f"from flax import nnx; models.from_flax(lambda rngs: nnx.Linear(2, 1, rngs=rngs), {x})",
    ]
    assert_all_cores([f"{first} {call}; {last}" for call in calls], folder)


@pytest.mark.slow
def test_every_other_command_and_function_that_sweeps_uses_all_cores(folder: Path) -> None:
    lines = [
        f"run {SMALL}",
        f"phase {SMALL} --x spread=0:4:2 --y mean=0.5,1",
        f"phase {SMALL} --x spread=0:4:2 --y mean=0.5,1 --refine",
        f"phase {SMALL} --x learning-rate=0.1,0.2 --y init-scale=0.1,0.2 --world-file world.npz",
        "reproduce divergence --quick --out figures",
        "doctor",
    ]
    first = "import causal_sgd as cs; cell = cs.Experiment(steps=5).cell();"
    functions = [
        f"{first} cs.compare({{'a': cell, 'b': cell}}, seeds=2)",
        f"{first} cs.refine(cell, axes={{'spread': [0, 4], 'mean': [1, 2]}}, "
        "metric='spurious_signal', level=1.0)",
    ]
    assert_all_cores([*map(command, lines), *functions], folder)


@pytest.mark.slow
def test_every_page_uses_all_cores(tmp_path: Path) -> None:
    texts = [page.read_text("utf-8") for page in PAGES]
    for text in texts:
        save_files(text, tmp_path)
    codes = ["".join(blocks(text)) for text in texts]
    assert_all_cores(
        [code for code in codes if re.search(r"(sweep|refine|compare)\(", code)], tmp_path
    )


def test_the_configuration_has_the_dimension_of_the_world_file(folder: Path, capsys) -> None:
    file = str(folder / "world.npz")
    code, out, _ = call("run", *words(SMALL), "--json", "--world-file", file, capsys=capsys)
    assert code == 0
    assert json.loads(out)["config"]["dim"] == 4
    code, out, _ = call("status", str(folder / "d.zarr"), "--json", capsys=capsys)
    assert json.loads(out)["configuration"]["experiment"]["dim"] == 4
