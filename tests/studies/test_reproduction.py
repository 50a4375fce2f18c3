"""Studies run one after another: saved, stale, damaged, killed and interrupted."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from causal_sgd import studies
from causal_sgd.studies.reproduction import _cache, _sources
from causal_sgd.studies.reproduction._running import outcomes
from causal_sgd.studies.reproduction._sources import fingerprint
from support.shell import call
from support.studies import computed, draw_nothing, one, three_studies, write

shelf, undrawn = pytest.fixture(three_studies), pytest.fixture(draw_nothing)


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

    write(shelf, "first-one", opened=9, caption="other caption", **{"A finding": "Another finding"})
    judged = one(tmp_path)
    assert judged.reused, "claims, figures and words are derived again from the saved results"
    assert [verdict.holds for verdict in judged.verdicts.values()] == [True, False, None]
    assert list(judged.failed) == ["open"]
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
        "studies.QUESTIONS = {'Which?': studies.NAMES}\n"
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
