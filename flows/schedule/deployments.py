"""Flows on a schedule: one process that runs `features` or `refresh` when it is time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.extract.addresses import require_places
from flows.extract.specs import with_store
from flows.names import label, named
from flows.settings import FeaturesSettings, RefreshSettings, ServeSettings
from flows.settings.refresh_flow import resolved
from flows.settings.resolve import resolve
from pipeline.errors import ConfigError
from pipeline.features.catalog.remote import is_remote

_SHOWN = 3


def served_settings(settings: ServeSettings) -> FeaturesSettings | RefreshSettings:
    """The settings of the served flow: its own file and environment, then what `serve` was given.

    Paths are made absolute, for a run stands in no particular folder; a scheduled run that finds
    another on its store skips.
    """
    given = {n: v for n in ("videos", "store", "weights") if (v := getattr(settings, n))}
    found: Any = resolve(settings.flow, given, config=settings.settings)
    if isinstance(found, RefreshSettings):
        found = resolved(found)
    if not found.videos:
        raise ConfigError("videos is empty: say which clips the schedule is for (VIDEOS=…)")
    if isinstance(found, FeaturesSettings):
        found = replace(with_store(found), if_busy="skip")
    else:
        found = replace(found, runs=os.path.abspath(found.runs))
    absolute: FeaturesSettings | RefreshSettings = replace(
        found, videos=_absolute(found.videos), store=_absolute(found.store)
    )
    require_places(store_url=absolute.store, videos=absolute.videos)
    return absolute


def deployment_of(settings: ServeSettings) -> Any:
    """The flow with its schedule and parameters, as Prefect's `serve` takes it.

    Raises `ConfigError` for a schedule that Prefect does not understand.
    """
    from prefect.schedules import Cron, Interval

    if bool(settings.cron) == bool(settings.interval):
        raise ConfigError(
            f"cron is {settings.cron!r} and interval {settings.interval:g}: give one of them, e.g. "
            'CRON="0 2 * * *" or INTERVAL=3600'
        )
    found = served_settings(settings)
    schedule: Any = (
        Cron(settings.cron, timezone=settings.timezone)
        if settings.cron
        else Interval(timedelta(seconds=settings.interval))
    )
    return flow_named(settings.flow).to_deployment(
        name=settings.name or named(found.store),
        schedule=schedule,
        parameters={"settings": asdict(found)},
        description=f"{settings.flow}: {found.videos} → {found.store}",
        tags=["pixels-once"],
    )


def next_runs(settings: ServeSettings) -> list[datetime]:
    """When the next three runs are due. Raises `ConfigError` for a cron line that has no meaning."""
    from prefect.server.schemas.schedules import CronSchedule

    now = datetime.now(UTC)
    if not settings.cron:
        step = timedelta(seconds=settings.interval)
        return [now + step * i for i in range(1, _SHOWN + 1)]
    try:
        dates = CronSchedule(cron=settings.cron, timezone=settings.timezone)
        return list(asyncio.run(dates.get_dates(_SHOWN, start=now)))
    except ValueError as error:
        said = str(error).splitlines()[-2 if "\n" in str(error) else 0].split(" [type")[0].strip()
        raise ConfigError(
            f"cron {settings.cron!r} in timezone {settings.timezone!r} is not understood "
            f"({said}): write five fields, e.g. 0 2 * * *"
        ) from None


def serve(settings: ServeSettings, deployment: Any) -> None:
    """Run what is due until Ctrl-C or SIGTERM. The schedule is not paused then: of the runs that fall
    due meanwhile the last one runs when this is started again.
    """
    from flows.schedule.due import Serving
    from flows.server.run_client import patient_client
    from flows.server.settling import settle

    command = (sys.executable, "-m", "flows.cli.scheduled", settings.flow)
    with patient_client() as client:
        say_what_it_replaces(client, settings, deployment)
        deployment_id = deployment.apply()
        with contextlib.suppress(Exception):  # the runs to come do it as well
            for name in settle(client):
                print(f"{name} had ended without saying so", file=sys.stderr)
        Serving(client, deployment_id, lambda run: (*command, str(run))).run()


def say_what_it_replaces(client: Any, settings: ServeSettings, deployment: Any) -> None:
    """Tell of a deployment that had this name for another store; pause that of an earlier version.

    Deployments used to be named after the last part of the store's address alone.
    """
    from prefect.exceptions import ObjectNotFound

    store = deployment.parameters["settings"]["store"]
    with contextlib.suppress(ObjectNotFound):
        old = client.read_deployment_by_name(f"{settings.flow}/{deployment.name}")
        was = _store_of(old)
        if was and was != store:
            print(
                f"{settings.flow}/{deployment.name} has been the schedule of {was} and is that of "
                f"{store} from now on; another --name keeps both",
                file=sys.stderr,
            )
    with contextlib.suppress(ObjectNotFound):
        old = client.read_deployment_by_name(f"{settings.flow}/{label(store)}")
        if settings.name != old.name and _store_of(old) == store and not old.paused:
            client.pause_deployment(old.id)
            print(
                f"{settings.flow}/{old.name} of an earlier version is paused: "
                f"{settings.flow}/{deployment.name} takes its place",
                file=sys.stderr,
            )


def _store_of(deployment: Any) -> str:
    settings = (deployment.parameters or {}).get("settings") or {}
    return str(settings.get("store", ""))


def flow_named(name: str) -> Any:
    """The flow that `serve` calls by this name."""
    if name == "refresh":
        from flows.train.refresh import refresh

        return refresh
    from flows.extract.flow import features

    return features


def _absolute(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))
