"""`causal-sgd explore`: stored diagrams as a page for the browser, written or served."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.checks import Place
from causal_sgd.cli.outputs import beside, check_output
from causal_sgd.cli.serving import Shared, make_server

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.experiment._base import BaseExperiment
    from causal_sgd.figures.explorer import Curve

__all__ = ["MOST_SLICES", "THEORY_AXES", "Explore", "theory_curves"]

THEORY_AXES = ("spread", "learning_rate", "mean", "momentum")
"""The axes on which theory's boundary depends."""
MOST_SLICES = 50
"""Theory's boundary in two axes is drawn at up to so many values of the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore:
    """Write diagrams as one interactive HTML page, which needs no network.

    The page shows any two axes of a sweep, compares two methods or values side by side, and is
    restored by its address. For example: causal-sgd explore diagram.zarr --serve
    """

    paths: Annotated[
        tyro.conf.Positional[tuple[Place, ...]], tyro.conf.arg(metavar="[PATH ...]")
    ] = ()
    """Stores (.zarr), also by URL, or files (.nc) of `phase`, full or refined. The page switches
    between several over the same axes, such as those of different samplers."""
    out: Path | None = None
    """The page; by default the name of the first store with .html, where a page that explore wrote
    before is replaced."""
    force: bool = False
    """Replace the file whatever it is."""
    x: str | None = None
    """Horizontal axis that the page begins with; the first by default."""
    y: str | None = None
    """Vertical axis that the page begins with; the second by default, none for a single axis."""
    serve: bool = False
    """Serve the page on this machine until Ctrl-C instead. A visit reads results that have changed
    again, also during a sweep."""
    port: int = 8765
    """Port of the server; 0 for any free one."""

    def __call__(self) -> int:
        """Write or serve the page."""
        from causal_sgd.figures._files import replacing

        if not self.paths:
            raise ValueError(
                "explore needs at least one store (.zarr) or file (.nc), as in: "
                "causal-sgd explore diagram.zarr"
            )
        if self.serve:
            return self._serve()
        out = self._output()
        text = self.page()
        with replacing(out) as draft:
            draft.write_text(text, "utf-8")
        print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB; open it in a browser")
        return 0

    def why_unused(self, field: str) -> str | None:
        """Why a flag has no effect here; None if it has one."""
        if self.serve:
            return "with --serve, which writes no page" if field in ("out", "force") else None
        return "without --serve" if field == "port" else None

    def _output(self) -> Path:
        """The page to write: a new file, or without --out one of explore's own."""
        if self.out is not None:
            check_output("--out", self.out, (".html",), force=self.force)
            return self.out
        out = beside(self.paths[0], ".html")
        if out.is_file() and not self.force and not _is_page(out):
            raise ValueError(
                f"explore would replace {out}, which it did not write; replace it with --force, "
                "or name another page with --out"
            )
        check_output("the page", out, (".html",))
        return out

    def page(self) -> str:
        """The page with the current results."""
        from causal_sgd.figures import explorer

        datasets: dict[str, xr.Dataset] = {}
        curves: list[explorer.Curve] = []
        about: dict[str, str] = {}
        refined = False
        for path in self.paths:
            dataset, configuration, merge = _read(path)
            refined |= merge
            experiment = _experiment(configuration)
            name = _name(experiment, path, datasets)
            datasets[name] = dataset
            if experiment is not None:
                curves += theory_curves(experiment, dataset, name)
            prefix = "" if len(self.paths) == 1 else f"{path.name}: "
            about |= {prefix + key: str(value) for key, value in configuration.items()}
        x, y = (None if name is None else name.replace("-", "_") for name in (self.x, self.y))
        with _naming(*self.paths):
            return explorer.page(
                datasets,
                title=", ".join(path.name for path in self.paths),
                x=x,
                y=y,
                curves=curves,
                about=about,
                merge=refined,
            )

    def _serve(self) -> int:
        checks.integer("--port", self.port, minimum=0, maximum=65535)
        self.page()  # so that a mistake ends the command, not the first visit

        page = Shared(functools.partial(_page_or_error, self.page), self._state)
        try:
            server = make_server(self.port, page)
        except OSError as error:
            raise ValueError(
                f"--port must be free, got {self.port}: {error.strerror}; 0 takes any free port"
            ) from None
        with server, contextlib.suppress(KeyboardInterrupt):
            print(f"http://127.0.0.1:{server.server_port}/  (stop with Ctrl-C)", flush=True)
            server.serve_forever()
        return 0

    def _state(self) -> tuple[object, ...]:
        """What changes whenever the results change."""
        return tuple(map(_state, self.paths))


@contextlib.contextmanager
def _naming(*paths: Place) -> Iterator[None]:
    """Let an error about results name their files."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} (in {', '.join(map(str, paths))})") from None


def _state(path: Place) -> object:
    """Changes whenever the results of a sweep change."""
    if path.suffix != ".nc":
        from causal_sgd.sweeps.store._files import files_at

        with contextlib.suppress(ValueError):  # a bucket that cannot be reached; the page says so
            return files_at(path).state()
        return None
    with contextlib.suppress(OSError):  # gone meanwhile
        status = Path(path).stat()
        return status.st_mtime_ns, status.st_size
    return None


def _page_or_error(page: Callable[[], str]) -> str:
    """The page, or the error if a store has been damaged since."""
    try:
        return page()
    except ValueError as error:
        return f"<!doctype html><title>causal-sgd</title><p>{html.escape(str(error))}</p>"


def _is_page(path: Path) -> bool:
    """Whether explore wrote a file."""
    from causal_sgd.figures.explorer._page import GENERATOR

    try:
        with path.open(encoding="utf-8") as file:
            return GENERATOR in file.read(1000)
    except (OSError, UnicodeDecodeError):
        return False


def _read(path: Place) -> tuple[xr.Dataset, dict[str, object], bool]:
    """The results of a sweep, its configuration as far as it is stored, and if it is refined."""
    checks.choice("the suffix of a path to explore", path.suffix, (".zarr", ".nc"))
    if path.suffix == ".zarr":
        from causal_sgd.sweeps.store import Store
        from causal_sgd.sweeps.store._forms import is_refined, unzipped

        store = Store(path)
        grid = store.hull()
        if not store.progress()[1]:
            raise ValueError(
                f"{path} must have at least one completed run, got none; "
                f"`causal-sgd status {path}` shows the progress"
            )
        refined = is_refined(grid)
        dataset = store.dataset(unzipped(store) if refined else grid)
        return dataset, dict(store.configuration), refined
    import xarray as xr

    path = checks.path("a path to explore", path)
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    try:
        dataset = xr.load_dataset(path)
    except ImportError as error:  # a library is installed in part
        raise ValueError(
            f"{path} cannot be read: {error}; pip install 'causal_sgd[netcdf4]'"
        ) from None
    except Exception:  # of a damaged file any, such as IndexError or KeyError
        raise ValueError(
            f"{path} must be a netCDF file of a sweep, got one that cannot be read"
        ) from None
    if "diverged_at" not in dataset:
        raise ValueError(f"{path} must be a netCDF file of a sweep, got one without diverged_at")
    if "seed" not in dataset["diverged_at"].dims:
        hint = " (a list of runs; explore the store itself)" if "run" in dataset.dims else ""
        raise ValueError(f"{path} must be a netCDF file of a sweep, got one without seeds{hint}")
    attributes: dict[str, object] = {str(name): value for name, value in dataset.attrs.items()}
    if "experiment" in attributes:
        try:
            attributes["experiment"] = dict(json.loads(dataset.attrs["experiment"]))
        except (TypeError, ValueError):
            del attributes["experiment"]  # of another program
    return dataset, attributes, False


def _experiment(configuration: Mapping[str, object]) -> BaseExperiment | None:
    from causal_sgd.experiment._systems import parsed

    description = configuration.get("experiment")
    if not isinstance(description, Mapping):  # swept from Python
        return None
    try:
        return parsed(description)
    except (TypeError, ValueError):  # of another version
        return None


def _name(experiment: BaseExperiment | None, path: Place, taken: dict[str, xr.Dataset]) -> str:
    """A short name that distinguishes the datasets: that of the experiment, or else the file."""
    name = path.stem if experiment is None else experiment.label
    return path.stem if name in taken else name


def theory_curves(experiment: BaseExperiment, dataset: xr.Dataset, name: str) -> list[Curve]:
    """Theory's boundary in every two axes of a sweep, at every value of the others that it needs.

    Args:
        experiment: what was run.
        dataset: its results.
        name: of the dataset on the page.
    """
    from causal_sgd.experiment import theory_curve
    from causal_sgd.figures.explorer import Curve

    axes = {
        axis: np.sort(dataset[axis].values.astype(float))
        for axis in THEORY_AXES
        if axis in dataset["diverged_at"].dims and dataset[axis].dtype.kind in "iuf"
    }
    curves = []
    for x, y in itertools.combinations(axes, 2):
        rest = [axis for axis in axes if axis not in (x, y)]
        slices = math.prod(len(axes[axis]) for axis in rest)
        for place in itertools.product(*(axes[axis] for axis in rest)):
            at = dict(zip(rest, map(float, place), strict=True))
            found = theory_curve(experiment.replace(**at), x, axes[x], y, axes[y])
            if found is None or slices > MOST_SLICES:
                break  # in these axes there is none, or there are too many
            curves += [Curve(label, x, y, xs, ys, at, name) for label, (xs, ys) in found.items()]
    return curves
