"""guide-hub check"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guide_hub.cli import options
from guide_hub.report import Report

if TYPE_CHECKING:
    from guide_hub.faces.crops import Reading

SIZE = 128  # pixels of the crops, which are not kept


@dataclass
class FacesReport(Report):
    """What --json says where photos are refused: the figures of all, beside the errors."""

    photos: list[dict[str, Any]] = field(default_factory=list)


@click.command("check")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--repo", "--repo-id", help="The model the request is meant for.")
@click.option("--faces", is_flag=True, help="Look for the face in every photo too.")
@options.as_json
def command(request: Path, repo: str | None, faces: bool, as_json: bool) -> None:
    """Validate a request and its photos, without any model."""
    from guide_hub.cli import output
    from guide_hub.errors import InputError
    from guide_hub.request import load_request

    found = load_request(request, repo)
    output.warn(found.warnings)
    photos = sum(len(i.images) for i in found.identities)
    identities = [{"identity_id": i.id, "photos": len(i.images)} for i in found.identities]
    answer: dict[str, Any] = {"status": "valid", "request_id": found.request_id, "identities": identities}
    if faces:
        import torch

        from guide_hub.faces.crops import read_photos

        readings = [r for person in read_photos(found.identities, SIZE, torch.device("cpu")) for r in person]
        answer["photos"] = rows = [_figures(r) for r in readings]
        if not as_json:
            _table(rows)
        problems = [p for r in readings for p in r.problems]
        if problems:
            refused = InputError(*problems)
            refused.report = FacesReport(status="error", request_id=found.request_id, photos=rows)
            raise refused
    if as_json:
        output.write_json(answer)
    else:
        click.echo(f"{found.request_id}: {len(identities)} identities, {photos} photos, valid")


def _figures(reading: Reading) -> dict[str, Any]:
    """A photo's figures; None where the search did not come that far. Angles in degrees, size in pixels."""
    face, pose = reading.face, reading.crop and reading.crop.pose
    return {
        "photo": reading.photo.key,
        "probability": face and round(face.probability, 4),
        "size": face and round(face.size),
        "yaw": pose and round(math.degrees(pose.yaw)),
        "pitch": pose and round(math.degrees(pose.pitch)),
        "sharpness": reading.sharpness and round(reading.sharpness, 2),
        "usable": not reading.problems,
    }


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("photo", "sure", "pixels", "yaw", "pitch", "sharp", "verdict"):
        table.add_column(name, justify="left" if name in ("photo", "verdict") else "right", no_wrap=True)
    for row in rows:
        sure = None if row["probability"] is None else f"{row['probability']:.2f}"
        sharp = None if row["sharpness"] is None else f"{row['sharpness']:.2f}"
        figures = (sure, row["size"], row["yaw"], row["pitch"], sharp)
        shown = ["-" if figure is None else str(figure) for figure in figures]
        table.add_row(row["photo"], *shown, "good" if row["usable"] else "refused")
    Console(highlight=False).print(table)
