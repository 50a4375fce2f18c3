"""Studies run one after another: saved, stale, damaged, killed, failing; and the report."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import html5lib
import pytest

from causal_sgd import cli, studies
from causal_sgd.studies import sensing
from causal_sgd.studies.reproduction import _cache, _running, _sources, _times
from causal_sgd.studies.reproduction._running import Outcome, outcomes
from causal_sgd.studies.reproduction._sources import fingerprint

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
    "open": Claim("open", OPEN, np.inf, "this study"),
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
    return {"half": float(data["a/b"].m.mean()), "open": 3}

def figure(data):
    """A caption with "quotes" & <angles>."""
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot(data["a/b"].spread, data["a/b"].m.mean(("seed", "step")))
    return fig
'''


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three studies, in place of the package's."""
    folder = tmp_path / "studies"
    folder.mkdir()
    names = ("first-one", "second-one", "third-one")
    for name in names:
        write(folder, name)
    monkeypatch.setattr(sensing, "__path__", [str(folder)])
    monkeypatch.setattr(studies, "SYSTEMS", {"sensing": names})
    monkeypatch.setattr(studies, "NAMES", names)
    monkeypatch.setattr(studies, "CORE", names[:1])
    yield folder
    for name in names:
        sys.modules.pop(f"causal_sgd.studies.sensing.{name.replace('-', '_')}", None)


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


def call(*arguments: str, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures."""
    monkeypatch.setattr(_running, "draw", lambda study, data, path: None)


def test_results_are_reused_by_size_and_seed_until_their_source_changes(
    shelf: Path, tmp_path: Path, undrawn, monkeypatch
) -> None:
    first = one(tmp_path)
    assert first.error is None
    assert not first.reused
    assert computed(shelf) == ["first-one"]
    again = one(tmp_path)
    assert again.reused
    assert (again.verdicts, again.data) == (first.verdicts, first.data)
    assert not computed(shelf)
    for options in ({"quick": True}, {"seed": 1}, {"fresh": True}):
        one(tmp_path, **options)
        assert computed(shelf) == ["first-one"]
    assert one(tmp_path).reused

    write(shelf, "first-one", opened=9, caption="other caption", finding="other finding")
    judged = one(tmp_path)
    assert judged.reused, "claims, figures and words are derived again from the saved results"
    assert [verdict.holds for verdict in judged.verdicts.values()] == [True, False]
    write(shelf, "first-one", **{"np.array([1.0, 2.0])": "np.array([1.0, 3.0])"})
    old = one(tmp_path, redraw=True)
    assert old.reused
    assert old.outdated == ["the code that computes them changed"]
    assert not computed(shelf)
    new = one(tmp_path)
    assert not new.reused
    assert new.outdated == ["the code that computes them changed"]
    assert computed(shelf) == ["first-one"]
    monkeypatch.setattr(_cache, "COMPUTING", ("jax", "matplotlib"))
    assert one(tmp_path).outdated[0].startswith("matplotlib is ")
    computed(shelf)
    next(tmp_path.rglob("full-0/*.nc")).write_bytes(b"CDF")
    assert "damaged" in one(tmp_path).outdated[0]
    assert computed(shelf) == ["first-one"]
    assert one(tmp_path).reused


def test_a_fingerprint_depends_on_what_the_function_reaches(tmp_path: Path) -> None:
    path = tmp_path / "study.py"

    def of(text: str) -> str:
        path.write_text(text)
        return fingerprint(path, "run")

    plain = of("A = 1\nB = A\ndef run(): return B\nC = 1")
    assert (
        of(
            "# why\nA = 1\nB = A\ndef run():\n  'What.'\n  return (B)\n"
            "C = 2\ndef figure(): return A"
        )
        == plain
    )
    different = [
        plain,
        of("A = 2\nB = A\ndef run(): return B"),
        of("A = 1\nB = A\nB += 1\ndef run(): return B"),
        of("A = 1\nB = A\nprint(B)\ndef run(): return B"),
        of("A = 1\nB = A\nfrom causal_sgd import worlds\ndef run(): return worlds"),
        of("A = 1\nB = A\ndef run(): from causal_sgd.figures import _theme; return _theme, B"),
        of("A = 1\nB = A\nimport causal_sgd as cs\ndef run(): return cs.theory, B"),
        of("A = 1\nB = A\nimport causal_sgd as cs\ndef run(): return cs.__version__, B"),
        of("A = 1\nB = A\nimport causal_sgd as cs\ndef run(): return cs.sweep, B"),
    ]
    assert len(set(different)) == len(different)
    with pytest.raises(ValueError, match="must define 'run', got A"):
        of("A = 1")


EDITS = {
    "sweeps/_scheduler.py": True,
    "training/_run.py": True,
    "sensing/worlds/_families.py": True,
    "theory/_boundaries.py": True,
    "studies/_cells.py": True,
    "figures/_plots.py": False,
    "figures/_accessor.py": False,
    "studies/_drawing.py": False,
    "studies/reproduction/_reports.py": False,
    "cli/phases.py": False,
}


def test_an_edit_makes_results_stale_if_the_run_reaches_it(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "causal_sgd"
    shutil.copytree(_sources.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_sources, "PACKAGE", package)
    study = package / "studies" / "sensing" / "heterogeneity.py"
    before = fingerprint(study, "run")
    for module, stale in EDITS.items():
        with (package / module).open("a") as file:
            file.write("\nEDITED = True\n")
        after = fingerprint(study, "run")
        assert (after != before) == stale, module
        before = after


@pytest.mark.slow
def test_a_killed_reproduction_resumes_with_the_interrupted_study(
    shelf: Path, tmp_path: Path, undrawn
) -> None:
    trouble = "os.kill(os.getpid(), signal.SIGKILL) if 'RESUMED' not in os.environ else None"
    write(shelf, "second-one", trouble=trouble)
    script = (
        "import sys; from pathlib import Path\n"
        "from causal_sgd import studies; from causal_sgd.studies import sensing\n"
        "sensing.__path__ = [sys.argv[1]]\n"
        "studies.NAMES = ('first-one', 'second-one', 'third-one')\n"
        "studies.SYSTEMS = {'sensing': studies.NAMES}\n"
        "from causal_sgd.studies.reproduction import outcomes\n"
        "list(outcomes(studies.NAMES, Path(sys.argv[2])))"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", script, shelf, out], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert computed(shelf) == ["first-one", "second-one"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESUMED", "1")
        resumed = list(outcomes(studies.NAMES, out))
    assert [outcome.reused for outcome in resumed] == [True, False, False]
    assert all(outcome.error is None for outcome in resumed)
    assert computed(shelf) == ["second-one", "third-one"]


def test_an_interrupted_reproduction_writes_a_report_and_how_to_resume(
    shelf: Path, tmp_path: Path, undrawn, capsys
) -> None:
    write(shelf, "second-one", trouble="raise KeyboardInterrupt")
    code, out, err = call("reproduce", "--all", "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 130
    assert "2 of 2 claims hold" not in out
    assert "simulating second-one, study 2 of 3" in err
    assert "1 of 3 studies are finished and cached; continue with: the same command" in err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 more are not computed yet" in page
    assert page.count("<article") == 1


def test_a_closed_pipe_is_no_error(shelf: Path) -> None:
    script = (
        "import sys; from causal_sgd.cli import main; sys.stdout.write('x' * 10**6); main(['list'])"
    )
    done = subprocess.run(
        f'{sys.executable} -c "{script}" | head -c 1', shell=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("x", "")


def test_a_failing_study_stops_no_other_and_is_listed_first(
    shelf: Path, tmp_path: Path, capsys
) -> None:
    write(shelf, "first-one", opened=9)
    write(shelf, "second-one", trouble="raise ArithmeticError('no <b>numbers</b>')")
    (shelf / "third_one.py").write_text("this is no Python")
    code, out, _ = call("reproduce", "--all", "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 1
    assert "FAILS  first-one: open: 3, not at least 9" in out
    assert "ERROR  second-one: ArithmeticError: no <b>numbers</b>" in out
    assert "1 of 2 claims hold; 2 of 3 studies stopped with an error" in out
    table = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert set(table["errors"]) == {"second-one", "third-one"}
    page = (tmp_path / "out" / "report.html").read_text()
    check(page)
    start, contents = page.index("Failures</h2>"), page.index('id="contents"')
    assert start < contents
    first = page[start:contents]
    assert "ArithmeticError: no &lt;b&gt;numbers" in first
    assert "second-one" in first
    assert "third-one" in first
    assert re.findall(r'data-claim="(\w+)"', first) == ["open"]
    write(shelf, "second-one", trouble="return {'a': 1}")
    code, out, _ = call("reproduce", "second-one", "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 1


def test_the_page_is_valid_complete_and_agrees_with_the_table(
    shelf: Path, tmp_path: Path, capsys
) -> None:
    code, out, _ = call(
        "reproduce", "--all", "--seed", "0", "--out", str(tmp_path / "out"), capsys=capsys
    )
    assert code == 0
    assert "6 of 6 claims hold; report in" in out
    page = (tmp_path / "out" / "report.html").read_text()
    tree = check(page)
    table = json.loads((tmp_path / "out" / "claims.json").read_text())
    shown = {
        (node.get("data-study"), node.get("data-claim")): float(node.get("value"))
        for node in tree.iter("data")
    }
    assert shown == {
        (claim["study"], claim["name"]): claim["measured"] for claim in table["claims"]
    }
    assert len(shown) == 6
    text = " ".join(" ".join(tree.itertext()).split())
    for phrase in (
        "6 of 6 claims hold in 3 studies",
        "half of it & more",
        "theory <here>",
        "0.4 to 0.6",
        "at least 1",
        "stars* and_underscores_ that mean nothing*",
        "<script>alert(1)</script>",
        "Nothing to speak of.",
        "causal-sgd reproduce --all",
        "causal-sgd reproduce third-one",
        "spread 1, 2; 3 seeds",
        "dim 6; spread 2.0",
        "jax ",
    ):
        assert phrase in text, phrase
    assert [node.text for node in tree.iter("code")][:1] == ["code"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "claims.json",
        "report.html",
        "results",
        *(f"{name}.{kind}" for name in studies.NAMES for kind in ("png", "pdf")),
    }


def check(page: str):
    """Parse a page without errors; it must load nothing and be accessible."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    everything = list(tree.iter())
    tags = {node.tag for node in everything}
    assert not tags & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "video",
        "audio",
        "source",
    }
    identifiers = [node.get("id") for node in everything if node.get("id")]
    assert len(set(identifiers)) == len(identifiers)
    for node in everything:
        for name, value in node.items():
            assert not name.startswith("on")
            if name in ("href", "src", "srcset", "xlink:href", "poster", "action", "background"):
                assert value.startswith(("data:image/", "#")), value
                assert not value.startswith("#") or value[1:] in identifiers, value
            if name.startswith("aria-labelledby"):
                assert value in identifiers
        assert "url(" not in (node.get("style") or "")
    sheet = "".join(node.text for node in tree.iter("style"))
    assert "url(" not in sheet
    assert "@import" not in sheet
    policy = next(node.get("content") for node in tree.iter("meta") if node.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    for image in tree.iter("img"):
        assert len(image.get("alt")) > 20
        kind, _, content = image.get("src").partition(";base64,")
        drawn = base64.b64decode(content)
        assert kind != "data:image/svg+xml" or not re.search(
            rb"""(href|src)=["'](?!#)|@import|url\((?!#)|<script""", drawn
        )
    for table in tree.iter("table"):
        assert table.find("caption") is not None
        assert all(head.get("scope") for head in table.iter("th"))
        assert list(table.iter("th"))
    return tree


def test_list_prints_claims_and_times(
    shelf: Path, tmp_path: Path, undrawn, capsys, monkeypatch
) -> None:
    known = {
        "command": "c",
        "date": "2026-01-02",
        "full": {"second-one": 61.0},
        "quick": {},
        "versions": {},
    } | {
        "machine": {
            "platform": "gpu",
            "device": "H100",
            "machine": "x86_64",
            "cpu": "other",
            "cores": 16,
        }
    }
    monkeypatch.setattr(_times, "reference", lambda: known)
    one(tmp_path)
    code, out, _ = call("list", "--out", str(tmp_path), capsys=capsys)
    assert code == 0
    first, second, third = (out.split("\n\n")[index] for index in (1, 2, 3))
    assert first.startswith("* first-one: first-one of <angles> & A* and A_e.")
    assert re.search(r"full: 0\.\d s \(here on 20\d\d-\d\d-\d\d\), quick: not measured yet", first)
    assert re.search(r"0\.4 to 0\.6 +half of it & more  \(theory <here>\)", first)
    assert second.startswith("  second-one")
    assert "full: 61 s (elsewhere, on H100, 16 x86_64 cores)" in second
    assert "full: not measured yet" in third
    assert "--sampler" in out
    code, out, _ = call("list", "first_one", "--out", str(tmp_path), capsys=capsys)
    assert "A finding with" in out
    assert "A caption with" in out
    assert "at least 1 " in out
    assert "second" not in out
    _, out, _ = call("list", "--json", "--out", str(tmp_path), capsys=capsys)
    table = json.loads(out)
    assert [study["name"] for study in table["studies"]] == list(studies.NAMES)
    assert table["studies"][0]["times"]["full"]["here"] is True
    assert table["studies"][1]["times"]["full"] | {"here": None} == {
        "seconds": 61.0,
        "here": None,
        "machine": "H100, 16 x86_64 cores",
        "date": "2026-01-02",
    }
    assert table["studies"][2]["claims"][1] == {
        "name": "open",
        "text": "open",
        "low": 1.0,
        "high": None,
        "source": "this study",
    }
    assert "hetero" in table["names"]["sampler"]
    code, _, err = call("list", "firs-one", capsys=capsys)
    assert code == 2
    assert "did you mean 'first-one'" in err


def test_the_reference_times_name_their_machine_and_command_but_no_host() -> None:
    known = _times.reference()
    assert set(known) == {"command", "date", "machine", "versions", "full", "quick"}
    assert set(known["machine"]) == set(_times.MACHINE)
    assert set(known["full"]) | set(known["quick"]) <= set(studies.NAMES)
    assert all(seconds > 0 for size in ("full", "quick") for seconds in known[size].values())


def test_reference_times_are_read_from_saved_results(shelf: Path, tmp_path: Path, undrawn) -> None:
    study_times = pytest.importorskip("benchmarks.study_times")
    with pytest.raises(ValueError, match="must hold results of one kind of machine, got 0"):
        study_times.reference(tmp_path, 0)
    list(outcomes(studies.NAMES, tmp_path))
    table = study_times.reference(tmp_path, 0)
    assert set(table) == set(_times.reference())
    assert set(table["full"]) == set(studies.NAMES)
    assert not table["quick"]
    assert set(table["machine"]) == set(_times.MACHINE)
