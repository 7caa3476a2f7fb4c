"""guide-hub push"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("push")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "--push-to", "repo", required=True, metavar="REPO", help="The repository.")
@click.option("--create-pr/--no-create-pr", default=True, show_default=True, help="Open a pull request.")
@click.option("--delete-other-weights", is_flag=True, help="Delete further weight files in the same commit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(folder: Path, repo: str, create_pr: bool, delete_other_weights: bool, as_json: bool) -> None:
    """Push a finished output folder in one commit. A folder whose record says FAILED is refused."""
    from guide_hub import hub, record
    from guide_hub.cli import output
    from guide_hub.errors import RefusedError
    from guide_hub.pipeline import check_other_weights
    from guide_hub.publish import pull_request_body

    hub.check_folder(folder)
    statement = record.read_record(folder)
    if record.overall(statement) == "FAILED":
        raise RefusedError(
            "the record says that the target was not met", remedy="erase again with another recipe"
        )
    base = statement["predicate"]["base"]
    head = hub.preflight(repo, create_pr=create_pr, create_repo_if_missing=True)
    same = base["uri"] == f"hf://{repo}"
    if same:
        check_other_weights(head, delete_other_weights)
    ids = sorted({e["requestId"] for e in statement["predicate"]["erasures"]})
    pushed = hub.push(
        folder,
        repo,
        parent_commit=base["revision"] if same else head.sha,
        create_pr=create_pr and head.sha is not None,
        message=f"Erase the identities of request {', '.join(ids)}",
        description=pull_request_body(statement),
        delete=head.other_weights if same and delete_other_weights else (),
    )
    if as_json:
        output.write_json({"status": "pushed", "pushed": vars(pushed)})
    else:
        click.echo(pushed.pr_url or pushed.commit)
