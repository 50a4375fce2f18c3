"""Is this installation in order? Versions, devices, cores, settings, and a small run against known numbers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
import psutil
from packaging.requirements import Requirement

from causal_sgd.analysis import metric_names
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import _machine, sweep
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Key, Trace

__all__ = [
    "GOLDEN",
    "TOLERANCE",
    "Finding",
    "examine",
    "golden_cell",
    "golden_numbers",
    "worst_deviation",
]

GOLDEN = "golden.json"
"""The file of this package with the numbers of `golden_numbers`."""
TOLERANCE = 1e-4
"""How far, relatively, golden runs may stray: float32 and another order of sums, over 30 steps far from any transition."""
GOLDEN_KEY = 2024
EXTRAS = ("distributed", "explorer", "netcdf4", "slurm")  # that users ask for


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    said: str
    verdict: str  # "ok", "note" (works, but may not be what one wants) or "FAILS"


def examine() -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    yield from _versions()
    yield from _extras()
    yield from _computer()
    yield from _settings()
    yield from _self_test()


def golden_cell(key: Key) -> Trace:
    """The HeteroSGD of a dozen lines, with label noise: every random stream but the data's takes part."""
    algorithm = sgd(
        world=worlds.two_point(dim=6, invariant_rank=2, spurious_rank=2, mean=1.0, spread=4.0),
        sampler=samplers.hetero(batch_size=40),
        measurement=measurements.gaussian_law(noise=0.3),
        model=models.factored(dim=6, rank=4, init_scale=0.2),
        optimizer=optax.sgd(0.05),
    )
    watched = [
        metrics.invariant_error,
        metrics.spurious_signal,
        metrics.singular_values,
        metrics.environment_losses,
    ]
    return run(key, algorithm=algorithm, metrics=watched, num_steps=30, record_every=10)


def golden_numbers() -> dict[str, list[Any]]:
    """Four golden runs as a sweep makes them now, on all devices: step and metrics -> values."""
    dataset = sweep(golden_cell, seeds=4, key=GOLDEN_KEY, tile=2, progress=False)
    return {"step": dataset.step.values.tolist()} | {
        name: dataset[name].values.tolist() for name in metric_names(dataset)
    }


def worst_deviation(found: Mapping[str, Any]) -> float:
    """The largest relative deviation of a golden run from the numbers that this version was released with."""
    golden = json.loads(resources.files("causal_sgd.cli").joinpath(GOLDEN).read_text("utf-8"))
    if set(golden) != set(found):
        return float("inf")
    worst = 0.0
    for name, values in golden.items():
        expected, got = np.asarray(values), np.asarray(found[name])
        if expected.shape != got.shape or not np.isfinite(got).all():
            return float("inf")
        worst = max(
            worst, float((np.abs(got - expected) / np.maximum(np.abs(expected), 1e-2)).max())
        )
    return worst


def _versions() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("causal_sgd")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "causal_sgd",
            f"used from {Path(__file__).parent} without an installation: pip install -e .",
            "FAILS",
        )
        return
    yield Finding(
        "causal_sgd",
        f"{version} on Python {platform.python_version()}, {platform.platform()}",
        "ok",
    )
    for text in importlib.metadata.requires("causal_sgd") or ():
        wanted = Requirement(text)
        if not _applies(wanted):
            continue
        found = importlib.metadata.version(wanted.name)
        fits = wanted.specifier.contains(found, prereleases=True)
        advice = (
            ""
            if fits
            else f": must be {wanted.specifier}; pip install '{wanted.name}{wanted.specifier}'"
        )
        yield Finding(wanted.name, found + advice, "ok" if fits else "FAILS")


def _applies(wanted: Requirement, extra: str = "") -> bool:
    """Whether something is required by this Python, with an extra or without."""
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _installed(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def _extras() -> Iterator[Finding]:
    needed: dict[str, list[Requirement]] = {extra: [] for extra in EXTRAS}
    for wanted in map(Requirement, importlib.metadata.requires("causal_sgd") or ()):
        for extra in EXTRAS:
            if _applies(wanted, extra) and not _applies(wanted):
                needed[extra].append(wanted)
    have = {extra for extra, wanted in needed.items() if wanted and all(map(_installed, wanted))}
    missing = sorted(set(EXTRAS) - have)
    advice = (
        f"; not installed: {', '.join(missing)} (pip install 'causal_sgd[NAME]')" if missing else ""
    )
    yield Finding("extras", (", ".join(sorted(have)) or "none") + advice, "ok")


def _computer() -> Iterator[Finding]:
    devices = _machine.local_devices(None)
    kinds = sorted({f"{device.platform} ({device.device_kind})" for device in devices})
    said, verdict = f"{len(devices)} x {', '.join(kinds)}", "ok"
    if devices[0].platform == "cpu":
        said += f", of {_machine.cores()} cores that this process may use"
        if len(devices) < _machine.cores():
            said += "; call causal_sgd.use_cpu_cores() before the first use of jax to use all"
            verdict = "note"
        if shutil.which("nvidia-smi"):
            said += (
                "; there is an NVIDIA driver, but jax sees no GPU: pip install 'causal_sgd[cuda]'"
            )
            verdict = "note"
    yield Finding("devices", said, verdict)
    free, whole = psutil.virtual_memory().available / 2**30, psutil.virtual_memory().total / 2**30
    yield Finding("memory", f"{free:.1f} GiB free of {whole:.1f}", "ok" if free > 1 else "note")


def _settings() -> Iterator[Finding]:
    folder = _machine.setting("jax_compilation_cache_dir")
    yield Finding(
        "compilation cache",
        str(folder) if folder else "none (use_compilation_cache, or --cache)",
        "ok",
    )
    values = ", ".join(
        f"{name.removeprefix('jax_')} {value}" for name, value in _machine.settings().items()
    )
    yield Finding("settings of jax", values, "ok")
    shown = {name: value for name, value in os.environ.items() if re.match(r"(JAX|XLA)_", name)}
    if shown:
        yield Finding(
            "environment",
            ", ".join(f"{name}={value}" for name, value in sorted(shown.items())),
            "note",
        )


def _self_test() -> Iterator[Finding]:
    begin = time.perf_counter()
    worst = worst_deviation(golden_numbers())
    text = f"worst relative deviation {worst:.1e}, allowed {TOLERANCE:.0e}; {time.perf_counter() - begin:.1f} s"
    yield Finding("golden runs", text, "ok" if worst <= TOLERANCE else "FAILS")
