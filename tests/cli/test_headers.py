"""A store whose header lacks an attribute, or has a wrong one, is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from causal_sgd import sweep
from causal_sgd.experiment import Experiment
from support.shell import call

FIELDS: dict[str, Any] = {"dim": 4, "invariant_rank": 1, "spurious_rank": 1, "steps": 5}
MISSING = object()
WRONG = [None, -1, 1.5, 10**9, "x", [], {}, [3], ["x"], {"a": 1}]
ALLOWED = {
    "source": (None, "x"),
    "steps": (None,),
    "requests": ([],),
    "environments": ([],),
    "created": ("x",),
    "files": (MISSING, {}, {"a": 1}),
}

VALID = (("axes", {}), ("seeds", [3]))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fields = FIELDS | {"measurement": "population", "metrics": ("spurious_signal",)}
    cell = Experiment(**fields).cell()
    sweep(cell, axes={"spread": [0.0, 1.0]}, seeds=2, store=tmp_path / "d.zarr")
    return tmp_path / "d.zarr"


def spoil(header: dict[str, Any], place: tuple[str | int, ...], value: object) -> None:
    """Remove or replace the entry at a place."""
    inner: Any = header
    for name in place[:-1]:
        inner = inner[name]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value


@pytest.mark.parametrize("values", [[MISSING], pytest.param(WRONG, marks=pytest.mark.slow)])
def test_every_attribute_is_checked(values: list, store: Path, capsys) -> None:
    whole = (store / "zarr.json").read_text()
    attributes = json.loads(whole)["attributes"]
    places: list[tuple[str | int, ...]] = [("attributes", name) for name in attributes]
    places += [("attributes", "requests", 0, name) for name in ("axes", "seeds")]
    places += [("attributes", "requests", 0, "axes", "spread")]
    places += [("attributes", "environments", 0, name) for name in ("versions", "platform", "cpu")]
    for place in places:
        for wrong in values:
            if wrong in ALLOWED.get(str(place[1]), ()) or (place[-1], wrong) in VALID:
                continue
            if place[-1] in ("platform", "cpu") and wrong == "x":
                continue
            header = json.loads(whole)
            spoil(header, place, wrong)
            (store / "zarr.json").write_text(json.dumps(header))
            code, out, err = call("status", str(store), capsys=capsys)
            assert (code, out, err.count("\n")) == (2, "", 1), (place, wrong, out, err)


ARRAYS: list[tuple[str, str, Any]] = [
    ("status", "shape", [1, 10**9]),
    ("seed", "data_type", "int32"),
    ("spurious_signal", "shape", [4, 10**9]),
    ("spurious_signal", "data_type", "float64"),
    ("diverged_at", "data_type", "nonsense"),
    ("step", "shape", [10**9]),
]


def test_altered_headers_of_arrays_are_named_and_not_needed(store: Path, capsys) -> None:
    for array, name, wrong in ARRAYS:
        file = store / array / "zarr.json"
        whole = file.read_text()
        file.write_text(json.dumps(json.loads(whole) | {name: wrong}))
        code, out, _ = call("status", str(store), "--verify", capsys=capsys)
        assert code == 1, (array, name)
        assert (
            f"damaged: the header of {array} was altered" in out or f"damaged: {array} has" in out
        )
        assert call("export", str(store), f"{store}.csv", "--force", capsys=capsys)[0] == 0
        assert call("repair", str(store), capsys=capsys)[0] == 0
        assert file.read_text() == whole
    assert call("status", str(store), "--verify", capsys=capsys)[0] == 0
