"""Where a study lies: from a name, a path or a module to its file."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from causal_sgd import checks, studies
from causal_sgd.studies._imports import Module, Territory
from causal_sgd.studies._loading import last_line

__all__ = ["beside", "built_in", "own_module", "package_module", "slug"]


def built_in(study: object) -> str | None:
    """The name of a built-in study, None for one of one's own."""
    if isinstance(study, ModuleType):
        first, _, last = study.__name__.rpartition(".")
        package = f"{studies.__name__}."
        return last.replace("_", "-") if first.startswith(package) else None
    if not isinstance(study, str):
        return None
    name = study.replace("_", "-")
    if name in studies.NAMES:
        return name
    if _is_path(study) or "." in study or (study.isidentifier() and _spec(study) is not None):
        return None
    beginning = [each for each in studies.NAMES if name and each.startswith(name)]
    near = beginning or difflib.get_close_matches(name, studies.NAMES, n=1, cutoff=0.6)
    near = [f"./{study}.py"] if Path(f"{study}.py").is_file() else near
    hint = f"; did you mean {near[0]!r}?" if near else "; `causal-sgd list` has the names"
    raise ValueError(
        "study must be a built-in name, a file such as ./my_study.py or a module, "
        f"got {study!r}{hint}"
    )


def _is_path(word: str) -> bool:
    return word.endswith(".py") or "/" in word or "\\" in word


def _spec(name: str) -> ModuleSpec | None:
    """Where Python finds a module that is no part of the standard library, the current folder
    included.
    """
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    with _here():
        return importlib.util.find_spec(name)


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """Let imports look into the current folder first, as `python -m` does."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)


def package_module(name: str) -> Module:
    """The module of a built-in study."""
    dotted = f"{studies.__name__}.{studies.system_of(name)}.{name.replace('-', '_')}"
    spec = importlib.util.find_spec(dotted)
    return Module(dotted, Path(spec.origin or "" if spec is not None else ""))


def beside(module: Module) -> Territory:
    """The modules beside a built-in study."""
    return Territory(module.package, module.file.parent)


def own_module(study: object) -> tuple[Module, str]:
    """The module of a study of one's own, and a word that selects it."""
    if isinstance(study, ModuleType):
        file = getattr(study, "__file__", None)
        if not file or not Path(file).is_file():
            raise ValueError(
                f"study must be a module with a file, got {study.__name__}, which has none; in a "
                "notebook, write the cell to a file: %%writefile my_study.py"
            )
        if study.__name__ == "__main__":
            return _file(file)
        return Module(study.__name__, Path(file).resolve()), study.__name__
    if isinstance(study, Path) or (isinstance(study, str) and _is_path(study)):
        return _file(study)
    if not isinstance(study, str):
        raise ValueError(
            "study must be a name, the path of a file or a module, got "
            f"{type(study).__name__}; its code must be in a file, or an edit would go unnoticed"
        )
    try:
        spec = _spec(study)
    except (ImportError, ValueError):
        spec = None
    except Exception as error:  # of the packages around it
        raise ValueError(f"{study} cannot be imported: {last_line(error, ())}") from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"study must be a name, a file or a module that exists, got {study!r}")
    return Module(study, Path(spec.origin).resolve()), study


def _file(path: str | Path) -> tuple[Module, str]:
    """The module of a file; packages around it make it one of theirs."""
    file = checks.path("study", path)
    if file.is_dir() or file.suffix != ".py":
        raise ValueError(f"study must be a file that ends in .py, got {str(path)!r}")
    if not file.is_file():
        raise ValueError(f"study must be a file that exists, got {str(path)!r}")
    file, places = file.resolve(), [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file():
        places.insert(0, folder.name)
        folder = folder.parent
    return Module(".".join(places), file), str(path)


def slug(module: Module) -> str:
    """The name of the results of a study of one's own."""
    stem = module.name.rpartition(".")[2]
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", stem):
        raise ValueError(
            "the file of a study must be named in lower-case letters, digits and underscores, such "
            f"as my_study.py, got {module.file.name!r}"
        )
    name = stem.replace("_", "-")
    if name in studies.NAMES:
        raise ValueError(
            f"study must not be named like a built-in one, got {module.file.name!r}: rename it"
        )
    return name
