"""The pages of the atlas: one for each study, from its docstrings and from what is kept of it."""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from causal_sgd import studies
from causal_sgd.studies import Verdict
from causal_sgd.studies.reproduction import claims_csv, duration

import keep_results  # isort: skip  (of this folder, as is the next)
from _parts import parts_of  # isort: skip

__all__ = ["atlas"]

NONE = "\N{EN DASH}"
HOLDS, FAILS = "[✓ holds]{.holds}", "[✗ fails]{.fails}"


def atlas(folder: Path) -> None:
    """Write the index with all figures, a page for each question, and a page for each study."""
    kept = keep_results.kept()
    verdicts = {
        name: keep_results.measured(kept[name], name) if name in kept else {}
        for name in studies.NAMES
    }
    (folder / "claims.csv").write_text(claims_csv(verdicts), "utf-8")
    (folder / "index.md").write_text("\n".join(index(kept, verdicts)), "utf-8")
    for question, names in studies.QUESTIONS.items():
        page = question_page(question, names, kept, verdicts)
        (folder / f"{slug(question)}.md").write_text("\n".join(page), "utf-8")
    for name in studies.NAMES:
        page = study_page(name, kept.get(name), verdicts[name])
        (folder / f"{name}.md").write_text("\n".join(page), "utf-8")
        if verdicts[name]:
            values = claims_csv({name: verdicts[name]})
            (folder / f"{name}-claims.csv").write_text(values, "utf-8")
    for image in (Path(keep_results.__file__).parent / "kept").glob("*.webp"):
        shutil.copy2(image, folder / image.name)


def slug(question: str) -> str:
    """The file of a question's page: `what-is-learned`."""
    return question.lower().rstrip("?").replace(" ", "-")


def index(kept: Mapping[str, Any], verdicts: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
    """The first page: totals, failed claims, and all figures by question."""
    judged = [one for each in verdicts.values() for one in each.values() if one.claim.judged]
    found = sum(not one.claim.judged for each in verdicts.values() for one in each.values())
    page = [
        "# The atlas",
        "",
        "Every study of the package by the question that it answers, surprising answers first.",
        "A study states claims, each with the interval in which a measured number must lie, from",
        "theory or from the literature; `causal-sgd reproduce --all` simulates and judges them.",
        "",
        f"**{sum(bool(one.holds) for one in judged)} of {len(judged)} claims hold** in the results",
        f"kept here, of {len(kept)} of {len(studies.NAMES)} studies at full size; {found} further",
        "numbers are findings, reported and not judged.",
        "[How these results were made](#how-these-results-were-made).",
        "All measured values, intervals and sources: {download}`claims.csv <claims.csv>`.",
        "",
    ]
    failed = [
        (name, one)
        for name, each in verdicts.items()
        for one in each.values()
        if one.holds is False
    ]
    if failed:
        page += ["## Claims that fail", "", "| study | claim | measured | interval |"]
        page += ["|---|---|---|---|"]
        for name, one in failed:
            cells = cell(one.claim.text), number(one.measured), one.claim.interval
            page += [f"| [{name}]({name}.md) | {' | '.join(cells)} |"]
        page += [""]
    for question, names in studies.QUESTIONS.items():
        page += [f"## {question}", "", "::::::{container} gallery"]
        for name in names:
            page += card(name, verdicts[name], name in kept)
        page += ["::::::", ""]
    toctree = [slug(question) for question in studies.QUESTIONS]
    return [*page, *provenance(kept), "```{toctree}", ":hidden:", "", *toctree, "```", ""]


def card(name: str, verdicts: Mapping[str, Verdict], drawn: bool) -> list[str]:
    """A study in the gallery: its figure, its name with verdicts, its finding."""
    picture = f"![The figure of {name}]({name}.webp)" if drawn else "no figure kept"
    title = escaped(studies.title(studies.load(name)))
    return [
        ":::::{container} card",
        f"[{picture}]({name}.md)",
        "",
        f"**[{name}]({name}.md)** {score(verdicts)}",
        "",
        title,
        ":::::",
    ]


def score(verdicts: Mapping[str, Verdict]) -> str:
    """How many claims hold; nothing where none was judged."""
    judged = [one for one in verdicts.values() if one.claim.judged]
    good = sum(bool(one.holds) for one in judged)
    if not judged:
        return ""
    mark, kind = ("✓", "holds") if good == len(judged) else ("✗", "fails")
    return f"[{mark} {good} of {len(judged)}]{{.{kind}}}"


def provenance(kept: Mapping[str, Any]) -> list[str]:
    """How the kept results were made."""
    page = ["## How these results were made", ""]
    if kept:
        versions = sorted(
            {f"causal_sgd {each['versions']['causal_sgd']}" for each in kept.values()}
        )
        machines = sorted({each["machine"] for each in kept.values()})
        days = sorted({each["finished"][:10] for each in kept.values()})
        total = sum(each["seconds"] for each in kept.values())
        page += [f"By {', '.join(versions)} on {', '.join(machines)}, "]
        page += [f"{days[0]} to {days[-1]}" if len(days) > 1 else f"{days[0]}"]
        page += [f", at full size with seed 0, in {duration(total)} of simulation."]
        if any(each["shared"] for each in kept.values()):
            page += ["Other work ran on the same cores, so that times are upper bounds."]
    missing = [name for name in studies.NAMES if name not in kept]
    if missing:
        page += ["", "No results are kept of " + ", ".join(f"`{name}`" for name in missing) + "."]
    page += [
        "",
        "To keep them again:",
        "",
        "    causal-sgd reproduce --all --out figures",
        "    python docs/keep_results.py figures",
        "",
    ]
    return page


def question_page(
    question: str,
    names: Sequence[str],
    kept: Mapping[str, Any],
    verdicts: Mapping[str, Mapping[str, Verdict]],
) -> list[str]:
    """The studies of a question in a table, and in the site's navigation."""
    page = [f"# {question}", "", "| study | finding | claims | time |", "|---|---|---|---|"]
    for name in names:
        time = duration(kept[name]["seconds"]).replace(" ", "&nbsp;") if name in kept else NONE
        finding = cell(studies.title(studies.load(name)))
        page += [f"| [{name}]({name}.md) | {finding} | {score(verdicts[name])} | {time} |"]
    return [*page, "", "```{toctree}", ":hidden:", "", *names, "```", ""]


def study_page(
    name: str, entry: Mapping[str, Any] | None, verdicts: Mapping[str, Verdict]
) -> list[str]:
    """The page of one study."""
    study = studies.load(name)
    title, _, finding = inspect.cleandoc(study.__doc__ or "").partition("\n")
    page = [f"# {name}", "", f"**{escaped(title)}**", ""]
    caption = escaped(" ".join(inspect.cleandoc(study.figure.__doc__ or "").split()))
    if entry is not None:
        page += [f"```{{figure}} {name}.webp", f":alt: The figure of the study {name}"]
        page += [f":width: {entry['width']}px", f":target: ../_images/{name}.webp", ""]
        page += [caption, "```", ""]
    else:
        page += ["No results of this study are kept: no figure and no measured number.", ""]
    page += [escaped(finding.strip()), "", *claims(study, entry, verdicts)]
    page += values(name) if verdicts else []
    return [*page, *computed(name, study, entry), *parts(name)]


def claims(
    study: studies.Study, entry: Mapping[str, Any] | None, verdicts: Mapping[str, Verdict]
) -> list[str]:
    """The claims with verdicts and measured numbers, and the findings."""
    none = {short: Verdict(claim, math.nan) for short, claim in study.CLAIMS.items()}
    judged = [one for one in (verdicts or none).values() if one.claim.judged]
    findings = [one for one in (verdicts or none).values() if not one.claim.judged]
    page = ["## Claims", ""]
    if entry is not None and not verdicts:
        page += ["Claims were renamed since the results were kept.", ""]
    if judged and verdicts:
        good = sum(bool(one.holds) for one in judged)
        page += [f"{good} of {len(judged)} hold, at full size with seed {entry['seed']}.", ""]  # pyright: ignore[reportOptionalSubscript]
    if judged:
        page += ["| verdict | claim | measured | interval |", "|---|---|---|---|"]
        for one in judged:
            verdict = "" if not verdicts else HOLDS if one.holds else FAILS
            value = number(one.measured) if verdicts else NONE
            text = f"{cell(one.claim.text)} [({cell(one.claim.source)})]{{.source}}"
            page += [f"| {verdict} | {text} | {value} | {one.claim.interval} |"]
        page += [""]
    if findings:
        page += ["Measured and reported, not judged:", "", "| finding | measured |", "|---|---|"]
        for one in findings:
            value = number(one.measured) if verdicts else NONE
            page += [f"| {cell(one.claim.text)} | {value} |"]
        page += [""]
    return page


def values(name: str) -> list[str]:
    """The measured values as a file, and the command that writes the plotted ones."""
    return [
        f"These values as a table: {{download}}`{name}-claims.csv <{name}-claims.csv>`.",
        f"The plotted numbers are too many for this site: `causal-sgd reproduce {name}`",
        f"writes them to `figures/{name}.csv`, with quantiles over seeds.",
        "",
    ]


def computed(name: str, study: studies.Study, entry: Mapping[str, Any] | None) -> list[str]:
    """The command, what it computes, its runs and seeds, and the time."""
    page = ["## Repeat it", "", f"    causal-sgd reproduce {name}", ""]
    needed = studies.requirements(study)
    if needed:
        install = f"causal_sgd[{','.join(sorted(set(needed.values())))}]"
        page += [f"It needs {' and '.join(needed)}: `pip install '{install}'`.", ""]
    if text := inspect.cleandoc(study.run.__doc__ or ""):
        page += [escaped(text), ""]
    if entry is None:
        return page
    bound = "at most " if entry["shared"] else ""
    software = f"causal_sgd {entry['versions']['causal_sgd']}, jax {entry['versions']['jax']}"
    when = f"{entry['finished'][:10]}"
    page += [f"{bound.capitalize()}{duration(entry['seconds'])} on {entry['machine']},"]
    page += [f"by {software}, {when}"]
    page += [f"(commit `{entry['commit'][:12]}`)." if entry["commit"] else "."]
    page += ["", "| data | grid | seeds | runs | diverged |", "|---|---|---|---|---|"]
    for data in entry["data"]:
        grid = "; ".join(
            f"{axis.replace('_', ' ')} {cell(values)}" for axis, values in data["axes"].items()
        )
        diverged = NONE if data["diverged"] is None else data["diverged"]
        label = data["name"].replace("_", " ")
        page += [f"| {label} | {grid or NONE} | {data['seeds']} | {data['runs']} | {diverged} |"]
    return [*page, ""]


def parts(name: str) -> list[str]:
    """Links to the reference of what the study uses."""
    page = ["## Parts", "", "What the study uses of the package:", ""]
    for module, paths in parts_of(name).items():
        links = [f"{{py:obj}}`{path.rpartition('.')[2]} <{path}>`" for path in paths]
        page += [f"- [{module}](../reference/{module}.md): {', '.join(links)}"]
    source = f"causal_sgd/studies/{studies.system_of(name)}/{name.replace('-', '_')}.py"
    return [*page, "", f"Its module is `{source}`.", ""]


def number(value: float) -> str:
    """Four digits; infinity and not a number in words."""
    if not math.isfinite(value):
        return {"inf": "∞", "-inf": "-∞"}.get(str(value), "not a number")
    return f"{value:.4g}"


def escaped(text: str) -> str:
    """Escape what prose of docstrings holds and markup would take: A*, |u|, $, [a, b]."""
    parts = text.split("`")
    for sign in "*$<[]":
        parts[::2] = [part.replace(sign, f"\\{sign}") for part in parts[::2]]
    return "`".join(parts)


def cell(text: str) -> str:
    """Text in a cell of a table, where a bar would end the column."""
    return escaped(text).replace("|", "\\|")
