"""Make the old stores with the revisions of the package that wrote their formats.

    git worktree add OLD fce7200
    (cd OLD && PYTHONPATH=OLD python HERE/make.py descent sensing renamed)
    git worktree add NEW e549fec
    (cd NEW && PYTHONPATH=NEW python HERE/make.py killed regression)

HERE is this folder; all paths are absolute. Each store becomes NAME.zip. The results of the same
sweep in memory become NAME.npz, where `done` tells which runs the store has. The stores name
version 0.0.1 of the package, because a store grows under its own version only by the very same
program, but under another one by any program of the same configuration.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import causal_sgd

VERSION = "0.0.1"
HERE = Path(__file__).parent


def pretend(version: str) -> None:
    """Let the package name this version as its own."""
    installed = importlib.metadata.version
    importlib.metadata.version = lambda name: version if name == "causal_sgd" else installed(name)
    causal_sgd.__version__ = version


def make(name: str) -> None:
    """Make one store by two requests, and the results that it must hold."""
    import jax
    import numpy as np
    import zarr
    from cells import CALLS, SEEDS  # pyright: ignore[reportMissingImports]  # beside this script

    call = CALLS[name]
    root = Path(causal_sgd.__file__).parents[1]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    )
    if not head.stdout.startswith(call.revision):
        raise SystemExit(f"{name} must be made by revision {call.revision}, got {head.stdout[:7]}")
    options = {
        "config": call.config,
        "axes": call.axes,
        "tile": call.tile,
        "devices": jax.devices()[:1],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.zarr"
        for seeds in SEEDS:
            causal_sgd.sweep(call.cell, seeds=seeds, store=path, **options)
        memory = causal_sgd.sweep(call.cell, seeds=SEEDS[-1], **options)
        assert causal_sgd.open_results(path).drop_vars("done").equals(memory)
        for unit in call.missing:  # as if the sweep had been killed before it was done
            zarr.open_array(path / "status", mode="r+")[unit] = 0
        values: Any = {variable: each.values for variable, each in memory.items()}
        values["done"] = causal_sgd.open_results(path)["done"].values
        np.savez_compressed(HERE / f"{name}.npz", **values)
        with zipfile.ZipFile(HERE / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(each for each in path.rglob("*") if each.is_file()):
                archive.write(file, file.relative_to(path))


def main() -> None:
    """Make the stores that are named."""
    parser = argparse.ArgumentParser(description="Make old stores.")
    parser.add_argument("names", nargs="+")
    pretend(VERSION)
    warnings.simplefilter("error")
    for name in parser.parse_args().names:
        make(name)


if __name__ == "__main__":
    main()
