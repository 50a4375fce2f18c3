"""Repair a store: restore what has a copy, recover what is valid, mark the rest as missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps.store._arrays import Array, DamagedChunk, checksum
from causal_sgd.sweeps.store._conversion import convert_store
from causal_sgd.sweeps.store._disk import Store
from causal_sgd.sweeps.store._exported import coordinates, status_array
from causal_sgd.sweeps.store._files import Files, files_at
from causal_sgd.sweeps.store._header import Header, put_header, restore_header
from causal_sgd.sweeps.store._journal import DONE, decode_records, encode_rows
from causal_sgd.sweeps.store._journal_ledger import INPUTS, JOURNAL, JournalLedger, packed_rows
from causal_sgd.sweeps.store._rows import merged

__all__ = ["repair"]


def repair(path: str | Path, *, convert: bool = False) -> dict[int | str, str]:
    """Repair a store, and mark damaged units as missing, so that the same sweep recomputes them.

    A lost, altered or older header is restored from its copy. Results that the header does not know
    are recovered. The files for other readers are rewritten.

    Args:
        path: of the store, or its URL.
        convert: whether to convert a store of format 1 or 2 to format 3, in place; its results
            stay where they are. Otherwise it keeps its format.

    Returns:
        Unit or file -> what was wrong.

    Raises:
        StoreError: if there is no store, or it cannot be written or repaired.
    """
    checks.flags(convert=convert)
    faults: dict[int | str, str] = {}
    if fault := restore_header(files_at(checks.place("path", path))):
        faults["zarr.json"] = fault
    store = Store(path, lenient=True)
    files = store._files  # which hold the right to write
    with store.mending():
        ledger = store._ledger
        units = store.faults()
        if isinstance(ledger, JournalLedger):
            faults |= {place: fault for place, fault in units.items() if isinstance(place, str)}
            _mend_inputs(files, ledger)
            _mend_journal(files, ledger)
            _take_back(files, ledger)
            units = store.faults()
        faults |= units
        ledger.void([unit for unit in units if isinstance(unit, int)])
        store._ledger.export()
        if convert and store.format_version < 3:
            convert_store(store)
    return faults


def _mend_inputs(files: Files, ledger: JournalLedger) -> None:
    """Restore the inputs from the coordinates; else keep those for which a record vouches."""
    if INPUTS not in ledger.faults:
        return
    header = ledger.header
    content = _inputs_of_coordinates(files, ledger)
    if content is None:
        vouched = np.repeat(ledger.closed, len(ledger.asked) // max(len(ledger.closed), 1))
        columns = tuple(np.where(vouched, column, 0) for column in ledger.table.columns)
        columns = tuple(
            column.astype(own.dtype)
            for column, own in zip(columns, ledger.table.columns, strict=True)
        )
        content = packed_rows(header, columns, ledger.asked & vouched, len(vouched))
    files.put_log(INPUTS, content)
    ledger.load(put_header(files, {**header, "inputs_crc32c": checksum(content)}))


def _inputs_of_coordinates(files: Files, ledger: JournalLedger) -> bytes | None:
    """The inputs as the coordinates for other readers tell them; None if these are damaged."""
    header, rows = ledger.header, len(ledger.asked)
    described = coordinates(header, ledger.table.columns, ledger.asked)
    columns = [_values(files, array, rows) for array, _ in described[:-1]]  # without the steps
    seeds, *values = columns
    if seeds is None or any(column is None for column in values):
        return None
    filled = seeds >= 0
    # Padding has copies of the last run of its tile.
    tiles = np.where(filled, seeds, 0).reshape(-1, header["tile"])
    last = header["tile"] - 1 - np.argmax(filled.reshape(tiles.shape)[:, ::-1], axis=1)
    padding = np.repeat(tiles[np.arange(len(tiles)), last], header["tile"])
    restored = np.where(filled, seeds, padding).astype(np.uint32)
    own = [column.dtype for column in ledger.table.columns[1:]]
    typed = [
        column.astype(kind) for column, kind in zip(values, own, strict=True) if column is not None
    ]
    content = packed_rows(header, (restored, *typed), filled, rows)
    return content if checksum(content) == header.get("inputs_crc32c") else None


def _values(files: Files, array: Array, length: int) -> np.ndarray | None:
    """The values of an array on disk; None if they are damaged."""
    blocks = []
    for content in files.get_each(map(array.chunk, range(-(-length // array.rows)))):
        try:
            blocks.append(array.decode(content or b""))
        except DamagedChunk:
            return None
    return np.concatenate(blocks)[:length] if blocks else np.zeros(0, array.kind)


def _mend_journal(files: Files, ledger: JournalLedger) -> None:
    """Leave damaged records out of the journal; restore a lost one from the exported status."""
    if not any(isinstance(name, str) and name.startswith(JOURNAL) for name in ledger.faults):
        return
    names = list(ledger.arrays)
    records, _, _ = decode_records(files.read_log(JOURNAL), len(names))
    if not len(records):
        status = _values(files, status_array(names), len(ledger.closed))
        if status is not None:
            records = status[status[:, 1] == DONE]
    files.put_log(JOURNAL, encode_rows(records))
    ledger.load(ledger.header)
    if not len(records):
        ledger.void(
            range(min(len(ledger.closed), 1))
        )  # a journal without any record would be a lost one


def _take_back(files: Files, ledger: JournalLedger) -> None:
    """Recover units that the header does not know, if their records and inputs are valid.

    This is needed after an older zarr.json and an older copy of it came back.
    """
    if not len(ledger.orphans) or ledger.header.get("tiles_per_unit") is None:
        return
    content = files.read_log(INPUTS)
    unit_rows = ledger.tiles_per_unit * ledger.header["tile"]
    size = len(packed_rows(ledger.header, _none(ledger), np.zeros(0, bool), unit_rows))
    units = len(content) // size
    header: Header = {
        **ledger.header,
        "rows": units * unit_rows,
        "inputs_crc32c": checksum(content[: units * size]),
    }
    known = len(ledger.closed)
    ledger.load(header)
    # Rows without a record that vouches for them hold no run.
    new = np.repeat(ledger.closed & (np.arange(units) >= known), unit_rows)
    old = np.arange(len(new)) < known * unit_rows
    filled = ledger.asked & (new | old)
    taken = packed_rows(header, ledger.table.columns, filled, len(filled))
    files.put_log(INPUTS, taken)
    requests = [Grid.parse(each) for each in header["requests"]]
    runs = tuple(column[new & ledger.table.filled] for column in ledger.table.columns)
    for grid in _grids(ledger, runs):
        requests = merged(requests, grid, header["parameters"])
    described = [grid.describe() for grid in requests]
    ledger.load(
        put_header(files, {**header, "inputs_crc32c": checksum(taken), "requests": described})
    )


def _none(ledger: JournalLedger) -> Columns:
    return tuple(column[:0] for column in ledger.table.columns)


def _grids(ledger: JournalLedger, runs: Columns) -> list[Grid]:
    """Grids of some runs, at least one for each seed."""
    names = sorted(ledger.header["parameters"])
    grids = []
    for seed in np.unique(runs[0]):
        columns = [column[runs[0] == seed] for column in runs[1:]]
        values = [np.unique(column) for column in columns]
        axes = {name: {name: each} for name, each in zip(names, values, strict=True)}
        if np.prod([len(each) for each in values]) != len(np.unique(np.stack(columns), axis=1).T):
            axes = {"point": dict(zip(names, columns, strict=True))}
        grids.append(Grid(axes if names else {}, np.array([seed], np.int64)))
    return grids
