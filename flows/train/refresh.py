"""The flow `refresh`: extract what is new, retrain, compare with the accepted run, promote or not."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.states import Cancelled, Completed

from flows.extract.flow import features
from flows.extract.summary import Summary
from flows.names import key
from flows.server.run_page import RunPage
from flows.server.settling import is_scheduled, run_page
from flows.settings.refresh import RefreshSettings, features_settings, resolved, train_settings
from flows.settings.resolve import check_settings
from flows.settings.training import TrainSettings
from flows.stopping import Stopping, stopping
from flows.train import promotion, shared
from flows.train.opening import require_one_store, store_name
from flows.train.promotion import refreshed_set, with_test_set
from flows.train.result import FIGURES, RefreshResult, publish, publish_head
from pipeline.heads.clips import Clips
from pipeline.heads.holdout import Holdout
from pipeline.heads.leakage import require_unseen
from pipeline.heads.measures import LEAST_GROUPS
from pipeline.heads.promotion import Verdict, judge, judge_by_baselines
from pipeline.heads.run_folder import trained_clips
from pipeline.heads.source import group_names
from pipeline.heads.splits import FOLDED, rows_of_test_set
from pipeline.heads.training import train
from pipeline.plain import write_json

VERDICT = "promotion.json"
_REMEMBERED = "refreshed.json"


@flow(name="refresh", flow_run_name="refresh {settings.store}", persist_result=False)
def refresh(settings: RefreshSettings) -> RefreshResult:
    """Bring the store up to date, train the heads, and accept the best of them if it is not worse.

    The heads are judged on a test set of the store, which no head trains on; the first refresh
    makes it. The best is chosen by its validation clips. Raises `ConfigError` for a user's mistake,
    `RunFailed` as `features` does; nothing is trained then.
    """
    check_settings(settings)
    with run_page() as page:
        return _refresh(settings, page)


def _refresh(settings: RefreshSettings, page: RunPage) -> RefreshResult:
    logger = get_run_logger()
    settings = resolved(settings)
    require_one_store(
        settings.store,
        "a refresh extracts into one store, so run `features` for each stream, then `train` on the join",
    )
    runs = Path(settings.runs)
    heads = [name.strip() for name in settings.heads.split(",") if name.strip()]
    trainings = [train_settings(settings, name) for name in heads]
    summary = features(features_settings(settings))
    assert isinstance(summary, Summary)  # of one backbone
    begun = RefreshResult(
        outcome=summary.outcome,
        store=settings.store,
        extracted=summary.ready,
        failed=summary.failed,
        stopped_by=summary.stopped_by,
    )
    if summary.outcome == "skipped":
        return _ended(begun, "Skipped")
    if summary.outcome == "interrupted":
        return _ended(begun, "Interrupted")
    with shared.store_warnings():
        loaded = shared.load_stores(settings.store, skeleton=trainings[0].skeleton)
    state = promotion.state_of(
        loaded.clips,
        [shared.train_config(training) for training in trainings],
        test_set=settings.test_set,
        threshold=settings.threshold,
    )
    before = promotion.read(runs)
    known = _remembered(runs)
    same = state == (known.get(settings.store) or known.get("", ""))
    if before is not None and same and not settings.always:
        logger.info("nothing new since the last refresh")
        return replace(begun, outcome="unchanged", accepted=before.name)
    loaded, holdout = _with_test_set(settings, loaded, before, trainings[0])
    ways = [(training.split, holdout.name) for training in trainings]
    shared.print_notes(loaded.clips.table, loaded.clips.holdouts, ways)
    with stopping() as stop:
        heads_trained = _train_all(page, runs, loaded, holdout, trainings, before, stop)
    if stop.signal:
        return _ended(replace(begun, outcome="interrupted", stopped_by=stop.signal), "Interrupted")
    with promotion.locked(runs):
        # Another refresh of this folder may have promoted since: what counts is who is accepted now.
        best = max(heads_trained, key=lambda head: head.merit)
        result = _judge(settings, loaded.clips, holdout, runs, best)
        result = replace(result, extracted=summary.ready, failed=summary.failed)
        if result.outcome == "promoted":
            promotion.promote(runs, runs / result.run)
        # Last: a refresh that died before is done again.
        stores = {name: each for name, each in _remembered(runs).items() if name}
        write_json(runs / _REMEMBERED, {"stores": stores | {settings.store: state}})
    page.add("the comparison", publish, result, settings, heads_trained)
    logger.info(result.headline())
    return result


def _ended(result: RefreshResult, name: str) -> RefreshResult:
    """The flow's end in a state of this name, in which nothing was trained or promoted."""
    if result.stopped_by and is_scheduled():
        return Cancelled(message=result.headline())  # type: ignore[return-value]
    return Completed(name=name, message=result.headline(), data=result)  # type: ignore[return-value]


def _with_test_set(
    settings: RefreshSettings, loaded: shared.Loaded, before: Path | None, training: TrainSettings
) -> tuple[shared.Loaded, Holdout]:
    """The clips with the test set that heads are judged by, and that set."""
    if before is not None:
        promotion.require_same_features(before, loaded.clips)
    how = "grouped" if training.split in FOLDED else training.split
    cut = {"how": how, "seed": training.seed}
    holdout = refreshed_set(settings.store, loaded.clips, settings.test_set, before, **cut)
    lease = bool(settings.features.get("lease", True))
    clips = with_test_set(settings.store, loaded.clips, holdout, lease=lease)
    return replace(loaded, clips=clips), holdout


def _train_all(
    page: RunPage,
    runs: Path,
    loaded: shared.Loaded,
    holdout: Holdout,
    trainings: list[TrainSettings],
    before: Path | None,
    stop: Stopping,
) -> list[shared.Made]:
    """Train every head in its own folder; ends early if `stop` is set."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    heads: list[shared.Made] = []
    for training in trainings:
        stem = f"{training.head}-{store_name(training.store)}"
        folder = runs / f"{stem}-{stamp}"
        if folder.exists():  # another refresh of this folder has begun in the same second
            folder = runs / f"{stem}-{stamp}-{uuid.uuid4().hex[:6]}"
        get_run_logger().info("training %s", folder.name)
        try:
            metrics = train(
                loaded.clips,
                shared.train_config(replace(training, test_set=holdout.name)),
                folder,
                on_epoch=shared.print_epoch,
                stop=stop.event,
                first_stage=loaded.first_stage,
                since=before,
            )
        except KeyboardInterrupt:
            metrics = {"stopped": True}
        if metrics["stopped"]:
            # Whatever stopped it: an unfinished training is never judged.
            stop.event.set()
            stop.signal = stop.signal or metrics.get("stopped_by") or "SIGINT"
        if stop.event.is_set():
            return heads
        heads.append(shared.Made(folder=folder, metrics=metrics))
        publish_head(page, key(f"head-{training.head}", training.store), heads[-1], named=True)
    return heads


def _judge(
    settings: RefreshSettings, clips: Clips, holdout: Holdout, runs: Path, best: shared.Made
) -> RefreshResult:
    """Compare the best new head with the run that is accepted now, on the same unseen clips."""
    rows = rows_of_test_set(clips.table, clips.holdouts, holdout.name)
    test = clips.positions(rows)
    whole = holdout.whole_groups
    own = trained_clips(best.folder, clips.table)
    require_unseen(best.folder.name, clips, test, own, groups=whole)
    before = promotion.read(runs)
    comparable, note = before is not None, ""
    if before is not None:
        promotion.require_same_features(before, clips)
        fair = promotion.not_seen(before, clips, test, groups=whole)
        if not fair.all():
            note = f"{before.name} was trained on {int((~fair).sum())} of {len(test)} test clips"
            comparable = len(set(group_names(clips.table.iloc[test[fair]]))) >= LEAST_GROUPS
            if comparable:
                test = test[fair]
            else:
                note += ", so it cannot be held against"
    table = clips.table.iloc[test]
    labels, groups = table["label"].astype(str).to_numpy(dtype=object), group_names(table)
    hits = promotion.hits(best.folder, clips, test)
    if before is not None and not comparable:
        baselines = {
            name: top1 for name, top1 in best.metrics["baseline"].items() if name != "chance"
        }
        verdict = judge_by_baselines(hits, labels, groups, baselines, settings.threshold)
    else:
        rival = promotion.hits(before, clips, test) if before is not None else None
        verdict = judge(hits, rival, labels, groups, settings.threshold)
    verdict = replace(verdict, why="; ".join(filter(None, [note, verdict.why])))
    return _result(settings.store, holdout, best, before, verdict)


def _result(
    store: str, holdout: Holdout, best: shared.Made, before: Path | None, verdict: Verdict
) -> RefreshResult:
    """The result by the verdict; it is written to the run's folder, too."""
    config = json.loads((best.folder / "config.json").read_text(encoding="utf-8"))
    figures = {name: getattr(verdict, name) for name in ("classes", "clips", "groups", *FIGURES)}
    judged = {
        "outcome": "promoted" if verdict.promoted else "refused",
        "accepted": "" if before is None else before.name,
        "test_set": holdout.name,
        "why": verdict.why,
        **figures,
    }
    write_json(best.folder / VERDICT, judged)
    return RefreshResult(
        store=store,
        run=best.folder.name,
        since={what: len(which) for what, which in config.get("since", {}).items()},
        **judged,
    )


def _remembered(runs: Path) -> dict[str, str]:
    """Store → its state at the last refresh of this folder; "" is for all, from an older version."""
    try:
        values = json.loads((runs / _REMEMBERED).read_text(encoding="utf-8"))
        return {"": str(values.get("state", "")), **values.get("stores", {})}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
