"""Renders as data URIs: single tiles, strips of views, and turntables that move only on demand."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image
from torch import Tensor

from guide_hub.html.page import Picture
from guide_hub.sheets import to_picture

PIXELS = 256  # of a tile's side in the file, at most
SHOWN = 128  # CSS pixels of a tile in a strip
LARGE = 224  # of a tile that stands alone
QUALITY = 82
FRAME = 90  # milliseconds of a turntable's frame


def tile(image: Tensor, caption: str, alt: str, shown: int = LARGE) -> Picture:
    """One image [3, H, W] in [-1, 1]."""
    return Picture(uri(_small(image)), shown, shown, alt, caption)


def strip(images: Tensor, caption: str, alt: str, shown: int = SHOWN) -> Picture:
    """Images [N, 3, H, W] side by side."""
    tiles = [_small(image) for image in images]
    side = tiles[0].width
    joined = Image.new("RGB", (side * len(tiles), side))
    for k, one in enumerate(tiles):
        joined.paste(one, (k * side, 0))
    return Picture(uri(joined), shown * len(tiles), shown, alt, caption)


def turntable(rows: Sequence[Tensor], caption: str, alt: str, shown: int = SHOWN) -> Picture:
    """Rows of views [V, 3, H, W] from left to right, beside each other: there and back, without end."""
    frames = []
    for views in zip(*rows, strict=True):
        tiles = [_small(view) for view in views]
        frame = Image.new("RGB", (sum(t.width for t in tiles), tiles[0].height))
        for k, one in enumerate(tiles):
            frame.paste(one, (k * one.width, 0))
        frames.append(frame)
    still, moving = frames[len(frames) // 2], frames + frames[-2:0:-1]
    file = BytesIO()
    moving[0].save(
        file, "WEBP", save_all=True, append_images=moving[1:], duration=FRAME, loop=0, quality=QUALITY
    )
    return Picture(_data(file.getvalue()), shown * len(rows), shown, alt, caption, still=uri(still))


def uri(picture: Image.Image) -> str:
    """A WebP file without metadata."""
    file = BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=6)
    return _data(file.getvalue())


def _data(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def _small(image: Tensor) -> Image.Image:
    picture = to_picture(image)
    side = min(PIXELS, max(picture.size))
    return picture if picture.size == (side, side) else picture.resize((side, side), Image.Resampling.LANCZOS)
