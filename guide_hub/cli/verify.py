"""guide-hub verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from guide_hub.attacks.registry import GROUPS, chosen, names
from guide_hub.cli import options
from guide_hub.cli.options import FILE, FOLDER

if TYPE_CHECKING:
    from guide_hub.verify import Check


@click.command("verify")
@click.argument("repo")
@click.option("--revision", help="Branch, tag or commit.")
@click.option("--request", type=FILE, help="Maintainer: check the commitments and measure again.")
@click.option(
    "--attack", "attacks", multiple=True, type=click.Choice([*GROUPS, *names()]), metavar="NAME",
    help="With --request: search the model for the person; repeatable. quick, all, or one of: "
    + ", ".join(names()) + ".",
)  # fmt: skip
@click.option(
    "--budget", type=click.Choice(["quick", "full"]),
    help="How long an attack searches. Default: full, but for --attack quick.",
)  # fmt: skip
@click.option("--base", help="With --request: the base, where the record's was a folder.")
@click.option("--state", type=FOLDER, help="With --request: where the key is.")
@options.device
@click.option("--report", type=FOLDER, help="An HTML page for the public; with --request a private one too.")
@options.as_json
@options.quiet
def command(
    repo: str,
    revision: str | None,
    request: Path | None,
    attacks: tuple[str, ...],
    budget: str | None,
    base: str | None,
    state: Path | None,
    device: str,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check that a model is what its record says: files, card, licence, and the chain back to its base.

    Needs no key and no photos, and does not show that the figures are honest: --request does, for those who
    have both. What can't be reached is "unchecked". Exit code 3 where a check failed.
    """
    from guide_hub import hub
    from guide_hub.cli import output
    from guide_hub.errors import RefusedError
    from guide_hub.record import keep_apart
    from guide_hub.verify import verify

    if attacks and request is None:
        raise click.UsageError("--attack needs --request: an attack is told by the person's photos")
    source = hub.resolve(repo, revision)
    if report is not None and source.kind == "folder":
        keep_apart(report, source.folder, what="the report may show people's faces", option="--report")
    found, measured = verify(source), []
    if request is not None:
        from guide_hub.attacks.budget import FULL, QUICK
        from guide_hub.remeasure import remeasure

        quick = budget == "quick" or (budget is None and set(attacks) == {"quick"})
        limits = QUICK if quick else FULL
        progress = output.progress(quiet)
        measured = remeasure(found, source, request, base, state, device, progress, chosen(attacks), limits)
    if report is not None:
        from guide_hub.html.verification import write_verification

        options = {"request": request, "base": base, "state": state, "device": device, "report": report}
        write_verification(report, found, source, measured, options)
    if found.failed:
        names = ", ".join(check.name for check in found.failed)
        refused = RefusedError(f"{len(found.failed)} of {len(found.checks)} checks failed: {names}")
        if as_json:
            refused.report = found
        else:
            _show(found.checks)
        raise refused
    if as_json:
        output.write_json(found.to_dict())
    else:
        _show(found.checks)


def _show(checks: list[Check]) -> None:
    """A table that fits 80 columns."""
    import textwrap

    names = max(len(check.name) for check in checks)
    colours = {"passed": "green", "failed": "red", "unchecked": "yellow"}
    for check in checks:
        status = click.style(f"{check.status:9}", colours[check.status], bold=check.status == "failed")
        detail = "".join(c if c.isprintable() else "?" for c in check.detail)
        first, *more = textwrap.wrap(detail, 80 - names - 13) or [""]
        click.echo(f"{check.name:{names}}  {status}  {first}")
        for line in more:
            click.echo(" " * (names + 13) + line)
