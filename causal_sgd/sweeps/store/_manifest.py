"""The configuration that a store is made for, and the differences between two of them."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._provenance import plain_values

if TYPE_CHECKING:
    from causal_sgd.types import Trace

__all__ = ["Configuration", "Manifest", "StoreError", "changed_lines", "differences", "digest"]


class StoreError(ValueError):
    """A store cannot be used as it is; the message states the reason and the remedy."""


class _Described(TypedDict, total=False):
    """What is known of the cell and of the sweep's purpose."""

    experiment: dict[str, object]  # the fields that are not axes
    config: dict[str, object]  # the user's
    cell: str  # its name, if nothing else is known


class Configuration(_Described):
    """All that decides the results, as plain values."""

    parameters: dict[str, str]  # parameter -> type of its column
    metrics: dict[str, list[str | list[int]]]  # name -> [type, shape of one run's values]
    key: str
    key_implementation: str


class Manifest(NamedTuple):
    """The sweep that a store is made for: two sweeps with equal manifests may share it."""

    configuration: Configuration
    parameters: Mapping[str, str]  # parameter -> type of its column
    variables: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> type, shape of one run's values
    num_frames: int
    program: str  # fingerprint, comparable among equal versions
    source: str | None  # of the cell, where available
    files: Mapping[str, str]  # field -> path of the file whose digest is in the configuration

    @classmethod
    def make(
        cls,
        cell: Callable[..., Trace],
        grid: Grid,
        shapes: Trace,
        *,
        kinds: Sequence[np.dtype],
        program: str,
        key: Mapping[str, str],
        config: Mapping[str, object] | None,
    ) -> Manifest:
        """The manifest of a sweep.

        Args:
            cell: its cell, described by the attribute `configuration`, by `config`, or by its name;
                the attribute `files` says where the files of this configuration are.
            grid: its runs.
            shapes: of one run's results.
            kinds: the types of the columns, in the order of `grid.names`.
            program: the fingerprint of the program.
            key: the root key as text.
            config: the user's description, as plain values.

        Raises:
            ValueError: if an argument is of another kind, or JSON cannot hold `config` or the
                attribute `configuration`.
        """
        checks.instance("grid", grid, Grid, "the grid of a sweep")
        metrics = getattr(shapes, "metrics", None)
        checks.instance("shapes", metrics, Mapping, "the trace of a run, as shapes")
        checks.instance("kinds", kinds, Sequence, "the types of the columns")
        allowed = "a mapping with key and key_implementation"
        for name in ("key", "key_implementation"):
            if name not in checks.instance("key", key, Mapping, allowed):
                raise ValueError(f"key must be {allowed}, got none of {name!r}")
        described = _describe(cell, grid, config)
        source = None
        if not described:
            described["cell"] = getattr(cell, "__qualname__", repr(type(cell)))
            with contextlib.suppress(OSError, TypeError):
                source = inspect.getsource(cell)
        parameters = {name: str(kind) for name, kind in zip(grid.names, kinds, strict=True)}
        leaves = {**shapes.metrics, "diverged_at": shapes.diverged_at}
        variables = {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in leaves.items()}
        configuration: Configuration = {
            **described,
            "parameters": parameters,
            "metrics": {name: [kind, list(shape)] for name, (kind, shape) in variables.items()},
            "key": key["key"],
            "key_implementation": key["key_implementation"],
        }
        frames = shapes.step.shape[0]
        files = dict(getattr(cell, "files", {}))
        return cls(configuration, parameters, variables, frames, program, source, files)

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration as canonical JSON."""
        return digest(self.configuration)


def _describe(
    cell: Callable[..., Trace], grid: Grid, config: Mapping[str, object] | None
) -> _Described:
    """The configurations of the experiment and of the user, where there are any."""
    described: _Described = {}
    experiment = getattr(cell, "configuration", None)
    if experiment is not None:
        # An axis is not part of the configuration: a store may grow along it.
        described["experiment"] = {
            name: value
            for name, value in plain_values("configuration of the cell", experiment).items()
            if name not in grid.names
        }
    if config is not None:
        described["config"] = plain_values("config", config)
    return described


def digest(configuration: Mapping[str, object]) -> str:
    """SHA-256 of plain values as canonical JSON."""
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: object, new: object, name: str = "") -> list[str]:
    """One line for each difference between two plain values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in dict.fromkeys((*old, *new)):
            inner = f"{name}.{key}" if name else key
            lines += differences(old.get(key, "nothing"), new.get(key, "nothing"), inner)
        return lines
    return [] if old == new else [f"{name} is {old} in the store and {new} now"]


def changed_lines(old: str | None, new: str | None) -> list[str]:
    """The first lines of a cell's source that changed, where both sources are available."""
    if old is None or new is None:
        return []
    if old == new:
        return ["something that it refers to changed (its source did not)"] if old else []
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
    return [
        f"{line[0]} {line[1:].strip()}"
        for line in diff
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ][:8]
