"""`pixels-once verify`: reads every row back and says which are sound."""

from __future__ import annotations

import store
from flows.settings import VerifySettings
from flows.terminal import console, print_json, print_table


def run(settings: VerifySettings, *, json: bool) -> int:
    """Print damaged rows by name and kind; with --repair, send them to pending. 1 where damaged."""
    report = store.verify(settings.store)
    repaired = 0
    if settings.repair and (len(report.damaged) or report.columns):
        repaired = store.repair(settings.store, report, owner="verify")
    if json:
        print_json(
            {
                "store": settings.store,
                "checked": report.checked,
                "sound": report.sound,
                "damaged": report.damaged.to_dict("records"),
                "columns": list(report.columns),
                "repaired": repaired,
            }
        )
    else:
        if len(report.damaged):
            print_table(
                "damaged rows",
                ("row", "clip", "what"),
                report.damaged[["row", "video_id", "what"]].itertuples(index=False),
            )
        for name in report.columns:
            print(f"the column {name} is damaged")
        console().print(
            f"{settings.store}: {report.sound} of {report.checked} rows are sound", style="bold"
        )
        if repaired:
            print(
                f"{repaired} rows are pending now; the next `pixels-once features` makes them anew"
            )
        elif len(report.damaged) or report.columns:
            print("next: run this again with --repair, then `pixels-once features`")
    return 0 if not len(report.damaged) and not report.columns else (0 if settings.repair else 1)
