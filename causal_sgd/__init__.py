"""How SGD over heterogeneous environments learns the invariant part and forgets the spurious one.

The public names are listed in `__init__.pyi` and loaded on first use: importing the package does
not start jax.
"""

# A room is a public module or package. `_attach` serves packages whose names are in `__init__.pyi`,
# `_room` all others: a table for `help`, made when it is asked for, and hints for wrong names.

from __future__ import annotations

import sys
import textwrap
import types as _types
from collections.abc import Callable

import lazy_loader

__version__ = "0.2.0"

_COLUMNS = 92  # of a line of the table; `help` indents it by 8


class _Room(_types.ModuleType):
    """A module whose docstring has a line for each of its names."""

    @property
    def __doc__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first paragraph of the module's docstring, the table, and the rest."""
        first, _, rest = (self.__dict__.get("__doc__") or "").partition("\n\n")
        names = [name for name in self.__dict__.get("__all__", ()) if not name.startswith("_")]
        if not names:
            return first + "\n\n" + rest
        width = max(map(len, names))
        rows = ((name, _about(getattr(self, name))) for name in names)
        lines = [
            f"{name:{width}}  {textwrap.shorten(about, _COLUMNS - width - 2, placeholder=' ...')}"
            for name, about in rows
        ]
        table = textwrap.indent("\n".join(lines), "    ")
        return f"{first}\n\nIn this room::\n\n{table}\n\n{rest}".rstrip() + "\n"

    def __getattr__(self, name: str) -> object:
        """Refuse a name that the room lacks, and suggest the nearest that it has."""
        message = f"{self.__name__} has no {name!r}"
        if not name.startswith("_"):
            import difflib

            near = difflib.get_close_matches(name, self.__dict__.get("__all__", ()), 1, 0.6)
            message += (
                f"; did you mean {near[0]!r}?" if near else f"; help({self.__name__}) lists all"
            )
        # Given an object, Python would append a suggestion of its own.
        raise AttributeError(message, name=name, obj=None)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by name, as modules are by cloudpickle."""
        import importlib

        return importlib.import_module, (self.__name__,)


def _attach(name: str, file: str) -> tuple[Callable, Callable, list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package, from the stub beside its file."""
    _room(name)
    return lazy_loader.attach_stub(name, file)


def _room(name: str) -> None:
    """Make a room of a module that is being imported."""
    sys.modules[name].__class__ = _Room


def _about(member: object) -> str:
    """The first line of the docstring of a module, class or function; else what the constant is."""
    import inspect

    documented = inspect.ismodule(member) or inspect.isclass(member) or inspect.isroutine(member)
    text = inspect.getdoc(member) if documented or hasattr(member, "__wrapped__") else None
    return text.partition("\n")[0] if text else f"{type(member).__name__} {member}"


__getattr__, __dir__, __all__ = _attach(__name__, __file__)
