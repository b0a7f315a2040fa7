"""The flow `refresh`: extract what is new, retrain, compare with the accepted run, promote or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.states import Completed

from flows import accepted
from flows.artifacts import key
from flows.features import features
from flows.resolve import nearest
from flows.settings import FeaturesSettings, RefreshSettings, TrainSettings
from flows.training import (
    load_stores,
    print_epoch,
    run_page,
    store_name,
    store_warnings,
    train_config,
)
from pipeline.errors import ConfigError
from pipeline.heads.training import train

EVENT = "pixels-once.refresh"
_REMEMBERED = "refreshed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh came to. `top1` and `accepted_top1` are on the same `clips` test clips.

    outcome: promoted · refused · unchanged (nothing new: no training) · skipped (store busy).
    """

    outcome: str
    store: str
    run: str = ""
    accepted: str = ""
    top1: float = 0.0
    accepted_top1: float | None = None
    clips: int = 0
    extracted: int = 0
    failed: int = 0

    def headline(self) -> str:
        """One line that says which, and why."""
        if self.outcome == "skipped":
            return f"skipped: another run holds {self.store}"
        if self.outcome == "unchanged":
            return f"unchanged: {self.store} is as it was at the last refresh"
        new = f"{self.run} has top-1 {self.top1:.3f} on {self.clips} test clips"
        if self.accepted_top1 is None:
            return f"{self.outcome}: {new}; it is the first"
        return f"{self.outcome}: {new}, the accepted {self.accepted} {self.accepted_top1:.3f}"


@flow(name="refresh", flow_run_name="refresh {settings.store}", persist_result=False)
def refresh(settings: RefreshSettings) -> Refreshed:
    """Bring the store up to date, train the heads, and accept the best of them if it is not worse.

    The heads are judged on the test clips of the accepted run, which no new head trains on. The
    best is chosen by its validation clips. Raises `ConfigError` for a user's mistake.
    """
    logger = get_run_logger()
    runs = Path(settings.runs)
    heads = [name.strip() for name in settings.heads.split(",") if name.strip()]
    trainings = [(name, _train_settings(settings, name)) for name in heads]
    summary = features(_features_settings(settings))
    if summary.outcome == "skipped":
        skipped = Refreshed(outcome="skipped", store=settings.store)
        return Completed(name="Skipped", message=skipped.headline(), data=skipped)  # type: ignore[return-value]
    with store_warnings():
        loaded = load_stores(settings.store)
    state = accepted.state_of(loaded.clips)
    before = accepted.read(runs)
    if before is not None and _remembered(runs) == state and not settings.always:
        logger.info("nothing new since the last refresh")
        return Refreshed(outcome="unchanged", store=settings.store, accepted=before.name)
    clips, split = accepted.keep_test_clips(loaded.clips, before)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    made: list[tuple[float, float, Path, dict[str, Any]]] = []
    for name, training in trainings:
        folder = runs / f"{name}-{store_name(settings.store)}-{stamp}"
        config = train_config(replace(training, split=split or training.split))
        logger.info("training %s", folder.name)
        metrics = train(clips, config, folder, on_epoch=print_epoch, first_stage=loaded.first_stage)
        create_markdown_artifact(
            key=key("head", f"{name}-{store_name(settings.store)}"),
            markdown=run_page(folder, metrics),
            description=f"test top-1 {metrics['test']['top1']:.3f} ({folder.name})",
        )
        validation = metrics["validation"]
        made.append((validation["top1"], -validation["loss"], folder, metrics))
    best = max(made, key=lambda one: one[:2])[2]
    result = _judge(settings, loaded.clips, runs, best, before)
    result = replace(result, extracted=summary.ready, failed=summary.failed)
    _publish(result, settings, made)
    if result.outcome == "promoted":
        accepted.promote(runs, best)
    # Last: a refresh that died before is done again.
    (runs / _REMEMBERED).write_text(json.dumps({"state": state}) + "\n", encoding="utf-8")
    logger.info(result.headline())
    return result


def _judge(
    settings: RefreshSettings, clips: Any, runs: Path, best: Path, before: Path | None
) -> Refreshed:
    test = accepted.test_clips(before if before is not None else best, clips)
    top1 = accepted.top1(best, clips, test)
    old = accepted.top1(before, clips, test) if before is not None else None
    refused = old is not None and top1 < old - settings.threshold - 1e-9
    return Refreshed(
        outcome="refused" if refused else "promoted",
        store=settings.store,
        run=best.name,
        accepted="" if before is None else before.name,
        top1=top1,
        accepted_top1=old,
        clips=len(test),
    )


def _publish(
    result: Refreshed,
    settings: RefreshSettings,
    made: list[tuple[float, float, Path, dict[str, Any]]],
) -> None:
    """The difference as an artifact, and an event that automations can wait for."""
    old = result.accepted_top1
    lines = [f"# {result.headline()}", "", "| run | validation top-1 | its own test top-1 |"]
    lines += ["| --- | --- | --- |"]
    for validation, _, folder, metrics in made:
        lines.append(f"| {folder.name} | {validation:.3f} | {metrics['test']['top1']:.3f} |")
    lines += ["", f"On the same {result.clips} test clips:", "", "| | top-1 |", "| --- | --- |"]
    lines.append(f"| new: {result.run} | {result.top1:.3f} |")
    if old is not None:
        lines.append(f"| accepted: {result.accepted} | {old:.3f} |")
        lines.append(f"| difference | {result.top1 - old:+.3f} |")
    lines.append(f"| may be worse by | {settings.threshold:.3f} |")
    lines += ["", f"{result.extracted} clips were extracted, {result.failed} failed."]
    create_markdown_artifact(
        key=key("refresh", settings.store),
        markdown="\n".join(lines),
        description=result.headline(),
    )
    emit_event(
        event=f"{EVENT}.{result.outcome}",
        resource={
            "prefect.resource.id": f"pixels-once.{key('store', settings.store)}",
            "prefect.resource.name": settings.store,
        },
        payload={
            "run": result.run,
            "accepted": result.accepted,
            "top1": result.top1,
            "accepted_top1": old,
        },
    )


def _features_settings(settings: RefreshSettings) -> FeaturesSettings:
    given = {n: getattr(settings, n) for n in ("videos", "store", "weights")}
    for name in ("videos", "store"):
        if not given[name]:
            raise ConfigError(f"{name} is empty: set it in [refresh] of the config file")
    _known(settings.features, FeaturesSettings, "refresh.features")
    return FeaturesSettings(**({"if_busy": "skip"} | settings.features | given))


def _train_settings(settings: RefreshSettings, head: str) -> TrainSettings:
    from pipeline.heads.zoo import head_kind

    head_kind(head)  # an unknown head is said before hours of extraction
    own = settings.head.get(head, {})
    _known(settings.train, TrainSettings, "refresh.train")
    _known(own, TrainSettings, f"refresh.head.{head}")
    return TrainSettings(**(settings.train | own | {"head": head, "store": settings.store}))


def _known(given: dict[str, Any], cls: Any, where: str) -> None:
    names = [item.name for item in fields(cls)]
    for name in given:
        if name not in names:
            raise ConfigError(f"[{where}] has an unknown key {name}{nearest(name, names)}")


def _remembered(runs: Path) -> str:
    try:
        return str(json.loads((runs / _REMEMBERED).read_text(encoding="utf-8"))["state"])
    except (OSError, ValueError, KeyError):
        return ""
