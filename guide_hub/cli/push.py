"""guide-hub push"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from guide_hub.cli import options


@click.command("push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "--push-to", "repo", required=True, metavar="REPO", help="The repository.")
@click.option(
    "--create-pr/--no-create-pr",
    default=None,
    help="Default: a pull request when pushing to the model's base, else a commit.",
)
@options.delete_other_weights
@options.replace_record
@options.supersede
@options.as_json
def command(folder: Path, repo: str, as_json: bool, **settings: Any) -> None:
    """Push a finished output folder in one commit. A folder whose record says FAILED is refused."""
    from guide_hub.cli import output
    from guide_hub.delivery import push_folder

    pushed = push_folder(folder, repo, **settings)
    if as_json:
        output.write_json({"status": "pushed", "pushed": vars(pushed)})
    else:
        click.echo(pushed.pr_url or pushed.commit)
