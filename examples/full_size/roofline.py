"""Where the time of one step at full size goes: what it must compute and move, what the device can do, and
what it takes. Prints JSON.

    python roofline.py --device cuda                 # FFHQ 512, 128 x 128 rays, recipe `guide`, whole steps
    python roofline.py --small                       # the counting alone, on small networks

Floating-point operations are those of matrix products and convolutions, counted by PyTorch; bytes are those
of every operation's tensors, read and written once each, as if no two were fused. Ceilings are measured.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cases import CONFIGS
from guide_hub.guide import Eraser

REPEAT = 10


class Bytes(TorchDispatchMode):
    """Counts what every operation reads and writes; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Counter[str] = Counter()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not views and "empty" not in str(func):
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.moved[str(func)] += sum(t.numel() * t.element_size() for t in tensors)
            self.launches += 1
        return out


def counted(run: Callable[[], Any]) -> dict[str, Any]:
    """FLOPs by kind of operation, and bytes by operation, of one run."""
    with FlopCounterMode(display=False) as flops:
        run()
    with Bytes() as moved:
        run()
    by_kind = flops.get_flop_counts()["Global"]
    return {
        "flops": flops.get_total_flops(),
        "flops_by_operation": {str(k): v for k, v in sorted(by_kind.items(), key=lambda kv: -kv[1])},
        "bytes": sum(moved.moved.values()),
        "bytes_by_operation": dict(moved.moved.most_common(12)),
        "operations": moved.launches,
    }


def seconds(run: Callable[[], Any], device: torch.device, times: int = REPEAT) -> float:
    """The median of `times` runs, after one."""
    found = []
    for n in range(times + 1):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        if n:
            found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(device: torch.device, side: int) -> dict[str, float]:
    """Bytes a second of a large copy, reads and writes counted, and FLOPs a second of large products."""
    a = torch.randn(side, side, device=device)
    b, into = torch.randn_like(a), torch.empty_like(a)
    found = {"copy_bytes_s": 2 * a.nbytes / seconds(lambda: into.copy_(a), device)}
    operations, matmul = 2 * side**3, torch.backends.cuda.matmul
    before = matmul.allow_tf32
    for name, tf32, dtype in (
        ("float32", False, torch.float32), ("tf32", True, torch.float32), ("bfloat16", False, torch.bfloat16),
    ):  # fmt: skip
        matmul.allow_tf32 = tf32
        x, y = a.to(dtype), b.to(dtype)
        found[f"{name}_flops_s"] = operations / seconds(lambda x=x, y=y: x @ y, device)
    matmul.allow_tf32 = before
    return found


def kernels(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Seconds on the device by operation, and of all of them."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CUDA] if device.type == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=kinds) as profiled:
        run()
        _wait(device)
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    spent = {e.key: getattr(e, name) / 1e6 for e in profiled.key_averages()}
    top = sorted(spent.items(), key=lambda kv: -kv[1])[:20]
    return {"busy_s": sum(spent.values()), "top_s": {k[:100]: round(v, 5) for k, v in top}}


def step_of(config: str, device: str, speed: dict[str, Any]) -> Callable[[], Any]:
    setup = CONFIGS[config].build({"speed": speed}, device)
    nets = setup.networks
    student = copy.deepcopy(setup.teacher)
    eraser = Eraser(student, setup.teacher, setup.recipe, nets.perceptual, nets.identity_loss)
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(3)))
    draws = eraser.draw_at(erasure, 0, 0, 0)
    return lambda: eraser.step(erasure, dataclasses.replace(draws))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    config, side = ("tiny", 256) if args.small else ("full512", 8192)
    found: dict[str, Any] = {"device": str(device), "torch": torch.__version__, "config": config}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    found["ceilings"] = ceilings(device, side)
    run = step_of(config, args.device, {"whole_step": True})
    found["step_s"] = seconds(run, device)
    found |= counted(run)
    if device.type == "cuda":
        found["kernels"] = kernels(run, device)
    found["least_s"] = {
        "bytes": found["bytes"] / found["ceilings"]["copy_bytes_s"],
        **{
            name: found["flops"] / found["ceilings"][f"{name}_flops_s"]
            for name in ("float32", "tf32", "bfloat16")
        },
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
