"""InceptionV3 on PyTorch for `benchmarks.engine`: `python torch_peers.py WAY SECONDS`.

As `alternating.serve`: it says how long it took to start, then answers a line per round. It imports
nothing of ours; it needs torch, torchvision and, to compile, a C++ compiler. Random weights and pixels:
neither changes the cost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

BATCHES = {"torch_eager": 8, "torch_compiled": 16}


def inception() -> Any:
    """torchvision's InceptionV3 without its top."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        # A build for CUDA beside a torch without it: its own operators are missing, and not needed here.
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        inception.library = library  # type: ignore[attr-defined]  # it lasts as long as this
        import torchvision

    model = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
    model.fc = torch.nn.Identity()
    return model.eval().to(memory_format=torch.channels_last)


def runner(way: str) -> Any:
    """A call that computes one batch; returns its number of frames."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model, batch = inception(), BATCHES[way]
    kind = torch.float32
    if way == "torch_compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        kind = torch.bfloat16
        model = torch.compile(model.to(kind))
    frames = torch.randint(0, 256, (batch, 299, 299, 3), dtype=torch.uint8)

    def run() -> int:
        with torch.inference_mode():
            scaled = frames.permute(0, 3, 1, 2).to(kind) / 127.5 - 1
            model(scaled.contiguous(memory_format=torch.channels_last)).float().numpy()
        return batch

    return run


def main(way: str, seconds: float) -> None:
    """Answer rounds until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    began = time.perf_counter()
    run = runner(way)
    for _ in range(3):
        run()
    print(json.dumps({"start_s": time.perf_counter() - began}), file=answers)
    for _ in sys.stdin:
        frames, wall, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            frames += run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer = {"rate": frames / wall, "cpu_ms": cpu / frames * 1000}
        load = os.getloadavg()[0]
        print(json.dumps({"cpu_s": cpu, "wall_s": wall, "load": load, **answer}), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
