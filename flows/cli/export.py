"""`pixels-once export`: a trained head in a format that others serve, or a store's features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from flows.cli.terminal import print_json, progress_bar
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

_NAMES = {"saved_model": "saved_model", "onnx": "head.onnx", "openvino": "head.xml"}

STORE_FORMATS = ("npy", "npz", "hdf5", "parquet", "activitynet", "webdataset")

EXAMPLES = """
pixels-once export --run runs/gru-clips --format openvino
pixels-once export --store clips.zarr --format npz --out features/
pixels-once export --store clips.zarr --format activitynet --transpose --out detection/
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Exports a head for serving, compared with the original; or a store's ready rows for other programs.

    Each file of rows is read back. Run it again to resume.
    """

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    format: str = setting(
        "",
        "of a run: saved_model (default), onnx, openvino; of a store: npy, npz, hdf5, …",
        choices=("", *_NAMES, *STORE_FORMATS),
    )
    out: str = setting("", "where (default of a run: RUN/export/FORMAT…)", metavar="PATH")
    store: str = setting("", "a store, instead of a run", metavar="PATH")
    transpose: bool = setting(False, "of a store: arrays are D × T")


def run(settings: Settings, *, json: bool) -> int:
    if settings.store:
        return _export_store(settings, json=json)
    if not settings.run:
        raise ConfigError(
            "export needs --run or --store: e.g. --run runs/gru-clips --format openvino"
        )
    format = settings.format or "saved_model"
    if format not in _NAMES:
        raise ConfigError(f"a run is not exported as {format}: choose {', '.join(_NAMES)}")
    from pipeline.heads.export import export_run
    from pipeline.heads.saved import load_run

    path = Path(settings.out or Path(settings.run) / "export" / _NAMES[format])
    found = export_run(load_run(settings.run), path, format=format)
    if json:
        print_json(found)
        return 0
    print(f"{found['path']}: {found['compared']}")
    print(f"labels, spec and preprocessing: {found['beside']}")
    print("inputs: features (n, steps, …) float32, mask (n, steps) bool; normalisation is inside")
    return 0


def _export_store(settings: Settings, *, json: bool) -> int:
    from flows.exchange.exporting import export_store

    if settings.run or settings.format not in STORE_FORMATS or not settings.out:
        raise ConfigError(
            f"a store is exported with --format and --out, without --run: choose "
            f"{', '.join(STORE_FORMATS)}"
        )
    with progress_bar("export", "rows") as show:
        result = export_store(
            settings.store,
            settings.out,
            format=settings.format,
            transpose=settings.transpose,
            on_progress=show,
        )
    if json:
        print_json(asdict(result))
        return 0
    print(f"{result.out}: {result.written:,} rows written and read back, {result.kept:,} kept")
    return 0
