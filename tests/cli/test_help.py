"""Help fits on a screen, names real flags, and is whole with --help-all."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from causal_sgd import cli, studies
from causal_sgd.cli.help import brief, flags_of
from support.shell import call, words

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "causal-sgd " in page.read_text("utf-8")
]
SCREEN = 40  # lines
PAGES = [
    "",
    *cli.COMMANDS,
    *(f"{name} {system}" for name, systems in cli.OF_SYSTEMS.items() for system in systems),
]


@pytest.fixture(autouse=True)
def columns(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("page", PAGES)
def test_help_is_one_screen_without_texts_cut_short(page: str, capsys) -> None:
    code, out, err = call(*words(page), "--help", capsys=capsys)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) <= SCREEN
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(
        r"(?m)(?<!,) \.\.\.$|(?<!,) \.\.\. \[",
        out.replace("COMMAND ...", "").replace("NAME ...", ""),
    )


@pytest.mark.parametrize("page", ["run", "phase supervised"])
def test_all_help_has_every_flag_that_the_short_one_counts(page: str, capsys) -> None:
    _, short, _ = call(*words(page), "--help", capsys=capsys)
    code, out, _ = call(*words(page), "--help-all", capsys=capsys)
    name, *system = words(page)
    flags = set(flags_of(cli.OF_SYSTEMS[name][system[0] if system else "sensing"]))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert f"All {len(flags)} flags" in short
    assert {"--" + flag.replace("_", "-") for flag in flags} <= set(
        re.findall(r"--[a-z0-9-]+", out)
    )


def test_the_examples_of_help_can_be_parsed(capsys) -> None:
    for page in PAGES:
        _, out, _ = call(*words(page), "--help", capsys=capsys)
        for line in re.findall(r"(?m)^  (causal-sgd .*)$", out.replace("\\\n", "")):
            cli._command(words(line)[1:])


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_documented_commands_have_only_flags_with_an_effect(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"(?m)^    (causal-sgd [^#\n|&>]*)", text)
    lines += re.findall(r"`(causal-sgd (?:run|phase) -[^`\n]*)`", text)
    for line in lines:
        cli._command(words(line)[1:])


def test_a_brief_ends_at_a_clause() -> None:
    text = "Write the results to this file (.csv, .nc or .zarr). A table has medians."
    assert brief(text, 80) == "Write the results to this file (.csv, .nc or .zarr)"
    assert brief(text, 40) == "Write the results to this file"
    assert brief("Seeds in each cell; with --refine, in some.", 40) == "Seeds in each cell"


def test_the_list_has_a_line_for_every_study(capsys) -> None:
    code, out, _ = call("list", capsys=capsys)
    lines = out.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    for name in studies.NAMES:
        assert sum(line[2:].startswith(f"{name} ") for line in lines) == 1, name
    places = [out.index(f"{system}: What is learned?") for system in studies.SYSTEMS]
    assert places == sorted(places)


def test_the_list_of_names_has_every_choice_and_axis(capsys) -> None:
    code, out, _ = call("list", "--names", capsys=capsys)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for name in ("low-rank-law", "learning-rate", "group-dro", "spurious-weight"):
        assert name in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_studies(shell: str, capsys) -> None:
    code, out, _ = call("--tyro-print-completion", shell, capsys=capsys)
    assert code == 0
    assert all(name in out for name in studies.NAMES)
    assert "'-h', '--help', '--help-all'" in out
    assert "'-h', '--help']" not in out, "some command does not complete --help-all"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_help_all_everywhere(capsys, tmp_path: Path) -> None:
    _, script, _ = call("--tyro-print-completion", "bash", capsys=capsys)
    (tmp_path / "script").write_text(script, "utf-8")
    for words_before in ("", "run", "run supervised", "reproduce small-batch", "doctor"):
        line = " ".join(["causal-sgd", *words(words_before), "--help-"])
        complete = (
            f"source {tmp_path}/script; COMP_WORDS=({line})",
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))",
            "_tyro_causal_sgd; echo ${COMPREPLY[@]}",
        )
        done = subprocess.run(["bash", "-c", "\n".join(complete)], capture_output=True, text=True)
        assert done.stdout.strip() == "--help-all", (words_before, done.stderr)
