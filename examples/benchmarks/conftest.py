"""Chooses the cases of the bench files, and times them in wall and CPU seconds, with the peak memory."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is there

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cases import CONFIGS, Case, cases
from plain import plain_operations

GIB = 2**30


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guide-hub benchmarks")
    group.addoption("--model", action="append", choices=list(CONFIGS), help="models; default: tiny")
    group.addoption("--row", action="append", help="rows; default: all")
    group.addoption("--device", default="cpu", help="cpu or cuda")
    group.addoption("--rounds", type=int, help="timed rounds, in place of the model's own")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A bench file's GROUP says whose cases it runs."""
    if "case" in metafunc.fixturenames:
        option = metafunc.config.getoption
        found = cases(option("model") or ["tiny"], [metafunc.module.GROUP], option("row"), option("device"))
        metafunc.parametrize("case", found, ids=[case.name for case in found])


def wait(device: str) -> None:
    """Until all work that the device was given is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_gib(device: str = "cpu") -> float:
    """Of this process so far, resident; of a GPU, its tensors since the benchmark began."""
    if device.startswith("cuda"):
        return round(torch.cuda.max_memory_allocated(device) / GIB, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return round(peak / GIB, 3)


Measure = Callable[..., Any]


@pytest.fixture
def measured(benchmark: Any, case: Case, request: pytest.FixtureRequest) -> Measure:
    """`measured(run, start=None, rounds=None, warmup=None)` -> what the last round returned.

    `run(start())`, or `run()`, is timed round by round, `start()` is not; in plain operations where the row
    says so. Under `benchmark.extra_info`: seconds of every timed round and of the warm-up's, and the
    process's peak memory before and after.
    """

    def measure(
        run: Callable[..., Any],
        start: Callable[[], Any] | None = None,
        rounds: int | None = None,
        warmup: int | None = None,
    ) -> Any:
        rounds = request.config.getoption("rounds") or rounds or case.config.rounds
        warmup = case.config.warmup if warmup is None else warmup
        warmup = max(warmup, int(case.device != "cpu"))  # a GPU's first round loads kernels
        wall, cpu = [], []

        def once(*given: Any) -> Any:
            with plain_operations(case.row.plain):
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                result = run(*given)
                wait(case.device)
                wall.append(time.perf_counter() - wall_start)
                cpu.append(time.process_time() - cpu_start)
            return result

        def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
            gc.collect()
            wait(case.device)
            return (() if start is None else (start(),)), {}

        if case.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(case.device)
        before = peak_gib(case.device)
        for _ in range(warmup):
            once(*setup()[0])
        result = benchmark.pedantic(once, setup=setup, rounds=rounds, iterations=1)
        info = benchmark.extra_info
        info.update(case=case.name, wall_s=wall[warmup:], cpu_s=cpu[warmup:])
        info.update(warmup_wall_s=wall[:warmup], warmup_cpu_s=cpu[:warmup])
        if case.device.startswith("cuda"):
            info.update(gpu=torch.cuda.get_device_name(case.device))
        info.update(torch=torch.__version__.partition("+")[0])
        info.update(peak_gib=peak_gib(case.device), peak_before_gib=before)
        return result

    return measure
