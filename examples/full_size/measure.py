"""Time and memory of EG3D at its full size (FFHQ 512, 128 x 128 rays), with seeded weights.

    python measure.py synthesis                 # one picture, best of five
    python measure.py step [--device cuda]      # one step of the recipe `guide`

Each in a process of its own, so that the peak memory is its own. Prints JSON. Random weights take as long as
trained ones; the losses mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from guide_hub.eg3d import EG3D, EG3DConfig
from guide_hub.eg3d.camera import camera_label
from guide_hub.faces.identity import PspEncoder
from guide_hub.faces.networks import ir_se50
from guide_hub.faces.perceptual import Lpips
from guide_hub.guide import Eraser
from guide_hub.recipe import load_recipe

FFHQ_512_128 = EG3DConfig(neural_rendering_resolution=128, sr_num_fp16_res=4)
GIB = 2**30


def peak(device: torch.device) -> dict[str, float]:
    """Peak resident memory of the process and, on CUDA, of the device, in GiB."""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found = {"peak_rss_gib": round(rss / GIB, 2)}
    if device.type == "cuda":
        found["peak_cuda_gib"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    return found


def timed(run: Callable[[], Any], times: int, device: torch.device) -> list[float]:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(round(time.perf_counter() - start, 2))
    return seconds


def seeded_model(device: torch.device) -> EG3D:
    torch.manual_seed(0)
    return EG3D(FFHQ_512_128).to(device).eval()


def one_picture(model: EG3D, device: torch.device) -> torch.Tensor:
    z = torch.randn(1, model.config.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    c = camera_label(0.0).to(device)
    with torch.no_grad():
        return model.synthesis(model.mapping(z, c), c, deterministic=True)["image"]


def synthesis(device: torch.device, times: int) -> dict[str, Any]:
    model = seeded_model(device).requires_grad_(False)
    seconds = timed(lambda: one_picture(model, device), times, device)
    return {"seconds": seconds, "best": min(seconds), **peak(device)}


def step(device: torch.device, times: int) -> dict[str, Any]:
    import lpips

    student = seeded_model(device)
    teacher = copy.deepcopy(student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in its old way
        trunk = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    perceptual = Lpips(trunk).to(device).eval().requires_grad_(False)
    identity = PspEncoder(ir_se50()).to(device).eval().requires_grad_(False)
    eraser = Eraser(student, teacher, load_recipe("guide"), perceptual, identity)
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(3)))
    seeds = iter(range(times))
    seconds = timed(lambda: eraser.step(erasure, eraser.draw(erasure, next(seeds))), times, device)
    return {"seconds": seconds, "best": min(seconds), **peak(device)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["synthesis", "step"])
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--times", type=int, help="default: 5, and 2 steps")
    args = parser.parse_args()
    measure = {"synthesis": synthesis, "step": step}[args.what]
    found = measure(args.device, args.times or (2 if args.what == "step" else 5))
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": str(args.device)}
    print(json.dumps({"what": args.what, **machine, **found}, indent=2))


if __name__ == "__main__":
    main()
