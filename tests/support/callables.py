"""All public functions and methods with valid arguments, for walks over all of them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import causal_sgd as cs
from causal_sgd import sweeps
from causal_sgd.experiment import Experiment, SupervisedExperiment
from causal_sgd.figures import Runs
from causal_sgd.sensing.worlds import Family, Geometry, World
from causal_sgd.supervised.worlds import Placement
from causal_sgd.sweeps import _options
from causal_sgd.sweeps.store import Manifest, Store
from causal_sgd.theory import BatchSettings
from causal_sgd.training.algorithms import FederatedOptions
from causal_sgd.types import Snapshot
from support.valid import (
    AX,
    AXES,
    CELL,
    CHAIN,
    EXPERIMENT,
    MODEL,
    OWN,
    REFINEMENT,
    REGRESSION,
    RESULTS,
    VALID,
    Later,
    shapes_of_cell,
    snapshot,
    world,
)

PASSED_ON: dict[str, type] = {
    "BatchSettings": BatchSettings,
    "CompareOptions": _options.CompareOptions,
    "Family": Family,
    "FederatedOptions": FederatedOptions,
    "Geometry": Geometry,
    "Placement": Placement,
    "RefineOptions": _options.RefineOptions,
}
"""The keywords that `**options: Unpack[...]` stands for."""


class Call(NamedTuple):
    """A public function, or a method of an instance made within a folder, with valid arguments."""

    make: Callable[[Path], Callable[..., object]]
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    several: bool  # whether it takes any keyword
    arguments: Mapping[str, object]  # valid ones

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return (*self.positional, *self.keywords, *(["nonsense"] if self.several else []))

    def __call__(self, changes: Mapping[str, object]) -> object:
        """Call it within a new folder, with some arguments changed; settings of jax are kept."""
        with in_folder() as folder:
            if "path" in self.parameters:
                stored(folder)
            function = self.make(folder)
            given = {**self.arguments, **changes}
            given = {n: v.make() if isinstance(v, Later) else v for n, v in given.items()}
            if given.get("ax") is AX:
                given["ax"] = Figure().subplots()
            first = [given.pop(name) for name in self.positional if name in given]
            return function(*first, **given)


SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextlib.contextmanager
def in_folder() -> Iterator[Path]:
    """A new working directory; settings of jax that change within it are restored."""
    before, values = Path.cwd(), {name: getattr(jax.config, name) for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            for name, value in values.items():
                jax.config.update(name, value)


@functools.cache
def _original() -> tempfile.TemporaryDirectory[str]:
    """A folder with a store and a world file."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name)
    sweeps.sweep(CELL, axes=AXES, seeds=2, tile=2, store=path / "own.zarr", progress=False)
    np.savez(path / "world.npz", invariant=VALID["invariant"], spurious=VALID["spurious"])
    return folder


def stored(folder: Path) -> Store:
    """The store in a folder, and a world file beside it."""
    shutil.copytree(_original().name, folder, dirs_exist_ok=True)
    return Store(folder / "own.zarr")


def _call(name: str, function: Callable[..., Any], make: Callable[[Path], Any] | None) -> Call:
    own = OWN.get(name, {}) | OWN.get(name.rpartition(".")[2], {})
    valid = VALID | own
    positional, keywords, several = [], [], False
    arguments: dict[str, object] = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            continue
        if each.kind is each.VAR_KEYWORD:
            kind = str(each.annotation).removeprefix("Unpack[").removesuffix("]")
            passed = PASSED_ON.get(kind)
            several = passed is None
            arguments |= {"nonsense": valid["nonsense"]} if "nonsense" in valid else {}
            if passed is not None:
                names = passed.__annotations__
                keywords += names
                arguments |= {other: valid[other] for other in names if other in valid}
            continue
        (positional if each.kind is each.POSITIONAL_ONLY else keywords).append(each.name)
        needed = each.default is each.empty or each.name in own
        if needed and each.name in valid:
            arguments[each.name] = valid[each.name]
    return Call(
        make or (lambda folder: function), tuple(positional), tuple(keywords), several, arguments
    )


def _functions(module: types.ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """All public functions of a module and of its public modules, with their names."""
    for name in module.__all__:
        member = getattr(module, name)
        if isinstance(member, types.ModuleType) and member.__name__.startswith("causal_sgd"):
            if hasattr(member, "__all__") and name != "studies":
                yield from _functions(member)
        elif inspect.isfunction(member):
            yield f"{module.__name__.removeprefix('causal_sgd.')}.{name}", member


def limited(folder: Path) -> Experiment:
    """An experiment that has a limit."""
    del folder
    return CHAIN


def _methods() -> Iterator[tuple[str, Callable[..., Any], Callable[[Path], Any]]]:
    """The methods of public classes, and what makes each, bound, within a folder."""
    instances: dict[type, Callable[[Path], Any]] = {
        Experiment: lambda folder: EXPERIMENT,
        SupervisedExperiment: lambda folder: REGRESSION,
        Runs: lambda folder: RESULTS.sgd,
        Store: stored,
        Manifest: lambda folder: Manifest,
        type(REFINEMENT): lambda folder: REFINEMENT,
        type(MODEL): lambda folder: MODEL,
        World: lambda folder: world(),
        Snapshot: lambda folder: snapshot(),
    }
    for kind, make in instances.items():
        for name in dir(kind):
            method = getattr(kind, name)
            if name.startswith("_") or hasattr(tuple, name) or not inspect.isroutine(method):
                continue
            if name == "limit":
                make = limited
            bound = method if inspect.ismethod(method) else types.MethodType(method, object())
            yield (
                f"{kind.__name__}.{name}",
                bound,
                lambda folder, make=make, name=name: getattr(make(folder), name),
            )


CALLS: dict[str, Call] = {
    name: _call(name, function, None)
    for name, function in {
        **dict(_functions(cs)),
        **dict(_functions(sweeps)),
        "Experiment": Experiment,
        "SupervisedExperiment": SupervisedExperiment,
        "Store": Store,
        "Runs": Runs,
        "cell": shapes_of_cell,
    }.items()
} | {name: _call(name, function, make) for name, function, make in _methods()}
