"""`causal-sgd explore`: stored diagrams as a page for the browser, written or served."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import http.server
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from causal_sgd import checks
from causal_sgd.cli.outputs import check_output

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.experiment import Experiment

__all__ = ["Explore"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore:
    """Write stored diagrams as one HTML page to explore in a browser: hover, click, switch; it needs no network.

    For example: causal-sgd explore diagram.zarr --serve
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Stores (.zarr) or files (.nc) that `phase` left; several over the same axes, of other samplers say, can be switched."""
    out: Path | None = None
    """The page; by default that of the first store's name with .html."""
    x: str | None = None
    """The horizontal axis; by default the first."""
    y: str | None = None
    """The vertical axis; by default the second."""
    serve: bool = False
    """Serve the page on this machine instead, read anew for every visit (also while a sweep goes on), until Ctrl-C."""
    port: int = 8765
    """Where it is served; 0 for any that is free."""

    def __call__(self) -> int:
        """Write it, or serve it."""
        if not self.paths:
            raise ValueError(
                "explore needs at least one store (.zarr) or file (.nc), as in: causal-sgd explore diagram.zarr"
            )
        if self.serve:
            return self._serve()
        out = self.paths[0].with_suffix(".html") if self.out is None else self.out
        check_output("--out", out, (".html",))
        out.write_text(self.page(), "utf-8")
        print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB; open it in a browser")
        return 0

    def page(self) -> str:
        """The page as it is now."""
        from causal_sgd.figures import explorer
        from causal_sgd.figures.explorer._payload import axes_of

        datasets: dict[str, xr.Dataset] = {}
        curves, about = {}, {}
        for path in self.paths:
            dataset, configuration = _opened(path)
            experiment = _experiment(configuration)
            name = _name(experiment, path, datasets)
            datasets[name] = dataset
            across, up = axes_of(dataset, self.x, self.y)
            if experiment is not None:
                curves[name] = _curve(experiment, dataset, across, up)
            about |= {
                _said(path.name, key, len(self.paths)): str(value)
                for key, value in configuration.items()
            }
        try:
            return explorer.page(
                datasets,
                title=", ".join(path.name for path in self.paths),
                x=self.x,
                y=self.y,
                curves=curves,
                about=about,
            )
        except ImportError as error:
            raise ValueError(str(error)) from None

    def _serve(self) -> int:
        checks.integer("--port", self.port, minimum=0, maximum=65535)
        self.page()  # a mistake is told now, not to the first visitor

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/":
                    self.send_error(404)
                    return
                content = make().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        make = functools.partial(_told, self.page)
        try:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        except OSError as error:
            raise ValueError(
                f"--port must be free, got {self.port}: {error.strerror}; 0 takes any that is"
            ) from None
        with server, contextlib.suppress(KeyboardInterrupt):
            print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        return 0


def _told(page: Any) -> str:
    """The page, or what is wrong with the store by now."""
    try:
        return page()
    except ValueError as error:
        return f"<!doctype html><title>causal-sgd</title><p>{html.escape(str(error))}</p>"


def _opened(path: Path) -> tuple[xr.Dataset, dict[str, Any]]:
    """A sweep's results and what is known of its configuration."""
    checks.choice("the suffix of a path to explore", path.suffix, (".zarr", ".nc"))
    if path.suffix == ".zarr":
        from causal_sgd.sweeps.store import Store

        store = Store(path)
        return store.dataset(), dict(store.configuration)
    import xarray as xr

    if not path.exists():
        raise ValueError(f"{path} does not exist")
    try:
        dataset = xr.load_dataset(path)
    except ImportError as error:  # of a library that is installed in part
        raise ValueError(
            f"{path} cannot be read: {error}; pip install 'causal_sgd[netcdf4]'"
        ) from None
    except (OSError, ValueError):
        raise ValueError(
            f"{path} must be a netCDF file that a sweep left, got one that cannot be read"
        ) from None
    if "diverged_at" not in dataset:
        raise ValueError(
            f"{path} must be a netCDF file that a sweep left, got one without diverged_at"
        )
    attributes = {str(name): value for name, value in dataset.attrs.items()}
    if "experiment" in attributes:
        try:
            attributes["experiment"] = dict(json.loads(attributes["experiment"]))
        except (TypeError, ValueError):
            del attributes["experiment"]  # another program's
    return dataset, attributes


def _experiment(configuration: dict[str, Any]) -> Experiment | None:
    from causal_sgd.experiment import Experiment

    try:
        return Experiment.parse(configuration["experiment"])
    except (KeyError, TypeError, ValueError):  # made from Python, or by another version
        return None


def _name(experiment: Experiment | None, path: Path, taken: dict[str, Any]) -> str:
    """A short name that tells the datasets apart: the sampler's where that does."""
    name = path.stem if experiment is None else experiment.sampler
    return path.stem if name in taken else name


def _curve(experiment: Experiment, dataset: xr.Dataset, across: str, up: str) -> dict[str, Any]:
    from causal_sgd.experiment import theory_curve

    return theory_curve(experiment, across, dataset[across].values, up, dataset[up].values) or {}


def _said(name: str, key: str, count: int) -> str:
    return key if count == 1 else f"{name}: {key}"
