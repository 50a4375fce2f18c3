"""Every study keeps the protocol of `causal_sgd.studies`; those that compute something are slow."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest

from causal_sgd import studies
from causal_sgd.reproduction.running import outcomes
from causal_sgd.reproduction.sources import fingerprint

MODULES = {path.stem.replace("_", "-"): path for path in Path(studies.__path__[0]).glob("[!_]*.py")}


def test_every_module_is_a_study_that_is_run() -> None:
    assert set(studies.NAMES) == set(MODULES)
    assert len(set(studies.NAMES)) == len(studies.NAMES)
    assert set(studies.CORE) <= set(studies.NAMES)


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_study_says_what_it_finds_and_claims(name: str) -> None:
    study = studies.load(name)
    first, _, rest = inspect.cleandoc(study.__doc__ or "").partition("\n\n")
    assert first.endswith("."), "the first line is a sentence that says what the study shows"
    assert "\n" not in first
    assert len(rest) > 80, "the docstring tells the finding in a few sentences"
    for function in (study.run, study.measure, study.figure):
        assert inspect.getdoc(function), f"{function.__name__} has a docstring that people read"
    assert study.CLAIMS
    for short, claim in study.CLAIMS.items():
        assert claim.text.strip(), short
        assert claim.source.strip(), short
        assert claim.low <= claim.high, short  # NaN fails too
        assert math.isfinite(claim.low) or math.isfinite(claim.high), f"{short} excludes nothing"
        assert claim.low < math.inf, short
        assert claim.high > -math.inf, short
    texts = [claim.text for claim in study.CLAIMS.values()]
    assert len(set(texts)) == len(texts), "two claims read the same"


@pytest.mark.parametrize("name", studies.NAMES)
def test_a_study_has_the_functions_of_the_protocol(name: str) -> None:
    study = studies.load(name)
    run = inspect.signature(study.run).parameters
    assert {short: parameter.default for short, parameter in run.items()} == {
        "quick": False,
        "key": 0,
        "progress": None,
    }
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in run.values())
    assert list(inspect.signature(study.measure).parameters) == ["data"]
    assert list(inspect.signature(study.figure).parameters) == ["data"]


def test_the_source_that_a_run_reaches_differs_between_studies() -> None:
    assert len({fingerprint(path, "run") for path in MODULES.values()}) == len(MODULES)


@pytest.mark.slow
@pytest.mark.parametrize("name", studies.NAMES)
def test_a_quick_run_measures_every_claim_and_draws(name: str, tmp_path: Path) -> None:
    (outcome,) = outcomes([name], tmp_path, quick=True, progress=False)
    assert outcome.error is None
    assert list(outcome.verdicts) == list(studies.load(name).CLAIMS)
    assert not any(math.isnan(verdict.measured) for verdict in outcome.verdicts.values())
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    (again,) = outcomes([name], tmp_path, quick=True, progress=False)  # from the disk: the same to the last bit
    assert again.reused
    assert again.verdicts == outcome.verdicts
    assert again.drawing == outcome.drawing


def test_claims_are_held_against_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.load("small-batch")
    claims = {"a": studies.Claim("a", 0, 1, "here"), "b": studies.Claim("b", 0, math.inf, "here")}
    monkeypatch.setattr(study, "CLAIMS", claims)
    monkeypatch.setattr(study, "measure", lambda data: {"b": math.nan, "a": 1})
    assert [verdict.holds for verdict in studies.verdicts(study, {})] == [True, False]
    monkeypatch.setattr(study, "measure", lambda data: {"a": 1})
    with pytest.raises(RuntimeError, match=r"must measure \['a', 'b'\], got \['a'\]"):
        studies.verdicts(study, {})


def test_an_interval_in_words() -> None:
    assert studies.Claim("", 0.85, 1.15, "").interval == "0.85 to 1.15"
    assert studies.Claim("", 2, math.inf, "").interval == "at least 2"
    assert studies.Claim("", -math.inf, -1.5, "").interval == "at most -1.5"
