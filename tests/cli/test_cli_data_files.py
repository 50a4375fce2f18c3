"""A user's own data from the shell: files, columns, stores, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal_sgd.sweeps.store import Store
from support.shell import call, words
from support.stores import forget

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ROWS = 30
RUN = words("run supervised --method pooled --metrics weights --seeds 1")


def table() -> pd.DataFrame:
    draw = np.random.default_rng(0).normal(size=(2 * ROWS, 3))
    cities = np.repeat(["paris", "rome"], ROWS)
    label = draw[:, 0] - 2 * draw[:, 1] + draw[:, 2]
    return pd.DataFrame({"city": cities, "dose": draw[:, 0], "age": draw[:, 1], "price": label})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same data as a table with names of its own, and as arrays."""
    frame = table()
    frame.to_csv(tmp_path / "own.csv", index=False)
    cities = np.array(frame["city"].tolist())
    inputs = frame[["dose", "age"]].to_numpy()
    np.savez(tmp_path / "own.npz", x=inputs, y=frame["price"].to_numpy(), environment=cities)
    frame.rename(columns={"city": "environment", "price": "y"}).to_csv(
        tmp_path / "plain.csv", index=False
    )
    broken = frame.rename(columns={"city": "environment", "price": "y"})
    broken.loc[3, "age"] = np.nan
    broken.to_csv(tmp_path / "broken.csv", index=False)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "half.npz").write_bytes((tmp_path / "own.npz").read_bytes()[:200])
    np.savez(tmp_path / "other.npz", x=inputs)
    return tmp_path


def test_all_forms_of_the_same_data_give_least_squares(folder: Path, capsys) -> None:
    frame = table()
    expected = np.linalg.lstsq(frame[["dose", "age"]], frame["price"], rcond=None)[0]
    names = "--label-column price --environment-column city"
    for options in (f"own.csv {names}", "plain.csv", "own.npz"):
        line = [*RUN, *words(f"--json --data-file {folder}/{options}")]
        code, out, _ = call(*line, capsys=capsys)
        assert code == 0
        weights = json.loads(out)["metrics"]["weights"]["median"]
        np.testing.assert_allclose(weights, expected, rtol=1e-4)


@pytest.mark.slow
def test_losses_of_classes_want_their_labels(tmp_path: Path, capsys) -> None:
    draw = np.random.default_rng(1)
    classes, places = draw.integers(0, 3, ROWS), np.arange(ROWS) % 2
    x = np.eye(3)[classes] + 0.1 * draw.normal(size=(ROWS, 3))
    for name, labels in (("classes", classes), ("signs", 2 * (classes > 1) - 1)):
        np.savez(tmp_path / f"{name}.npz", x=x, y=labels, environment=places)
    line = "run supervised --full-batch --learning-rate 1 --steps 50 --seeds 1 --json --intercept"
    line += " --metrics training_error batch_loss --data-file"
    for name, loss in (("classes", "softmax"), ("signs", "logistic")):
        code, out, _ = call(*words(f"{line} {tmp_path}/{name}.npz --loss {loss}"), capsys=capsys)
        assert code == 0
        found = json.loads(out)["metrics"]
        assert found["training_error"]["median"] == 0, "the classes are far from each other"
        assert 0 < found["batch_loss"]["median"] < np.log(2)
    for name, loss, expected in (
        ("classes", "logistic", "labels must be -1 and 1 where --loss is 'logistic', got 0, 1, 2"),
        ("signs", "softmax", "labels must be 0, 1, ..., one for each class, where --loss is 'soft"),
    ):
        code, _, err = call(*words(f"{line} {tmp_path}/{name}.npz --loss {loss}"), capsys=capsys)
        assert code == 2
        assert expected in err
        assert len(err.splitlines()) == 1


def test_accuracies_of_environments_that_are_held_out(tmp_path: Path, capsys) -> None:
    """A weight that follows the colour in two environments and fails where it is turned round."""
    draw = np.random.default_rng(2)
    places = np.repeat(["one", "two", "turned"], ROWS)
    y = draw.choice([-1, 1], 3 * ROWS)
    right = np.concatenate([np.arange(2 * ROWS) % 10 > 0, np.arange(ROWS) % 10 == 0])
    np.savez(tmp_path / "colour.npz", x=np.where(right, y, -y)[:, None], y=y, environment=places)
    line = f"run supervised --data-file {tmp_path}/colour.npz --held-out turned --loss logistic"
    line += " --batch-size 8 --slots 8 --replacement --steps 200 --seeds 1 --json --metrics"
    line += " accuracy accuracies worst_accuracy training_accuracy environment_losses test_losses"
    code, out, err = call(*words(line), capsys=capsys)
    assert code == 0, err
    found = {name: levels["median"] for name, levels in json.loads(out)["metrics"].items()}
    assert found["training_accuracy"] == pytest.approx(0.9)
    assert found["accuracies"] == pytest.approx([0.1])
    assert found["accuracy"] == found["worst_accuracy"] == pytest.approx(0.1)
    assert len(found["environment_losses"]) == 2
    assert found["test_losses"][0] > max(found["environment_losses"])


def test_columns_are_chosen_and_environments_held_out(folder: Path, capsys) -> None:
    frame = table()
    kept, rest = frame[frame["city"] == "rome"], frame[frame["city"] == "paris"]
    weight = float(kept["age"] @ kept["price"] / (kept["age"] @ kept["age"]))
    line = f"--data-file {folder}/plain.csv --columns age --held-out paris --json"
    line += " --metrics weights test_risk"
    code, out, _ = call(*RUN, *words(line), capsys=capsys)
    assert code == 0
    metrics = json.loads(out)["metrics"]
    assert metrics["weights"]["median"] == [pytest.approx(weight, rel=1e-4)]
    risk = float(np.mean((rest["price"] - weight * rest["age"]) ** 2))
    assert metrics["test_risk"]["median"] == pytest.approx(risk, rel=1e-4)


@pytest.mark.slow
def test_a_share_of_the_rows_is_held_out(capsys, tmp_path: Path) -> None:
    """Labels are powers of two times the input, so that the weight tells which rows trained."""
    x, powers = np.array([1.0, -1] * 4), 2.0 ** np.arange(8)
    frame = pd.DataFrame({"x": x, "y": x * powers, "environment": ["a"] * 4 + ["b"] * 4})
    frame.to_csv(tmp_path / "powers.csv", index=False)
    line = f"--data-file {tmp_path}/powers.csv --json --metrics weights validation_risk"
    for measurement in ("moments", "examples"):
        options = f"{line} --validation-share 0.3 --measurement {measurement}"
        code, out, err = call(*RUN, *words(options), capsys=capsys)
        assert code == 0, err
        values = json.loads(out)["metrics"]
        weight = values["weights"]["median"][0]
        left_out = int(powers.sum() - round(6 * weight))
        held = [place for place in range(8) if left_out >> place & 1]
        assert [place // 4 for place in held] == [0, 1]
        risk = float(np.mean([(powers[place] - weight) ** 2 for place in held]))
        assert values["validation_risk"]["median"] == pytest.approx(risk, rel=1e-4)


def test_a_store_finds_its_data_when_both_moved(folder: Path, capsys, tmp_path: Path) -> None:
    path = folder / "own.zarr"
    line = [*RUN, "--data-file", str(folder / "plain.csv"), "--out", str(path)]
    assert call(*line, capsys=capsys)[0] == 0
    assert str(Store(path).configuration["experiment"]["data_file"]).startswith("sha256:")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("own.zarr", "plain.csv"):
        shutil.move(folder / name, moved / name)
    forget(moved / "own.zarr", [0])
    assert call("resume", str(moved / "own.zarr"), capsys=capsys)[0] == 0
    forget(moved / "own.zarr", [0])
    (moved / "plain.csv").rename(moved / "renamed.csv")
    code, _, err = call("resume", str(moved / "own.zarr"), capsys=capsys)
    assert code == 2
    assert "--data-file must be the data file of" in err
    file = ["--data-file", str(moved / "renamed.csv")]
    assert call("resume", str(moved / "own.zarr"), *file, capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "nowhere.csv",
            "--data-file must be a table, got .*nowhere.csv .*No such file or directory",
        ),
        ("own.txt", "--data-file must end in .npz or .csv, got "),
        ("empty.csv", "--data-file must be a table, got .*empty.csv"),
        ("half.npz", "--data-file must be an .npz archive of plain arrays, got "),
        ("other.npz", "--data-file must hold the arrays x, y and environment, got ['x'] in "),
        (
            "own.csv",
            "--data-file must have the columns y, environment, and those of the inputs; it lacks "
            "'y' and 'environment', has city, dose, age, price",
        ),
        (
            "own.csv --label-column price",
            "--data-file must have the columns environment, and those of the inputs; it lacks "
            "'environment', has city, dose, age, price",
        ),
        ("plain.csv --label-column out", "--label-column must be one of environment, dose, age, y"),
        ("broken.csv", "--data-file must hold finite numbers, got nan in row 3, column 'age'"),
        ("plain.csv --columns dose agee", "columns must be one of .*did you mean 'age'"),
        ("plain.csv --held-out oslo", "--held-out must name environments, .*got 'oslo'"),
        (
            "plain.csv --validation-share 0.02",
            "--validation-share must hold out at least one row of every environment and leave one, "
            "got 0.02 with 30 rows of 'paris'",
        ),
        (
            "plain.csv --num-validation 5",
            "hold out rows by from_arrays(validation_share=...)",
        ),
        (
            "plain.csv --metrics validation_risk",
            "--validation-share must be given for the metric validation_risk",
        ),
        ("own.npz --label-column price", "--label-column must not be given with an .npz file"),
        (
            "plain.csv --evolution redraw --measurement examples --method erm",
            "--data-file must not be given where --evolution is 'redraw'",
        ),
    ],
)
def test_mistakes_are_one_line(options: str, message: str, folder: Path, capsys) -> None:
    code, out, err = call(*RUN, *words(f"--data-file {folder}/{options}"), capsys=capsys)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
    for part in message.split(".*"):
        assert part.strip() in err
