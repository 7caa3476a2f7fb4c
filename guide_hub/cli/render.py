"""guide-hub render"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("render")
@click.argument("repo")
@click.option("--revision", help="Branch, tag or commit.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The PNG to write."
)
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(1, 256), help="How many people.")
@click.option("--views", default=7, show_default=True, type=click.IntRange(1, 64), help="How many yaws each.")
@click.option("--yaw", default=40.0, show_default=True, help="Largest yaw, in degrees.")
@click.option("--truncation-psi", default=1.0, show_default=True)
def command(
    repo: str, revision: str | None, out: Path, seeds: int, views: int, yaw: float, truncation_psi: float
) -> None:
    """A contact sheet: one row a random person, one column a yaw."""
    import math

    import torch

    from guide_hub import hub
    from guide_hub.eg3d import EG3D
    from guide_hub.eg3d.camera import camera_label
    from guide_hub.evaluation.views import render_views
    from guide_hub.sheets import sheet

    model = EG3D.from_pretrained(str(hub.resolve(repo, revision).folder)).eval().requires_grad_(False)
    yaws = torch.linspace(-1, 1, views) * math.radians(yaw) if views > 1 else torch.zeros(1)
    c = camera_label(yaws, -0.1, pivot=model.config.rendering.avg_camera_pivot)
    rows = {}
    for seed in range(seeds):
        z = torch.randn(1, model.config.z_dim, generator=torch.Generator().manual_seed(seed))
        ws = model.mapping(z, camera_label(0.0), truncation_psi=truncation_psi)
        rows[f"seed {seed}"] = render_views(model, ws, c)[0]
    sheet(rows).save(out)
