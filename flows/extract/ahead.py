"""What a run starts while its Prefect server starts: its workers, their CNN, its own imports."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import store
from flows.extract.each_store import each_store
from flows.extract.request import stage_of
from flows.imports import collection_paused
from flows.settings.features import FeaturesSettings
from pipeline.errors import PixelsError
from pipeline.features.stage import Stage


def start(settings: FeaturesSettings, api_url: str, until: contextlib.ExitStack) -> None:
    """Start the workers of a run on this machine, and import its flow meanwhile.

    settings: as `checked` returns them, of a run that has work. api_url: of its Prefect server, which
    may still be starting. until: ends the workers when it closes, if the flow has not taken them over.
    What goes wrong here goes wrong again in the flow, which reports it.
    """
    with collection_paused():
        if not (settings.scheduler or settings.cluster):
            stages = _stages(settings)
            from flows.extract.cluster import workers_ahead

            def load_cnn(cluster: Any) -> None:
                import distributed

                if stages:
                    with distributed.Client(cluster, set_as_default=False) as client:
                        client.run(load_in_worker, stages)

            until.enter_context(workers_ahead(settings, api_url, then=load_cnn))
        for module in ("flows.extract.flow", "flows.extract.passes"):
            importlib.import_module(module)


def load_in_worker(stages: tuple[Stage, ...]) -> None:
    """Begin to load first stages in this worker process."""
    from flows.extract.batches import load_ahead

    load_ahead(stages)


def _stages(settings: FeaturesSettings) -> tuple[Stage, ...]:
    """The run's first stages; () where the flow has to find out what they are, or which are needed."""
    try:
        requests = each_store(settings).values()
        opened = [store.open(each.store) if store.exists(each.store) else None for each in requests]
        if len(opened) > 1 and any(each is not None for each in opened):
            return ()  # of stores that are there, some may lack nothing
        each = zip(requests, opened, strict=True)
        return tuple(stage_of(its, existing, download=False)[1] for its, existing in each)
    except (PixelsError, OSError):
        return ()
