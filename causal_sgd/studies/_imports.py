"""Local modules: those that lie beside a study and that it imports, directly or indirectly."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Module", "Territory"]

INSTALLED = ("site-packages", "dist-packages")


class Module(NamedTuple):
    """A module and its file."""

    name: str
    file: Path

    @property
    def package(self) -> str:
        """The package in which relative imports of the module start."""
        if self.file.name == "__init__.py":
            return self.name
        return self.name.rpartition(".")[0]


class Territory(NamedTuple):
    """A folder whose modules are local; those of other folders are not followed."""

    package: str
    """The package whose modules the folder holds; empty for modules of the top level."""
    folder: Path

    @classmethod
    def around(cls, module: Module) -> Territory:
        """The modules that belong to a module: of its package where it is installed, else all that
        are in the same folder as its outermost package.
        """
        depth = module.package.count(".") + 1 if module.package else 0
        first = module.name.partition(".")[0]
        root = module.file.parents[depth]
        return cls(first, root / first) if root.name in INSTALLED else cls("", root)

    def find(self, name: str) -> Module | None:
        """The local module of a dotted name, None where there is none."""
        first = name.partition(".")[0]
        if self.package:
            if name != self.package and not name.startswith(f"{self.package}."):
                return None
            parts = name.removeprefix(self.package).split(".")[1:]
        elif first in sys.stdlib_module_names or first == __name__.partition(".")[0]:
            return None
        else:
            parts = name.split(".")
        path = self.folder.joinpath(*parts)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file() and (parts or file.name == "__init__.py"):
                return Module(name, file)
        return None

    def closure(self, nodes: Iterable[ast.AST], module: Module) -> dict[str, Path]:
        """The local modules that statements of a module need, without the module itself."""
        seen = {module.name: module.file}
        waiting = list(self._imported(nodes, module))
        while waiting:
            new = waiting.pop()
            if new.name not in seen:
                seen[new.name] = new.file
                waiting += self._imported(parsed(new.file).body, new)
        del seen[module.name]
        return seen

    def _imported(self, nodes: Iterable[ast.AST], module: Module) -> Iterator[Module]:
        """The local modules that statements import, with the packages around them."""
        for node in nodes:
            for part in ast.walk(node):
                for name in named(part, module):
                    places = name.split(".")
                    for end in range(1, len(places) + 1):
                        found = self.find(".".join(places[:end]))
                        if found is not None:
                            yield found


def named(node: ast.AST, module: Module) -> Iterator[str]:
    """The dotted names that may be modules in an import statement of a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = origin(node, module)
        yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def origin(node: ast.ImportFrom, module: Module) -> str:
    """The absolute name of the module from which a statement imports."""
    if not node.level:
        return node.module or ""
    places = module.package.split(".") if module.package else []
    places = places[: len(places) - node.level + 1]
    return ".".join([*places, *([node.module] if node.module else [])])


def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        SyntaxError: if it is no Python.
    """
    return ast.parse(file.read_bytes(), filename=str(file))
