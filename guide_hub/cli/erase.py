"""guide-hub erase"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("erase")
@click.option("--repo", "--repo-id", required=True, help="Hub id, folder or builtin:synthetic-heads.")
@click.option(
    "--request", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The takedown YAML."
)
@click.option("--revision", help="Branch, tag or commit of the model.")
@click.option("--recipe", help="Recipe name or file; default: the one that fits the model.")
@click.option("--output", type=FOLDER, help="Where the erased model goes; default ./NAME-erased.")
@click.option("--push-to", metavar="REPO", help="Push to this repository.")
@click.option("--push/--no-push", default=None, help="Default: push when --repo is a Hub id.")
@click.option(
    "--create-pr/--no-create-pr", default=None, help="Default: a pull request when pushing to --repo."
)
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from a killed run.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--report", type=FOLDER, help="Private sheets with the people's faces.")
@click.option("--state", type=FOLDER, help="Key and progress of killed runs.")
@click.option("--delete-other-weights", is_flag=True, help="Delete further weight files in the same commit.")
@click.option("--supersede", is_flag=True, help="Replace the target's record and weights.")
@click.option("--license", type=FILE, help="Licence text of a model that has none.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing here asks.")
def command(repo: str, request: Path, as_json: bool, quiet: bool, yes: bool, **settings: Any) -> None:
    """Take every person of a request out of a model, one after the other.

    Finds each person's latent from the photos, unlearns it with GUIDE, measures that the people are gone and
    everybody else is still there, writes a safetensors model with its card and record, and pushes it in one
    commit.
    """
    from guide_hub.cli import output
    from guide_hub.pipeline import erase

    report = erase(repo, request, progress=output.progress(quiet), **settings)
    if as_json:
        output.write_json(report.to_dict())
    elif report.plan is not None:
        for key, value in report.plan.items():
            click.echo(f"{key.replace('_', ' ')}: {value}")
    elif report.status == "already_erased":
        where = report.pushed["pr_url"] if report.pushed else "this model's record"
        click.echo(f"request {report.request_id} is already in {where}; nothing to do")
    else:
        output.figures(report)
