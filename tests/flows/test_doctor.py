"""The check-up: every red line says what to do, and nothing red is a machine that works."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flows.checks import codecs, doctor
from flows.checks.doctor import Line, examine
from flows.cli import doctor as command
from pipeline.features.measured import Rate, engine_name, keep_rate


@pytest.fixture(scope="module")
def codec_lines() -> list[Line]:
    return list(doctor._codecs())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the codecs (they have a test of their own) and without any server of the user's."""
    monkeypatch.setattr(doctor, "_codecs", lambda: iter([Line("codec", "H.264: decodes")]))
    monkeypatch.setattr("flows.server.lifetime.answers", lambda url: False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.server.lifetime._profile_url", lambda: "")


def lines(**settings: Any) -> list[Line]:
    return list(examine(**settings))


def of(area: str, found: list[Line]) -> list[Line]:
    return [line for line in found if line.area == area]


def test_every_codec_of_the_wheels_is_decoded_for_real(codec_lines: list[Line]) -> None:
    found = dict(line.found.split(": ", 1) for line in codec_lines)
    assert set(found) == set(codecs.SAMPLES)
    for name in ("H.264", "MPEG-4 (Xvid, UCF101)", "Motion JPEG"):
        assert found[name].startswith("decodes")
    assert all(not line.remedy for line in codec_lines if ": decodes" in line.found)


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux's scheduling")
def test_no_encoder_leaves_this_thread_at_a_priority_that_all_others_wait_for() -> None:
    """SVT-AV1 does as root, which users of containers mostly are; elsewhere it may not."""
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    list(codecs.tried())
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before


def test_whatever_is_red_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(doctor, "_SCHEDULER_TIMEOUT", "1s")
    found = lines(weights=str(tmp_path / "none.h5"), scheduler="tcp://127.0.0.1:9")
    red = [line for line in found if line.state == "bad"]
    assert {line.area for line in red} == {"weights", "prefect", "dask"}
    assert all(line.remedy for line in found if line.state != "ok")


@pytest.mark.usefixtures("quick")
def test_a_machine_that_works_has_no_red_line() -> None:
    found = lines(weights="random")
    assert not [line for line in found if line.state == "bad"]
    assert of("prefect", found)[0].remedy == "make ui, to watch runs in a browser"


@pytest.mark.usefixtures("quick")
def test_openvino_absent_is_said_with_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.features.backbones.keras_family.available", lambda: False)
    monkeypatch.setattr("pipeline.engine._ask_driver", lambda: 0.0)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    (line,) = of("engine", lines(weights="random"))
    assert (line.state, line.found.split(" in ")[0]) == ("note", "auto takes keras")
    assert "pip install -c constraints.txt openvino scipy" in line.remedy


@pytest.mark.usefixtures("quick")
def test_each_engine_is_named_with_what_runs_have_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(tmp_path))
    monkeypatch.setattr(
        doctor, "version", lambda name: "1.2" if name in ("jax", "openvino") else ""
    )
    software = {"engine": "keras", "keras": "3.15", "jax": "1.2"}
    known = {"backbone": "inception_v3", "precision": "float32", "software": software}
    for fps, frames in ((31.4, 9_600), (2.0, 40)):  # the second is too short to say anything
        name = engine_name(software)
        keep_rate(Rate(engine=name, frames=frames, frames_per_second=fps, **known))
    (tmp_path / "rates" / "damaged.json").write_text("{", encoding="utf-8")
    assert [line.found for line in doctor._rates()] == [
        "openvino (openvino 1.2): no run on this machine has measured it",
        "keras-jax (jax 1.2): 31 frames/s (inception_v3, float32)",
    ]


def test_packages_that_fight_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version
    fake = {"opencv-python": "4.12", "tensorflow": "2.21", "tensorflow-cpu": "2.21",
            "fastapi": "0.152.0", "prefect": "3.8.8"}  # fmt: skip
    monkeypatch.setattr(doctor, "version", lambda name: fake.get(name) or real(name))
    red = [
        line for line in lines(weights="random") if line.state == "bad" and line.area == "packages"
    ]
    assert len(red) == 3
    assert any("pip uninstall -y opencv-python " in line.remedy for line in red)
    assert any("fastapi<0.151" in line.remedy for line in red)


@pytest.mark.usefixtures("quick")
def test_a_check_that_breaks_is_a_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> frozenset[str]:
        raise RuntimeError("no /proc")

    monkeypatch.setattr("pipeline.engine.cpu_flags", broken)
    found = lines(weights="random")
    assert of("cpu", found)[0].state == "bad"
    assert of("dask", found)[0].state == "ok"


@pytest.mark.usefixtures("quick")
def test_the_status_is_4_where_a_run_would_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(command.Settings(weights=str(tmp_path / "x.h5")), json=True) == 4
    assert json.loads(capsys.readouterr().out)["bad"] == 1
    assert command.run(command.Settings(weights="random"), json=False) == 0
    assert "this machine is ready\nnext: make features" in capsys.readouterr().out
