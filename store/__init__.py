"""Masked feature sequences of clips in one Zarr group: format version 1, writer, reader, checks.

`open` reads; `create`, `Writer` and `write_batch` are what a run calls.
"""

from store.arrays import exists
from store.chunks import read_batch, read_previews, row_digests, write_batch, write_previews
from store.creation import create
from store.errors import (
    LeaseLost,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreMismatch,
    StoreNotFound,
    StorePacked,
    StoreTooNew,
    StoreUnwritable,
    StoreWarning,
)
from store.files import FileSequence
from store.layout import (
    COLUMNS,
    FAILED,
    FORMAT,
    FORMAT_VERSION,
    GONE,
    PENDING,
    READY,
    STATUS_NAMES,
    Layout,
)
from store.lease import holder
from store.liveness import Holder
from store.packing import pack, read_datasheet, unpack
from store.reader import Store
from store.reader import Store as open
from store.sequences import Sequences
from store.shards import Shards, open_all, stores_of
from store.verify import Report, repair, verify
from store.writer import Writer, add_test_set
