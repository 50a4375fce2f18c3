"""The pages of the reference: one for each public module, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import causal_sgd

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


class Page(NamedTuple):
    """A page of the reference."""

    module: str  # dotted name below causal_sgd
    title: str  # the shortest public path, and the name of the file
    names: list[str]  # what it documents


def pages() -> list[Page]:
    """The pages in reading order; a name is on the page of the innermost module that offers it.

    Raises:
        ValueError: If ORDER and INTERNAL do not name each public module of the package once.
    """
    names = [child.name for child in pkgutil.iter_modules(causal_sgd.__path__)]
    if sorted((*ORDER, *INTERNAL)) != sorted(name for name in names if name[0] != "_"):
        raise ValueError(f"ORDER and INTERNAL must name the modules of causal_sgd, got {names}")
    titles = {name: short_name(name) for top in ORDER for name in public_modules(top)}
    found = []
    for name, title in titles.items():
        inner = {child for child in titles if child.startswith(f"{name}.")}
        offered = {each for child in inner for each in members(child)}
        found.append(Page(name, title, [each for each in members(name) if each not in offered]))
    return found


def documented() -> Mapping[int, str]:
    """The path under which the reference has a class or a function, by the identity of it."""
    found = {}
    for page in pages():
        module = importlib.import_module(f"causal_sgd.{page.module}")
        for name in page.names:
            member = getattr(module, name)
            if inspect.isclass(member) or inspect.isfunction(member):
                found.setdefault(id(member), f"causal_sgd.{page.title}.{name}")
    return found


def reference(folder: Path) -> None:
    """Write one page per public module, with each name in its `__all__`."""
    homes: dict[str, str] = {}  # a public name -> the page that documents it
    index = ["# Reference", "", "The public names of each module.", ""]
    index += ["- [causal_sgd](causal_sgd.md): everything that `import causal_sgd` offers."]
    for page in pages():
        module = importlib.import_module(f"causal_sgd.{page.module}")
        text = module_page(module, page.title, page.names)
        (folder / f"{page.title}.md").write_text(text, "utf-8")
        summary = (module.__doc__ or "").partition("\n")[0]
        index += [f"- [{page.title}]({page.title}.md): {summary}"]
        for name in (*page.names, page.title):
            homes.setdefault(name, page.title)
    titles = [page.title for page in pages()]
    toctree = ["", "```{toctree}", ":hidden:", "", "causal_sgd", *titles, "```", ""]
    (folder / "index.md").write_text("\n".join([*index, *toctree]), "utf-8")
    face = ["# causal_sgd", "", *own_text(causal_sgd, []), ""]
    for name in sorted(set(causal_sgd.__all__) & set(homes), key=str.lower):
        face += [f"- `{name}`: see [{homes[name]}]({homes[name]}.md)"]
    (folder / "causal_sgd.md").write_text("\n".join([*face, ""]), "utf-8")


def own_text(member: object, lines: list[str]) -> list[str]:
    """The docstring of a module without the table that `help` shows; of others, the lines given."""
    if not inspect.ismodule(member):
        return lines
    return inspect.cleandoc(vars(member)["__doc__"] or "").splitlines()


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
    from sphinx.pycode import ModuleAnalyzer  # the rest needs no Sphinx

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
