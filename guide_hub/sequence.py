"""Many identities, in the stages of a mode, each folded into the weights; resumable.

On the CPU a resumed run ends in the same bytes as one that was never stopped. On CUDA and MPS some backward
kernels are not deterministic, so two runs agree only up to rounding.

The teacher of every mode is the original, the model from before its first erasure: others are held to what it
shows of them, surrogates are faces of it, and `joint` and `merge` begin with its weights, so that nothing
drifts from run to run. It still shows the people who were erased before: what keeps them erased is the mode's
matter (`guide_hub.modes`). That takes an original that can be had, and a ledger that knows everybody on the
record, or the rest would be taught anew. Without either the teacher is the model as it was pulled, and the
record says so.

A person is to be found where they are shown, in the model that was pulled: who is gone there already is no
match, whatever the original shows. There too all figures before are taken, so that they are of the base that
the record names. The latent is the same place in both, since no erasure changes the mapping.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from guide_hub.checkpoint import Checkpoint
from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.evaluation.identity import Likeness, PersonMeasure
from guide_hub.guide.eraser import Erasure, StepLosses
from guide_hub.interrupt import Stopper
from guide_hub.modes import Done, Memory, Mode, Setup, Stage, make_mode
from guide_hub.networks import Networks
from guide_hub.processes import Processes
from guide_hub.recipe import Recipe

SAVE_EVERY = 25  # steps


class Progress(Protocol):
    """What a person sees of a run. Identities go by their opaque ids."""

    def stage(self, text: str) -> None: ...
    def advance(self, text: str, share: float) -> None: ...
    def warn(self, text: str) -> None: ...
    def start(self, identity: str, steps: int, done: int) -> None: ...
    def step(self, step: int, losses: StepLosses) -> None: ...
    def finish(self) -> None: ...


class Sequence:
    """Erases latents `w_u` (one [1, num_ws, w_dim] an identity) from `student` as the recipe's mode says.
    Where photos of the person lie may come after it: [1 + P, num_ws, w_dim].

    `measure(k, student)` is asked once for each identity: after its stage, or at the end where only that has
    it out of the weights. Its answers survive in the checkpoint with the weights. `progress_state` adds what
    the caller needs on resuming, such as the latents themselves. `earlier` are the identities of runs before,
    in their order; `original` says that the teacher is the model from before all of them. `kin`: see
    `guide_hub.guide.kin`; where the recipe needs it and it is None, it is made.

    `survey(people, student)`, optional, is asked after every stage but the last that has its people out of
    the weights: plain values, kept as the measures are. After `run`: `erased`, `memories` and `measured`, one
    for each identity of this run; `earlier` as it is then, for a surrogate may have moved; for each such
    stage its people in `steps`, and its answer in `surveys`.
    """

    def __init__(
        self,
        student: EG3D,
        teacher: EG3D,
        recipe: Recipe,
        networks: Networks,
        seed: int,
        checkpoint: Checkpoint,
        stopper: Stopper,
        progress: Progress,
        progress_state: dict[str, Any],
        processes: Processes | None = None,
        earlier: Iterable[Memory] = (),
        original: bool = True,
        kin: Tensor | None = None,
    ):
        processes, device = processes or Processes.alone(), teacher.w_avg.device
        self.student, self.checkpoint, self.stopper, self.progress = student, checkpoint, stopper, progress
        self.progress_state = progress_state
        self.setup = Setup(
            student,
            teacher,
            recipe,
            networks.perceptual,
            networks.identity_loss,
            seed,
            [_memory_on(device, memory) for memory in earlier],
            processes.backward,
            original,
            kin,
            progress.warn,
        )
        self.erased: list[Erasure] = []
        self.memories: list[Memory] = []
        self.earlier: list[Memory] = []
        self.measured: list[PersonMeasure] = []
        self.steps: list[list[int]] = []
        self.surveys: dict[int, dict[str, Any]] = {}
        self.spent: list[float] = []  # seconds of each stage
        self._since = 0.0

    def run(
        self,
        ids: list[str],
        latents: list[Tensor],
        measure: Callable[[int, EG3D], PersonMeasure],
        saved: dict[str, Any] | None,
        survey: Callable[[list[int], EG3D], dict[str, Any]] | None = None,
    ) -> None:
        """Everything that `saved` has not done yet. Raises `Stopped` after saving when a signal came.

        InputError: the mode cannot do without what the earlier identities' memories lack.
        """
        mode = make_mode(self.setup, latents)
        stages, first, step = mode.stages(), 0, 0
        if saved is not None and "stage" in saved:
            first, step = saved["stage"], saved["step"]
            self.student.backbone.synthesis.load_state_dict(saved["synthesis"])
            self.measured = [_measure_from(m) for m in saved["measured"]]
            self.surveys, self.spent = saved.get("surveys", {}), saved.get("spent", [])
        for s, stage in enumerate(stages):
            if s < first:
                mode.recall(self._kept(s))
                continue
            self.spent += [0.0] * (s + 1 - len(self.spent))
            self._since = time.monotonic()
            label = _label(stage, ids)
            mode.begin(stage)
            if s == first and saved is not None and "optimizer" in saved:
                mode.load_state(saved)
            else:
                if mode.preparing:
                    self.progress.stage(f"{mode.preparing} {label}")
                mode.prepare()
                if mode.own_state():
                    self._save(s, 0, mode.state())
            self._erase(s, label, mode, step if s == first else 0)
            mode.end()
            self._clock()
            self._keep(s, mode.kept())
            if mode.folds:
                self._measure(list(stage), ids, measure)
                if survey is not None and s + 1 < len(stages):
                    self.progress.stage("measuring everybody erased so far")
                    self.surveys[s] = survey(list(stage), self.student)
            self._save(s + 1, 0)
        mode.finish()
        if len(self.measured) < len(ids):
            self._measure(list(range(len(self.measured), len(ids))), ids, measure)
            self._save(len(stages), 0)
        self.steps = [list(stage) for stage in stages] if mode.folds else [list(range(len(ids)))]
        self.erased = [mode.done[k].erasure for k in range(len(ids))]
        self.memories, self.earlier = mode.memories(), mode.earlier

    def seconds_each(self, step: int) -> float:
        """What one of `steps` took for each of its people, with what was done again of earlier ones."""
        spent = self.spent[step] if len(self.steps) == len(self.spent) else sum(self.spent)
        return spent / len(self.steps[step])

    def _clock(self) -> None:
        now = time.monotonic()
        self.spent[-1] += now - self._since
        self._since = now

    def _measure(
        self, people: list[int], ids: list[str], measure: Callable[[int, EG3D], PersonMeasure]
    ) -> None:
        for k in people:
            self.progress.stage(f"measuring {ids[k]}")
            self.measured.append(measure(k, self.student))

    def _erase(self, s: int, label: str, mode: Mode, done: int) -> None:
        total = mode.total()
        self.progress.start(label, total, done)
        try:
            with self.stopper.step():  # a signal waits for the loop to save: no step is lost
                step = done
                while not mode.finished(step):
                    losses = mode.step(step)
                    step += 1
                    self.progress.step(step, losses)
                    asked = self.stopper.signum is not None
                    if asked or step == total or step % SAVE_EVERY == 0:
                        self._save(s, step, mode.state())
                    if asked:
                        break
            self.stopper.raise_if_asked()
        finally:
            self.progress.finish()

    def _save(self, stage: int, step: int, inside: dict[str, Any] | None = None) -> None:
        """`inside`: the state inside the stage; between two there is none but the weights."""
        if inside is not None:
            self._clock()
        self.checkpoint.save(
            {
                **self.progress_state,
                "stage": stage,
                "step": step,
                **(inside or {"synthesis": self.student.backbone.synthesis.state_dict()}),
                "measured": [asdict(m) for m in self.measured],
                "surveys": self.surveys,
                "spent": self.spent,
            }
        )

    def _keep(self, stage: int, done: dict[int, Done]) -> None:
        people = {
            k: {
                "w_u": d.erasure.w_u, "w_t": d.erasure.w_t, "photos": d.erasure.photos, "tensors": d.tensors
            }
            for k, d in done.items()
        }  # fmt: skip
        self.checkpoint.keep(f"stage-{stage}", {"people": people})

    def _kept(self, stage: int) -> dict[int, Done]:
        kept = self.checkpoint.kept(f"stage-{stage}")
        if kept is None:
            raise InputError("the progress of this run is not whole", remedy="begin again with --no-resume")
        device = self.setup.teacher.w_avg.device

        return {
            k: Done(Erasure(d["w_u"].to(device), d["w_t"].to(device), _on(device, d["photos"])), d["tensors"])
            for k, d in kept["people"].items()
        }


def _label(stage: Stage, ids: list[str]) -> str:
    if len(stage) > 1:
        return f"{len(stage)} people"
    return ids[stage[0]] if stage[0] >= 0 else "a person of an earlier run"


def _memory_on(device: torch.device, memory: Memory) -> Memory:
    """The latents on the run's device; the mode's own tensors, which may be large, stay where they are."""
    w_u, w_t, photos = (_on(device, w) for w in (memory.w_u, memory.w_t, memory.photos))
    return replace(memory, w_u=w_u, w_t=w_t, photos=photos)


def _on(device: torch.device, w: Tensor | None) -> Tensor | None:
    return None if w is None else w.to(device)


def _measure_from(saved: dict[str, Any]) -> PersonMeasure:
    likeness = {
        key: Likeness(**value) if isinstance(value, dict) else value
        for key, value in saved.items()
        if key != "guide"
    }
    return PersonMeasure(guide=saved["guide"], **likeness)


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. InputError for a device that this machine does not have."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, here in present.items() if here))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device {name!r}", remedy="use auto, cpu, cuda or mps") from None
    if not present.get(device.type) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise InputError(f"this machine has no {name}", remedy="use --device auto or --device cpu")
    return device
