"""`pixels-once import`: features that others computed, into a store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from flows.cli.terminal import headline, print_json, print_table, progress_bar, suggest
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

EXAMPLES = """
pixels-once import --from sequences/ --store clips.zarr
pixels-once import --from i3d/ --labels labels.csv --transpose --long split --store clips.zarr
pixels-once import --from embeddings.parquet --steps 1 --store clips.zarr
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Imports features computed elsewhere into a store: .npy or .npz files, HDF5, Parquet, WebDataset.

    A file that cannot be used is a failed row with a reason. Run it again to resume, or after files have
    changed. Nothing is unpickled.
    """

    from_: str = setting(
        "", "a folder of arrays, or one file that holds many (required)", metavar="PATH"
    )
    store: str = setting("imported.zarr", "the store", metavar="PATH")
    labels: str = setting(
        "",
        "CSV file with id and label, split or group (default: folders are labels)",
        metavar="FILE",
    )
    steps: int = setting(0, "steps of every row (default: 40, or an export's own)")
    long: str = setting(
        "refuse",
        "a sequence with more steps is a failed row, cut, or split into rows",
        choices=("refuse", "cut", "split"),
    )
    transpose: bool = setting(False, "arrays are D × T")
    dtype: str = setting(
        "auto",
        "type of the store; auto keeps float16 and uint8, all else is float32",
        choices=("auto", "float16", "float32"),
    )
    source: str = setting("", "what computed them (default: the folder's name)", metavar="NAME")
    sampling: str = setting("", "how frames were sampled, if known, e.g. stride=16", metavar="RULE")
    batch: int = setting(64, "rows in a chunk of a new store", least=1)
    lease: bool = setting(True, "hold the store's lease while writing")


def run(settings: Settings, *, json: bool) -> int:
    from flows.exchange.importing import import_clips
    from flows.exchange.rows import Rules

    if not settings.from_:
        raise ConfigError("import needs --from: a folder of .npy files, say")
    rules = Rules(**{item.name: getattr(settings, item.name) for item in fields(Rules)})
    with progress_bar("import", "rows") as show:
        result = import_clips(
            settings.from_,
            rules,
            labels=settings.labels,
            transpose=settings.transpose,
            on_progress=show,
        )
    failed = sum(result.failed.values())
    if json:
        print_json({"store": settings.store, **asdict(result), "failed": result.failed})
        return 0
    if failed:
        shown = [(f["id"], f["reason"], f["detail"]) for f in result.failures[:20]]
        print_table("failed", ("array", "reason", "detail"), shown)
    headline(f"{settings.store}: {result.ready} imported, {result.kept} kept, {failed} failed")
    if result.ready:
        suggest("train", "--store", settings.store)
    return 0
