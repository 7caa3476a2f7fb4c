"""guide-hub verify"""

from __future__ import annotations

from typing import Any

import click


@click.command("verify")
@click.argument("repo")
@click.option("--revision", help="Branch, tag or commit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(repo: str, revision: str | None, as_json: bool) -> None:
    """Check that a model's files are those of its hashes and record. Needs no key and no photos.

    Weights beside the erased ones count as a fault: they still show the people.

    Does not measure the model again, and cannot show that its figures are honest.
    """
    from guide_hub import hub, record
    from guide_hub.cli import output
    from guide_hub.errors import Problem, RefusedError

    source = hub.resolve(repo, revision)
    hub.require_licence(source)
    folder, listed = source.folder, record.read_sums(source.folder)
    problems = record.check_sums(folder)
    problems += [
        Problem(f"{name} is not listed in {hub.CHECKSUMS}")
        for name in hub.REQUIRED_FILES
        if name not in listed and name != hub.CHECKSUMS
    ]
    problems += [Problem(f"{name} may still show the erased people") for name in source.other_weights]
    statement = record.read_record(folder)
    problems += record.check_subject(statement, listed)
    older = previous_record(statement)
    if older is not None:
        problems += record.check_link(statement, older)
    if problems:
        raise RefusedError(*problems)
    erasures = [
        {"identity_id": e["identityId"], "result": e["result"]} for e in statement["predicate"]["erasures"]
    ]
    if record.overall(statement) == "FAILED":
        raise RefusedError("the files are whole, but the record says that an erasure did not meet its target")
    if as_json:
        output.write_json({"status": "verified", "erasures": erasures})
    else:
        click.echo(f"whole: {len(erasures)} erasures on record, files as SHA256SUMS and the record say")


def previous_record(statement: dict[str, Any]) -> bytes | None:
    """The record in the Hub base that the statement names; None for other bases, or where it can't be had."""
    from guide_hub import hub, record
    from guide_hub.errors import GuideHubError

    base = statement["predicate"]["base"]
    if not base["uri"].startswith("hf://"):
        return None
    try:
        return hub.read_file(base["uri"].removeprefix("hf://"), record.record.FILE, base.get("revision"))
    except GuideHubError:  # it has none, or is gated, deleted or offline: the rest is checked all the same
        return None
