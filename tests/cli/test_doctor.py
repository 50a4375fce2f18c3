"""`causal-sgd doctor` and `--version`."""

from __future__ import annotations

import json

import pytest

import causal_sgd
from causal_sgd import cli
from causal_sgd.cli import doctor


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code or 0  # pyright: ignore


def test_a_healthy_installation_is_said_to_be(capsys) -> None:
    assert call("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    named = {finding["name"]: finding for finding in report["findings"]}
    assert report["healthy"]
    assert {
        "causal_sgd",
        "jax",
        "numpy",
        "devices",
        "memory",
        "compilation cache",
        "golden runs",
    } <= set(named)
    assert causal_sgd.__version__ in named["causal_sgd"]["text"]
    assert {finding["verdict"] for finding in named.values()} <= {"ok", "note"}


def test_what_is_wrong_is_told_with_what_to_do(capsys, monkeypatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["jax>=99", "numpy"])
    monkeypatch.setattr(
        doctor, "_self_test", lambda: iter([doctor.Finding("golden runs", "strays", "FAILS")])
    )
    assert call("doctor") == 1
    out = capsys.readouterr().out
    assert "must be >=99; pip install 'jax>=99'" in out
    assert "failed: jax, golden runs" in out


def test_the_version_is_told(capsys) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"causal-sgd {causal_sgd.__version__}\n"
