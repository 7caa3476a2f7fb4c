"""Each person from the original's weights, independently; their changes are merged by TIES at the end.

Without the original they are changes of the model as it was pulled: those of the people before are in it, and
these are of no use to a later run, which erases their people again.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from guide_hub.merge import apply, ties
from guide_hub.modes.base import Memory, Mode, Setup, Stage, require_people


class Merge(Mode):
    """A person's change is kept in the memory under the parameters' names, so that a later run can merge it.

    Whom a run before erased in another mode is erased again. One change alone is taken as it is.
    """

    folds = False
    from_original = True

    def __init__(self, setup: Setup, latents: list[Tensor]):
        super().__init__(setup, latents)
        self.before = self.earlier if setup.original else []  # whose changes are not in the teacher
        self.names = [name for name, _ in self.student.backbone.synthesis.named_parameters()]
        self.again = [
            k for k in range(-len(self.before), 0) if self.before[k].tensors.keys() != set(self.names)
        ]
        require_people([self.before[k] for k in self.again])

    def stages(self) -> list[Stage]:
        return [(k,) for k in [*self.again, *range(len(self.latents))]] if self.latents else []

    def left(self, k: int) -> dict[str, Tensor]:
        erased, original = (model.backbone.synthesis.state_dict() for model in (self.student, self.teacher))
        return {name: (erased[name] - original[name]).cpu() for name in self.names}

    def finish(self) -> None:
        if not self.latents:
            return
        everybody = range(-len(self.before), len(self.latents))
        changes = [self.done[k].tensors if k in self.done else self.before[k].tensors for k in everybody]
        merged = changes[0]
        if len(changes) > 1:
            merged = ties(changes, self.options.density, self.options.scale)
        original = self.teacher.backbone.synthesis.state_dict()
        device = self.teacher.w_avg.device
        weights = apply(original, {name: change.to(device) for name, change in merged.items()})
        self.student.backbone.synthesis.load_state_dict(weights)

    def memories(self) -> list[Memory]:
        kept = super().memories()
        return kept if self.setup.original else [replace(memory, tensors={}) for memory in kept]
