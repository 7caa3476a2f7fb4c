"""How much work the attacks may do: a minute or two a person, or half an hour."""

from __future__ import annotations

from dataclasses import dataclass

from guide_hub.eg3d import EG3D


@dataclass(frozen=True)
class Budget:
    """`rays`: the share of the model's rays a side that pictures are made of; 1 are those of the gate.

    views: `yaws` x `pitches`. neighbourhood: `ball` draws a radius and space, `line` points, `mixed` codes a
    group of layers. draws, retention: `draws` random people; of `candidates` the `lookalikes` most like the
    person. drift: of `drift_samples`. reflection: `mirror_steps` of its inversion. reinversion: `restarts` a
    photo of `photos`, `w_steps` in W and `wplus_steps` in W+, on so many `controls` and `strangers` too.
    relearning: `tuning_steps` on one photo, `tuning_controls` others, and `benign_steps` on random people.
    beacon: `beacon_restarts` of `beacon_steps`, and so many `decoys`.
    """

    rays: float = 1.0
    yaws: int = 11
    pitches: int = 3
    ball: int = 48
    line: int = 21
    mixed: int = 24
    draws: int = 5000
    candidates: int = 128
    lookalikes: int = 20
    drift_samples: int = 500
    mirror_steps: int = 100
    restarts: int = 4
    photos: int = 2
    w_steps: int = 150
    wplus_steps: int = 150
    controls: int = 2
    strangers: int = 2
    tuning_steps: int = 100
    tuning_controls: int = 19
    benign_steps: int = 50
    beacon_restarts: int = 20
    beacon_steps: int = 60
    decoys: int = 20

    def rays_of(self, model: EG3D) -> int | None:
        """The side of the pictures that the volume rendering makes; None: the model's own."""
        side = model.config.neural_rendering_resolution
        return None if self.rays >= 1 else max(round(side * self.rays), 1)


FULL = Budget()
QUICK = Budget(
    rays=0.75, ball=3, line=9, mixed=2, draws=80, candidates=8, lookalikes=4, drift_samples=50,
    mirror_steps=15, restarts=2, photos=1, w_steps=30, wplus_steps=20, controls=1, strangers=1,
    tuning_steps=30, tuning_controls=9, benign_steps=10, beacon_restarts=6, beacon_steps=20, decoys=5,
)  # fmt: skip
