"""The command that makes a run again, with what was chosen by default spelled out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from guide_hub.recipe import list_recipes

if TYPE_CHECKING:
    from guide_hub.hub import Source
    from guide_hub.plan import Plan


def erase_command(plan: Plan) -> str:
    """With the maintainer's own paths: for the private edition."""
    options = plan.options
    words = ["guide-hub", "erase", "--repo", plan.source.repo, *_revision(plan.source)]
    for request in (*plan.requests, *plan.served):
        words += ["--request", str(request.path)]
    words += ["--recipe", options.recipe or plan.recipe.name, "--seed", str(options.seed)]
    words += ["--device", options.device, "--output", str(plan.output), "--state", str(plan.state)]
    for name in ("report", "latents", "license"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value is not None else []
    words += ["--push-to", plan.push_to] if plan.push_to is not None else ["--no-push"]
    return _lines(words)


def public_erase_command(plan: Plan) -> str:
    """Without a path: a folder is BASE, and each request a file named after its id."""
    base = "BASE" if plan.source.kind == "folder" else plan.source.repo
    words = ["guide-hub", "erase", "--repo", base, *_revision(plan.source)]
    for request_id in plan.request_ids:
        words += ["--request", f"{request_id}.yaml"]
    own = plan.options.recipe is not None and plan.options.recipe not in list_recipes()
    words += ["--recipe", "recipe.yaml" if own else plan.recipe.name, "--seed", str(plan.options.seed)]
    return _lines([*words, "--no-push"])


def verify_command(source: Source, **options: object) -> str:
    """`verify` with the options that are not None; without any it is fit for the public."""
    words = ["guide-hub", "verify", source.repo if source.kind != "folder" or options else "MODEL"]
    words += _revision(source)
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value is not None else []
    return _lines(words)


def _revision(source: Source) -> list[str]:
    return ["--revision", source.revision] if source.revision is not None else []


def _lines(words: list[str]) -> str:
    """For a shell: an option a line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)
