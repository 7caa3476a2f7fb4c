"""A whole takedown story over the wire, from request to purge: nothing of a person in any byte of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_erasure as tiny
import torch
import wire
from loopback_hub import LoopbackHub

from guide_hub import pipeline, record
from guide_hub.audit import audit
from guide_hub.cli import audit as audit_cli
from guide_hub.faces import crops
from guide_hub.faces.registry import load_identity
from guide_hub.inversion import Inverter
from guide_hub.ledger import Ledger
from guide_hub.pipeline import erase
from guide_hub.purge import carry_out, make_plan
from guide_hub.request import load_request

REPO, COPY = "org/heads", "org/heads-erased"
FOLDER, PHOTOS = "jane_doe_private", ("jane_at_the_beach.png", "jane_1987.png")


@pytest.fixture
def latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every latent and embedding that the story computes; the rest as in tiny_erasure."""
    found: list[np.ndarray] = []
    invert = Inverter.__call__

    def remembered(self, photos, *poses, **options):
        inverted = invert(self, photos, *poses, **options)
        found.append(inverted.ws.detach().cpu().numpy())
        for network in (self.identity, load_identity("heads-b", torch.device("cpu"))):  # loss and judge
            with torch.no_grad():
                found.append(network(photos).cpu().numpy())
        return inverted

    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(tmp_path / "weights")))
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)
    monkeypatch.setattr(Inverter, "__call__", remembered)
    return found


def test_nothing_of_a_person_goes_over_the_wire(
    hub: LoopbackHub, latents: list[np.ndarray], tmp_path: Path
) -> None:
    hub.create_repo(REPO, tiny.tree(tiny.make_model(tmp_path / "model")))
    recipe = tiny.make_recipe(tmp_path)
    requests = [
        tiny.make_request(tmp_path / FOLDER / name, name, {person: (photo,)})
        for name, person, photo in (("req-1", "subject-a", PHOTOS[0]), ("req-2", "subject-b", PHOTOS[1]))
    ]
    for n, request in enumerate(requests, 1):
        options = {"recipe": recipe, "device": "cpu", "report": tmp_path / f"private-{n}"}
        erase(REPO, request, output=tmp_path / f"erased-{n}", **options)
        hub.merge(REPO, n)
    erase(REPO, requests[0], recipe=recipe)  # already erased: asks the Hub, pushes nothing
    third = tiny.make_request(tmp_path / FOLDER / "req-3", "req-3", {"subject-c": (PHOTOS[0],)})
    erase(
        REPO, third, recipe=recipe, device="cpu", output=tmp_path / "copy", push_to=COPY, supersede=True
    )  # fmt: skip
    found = audit(REPO)
    assert list(audit_cli.lines(found))
    assert carry_out(make_plan(found), found).after.status == "clean"

    secrets = [FOLDER.encode(), b"erased-1", b"private-1", str(tmp_path).encode()]
    for request in (*requests, third):
        (person,) = load_request(request).identities
        secrets += wire.of_photo(person.images[0].path)
    assert len(latents) == 9  # of each of three people: latent, and two embeddings
    base = record.file_sha256(tmp_path / "model" / "model.safetensors")
    kept = Ledger(tmp_path / "state", base, record.find_keys(tmp_path / "state")).entries()
    assert [entry.request_id for entry in kept] == ["req-1", "req-2", "req-3"]
    for entry in kept:  # the surrogates too
        latents += [t.numpy() for t in (entry.w_u, entry.w_t, entry.embeddings)]
    for values in latents:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        secrets += [flat[:4].tobytes(), flat[-4:].tobytes(), flat[:4].astype(np.float16).tobytes()]
        secrets += [f"{flat[0]:.6f}, {flat[1]:.6f}".encode(), f"{flat[0]!s}".encode()]

    sent = hub.sent()
    assert (
        tmp_path / "erased-2" / "model.safetensors"
    ).read_bytes() in sent  # the search finds what is there
    assert b"req-1" in sent
    assert wire.leaks(sent, secrets) == []
