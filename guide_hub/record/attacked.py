"""The card's section on attacks: what was tried on the final weights, what held, and against whom."""

from __future__ import annotations

from typing import Any

from guide_hub.record.record import Record

SHOWN = {  # of an attack's figures, with their names in the table
    "views": {"cosine_worst_view": "highest cosine", "held_out_verified_after": "held-out photos verified"},
    "neighbourhood": {"cosine_max_after": "highest cosine"},
    "draws": {"taken_before": "taken for the person before", "taken_after": "after"},
    "retention": {"random_verified": "random people verified", "neighbours_verified": "nearest verified"},
    "reflection": {"cosine_mirrored": "highest cosine", "cosine_surrogate": "of the surrogate itself"},
}
WHAT = {
    "views": "cameras that the training never had",
    "neighbourhood": "latents around the person's, mixtures with other people",
    "draws": "random people",
    "retention": "do others stay",
    "reflection": "the surrogate, mirrored through the mean face",
}
THREATS = (
    "**Threat model.** T1, people who use the model as it is, with an encoder: what *Erasures* and the other "
    "cameras measure. T2, who search these weights for the person: the neighbourhood and random draws were "
    "searched; all latents, with a photo in hand, were not, and such a search may well find a likeness. T3, "
    "who fine-tune these weights: not tested. T4, who own the base: it shows the person, and no change of "
    "these weights helps; the mirrored surrogate is what these weights add to it. T5, who compare what is "
    "published: the files were scanned for latents, embeddings and photos; the difference of two revisions "
    "points at the person."
)


def rows_of(record: Record) -> list[list[str]]:
    """A row an erasure and attack; none where none was made."""
    found = []
    for e in record["predicate"]["erasures"]:
        for a in e.get("attacks", []):
            verdict = {True: "held", False: "**did not hold**", None: "not told"}[a["passed"]]
            found.append([str(e["sequence"]), WHAT[a["attack"]], verdict, _figures(a)])
    return found


def _figures(attack: dict[str, Any]) -> str:
    figures = attack["figures"]
    known = ((name, figures.get(key)) for key, name in SHOWN[attack["attack"]].items())
    return ", ".join(f"{name} {value:g}" for name, value in known if value is not None)
