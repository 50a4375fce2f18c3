"""`causal-sgd doctor` and `--version`."""

from __future__ import annotations

import json

import causal_sgd
from causal_sgd.cli import doctor
from support.shell import call


def test_a_healthy_installation_passes(capsys) -> None:
    code, out, _ = call("doctor", "--json", capsys=capsys)
    assert code == 0
    report = json.loads(out)
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


def test_a_wrong_version_is_reported_with_the_remedy(capsys, monkeypatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["jax>=99", "numpy"])
    monkeypatch.setattr(
        doctor, "_self_test", lambda: iter([doctor.Finding("golden runs", "strays", "FAILS")])
    )
    code, out, _ = call("doctor", capsys=capsys)
    assert code == 1
    assert "must be >=99; pip install 'jax>=99'" in out
    assert "failed: jax, golden runs" in out


def test_an_editable_installation_of_an_earlier_version_is_noted(monkeypatch) -> None:
    version = doctor.importlib.metadata.version
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "version",
        lambda name: "0.0.9" if name == "causal_sgd" else version(name),
    )
    found = next(doctor.examine())
    assert found.verdict == "note"
    assert found.text.startswith(f"{causal_sgd.__version__} on Python")
    assert found.text.endswith("installed as 0.0.9: run pip install -e . again")


def test_the_version_is_printed(capsys) -> None:
    code, out, _ = call("--version", capsys=capsys)
    assert (code, out) == (0, f"causal-sgd {causal_sgd.__version__}\n")
