"""Fingerprints of the first stages of the table, as stores that exist have them: they are for ever."""

from __future__ import annotations

from typing import Any

import pytest

from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings

RANDOM = {"backbone": "inception_v3", "weights": "random:0"}
KNOWN: list[tuple[dict[str, Any], str]] = [
    (
        {**RANDOM, "precision": "float32"},
        "048e666ff6d55ce018324829a2752f7134e638531e9dfb11c9dc2daa132abe72",
    ),
    (
        {**RANDOM, "precision": "bfloat16", "dtype": "float32", "fit": "squash"},
        "c410b73bd59c5bc200ca9582412d68270187ad4fcf77a9db532969f8bd197ca8",
    ),
    (
        {"backbone": "resnet50", "weights": "random:7", "precision": "float32", "view": "mirror",
         "sampling": "fps=5", "aspect": "stored"},
        "fc492fe5d737e1f19c9dc5b6653003eea07825c37fb9c6996282df6dbb8d2f13",
    ),
    ({"backbone": "frames"}, "dee42297c782966ac41cb3217f1193a5c2364b80df5a592fe59a6927b4098941"),
    ({"backbone": "motion"}, "195976bd530eaf463b13a00c63761d0869ce57865fa9ddfa9138c3dc316a60f2"),
]  # fmt: skip


@pytest.mark.parametrize(("chosen", "fingerprint"), KNOWN, ids=lambda value: str(value)[:40])
def test_the_settings_of_a_store_give_the_fingerprint_that_they_gave(
    chosen: dict[str, Any], fingerprint: str
) -> None:
    spec, _, _ = stage_of(FeaturesSettings(videos="clips", **chosen), None)
    assert spec.fingerprint == fingerprint
    assert type(spec).from_dict(spec.to_dict()) == spec
