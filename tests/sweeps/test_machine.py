"""Sweeps use all cores if jax has not started; compiled programs can be cached on disk."""

import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from causal_sgd import sweep
from causal_sgd.sweeps import _machine, _progress
from causal_sgd.sweeps._progress import Progress
from causal_sgd.sweeps.store import Store
from causal_sgd.types import Trace
from support.cases import few
from support.stores import edit
from support.sweeps import COMPILATIONS

SWEEP = """
import causal_sgd as cs
from causal_sgd.experiment import Experiment
cell = Experiment(
    dim=3, invariant_rank=1, spurious_rank=1, measurement="population", steps=4,
    metrics=("spurious_signal",),
).cell()
cs.sweep(cell, seeds=4, tile=2)
"""


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
    )


CORES = _machine.cores()
needs_cores = pytest.mark.skipif(CORES < 2, reason="needs two cores")


@pytest.mark.slow
@needs_cores
def test_a_sweep_sets_up_all_cores_by_itself() -> None:
    done = python(SWEEP + "import jax; print(jax.local_device_count())")
    assert int(done.stdout) == CORES
    assert "had started" not in done.stderr


@pytest.mark.slow
@needs_cores
def test_a_warning_says_that_jax_has_started() -> None:
    done = python("import jax; jax.devices()\n" + SWEEP + SWEEP)
    assert done.stderr.count(f"told to use {CORES} CPU cores, so sweeps use 1") == 1
    assert "causal_sgd.use_cpu_cores()" in done.stderr
    done = python("import jax; jax.devices()\nimport causal_sgd as cs\nprint(cs.use_cpu_cores())")
    assert done.stdout.strip() == "1"
    assert "so sweeps use 1" in done.stderr


@needs_cores
@pytest.mark.slow
@pytest.mark.parametrize(
    "choice", ["JAX_NUM_CPU_DEVICES=1", "XLA_FLAGS=--xla_force_host_platform_device_count=1"]
)
def test_the_choice_of_a_user_is_respected(choice: str) -> None:
    name, _, value = choice.partition("=")
    done = python(SWEEP + "import jax; print(jax.local_device_count())", **{name: value})
    assert done.stdout.strip() == "1"
    assert "had started" not in done.stderr


@pytest.mark.slow
def test_compiled_programs_are_cached(tmp_path) -> None:
    script = (
        f"import causal_sgd as cs; print(cs.use_compilation_cache({str(tmp_path)!r}))\n" + SWEEP
    )
    first = python(script)
    folder = first.stdout.strip()
    assert folder.startswith(str(tmp_path))
    cached = {path.name for path in tmp_path.rglob("*-cache")}
    assert cached
    hits = "jax.monitoring.register_event_listener(lambda event, **_: print(event))\n"
    second = python("import jax\n" + hits + script)
    assert "/jax/compilation_cache/cache_hits" in second.stdout
    assert "/jax/compilation_cache/cache_misses" not in second.stdout
    assert {path.name for path in tmp_path.rglob("*-cache")} == cached


def test_the_environment_is_described() -> None:
    environment = _machine.environment(jax.local_devices()[0])
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["platform"] == jax.default_backend()
    assert environment["x64"] is False
    with _machine.applied({"jax_enable_x64": True, "jax_default_matmul_precision": "highest"}):
        changed = _machine.environment(jax.local_devices()[0])
    assert (changed["x64"], changed["matmul_precision"]) == (True, "highest")
    assert _machine.environment(jax.local_devices()[0]) == environment


FAST = "--xla_dump_to=/nowhere --xla_cpu_enable_fast_math --xla_force_host_platform_device_count=3"


@pytest.mark.parametrize(
    ("variables", "recorded"),
    [
        ({}, {}),
        ({"XLA_FLAGS": "--xla_dump_to=/nowhere"}, {}),
        ({"XLA_FLAGS": FAST}, {"xla_cpu_enable_fast_math": "true"}),
        ({"XLA_FLAGS": " --xla_a=1\t--xla_b=false"}, {"xla_a": "1", "xla_b": "false"}),
        ({"XLA_FLAGS": "flags.txt"}, {"xla_c": "4"}),
        ({"LIBTPU_INIT_ARGS": "--xla_tpu_d=e"}, {"xla_tpu_d": "e"}),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, {"NVIDIA_TF32_OVERRIDE": "0"}),
    ],
)
def test_flags_that_change_bits_are_recorded(
    variables: dict[str, str], recorded: dict[str, str], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.txt").write_text("--xla_c=4\n")
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _machine._flags.__wrapped__() == recorded


@pytest.mark.parametrize(
    ("name", "value"),
    few(
        [
            ("jax_disable_most_optimizations", True),
            ("jax_optimization_level", "O1"),
            ("jax_exec_time_optimization_effort", 0.5),
        ],
        [("jax_disable_most_optimizations", True)],
    ),
)
def test_a_store_warns_where_the_compiler_is_set_otherwise(name: str, value: Any, tmp_path) -> None:
    def cell(key: jax.Array) -> Trace:
        return Trace(jnp.arange(2), {"u": jax.random.normal(key, (2,))}, jnp.asarray(-1))

    path, before = tmp_path / "runs.zarr", jax.config.values[name]
    sweep(cell, seeds=2, tile=2, store=path)
    COMPILATIONS.clear()
    jax.config.update(name, value)
    try:
        with pytest.warns(UserWarning, match=f"agree up to rounding only: .*compiler.{name} is"):
            sweep(cell, seeds=4, store=path)
    finally:
        jax.config.update(name, before)
    assert COMPILATIONS, "the program of the other settings was used"
    first, second = Store(path).environments
    assert first.get("compiler") == {}
    assert second.get("compiler") == {name: str(value)}


def test_a_store_without_a_record_of_the_compiler_goes_on(tmp_path: Path) -> None:
    def cell(key: jax.Array) -> Trace:
        return Trace(jnp.arange(2), {"u": jax.random.normal(key, (2,))}, jnp.asarray(-1))

    path = tmp_path / "runs.zarr"
    sweep(cell, seeds=2, tile=2, store=path)
    edit(path, lambda header: header["environments"][0].pop("compiler"), vouched=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sweep(cell, seeds=4, store=path).u.shape == (4, 2)


class Terminal:
    """A standard error that is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("shown", [None, True, False])
def test_progress_is_a_bar_or_lines(
    terminal: bool, shown: bool | None, tmp_path, monkeypatch, caplog
) -> None:
    error = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO, "causal_sgd")
    log = tmp_path / "sweep.log"
    with Progress("diagram", 10, 4, shown=shown, log_file=log) as progress:
        time.sleep(0.01)
        progress.add(3, 1)
        progress.tick()
        progress.add(3, 0)
    bar = shown is True or (shown is None and terminal)
    assert ("diagram" in error.text) == bar
    if bar:
        assert "10/10" in error.text
        assert "1 diverged" in error.text
    lines = log.read_text().splitlines() if log.exists() else []
    assert bool(lines) == (shown is None and not terminal)
    assert bool(caplog.messages) == bool(lines)
    if lines:
        assert "diagram: running, 7 of 10 runs, 1 diverged" in lines[0]
        assert "s left" in lines[0]
        assert "runs/s" in lines[0]
        assert "diagram: finished, 10 of 10 runs, 1 diverged" in lines[-1]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal(False))
    with Progress("diagram", 1, 0, shown=None, log_file=tmp_path / "nowhere" / "log") as progress:
        progress.add(1, 0)


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_a_bar(monkeypatch, capsys, widgets: bool) -> None:
    import types

    from causal_sgd.sweeps import _progress

    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(
        _progress.sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell)
    )
    monkeypatch.setattr(
        _progress.importlib.util, "find_spec", lambda name: widgets and name == "ipywidgets"
    )
    made = []
    notebook = types.ModuleType("tqdm.notebook")
    notebook.tqdm = lambda **options: made.append(options) or _progress.tqdm(**options)  # pyright: ignore
    monkeypatch.setitem(_progress.sys.modules, "tqdm.notebook", notebook)
    with Progress("diagram", 2, 0, shown=None, log_file=None) as progress:
        progress.add(2, 0)
    assert "diagram: 100%" in capsys.readouterr().err
    assert len(made) == widgets
