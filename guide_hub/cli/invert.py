"""guide-hub invert"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from guide_hub.cli import options
from guide_hub.cli.options import FOLDER


@click.command("invert")
@click.argument("photos", nargs=-1, metavar="[PHOTO]...", type=click.Path(path_type=Path))
@options.repo
@click.option("--request", type=click.Path(dir_okay=False, path_type=Path), help="The takedown YAML.")
@options.revision
@options.recipe
@click.option("--report", type=FOLDER, help="Private sheets and latents.")
@options.device
@options.as_json
@options.quiet
def command(
    repo: str, request: Path | None, photos: tuple[Path, ...], as_json: bool, quiet: bool, **settings: Any
) -> None:
    """Find the latents of photos of one person, or of a request's people, and how well the model shows them.

    A sheet of --report has a row a photo: photo, crop, the model's picture from the photo's camera, and from
    three yaws. The latents are in latents.safetensors beside them.

    Exit code 2 names the photo that is another person in the model's eyes; 3: the model cannot show somebody.
    """
    from guide_hub.cli import output
    from guide_hub.errors import GuideHubError
    from guide_hub.invert import invert

    if (request is None) == (not photos):
        raise click.UsageError("give either photos of one person or --request")
    try:
        report = invert(repo, request, photos=photos, progress=output.progress(quiet), **settings)
    except GuideHubError as refused:
        if refused.report is not None and not as_json:
            _table(refused.report.photos)
        raise
    if as_json:
        output.write_json(report.to_dict())
    else:
        _table(report.photos)
        output.figures(report)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("photo", "use", "cosine", "distance"):
        table.add_column(name, justify="left" if name in ("photo", "use") else "right", no_wrap=True)
    for row in rows:
        use = "fitted" if row["fitted"] else "held out"
        table.add_row(row["photo"], use, f"{row['cosine']:.2f}", f"{row['perceptual']:.3f}")
    Console(highlight=False).print(table)
