"""What a reproduction shows: the report, the table of claims, and the list with times."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import sys
from pathlib import Path

import html5lib
import pytest

from causal_sgd import studies
from causal_sgd.studies import supervised
from causal_sgd.studies.reproduction import _times
from causal_sgd.studies.reproduction._running import outcomes
from support.shell import call
from support.studies import computed, draw_nothing, one, three_studies, write

shelf, undrawn = pytest.fixture(three_studies), pytest.fixture(draw_nothing)


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
    assert "1 of 2 claims hold; 1 finding; 2 of 3 studies stopped with an error" in out
    table = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert set(table["errors"]) == {"second-one", "third-one"}
    page = (tmp_path / "out" / "report.html").read_text()
    check(page)
    start, contents = page.index('id="failed"'), page.index('id="contents"')
    assert start < contents
    first = page[start:contents]
    assert "ArithmeticError: no &lt;b&gt;numbers" in first
    assert "second-one" in first
    assert "third-one" in first
    assert re.findall(r'data-claim="(\w+)"', first) == ["open"]
    assert re.search(r'<data value="3.0"[^>]*>3</data>\s*<span class="interval">at least 9<', first)
    assert 'href="#first-one"' in first
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
    assert "6 of 6 claims hold; 3 findings; report in" in out
    assert "found       1e+09  not judged         seen & not judged" in out
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
    assert len(shown) == 9
    found = [claim for claim in table["claims"] if not claim["judged"]]
    assert [(claim["name"], claim["holds"]) for claim in found] == [("seen", None)] * 3
    tables = list(tree.iter("table"))
    names = [{node.get("data-claim") for node in part.iter("data")} for part in tables]
    assert names[1:] == [{"half", "open"}, {"seen"}] * 3, "findings stand apart"
    text = " ".join(" ".join(tree.itertext()).split())
    for phrase in (
        "6 of 6 claims hold in 3 studies",
        "3 further numbers are findings",
        "half of it & more",
        "sensing: Which?",
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
        "claims.csv",
        "claims.json",
        "report.html",
        "results",
        *(f"{name}.{kind}" for name in studies.NAMES for kind in ("png", "pdf", "csv")),
    }
    linked = {node.get("href") for node in tree.iter("a") if not node.get("href").startswith("#")}
    assert linked == {
        *("claims.csv", "claims.json"),
        *(f"results/{name}/full-0/" for name in studies.NAMES),
        *(f"{name}.{kind}" for name in studies.NAMES for kind in ("png", "pdf", "csv")),
    }
    shown = {node.get("src") for node in tree.iter("img")}
    assert shown == {f"{name}.png" for name in studies.NAMES}
    for path in linked | shown:
        assert (tmp_path / "out" / path).exists(), path
    rows = list(csv.DictReader((tmp_path / "out" / "claims.csv").open(encoding="utf-8")))
    assert [(row["study"], row["claim"], float(row["measured"])) for row in rows] == [
        (claim["study"], claim["name"], claim["measured"]) for claim in table["claims"]
    ]
    assert rows[1] | {"measured": "3"} == {
        "system": "sensing",
        "question": "Which?",
        "study": "first-one",
        "claim": "open",
        "verdict": "holds",
        "measured": "3",
        "low": "1",
        "high": "",
        "text": "open",
        "source": "theory",
    }
    assert {row["verdict"] for row in rows[2::3]} == {"finding"}


def test_reports_and_lists_group_studies_by_question(
    shelf: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(supervised, "__path__", [str(shelf / "others")])
    (shelf / "others").mkdir()
    (shelf / "third_one.py").rename(shelf / "others" / "third_one.py")
    questions = {"Which?": studies.NAMES[:2], "What?": studies.NAMES[2:]}
    monkeypatch.setattr(studies, "QUESTIONS", questions)
    arguments = ("reproduce", "--all", "--json", "--out", str(tmp_path))
    code, out, _ = call(*arguments, capsys=capsys)
    assert code == 0
    report = json.loads(out)["studies"]
    assert [study["system"] for study in report] == ["sensing", "sensing", "supervised"]
    assert [study["question"] for study in report] == ["Which?", "Which?", "What?"]
    tree = check((tmp_path / "report.html").read_text())
    rows = [next(iter(row.iter("th"))) for row in tree.iter("tr") if row.find("th") is not None]
    texts = ["".join(head.itertext()) for head in rows if head.get("scope") != "col"]
    assert [text if ":" in text else text.split()[0] for text in texts] == [
        "sensing: Which?",
        *questions["Which?"],
        "supervised: What?",
        *questions["What?"],
    ]
    sections = [node for node in tree.iter("section") if node.get("class") == "group"]
    inside = [[node.get("id") for node in section.iter("article")] for section in sections]
    assert inside == [[*questions["Which?"]], [*questions["What?"]]]
    _, out, _ = call("list", "--out", str(tmp_path), capsys=capsys)
    order = ("sensing: Which?", "* first-one", "supervised: What?", "  third-one")
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    sys.modules.pop("causal_sgd.studies.supervised.third_one", None)


def test_a_redraw_without_names_is_of_all_results_in_the_folder(
    shelf: Path, tmp_path: Path, undrawn, capsys
) -> None:
    call("reproduce", "second-one", "third-one", "--out", str(tmp_path), capsys=capsys)
    call("reproduce", "third-one", "--out", str(tmp_path), capsys=capsys)
    assert (tmp_path / "report.html").read_text().count("<article") == 1
    computed(shelf)
    code, out, _ = call("reproduce", "--redraw", "--out", str(tmp_path), capsys=capsys)
    assert (code, computed(shelf)) == (0, [])
    assert "4 of 4 claims hold" in out
    tree = check((tmp_path / "report.html").read_text())
    assert [node.get("id") for node in tree.iter("article")] == ["second-one", "third-one"]
    code, _, err = call("reproduce", "--redraw", "--out", str(tmp_path / "no"), capsys=capsys)
    assert code == 2
    assert "--redraw needs results of full size with --seed 0" in err


def test_warnings_are_told_once_in_one_line_and_in_the_report(
    shelf: Path, tmp_path: Path, undrawn, capfd, recwarn
) -> None:
    warn = 'import warnings; [warnings.warn("too <short>\\n runs") for _ in range(2)]'
    write(shelf, "first-one", trouble=warn, **{'    """It."""': f'    """It."""\n    {warn}'})
    assert list(one(tmp_path).notes) == ["too <short> runs"]
    assert list(one(tmp_path).notes) == ["too <short> runs"], "claims are measured again"
    assert call("reproduce", "--out", str(tmp_path), capsys=capfd)[1].count("short") == 1
    assert "Warning:</strong> too &lt;short&gt; runs" in (tmp_path / "report.html").read_text()
    assert not recwarn.list


def test_lines_are_broken_at_the_width_of_a_terminal_only(
    shelf: Path, tmp_path: Path, undrawn, capfd, monkeypatch
) -> None:
    long = " ".join(["long"] * 40)
    write(shelf, "first-one", **{"seen & not judged": long})
    monkeypatch.setenv("COLUMNS", "80")
    assert long in call("reproduce", "--out", str(tmp_path), capsys=capfd)[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    printed = call("reproduce", "--out", str(tmp_path), capsys=capfd)[1].splitlines()
    (first,) = (line for line in printed if line.startswith("  found"))
    assert len(first) <= 80
    assert sum("long" in line for line in printed) > 4


def test_json_is_one_object_with_claims_paths_and_errors(
    shelf: Path, tmp_path: Path, capsys
) -> None:
    write(shelf, "second-one", opened=9)
    write(shelf, "third-one", trouble="raise ArithmeticError('no numbers')")
    folder = tmp_path / "out"
    arguments = ("reproduce", "--all", "--quick", "--json", "--out", str(folder))
    code, out, _ = call(*arguments, capsys=capsys)
    assert code == 1
    report = json.loads(out)
    first, second, third = report["studies"]
    assert first["claims"] == [
        {
            "name": "half",
            "text": "half of it & more",
            "interval": "0.4 to 0.6",
            "low": 0.4,
            "high": 0.6,
            "measured": 0.5,
            "holds": True,
            "source": "theory <here>",
        },
        {
            "name": "open",
            "text": "open",
            "interval": "at least 1",
            "low": 1.0,
            "high": None,
            "measured": 3,
            "holds": True,
            "source": "theory",
        },
    ]
    assert first["findings"] == [{"name": "seen", "text": "seen & not judged", "measured": 1e9}]
    assert (first["reused"], first["outdated"], first["error"]) == (False, [], None)
    assert set(first["paths"]) == {"results", "csv", "png", "pdf"}
    for path in (*first["paths"].values(), *report["paths"].values()):
        assert Path(path).exists(), path
    assert [claim["holds"] for claim in second["claims"]] == [True, False]
    assert third["error"] == "ArithmeticError: no numbers"
    assert (third["claims"], third["paths"], third["seconds"]) == ([], {}, None)
    assert report["totals"] | {"seconds": None} == {
        "studies": 3,
        "claims": 4,
        "holding": 3,
        "findings": 2,
        "errors": 1,
        "skipped": 0,
        "seconds": None,
    }
    assert (report["quick"], report["seed"]) == (True, 0)
    table = Path(first["paths"]["csv"])
    before = table.read_bytes()
    table.unlink()
    code, out, _ = call("reproduce", "first-one", *arguments[2:], "--redraw", capsys=capsys)
    assert code == 0
    assert json.loads(out)["studies"][0]["reused"]
    assert table.read_bytes() == before, "a redraw writes the same table"


def check(page: str):
    """Parse a page without errors; it must load figures beside it only, and be accessible."""
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    everything = list(tree.iter())
    tags = {node.tag for node in everything}
    assert not tags & {
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
                beside = re.fullmatch(r"[\w-][\w./-]*", value)
                assert beside or (node.tag == "a" and value.startswith("#")), value
                assert not value.startswith("#") or value[1:] in identifiers, value
            if name.startswith("aria-labelledby"):
                assert value in identifiers
        assert "url(" not in (node.get("style") or "")
    sheet = "".join(node.text for node in tree.iter("style"))
    assert "url(" not in sheet
    assert "@import" not in sheet
    policy = next(node.get("content") for node in tree.iter("meta") if node.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src 'self' file:;")
    (script,) = tree.iter("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|https?:", script.text)
    for image in tree.iter("img"):
        assert len(image.get("alt")) > 20
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
    lines = {line[2:].split()[0]: line for line in out.splitlines() if line[2:].split()}
    assert re.fullmatch(r"\* first-one +0\.\d s  first-one of <angles> .*", lines["first-one"])
    assert re.fullmatch(r"  second-one +61 s  second-one .*", lines["second-one"])
    assert re.fullmatch(r"  third-one +\?  third-one .*", lines["third-one"])
    assert "half of it" not in out
    code, out, _ = call("list", "second_one", "--out", str(tmp_path), capsys=capsys)
    assert "full: 61 s (elsewhere, on H100, 16 x86_64 cores)" in out
    code, out, _ = call("list", "first_one", "--out", str(tmp_path), capsys=capsys)
    assert re.search(r"full: 0\.\d s \(here on 20\d\d-\d\d-\d\d\)", out)
    assert "quick: not measured yet" in out
    assert re.search(r"0\.4 to 0\.6 +half of it & more  \(theory <here>\)", out)
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
        "source": "theory",
        "judged": True,
    }
    assert table["studies"][0]["claims"][2] == {
        "name": "seen",
        "text": "seen & not judged",
        "low": None,
        "high": None,
        "source": "this study",
        "judged": False,
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
