"""The command line, called in this process."""

from __future__ import annotations

import shlex

import pytest

from causal_sgd import cli


def words(line: str) -> list[str]:
    """The words of a command line."""
    return shlex.split(line)


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err
