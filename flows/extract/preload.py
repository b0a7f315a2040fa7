"""What a worker of a local cluster imports before it takes part (Dask's `preload`).

Its first batch would otherwise wait for Prefect's import, and the worker's event loop with it.
"""

from flows.imports import collection_paused

with collection_paused():
    import flows.extract.batches
    import flows.extract.worker_checks  # noqa: F401
