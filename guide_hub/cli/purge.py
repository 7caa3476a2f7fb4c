"""guide-hub purge"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from guide_hub.cli import options

if TYPE_CHECKING:
    from guide_hub.purge import Plan


@click.command("purge")
@click.argument("repo")
@click.option("-y", "--yes", is_flag=True, help="Do it. None of it can be undone.")
@options.as_json
def command(repo: str, yes: bool, as_json: bool) -> None:
    """Remove what an audit finds: tags, branches, the history of main, files of the LFS storage.

    Prints what it would do, and does it only with --yes. Looks again afterwards, and writes into the record
    and the card whether older revisions are gone. What is on main stays, in a new commit. Killed on the way,
    the same command goes on with what is left.

    Exit code 0: nothing is left. 3: something is, and without --yes, nothing was done about it.
    """
    from guide_hub.audit import audit
    from guide_hub.cli import output
    from guide_hub.cli.audit import lines
    from guide_hub.purge import carry_out, make_plan

    found = audit(repo)
    plan = make_plan(found)
    to_do = plan.removes or plan.records
    said: dict[str, Any] = {
        "status": "planned" if to_do else "nothing_to_do",
        "repo": repo,
        "head": plan.head,
    }
    said["plan"] = plan.to_dict()
    after = found
    if not as_json:
        for line in plan_lines(plan):
            click.echo(line)
    if to_do and yes:
        outcome = carry_out(plan, found, tell=lambda text: click.echo(text, err=True))
        after = outcome.after
        said |= {"status": "purged" if after.status == "clean" else "remains", "head": after.head}
        said["record"] = {"prior_revisions": outcome.prior_revisions, "commit": outcome.commit}
        if not as_json:
            for line in lines(after):
                click.echo(line)
    said["audit"] = after.to_dict()
    if as_json:
        output.write_json(said)
    elif not to_do and found.status != "clean":
        for line in lines(found):
            click.echo(line)
    elif to_do and not yes:
        click.echo("nothing was done: add --yes to do this, for ever")
    if after.status != "clean" or (to_do and not yes):
        sys.exit(3)


def plan_lines(plan: Plan) -> Iterator[str]:
    """A plan for people: what is done, in order, and what is not."""
    from guide_hub.cli.audit import size, wrapped

    steps = [f"delete {name} from main" for name in plan.delete_files]
    steps += [f"delete the tag {name}" for name in plan.delete_tags]
    steps += [f"delete the branch {name}" for name in plan.delete_branches]
    steps += [f"squash {name}: one commit, no history" for name in plan.squash]
    steps += [
        f"delete from the LFS storage: {d.file}, sha256 {d.sha256[:12]}, {size(d.size)}"
        for d in plan.delete_lfs
    ]
    if plan.unrecorded is None and (steps or plan.records):
        steps.append("look again, and record what became of older revisions")
    if not steps:
        yield (
            f"{plan.repo}: nothing that a command can remove"
            if plan.web
            else f"{plan.repo}: nothing to remove"
        )
    else:
        yield f"{plan.repo}: to be removed for ever"
    for number, step in enumerate(steps, 1):
        yield from wrapped(f"{number}. {step}")
    for text in plan.web:
        yield from wrapped(f"only on the web: {text}")
    for text in plan.warnings if steps or plan.state == "reachable" else ():
        yield from wrapped(f"note: {text}")
    if plan.unrecorded is not None:
        yield from wrapped(f"note: the outcome can't be recorded: {plan.unrecorded}")
