"""Checks of this machine: what a run needs, one by one. Nothing is changed, nothing is fetched."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from flows.checks.codecs import codec_lines
from pipeline import engine
from pipeline.engine import version
from pipeline.errors import ConfigError, PixelsError

State = Literal["ok", "note", "bad"]
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One finding. state: ok · note (works, could be better) · bad (a run would fail)."""

    area: str
    state: State
    found: str
    remedy: str = ""


def examine(
    *,
    weights: str = "imagenet",
    backbone: str = "inception_v3",
    store: str = "",
    scheduler: str = "",
) -> Iterator[Line]:
    """Yield one finding after the other. A check that itself breaks is a bad line, not an error.

    weights, backbone, scheduler: as runs will be given them · store: where one will be written.
    """
    checks: dict[str, Callable[[], Iterator[Line]]] = {
        "python": _python,
        "packages": _packages,
        "cpu": _cpu,
        "engine": _engine,
        "codecs": _codecs,
        "weights": partial(_weights, weights, backbone),
        "disk": partial(_disk, store),
        "server": _server,
        "dask": partial(_dask, scheduler),
    }
    for area, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever breaks on this machine is what doctor is asked for
            yield Line(
                area=area,
                state="bad",
                found=f"the check ended with {type(error).__name__}: {error}",
                remedy="install anew: rm -rf .venv && make venv",
            )


def _python() -> Iterator[Line]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Line(
        area="python",
        state="ok" if supported else "bad",
        found=f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        remedy=""
        if supported
        else "use Python 3.11 to 3.13 (TensorFlow has none for a later one yet): "
        "make venv PYTHON=python3.13",
    )


def _packages() -> Iterator[Line]:
    needed = ("keras", "opencv-python-headless", "av", "zarr", "dask", "prefect", "prefect-dask")
    missing = [name for name in needed if not version(name)]
    if missing:
        yield Line(
            area="packages",
            state="bad",
            found=f"not installed: {', '.join(missing)}",
            remedy="make venv, or pip install -c constraints.txt -e '.[cpu]'",
        )
    else:
        known = ", ".join(f"{name} {version(name)}" for name in needed)
        yield Line(area="packages", state="ok", found=known)
    opencv = [n for n in ("opencv-python", "opencv-contrib-python", "opencv-python-headless",
                          "opencv-contrib-python-headless") if version(n)]  # fmt: skip
    if len(opencv) > 1:
        extra = " ".join(name for name in opencv if name != "opencv-python-headless")
        yield Line(
            area="packages",
            state="bad",
            found=f"{' and '.join(opencv)} overwrite each other's cv2",
            remedy=f"pip uninstall -y {extra} && pip install --force-reinstall opencv-python-headless",
        )
    if version("tensorflow") and version("tensorflow-cpu"):
        yield Line(
            area="packages",
            state="bad",
            found="tensorflow and tensorflow-cpu overwrite each other",
            remedy="pip uninstall -y tensorflow-cpu tensorflow, then make venv",
        )
    fastapi = tuple(int(part) for part in version("fastapi").split(".")[:2] if part.isdigit())
    if fastapi >= (0, 151) and version("prefect").startswith(("3.8.", "3.9.")):
        yield Line(
            area="packages",
            state="bad",
            found=f"fastapi {version('fastapi')} breaks prefect {version('prefect')}",
            remedy="pip install -c constraints.txt 'fastapi<0.151'",
        )
    try:
        engine.require_backend()
    except ConfigError as error:
        found, _, remedy = str(error).partition(": ")
        yield Line(area="packages", state="bad", found=found, remedy=remedy)


def _cpu() -> Iterator[Line]:
    flags = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
             if name in engine.cpu_flags()]  # fmt: skip
    text = f"{engine.cores()} cores, {', '.join(flags) or 'no AVX'}"
    slow = platform.machine() == "x86_64" and "avx2" not in flags and bool(engine.cpu_flags())
    remedy = "this CPU is slow for a CNN: extract on another machine" if slow else ""
    yield Line(area="cpu", state="note" if slow else "ok", found=text, remedy=remedy)


def _engine() -> Iterator[Line]:
    from pipeline.features.backbones.keras_family import choose_engine

    chosen, precision = choose_engine("auto"), engine.auto_precision()
    capability = engine.gpu_capability()
    if capability:
        yield Line(area="gpu", state="ok", found=f"compute capability {capability:g}")
        if not version("tensorflow") and engine.backend_name() == "tensorflow":
            yield Line(
                area="gpu",
                state="bad",
                found="a GPU answers, and TensorFlow is the build for CPUs",
                remedy="pip uninstall -y tensorflow-cpu && pip install 'tensorflow[and-cuda]'",
            )
    else:
        yield Line(area="gpu", state="ok", found="none: the CPU does the work")
    slower = not capability and chosen == "keras" and not engine.backend_is_chosen()
    yield Line(
        area="engine",
        state="note" if slower else "ok",
        found=f"auto takes {chosen} in {precision}",
        remedy="OpenVINO is not installed; it is about 1.4 times as fast on a CPU in bfloat16: "
        "pip install -c constraints.txt openvino scipy"
        if slower
        else "",
    )


def _codecs() -> Iterator[Line]:
    for codec, found, remedy in codec_lines():
        yield Line(area="codec", state="bad" if remedy else "ok", found=f"{codec}: {found}",
                   remedy=remedy)  # fmt: skip


def _weights(setting: str, backbone: str) -> Iterator[Line]:
    from pipeline.features.backbones import resolve_weights

    try:
        weights = resolve_weights(setting, backbone, download=False)
    except PixelsError as error:
        yield Line(
            area="weights",
            state="bad",
            found=str(error).split(": ")[0].split(" and could not be downloaded")[0],
            remedy="download Keras' no-top file where there is a network and pass WEIGHTS=file.h5; "
            "WEIGHTS=random works for a trial",
        )
        return
    state: State = "note" if weights.kind == "random" else "ok"
    remedy = "random weights are for trials only" if weights.kind == "random" else ""
    yield Line(area="weights", state=state, found=str(weights), remedy=remedy)


def _disk(store: str) -> Iterator[Line]:
    if "://" in store:
        yield Line(area="disk", state="ok", found=f"{store} is an object store")
        folders = [Path(tempfile.gettempdir())]
    else:
        folders = [Path(store or ".").absolute(), Path(tempfile.gettempdir())]
    for folder in dict.fromkeys(folders):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
        remedy = ""
        if not writable:
            remedy = "no right to write there: choose another STORE or change its permissions"
        elif free < 2 * _GIB:
            remedy = "free some space: 1,000 clips need 0.17 GB in the store"
        yield Line(
            area="disk",
            state="bad" if remedy else "ok",
            found=f"{folder}: {free / _GIB:,.1f} GiB free",
            remedy=remedy,
        )


def _server() -> Iterator[Line]:
    from flows.server.lifetime import find_server

    try:
        server = find_server()
    except PixelsError as error:
        yield Line(
            area="prefect",
            state="bad",
            found=str(error).split(": ")[0],
            remedy="start it (make ui), or unset PREFECT_API_URL: a run then brings its own",
        )
        return
    if server is None:
        yield Line(
            area="prefect",
            state="note",
            found="no server: each run brings its own, without pages to look at",
            remedy="make ui, to watch runs in a browser",
        )
    else:
        yield Line(area="prefect", state="ok", found=f"server at {server.url}")


def _dask(scheduler: str) -> Iterator[Line]:
    import distributed

    if not scheduler:
        # Without a host Dask looks for this machine's address by a socket to a public name server.
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
            host="127.0.0.1", protocol="tcp://",
        ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
            works = client.submit(sum, (2, 3)).result(timeout=30) == 5
        yield Line(
            area="dask",
            state="ok" if works else "bad",
            found=f"a local cluster of dask {version('dask')} starts and answers",
        )
        return
    try:
        with distributed.Client(scheduler, timeout="10s") as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, ValueError, TimeoutError) as error:
        yield Line(
            area="dask",
            state="bad",
            found=f"no scheduler answers at {scheduler} ({type(error).__name__})",
            remedy="start one (dask scheduler), or leave --scheduler out for a local cluster",
        )
        return
    yield Line(
        area="dask",
        state="ok" if workers else "bad",
        found=f"{len(workers)} workers at {scheduler}",
        remedy="" if workers else f"start workers: dask worker {scheduler}",
    )
