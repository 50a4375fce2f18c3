"""Reproduce studies: run or reuse them, check their claims, write the report."""

from __future__ import annotations

from causal_sgd.studies.reproduction._claims import claims_csv, claims_table, described
from causal_sgd.studies.reproduction._reports import report
from causal_sgd.studies.reproduction._running import Outcome, outcomes, pending, saved
from causal_sgd.studies.reproduction._side_by_side import default_jobs
from causal_sgd.studies.reproduction._times import Time, duration, time_of

__all__ = [
    "Outcome",
    "Time",
    "claims_csv",
    "claims_table",
    "default_jobs",
    "described",
    "duration",
    "outcomes",
    "pending",
    "report",
    "saved",
    "time_of",
]
