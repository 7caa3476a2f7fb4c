"""Contact sheets: rows of renders under captions, and private ones of photos and inversions."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import save
from torch import Tensor

from guide_hub import private
from guide_hub.eg3d import EG3D
from guide_hub.evaluation.views import render_views, yaw_cameras
from guide_hub.faces.crops import to_tensor

if TYPE_CHECKING:
    from guide_hub.inversion import Person
    from guide_hub.people import Subject
    from guide_hub.recipe import Camera

LABEL = 16  # pixels of a caption


def sheet(rows: dict[str, Tensor], scale: int = 1) -> Image.Image:
    """Rows of pictures [N, 3, H, W] in [-1, 1], each under its caption."""
    height, width = next(iter(rows.values())).shape[2:]
    columns = max(len(images) for images in rows.values())
    picture = Image.new("RGB", (columns * width * scale, len(rows) * (height * scale + LABEL)), "white")
    draw = ImageDraw.Draw(picture)
    for r, (caption, images) in enumerate(rows.items()):
        top = r * (height * scale + LABEL)
        draw.text((3, top + 2), caption, fill="black")
        for i, image in enumerate(images):
            tile = to_picture(image)
            if scale != 1:
                tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            picture.paste(tile, (i * width * scale, top + LABEL))
    return picture


def to_picture(image: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] -> RGB picture."""
    pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def write_inversion_sheet(
    folder: Path, subject: Subject, person: Person, model: EG3D, camera: Camera
) -> None:
    """A row a photo: photo, crop, the model's picture from the photo's camera, and from three yaws.

    The fitted photos' pictures are at the latent that would be erased.
    """
    yaws = yaw_cameras(model, camera, 3)
    size = model.config.img_resolution
    rows = {}
    for k, face in enumerate(subject.faces):
        fitted = k < person.fitted
        ws = person.latent if fitted else person.ws[k : k + 1]
        views = render_views(model, ws, torch.cat([person.c[k : k + 1], yaws]))[0]
        whole = ImageOps.pad(face.photo.open(), (size, size), color="white")
        caption = f"{face.key}, {'fitted' if fitted else 'held out'}, cosine {person.quality.cosine[k]:.2f}"
        photo = to_tensor(np.asarray(whole)).to(views)
        rows[caption] = torch.cat([photo[None], face.image[None], views])
    scale = max(1, 256 // size)
    _save_private(sheet(rows, scale), folder / f"{subject.identity.id}-inversion.png")


def write_latents(folder: Path, latents: dict[str, Tensor]) -> None:
    """latents.safetensors: by identity what would be erased, [1, num_ws, w_dim]."""
    tensors = {name: ws.detach().cpu().contiguous() for name, ws in latents.items()}
    private.write(folder / "latents.safetensors", save(tensors))


def _save_private(picture: Image.Image, path: Path) -> None:
    file = BytesIO()
    picture.save(file, "PNG")
    private.write(path, file.getvalue())
