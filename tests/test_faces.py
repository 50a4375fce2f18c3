"""`help` of a room begins with a line for each of its names, and wrong names get a hint."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from types import ModuleType

import pytest

import causal_sgd

INTERNAL = ("causal_sgd.checks", "causal_sgd.cli", "causal_sgd.studies.", "causal_sgd.__main__")


def public() -> list[str]:
    names = [info.name for info in pkgutil.walk_packages(causal_sgd.__path__, "causal_sgd.")]
    return [
        "causal_sgd",
        *(name for name in names if "._" not in name and not name.startswith(INTERNAL)),
    ]


def table(room: ModuleType) -> dict[str, str]:
    """Name -> text of the lines of the table, from the help that a user reads."""
    shown = pydoc.plain(pydoc.render_doc(room))
    lines = shown.partition("In this room::\n")[2].splitlines()[1:]
    rows = itertools.takewhile(str.strip, lines)
    return dict(row.split(maxsplit=1) for row in rows)


@pytest.mark.parametrize("name", public())
def test_help_begins_with_a_line_for_every_name(name: str) -> None:
    room = importlib.import_module(name)
    rows = table(room)
    assert list(rows) == [each for each in room.__all__ if not each.startswith("_")]
    for each, text in rows.items():
        member = getattr(room, each)
        if inspect.isfunction(member) or inspect.isclass(member) or inspect.ismodule(member):
            line = (inspect.getdoc(member) or "").partition("\n")[0]
            assert text == line or (text.endswith(" ...") and line.startswith(text[:-4])), each


def test_the_table_follows_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    from causal_sgd import samplers

    def alternating() -> None:
        """Two environments in turn."""

    monkeypatch.setattr(samplers, "alternating", alternating, raising=False)
    monkeypatch.setattr(samplers, "__all__", [*samplers.__all__, "alternating"])
    assert table(samplers)["alternating"] == "Two environments in turn."


@pytest.mark.parametrize(
    ("room", "name", "message"),
    [
        ("causal_sgd", "samplrs", "causal_sgd has no 'samplrs'; did you mean 'samplers'?"),
        ("causal_sgd.training.samplers", "heterro", "did you mean 'hetero'?"),
        ("causal_sgd.sensing.worlds", "twopoint", "did you mean 'two_point'?"),
        ("causal_sgd.theory", "zzz", "has no 'zzz'; help(causal_sgd.theory) lists all"),
    ],
)
def test_a_wrong_name_gets_a_hint(room: str, name: str, message: str) -> None:
    module = importlib.import_module(room)
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    assert str(caught.value).endswith(message)
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match="has no '__wrapped__'$"):
        module.__wrapped__  # noqa: B018


def test_the_hint_is_the_last_line_that_the_interpreter_prints() -> None:
    code = "import causal_sgd; causal_sgd.samplrs"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last == "AttributeError: causal_sgd has no 'samplrs'; did you mean 'samplers'?"


def test_rooms_are_pickled_by_name() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    from causal_sgd import samplers

    assert isinstance(samplers, type(causal_sgd))
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(samplers)) is samplers
