"""guide-hub check"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("check")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--repo", "--repo-id", help="The model the request is meant for.")
@click.option("--faces", is_flag=True, help="Look for the face in every photo too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(request: Path, repo: str | None, faces: bool, as_json: bool) -> None:
    """Validate a request and its photos, without any model."""
    from guide_hub.cli import output
    from guide_hub.request import load_request

    found = load_request(request, repo)
    if faces:
        import torch

        from guide_hub.faces.crops import load_crops

        load_crops(found, 128, torch.device("cpu"))
    output.warn(found.warnings)
    identities = [{"identity_id": i.id, "photos": len(i.images)} for i in found.identities]
    if as_json:
        output.write_json({"status": "valid", "request_id": found.request_id, "identities": identities})
    else:
        photos = sum(len(i.images) for i in found.identities)
        click.echo(f"{found.request_id}: {len(identities)} identities, {photos} photos, valid")
