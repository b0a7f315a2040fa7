"""The format's constants: which arrays a store has, their dimensions, types and fill values.

Format version 1. A reader ignores arrays and attributes that it does not know, so columns may be
added; none is ever renamed or given another meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "pixels-once/features"
FORMAT_VERSION = 1

PENDING, READY, FAILED, GONE = 0, 1, 2, 3
STATUS_NAMES = ("pending", "ready", "failed", "gone")

ROWS_PER_CHUNK = 4096
"""Rows in one chunk of every small column: few objects, and a commit rewrites little."""

FILLS: dict[str, tuple[str, object]] = {
    # column → (dtype, value of a row that is not known); one value per clip
    "video_id": ("string", ""),
    "label": ("string", ""),
    "split": ("string", ""),
    "group": ("string", ""),
    "file": ("string", ""),
    "start_s": ("float64", float("nan")),
    "end_s": ("float64", float("nan")),
    "start_frame": ("int32", -1),
    "end_frame": ("int32", -1),
    "size_bytes": ("int64", -1),
    "mtime_ns": ("int64", -1),
    "sha256": ("string", ""),
    "fps": ("float32", float("nan")),
    "width": ("int32", -1),
    "height": ("int32", -1),
    "pixel_aspect": ("float32", float("nan")),
    "frames_declared": ("int32", -1),
    "frames_decoded": ("int32", -1),
    "decoder": ("string", ""),
    "cut_off_s": ("float32", float("nan")),
    "digest": ("uint32", 0),
    "reason": ("string", ""),
    "status": ("uint8", 0),
}
COLUMNS = (*(name for name in FILLS if name != "status"), "status")
"""Per-clip columns in the order in which they are committed: `status` last."""

STEP_FILLS: dict[str, tuple[str, object]] = {
    "mask": ("bool", False),
    "frame_index": ("int32", -1),
    "timestamp": ("float32", float("nan")),
}
STEP_COLUMNS = tuple(STEP_FILLS)
"""Columns with one value per clip and step; committed before the per-clip columns."""


PREVIEW = "preview"
"""Optional: (video, picture, byte) uint8, three small JPEG files a clip (`store.chunks`)."""

PREVIEWS_PER_CLIP = 3
PREVIEW_BYTES = 6144


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The shape of a store's features: (rows, steps, *shape), in chunks of `batch` rows."""

    steps: int = 40
    shape: tuple[int, ...] = (2048,)
    dtype: str = "float16"
    batch: int = 64

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.shape or min(self.shape) < 1:
            raise ValueError(
                f"a store of {self.steps} steps of shape {self.shape} in batches of {self.batch} "
                "cannot be: every size must be 1 or more"
            )
        if self.dtype not in ("float16", "float32", "uint8"):
            raise ValueError(
                f"features of {self.dtype} cannot be stored: use float16, float32 or uint8"
            )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one clip's features, (steps, *shape)."""
        return (self.steps, *self.shape)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimension names of `features`.

        >>> Layout(shape=(64, 64, 3), dtype="uint8").dimensions
        ('video', 'step', 'height', 'width', 'channel')
        """
        inner = {1: (), 2: ("point",), 3: ("height", "width")}.get(
            len(self.shape), tuple(f"axis{i}" for i in range(len(self.shape) - 1))
        )
        return ("video", "step", *inner, "channel")
