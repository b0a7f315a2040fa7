"""Flows on a schedule: one process that runs `features` or `refresh` when it is time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.extract.request import require_addresses, with_store
from flows.names import label, named
from flows.notices import notice
from flows.settings.features import FeaturesSettings
from flows.settings.refresh import RefreshSettings, resolved
from pipeline.errors import ConfigError
from pipeline.features.catalog.remote import is_remote

_SHOWN = 3

Served = FeaturesSettings | RefreshSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When runs are due: by a cron line in a time zone, or every `interval` seconds."""

    cron: str = ""
    interval: float = 0.0
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.interval):
            raise ConfigError(
                f"cron is {self.cron!r} and interval {self.interval:g}: give one of them, e.g. "
                'CRON="0 2 * * *" or INTERVAL=3600'
            )

    def next_runs(self) -> list[datetime]:
        """When the next three runs are due. Raises `ConfigError` for a cron line without a meaning."""
        from prefect.server.schemas.schedules import CronSchedule

        now = datetime.now(UTC)
        if not self.cron:
            step = timedelta(seconds=self.interval)
            return [now + step * i for i in range(1, _SHOWN + 1)]
        try:
            dates = CronSchedule(cron=self.cron, timezone=self.timezone)
            return list(asyncio.run(dates.get_dates(_SHOWN, start=now)))
        except ValueError as error:
            lines = str(error).splitlines()
            reason = lines[-2 if len(lines) > 1 else 0].split(" [type")[0].strip()
            raise ConfigError(
                f"cron {self.cron!r} in timezone {self.timezone!r} is not understood "
                f"({reason}): write five fields, e.g. 0 2 * * *"
            ) from None

    def to_prefect(self) -> Any:
        """The same as a schedule of Prefect's."""
        from prefect.schedules import Cron, Interval

        if self.cron:
            return Cron(self.cron, timezone=self.timezone)
        return Interval(timedelta(seconds=self.interval))


def served(settings: Served) -> Served:
    """The settings of the flow's scheduled runs.

    Paths are absolute, for a run has no current folder of its own; a run that finds another on its
    store skips. Raises `ConfigError` if no clips are named, or the workers could not reach them.
    """
    if isinstance(settings, RefreshSettings):
        settings = resolved(settings)
    if not settings.videos:
        raise ConfigError("videos is empty: say which clips the schedule is for (VIDEOS=…)")
    if isinstance(settings, FeaturesSettings):
        settings = replace(with_store(settings), if_busy="skip")
    else:
        settings = replace(settings, runs=os.path.abspath(settings.runs))
    settings = replace(settings, videos=_absolute(settings.videos), store=_absolute(settings.store))
    require_addresses(settings)
    return settings


def deployment_of(flow: str, settings: Served, schedule: Schedule, name: str = "") -> Any:
    """The flow with its schedule and settings (as `served` returns them), for Prefect's `serve`."""
    return flow_named(flow).to_deployment(
        name=name or named(settings.store),
        schedule=schedule.to_prefect(),
        parameters={"settings": asdict(settings)},
        description=f"{flow}: {settings.videos} → {settings.store}",
        tags=["pixels-once"],
    )


def serve(flow: str, deployment: Any, name: str = "") -> None:
    """Run what is due until Ctrl-C or SIGTERM. The schedule is not paused then: of the runs that fall
    due meanwhile the last one runs when this is started again.

    name: the deployment's, if it was asked for by name.
    """
    from flows.schedule.due import Serving
    from flows.server.run_client import patient_client
    from flows.server.settling import settle_aloud

    command = (sys.executable, "-m", "flows.schedule.scheduled", flow)
    with patient_client() as client:
        replace_earlier(client, flow, deployment, name)
        deployment_id = deployment.apply()
        settle_aloud(client)
        Serving(client, deployment_id, lambda run: (*command, str(run))).run()


def replace_earlier(client: Any, flow: str, deployment: Any, name: str = "") -> None:
    """Report a deployment that had this name for another store; pause that of an earlier version.

    Deployments used to be named after the last part of the store's address alone.
    """
    from prefect.exceptions import ObjectNotFound

    store = deployment.parameters["settings"]["store"]
    with contextlib.suppress(ObjectNotFound):
        old = client.read_deployment_by_name(f"{flow}/{deployment.name}")
        was = _store_of(old)
        if was and was != store:
            notice(
                f"{flow}/{deployment.name} has been the schedule of {was} and is that of "
                f"{store} from now on; another --name keeps both"
            )
    with contextlib.suppress(ObjectNotFound):
        old = client.read_deployment_by_name(f"{flow}/{label(store)}")
        if name != old.name and _store_of(old) == store and not old.paused:
            client.pause_deployment(old.id)
            notice(
                f"{flow}/{old.name} of an earlier version is paused: "
                f"{flow}/{deployment.name} takes its place"
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
