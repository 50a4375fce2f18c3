"""`causal-sgd doctor`: versions, devices, settings, and a small run against known numbers."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement

import causal_sgd
from causal_sgd.cli.computation import start

__all__ = ["Doctor", "Finding", "examine"]

PACKAGE = "causal_sgd"
# For users; the others are for developers.
EXTRAS = ("cloud", "data", "distributed", "equinox", "flax", "netcdf4", "slurm")
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Check the installation: versions, devices, settings, and a small run against known numbers.

    The exit code is 1 if a check fails.
    """

    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Examine and print."""
        start()
        findings = []
        for finding in examine():
            findings.append(finding)
            if not self.json:
                print(f"{finding.verdict:6} {finding.name:20} {finding.text}", flush=True)
        failed = [finding.name for finding in findings if finding.verdict == "FAILS"]
        if self.json:
            report = [finding._asdict() for finding in findings]
            print(json.dumps({"healthy": not failed, "findings": report}))
        else:
            print(f"\nfailed: {', '.join(failed)}" if failed else "\nall in order")
        return 1 if failed else 0


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    text: str
    verdict: str  # "ok", "note" (works, but may not be intended) or "FAILS"


def examine() -> Iterator[Finding]:
    """All checks, the quick ones first."""
    yield from _versions()
    yield from _extras()
    yield from _computer()
    yield from _settings()
    yield from _self_test()


def _versions() -> Iterator[Finding]:
    try:
        installed = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        text = f"used from {Path(__file__).parent} without an installation: pip install -e ."
        yield Finding(PACKAGE, text, "FAILS")
        return
    text = f"{causal_sgd.__version__} on Python {platform.python_version()}, {platform.platform()}"
    if installed == causal_sgd.__version__:
        yield Finding(PACKAGE, text, "ok")
    else:  # an editable installation keeps the version and the requirements that it was made with
        advice = f"installed as {installed}: run pip install -e . again"
        yield Finding(PACKAGE, f"{text}; {advice}", "note")
    for requirement in _requirements():
        if not _applies(requirement):
            continue
        name, allowed = requirement.name, requirement.specifier
        installed = importlib.metadata.version(name)
        if allowed.contains(installed, prereleases=True):
            yield Finding(name, installed, "ok")
        else:
            advice = f"must be {allowed}; pip install '{name}{allowed}'"
            yield Finding(name, f"{installed}: {advice}", "FAILS")


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(PACKAGE) or ()]


def _applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether this Python requires something, with an extra or without."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_installed(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _extras() -> Iterator[Finding]:
    needed: dict[str, list[Requirement]] = {extra: [] for extra in EXTRAS}
    for requirement in _requirements():
        for extra in EXTRAS:
            if _applies(requirement, extra) and not _applies(requirement):
                needed[extra].append(requirement)
    installed = {
        extra
        for extra, requirements in needed.items()
        if requirements and all(map(_is_installed, requirements))
    }
    text = ", ".join(sorted(installed)) or "none"
    if missing := sorted(set(EXTRAS) - installed):
        text += f"; not installed: {', '.join(missing)} (pip install 'causal_sgd[NAME]')"
    yield Finding("extras", text, "ok")


def _computer() -> Iterator[Finding]:
    from causal_sgd.sweeps import _machine

    devices = _machine.local_devices(None)
    kinds = sorted({f"{device.platform} ({device.device_kind})" for device in devices})
    text, verdict = f"{len(devices)} x {', '.join(kinds)}", "ok"
    if devices[0].platform == "cpu":
        text += f", of {_machine.cores()} cores that this process may use"
        if len(devices) < _machine.cores():
            text += "; call causal_sgd.use_cpu_cores() before the first use of jax to use all"
            verdict = "note"
        if shutil.which("nvidia-smi"):
            text += "; there is an NVIDIA driver, but jax sees no GPU: "
            text += "pip install 'causal_sgd[cuda]'"
            verdict = "note"
    yield Finding("devices", text, verdict)
    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    yield Finding("memory", text, "ok" if memory.available > GIB else "note")


def _settings() -> Iterator[Finding]:
    from causal_sgd.sweeps import _machine

    folder = _machine.setting("jax_compilation_cache_dir")
    text = str(folder) if folder else "none (use_compilation_cache, or --cache)"
    yield Finding("compilation cache", text, "ok")
    values = [f"{name.removeprefix('jax_')} {value}" for name, value in _machine.settings().items()]
    yield Finding("settings of jax", ", ".join(values), "ok")
    variables = sorted(name for name in os.environ if re.match(r"(JAX|XLA)_", name))
    if variables:
        text = ", ".join(f"{name}={os.environ[name]}" for name in variables)
        yield Finding("environment", text, "note")


def _self_test() -> Iterator[Finding]:
    begin = time.perf_counter()
    from causal_sgd.cli import golden

    worst = golden.worst_deviation(golden.golden_numbers())
    seconds = time.perf_counter() - begin
    text = f"worst relative deviation {worst:.1e}, allowed {golden.TOLERANCE:.0e}; {seconds:.1f} s"
    yield Finding("golden runs", text, "ok" if worst <= golden.TOLERANCE else "FAILS")
