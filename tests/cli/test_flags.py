"""Messages of the library name flags as they were typed."""

from __future__ import annotations

import pytest

from causal_sgd.cli.flags import named, typed
from causal_sgd.cli.phases import Phase
from causal_sgd.cli.runs import Run, RunSupervised
from support.shell import words

NAMES = ", ".join(f"some_name_{index}" for index in range(13))


@pytest.mark.parametrize(
    ("kind", "line", "message", "expected"),
    [
        (Run, "", "batch_size must be 1, got 0", "--batch-size must be 1, got 0"),
        (Run, "--batch_size 0", "batch_size must be 1", "--batch_size must be 1"),
        (Run, "", "tilt must be 0 where model is 'a'", "--tilt must be 0 where --model is 'a'"),
        (Run, "", "world file must be a file", "--world-file must be a file"),
        (Run, "", "the rank of the world is 3", "the rank of the world is 3"),
        (
            Run,
            "",
            "family must be one of log_normal, goe, got 'log_norm'; did you mean 'log_normal'?",
            "--family must be one of log-normal, goe, got 'log_norm'; did you mean 'log-normal'?",
        ),
        (
            Run,
            "",
            f"metrics must be one of {NAMES}, got 'a_b'; did you mean 'some_name_1'?",
            "--metrics must be one of 13 names, got 'a_b'; did you mean 'some-name-1'?",
        ),
        (
            RunSupervised,
            "",
            "experiment.dim is 3 in the store and 4 now",
            "--dim is 3 in the store and 4 now",
        ),
        (
            RunSupervised,
            "",
            "data_file must be a table, got /a/data_file.csv",
            "--data-file must be a table, got /a/data_file.csv",
        ),
        (
            Phase,
            "--x learning_rate=-1,2 --y spread=1,2",
            "learning_rate must be above 0",
            "--x learning_rate must be above 0",
        ),
    ],
)
def test_messages_name_flags_as_typed(kind: type, line: str, message: str, expected: str) -> None:
    assert named(message, words(line), kind) == expected


def test_flags_are_found_however_they_are_typed() -> None:
    line = "--batch_size=3 --no-trace-correction --json --mean -1 --nonsense 2"
    assert typed(words(line), Run) == {
        "batch_size": "--batch_size",
        "trace_correction": "--no-trace-correction",
        "json": "--json",
        "mean": "--mean",
    }
