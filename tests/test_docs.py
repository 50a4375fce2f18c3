"""The code in the documentation runs as it stands, and the names on its pages exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import causal_sgd
from support.cases import few
from support.markdown import blocks, broken, commands, save_files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ("atlas", "notebooks", "reference")  # folders that conf.py writes
PAGES = {
    page.relative_to(DOCS).as_posix(): page.read_text("utf-8")
    for page in sorted(DOCS.rglob("*.md"))
    if page.relative_to(DOCS).parts[0] not in GENERATED
}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
QUICK = ("extending/samplers.md",)  # every page compiles programs of its own
ELSEWHERE = {"data", "dataset", "torch"}  # results of a sweep, and a package that tests lack
SUFFIXES = {
    "cff",
    "csv",
    "py",
    "pyi",
    "md",
    "json",
    "html",
    "zarr",
    "npz",
    "toml",
    "png",
    "pdf",
    "log",
}


@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("name", few(WITH_CODE, QUICK, set(WITH_CODE) - {"your_network.md"}))
def test_the_code_of_a_page_runs(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # pages may make stores
    save_files(PAGES[name], tmp_path)
    names: dict = {}
    for block in blocks(PAGES[name]):
        exec(compile(block, name, "exec"), names)


def without_times(text: str) -> str:
    return re.sub(r"\b[\d.]+ (s|min)\b", "TIME", text)


@pytest.mark.parametrize(
    "name", few(["start.md", "explorer.md", "extending/studies.md"], (), {"start.md"})
)
def test_the_commands_of_a_page_run_in_turn_and_print_what_it_shows(
    name: str, tmp_path: Path
) -> None:
    save_files(PAGES[name], tmp_path)
    printed = ""
    for command in commands(PAGES[name]):
        if "NAME" in command:
            continue
        arguments = [sys.executable, "-m", "causal_sgd", *shlex.split(command)[1:]]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
        allowed = {0, 1} if "--set" in command else {0}  # intervals are stated for the defaults
        assert done.returncode in allowed, f"{command}: {done.stderr}"
        printed += done.stdout
    for shown in re.findall(r" prints\n\n((?:    .*\n|\n)+)", PAGES[name]):
        for line in filter(None, shown.splitlines()):
            assert without_times(line[4:]) in without_times(printed).splitlines()


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_and_headings_that_a_page_links_to_exist(name: str) -> None:
    assert not list(broken(DOCS / name, tuple(DOCS / folder for folder in GENERATED)))


def test_a_link_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One heading: `x`, y\n```\n# no heading\n```\n")
    good = "[a](other.md) [b](other.md#one-heading-x-y) [c](#here) [d](https://e.org/#f)"
    bad = "![g](gone.png) [h](other.md#no-heading) <img src='x'> <img src=\"gone.webp\">"
    (tmp_path / "page.md").write_text(f"## Here\n{good}\n{bad}\n")
    found = ["gone.png", "gone.webp", "other.md#no-heading"]
    assert list(broken(tmp_path / "page.md")) == found


# Names


def public_modules() -> dict[str, ModuleType]:
    """Modules without a private part in their path, by their last name, highest first."""
    modules = {"causal_sgd": causal_sgd, "cs": causal_sgd}
    names = [info.name for info in pkgutil.walk_packages(causal_sgd.__path__, "causal_sgd.")]
    for name in sorted(names, key=lambda name: name.count(".")):  # training.optimizers, not a study
        if "._" not in name:
            modules.setdefault(name.rpartition(".")[2], importlib.import_module(name))
    return modules


MODULES = public_modules()


def exists(thing: object, attributes: list[str]) -> bool:
    """Whether a chain of attributes resolves; fields of named tuples and protocols count."""
    for name in attributes:
        if isinstance(thing, ModuleType) and not hasattr(thing, name):
            try:
                importlib.import_module(f"{thing.__name__}.{name}")
            except ImportError:
                return False
        elif inspect.isclass(thing) and name in getattr(thing, "__annotations__", {}):
            return True
        elif not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
        if not (isinstance(thing, ModuleType) or inspect.isclass(thing)):
            return True  # an instance's attributes are its own affair
    return True


def unknown_in_code(source: str, bound: dict[str, object] | None = None) -> Iterator[str]:
    """The imported names, and the attributes of imported modules, that do not exist.

    `bound` holds what earlier blocks imported; a later import of the same name replaces it.
    """
    tree = ast.parse(source)
    bound = {} if bound is None else bound
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                first = alias.name.partition(".")[0]
                bound[alias.asname or first] = (
                    module if alias.asname else importlib.import_module(first)
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if exists(module, [alias.name]):
                    bound[alias.asname or alias.name] = getattr(module, alias.name)
                else:
                    yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = ast.unparse(node).split(".")
            plain = all(map(str.isidentifier, chain))
            if plain and chain[0] in bound and not exists(bound[chain[0]], chain[1:]):
                yield ".".join(chain)


def imported(name: str) -> ModuleType | None:
    return None if importlib.util.find_spec(name) is None else importlib.import_module(name)


def unknown_in_prose(text: str) -> Iterator[str]:
    """The dotted names in `code` that do not exist: in public modules or in other packages."""
    text = re.sub(r"(?s)```.*?```", "", text)
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        match = re.match(r"[A-Za-z]\w*(?:\.[A-Za-z_]\w*)+(?![\w.*/-])", code)
        if not match:
            continue
        first, *rest = match[0].split(".")
        if first in ELSEWHERE or rest[-1] in SUFFIXES:
            continue
        module = MODULES.get(first) or imported(first)
        if module is None or not exists(module, rest):
            yield match[0]


def notebook(path: Path) -> tuple[str, str]:
    """The markdown and the code of a notebook, the code without magics."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = {"markdown": "", "code": ""}
    for cell in cells:
        if cell["cell_type"] in texts:
            texts[cell["cell_type"]] += "".join(cell["source"]) + "\n\n"
    return texts["markdown"], re.sub(r"(?m)^[%!].*$", "", texts["code"])


WRITTEN = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *(DOCS / name for name in PAGES),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_on_a_page_exists(path: Path) -> None:
    if path.suffix == ".ipynb":
        prose, code = notebook(path)
        parts = [code]
    else:
        prose = path.read_text("utf-8")
        parts = blocks(prose)
    bound: dict[str, object] = {}
    unknown = {name for part in parts for name in unknown_in_code(part, bound)}
    unknown.update(unknown_in_prose(prose))
    assert not unknown, f"{path.name} names what does not exist: {', '.join(sorted(unknown))}"


def test_a_name_that_does_not_exist_is_reported() -> None:
    prose = "`algorithms.sgd`, `algorithms.nothing(x)`, `worlds.py`, `types.Batch.counts`, `data.x`"
    prose += " `old_room.name`, `jax.vjp`"
    assert list(unknown_in_prose(prose)) == ["algorithms.nothing", "old_room.name"]
    code = "import causal_sgd as cs\nfrom causal_sgd.sensing import worlds, nowhere\n"
    code += "cs.sweep(worlds.two_point.x, worlds.twopoint)\n"
    assert list(unknown_in_code(code)) == ["causal_sgd.sensing.nowhere", "worlds.twopoint"]
