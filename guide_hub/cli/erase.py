"""guide-hub erase"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from guide_hub.cli import options
from guide_hub.cli.options import FILE, FOLDER


@click.command("erase")
@options.repo
@click.option(
    "--request", "requests", required=True, multiple=True, type=click.Path(dir_okay=False, path_type=Path),
    help="The takedown YAML; several are one run and one commit.",
)  # fmt: skip
@options.revision
@options.base
@options.recipe
@click.option("--output", type=FOLDER, help="Where the erased model goes; default ./NAME-erased.")
@options.push_to
@options.push
@options.create_pr
@options.resume
@options.device
@options.seed
@click.option(
    "--report", type=FOLDER, help="Private: an HTML page with the people's faces, a public one, a reply."
)
@click.option("--tensorboard", is_flag=True, help="With --report: TensorBoard event files in it too.")
@click.option(
    "--every-step/--no-every-step", default=None,
    help="Measure everybody again after every person. Default: with --report.",
)  # fmt: skip
@click.option("--latents", type=FILE, help="What invert --report found; the photos still have to agree.")
@options.state
@options.delete_other_weights
@options.replace_record
@options.supersede
@options.license_text
@options.dry_run
@options.as_json
@options.quiet
@options.yes
def command(
    repo: str, requests: tuple[Path, ...], as_json: bool, quiet: bool, yes: bool, **settings: Any
) -> None:
    """Take every person of the requests out of a model, one after the other.

    Finds each person's latent from the photos, unlearns it with GUIDE, measures that the people are gone and
    everybody else is still there, writes a safetensors model with its card and record, and pushes it in one
    commit.
    """
    from guide_hub.cli import output
    from guide_hub.pipeline import erase
    from guide_hub.processes import launched

    with launched(settings["device"]) as processes:
        report = erase(repo, requests, progress=output.progress(quiet), processes=processes, **settings)
    if as_json:
        output.write_json(report.to_dict())
    elif report.plan is not None:
        for line in plan_lines(report.plan):
            click.echo(line)
    elif report.status == "already_erased":
        where = report.pushed["pr_url"] if report.pushed else "this model's record"
        click.echo(f"already in {where}: request {', '.join(report.request_ids)}; nothing to do")
    else:
        output.figures(report)


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """A plan for people."""
    from guide_hub.cli import output
    from guide_hub.cli.audit import size

    shown = dict(plan)
    shown["identities"] = ", ".join(f"{p['identity_id']} ({p['photos']} photos)" for p in plan["identities"])
    shown["time"] = _time(plan["time"])
    files = [(f["name"], f["bytes"]) for f in plan["files"]]
    shown["files"] = ", ".join(n if b is None else f"{n} ({size(b)})" for n, b in files)
    shown["licence"] = ", ".join(plan["licence"].values())
    shown["other_weights"] = ", ".join(plan["other_weights"]) or "none"
    shown["warnings"] = "; ".join(plan["warnings"]) or "none"
    return output.subject_lines(shown)


def _time(time: dict[str, Any] | None) -> str:
    if time is None:
        return "unknown: this recipe has not run on such a model here"
    step = f"{time['seconds_per_step']} s a step on {time['device']}"
    return f"{time['seconds'] / 60:.0f} min of unlearning ({step}), and the inversions and measures"
