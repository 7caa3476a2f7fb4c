"""Times the released structure and guide_hub's engines on the same models, and writes RESULTS.md.

    python examples/benchmarks/run.py                              # all but the tiny model: hours
    python examples/benchmarks/run.py --config medium --group step
    python examples/benchmarks/run.py --config full512 --row ours --row released-pairs --rounds 1
    python examples/benchmarks/run.py --device cuda --out examples/benchmarks/gpu/results --config full512
    python examples/benchmarks/run.py --list                       # what is there, what is missing

Each row runs in a process of its own and is stored when it ends: a killed run goes on where it stood, and a
row that fails takes no other with it. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from cases import CONFIGS, GROUPS, ROWS, Case, cases
from table import RESULTS, read, write

GIB = 2**30
KEPT = (
    "wall_s", "cpu_s", "warmup_wall_s", "warmup_cpu_s", "peak_gib", "peak_before_gib", "steps", "photos",
    "pictures", "kept_draws", "figures",
)  # fmt: skip


def state(folder: Path, case: Case) -> str:
    found = read(folder, case)
    return "missing" if found is None else "failed" if "failed" in found else "there"


def memory_gib() -> float:
    """Of the machine; infinite where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError, AttributeError):
        return float("inf")


def environment(threads: int) -> dict[str, str]:
    """The row's process: so many threads that wait asleep, and one way of glibc to keep memory."""
    fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    mine = {
        "OMP_WAIT_POLICY": "PASSIVE", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184",
        "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**mine, **os.environ, **fixed, "PYTHONPATH": path}


def commit() -> str:
    """The last one that changed what is measured, with a + where the checkout has changed since."""
    code = ["guide_hub", "recipes", "examples/benchmarks/*.py"]

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words, "--", *code], capture_output=True, text=True, check=False
        )

    try:
        last = git("log", "-1", "--format=%h").stdout.strip()
        return last + ("+" if git("diff", "--quiet", "HEAD").returncode else "") if last else "unknown"
    except OSError:
        return "unknown"


def machine(report: dict[str, Any], threads: int) -> dict[str, Any]:
    """What figures hang on, without the machine's name."""
    of = report.get("machine_info", {})
    cpu = of.get("cpu", {})
    return {
        "CPU": str(cpu.get("brand_raw") or of.get("machine")).replace("/", "-"),
        "cores": cpu.get("count") or os.cpu_count(), "threads": threads,
        "Python": of.get("python_version"), "commit": commit(),
    }  # fmt: skip


def too_large(case: Case) -> str | None:
    """Why the row is passed over, if this machine is too small for it. A GPU says so itself."""
    if case.device != "cpu":
        return None
    needed, there = case.row.needs_gib.get(case.config.name, 0.0), memory_gib()
    return (
        f"passed over: it takes about {needed:g} GiB of memory, {there:.1f} are here"
        if needed > there
        else None
    )


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """The case's figures, or {"failed": why}."""
    with tempfile.TemporaryDirectory() as scratch:
        report, log = Path(scratch) / "report.json", Path(scratch) / "log"
        command = [
            sys.executable, "-m", "pytest", str(HERE / f"bench_{case.row.group}.py"), "-q", "-x", "-p",
            "no:cacheprovider", "--benchmark-only", f"--benchmark-json={report}",
            f"--model={case.config.name}", f"--row={case.row.name}", f"--device={case.device}",
        ]  # fmt: skip
        command += [f"--rounds={args.rounds}"] if args.rounds else []
        with log.open("wb") as file:
            try:
                code = subprocess.run(
                    command, cwd=ROOT, env=environment(args.threads), stdout=file, stderr=file,
                    timeout=args.timeout, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return {"failed": f"not done after {args.timeout:g} s"}
        if code:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            why = (
                f"ended by signal {-code}, maybe for want of memory"
                if code < 0
                else f"ended with code {code}"
            )
            return {"failed": why}
        found = json.loads(report.read_text())
    (entry,) = found["benchmarks"]
    return kept(entry, machine(found, args.threads))


def kept(entry: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a benchmark's entry in pytest-benchmark's report, and the machine that it is of."""
    info = entry["extra_info"]
    gpu = {"GPU": info["gpu"]} if "gpu" in info else {}
    return {
        **{key: info[key] for key in KEPT if key in info},
        "machine": {**gpu, **of, "torch": info["torch"]},
    }


def take(report: Path, folder: Path, threads: int, device: str) -> None:
    """Stores all of a report of pytest's, many rows in one process, by the code that is checked out."""
    found = json.loads(report.read_text())
    of = machine(found, threads)
    known = {case.name: case for case in cases(device=device)}
    for entry in found["benchmarks"]:
        store(folder, known[entry["extra_info"]["case"]], kept(entry, of))


def store(folder: Path, case: Case, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{case.name}.{os.getpid()}.part"
    part.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")
    part.replace(folder / f"{case.name}.json")


def rounded(value: Any) -> Any:
    """Four digits; more would only be noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", choices=list(CONFIGS), help="default: all but tiny")
    parser.add_argument("--group", action="append", choices=list(GROUPS), help="default: all")
    parser.add_argument(
        "--row", action="append", choices=sorted({row.name for row in ROWS}), help="default: all"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--take", type=Path, help="store this report of pytest's --benchmark-json, no more")
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--list", action="store_true", help="only list the rows")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the results; RESULTS.md lies beside it"
    )
    parser.add_argument("--rounds", type=int, help="timed rounds, in place of each model's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=4 * 3600, help="seconds for one row")
    parser.add_argument(
        "--force", action="store_true", help="also rows that this machine's memory is too small for"
    )
    args = parser.parse_args()
    if args.take:
        take(args.take, args.out, args.threads, args.device)
        print(write(args.out))
        return
    names = args.config or [c for c in CONFIGS if c != "tiny"]
    chosen = cases(names, args.group, args.row, args.device)
    if not chosen:
        parser.error("no model has such a row; --list names them")
    if args.list:
        for case in chosen:
            print(f"{state(args.out, case):8} {case.name}")
        return
    wanted = [case for case in chosen if args.again or state(args.out, case) != "there"]
    failed = 0
    for n, case in enumerate(wanted, start=1):
        print(f"{n}/{len(wanted)} {case.name} ...", end=" ", file=sys.stderr, flush=True)
        why = None if args.force else too_large(case)
        result = {"failed": why} if why else measure(case, args)
        failed += "failed" in result and why is None
        if "failed" not in result or state(args.out, case) != "there":  # figures that are there stay
            store(args.out, case, result)
        print(result.get("failed") or f"{min(result['wall_s']):.3g} s", file=sys.stderr, flush=True)
        write(args.out)
    print(write(args.out))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
