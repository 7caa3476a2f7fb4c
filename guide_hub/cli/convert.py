"""guide-hub convert"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from guide_hub.cli import options
from guide_hub.cli.options import FILE


@click.command("convert")
@click.argument("file", metavar="PKL", type=FILE)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--network",
    default="G_ema",
    show_default=True,
    type=click.Choice(["G_ema", "G"]),
    help="Which generator.",
)
@click.option("--license-file", type=FILE, help="The licence's full text; it is not in the pickle.")
@click.option("--preset", metavar="NAME", help="What a plain state dict is, such as ffhq512-128.")
@click.option("--config", type=FILE, help="A config.json that says what a plain state dict is.")
@click.option(
    "--w-avg",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "checkpoint", "measured"]),
    help="Where the mean latent comes from; auto measures it where the checkpoint has none.",
)
@options.as_json
def command(file: Path, folder: Path, as_json: bool, **settings: Any) -> None:
    """Turn an official EG3D or GUIDE pickle into a model folder, running none of its code.

    Also reads plain .pt and .pth state dicts, which need --preset or --config. Without --license-file the
    folder has no licence, and nothing is erased from it before it has one.
    """
    from guide_hub.cli import output
    from guide_hub.convert import convert

    done = convert(file, folder, **settings)
    if not done.licensed:
        click.echo(
            "warning: no licence text was given: add it as LICENSE; do not publish the folder without it",
            err=True,
        )
    if as_json:
        output.write_json({"status": "converted", **vars(done)})
    else:
        what = done.preset or "unknown configuration"
        click.echo(f"{done.output}: {what}, {done.parameters:,} parameters, w_avg {done.w_avg}")
