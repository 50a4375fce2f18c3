"""Imports point only downward, and siblings do not know one another."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "causal_sgd"
BOTTOM = {"types", "checks", "linalg"}
SIBLINGS = {"worlds", "samplers", "measurements", "models", "metrics"}
MAY_IMPORT = {
    "checks": set(),
    "types": set(),
    "linalg": {"types"},
    **dict.fromkeys(SIBLINGS, BOTTOM),
    "theory": BOTTOM | {"theory"},
    "algorithms": BOTTOM | SIBLINGS,
    "simulate": BOTTOM | {"algorithms"},
    "sweeps": BOTTOM | {"simulate", "results"},
    "results": {"checks"},
    "phase": {"checks", "results"},
    "plots": {"checks", "results", "plots"},
    "experiment": BOTTOM | SIBLINGS | {"algorithms", "simulate"},
}
MAY_IMPORT["studies"] = set(MAY_IMPORT) | {"studies"}
MAY_IMPORT["cli"] = set(MAY_IMPORT) | {"studies"}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Top-level packages, and rooms of this package as `causal_sgd.room`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "causal_sgd":
                found |= {f"causal_sgd.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downward(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("causal_sgd.")}
    assert rooms <= MAY_IMPORT[room(path)] | {room(path)}


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) in {"plots", "results", "phase", "checks"}], ids=str
)
def test_what_only_looks_at_results_imports_no_jax(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] == "jax"}


def test_every_room_is_known_and_none_is_a_drawer_for_everything() -> None:
    rooms = {room(path) for path in FILES}
    assert rooms == set(MAY_IMPORT)
    assert not rooms & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
