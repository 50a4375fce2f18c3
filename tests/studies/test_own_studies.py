"""Studies of one's own, by path, module and object, and studies with other constants."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from causal_sgd import studies
from causal_sgd.studies._apart import Apart
from causal_sgd.studies._selection import select
from causal_sgd.studies.reproduction import outcomes
from support.shell import call
from support.studies import computed, draw_nothing, three_studies, write

shelf, undrawn = pytest.fixture(three_studies), pytest.fixture(draw_nothing)

TINY = '''"""A study with a helper."""

import xarray as xr
from causal_sgd.studies import Claim

SIZE = 2  # of everything
DOUBLE = 2 * SIZE
"""Twice the size."""
RATE, NAME = 0.5, "plain"
CLAIMS = {"size": Claim("size", DOUBLE, DOUBLE, "theory")}

def run(*, quick=False, key=0, progress=None):
    """Nothing."""
    from tiny_helper import values
    return {"runs": xr.Dataset({"m": ("seed", values(DOUBLE))})}

def measure(data):
    return {"size": float(data["runs"].m.sum())}

def figure(data):
    from matplotlib import pyplot as plt
    return plt.figure(figsize=(1, 1))
'''
HELPER = "import numpy as np\nWEIGHT = 1.0\ndef values(n): return np.full(n, WEIGHT)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a study and its helper; nothing of it stays in the session."""
    path = tmp_path / "own"
    path.mkdir()
    (path / "tiny.py").write_text(TINY)
    (path / "tiny_helper.py").write_text(HELPER)
    monkeypatch.chdir(path)
    modules, places = set(sys.modules), list(sys.path)
    yield path
    assert not {name for name in set(sys.modules) - modules if name.startswith(("tiny", "kit"))}
    assert sys.path == places
    assert not any(isinstance(finder, Apart) for finder in sys.meta_path)


# The command line


def test_a_file_runs_beside_built_in_studies_with_all_that_they_have(
    shelf: Path, folder: Path, undrawn, capsys
) -> None:
    """Results, cache, table, claims, report, size and seed, under the name of the file."""
    write(folder, "my-own")
    line = ("reproduce", "./my_own.py", "first-one", "--out", "out")
    code, out, err = call(*line, capsys=capsys)
    assert code == 0, err
    assert "2 studies" in out
    assert "simulating my-own, study 1 of 2" in err
    assert [path.name for path in Path("out").glob("*.csv") if path.stem != "claims"]
    for file in ("my-own.csv", "first-one.csv", "results/my-own/full-0/record.json"):
        assert (Path("out") / file).is_file()
    table = json.loads(Path("out/claims.json").read_text())
    assert {row["study"] for row in table["claims"]} == {"my-own", "first-one"}
    page = Path("out/report.html").read_text()
    assert studies.OWN in page
    assert "causal-sgd reproduce ./my_own.py</code>" in page
    assert computed(folder) == ["my-own"]
    _, out, _ = call(*line, capsys=capsys)
    assert "of which 2 are cached" in out
    assert not computed(folder)
    for flags in (["--quick"], ["--seed", "3"], ["--fresh"]):
        call(*line, *flags, capsys=capsys)
        assert computed(folder) == ["my-own"], flags
    code, out, _ = call(*line, "--json", capsys=capsys)
    first, _ = json.loads(out)["studies"]
    assert (first["name"], first["question"], first["reused"]) == ("my-own", studies.OWN, True)


def test_an_interrupted_study_of_ones_own_continues(shelf: Path, folder: Path, undrawn, capsys):
    """The finished one is cached, the interrupted one runs again."""
    write(folder, "my-own")
    write(folder, "other", trouble="raise KeyboardInterrupt")
    line = ("reproduce", "./my_own.py", "./other.py", "--out", "out")
    code, _, err = call(*line, capsys=capsys)
    assert code == 130
    assert "1 of 2 studies are finished and cached" in err
    write(folder, "other")
    computed(folder)
    assert call(*line, capsys=capsys)[0] == 0
    assert computed(folder) == ["other"]


def test_list_shows_claims_constants_and_comments(folder: Path, capsys) -> None:
    """A comment beside, a text below, none; and what to type."""
    code, out, _ = call("list", "./tiny.py", capsys=capsys)
    assert code == 0
    assert "4 to 4             size  (theory)" in out
    lines = [line.strip() for line in out.splitlines()]
    assert "SIZE   = 2  # of everything" in lines
    assert "DOUBLE = 4  # Twice the size." in lines
    assert "NAME   = plain" in lines
    assert "run it:   causal-sgd reproduce ./tiny.py" in lines
    _, out, _ = call("list", "./tiny.py", "--json", capsys=capsys)
    constants = json.loads(out)["studies"][0]["constants"]
    assert constants[0] == {"name": "SIZE", "value": "2", "meaning": "of everything"}


MISTAKES = {
    "./none.py": "study must be a file that exists, got './none.py'",
    "tiny.txt/": "study must be a file that ends in .py, got 'tiny.txt/'",
    "no_module.at_all": "study must be a name, a file or a module that exists",
    "first": "got 'first'; did you mean 'first-one'?",
    "with-hyphen": "did you mean './with-hyphen.py'?",
    "numpy": "numpy must define CLAIMS, run, measure and figure to be a study (see docs/",
    "./empty.py": "./empty.py must define run, measure and figure to be a study (see docs/",
    "./claimless.py": "CLAIMS of ./claimless.py must be a dict of studies.Claim by name",
    "./strict.py": "run of ./strict.py must be called as run(*, quick, key, progress)",
    "./broken.py": "./broken.py cannot be imported: NameError: name 'missing' is not defined "
    "(broken.py, line 2)",
    "./syntax.py": "cannot be imported: SyntaxError: invalid syntax (syntax.py, line 2)",
    "./leaves.py": "./leaves.py cannot be imported: SystemExit: 3 (leaves.py, line 1)",
    "./first_one.py": "study must not be named like a built-in one, got 'first_one.py'",
    "./Big Study.py": "must be named in lower-case letters, digits and underscores",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_word_that_is_no_study_gets_one_clear_line(
    word: str, shelf: Path, folder: Path, capsys
) -> None:
    """The name, the missing part of the protocol, or the user's own error with its place."""
    parts = "CLAIMS = {}\nrun = measure = figure = print\n"
    for name, text in {
        "with-hyphen": TINY,
        "empty": "CLAIMS = {}\n",
        "claimless": parts.replace("{}", "{'a': 1}"),
        "strict": "def run(seed): pass\nCLAIMS = {}\nmeasure = figure = lambda data: data\n",
        "broken": f"import numpy\nmissing\n{parts}",
        "syntax": "x = 1\ny = = 2\n",
        "leaves": f"import sys; sys.exit(3)\n{parts}",
        "first_one": TINY,
        "Big Study": TINY,
    }.items():
        (folder / f"{name}.py").write_text(text)
    code, out, err = call("reproduce", word, "--out", "out", capsys=capsys)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert MISTAKES[word] in err


def test_two_studies_of_one_name_are_refused(folder: Path, capsys) -> None:
    """They would write the same files."""
    (folder / "inner").mkdir()
    (folder / "inner" / "tiny.py").write_text(TINY)
    code, _, err = call("reproduce", "./tiny.py", "inner/tiny.py", capsys=capsys)
    assert code == 2
    assert "must have different names, got './tiny.py' and 'inner/tiny.py'" in err


# Constants


def test_set_changes_constants_and_what_follows_from_them(folder: Path, undrawn, capsys) -> None:
    """In the module, its claims and its report; results with the defaults stay as they are."""
    call("reproduce", "./tiny.py", "--out", "out", capsys=capsys)
    line = ("reproduce", "./tiny.py", "--set", "SIZE=3", "--set", "RATE=1e-3", "--out", "out")
    code, out, _ = call(*line, capsys=capsys)
    assert code == 0
    assert "tiny[RATE=0.001,SIZE=3]: A study with a helper." in out
    assert "SIZE=3 (not 2), RATE=0.001 (not 0.5); the intervals were stated for the defaults" in out
    assert "holds           6  6 to 6" in out
    page = Path("out/report.html").read_text()
    assert "<code>SIZE=3</code> instead of 2" in page
    assert "The intervals of the claims were stated for the defaults." in page
    assert "causal-sgd reproduce ./tiny.py --set SIZE=3 --set RATE=0.001</code>" in page
    names = {path.name for path in Path("out/results").iterdir()}
    assert names == {"tiny", "tiny[RATE=0.001,SIZE=3]"}
    _, out, _ = call("reproduce", "./tiny.py", "--out", "out", capsys=capsys)
    assert "1 study, of which 1 are cached" in out
    assert "4 to 4" in out
    table = json.loads(Path("out/claims.json").read_text())
    assert table["constants"] == {}
    _, out, _ = call(*line, "--json", capsys=capsys)
    (one,) = json.loads(out)["studies"]
    assert (one["constants"], one["reused"]) == ({"SIZE": "3", "RATE": "0.001"}, True)


def test_a_constant_of_a_helper_is_set_where_it_is(folder: Path) -> None:
    """An import inside a function finds the helper with the new value, and only then."""
    text = TINY.replace("import xarray", "from tiny_helper import WEIGHT\nimport xarray")
    (folder / "tiny.py").write_text(text)
    plain, heavy = studies.load("./tiny.py"), studies.load("tiny.py", constants={"WEIGHT": 3})
    for study, sum in ((plain, 4), (heavy, 12), (plain, 4)):
        data = study.run(quick=False, key=0, progress=None)
        assert study.measure(data) == {"size": sum}


def test_settings_of_one_of_several_studies_name_it(shelf: Path, folder: Path, undrawn, capsys):
    """Plain settings are for all, so that all must have the constant."""
    write(folder, "my-own")
    line = ("reproduce", "./my_own.py", "first-one", "--out", "out")
    sets = ("--set", "first-one:BASE.dim=9", "--set", "SPREADS=1,4")
    _, out, _ = call(*line, *sets, capsys=capsys)
    assert "my-own[SPREADS=1.0,4.0]:" in out
    assert "first-one[BASE.dim=9,SPREADS=1.0,4.0]:" in out
    page = Path("out/report.html").read_text()
    assert "--set first-one:BASE.dim=9" in page


SETTINGS = {
    "SIZ=3": "./tiny.py has no constant 'SIZ', but SIZE, DOUBLE, NAME, RATE; did you mean 'SIZE'?",
    "size=3": "did you mean 'SIZE'?",
    "CLAIMS=3": "has no constant 'CLAIMS'",
    "SIZE=3.5": "SIZE must be a whole number, got '3.5'",
    "RATE=fast": "RATE must be a number, got 'fast'",
    "SIZE.x=1": "SIZE.x must be the name of a constant",
    "SIZE": "--set must be NAME=value or STUDY:NAME=value, got 'SIZE'",
    "other:SIZE=3": "study of --set must be one of tiny, got 'other'",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_cannot_be_followed_gets_one_clear_line(
    setting: str, folder: Path, capsys
) -> None:
    """The name, the type, what was got, and the constants that the study has."""
    code, out, err = call("reproduce", "./tiny.py", "--set", setting, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert SETTINGS[setting] in err


def test_set_needs_a_study(folder: Path, capsys) -> None:
    """Not all studies of a run by default have the constant."""
    code, _, err = call("reproduce", "--set", "SIZE=3", capsys=capsys)
    assert code == 2
    assert "--set must be given with names of studies, got 'SIZE=3'" in err


@pytest.mark.parametrize(
    ("old", "given", "new"),
    [
        ("3", "4", 4),
        ("3", "1e3", 1000),
        ("0.5", "2", 2.0),
        ("True", "false", False),
        ("'a'", "b c/d", "b c/d"),
        ("(1, 2)", "3, 4,5", (3, 4, 5)),
        ("[0.5]", "(1,)", [1.0]),
        ("('a', 'b')", "c", ("c",)),
        ("np.arange(3.0)", "1,2", np.array([1.0, 2.0])),
        ("Experiment().replace(dim=9)", {"X.dim": "8"}, 8),
        ("3", {"X": np.int64(4)}, 4),
        ("(1, 2)", {"X": range(2)}, (0, 1)),
        ("{'a': 1}", {"X": {"a": 2}}, {"a": 2}),
    ],
)
def test_a_value_is_read_as_the_type_of_the_constant(
    old: str, given: object, new: object, folder: Path
) -> None:
    """And `Y = X`, below it in the module, is the same."""
    text = "import numpy as np\nfrom causal_sgd import Experiment\n"
    (folder / "tiny.py").write_text(text + TINY + f"X: object = {old}\nY = X\n")
    constants = given if isinstance(given, dict) else {"X": given}
    study = studies.load("./tiny.py", constants=constants)
    value = vars(study)["Y"]
    value = value.dim if "X.dim" in constants else value
    assert type(value) is type(new)
    np.testing.assert_array_equal(value, new)


def test_names_of_results_differ_where_values_do(folder: Path) -> None:
    """Also where a value is long, or has characters that files may not have."""
    values = ("a/b", "a_b", "a b", "x" * 300, "x" * 301)
    names = [select("./tiny.py", {"NAME": value}).name for value in values]
    assert len(set(names)) == len(names)
    assert all(len(name) < 120 and "/" not in name for name in names)


# Built-in studies


def test_a_built_in_study_follows_a_constant_of_its_helper() -> None:
    """The study and a sibling that imports the helper see the value; the session does not."""
    before = studies.load("max-learning-rate")
    study = studies.load("max-learning-rate", constants={"SPREADS": (0.0, 1.0, 3.0)})
    assert vars(study)["SPREADS"] == (0.0, 1.0, 3.0)
    assert vars(study)["draw_diagram"].__globals__["SPREADS"] == (0.0, 1.0, 3.0)
    assert studies.load("max-learning-rate") is before
    helper = importlib.import_module("causal_sgd.studies.sensing._learning_rate")
    assert helper.SPREADS == vars(before)["SPREADS"] != (0.0, 1.0, 3.0)
    assert importlib.import_module("causal_sgd.studies.sensing")._learning_rate is helper
    refused = "max-learning-rate with SPREADS=1 cannot be imported: ValueError: zip"
    with pytest.raises(ValueError, match=refused):  # the claims are for three spreads
        studies.load("max-learning-rate", constants={"SPREADS": "1"})


@pytest.mark.parametrize("name", studies.NAMES[::8])
def test_built_in_studies_state_constants_that_can_be_set(name: str) -> None:
    """Each to its own value, so that nothing changes but the name of the results."""
    constants = {constant.name: constant.value for constant in select(name).settable()}
    study = studies.load(name, constants=constants)
    assert study.CLAIMS.keys() == studies.load(name).CLAIMS.keys()
    assert constants


# Python


def test_a_study_returns_objects_in_python(folder: Path) -> None:
    """Datasets, verdicts, figure and paths; by path, module name and module."""
    found = studies.reproduce("tiny.py", out="out")
    assert found.verdicts["size"].holds
    assert found.data["runs"].m.sizes == {"seed": 4}
    assert found.figure.get_size_inches().tolist() == [1, 1]
    assert sorted(found.paths) == ["csv", "pdf", "png", "results"]
    assert all(path.exists() for path in found.paths.values())
    assert not found.reused
    assert studies.reproduce("tiny", out="out").reused
    assert studies.reproduce(folder / "tiny.py", out="out").reused
    other = studies.reproduce("tiny.py", out="out", constants={"SIZE": 1})
    assert (other.name, other.verdicts["size"].measured) == ("tiny[SIZE=1]", 2)


def test_an_edit_counts_at_once_in_the_study_and_its_helpers(folder: Path, undrawn) -> None:
    """Also within the same second, and where the size of the file stays."""
    assert studies.reproduce("tiny.py").verdicts["size"].measured == 4
    (folder / "tiny_helper.py").write_text(HELPER.replace("1.0", "2.0"))
    again = studies.reproduce("tiny.py")
    assert (again.reused, again.verdicts["size"].measured) == (False, 8)
    (folder / "tiny_helper.py").write_text("# Why.\n" + HELPER.replace("1.0", "2.0"))
    assert studies.reproduce("tiny.py").reused
    (folder / "tiny.py").write_text(TINY.replace("SIZE = 2", "SIZE = 3"))
    assert studies.reproduce("tiny.py").verdicts["size"].measured == 12


def test_an_edit_while_earlier_studies_run_is_what_runs(folder: Path, undrawn) -> None:
    """What is computed is what the cache says that it is."""
    selected = select("./tiny.py", {"RATE": 2})
    (folder / "tiny_helper.py").write_text(HELPER.replace("1.0", "2.0"))
    (one,) = outcomes([selected], Path("out"))
    assert one.verdicts["size"].measured == 8
    assert studies.reproduce("tiny.py", constants={"RATE": 2}, out="out").reused


def test_a_module_of_a_package_may_import_its_siblings(folder: Path, undrawn) -> None:
    """By module, by path and as a module object, with relative imports."""
    package = folder / "kit"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tiny_helper.py").write_text(HELPER.replace("1.0", "5.0"))
    text = TINY.replace("from tiny_helper", "from .tiny_helper")
    (package / "study_one.py").write_text(text)
    assert studies.reproduce("kit.study_one").verdicts["size"].measured == 20
    assert studies.reproduce("kit/study_one.py").reused
    (package / "tiny_helper.py").write_text(HELPER.replace("1.0", "6.0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        module = importlib.import_module("kit.study_one")
    try:
        assert studies.reproduce(module).verdicts["size"].measured == 24
        assert sys.modules["kit.study_one"] is module
    finally:
        for name in ("kit", "kit.study_one"):
            sys.modules.pop(name)


def test_helpers_of_one_name_in_two_folders_are_kept_apart(folder: Path) -> None:
    """Each study has its own, whichever was loaded last."""
    other = folder / "inner"
    other.mkdir()
    (other / "tiny_two.py").write_text(TINY)
    (other / "tiny_helper.py").write_text(HELPER.replace("1.0", "7.0"))
    first, second = studies.load("tiny.py"), studies.load("inner/tiny_two.py")
    for study, sum in ((first, 4), (second, 28), (first, 4)):
        assert study.measure(study.run(quick=True, key=0, progress=None)) == {"size": sum}


def test_what_has_no_file_is_refused(folder: Path) -> None:
    """The message says what a notebook does instead."""
    with pytest.raises(ValueError, match="%%writefile my_study.py"):
        studies.load(type(sys)("unsaved"))
    with pytest.raises(ValueError, match="its code must be in a file"):
        studies.load(type("Mine", (), {}))  # pyright: ignore[reportArgumentType]
