"""Checks of this machine: what a run needs, one by one. Nothing is changed, nothing is fetched."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from flows.checks import codecs
from flows.extract.worker_checks import workers_of
from pipeline import engine
from pipeline.engine import version
from pipeline.errors import ConfigError, PixelsError
from pipeline.features.measured import kept_rates
from pipeline.homes import free_space

State = Literal["", "ok", "note", "bad"]
_GIB = 2**30
_SCHEDULER_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. state: ok · note (works, could be better) · bad (a run would fail).

    A finding with a remedy is bad unless it says otherwise.
    """

    area: str
    found: str
    remedy: str = ""
    state: State = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", self.state or ("bad" if self.remedy else "ok"))


def examine(
    *,
    weights: str = "imagenet",
    backbone: str = "inception_v3",
    store: str = "",
    scheduler: str = "",
) -> Iterator[Line]:
    """Yield the findings; a check that itself breaks is a bad line. store: where one will be."""
    checks: dict[str, Callable[[], Iterator[Line]]] = {
        "python": _python,
        "packages": _packages,
        "cpu": _cpu,
        "engine": _engine,
        "engines": _rates,
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
            found = f"the check ended with {type(error).__name__}: {error}"
            yield Line(area, found, "install anew: rm -rf .venv && make venv")


def _python() -> Iterator[Line]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = (
        "use Python 3.11 to 3.13 (TensorFlow has none for a later one yet): "
        "make venv PYTHON=python3.13"
    )
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Line("python", found, "" if supported else remedy)


def _packages() -> Iterator[Line]:
    needed = ("keras", "opencv-python-headless", "av", "zarr", "dask", "prefect", "prefect-dask")
    missing = [name for name in needed if not version(name)]
    if missing:
        remedy = "make venv, or pip install -c constraints.txt -e '.[cpu]'"
        yield Line("packages", f"not installed: {', '.join(missing)}", remedy)
    else:
        yield Line("packages", ", ".join(f"{name} {version(name)}" for name in needed))
    names = ("opencv-python", "opencv-contrib-python", "opencv-python-headless",
             "opencv-contrib-python-headless")  # fmt: skip
    opencv = [name for name in names if version(name)]
    if len(opencv) > 1:
        extra = " ".join(name for name in opencv if name != "opencv-python-headless")
        found = f"{' and '.join(opencv)} overwrite each other's cv2"
        remedy = f"pip uninstall -y {extra} && pip install --force-reinstall opencv-python-headless"
        yield Line("packages", found, remedy)
    if version("tensorflow") and version("tensorflow-cpu"):
        found = "tensorflow and tensorflow-cpu overwrite each other"
        yield Line("packages", found, "pip uninstall -y tensorflow-cpu tensorflow, then make venv")
    fastapi = tuple(int(part) for part in version("fastapi").split(".")[:2] if part.isdigit())
    if fastapi >= (0, 151) and version("prefect").startswith(("3.8.", "3.9.")):
        found = f"fastapi {version('fastapi')} breaks prefect {version('prefect')}"
        yield Line("packages", found, "pip install -c constraints.txt 'fastapi<0.151'")
    try:
        engine.require_backend()
    except ConfigError as error:
        found, _, remedy = str(error).partition(": ")
        yield Line("packages", found, remedy, "bad")


def _cpu() -> Iterator[Line]:
    known = engine.cpu_flags()
    flags = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in known]
    found, remedy = f"{engine.cores()} cores, {', '.join(flags) or 'no AVX'}", ""
    if platform.machine() == "x86_64" and "avx2" not in flags and known:
        remedy = "this CPU is slow for a CNN: extract on another machine"
    yield Line("cpu", found, remedy, "note" if remedy else "")


def _engine() -> Iterator[Line]:
    from pipeline.features.backbones.keras_family import choose_engine

    chosen, precision = choose_engine("auto"), engine.auto_precision()
    capability = engine.gpu_capability()
    if capability:
        yield Line("gpu", f"compute capability {capability:g}")
        if not version("tensorflow") and engine.backend_name() == "tensorflow":
            yield Line(
                "gpu",
                "a GPU answers, and TensorFlow is the build for CPUs",
                "pip uninstall -y tensorflow-cpu && pip install 'tensorflow[and-cuda]'",
            )
    else:
        yield Line("gpu", "none: the CPU does the work")
    slower = not capability and chosen == "keras" and not engine.backend_is_chosen()
    remedy = (
        "OpenVINO is not installed; it is about 1.4 times as fast on a CPU in bfloat16: "
        "pip install -c constraints.txt openvino scipy"
    )
    found = f"auto takes {chosen} in {precision}"
    yield Line("engine", found, remedy, "note") if slower else Line("engine", found)


ENGINES = {
    "openvino": ("openvino",),
    "keras-tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras-jax": ("jax",),
    "keras-torch": ("torch",),
}
"""The engines of a backbone → the packages that bring each."""


def _rates() -> Iterator[Line]:
    """Each engine that is installed, and what the last runs on this machine measured."""
    rates = kept_rates()
    for name, packages in ENGINES.items():
        package = next((package for package in packages if version(package)), "")
        if not package:
            continue
        measured = [
            f"{rate.frames_per_second:,.0f} frames/s ({rate.backbone}, {rate.precision})"
            for rate in rates
            if rate.engine == name
        ]
        found = "; ".join(measured) or "no run on this machine has measured it"
        yield Line("engines", f"{name} ({package} {version(package)}): {found}")


def _weights(setting: str, backbone: str) -> Iterator[Line]:
    from pipeline.features.backbones import resolve_weights

    try:
        weights = resolve_weights(setting, backbone, download=False)
    except PixelsError as error:
        yield Line(
            "weights",
            str(error).split(": ")[0].split(" and could not be downloaded")[0],
            "download Keras' no-top file where there is a network and pass WEIGHTS=file.h5; "
            "WEIGHTS=random works for a trial",
        )
        return
    if weights.kind == "random":
        yield Line("weights", str(weights), "random weights are for trials only", "note")
    else:
        yield Line("weights", str(weights))


def _disk(store: str) -> Iterator[Line]:
    folders = [Path(tempfile.gettempdir())]
    if "://" in store:
        yield Line("disk", f"{store} is an object store")
    else:
        folders.insert(0, Path(store or ".").absolute())
    for folder in dict.fromkeys(folders):
        folder, free = free_space(folder)
        remedy = ""
        if not os.access(folder, os.W_OK):
            remedy = "no right to write there: choose another STORE or change its permissions"
        elif free < 2 * _GIB:
            remedy = "free some space: 1,000 clips need 0.17 GB in the store"
        yield Line("disk", f"{folder}: {free / _GIB:,.1f} GiB free", remedy)


def _server() -> Iterator[Line]:
    from flows.server.lifetime import find_server

    try:
        server = find_server()
    except PixelsError as error:
        remedy = "start it (make ui), or unset PREFECT_API_URL: a run then brings its own"
        yield Line("prefect", str(error).split(": ")[0], remedy)
        return
    if server is None:
        found = "no server: each run brings its own, without pages to look at"
        yield Line("prefect", found, "make ui, to watch runs in a browser", "note")
    else:
        yield Line("prefect", f"server at {server.url}")


def _dask(scheduler: str) -> Iterator[Line]:
    import distributed

    if not scheduler:
        # Without a host Dask looks for this machine's address by a socket to a public name server.
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
            host="127.0.0.1", protocol="tcp://",
        ) as cluster, distributed.Client(cluster) as client:  # fmt: skip
            works = client.submit(sum, (2, 3)).result(timeout=30) == 5
        found = f"a local cluster of dask {version('dask')} starts and answers"
        yield Line("dask", found, state="ok" if works else "bad")
        return
    try:
        with distributed.Client(scheduler, timeout=_SCHEDULER_TIMEOUT) as client:
            workers = workers_of(client)
    except (OSError, ValueError, TimeoutError) as error:
        remedy = "start one (dask scheduler), or leave --scheduler out for a local cluster"
        yield Line("dask", f"no scheduler answers at {scheduler} ({type(error).__name__})", remedy)
        return
    remedy = "" if workers else f"start workers: dask worker {scheduler}"
    yield Line("dask", f"{len(workers)} workers at {scheduler}", remedy)


def _codecs() -> Iterator[Line]:
    for found, remedy in codecs.tried():
        yield Line("codec", found, remedy)
