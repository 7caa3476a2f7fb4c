"""Erased models with made-up weights and true records, cards and sums: no torch, milliseconds each."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from loopback_hub import LoopbackHub

from guide_hub import record as records

REPO = "org/heads"
DAY = datetime.date(2026, 1, 2)
BASE = {
    "config.json": b"{}",
    "model.safetensors": b"weights that show everybody" * 40,
    "README.md": b"---\nlicense: mit\n---\n\n# Heads\n",
    "LICENSE": b"MIT: do as you like.\n",
}
ONE, TWO = ("req-1", "subject-a"), ("req-2", "subject-b")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def erasure(request: str, identity: str, result: str = "PASSED") -> records.Erasure:
    metrics = records.Metrics(before=0.7, after=0.1, now=0.1, threshold=0.3)
    commitment = "hmac-sha256:" + "0" * 64
    return records.Erasure(request, identity, commitment, 1, "gdpr", DAY, metrics, result)  # type: ignore[arg-type]


def erased(
    weights: bytes,
    base: bytes,
    *people: tuple[str, str],
    uri: str = f"hf://{REPO}",
    revision: str | None = "0" * 40,
    previous: bytes | None = None,
    repo: str = REPO,
    card: str | None = None,
) -> dict[str, bytes]:
    """The files of a model from which `people` were erased, as `guide-hub erase` writes them."""
    files = {"config.json": b"{}", "model.safetensors": weights, "LICENSE": BASE["LICENSE"]}
    files["recipe.yaml"] = b"name: tiny\n"
    files["assets/retained.png"] = b"\x89PNG made up"
    record = records.build_record(
        subject={name: sha256(files[name]) for name in ("model.safetensors", "config.json")},
        base=records.Base(uri, sha256(base), revision),
        recipe_digest="0" * 64,
        recipe_name="tiny",
        erasures=[erasure(*person) for person in people],
        seed=0,
        tool_version="0.1.0",
        environment={"python": "3.11", "torch": "2.4", "device": "cpu"},
        retained=records.Retained(10, 1.0, 0.1),
        previous=previous,
    )
    info = records.CardInfo(repo, {"license": "mit"}, ["retained.png"], card)
    files["erasure_record.json"] = records.to_bytes(record)
    files["README.md"] = records.render_card(record, info).encode()
    lines = [f"{sha256(data)}  {name}\n" for name, data in sorted(files.items())]
    return {**files, "SHA256SUMS": "".join(lines).encode()}


@dataclass
class Story:
    """A repository with two erasures, one after the other: its commits and what each one serves."""

    commits: list[str]
    first: dict[str, bytes]
    second: dict[str, bytes]


def tell(hub: LoopbackHub, repo: str = REPO) -> Story:
    """Base, request 1 by a pull request that was merged, request 2 by a commit; a tag on the base."""
    commits = [hub.create_repo(repo, BASE)]
    hub.tag(repo, "v1")
    first = erased(b"one" * 400, BASE["model.safetensors"], ONE, revision=commits[0])
    hub.pull_request(repo, first, "Erase the identities of request req-1")
    commits.append(hub.merge(repo, 1))
    second = erased(
        b"two" * 400, first["model.safetensors"], TWO, revision=commits[1],
        previous=first["erasure_record.json"], card=first["README.md"].decode(),
    )  # fmt: skip
    commits.append(hub.commit(repo, second, "Erase the identities of request req-2"))
    return Story(commits, first, second)
