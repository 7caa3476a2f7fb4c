"""guide-hub rebuild"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("rebuild")
@click.option("--repo", "--repo-id", required=True, help="The erased model: Hub id or folder.")
@click.option("--without", required=True, metavar="REQUEST/IDENTITY", help="Both ids of the erasure.")
@click.option("--reason", metavar="CODE", help="Why, for the public record; a code, no prose.")
@click.option("--revision", help="Branch, tag or commit of the erased model.")
@click.option("--base", help="The original, where the record's chain does not lead there.")
@click.option("--recipe", help="Recipe name or file; default: the model's own.")
@click.option("--output", type=FOLDER, help="Where the model goes; default ./NAME-rebuilt.")
@click.option("--push-to", metavar="REPO", help="Push to this repository.")
@click.option("--push/--no-push", default=None, help="Default: push when --repo is a Hub id.")
@click.option(
    "--create-pr/--no-create-pr", default=None, help="Default: a pull request when pushing to --repo."
)
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from a killed run.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--state", type=FOLDER, help="Key, ledger and progress of killed runs.")
@click.option("--license", type=FILE, help="Licence text of a model that has none.")
@click.option("--delete-other-weights", is_flag=True, help="Delete further weight files in the same commit.")
@click.option(
    "--replace-record", is_flag=True, help="Replace the target's record of other erasures, and its weights."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay.")
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing here asks.")
def command(repo: str, without: str, as_json: bool, quiet: bool, yes: bool, **settings: Any) -> None:
    """Make an erased model anew without one erasure: of a request that was withdrawn or wrong.

    Erases all others again from the original, with what the ledger in the state folder keeps of them,
    measures as erase does, and pushes the result in one commit. The record names what was withdrawn, and the
    model shows that person again. Only then the entry leaves the ledger.
    """
    from guide_hub.cli import output
    from guide_hub.processes import launched
    from guide_hub.rebuild import rebuild

    with launched(settings["device"]) as processes:
        report = rebuild(repo, without, progress=output.progress(quiet), processes=processes, **settings)
    if as_json:
        output.write_json(report.to_dict())
    elif report.plan is not None:
        people = ", ".join(f"{p['request_id']}/{p['identity_id']}" for p in report.plan["identities"])
        for line in output.subject_lines({**report.plan, "identities": people}):
            click.echo(line)
    elif report.status == "already_withdrawn":
        click.echo(f"{without} is withdrawn in this model's record; nothing to do")
    else:
        output.figures(report)
