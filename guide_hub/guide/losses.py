"""GUIDE's losses between a student and a frozen teacher (section 3.3): tri-plane L2, perceptual, identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from guide_hub.eg3d import EG3D
from guide_hub.faces.identity import IdentityEncoder
from guide_hub.faces.perceptual import PerceptualDistance
from guide_hub.recipe import Speed


@dataclass(frozen=True)
class Weights:
    """Factors of the three terms of L_local (released code: 1e-2, 1, 0.1), and of ours."""

    l2: float
    perceptual: float
    identity: float
    repulsion: float = 0.0

    def times(self, factor: float) -> Weights:
        return Weights(*(factor * weight for weight in astuple(self)))


@dataclass(frozen=True)
class View:
    """One side of a pair: raw tri-planes [N, 3, C, P, P] and the picture [N, 3, H, W] in [-1, 1]."""

    planes: Tensor
    image: Tensor


@dataclass(frozen=True)
class Aim:
    """What the losses need of the teacher's view; None where they carry no weight.

    `maps` are the perceptual network's features of `image`, and may be left out: they are large.
    """

    planes: Tensor | None
    image: Tensor | None
    maps: list[Tensor] | None
    embedding: Tensor | None  # [N, E]

    @property
    def maps_size(self) -> int:
        """In bytes."""
        return sum(part.nbytes for part in self.maps or [])

    def alone(self) -> Aim:
        """With tensors of its own: a part of a batch keeps all of it in memory."""
        planes, image, embedding = (
            None if x is None else x.clone() for x in (self.planes, self.image, self.embedding)
        )
        return Aim(planes, image, self.maps and [maps.clone() for maps in self.maps], embedding)


@dataclass(frozen=True)
class Away:
    """The person whom pictures must not look like: unit embeddings [V, E], and the cosine that is free."""

    person: Tensor
    above: float


@dataclass(frozen=True)
class Rendering:
    """How one chunk's two sides are rendered.

    `seed` drives noise and ray jitter where those are random, so every chunk of a step needs its own.
    `paired`: both sides draw the same. `rays`: pixels a side before super-resolution, None: the model's.
    """

    noise_mode: str = "const"
    deterministic: bool = True
    paired: bool = True
    seed: int = 0
    rays: int | None = None


def view(model: EG3D, ws: Tensor, c: Tensor, how: Rendering, side: int) -> View:
    """Planes once per latent, then the picture from them. `side` separates the draws of unpaired noise."""
    generator = torch.Generator().manual_seed(how.seed if how.paired else how.seed + 1 + side)
    planes = model.planes(ws, noise_mode=how.noise_mode, generator=generator)
    out = model.render(
        planes, ws, c.expand(len(ws), -1), deterministic=how.deterministic, generator=generator,
        neural_rendering_resolution=how.rays,
    )  # fmt: skip
    return View(planes, out["image"])


class PairLoss:
    """The three distances of L_local, one figure a pair: {"l2", "perceptual", "identity"} [N] each.

    L2 is the mean squared error over the raw planes (released code; the paper writes a squared norm).
    Identity is `1 - cos`. A distance without a weight is left out.
    """

    def __init__(self, perceptual: PerceptualDistance, identity: IdentityEncoder, speed: Speed | None = None):
        self.perceptual = perceptual
        self.identity = identity
        self.maps_of: Callable[[Tensor], list[Tensor]] = quickened(perceptual.features, speed or Speed())
        self.embed: Callable[[Tensor], Tensor] = quickened(identity, speed or Speed())

    @torch.no_grad()
    def aim(self, teacher: View, weights: Weights) -> Aim:
        """The teacher's side, without a graph. It serves any number of students."""
        (aim,) = self.aims(teacher, [(len(teacher.image), weights)])
        return aim

    @torch.no_grad()
    def aims(self, teacher: View, parts: Sequence[tuple[int, Weights]]) -> list[Aim]:
        """The same of a batch: its first so many latents under the first weights, the next, and so on."""
        sizes = [size for size, _ in parts]
        planes, images = (split(x, sizes) for x in (teacher.planes, teacher.image))
        maps, embeddings = self._seen(
            teacher.image, sizes, any(w.perceptual for _, w in parts), any(w.identity for _, w in parts)
        )
        return [
            Aim(
                planes[i] if weights.l2 else None,
                images[i] if weights.perceptual else None,
                maps[i] if weights.perceptual else None,
                embeddings[i] if weights.identity else None,
            )
            for i, (_, weights) in enumerate(parts)
        ]

    def __call__(self, student: View, aim: Aim, away: Away | None = None) -> dict[str, Tensor]:
        """With `away`, "repulsion" too: how far the mean cosine to the person's views is over the free."""
        (terms,) = self.batch(student, [(len(student.image), aim, away)])
        return terms

    def batch(self, student: View, parts: Sequence[tuple[int, Aim, Away | None]]) -> list[dict[str, Tensor]]:
        """The same of a batch, whose latents belong to the parts in turn. The networks see all at once."""
        sizes = [size for size, _, _ in parts]
        planes = split(student.planes, sizes)
        maps, embeddings = self._seen(
            student.image,
            sizes,
            any(aim.image is not None for _, aim, _ in parts),
            any(aim.embedding is not None or away is not None for _, aim, away in parts),
        )
        found = []
        for i, (_, aim, away) in enumerate(parts):
            terms = {}
            if aim.planes is not None:
                terms["l2"] = (planes[i] - aim.planes).square().flatten(1).mean(1)
            if aim.image is not None:
                with torch.no_grad():
                    theirs = aim.maps or self.maps_of(aim.image)
                terms["perceptual"] = self.perceptual.distance(maps[i], theirs)
            if aim.embedding is not None:
                terms["identity"] = 1 - (embeddings[i] * aim.embedding).sum(1)
            if away is not None:
                terms["repulsion"] = ((embeddings[i] @ away.person.T).mean(1) - away.above).clamp(min=0)
            found.append(terms)
        return found

    def _seen(
        self, images: Tensor, sizes: list[int], perceptual: bool, identity: bool
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Each part's feature maps and embeddings, empty where they are not wanted."""
        stages = [split(maps, sizes) for maps in self.maps_of(images)] if perceptual else []
        by_part = [[maps[i] for maps in stages] for i in range(len(sizes))]
        return by_part, split(self.embed(images), sizes) if identity else []


def quickened(network: Callable[[Tensor], Any], speed: Speed) -> Callable[[Tensor], Any]:
    """A frozen network as the recipe's `speed` wants it. What it gives is float32."""
    if speed.compile:
        network = torch.compile(network)
    if speed.precision != "bfloat16":
        return network

    def half(images: Tensor) -> Any:
        with torch.autocast(images.device.type, torch.bfloat16):
            found = network(images)
        return [maps.float() for maps in found] if isinstance(found, list) else found.float()

    return half


@contextmanager
def products(speed: Speed) -> Iterator[None]:
    """CUDA's matrix products in TF32, where the recipe wants that. Convolutions are by PyTorch's default."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = before or speed.precision != "float32"
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def split(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """x along its first axis; a single part is x itself, since even a split's gradient is a copy."""
    return [x] if len(sizes) == 1 else list(x.split(sizes))


def weighted(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """`l_L2 * L_2 + l_per * L_per + l_id * L_id`, and our own terms, for each pair: [N]."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum(0)
