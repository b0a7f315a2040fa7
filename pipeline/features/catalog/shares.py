"""A share of a catalog's clips, by a hash of their ids: `features --shard 3/16`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """Share `number`, from 1, of `of`. Its text is `3/16`.

    Which share a clip is in follows from its id and `of` alone, for ever: no other clip, and no machine,
    has a part in it. Parts of one file are in one share.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3/16`; raises `ConfigError` for anything else.

        >>> Share.parse("3/16")
        Share(number=3, of=16)
        """
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise ConfigError(f"shard is {text!r}: write which one of how many, from 1/16 to 16/16")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """A part of a file's name, in order of number when sorted.

        >>> Share(3, 16).name
        '03-of-16'
        """
        return f"{self.number:0{len(str(self.of))}d}-of-{self.of}"

    def members(self, catalog: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which clips of a catalog are in the share, (clips,)."""
        file = catalog["file"].astype(str)
        files = file.where(file != "", catalog["video_id"].astype(str))
        return np.array([_hash(name) % self.of == self.number - 1 for name in files], dtype=bool)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
