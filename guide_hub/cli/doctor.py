"""guide-hub doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from guide_hub.cli import options

if TYPE_CHECKING:
    from guide_hub.doctor import Diagnosis, NetworkState


@click.command("doctor")
@click.option("--repo", "--repo-id", help="A model: Hub id, folder or builtin:synthetic-heads.")
@click.option("--recipe", help="Recipe name or file; default with --repo: the one that fits the model.")
@options.as_json
def command(repo: str | None, recipe: str | None, as_json: bool) -> None:
    """What is missing on this machine, where it goes and its hash.

    With a model or a recipe the exit code is 3 where something that they use is missing and cannot be
    fetched; everything else is only listed.
    """
    from guide_hub.cli import output
    from guide_hub.doctor import examine
    from guide_hub.errors import RefusedError

    try:
        found = examine(repo, recipe)
    except RefusedError as refused:
        if not as_json:
            show(refused.report)
            refused.report = None
        raise
    if as_json:
        output.write_json(found.to_dict())
    else:
        show(found)


def show(found: Diagnosis) -> None:
    """A table that fits 80 columns, the missing files, unless errors name them, and the rest in lines."""
    from rich.console import Console
    from rich.table import Table

    from guide_hub.doctor import MISSING

    console = Console(highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for title in ("network", "for", "weights", "SHA-256"):
        table.add_column(title)
    for n in found.networks:
        table.add_row(n.name + " *" * n.required, n.kind, n.state, _hash(n))
    console.print(table)
    examined = any(n.required for n in found.networks)
    if examined:
        console.print("* used by this model and recipe")
    for n in found.networks:
        if n.state == MISSING and not examined:
            lines = [f"{n.name} needs {n.file}", f"source: {n.source}"]
            lines += [f"put it into {n.put_into}"] if n.put_into else []
            lines += [f"SHA-256 {n.sha256}"] if n.sha256 else []
            console.print("\n" + "\n  ".join(lines), soft_wrap=True)
    device, state = found.device, found.state
    names = ", ".join(device["cuda"]) or ("MPS" if device["mps"] else "no GPU")
    key = "with a key" if state["key"] else "without a key, which the first erasure makes"
    console.print(
        f"\ndevice: {device['auto']} ({names}), {device['threads']} threads, torch {device['torch']}\n"
        f"Hub: {'token found' if found.token else 'no token: hf auth login, or set HF_TOKEN, to push'}"
        f"{', offline (HF_HUB_OFFLINE)' if found.offline else ''}\n"
        f"state: {state['folder']}, {key}",
        soft_wrap=True,
    )


def _hash(network: NetworkState) -> str:
    if network.fits is not None:
        return "as published" if network.fits else "another file"
    return f"{network.sha256[:12]}..." if network.sha256 else "-"
