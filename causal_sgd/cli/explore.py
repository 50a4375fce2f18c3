"""`causal-sgd explore`: stored diagrams as a page for the browser, written or served."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from causal_sgd import checks
from causal_sgd.checks import Place
from causal_sgd.cli.outputs import beside, check_output
from causal_sgd.cli.serving import Shared, make_server

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from causal_sgd.experiment._base import BaseExperiment

__all__ = ["Explore"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore:
    """Write diagrams as one interactive HTML page, which needs no network.

    For example: causal-sgd explore diagram.zarr --serve
    """

    paths: Annotated[
        tyro.conf.Positional[tuple[Place, ...]], tyro.conf.arg(metavar="[PATH ...]")
    ] = ()
    """Stores (.zarr), also by URL, or files (.nc) of `phase`, full or refined. The page switches
    between several over the same axes, such as those of different samplers."""
    out: Path | None = None
    """The page; by default the name of the first store with .html."""
    force: bool = False
    """Replace the page if it exists."""
    x: str | None = None
    """Horizontal axis; the first by default."""
    y: str | None = None
    """Vertical axis; the second by default."""
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
        out = beside(self.paths[0], ".html") if self.out is None else self.out
        check_output("--out", out, (".html",), force=self.force)
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

    def page(self) -> str:
        """The page with the current results."""
        from causal_sgd.figures import explorer
        from causal_sgd.figures.explorer._payload import axes_of

        datasets: dict[str, xr.Dataset] = {}
        curves, about = {}, {}
        x, y = (None if name is None else name.replace("-", "_") for name in (self.x, self.y))
        for path in self.paths:
            dataset, configuration = _read(path)
            experiment = _experiment(configuration)
            name = _name(experiment, path, datasets)
            datasets[name] = dataset
            with _naming(path):
                across, up = axes_of(dataset, x, y)
                if experiment is not None:
                    curves[name] = _curves(experiment, dataset, across, up)
            prefix = "" if len(self.paths) == 1 else f"{path.name}: "
            about |= {prefix + key: str(value) for key, value in configuration.items()}
        try:
            with _naming(*self.paths):
                return explorer.page(
                    datasets,
                    title=", ".join(path.name for path in self.paths),
                    x=x,
                    y=y,
                    curves=curves,
                    about=about,
                )
        except ImportError as error:
            raise ValueError(str(error)) from None

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


def _read(path: Place) -> tuple[xr.Dataset, dict[str, object]]:
    """The results of a sweep and its configuration, as far as it is stored."""
    checks.choice("the suffix of a path to explore", path.suffix, (".zarr", ".nc"))
    if path.suffix == ".zarr":
        from causal_sgd.sweeps.store import Store
        from causal_sgd.sweeps.store._forms import is_refined, unzipped

        store = Store(path)
        grid = store.hull()
        dataset = store.dataset(unzipped(store) if is_refined(grid) else grid)
        return dataset, dict(store.configuration)
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
    return dataset, attributes


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


def _curves(
    experiment: BaseExperiment, dataset: xr.Dataset, across: str, up: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from causal_sgd.experiment import theory_curve

    return theory_curve(experiment, across, dataset[across].values, up, dataset[up].values) or {}
