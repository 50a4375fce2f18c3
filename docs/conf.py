"""The documentation as a static site: `sphinx-build -W docs build/docs`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import causal_sgd
from causal_sgd import studies

project = "causal_sgd"
author = "The causal_sgd developers"
release = version = causal_sgd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["made"]  # included by other pages
suppress_warnings = [
    "myst.xref_missing",
    "myst.header",
]  # CHANGELOG and benchmarks/README are written for where they lie
default_role = "code"  # in docstrings `x` is code
html_theme = "furo"
html_title = f"causal_sgd {release}"
html_show_sourcelink = False
templates_path: list[str] = []
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes of a NamedTuple are documented beside its fields too
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

ROOMS = {
    "From nature to numbers": [
        "worlds",
        "evolutions",
        "samplers",
        "measurements",
        "models",
        "metrics",
        "algorithms",
        "optimizers",
        "simulate",
    ],
    "Many runs": ["sweeps", "grids", "datasets", "results", "store", "machine", "executors"],
    "What follows": [
        "theory",
        "phase",
        "intermittency",
        "plots",
        "explorer",
        "studies",
        "reproduction",
        "experiment",
        "doctor",
    ],
    "What all share": ["types"],
}
"""The rooms of the reference, in the order in which a newcomer meets them."""


def _reference(folder: Path) -> None:
    """One page a room, with everything in its `__all__`, so that what is offered is what is documented."""
    index = ["# Reference", "", "What every room offers; its `__all__`, no more and no less.", ""]
    for title, rooms in ROOMS.items():
        index += [f"## {title}", ""]
        for room in rooms:
            module = importlib.import_module(f"causal_sgd.{room}")
            page = [f"# {room}", "", "```{eval-rst}", f".. automodule:: causal_sgd.{room}", "   :no-members:", ""]
            for name in module.__all__:
                thing = getattr(module, name)
                kind = "class" if inspect.isclass(thing) else "function" if inspect.isfunction(thing) else "data"
                home = _home(module, name) if kind == "data" else module.__name__
                page += [f".. auto{kind}:: {home}.{name}"]
                page += ["   :no-value:"] if kind == "data" else []
                page += [""]
            (folder / f"{room}.md").write_text("\n".join([*page, "```", ""]), "utf-8")
            index += [f"- [{room}]({room}.md): {(module.__doc__ or '').partition(chr(10))[0]}"]
        index += [""]
    toctree = ["```{toctree}", ":hidden:", "", *(room for rooms in ROOMS.values() for room in rooms), "```", ""]
    (folder / "index.md").write_text("\n".join([*index, *toctree]), "utf-8")


def _home(module: ModuleType, name: str) -> str:
    """The module of a package that defines a constant: only there does it have its docstring."""
    for submodule in pkgutil.iter_modules(getattr(module, "__path__", ())):
        found = importlib.import_module(f"{module.__name__}.{submodule.name}")
        if name in getattr(found, "__all__", ()):
            return found.__name__
    return module.__name__


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: bars and stars outside of it are norms and signals, not markup."""
    for index, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[index] = line if line.strip().startswith(("**", ">>>")) else "`".join(parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon's, at 500


def _atlas(path: Path) -> None:
    """Every study with its finding and its claims."""
    page = ["# The atlas", "", "What `causal-sgd reproduce --all` simulates, checks and draws.", ""]
    for name in studies.NAMES:
        study = studies.load(name)
        title, _, text = inspect.cleandoc(study.__doc__ or "").partition("\n")
        page += [
            f"## {name}",
            "",
            f"**{title}**",
            "",
            text.strip(),
            "",
            "| claim | must lie in | source |",
            "|---|---|---|",
        ]
        for claim in study.CLAIMS.values():
            page += [f"| {_cell(claim.text)} | [{claim.low:g}, {claim.high:g}] | {_cell(claim.source)} |"]
        page += ["", f"Repeat it with `causal-sgd reproduce {name}`.", ""]
    path.write_text("\n".join(page), "utf-8")


def _cell(text: str) -> str:
    """Text for a table, in which a bar would end a column and a star would begin emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


_here = Path(__file__).parent
(_here / "reference").mkdir(exist_ok=True)
_reference(_here / "reference")
_atlas(_here / "atlas.md")
