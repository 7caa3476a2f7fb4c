"""Is a photo good enough to find a person by, and does a request put the same person's photos together?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from guide_hub.errors import Problem
from guide_hub.faces.alignment import eg3d_crop
from guide_hub.faces.pose import Pose
from guide_hub.request import Identity

# In degrees. Beyond 60 five landmarks cannot tell a half profile from a full one (renders at 90 degrees are
# fitted at 69 to 73), one eye is hidden, and EG3D saw hardly any such picture.
MAX_YAW, MAX_PITCH, MAX_ROLL = 60, 35, 35

# Real photos have 0.98 to 1.7. Below are blurs of 4 pixels (one sigma) in EG3D's 512 and faces enlarged from
# 24 pixels; motion over 25 of the 512 too.
MIN_SHARPNESS = 0.7
SHARPNESS_SIZE = 128  # pixels a crop: a face of MIN_SIZE is not enlarged yet
FACE = (28, 12, 100, 108)  # left, top, right, bottom of the face in it


def sharpness(image: Image.Image, points: np.ndarray) -> float:
    """How fine the face's detail is: root mean square of its second over its first differences.

    Measured at 128 pixels a crop in four directions, of which the least counts, for motion blurs along one.
    A frequency in radians a pixel, so neither contrast nor the photo's size matters.
    """
    crop = eg3d_crop(image, points, SHARPNESS_SIZE).image.crop(FACE).convert("L")
    x = np.asarray(crop, np.float64)
    height, width = x.shape
    middle = x[1:-1, 1:-1]
    least = math.inf
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        after = x[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        before = x[1 - down : height - 1 - down, 1 - right : width - 1 - right]
        slope = np.square((after - before) / 2).mean()
        bend = np.square(after + before - 2 * middle).mean()
        least = min(least, math.sqrt(bend / slope) if slope else 0.0)
    return least


def faults(pose: Pose, sharp: float) -> list[Problem]:
    """Why a crop of that pose and sharpness cannot be used; empty if it can."""
    yaw, pitch, roll = (abs(math.degrees(angle)) for angle in (pose.yaw, pose.pitch, pose.roll))
    found = []
    if yaw > MAX_YAW:
        found.append(
            Problem(
                f"shows a head turned aside by about {yaw:.0f} degrees (at most {MAX_YAW})",
                "use a photo in which both eyes are seen",
            )
        )
    if pitch > MAX_PITCH:
        where = "above" if pose.pitch > 0 else "below"
        found.append(
            Problem(
                f"shows a head seen from {where} by about {pitch:.0f} degrees (at most {MAX_PITCH})",
                "use a photo taken at the height of the face",
            )
        )
    if roll > MAX_ROLL:
        found.append(
            Problem(
                f"shows a head tilted by about {roll:.0f} degrees (at most {MAX_ROLL})",
                "turn the photo until the head is upright",
            )
        )
    if sharp < MIN_SHARPNESS:
        found.append(
            Problem(
                f"shows a blurred face (sharpness {sharp:.2f}, at least {MIN_SHARPNESS:.2f})",
                "use a sharper photo",
            )
        )
    return found


def check_people(
    identities: Sequence[Identity], embeddings: Sequence[Tensor], threshold: float
) -> list[Problem]:
    """Photos of somebody else within an identity, and one person under two identities, at their places.

    `embeddings`: unit vectors [photos, E] an identity, of the recogniser whose `threshold` is the cosine that
    strangers seldom reach. Doubt speaks for the request: a quarter of the way from the threshold to 1 on
    either side of it decides nothing. Photos linked by cosines above the lower line are one person; the
    identity's is the largest such group, the first of equals. Two identities are one person where the mean
    cosine between their groups reaches the upper line.
    """
    margin = (1 - threshold) / 4
    different, same = threshold - margin, threshold + margin
    vectors = [e.detach().double().cpu().numpy() for e in embeddings]
    groups = [_largest_group(v @ v.T >= different) for v in vectors]
    problems = []
    for i, (identity, v, group) in enumerate(zip(identities, vectors, groups, strict=True)):
        for k, photo in enumerate(identity.images):
            if k in group:
                continue
            best = float((v[group] @ v[k]).max())
            message = f"shows another person than {_named(identity, group)}"
            like = [
                other.label
                for j, other in enumerate(identities)
                if j != i and (vectors[j][groups[j]] @ v[k]).mean() >= threshold
            ]
            if like:
                message += f", somebody like {like[0]}"
            message += f" (cosine {best:.2f}, at least {different:.2f})"
            problems.append(photo.problem(message, "remove it, or give it an identity of its own"))
        for j in range(i):
            cosine = float((v[group] @ vectors[j][groups[j]].T).mean())
            if cosine >= same:
                message = f"shows the person of {identities[j].label} (cosine {cosine:.2f}, below {same:.2f})"
                remedy = "put one person's photos under one identity of one request"
                problems.append(identity.images[group[0]].problem(message, remedy))
    return problems


def _named(identity: Identity, group: list[int]) -> str:
    if len(group) > 1:
        return f"{len(group)} others of this identity"
    return identity.images[group[0]].key


def _largest_group(linked: np.ndarray) -> list[int]:
    """Of the groups that links [N, N] connect, the largest, the first of equals: its members in order."""
    left = list(range(len(linked)))
    best: list[int] = []
    while left:
        group = [left.pop(0)]
        for member in group:  # grows while it is read
            found = [k for k in left if linked[member, k]]
            group += found
            left = [k for k in left if k not in found]
        best = group if len(group) > len(best) else best
    return sorted(best)
