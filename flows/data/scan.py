"""Scan clips before any is extracted: headers and the first frame, not every pixel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from pipeline.errors import UnreadableClip
from pipeline.features.catalog.table import UNKNOWN
from pipeline.features.files import sha256_if_readable
from pipeline.features.reasons import FAILURES


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLook:
    """A clip's metadata as declared (0: not known), and whether its first frame decodes."""

    readable: bool
    reason: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    duration_s: float = 0.0


COLUMNS = (*(item.name for item in fields(ClipLook)), "sha256")


def look_at(path: str) -> ClipLook:
    """Open one clip and decode its first frame, in this process, as the reader does.

    For clips that crash a decoder `features` is the judge: it decodes in child processes.
    """
    from pipeline.features.decoding.reading import check_file
    from pipeline.features.decoding.video import Video

    look: dict[str, Any] = {}
    try:
        check_file(path)
        with Video(path) as video:
            look = {
                "codec": video.stream.codec_context.name,
                "fps": round(video.fps, 3),
                "frames": video.expected(),
                "duration_s": round(video.duration_s, 3),
            }
            reason = "no_frames" if next(iter(video), None) is None else ""
            look |= {"width": video.width, "height": video.height}
    except MemoryError:
        reason = "out_of_memory"
    except UnreadableClip as error:
        reason = error.reason
    return ClipLook(readable=not reason, reason=reason, **look)


def scan(
    catalog: pd.DataFrame,
    *,
    hashes: bool = True,
    threads: int = 4,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """The catalog with `COLUMNS` added: one look per clip, and the hash of its bytes.

    catalog: as `discover` gives it. Clips of one size alone can be equal, so only those are hashed.
    """
    files = catalog.drop_duplicates("path")  # of parts of a file, the file
    sizes = files["size_bytes"]
    twins = sizes.duplicated(keep=False) & (sizes > 0)

    def one(job: tuple[str, bool, bool]) -> dict[str, Any]:
        path, may_be_twin, unseen = job
        look = ClipLook(readable=False, reason="unreachable") if unseen else look_at(path)
        return asdict(look) | {"sha256": sha256_if_readable(path) if hashes and may_be_twin else ""}

    found = []
    with ThreadPoolExecutor(threads) as pool:
        unseen = (files[["size_bytes", "mtime_ns"]] == list(UNKNOWN)).all(axis=1)
        jobs = zip(files["path"], twins, unseen, strict=True)
        for looked in pool.map(one, jobs):
            found.append(looked)
            on_progress(len(found), len(files))
    looks = pd.DataFrame(found, columns=list(COLUMNS), index=pd.Index(files["path"]))
    of_each = looks.loc[catalog["path"]].set_axis(catalog.index)
    return pd.concat([catalog, of_each], axis=1)


def summarise(scanned: pd.DataFrame, *, frames: int, rate: float) -> dict[str, Any]:
    """The scan in figures, plain values. rate: frames per second of the CNN, for the expected time."""
    good = scanned[scanned["readable"]]
    steps = good["frames"].where(good["frames"] > 0, frames).clip(upper=frames).sum()
    known = good.loc[good["duration_s"] > 0, "duration_s"]
    classes = good.loc[good["label"] != "", "label"].value_counts()
    hashed = scanned[scanned["sha256"] != ""].drop_duplicates("path")
    twins = hashed[hashed.duplicated("sha256", keep=False)].sort_values("sha256")
    sizes = good["width"].astype(str) + "×" + good["height"].astype(str)
    bad = scanned.loc[~scanned["readable"], ["video_id", "reason"]]
    return {
        "clips": len(scanned),
        "readable": len(good),
        "bytes": int(scanned["size_bytes"].clip(lower=0).sum()),
        "unreadable": bad.to_dict("records"),
        "reasons": bad["reason"].value_counts().to_dict(),
        "codecs": good["codec"].value_counts().to_dict(),
        "sizes": sizes.value_counts().head(5).to_dict(),
        "duration_s": {"total": round(float(known.sum()), 1), **_spread(known)},
        "frames": _spread(good.loc[good["frames"] > 0, "frames"]),
        "shorter_than_steps": int((good["frames"].between(1, frames - 1)).sum()),
        "classes": classes.to_dict(),
        "balance": round(float(classes.max() / classes.min()), 2) if len(classes) else None,
        "groups": int(good.loc[good["group"] != "", "group"].nunique()),
        "duplicates": [group["video_id"].tolist() for _, group in twins.groupby("sha256")],
        "expected_seconds": round(float(steps) / rate) if rate else None,
        "expected_bytes": len(scanned) * frames * 2048 * 2,
    }  # fmt: skip


def meaning(reason: str) -> str:
    return FAILURES[reason].meaning if reason in FAILURES else ""


def _spread(values: pd.Series) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        "least": round(float(values.min()), 2),
        "median": round(float(values.median()), 2),
        "most": round(float(values.max()), 2),
    }
