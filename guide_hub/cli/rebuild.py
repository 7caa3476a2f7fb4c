"""guide-hub rebuild"""

from __future__ import annotations

from typing import Any

import click

from guide_hub.cli import options
from guide_hub.cli.options import FOLDER


@click.command("rebuild")
@click.option("--repo", "--repo-id", required=True, help="The erased model: Hub id or folder.")
@click.option("--without", required=True, metavar="REQUEST/IDENTITY", help="Both ids of the erasure.")
@click.option("--reason", metavar="CODE", help="Why, for the public record; a code, no prose.")
@click.option("--revision", help="Branch, tag or commit of the erased model.")
@options.base
@click.option("--recipe", help="Recipe name or file; default: the model's own.")
@click.option("--output", type=FOLDER, help="Where the model goes; default ./NAME-rebuilt.")
@options.push_to
@options.push
@options.create_pr
@options.resume
@options.device
@options.state
@options.license_text
@options.delete_other_weights
@options.replace_record
@options.dry_run
@options.as_json
@options.quiet
@options.yes
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
