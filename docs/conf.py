"""The documentation as a static site: `sphinx-build -W docs build/docs`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

sys.path.insert(0, str(Path(__file__).parents[1]))
import causal_sgd
from causal_sgd import studies

project = "causal_sgd"
author = "The causal_sgd developers"
release = version = causal_sgd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
# The links of CHANGELOG and benchmarks/README resolve from their own folders.
suppress_warnings = ["myst.xref_missing", "myst.header"]
default_role = "code"  # `x` in a docstring is code
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
napoleon_use_ivar = True  # a NamedTuple's attributes also have comments beside the fields
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

ORDER = (
    "sensing",
    "supervised",
    "training",
    "sweeps",
    "analysis",
    "figures",
    "theory",
    "studies",
    "experiment",
    "linalg",
    "types",
)
"""The documented packages and modules in reading order; a walk finds the public modules below."""

INTERNAL = ("checks", "cli", "random")
"""Packages and modules without a page. The studies themselves are in the atlas."""


def public_modules(name: str) -> Iterator[str]:
    """The dotted names, below causal_sgd, of a module and of its public modules."""
    yield name
    module = importlib.import_module(f"causal_sgd.{name}")
    for child in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not child.name.startswith("_") and name != "studies":
            yield from public_modules(f"{name}.{child.name}")


def short_name(name: str) -> str:
    """The shortest public path of a module: `algorithms` for `training.algorithms`."""
    last = name.rpartition(".")[2]
    module = importlib.import_module(f"causal_sgd.{name}")
    offered = last in causal_sgd.__all__ and getattr(causal_sgd, last) is module
    return last if offered else name


def reference(folder: Path) -> None:
    """Write one page per public module, with each name in its `__all__`.

    Raises:
        ValueError: If ORDER and INTERNAL do not name each public module of the package once.
    """
    names = [child.name for child in pkgutil.iter_modules(causal_sgd.__path__)]
    if sorted((*ORDER, *INTERNAL)) != sorted(name for name in names if name[0] != "_"):
        raise ValueError(f"ORDER and INTERNAL must name the modules of causal_sgd, got {names}")
    titles = {name: short_name(name) for top in ORDER for name in public_modules(top)}
    homes: dict[str, str] = {}  # a public name -> the page that documents it
    index = ["# Reference", "", "The public names of each module.", ""]
    for name, title in reversed(titles.items()):  # a name goes to the innermost module
        module = importlib.import_module(f"causal_sgd.{name}")
        inner = {child for child in titles if child.startswith(f"{name}.")}
        offered = {each for child in inner for each in members(child)}
        own = [each for each in members(name) if each not in offered]
        (folder / f"{title}.md").write_text(module_page(module, title, own), "utf-8")
        homes |= dict.fromkeys(own, title) | {title: title}
    index += ["- [causal_sgd](causal_sgd.md): everything that `import causal_sgd` offers."]
    for name, title in titles.items():
        summary = (importlib.import_module(f"causal_sgd.{name}").__doc__ or "").partition("\n")[0]
        index += [f"- [{title}]({title}.md): {summary}"]
    toctree = ["", "```{toctree}", ":hidden:", "", "causal_sgd", *titles.values(), "```", ""]
    (folder / "index.md").write_text("\n".join([*index, *toctree]), "utf-8")
    face = ["# causal_sgd", "", inspect.cleandoc(causal_sgd.__doc__ or ""), ""]
    for name in sorted(set(causal_sgd.__all__) & set(homes), key=str.lower):
        face += [f"- `{name}`: see [{homes[name]}]({homes[name]}.md)"]
    (folder / "causal_sgd.md").write_text("\n".join([*face, ""]), "utf-8")


def members(name: str) -> list[str]:
    """The public names of a module that are not modules themselves."""
    module = importlib.import_module(f"causal_sgd.{name}")
    return [each for each in module.__all__ if not inspect.ismodule(getattr(module, each))]


def module_page(module: ModuleType, title: str, names: list[str]) -> str:
    """A module's docstring, and an entry for each of the names."""
    lines = [f"# {title}", "", "```{eval-rst}", f".. automodule:: {module.__name__}"]
    lines += ["   :no-members:", "   :no-index:", ""]
    for name in names:
        member, path = getattr(module, name), f"causal_sgd.{title}.{name}"
        if inspect.isclass(member):
            lines += [f".. autoclass:: {path}", ""]
        elif inspect.isfunction(member):
            lines += [f".. autofunction:: {path}", ""]
        else:
            text = plain(constant_docs(module, name))
            lines += [f".. py:data:: {path}", "   :no-index:", ""]  # systems share alias names
            lines += [*(f"   {line}" for line in text), ""]
    return "\n".join([*lines, "```", ""])


def constant_docs(module: ModuleType, name: str) -> list[str]:
    """The docstring below a constant, which only the module that defines it has."""
    below = pkgutil.iter_modules(getattr(module, "__path__", ()))
    for each in (module.__name__, *(f"{module.__name__}.{child.name}" for child in below)):
        docs = ModuleAnalyzer.for_module(each).find_attr_docs()
        if ("", name) in docs:
            return docs["", name]
    return []


def plain(lines: list[str]) -> list[str]:
    """Escape bars and stars outside of `code`: in docstrings they are norms and signals."""
    escaped = []
    for line in lines:
        parts = line.split("`")
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        literal = line.strip().startswith(("**", ">>>"))
        escaped.append(line if literal else "`".join(parts))
    return escaped


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""

    def process(
        app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        lines[:] = plain(lines)

    app.connect("autodoc-process-docstring", process, priority=400)  # napoleon's is 500


def atlas(path: Path) -> None:
    """Write the page of all studies by question: findings in a sentence each, then with claims."""
    page = [
        "# The atlas",
        "",
        "What `causal-sgd reproduce --all` simulates, checks and draws, by the question that a",
        "study answers, surprising answers first.",
        "",
    ]
    modules = {name: studies.load(name) for name in studies.NAMES}
    for question, names in studies.QUESTIONS.items():
        page += [f"**{question}**", ""]
        page += [f"- [{name}](#{name}): {studies.title(modules[name])}" for name in names]
        page += [""]
    for question, names in studies.QUESTIONS.items():
        page += [f"## {question}", ""]
        for name in names:
            page += described(name, modules[name])
    path.write_text("\n".join(page), "utf-8")


def described(name: str, study: studies.Study) -> list[str]:
    """The section of one study: its finding, and a table of its claims."""
    title, _, text = inspect.cleandoc(study.__doc__ or "").partition("\n")
    section = [f"### {name}", "", f"**{title}**", "", text.strip(), ""]
    section += ["| claim | interval | source |", "|---|---|---|"]
    findings = [claim for claim in study.CLAIMS.values() if not claim.judged]
    for claim in study.CLAIMS.values():
        if claim.judged:
            text, source = table_cell(claim.text), table_cell(claim.source)
            section += [f"| {text} | [{claim.low:g}, {claim.high:g}] | {source} |"]
    if findings:
        section += ["", "Measured and reported, not judged:", ""]
        section += [f"- {table_cell(claim.text)}" for claim in findings]
    needed = studies.requirements(study)
    install = f"causal_sgd[{','.join(sorted(set(needed.values())))}]"
    more = f" It needs {' and '.join(needed)}: `pip install '{install}'`." if needed else ""
    return [*section, "", f"Repeat it with `causal-sgd reproduce {name}`.{more}", ""]


def table_cell(text: str) -> str:
    """Escape bars, which would end a column, and stars, which would begin emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


_here = Path(__file__).parent
(_here / "reference").mkdir(exist_ok=True)
for _page in (_here / "reference").glob("*.md"):
    _page.unlink()  # a page of a module that was renamed
reference(_here / "reference")
atlas(_here / "atlas.md")
