"""Erases people one after the other by each mode, and measures after every one how all of them fare.

    python run.py --people 10                                  # every mode, the first order
    python run.py --people 20 --modes replay chain --seeds 3   # goes on where the ten ended
    python run.py --people 20 --modes replay chain --drift     # adds FID and KID at the marks
    python run.py --people 50 --modes replay --device cuda     # seconds a person; not the same bytes
    python run.py --people 50 --modes replay --every 5         # rows with gaps: to measure 50 takes long
    python run.py --table                                      # RESULTS.md and plots from results/

A cell is one erasure with its row of the matrix, minutes long, stored when it ends; a killed run goes on
where it stood, and a longer one goes on where a shorter one ended. `--cache` is private: it holds weights.
`torchrun --standalone --nproc_per_node 2 run.py ...` has processes share the steps; each row says how many.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from guide_hub.checkpoint import Checkpoint
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.identity import PersonMeasure
from guide_hub.interrupt import stopping
from guide_hub.processes import Processes, launched
from guide_hub.recipe import Recipe
from guide_hub.sequence import Sequence
from lab import HERE, MARKS, UNPROTECTED, Clock, Lab, make_eraser, peak_gib, write
from modes import MODES
from table import write_results

RESULTS = HERE / "results"
RECIPE = "heads-fast"
DENSE = 10  # so many first rows are always measured
BLOCKS = (20, 50)  # an order shuffles people inside these, so that the first 20 are the same in every order


def order(seed: int) -> list[int]:
    """Who goes when, of 50 people: as they are numbered under seed 0."""
    rng, start, people = torch.Generator().manual_seed(seed), 0, list[int]()
    for end in BLOCKS:
        block = torch.randperm(end - start, generator=rng) if seed else torch.arange(end - start)
        people += (block + start).tolist()
        start = end
    return people


class Study:
    """One mode under one seed."""

    def __init__(
        self, lab: Lab, mode: str, seed: int, people: int, cache: Path, every: int = 1,
        processes: Processes | None = None,
    ):  # fmt: skip
        self.lab, self.mode, self.seed, self.every, self.clock = lab, mode, seed, every, Clock()
        self.processes = processes or Processes.alone()
        self.people = order(seed)[:people]
        self.recipe: Recipe = MODES[mode](lab.recipe)
        of_all = "" if self.folds else f"-{people}"  # such a mode has no weights on the way
        where = "" if lab.device.type == "cpu" else f"-{lab.device.type}"
        self.file = RESULTS / f"{mode}{of_all}-seed{seed}{where}.json"
        alone = of_all if mode == "joint" else ""  # its one stage is of all N
        self.checkpoint = Checkpoint(cache, f"{mode}{alone}-seed{seed}-{self.recipe.digest()[:12]}{where}")
        self.rows: list[dict[str, Any]] = self._stored()

    @property
    def folds(self) -> bool:
        from guide_hub.modes import MODES as ALL

        return ALL[self.recipe.sequence.mode].folds

    def inputs(self) -> dict[str, Any]:
        return {
            "model": self.lab.sha256,
            "recipe": self.recipe.digest(),
            "seed": self.seed,
            "order": order(self.seed),
        }

    def _stored(self) -> list[dict[str, Any]]:
        found = json.loads(self.file.read_text()) if self.file.is_file() else {}
        return found["rows"] if found.get("inputs") == self.inputs() else []

    def run(self) -> None:
        """Erases and measures whom the results lack."""
        if self.rows and self.rows[-1]["k"] >= len(self.people):
            return
        student, nets = self.lab.model(), self.lab.networks
        with stopping() as stopper:
            self.processes.load(self.lab.source, self.lab.names, stopper)
            sequence = Sequence(
                student,
                self.lab.source,
                self.recipe,
                nets,
                self.seed,
                self.checkpoint,
                stopper,
                self.clock,
                {},
                self.processes,
                kin=self.lab.kin,
            )
            latents = [self.lab.subject(i).ws[:1] for i in self.people]
            ids = [f"person-{i}" for i in self.people]
            saved = self.checkpoint.load()
            self.clock.begin()
            sequence.run(ids, latents, self.measure, saved)
        self.add_memory(sequence)

    def measure(self, k: int, student: EG3D) -> PersonMeasure:
        """The row after person k, or the last one of a mode that has no other."""
        start, grad = time.process_time(), [p.requires_grad for p in student.parameters()]
        cost, threads = self.cost(k + 1, self.people[k]), torch.get_num_threads()
        torch.set_num_threads(max(threads, self.processes.count))  # the other processes wait
        student.requires_grad_(False)
        n, erased = k + 1, self.people[: k + 1]
        if n == len(self.people) or (self.folds and self.measured(n)):
            measures = [self.lab.person(i, student) for i in erased]
            self.store(cost | self.row(n, erased, measures, student, start))
        else:
            measures = [self.lab.person(erased[-1], student)]
            if self.folds:
                self.store(cost)
        found = measures[-1]
        for p, trained in zip(student.parameters(), grad, strict=True):
            p.requires_grad_(trained)
        torch.set_num_threads(threads)
        self.clock.begin()
        return found

    def measured(self, n: int) -> bool:
        """Whether the row after n people is, in a run that does not end there."""
        return n <= DENSE or n in MARKS or n % self.every == 0

    def cost(self, n: int, person: int) -> dict[str, Any]:
        """Of person n's erasure. CPU seconds, like the peak, are the first process's alone."""
        clock = self.clock
        return {
            "k": n, "person": person, "steps": clock.steps, "erasure_cpu_s": round(clock.spent, 1),
            "erasure_s": round(clock.spent_wall, 1), "erasure_is_whole": clock.whole,
            "processes": self.processes.count, "threads": torch.get_num_threads(),
        }  # fmt: skip

    def row(
        self, n: int, erased: list[int], measures: list[PersonMeasure], student: EG3D, start: float
    ) -> dict[str, Any]:
        lab = self.lab
        row: dict[str, Any] = {
            "source": [round(m.after.cosine, 4) for m in measures],
            "source_verified": [round(m.after.verified, 4) for m in measures],
            "held_out": [round(m.others_after.cosine, 4) for m in measures if m.others_after],
            "held_out_verified": [round(m.others_after.verified, 4) for m in measures if m.others_after],
            "id": [round(m.guide, 4) for m in measures],
            "retained": lab.retained(student),
        }  # fmt: skip
        if n in MARKS:
            eraser = make_eraser(lab, self.recipe)
            row["neighbours"] = lab.neighbours(erased, student, eraser)
            row["lookalikes"] = lab.neighbours(erased, student, eraser, UNPROTECTED)
            row["collateral"] = lab.collateral(erased, student)
            self.checkpoint.keep(f"weights-{n}", {"synthesis": student.backbone.synthesis.state_dict()})
        return row | {"measuring_cpu_s": round(time.process_time() - start, 1), "peak_gib": peak_gib()}

    def drift(self) -> None:
        """Of the rows whose weights are kept."""
        for row in self.rows:
            kept = None if "drift" in row else self.checkpoint.kept(f"weights-{row['k']}")
            if kept is not None:
                student = self.lab.model().requires_grad_(False)
                student.backbone.synthesis.load_state_dict(kept["synthesis"])
                self.store(row | {"drift": self.lab.drift(student)})

    def add_memory(self, sequence: Sequence) -> None:
        """What the ledger would keep of each person, in bytes before sealing."""
        sizes = []
        for memory in sequence.memories:
            tensors = [memory.w_u, memory.w_t, *memory.tensors.values()]
            sizes.append(sum(t.numel() * t.element_size() for t in tensors if t is not None))
        self.rows[-1]["memory_bytes"] = sizes
        self.store(self.rows[-1])

    def store(self, row: dict[str, Any]) -> None:
        """In place of the row of as many people, unless that one was measured and this one is not."""
        if "source" not in row and any(r["k"] == row["k"] and "source" in r for r in self.rows):
            return
        self.rows = sorted([*(r for r in self.rows if r["k"] != row["k"]), row], key=lambda r: r["k"])
        print(self.file.stem, json.dumps(row), file=sys.stderr, flush=True)
        lines = ",\n  ".join(json.dumps(r) for r in self.rows)
        head = {
            "mode": self.mode,
            "device": self.lab.device.type,
            "options": dataclasses.asdict(self.recipe.sequence),
        }
        inputs = json.dumps(self.inputs())
        write(self.file, f'{json.dumps(head)[:-1]},\n "inputs": {inputs},\n "rows": [\n  {lines}\n ]}}\n')


def floor(lab: Lab) -> None:
    file = RESULTS / "floor.json"
    if not file.is_file() or json.loads(file.read_text())["model"] != lab.sha256:
        write(file, json.dumps({"model": lab.sha256, "drift": lab.floor()}, indent=1) + "\n")


def study_all(args: argparse.Namespace, processes: Processes) -> None:
    lab = Lab(RECIPE, args.device)
    for seed in args.seeds:
        for mode in args.modes:
            study = Study(lab, mode, seed, args.people, args.cache, args.every, processes)
            study.drift() if args.drift else study.run()
    if args.drift:
        floor(lab)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="which, by number")
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=1, help=f"after {DENSE} people measure every Nth row")
    parser.add_argument("--drift", action="store_true", help="FID and KID of what is erased already")
    parser.add_argument("--table", action="store_true", help="only write RESULTS.md and the plots")
    args = parser.parse_args()
    if args.every < 1:
        parser.error("--every is at least 1")
    if not args.table:
        with launched(args.device) as processes:
            study_all(args, processes)
    write_results(RESULTS, HERE)


if __name__ == "__main__":
    main()
