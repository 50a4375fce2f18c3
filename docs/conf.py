"""The documentation as a static site: `sphinx-build -W docs build/docs`."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import causal_sgd

import _atlas  # isort: skip  (of this folder, as are the next)
import _mathml  # isort: skip
import _notebooks  # isort: skip
import _reference  # isort: skip

_here = Path(__file__).parent
_project = tomllib.loads((_here.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = "causal_sgd"
author = "The causal_sgd developers"
project_copyright = f"2026, {author}. Apache License 2.0"
release = version = causal_sgd.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
# The links of benchmarks/README resolve from its own folder.
suppress_warnings = ["myst.xref_missing", "myst.header"]
default_role = "code"  # `x` in a docstring is code
exclude_patterns = ["kept"]
html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"causal_sgd {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "footer_icons": [
        {"name": name, "url": url, "html": name, "class": "project-link"}
        for name, url in _project["urls"].items()
    ]
}
templates_path: list[str] = []
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True  # a NamedTuple's attributes also have comments beside the fields
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""

    def process(
        app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        lines[:] = _reference.plain(_reference.own_text(obj, lines))

    _mathml.add_renderer(app)
    app.connect("autodoc-process-docstring", process, priority=400)  # napoleon's is 500


for _folder in ("reference", "atlas", "notebooks"):  # written here: nothing of earlier builds stays
    shutil.rmtree(_here / _folder, ignore_errors=True)
    (_here / _folder).mkdir()
_reference.reference(_here / "reference")
_atlas.atlas(_here / "atlas")
_notebooks.notebooks(_here.parent / "notebooks", _here / "notebooks")
