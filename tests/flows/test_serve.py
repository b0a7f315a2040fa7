"""`ui` and `serve`: a server that runs find by themselves, and a schedule that runs, rests and skips."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import store
from flows.names import key
from flows.schedule.deployments import Schedule, served
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from tests.flows.running import ROOT, environment, finish, run, start
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of someone who has never used Prefect."""
    folder = tmp_path_factory.mktemp("home")
    return {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": ""}


@pytest.fixture(scope="module")
def ui(home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `pixels-once ui` printed once its server answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cwd = tmp_path_factory.mktemp("ui")
    process = start("ui", "--port", str(port), "--json", cwd=cwd, env=home)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    yield str(said["ui"])
    ended = stop(process)
    assert "has ended" in ended


def stop(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGINT)
    return finish(process, timeout_s=60).err


def ask(ui: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{ui}/api{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def ended_runs(ui: str) -> list[dict[str, Any]]:
    """Flow runs that have ended, the earliest first."""
    runs = ask(
        ui,
        "/flow_runs/filter",
        {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}},
    )
    return sorted(runs, key=lambda one: str(one["start_time"]))


def whole_runs(ui: str) -> list[dict[str, Any]]:
    """Those of the ended runs that did not skip."""
    return [one for one in ended_runs(ui) if one["state"]["name"] != "Skipped"]


def log_lines(ui: str, flow_run: dict[str, Any]) -> list[str]:
    logs = ask(ui, "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    return [line["message"] for line in logs]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_schedule_runs_then_finds_nothing_to_do_then_skips_a_busy_store(
    ui: str, home: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "features.toml").write_text('[features]\nbackbone = "frames"\n', encoding="utf-8")
    url = tmp_path / "s.zarr"
    words = ("--videos", str(clips), "--store", "s.zarr", "--settings", "features.toml")
    serving = start("serve", *words, "--interval", "10", cwd=tmp_path, env=home)
    # Where the first takes longer than the interval, those that fall due meanwhile skip.
    wait_until(lambda: len(whole_runs(ui)) >= 2)
    first, second = whole_runs(ui)[:2]
    assert (first["state"]["type"], second["state"]["type"]) == ("COMPLETED", "COMPLETED")
    assert store.open(url).counts()["ready"] == 12
    # Prefect sends log lines in batches, a moment later than states.
    wait_until(lambda: any("nothing to do: all 12 clips" in line for line in log_lines(ui, second)))
    with store.Writer.acquire(str(url), owner="someone else"):
        wait_until(lambda: ended_runs(ui)[-1]["state"]["name"] == "Skipped")
    assert "someone else" in ended_runs(ui)[-1]["state"]["message"]
    stop(serving)
    (deployment,) = ask(ui, "/deployments/filter", {})
    assert deployment["paused"] is False
    assert all(schedule["active"] for schedule in deployment["schedules"])


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_runs_find_the_server_of_ui_by_themselves_and_tell_it_the_whole_story(
    ui: str, home: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "clips").symlink_to(clips)
    words = ("--videos", "clips", "--store", "story.zarr", "--backbone", "frames")
    done = run("features", *words, cwd=tmp_path, env=home)
    assert done.status == 0, done.err
    assert f"watch: {ui}" in done.err
    (made,) = ask(ui, "/flow_runs/filter", {"flow_runs": {"name": {"like_": "story"}}})
    assert any("12 ready (on tcp://" in line for line in log_lines(ui, made)), "the workers' logs"
    artifacts = ask(ui, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [made["id"]]}}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    summary, progress, dashboard = (
        key(kind, str(tmp_path / "story.zarr")) for kind in ("summary", "progress", "dashboard")
    )
    assert by_key.keys() >= {summary, progress, dashboard}
    assert "data:image/png;base64," in by_key[summary]["data"]
    assert by_key[progress]["data"] == 100.0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_automation_of_the_docs_tells_of_a_failed_run(
    ui: str, home: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (automation,) = [part for part in page.split("```yaml\n") if part.startswith("name: features")]
    heard: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        make_block = (
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook\n"
            f"hook = Hook(name='hook', url='http://127.0.0.1:{listener.server_port}', "
            "json_data={'text': '{{subject}} | {{body}}'})\n"
            "print(hook.save('hook'))"
        )
        to_ui = environment(home | {"PREFECT_API_URL": f"{ui}/api"})
        block = subprocess.check_output([sys.executable, "-c", make_block], env=to_ui, text=True)
        own = automation.split("```")[0].replace(
            "00000000-0000-0000-0000-000000000000", block.strip()
        )
        (tmp_path / "failed.yaml").write_text(own, encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file"]
        subprocess.run([*command, "failed.yaml"], cwd=tmp_path, env=to_ui, check=True)
        shutil.copytree(clips, tmp_path / "clips")
        (tmp_path / "clips" / "Jump" / "broken.mp4").write_bytes(b"no clip")
        words = ("--videos", "clips", "--store", "told.zarr", "--backbone", "frames")
        ended = run("features", *words, "--max-failed", "0", cwd=tmp_path, env=home)
        assert ended.status == 3, ended.err
        wait_until(lambda: heard)
        listener.shutdown()
    assert "features: Failed" in heard[0]


def test_serving_without_a_server_says_what_to_do(clips: Path, tmp_path: Path) -> None:
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    words = ("--videos", str(clips), "--store", "s.zarr", "--interval", "10")
    refused = run("serve", *words, cwd=tmp_path, env=nowhere)
    assert refused.status == 4
    assert "no Prefect server answers" in refused.err


def test_a_cron_line_is_parsed_and_its_next_runs_are_shown() -> None:
    due = Schedule(cron="0 2 * * *", timezone="Europe/Vienna").next_runs()
    assert [(time.hour, time.minute) for time in due] == [(2, 0)] * 3
    with pytest.raises(ConfigError, match="write five fields"):
        Schedule(cron="at two").next_runs()


def test_a_served_run_skips_when_busy_and_stands_in_no_folder(tmp_path: Path) -> None:
    found = served(FeaturesSettings(videos="clips", store="s3://bucket/s.zarr"))
    assert isinstance(found, FeaturesSettings)
    assert found.if_busy == "skip"
    assert Path(found.videos).is_absolute()
    assert found.store == "s3://bucket/s.zarr"
    with pytest.raises(ConfigError, match="videos is empty"):
        served(FeaturesSettings())


def test_the_deployments_of_the_work_pools_name_flows_and_settings_that_exist() -> None:
    yaml = pytest.importorskip("yaml")
    from flows.extract.flow import features
    from flows.train.refresh import refresh

    root = Path(__file__).parents[2]
    found = yaml.safe_load((root / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    flows = {"flows/extract/flow.py:features": features, "flows/train/refresh.py:refresh": refresh}
    assert {one["entrypoint"] for one in found} == set(flows)
    for one in found:
        flows[one["entrypoint"]].validate_parameters(one["parameters"])
