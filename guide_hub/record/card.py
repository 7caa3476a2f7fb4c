"""The model card of an erased model: front matter for the Hub, and a body that says what the record says.

It is written from the record alone, but for where the model goes, its licence and the base card's own text.
What these bring in is escaped, or stands between the notes markers, where it survives the next erasure.
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
from guide_hub.record import attacked
from guide_hub.record.record import Record, overall, parse_record, to_bytes
from guide_hub.version import __version__

FORMAT = 3  # of the text below: another number where any of its words change, which a golden file tells
GENERATED = "<!-- guide-hub card {}: from erasure_record.json; edit between the notes markers only -->"
NOTES_START = "<!-- guide-hub: your own notes start here; they are kept -->"
NOTES_END = "<!-- guide-hub: your own notes end here -->"
BASE_NOTES = (
    "## From the base model's card\n\n*What its maintainer wrote; its figures are not of this model.*"
)
PAPER_LINK = "https://arxiv.org/abs/2405.09879"
TAGS = ("guide-hub", "machine-unlearning", "guide", "eg3d")
PIPELINE = "unconditional-image-generation"
DATASET = "guide-hub-erasure-check"
PICTURES = {"retained.png": "Random people who were not erased: before (above) and after (below)."}
KEPT = ("language", "datasets")  # of the maintainer's own front matter, and extra_gated_*

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]*")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?")
TOUCHED = 0.01  # expected share of random faces from which on the card speaks of them

_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_SECTION = re.compile(r"^(?=##? )", re.MULTILINE)


@dataclass(frozen=True)
class CardInfo:
    """What the card says beside the record.

    `repo_id` is where the model goes, None while that is open; `base_metadata` the front matter of the base's
    card, whose licence is inherited; `pictures` the names, of PICTURES, that are under assets/;
    `previous_card` the README that this one replaces.
    """

    repo_id: str | None = None
    base_metadata: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[str] = ()
    previous_card: str | None = None

    def __post_init__(self) -> None:
        if self.repo_id is not None and not _REPO.fullmatch(self.repo_id):
            raise InputError("the repository's name is not one of the Hub's", remedy="it looks like org/name")
        if not set(self.pictures) <= set(PICTURES):
            raise ValueError("the card shows none but the pictures of people who were not erased")


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
    _, start, rest = _split(_body(card))
    notes, end, _ = rest.partition(NOTES_END)
    return notes.strip("\n") if start and end else None


def _body(card: str) -> str:
    return _FRONT.sub("", _lines(card), count=1)


def _split(body: str) -> tuple[str, str, str]:
    """What stands before the first notes marker on a line of its own, the marker, and what follows it."""
    found = re.search(f"^{re.escape(NOTES_START)}$", body, re.MULTILINE)
    return (body[: found.start()], found[0], body[found.end() :]) if found else (body, "", "")


def render_card(record: Record, info: CardInfo) -> str:
    """The README.md. Raises InputError where the base's licence cannot be stated or the record is none."""
    record = parse_record(to_bytes(record))
    sections = [
        GENERATED.format(FORMAT),
        f"# {md(_title(record, info))}",
        _what(record),
        _use(info.repo_id),
        _erasures(record),
        _attacks(record),
        _quality(record, info.pictures),
        _method(record),
        _limits(record),
        _verify(info.repo_id),
        _contact(),
        f"{NOTES_START}\n{_notes(record, info)}\n{NOTES_END}",
    ]
    body = "\n\n".join(s for s in sections if s)
    card = f"---\n{_front_matter(record, info)}\n---\n\n{body}\n"
    try:
        check_front_matter(card)
    except ValueError:  # what is kept of the maintainer's own is not what YAML gives back
        remedy = "its language, datasets and extra_gated_* must be plain YAML"
        raise InputError("the card's front matter cannot be kept", remedy=remedy) from None
    return card


def rerender_card(card: str, record: Record) -> str:
    """A card of ours written anew from `record`. Destination, licence, pictures and notes stay as they are.

    InputError where `card` is none that guide-hub wrote.
    """
    card = _lines(card)
    try:
        metadata = check_front_matter(card)
    except ValueError:
        raise InputError("the card's front matter is not valid") from None
    generated, _, _ = _split(_body(card))
    if card_format(card) is None:
        raise InputError("the card was not written by guide-hub")
    shown = re.search(r"^guide-hub verify (\S+)", generated, re.MULTILINE)
    repo = shown[1] if shown and _REPO.fullmatch(shown[1]) else None
    pictures = [name for name in PICTURES if f"](assets/{name})" in generated]
    return render_card(record, CardInfo(repo, metadata, pictures, card))


def card_format(card: str) -> int | None:
    """The number of the text that a card of ours has; None for other cards."""
    before, _, after = GENERATED.partition("{}")
    pattern = f"^{re.escape(before)}(\\d{{1,4}}){re.escape(after)}$"
    found = re.search(pattern, _split(_body(card))[0], re.MULTILINE)
    return int(found[1]) if found else None


def other_words(card: str, record: Record) -> str | None:
    """Why `card` can't be compared with `record`: another guide-hub made both, in words that this one lacks.

    None where it can be. A number that the record's own guide-hub does not write is a fault of the card.
    """
    number, version = card_format(card), record["predicate"]["tool"]["version"]
    if number in (None, FORMAT) or version == __version__:
        return None
    return f"is in the words of another guide-hub (card {number}, record by {version})"


def card_faults(card: str, record: Record) -> list[str]:
    """What in a card is not as the record says: its front matter, or sections by name; notes are free.

    InputError where `card` is none that guide-hub wrote.
    """
    card, expected = _lines(card), rerender_card(card, record)
    if card == expected:
        return []
    found, wanted = _parts(card), _parts(expected)
    return [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]


def _parts(card: str) -> dict[str, str]:
    """Front matter, introduction and sections of a card's generated part."""
    front = _FRONT.match(card)
    generated, start, rest = _split(_body(card))
    _, end, tail = rest.partition(NOTES_END)
    parts = {"front matter": front[0] if front else "", "notes markers": start + end + tail}
    for text in _SECTION.split(generated):
        title = text.partition("\n")[0]
        name = f"section '{title[3:]}'" if title.startswith("## ") else "introduction"
        parts[name] = parts.get(name, "") + text
    return parts


def _lines(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _title(record: Record, info: CardInfo) -> str:
    uri = record["predicate"]["base"]["uri"]
    if info.repo_id is not None or uri == "local":
        return info.repo_id or "Erased model"
    return uri.replace(":", "/").rsplit("/", 1)[-1] + "-erased"


def _notes(record: Record, info: CardInfo) -> str:
    """The maintainer's own text: notes in a card of ours, the body of any other that this one replaces."""
    card = info.previous_card or ""
    notes = maintainer_notes(card)
    if notes is not None:
        return _unmarked(notes)
    body = _unmarked(_body(card)).strip()
    if body and card_format(card) is None and _replaces(record, info):
        return f"{BASE_NOTES}\n\n{body}"
    return ""


def _unmarked(text: str) -> str:
    while NOTES_START in text or NOTES_END in text:  # what is left of nested ones may be one
        text = text.replace(NOTES_START, "").replace(NOTES_END, "")
    return text.strip("\n")


def _replaces(record: Record, info: CardInfo) -> bool:
    """Whether the card takes the place of the base's own, as far as is known."""
    uri = record["predicate"]["base"]["uri"]
    return uri.startswith("hf://") and info.repo_id in (None, uri.removeprefix("hf://"))


def licence(base: Mapping[str, Any]) -> dict[str, str]:
    """license, license_name, license_link as in the base; a link into its repo becomes our LICENSE."""
    code = base.get("license")
    if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", code):
        raise InputError("the base model's card names no licence", remedy="give one with --license FILE")
    found = {"license": code}
    name, link = base.get("license_name"), base.get("license_link")
    shown = "".join(c for c in " ".join(name.split()) if c.isprintable()) if isinstance(name, str) else ""
    if shown:
        found["license_name"] = shown[:100].strip()
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
    repo: str | None = uri.removeprefix("hf://") if uri.startswith("hf://") else None
    if repo is None or repo != info.repo_id:
        return repo
    inherited = info.base_metadata.get("base_model")
    plain = isinstance(inherited, str) and _REPO.fullmatch(inherited)
    return inherited if plain and inherited != repo else None


def _front_matter(record: Record, info: CardInfo) -> str:
    base = _base_model(record, info)
    model = _title(record, info).rsplit("/", 1)[-1]
    own = info.base_metadata if _replaces(record, info) else {}
    fields: dict[str, Any] = {
        **licence(info.base_metadata),
        "library_name": "guide-hub",
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        "pipeline_tag": PIPELINE,
        "tags": list(TAGS),
        **{k: v for k, v in own.items() if _is_kept(k)},
        "model_name": model.replace(" ", "-").lower() if model == "Erased model" else model,
        "eval_results": _eval_results(record),
    }
    return str(ModelCardData(**fields).to_yaml())


def _is_kept(key: Any) -> bool:
    return key in KEPT or (isinstance(key, str) and re.fullmatch(r"extra_gated_\w+", key) is not None)


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
        ("retained_verified", "Views of others still verified (share, higher is better)"): retained.get(
            "verified"
        ),
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


def front_matter(card: str) -> dict[str, Any]:
    """The front matter of any card, {} where there is none or it can't be read."""
    try:
        data = _front(_lines(card))
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _front(card: str) -> Any:
    """Any front matter as YAML. ValueError where it can't be read."""
    match = _FRONT.match(card)
    try:
        return yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        # not YAML, no date, an odd !!bool or !!int, an odd !!timestamp, too deep
        raise ValueError("the card's front matter cannot be read") from None


def check_front_matter(card: str) -> dict[str, Any]:
    """The front matter, parsed again and checked as the Hub would. ValueError where it is not valid."""
    data = _front(card)
    if not isinstance(data, dict):
        raise ValueError("the card has no front matter")
    ours = {k: v for k, v in data.items() if not _is_kept(k)}
    allowed = {"license", "license_name", "license_link", "library_name", "base_model", "base_model_relation",
               "pipeline_tag", "tags", "model-index"}  # fmt: skip
    texts = [v for k, v in ours.items() if k not in ("tags", "model-index")]
    wrong = [
        not ours.keys() <= allowed,
        not isinstance(ours.get("license", ""), str),
        ours.get("library_name") != "guide-hub" or ours.get("pipeline_tag") != PIPELINE,
        ours.get("license") == "other" and not {"license_name", "license_link"} <= ours.keys(),
        ("base_model" in ours) != ("base_model_relation" in ours),
    ]
    try:
        wrong.append(
            not all(isinstance(t, str) and t.isprintable() for t in [*texts, *(ours.get("tags") or [])])
        )
        for model in ours.get("model-index", []):
            for result in model["results"]:
                wrong.append(not (model["name"] and result["task"]["type"] and result["dataset"]["name"]))
                wrong += [not isinstance(m["value"], (int, float)) for m in result["metrics"]]
    except (TypeError, KeyError, AttributeError):
        wrong.append(True)
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


def _what(record: Record) -> str:
    people = _identities(len(record["predicate"]["erasures"]))
    before = ""
    if "previousRecord" in record["predicate"]:
        before = " The base came with erasures of its own; they are among these."
    verdict = {
        "PASSED": "Every erasure met its target.",
        "WARNED": "**Not every erasure met its target without reservation**: see the table.",
        "FAILED": "**Not every erasure meets its target**: see the table.",
    }[overall(record)]
    return (
        f"A 3D-aware face generator, made from {_base_text(record)} with [GUIDE]({PAPER_LINK}) as "
        f"implemented in guide-hub. On request, {people} are suppressed in it.{before} {verdict}\n\n"
        "This is *approximate suppression of a generated identity*, measured as the similarity of the "
        "model's pictures to the person's photos. It is **not proof that training data was removed**: the "
        "person may never have been in the training data, since such a generator can produce a likeness of "
        "people it has not seen."
    ).replace("one identity are", "one identity is")


def _use(repo_id: str | None) -> str:
    if repo_id is None:
        return ""
    return (
        "```python\nfrom guide_hub import EG3D\n\n"
        f'model = EG3D.from_pretrained("{repo_id}")  # safetensors only\n```'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits, or a dash for what was not measured."""
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _erasures(record: Record) -> str:
    head = ["#", "request", "identity", "completed", "photos", "before", "after", "now", "threshold",
            "held-out photos", "views verified", "result"]  # fmt: skip
    rows = []
    for e in record["predicate"]["erasures"]:
        m, others = e["metrics"], e["metrics"].get("idOthers")
        held_out = f"{number(others['before'])} → {number(others['after'])}" if others else "–"
        rows.append(
            [
                str(e["sequence"]),
                code(e["requestId"]),
                code(e["identityId"]),
                e["completedOn"],
                str(e["imageCount"]),
            ]
            + [number(m["id"][k]) for k in ("before", "after", "now", "threshold")]
            + [held_out, _share(m.get("verifiedAfter")), e["result"]]
        )
    return (
        f"## Erasures\n\n{table(head, rows)}\n\n{_withdrawn(record)}{_later(record)}"
        "Similarity is the mean cosine between the person's photos and the model's pictures, by a face "
        "recogniser that the training did not use; lower is better, and under the threshold a picture is not "
        "taken for the person. *now* is measured on the weights in this repository, after all erasures; – "
        "means not measured. *Held-out photos* were not used to erase. *Views verified* is the share of "
        "views that are still taken for the person.\n\n"
        "Request and identity ids are **pseudonyms** that the maintainer chose. The commitment to each "
        "person's photos in `erasure_record.json` is keyed: it says nothing to those without the "
        "maintainer's key."
    )


def _attacks(record: Record) -> str:
    rows = attacked.rows_of(record)
    if not rows:
        return ""
    return (
        f"## Attacks\n\n{table(['#', 'what was tried', 'result', 'figures'], rows)}\n\n"
        "Each on the weights that the erasure's own run left. The rules and all figures are in "
        f"`erasure_record.json`.\n\n{attacked.THREATS}"
    )


def _withdrawn(record: Record) -> str:
    if "rebuilt" not in record["predicate"]:
        return ""
    w = record["predicate"]["rebuilt"]["withdrawn"]
    reason = f", reason {code(w['reason'])}" if "reason" in w else ""
    return (
        f"**Withdrawn** on {w['withdrawnOn']}: identity {code(w['identityId'])} of request "
        f"{code(w['requestId'])}{reason}. The model was built anew from its base without that erasure, so it "
        "shows that person as the base does.\n\n"
    )


def _later(record: Record) -> str:
    """What later erasures did to earlier ones."""
    r = record["predicate"].get("reemergence")
    if r is None:
        return ""
    people = "One person was" if r["n"] == 1 else f"{r['n']} people were"
    when = "every later erasure" if r["everyStep"] else "the last erasure of each run alone"
    held_out = f", on held-out photos {r['othersRise']:+.3f}" if "othersRise" in r else ""
    return (
        f"**Coming back.** {people} measured again after {when}. The largest rise of a similarity since the "
        f"own erasure is {r['rise']:+.3f}{held_out}; at most {_share(r['verifiedMax'])} of a person's views "
        "were verified then.\n\n"
    )


def _collateral(record: Record) -> str:
    """Whom else so many erasures touch, where that is more than a few."""
    c = record["predicate"].get("collateral")
    if c is None or c["expected"] < TOUCHED:
        return ""

    def estimate(s: Mapping[str, float]) -> str:
        return f"{_share(s['value'])} ({_share(s['low'])} to {_share(s['high'])})"

    alike = "not measured"
    if "alike" in c:
        alike = f"{estimate(c['alike'])} of {c['people']} random people, against {c['known']} of the erased"
    text = (
        f"**Collateral.** At a false accept rate of {c['far']:g}, {c['n']} erasures touch about "
        f"{_share(c['expected'])} of all random faces: the recogniser takes them for somebody who was "
        f"erased. Measured before: {alike}; no more themselves after: {estimate(c['changed'])}, with 95 % "
        "intervals."
    )
    at = c.get("recommended")
    if at is None:
        return f"{text} At the rate that would touch 1 %, {0.01 / c['n']:.2g}, nothing was measured."
    held_out = ""
    if "othersVerifiedMax" in at:
        held_out = f" and {_share(at['othersVerifiedMax'])} of those of held-out photos"
    return (
        f"{text} At the rate that touches 1 %, {at['far']:.2g} (threshold {number(at['threshold'])}), at "
        f"most {_share(at['erasedVerifiedMax'])} of an erased person's views{held_out} are verified, and "
        f"{_share(at['retainedVerified'])} of the views of others."
    )


def _quality(record: Record, pictures: Sequence[str]) -> str:
    retained = record["predicate"].get("retained")
    parts = ["## Everybody else"]
    if retained:
        head = ["people", "their views still verified", "mean perceptual distance to before"]
        row = [str(retained["n"]), _share(retained["verified"]), number(retained.get("lpipsMean"))]
        parts.append(table(head, [row]))
    parts += [text for text in [_collateral(record)] if text]
    parts += [f"![{md(PICTURES[name])}](assets/{name})\n\n*{PICTURES[name]}*" for name in pictures]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _method(record: Record) -> str:
    p = record["predicate"]
    method = p["method"]
    recipe = f"recipe {code(method['recipe'])}" if "recipe" in method else "a recipe of the maintainer"
    rows = [
        ["method", f"[GUIDE]({PAPER_LINK}), guide-hub {code(p['tool']['version'])}"],
        ["settings", f"{recipe}, in [recipe.yaml](recipe.yaml); digest `{method['recipeDigest']['sha256']}`"],
        ["seed", str(method["seed"])],
        ["base", _base_text(record)],
        ["base weights", f"SHA-256 `{p['base']['digest']['sha256']}`"],
        ["run on", f"{code(p['environment']['device'])}, torch {code(p['environment']['torch'])}"],
    ]
    if "teacher" in method:
        taught = {
            "original": "the model from before the first erasure",
            "pulled": "the base as it was: the model from before the first erasure could not be had, or its "
            "erased people were not all known",
        }
        rows.append(["teacher", taught[method["teacher"]]])
    if "previousRecord" in p:
        rows.append(["continues", f"record `{p['previousRecord']['digest']['sha256']}`"])
    return "## How it was made\n\n" + table(["", ""], rows)


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
        "Suppression was measured around the person's latent: the views, latents and photos in the table, no "
        "more.",
        "GUIDE redirects the person's latent to a surrogate face that is computed from it. **Whoever sees "
        "the surrogate can work back towards the person** if they have the base model.",
        "**Comparing this model with its base points at what was changed**: the latents where the two differ "
        "most lie near the erased people. Fewer, larger releases give less away than one for each person.",
        "Fine-tuning, related to the person or not, may bring a likeness back; so may a later erasure. "
        "Earlier people are measured again on the final weights (*now*) where the maintainer still can; a "
        "dash means that nobody did.",
    ]
    if "white-box-re-inversion-not-tested" in p["limitations"]:
        points.append(
            "**White-box re-inversion was not tested**: a search through all latents of these weights, "
            "started from a photo of the person, may well find a likeness."
        )
    points.append(
        "Threat model: people who use the model as published, with an encoder or random latents. Not "
        "covered: those who own the base weights, search these weights with a photo in hand, or fine-tune "
        "them."
    )
    return "## Limits\n\n" + "\n".join(f"* {point}" for point in points)


def _verify(repo_id: str | None) -> str:
    return (
        "## How to verify\n\n"
        f"```sh\npip install guide-hub\nguide-hub verify {repo_id or '.'}   # files, record, card, chain\n"
        "sha256sum -c SHA256SUMS   # in a download, with no tool of ours\n```\n\n"
        "`erasure_record.json` is an [in-toto](https://in-toto.io/Statement/v1) statement about these files."
    )


def _contact() -> str:
    return (
        "## Questions and appeals\n\n"
        "If an erasure here is yours and does not hold, or was not rightly made, write to the maintainer and "
        "quote the request id. **Discussions on the Hub are public: post no names or photos there.** If you "
        "get no answer, your data protection authority takes complaints."
    )
