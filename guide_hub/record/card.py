"""The model card of an erased model: front matter for the Hub, and a body that says what the record says.

Everything that a request, recipe or base card brings in is escaped. What a maintainer writes between the
notes markers survives the next erasure.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from guide_hub.errors import InputError
from guide_hub.record.record import Record, overall, parse_record, to_bytes

NOTES_START = "<!-- guide-hub: your own notes start here; they are kept -->"
NOTES_END = "<!-- guide-hub: your own notes end here -->"
PAPER_LINK = "https://arxiv.org/abs/2405.09879"
TAGS = ("guide-hub", "machine-unlearning", "guide", "eg3d")
PIPELINE = "unconditional-image-generation"
DATASET = "guide-hub-erasure-check"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]*")
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class CardInfo:
    """What the card says beside the record.

    `repo_id` is where the model goes, None while that is open; `base_metadata` the front matter of the base's
    card, whose licence is inherited; `assets` the names of pictures under assets/ (retained latents only)
    with captions; `contact` how to reach the maintainer; `previous_card` the README that this one replaces;
    `carried` the number of the record's first erasures that were in the base already.
    """

    title: str
    repo_id: str | None = None
    base_metadata: Mapping[str, Any] = field(default_factory=dict)
    recipe_yaml: str = ""
    assets: Mapping[str, str] = field(default_factory=dict)
    contact: str | None = None
    previous_card: str | None = None
    carried: int = 0


def md(text: str) -> str:
    """`text` as one line shown as it is: no markup, HTML, links, mentions or hidden characters."""
    visible = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    out = []
    for c in " ".join(visible.split()):
        if c in "&<>\"'":
            out.append(f"&#{ord(c)};")
        elif c in string.punctuation and c not in "-,":
            out.append("\\" + c)
        else:
            out.append(c)
    return "".join(out)


def code(text: str) -> str:
    """A code span where `text` is a plain identifier, escaped text where it is not."""
    return f"`{text}`" if _PLAIN.fullmatch(text) else md(text)


def maintainer_notes(card: str) -> str | None:
    """What stands between the notes markers of a card, or None."""
    _, start, rest = card.partition(NOTES_START)
    notes, end, _ = rest.partition(NOTES_END)
    return notes.strip("\n") if start and end else None


def render_card(record: Record, info: CardInfo) -> str:
    """The README.md. Raises InputError where the base's licence cannot be stated or the record is none."""
    record = parse_record(to_bytes(record))
    notes = maintainer_notes(info.previous_card or "")
    sections = [
        f"# {md(info.title) or 'Erased model'}",
        _what(record, info.carried),
        _use(info),
        _erasures(record),
        _quality(record, info.assets),
        _method(record, info.recipe_yaml),
        _limits(record),
        _verify(record, info.repo_id),
        _contact(info.contact),
        f"{NOTES_START}\n{notes if notes is not None else ''}\n{NOTES_END}",
    ]
    body = "\n\n".join(s for s in sections if s)
    card = f"---\n{_front_matter(record, info)}\n---\n\n{body}\n"
    check_front_matter(card)
    return card


def licence(base: Mapping[str, Any]) -> dict[str, str]:
    """license, license_name, license_link as in the base; a link into its repo becomes our LICENSE."""
    code = base.get("license")
    if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", code):
        raise InputError("the base model's card names no licence", remedy="give one with --license FILE")
    found = {"license": code}
    name, link = base.get("license_name"), base.get("license_link")
    shown = "".join(c for c in " ".join(name.split()) if c.isprintable()) if isinstance(name, str) else ""
    if shown:
        found["license_name"] = shown[:100]
    elif code == "other":
        found["license_name"] = "custom"
    if isinstance(link, str) and re.fullmatch(r"https://[^\s<>\"'`()\\]+", link):
        found["license_link"] = link
    elif link is not None or code == "other":
        found["license_link"] = "LICENSE"
    return found


def _base_model(record: Record, info: CardInfo) -> str | None:
    """The base's Hub id; None where it has none, or where the model replaces its own older revision."""
    uri = record["predicate"]["base"]["uri"]
    repo = uri.removeprefix("hf://") if uri.startswith("hf://") else None
    if repo is None or repo != info.repo_id:
        return repo
    inherited = info.base_metadata.get("base_model")
    plain = isinstance(inherited, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", inherited, re.ASCII)
    return inherited if plain and inherited != repo else None


def _front_matter(record: Record, info: CardInfo) -> str:
    base = _base_model(record, info)
    model = (info.repo_id or info.title).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-") or "erased-model"
    fields: dict[str, Any] = {
        **licence(info.base_metadata),
        "library_name": "guide-hub",
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        "pipeline_tag": PIPELINE,
        "tags": list(TAGS),
        "model_name": name,
        "eval_results": _eval_results(record),
    }
    return str(ModelCardData(**fields).to_yaml())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 6) if known else None


def _eval_results(record: Record) -> list[EvalResult]:
    """Averages over all erasures; never one person's row."""
    metrics = [e["metrics"] for e in record["predicate"]["erasures"]]
    retained = record["predicate"].get("retained", {})
    figures = {
        ("identity_similarity", "Similarity of erased people (cosine, lower is better)"): _mean(
            [m["id"]["now"] if m["id"]["now"] is not None else m["id"]["after"] for m in metrics]
        ),
        ("identity_similarity_held_out", "Same, on photos not used to erase (lower is better)"): _mean(
            [m.get("idOthers", {}).get("after") for m in metrics]
        ),
        ("identity_verified", "Views of erased people still verified (share, lower is better)"): _mean(
            [m.get("verifiedAfter") for m in metrics]
        ),
        ("retained_verified", "Others still verified (share, higher is better)"): retained.get("verified"),
        (
            "perceptual_distance",
            "Change of other people (perceptual distance, lower is better)",
        ): retained.get("lpipsMean"),
    }
    return [
        EvalResult(
            task_type=PIPELINE,
            dataset_type=DATASET,
            dataset_name="guide-hub erasure check",
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for (kind, name), value in figures.items()
        if value is not None
    ]


def check_front_matter(card: str) -> dict[str, Any]:
    """The front matter, parsed again and checked as the Hub would. ValueError where it is not valid."""
    match = _FRONT.match(card)
    data = yaml.safe_load(match[1]) if match else None
    if not isinstance(data, dict):
        raise ValueError("the card has no front matter")
    allowed = {"license", "license_name", "license_link", "library_name", "base_model", "base_model_relation",
               "pipeline_tag", "tags", "model-index"}  # fmt: skip
    texts = [v for k, v in data.items() if k not in ("tags", "model-index")]
    wrong = [
        not data.keys() <= allowed,
        not all(isinstance(t, str) and t.isprintable() for t in [*texts, *data.get("tags", [])]),
        data.get("library_name") != "guide-hub" or data.get("pipeline_tag") != PIPELINE,
        data.get("license") == "other" and not {"license_name", "license_link"} <= data.keys(),
        ("base_model" in data) != ("base_model_relation" in data),
    ]
    for model in data.get("model-index", []):
        for result in model["results"]:
            wrong.append(not (model["name"] and result["task"]["type"] and result["dataset"]["name"]))
            wrong += [not isinstance(m["value"], (int, float)) for m in result["metrics"]]
    if any(wrong):
        raise ValueError("the card's front matter is not valid")
    return data


def _base_text(record: Record) -> str:
    base = record["predicate"]["base"]
    if base["uri"].startswith("hf://"):
        repo, revision = base["uri"].removeprefix("hf://"), base["revision"]
        return f"[{repo}](https://huggingface.co/{repo}/tree/{revision}) at commit `{revision}`"
    if base["uri"].startswith("builtin:"):
        return f"`{base['uri'].removeprefix('builtin:')}`, the model that comes with guide-hub"
    return "a model that is not on the Hub"


def _identities(n: int) -> str:
    return "one identity" if n == 1 else f"{n} identities"


def _what(record: Record, carried: int) -> str:
    people = _identities(len(record["predicate"]["erasures"]) - carried)
    before = f" That base already had {_identities(carried)} suppressed." if carried else ""
    verdict = {
        "PASSED": "Every erasure met its target.",
        "WARNED": "**Not every erasure met its target without reservation**: see the table.",
        "FAILED": "**Not every erasure meets its target**: see the table.",
    }[overall(record)]
    return (
        f"A 3D-aware face generator, made from {_base_text(record)} by suppressing {people} on request, with "
        f"[GUIDE]({PAPER_LINK}) as implemented in guide-hub.{before} {verdict}\n\n"
        "This is *approximate suppression of a generated identity*, measured as the similarity of "
        "the model's "
        "pictures to the person's photos. It is **not proof that training data was removed**: the person may "
        "never have been in the training data, since such a generator can produce a likeness of "
        "people it has "
        "not seen."
    )


def _use(info: CardInfo) -> str:
    if info.repo_id is None or not _PLAIN.fullmatch(info.repo_id):
        return ""
    return (
        "```python\nfrom guide_hub import EG3D\n\n"
        f'model = EG3D.from_pretrained("{info.repo_id}")  # safetensors only\n```'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _erasures(record: Record) -> str:
    head = ["#", "request", "identity", "completed", "photos", "before", "after", "now", "threshold",
            "held-out photos", "views verified", "result"]  # fmt: skip
    rows = []
    for e in record["predicate"]["erasures"]:
        m, others = e["metrics"], e["metrics"].get("idOthers")
        held_out = f"{_number(others['before'])} → {_number(others['after'])}" if others else "–"
        rows.append(
            [
                str(e["sequence"]),
                code(e["requestId"]),
                code(e["identityId"]),
                e["completedOn"],
                str(e["imageCount"]),
            ]
            + [_number(m["id"][k]) for k in ("before", "after", "now", "threshold")]
            + [held_out, _share(m.get("verifiedAfter")), e["result"]]
        )
    return (
        f"## Erasures\n\n{_table(head, rows)}\n\n"
        "Similarity is the mean cosine between the person's photos and the model's pictures, by a "
        "face recogniser "
        "that the training did not use; lower is better, and under the threshold a picture is not "
        "taken for the "
        "person. *now* is measured on the weights in this repository, after all erasures; – means "
        "not measured. "
        "*Held-out photos* were not used to erase. *Views verified* is the share of views that are "
        "still taken for "
        "the person.\n\n"
        "Request and identity ids are **pseudonyms** that the maintainer chose. The commitment to "
        "each person's "
        "photos in `erasure_record.json` is keyed: it says nothing to those without the maintainer's key."
    )


def _quality(record: Record, assets: Mapping[str, str]) -> str:
    retained = record["predicate"].get("retained")
    parts = ["## Everybody else"]
    if retained:
        head = ["people", "still verified as themselves", "mean perceptual distance to before"]
        row = [str(retained["n"]), _share(retained["verified"]), _number(retained.get("lpipsMean"))]
        parts.append(_table(head, [row]))
    for name, caption in assets.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.png", name):
            raise ValueError("a picture's name must be plain and end in .png")
        parts.append(f"![{md(caption)}](assets/{name})")
    if assets:
        parts.append("Random people of the generator, none of whom was erased.")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _method(record: Record, recipe_yaml: str) -> str:
    p = record["predicate"]
    method = p["method"]
    recipe = f"recipe {code(method['recipe'])}" if "recipe" in method else "a recipe of the maintainer"
    rows = [
        ["method", f"[GUIDE]({PAPER_LINK}), guide-hub {code(p['tool']['version'])}"],
        ["settings", f"{recipe}, in `recipe.yaml`; digest `{method['recipeDigest']['sha256']}`"],
        ["seed", str(method["seed"])],
        ["base", _base_text(record)],
        ["base weights", f"SHA-256 `{p['base']['digest']['sha256']}`"],
        ["run on", f"{code(p['environment']['device'])}, torch {code(p['environment']['torch'])}"],
    ]
    if "previousRecord" in p:
        rows.append(["continues", f"record `{p['previousRecord']['digest']['sha256']}`"])
    text = "## How it was made\n\n" + _table(["", ""], rows)
    if recipe_yaml:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", recipe_yaml)), default=0))
        block = f"{fence}yaml\n{recipe_yaml.strip()}\n{fence}"
        text += f"\n\n<details><summary>recipe.yaml</summary>\n\n{block}\n\n</details>"
    return text


def _limits(record: Record) -> str:
    p = record["predicate"]
    copies = "Every copy of the base shows the person; no change of these weights helps against its holder."
    history = {
        "reachable": "**Older revisions can still be downloaded** from its history.",
        "purged": "The maintainer removed older revisions from the history.",
        "unknown": "Whether older revisions can still be downloaded was not checked.",
    }
    on_hub = p["base"]["uri"].startswith("hf://")
    revisions = (
        f"{history[p['priorRevisions']]} {copies}" if on_hub else f"**The base remains available.** {copies}"
    )
    points = [
        revisions,
        "Suppression was measured around the person's latent: the views, latents and photos in the "
        "table, no more.",
        "GUIDE redirects the person's latent to a surrogate face that is computed from it. **Whoever "
        "sees the "
        "surrogate can work back towards the person** if they have the base model.",
        "**Comparing this model with its base points at what was changed**: the latents where the "
        "two differ most "
        "lie near the erased people. Fewer, larger releases give less away than one for each person.",
        "Fine-tuning, related to the person or not, may bring a likeness back; so may a later "
        "erasure. Within a run, "
        "earlier people are measured again on the final weights (*now*); a dash means that nobody did.",
    ]
    if "white-box-re-inversion-not-tested" in p["limitations"]:
        points.append(
            "**White-box re-inversion was not tested**: a search through all latents of these "
            "weights, started from "
            "a photo of the person, may well find a likeness."
        )
    points.append(
        "Threat model: people who use the model as published, with an encoder or random latents. Not "
        "covered: those "
        "who own the base weights, search these weights with a photo in hand, or fine-tune them."
    )
    return "## Limits\n\n" + "\n".join(f"* {point}" for point in points)


def _verify(record: Record, repo_id: str | None) -> str:
    where = repo_id if repo_id and _PLAIN.fullmatch(repo_id) else "."
    return (
        "## How to verify\n\n"
        f"```sh\npip install guide-hub\nguide-hub verify {where}   # hashes, record, other weights\n"
        "sha256sum -c SHA256SUMS   # in a download, with no tool of ours\n```\n\n"
        "`erasure_record.json` is an [in-toto](https://in-toto.io/Statement/v1) statement about the "
        "files here."
    )


def _contact(contact: str | None) -> str:
    who = f"Contact: {md(contact)}\n\n" if contact else ""
    return (
        f"## Questions and appeals\n\n{who}"
        "If an erasure here is yours and does not hold, or was not rightly made, write to the "
        "maintainer and quote "
        "the request id. **Discussions on the Hub are public: post no names or photos there.** If "
        "you get no answer, "
        "your data protection authority takes complaints."
    )
