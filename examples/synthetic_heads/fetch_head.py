"""Makes the renderer's head file from a checkout of the ICT Face Model (MIT, github.com/ICT-VGL/ICT-FaceKit).

    git clone https://github.com/ICT-VGL/ICT-FaceKit
    python fetch_head.py --source ICT-FaceKit --out face_model.safetensors

Keeps face, head and neck, and eyeballs: 14388 of the model's 26719 vertices. Offsets are the difference
of a shape's OBJ file to the neutral mesh; the checkout's identity shapes already are one standard
deviation long. The vertex order is the one that the project's README documents; its early commits order
vertices in another way and are refused.

Not run against the live download. It was written from the published README and files (their first
vertices agree with a head file that was made before), and checked on OBJ files written from that head
file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# (first, last) of the model's README: vertices and polygons
PARTS = {
    "face": ((0, 9408), (0, 9229)),
    "head and neck": ((9409, 11247), (9230, 11143)),
    "left sclera": ((21451, 22220), (21496, 22295)),
    "left iris": ((22221, 23020), (22296, 23093)),
    "right sclera": ((23021, 23790), (23094, 23893)),
    "right iris": ((23791, 24590), (23894, 24691)),
}
REGIONS = (0, 1, 2, 3, 4, 5)  # of the parts, in the file
VERTICES, POLYGONS = 26719, 26384
IDENTITIES = 60
EXPRESSIONS = (
    "jawOpen", "mouthSmile_L", "mouthSmile_R", "mouthFrown_L", "mouthFrown_R", "mouthPucker",
    "browInnerUp_L", "browInnerUp_R", "browDown_L", "browDown_R", "eyeBlink_L", "eyeBlink_R",
    "eyeSquint_L", "eyeSquint_R", "cheekPuff_L", "cheekPuff_R",
)  # fmt: skip
# The README's "Multi-PIE 68 point facial landmarks indices".
LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443,
    268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509,
    978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360,
    1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732,
    5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841,
    5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip


def read_vertices(path: Path) -> np.ndarray:
    """Vertices of an OBJ file: [26719, 3] float64. Raises ValueError at another count."""
    with path.open() as lines:
        rows = [line.split()[1:4] for line in lines if line.startswith("v ")]
    if len(rows) != VERTICES:
        raise ValueError(f"{path.name} has {len(rows)} vertices, the light ICT Face Model has {VERTICES}")
    return np.array(rows, np.float64)


def read_polygons(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Polygons [26384, 4], a triangle's last vertex repeated, and each vertex's last texture coordinate."""
    texture: list[list[str]] = []
    polygons: list[list[int]] = []
    uv = np.zeros((VERTICES, 2))
    with path.open() as lines:
        for line in lines:
            word, *rest = line.split() or [""]
            if word == "vt":
                texture.append(rest[:2])
            elif word == "f":
                corners = [[int(n or 0) for n in corner.split("/")] for corner in rest]
                polygon = [corner[0] - 1 for corner in corners]
                polygons.append(polygon + polygon[-1:] * (4 - len(polygon)))
                for corner in corners:
                    if len(corner) > 1 and corner[1]:
                        uv[corner[0] - 1] = [float(t) for t in texture[corner[1] - 1]]
    if len(polygons) != POLYGONS or any(len(polygon) != 4 for polygon in polygons):
        raise ValueError(f"{path.name} has not the light ICT Face Model's {POLYGONS} triangles and quads")
    return np.array(polygons, np.int64), uv


def convert(source: Path) -> dict[str, np.ndarray]:
    """The head file's tensors from a checkout's FaceXModel folder."""
    folder = source / "FaceXModel"
    neutral = read_vertices(folder / "generic_neutral_mesh.obj")
    polygons, uv = read_polygons(folder / "generic_neutral_mesh.obj")
    kept = np.concatenate([np.arange(first, last + 1) for (first, last), _ in PARTS.values()])
    place = np.full(VERTICES, -1)
    place[kept] = np.arange(len(kept))
    quads = np.concatenate([polygons[first : last + 1] for _, (first, last) in PARTS.values()])
    if (place[quads] < 0).any() or neutral[LANDMARKS[8]][1] > neutral[LANDMARKS[30]][1]:
        raise ValueError("the vertices come in another order than the README's: use the current main branch")

    def offsets(names: list[str]) -> np.ndarray:
        return np.stack([(read_vertices(folder / f"{name}.obj") - neutral)[kept] for name in names]).astype(
            np.float16
        )

    sizes = [last - first + 1 for (first, last), _ in PARTS.values()]
    return {
        "vertices": neutral[kept].astype(np.float32),
        "quads": place[quads].astype(np.int32),
        "uv": uv[kept].astype(np.float32),
        "identity": offsets([f"identity{i:03d}" for i in range(IDENTITIES)]),
        "expression": offsets(list(EXPRESSIONS)),
        "landmarks68": np.array(LANDMARKS, np.int32),
        "region": np.repeat(REGIONS, sizes).astype(np.uint8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="a checkout of ICT-FaceKit")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tensors = convert(args.source)
    save_file(tensors, args.out, metadata={"source": "ICT Face Model Light, USC ICT, MIT License"})
    print(f"{args.out}: " + ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items()))


if __name__ == "__main__":
    main()
