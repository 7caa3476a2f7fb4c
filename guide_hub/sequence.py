"""Many identities, one after the other, each folded into the weights; resumable.

On the CPU a resumed run ends in the same bytes as one that was never stopped. On CUDA and MPS some backward
kernels are not deterministic, so two runs agree only up to rounding.

The teacher is always the model as it was pulled. It still shows the people who were erased before, so their
local terms are replayed and their neighbourhoods leave the global samples (`guide.eraser`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor

from guide_hub.checkpoint import Checkpoint
from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.evaluation.identity import Likeness, PersonMeasure
from guide_hub.guide.eraser import Eraser, Erasure, StepLosses, step_seed
from guide_hub.interrupt import Stopper
from guide_hub.modes import Memory
from guide_hub.networks import Networks
from guide_hub.processes import Processes
from guide_hub.recipe import Recipe

SAVE_EVERY = 25  # steps


class Progress(Protocol):
    """What a person sees of a run. Identities go by their opaque ids."""

    def stage(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def start(self, identity: str, steps: int, done: int) -> None: ...
    def step(self, step: int, losses: StepLosses) -> None: ...
    def finish(self) -> None: ...


class Sequence:
    """Erases latents `w_u` (one [1, num_ws, w_dim] an identity) in order from `student`.

    `measure(k, student)` is asked once after identity k is done; its answers survive in the checkpoint with
    the weights. `progress_state` adds what the caller needs on resuming, such as the latents themselves.
    `earlier` are the identities of runs before, in their order; after `run`, `memories` are this run's.
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
    ):
        self.processes = processes or Processes.alone()
        self.student, self.teacher = student, teacher
        self.recipe, self.networks, self.seed = recipe, networks, seed
        self.checkpoint, self.stopper, self.progress = checkpoint, stopper, progress
        self.progress_state = progress_state
        device = teacher.w_avg.device
        people = [(m.w_u, m.w_t) for m in earlier if m.w_u is not None and m.w_t is not None]
        self.earlier = [Erasure(w_u.to(device), w_t.to(device)) for w_u, w_t in people]
        self.erased: list[Erasure] = []
        self.memories: list[Memory] = []
        self.measured: list[PersonMeasure] = []

    def run(
        self,
        ids: list[str],
        latents: list[Tensor],
        measure: Callable[[int, EG3D], PersonMeasure],
        saved: dict[str, Any] | None,
    ) -> None:
        """Everything that `saved` has not done yet. Raises `Stopped` after saving when a signal came."""
        first, step = 0, 0
        if saved and "synthesis" in saved:
            first, step = saved["identity"], saved["step"]
            self.student.backbone.synthesis.load_state_dict(saved["synthesis"])
            self.measured = [_measure_from(m) for m in saved["measured"]]
        for k, (identity, w_u) in enumerate(zip(ids, latents, strict=True)):
            eraser = self._eraser()
            erasure = eraser.target(w_u, seed=step_seed(self.seed, k, -2))
            if k >= first:
                if k == first and step and saved:
                    eraser.load_state({"synthesis": saved["synthesis"], "optimizer": saved["optimizer"]})
                self._erase_one(k, identity, eraser, erasure, step if k == first else 0)
                self.progress.stage(f"measuring {identity}")
                self.measured.append(measure(k, self.student))
                self._save(k + 1, 0, eraser)
            self.erased.append(erasure)
            self.memories.append(Memory(erasure.w_u, erasure.w_t, {}))

    def _eraser(self) -> Eraser:
        nets = self.networks
        return Eraser(
            self.student,
            self.teacher,
            self.recipe,
            nets.perceptual,
            nets.identity_loss,
            earlier=[*self.earlier, *self.erased],
            share=self.processes.backward,
        )

    def _erase_one(self, k: int, identity: str, eraser: Eraser, erasure: Erasure, done: int) -> None:
        total = self.recipe.optim.iterations
        self.progress.start(identity, total, done)
        try:
            with self.stopper.step():  # a signal waits for the loop to save: no step is lost
                step = done
                while not eraser.finished(erasure, step):
                    losses = eraser.step(erasure, eraser.draw_at(erasure, self.seed, k, step))
                    step += 1
                    self.progress.step(step, losses)
                    asked = self.stopper.signum is not None
                    if asked or step == total or step % SAVE_EVERY == 0:
                        self._save(k, step, eraser)
                    if asked:
                        break
            self.stopper.raise_if_asked()
        finally:
            self.progress.finish()

    def _save(self, identity: int, step: int, eraser: Eraser) -> None:
        self.checkpoint.save(
            {
                **self.progress_state,
                "identity": identity,
                "step": step,
                **eraser.state(),
                "measured": [asdict(m) for m in self.measured],
            }
        )


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
