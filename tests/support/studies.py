"""A study that needs no simulation, and ways to run it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from causal_sgd import studies
from causal_sgd.studies import reproduction, sensing
from causal_sgd.studies.reproduction import _running
from causal_sgd.studies.reproduction._running import Outcome, outcomes

STUDY = '''"""TITLE of <angles> & A* and A_e.

A finding with `code`, and a list:

- U U' with stars* and_underscores_ that mean nothing*.
- <script>alert(1)</script>
"""
import os, signal
from pathlib import Path
import numpy as np
import xarray as xr
from causal_sgd import checks
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

BASE = Experiment(dim=6, spread=2.0)
SPREADS = np.array([1.0, 2.0])
LOG = Path(__file__).parent / "log"
CLAIMS = {
    "half": Claim("half of it & more", 0.4, 0.6, "theory <here>"),
    "open": Claim("open", OPEN, np.inf, "theory"),
    "seen": Claim.finding("seen & not judged"),
}

def run(*, quick=False, key=0, progress=None):
    """Nothing to speak of."""
    with LOG.open("a") as log:
        log.write("TITLE\\n")
    TROUBLE
    values = np.full((2, 3, 1), 0.5 + key)
    variables = {"m": (("spread", "seed", "step"), values)}
    variables["diverged_at"] = ("spread", "seed"), -np.ones((2, 3), int)
    coordinates = {"spread": SPREADS, "seed": np.arange(3), "step": [9]}
    return {"a/b": xr.Dataset(variables, coordinates)}

def measure(data):
    """It."""
    return {"half": float(data["a/b"].m.mean()), "open": 3, "seen": 1e9}

def figure(data):
    """A caption with "quotes" & <angles>."""
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot(data["a/b"].spread, data["a/b"].m.mean(("seed", "step")))
    return fig
'''


def three_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with three studies, in place of the package's: in this process only."""
    folder = tmp_path / "studies"
    folder.mkdir()
    names = ("first-one", "second-one", "third-one")
    for name in names:
        write(folder, name)
    monkeypatch.setattr(sensing, "__path__", [str(folder)])
    monkeypatch.setattr(studies, "QUESTIONS", {"Which?": names})
    monkeypatch.setattr(studies, "NAMES", names)
    monkeypatch.setattr(studies, "CORE", names[:1])
    monkeypatch.setattr(reproduction, "default_jobs", lambda: 1)
    yield folder
    for name in names:
        sys.modules.pop(f"causal_sgd.studies.sensing.{name.replace('-', '_')}", None)


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures."""
    monkeypatch.setattr(_running, "draw", lambda study, data, path: None)


def write(
    folder: Path, name: str, *, trouble: str = "pass", opened: float = 1, **changes: str
) -> None:
    text = STUDY.replace("TITLE", name).replace("TROUBLE", trouble).replace("OPEN", str(opened))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name.replace('-', '_')}.py").write_text(text)
    sys.modules.pop(f"causal_sgd.studies.sensing.{name.replace('-', '_')}", None)


def computed(folder: Path) -> list[str]:
    """The studies that ran since the last call."""
    log = folder / "log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def one(out: Path, **options) -> Outcome:
    (outcome,) = outcomes(["first-one"], out, **options)
    return outcome
