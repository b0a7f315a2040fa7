"""The data sets of `docs/results.md`: which clips, how they become features, what is trained."""

from __future__ import annotations

from dataclasses import dataclass

HEADS = (
    "frame_average gru lstm:units=512 gru:preset=wide bilstm stacked mlp late_fusion early_fusion "
    "attention transformer tcn"
)
DEMO_HEADS = "frame_average gru:preset=wide lstm:units=64 lstm:units=256 mlp attention tcn"
PIXEL_HEADS = "convlstm lrcn conv3d"
VIEW_HEADS = "frame_average early_fusion lstm:units=512 attention tcn"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One leaderboard: which clips, how they become features, and what is trained on them.

    With `beside`, the store is a second view of that set's clips: heads train on both, and are held
    against the same head on the first alone.
    """

    name: str
    title: str
    heads: str
    features: tuple[str, ...]
    training: tuple[str, ...] = ("--epochs", "30", "--patience", "8")
    beside: str = ""


SETS = (
    DataSet(
        name="fight",
        title="Fight or no fight: surveillance footage, 2 classes",
        heads=HEADS,
        features=("--fit", "squash"),
    ),
    DataSet(
        name="tennis",
        title="Tennis strokes, 7 classes",
        heads=HEADS,
        features=("--fit", "squash"),
    ),
    DataSet(
        name="demo",
        title="The built-in demo clips, 6 classes in pairs that differ only in the order of time",
        heads=DEMO_HEADS,
        features=(),
        training=("--epochs", "80", "--patience", "20"),
    ),
    DataSet(
        name="fight-mirror",
        title="A second view: fight again, with a store of the mirrored clips beside the first",
        heads=VIEW_HEADS,
        features=("--fit", "squash", "--view", "mirror"),
        beside="fight",
    ),
    DataSet(
        name="fight-frames",
        title="Fight or no fight from 64×64 pixels, without a pretrained network",
        heads=PIXEL_HEADS,
        features=("--backbone", "frames", "--fit", "squash"),
        training=("--epochs", "15", "--patience", "4"),
    ),
)
