"""`pixels-once unpack`: a packed store as a folder that runs can write to."""

from __future__ import annotations

from dataclasses import dataclass

from flows.cli.terminal import print_json, suggest
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

EXAMPLES = "pixels-once unpack --store clips.zarr.zip --out clips.zarr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Unpacks a packed store into a folder, which `features` can continue."""

    store: str = setting("", "the packed store, a file or a URL (required)", metavar="PATH")
    out: str = setting(
        "", "the folder to create (default: the file's name without .zip)", metavar="DIR"
    )


def run(settings: Settings, *, json: bool) -> int:
    """Unpack, every checksum compared."""
    import store

    if not settings.store:
        raise ConfigError("unpack needs --store: e.g. --store clips.zarr.zip")
    base = settings.store.rstrip("/").rsplit("/", 1)[-1]
    name = base if "://" in settings.store else settings.store
    out = settings.out or name.removesuffix(".zip")
    files = store.unpack(settings.store, out)
    if json:
        print_json({"store": settings.store, "out": out, "files": files})
        return 0
    print(f"{out}: {len(store.open(out)):,} rows")
    suggest("features", "--store", out, "--videos", "…")
    return 0
