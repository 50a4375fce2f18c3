"""Modules imported anew, apart from those of the session, with other values for their constants.

A study of one's own is always imported like this: an edit counts without a restart, and two
studies may have helpers of one name. The modules are in `sys.modules` only while they are imported
and while a function of the study runs, so that its imports inside functions find them, too.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from causal_sgd.studies._imports import parsed

__all__ = ["FUNCTIONS", "Apart", "Change", "assigned"]

FUNCTIONS = ("run", "measure", "figure", "table")
"""The functions of a study that are called."""

Change = Callable[[str, object], object]
"""The new value of a constant, from its name and its value."""

HOOK = "__changed__"  # the name of the `Change` in a module


def assigned(node: ast.stmt) -> set[str]:
    """The names to which a statement of a module assigns a value."""
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) or node.value is None:
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    parts = [part for target in targets for part in ast.walk(target)]
    return {
        part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


class Apart(importlib.abc.MetaPathFinder):
    """Modules that are imported anew, and found within `entered` only."""

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        folder: Path | None = None,
        changes: Mapping[str, Mapping[str, Change]] | None = None,
    ) -> None:
        """Choose modules.

        Args:
            files: module -> its file.
            folder: a folder in which other modules are looked for.
            changes: module -> constant -> what changes it, wherever the module assigns it.
        """
        self._files = files
        self._folder = [] if folder is None else [str(folder)]
        self._changes = changes or {}
        self._modules: dict[str, ModuleType] = {}
        self._depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """How to import one of the modules."""
        if fullname not in self._files:
            return None
        file = self._files[fullname]
        loader = _Loader(fullname, str(file), self._changes.get(fullname, {}))
        places = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=places
        )

    def load(self, name: str) -> ModuleType:
        """Import a module; its functions run within `entered`."""
        with self.entered():
            module = importlib.import_module(name)
        for function in FUNCTIONS:
            if callable(vars(module).get(function)):
                setattr(module, function, self._within(getattr(module, function)))
        return module

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let imports find these modules instead of those of the session."""
        if self._depth:
            yield
            return
        before = {name: sys.modules.pop(name) for name in self._files if name in sys.modules}
        members = self._members()
        for name, module in self._modules.items():
            sys.modules[name] = module
            self._bind(name, module)
        self._depth += 1
        sys.meta_path.insert(0, self)
        sys.path[:0] = self._folder
        try:
            yield
        finally:
            for place in self._folder:
                sys.path.remove(place)
            sys.meta_path.remove(self)
            self._depth -= 1
            found = {name: sys.modules.pop(name, None) for name in self._files}
            self._modules = {name: module for name, module in found.items() if module is not None}
            self._members()
            sys.modules.update(before)
            for name, module in members.items():
                self._bind(name, module)

    def _members(self) -> dict[str, ModuleType]:
        """Take the modules out of packages of the session, and return those that were there."""
        members = {}
        for name in self._files:
            package, _, last = name.rpartition(".")
            if package and package not in self._files and package in sys.modules:
                member = vars(sys.modules[package]).pop(last, None)
                if isinstance(member, ModuleType):
                    members[name] = member
        return members

    def _bind(self, name: str, module: ModuleType) -> None:
        """Make a module a member of its package, where that belongs to the session."""
        package, _, last = name.rpartition(".")
        if package and package not in self._files and package in sys.modules:
            setattr(sys.modules[package], last, module)

    def _within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: object, **options: object) -> object:
            with self.entered():
                return function(*arguments, **options)

        return call


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs the source of a file, never bytecode kept from an earlier version of it."""

    def __init__(self, name: str, path: str, changes: Mapping[str, Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file, in which every assignment of a constant is followed by another."""
        tree = parsed(Path(self.path))
        body = []
        for node in tree.body:
            body.append(node)
            for name in sorted(assigned(node) & set(self._changes)):
                (change,) = ast.parse(f"{name} = {HOOK}({name!r}, {name})").body
                for part in ast.walk(change):
                    ast.copy_location(part, node)
                body.append(change)
        tree.body = body
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Run the code."""
        if self._changes:
            vars(module)[HOOK] = lambda name, value: self._changes[name](name, value)
        super().exec_module(module)
