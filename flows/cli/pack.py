"""`pixels-once pack`: a store as one file with a datasheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.cli.terminal import print_json, suggest
from flows.settings.resolve import setting

EXAMPLES = """
pixels-once pack --store clips.zarr --out clips.zarr.zip
pixels-once pack --store clips.zarr --out clips.zarr.zip --license CC-BY-4.0 --source 'UCF101, top 5'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Writes a store as one file: a ZIP archive, not compressed, with a datasheet in it.

    Commands that only read accept it as a store, from a disk or a URL. It names no folder of this host.
    """

    store: str = setting("features.zarr", "the store", metavar="PATH")
    out: str = setting("", "the file to write (default: STORE.zip)", metavar="FILE")
    license: str = setting("", "licence of the features", metavar="TEXT")
    source: str = setting("", "origin of the clips", metavar="TEXT")


def run(settings: Settings, *, json: bool) -> int:
    import store
    from flows.exchange.datasheet import datasheet_of, readme_of

    base = settings.store.rstrip("/").rsplit("/", 1)[-1]
    out = settings.out or (f"{base}.zip" if "://" in settings.store else f"{settings.store}.zip")
    source = store.open(settings.store)
    told = {"license": settings.license, "origin": settings.source}
    sheet = datasheet_of(source, Path(out).name, **told)
    size = store.pack(settings.store, out, readme=readme_of(sheet), datasheet=sheet)
    if datasheet_of(store.open(out), Path(out).name, **told) != sheet:
        Path(out).unlink()
        raise store.StoreBusy(
            f"the store {settings.store} was written before it was packed: pack it again", None
        )
    if json:
        print_json({"store": settings.store, "out": out, "bytes": size, "datasheet": sheet})
        return 0
    print(f"{out}: {len(source):,} rows in {size / 2**20:,.1f} MiB, every ready row read back")
    suggest("show", "--store", out)
    return 0
