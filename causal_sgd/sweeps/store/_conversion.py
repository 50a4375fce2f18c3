"""Convert a store of format 1 or 2 to format 3, in place; its results stay where they are."""

from __future__ import annotations

import numpy as np

from causal_sgd.sweeps.store._arrays import checksum
from causal_sgd.sweeps.store._chunks import is_recoded
from causal_sgd.sweeps.store._disk import Store
from causal_sgd.sweeps.store._header import FORMAT_VERSION, Header, put_header
from causal_sgd.sweeps.store._journal import DONE, VOID, Record
from causal_sgd.sweeps.store._journal_ledger import INPUTS, JOURNAL, packed_rows
from causal_sgd.sweeps.store._manifest import StoreError
from causal_sgd.sweeps.store._old_ledger import OldLedger

__all__ = ["convert_store"]


def convert_store(store: Store) -> None:
    """Write the ledger of format 3 from that of an older format, then the header.

    The header decides which ledger counts, so that a process killed before it was written leaves a
    store of the older format. The store must be locked, and its damaged units marked as missing.

    Raises:
        StoreError: if an array has another layout than stores are written with.
    """
    ledger, files = store._ledger, store._files
    assert isinstance(ledger, OldLedger)
    for array in ledger.arrays.values():
        if is_recoded(files, array):
            raise StoreError(
                f"{store.path} cannot be converted: the array {array.name} has another layout than "
                "stores are written with"
            )
    old = ledger.header
    content = packed_rows(old, ledger.table.columns, ledger.asked, len(ledger.asked))
    size = len(content) // max(store.num_units, 1)
    own = int(old["configuration_hash"][:8], 16)
    records = []
    for unit in np.flatnonzero(ledger.closed).tolist():
        names = [array.chunk(unit) for array in ledger.arrays.values()]
        # Every chunk was just verified, and ends with its CRC-32C.
        sums = [int.from_bytes(files.get(name)[-4:], "little") for name in names]
        inputs = checksum(content[unit * size : (unit + 1) * size])
        environments = [ledger.environment(unit)]
        records.append(Record(unit, DONE, environments, own, [0], inputs, sums).encode())
    files.put_log(INPUTS, content)
    if store.num_units and not records:  # a journal without any record would be a lost one
        records.append(Record(0, VOID, (), own, (), 0, [0] * len(ledger.arrays)).encode())
    files.put_log(JOURNAL, b"".join(records))
    header: Header = {
        **old,
        "format_version": FORMAT_VERSION,
        "by_seed": old.get("by_seed", False),
        "tiles_per_unit": 1,
        "rows": len(ledger.asked),
        "inputs_crc32c": checksum(content),
        "chunk_separator": "/",
    }
    left = ledger.old_files()
    put_header(files, header)
    store.refresh()
    store._ledger.export()
    for name in left:
        files.remove(name)
