"""`guide-hub verify`: is a published model what its record says? Takes no key, no photos and no torch.

Every check has a name and says passed, failed or unchecked; what cannot be reached never passes. No check
measures anything: `guide_hub.remeasure` does, for those who have the photos.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import SafetensorsParsingError
from huggingface_hub.hf_api import RepoFile

from guide_hub import hub
from guide_hub import record as records
from guide_hub.errors import GuideHubError, HubError, InputError
from guide_hub.record import Record

SIGNATURE = "model.sig"
MAX_LINKS = 1000
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

Status = Literal["passed", "failed", "unchecked"]


@dataclass(frozen=True)
class Check:
    """One question about the model and its answer."""

    name: str
    status: Status
    detail: str


@dataclass
class Verification:
    """All checks of a model; `errors` as in every other report.

    `measured` by `--request` alone, `attacks` by `--attack`.
    """

    model: dict[str, str | None]
    checks: list[Check]
    erasures: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, Any]] | None = None
    attacks: list[dict[str, Any]] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.status == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        out = {"status": "failed" if self.failed else "verified", **asdict(self)}
        for key in ("measured", "attacks"):
            if out[key] is None:
                del out[key]
        return out


def verify(source: hub.Source) -> Verification:
    """Checks a model that was pulled: files, record, card, licence, and its chain back to the first base."""
    statement, data, unreadable = None, b"", "there is no erasure_record.json"
    if source.record_file is not None:
        data = source.record_file.read_bytes()
        try:
            statement = records.parse_record(data)
        except InputError as error:
            unreadable = _text(error)
    checks = [_files(source)]
    if statement is None:
        checks += [Check("record", "failed", unreadable), _weights(source), _others(source)]
        return Verification(_model(source), checks)
    base = _Base(statement, source.uri)
    checks += [
        Check("record", "passed", "an in-toto statement that keeps to its schema"),
        _subject(source, statement),
        _results(statement),
        _weights(source),
        _others(source),
        _recipe(source, statement),
        _card(source, statement),
        _licence(source, base),
        _base_weights(base),
        _tensors(source, base),
        _chain(base),
        _fork(data, statement),
        _signature(source),
    ]
    erasures = [
        {"request_id": e["requestId"], "identity_id": e["identityId"], "result": e["result"]}
        for e in statement["predicate"]["erasures"]
    ]
    return Verification(_model(source), checks, erasures)


def _model(source: hub.Source) -> dict[str, str | None]:
    return {"repo": source.uri, "revision": source.revision}


def _text(error: GuideHubError) -> str:
    return "; ".join(p.message for p in error.problems)


def answer(name: str, passed: str, faults: Callable[[], Iterable[str]], purged: str | None = None) -> Check:
    """Passed where there are no faults. InputError is one; HubError leaves the question unchecked.

    `purged` says so of what is gone for good.
    """
    try:
        found = list(faults())
    except HubError as error:
        return Check(name, "unchecked", purged or _text(error))
    except InputError as error:
        found = [_text(error)]
    return Check(name, "failed", "; ".join(found)) if found else Check(name, "passed", passed)


# ----------------------------------------------------------------------------------------------------------
# The files


def _files(source: hub.Source) -> Check:
    def faults() -> Iterable[str]:
        yield from (f"{n} is missing" for n in hub.REQUIRED_FILES if not (source.folder / n).is_file())
        listed = records.read_sums(source.folder)
        yield from (p.message for p in records.check_sums(source.folder))
        found = {path for pattern in hub.PUBLIC_FILES for path in source.folder.glob(pattern)}
        names = {path.relative_to(source.folder).as_posix() for path in found if path.is_file()}
        for name in sorted(names - listed.keys() - {hub.CHECKSUMS}):
            yield f"{name} is not listed in {hub.CHECKSUMS}"

    return answer("files", f"all are as {hub.CHECKSUMS} says", faults)


def _subject(source: hub.Source, statement: Record) -> Check:
    def faults() -> Iterable[str]:
        names = {entry["name"] for entry in statement["subject"]}
        yield from (f"the record is not about {n}" for n in (hub.WEIGHTS, "config.json") if n not in names)
        there = [n for n in names if (source.folder / n).is_file()]
        actual = {n: records.file_sha256(source.folder / n) for n in there}
        yield from (p.message for p in records.check_subject(statement, actual))

    return answer("subject", "weights and config.json are those of the record", faults)


def _results(statement: Record) -> Check:
    def faults() -> Iterable[str]:
        for e in erasures:
            if e["result"] == "FAILED":
                yield f"erasure {e['sequence']} did not meet its target, says the record"
        if said is not None:
            law = 1 - (1 - said["far"]) ** said["n"]
            if said["n"] != len(erasures) or abs(said["expected"] - law) > 1e-5:
                yield f"the collateral on record is not that of {len(erasures)} erasures"

    erasures, said = statement["predicate"]["erasures"], statement["predicate"].get("collateral")
    return answer("results", f"{len(erasures)} on record, none of which failed", faults)


def _weights(source: hub.Source) -> Check:
    return answer(
        "weights",
        "safetensors, with nothing in the header but the tensors",
        lambda: header_faults(read_header(source.weights_file), source.weights_file.stat().st_size),
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, its own size under "". InputError where there is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(100 << 20, path.stat().st_size - 8):
            raise InputError(f"{path.name} is not a safetensors file")
        text = file.read(size)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path.name} has a damaged header")
    return {**header, "": size}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name appears twice")
    return dict(pairs)


def header_faults(header: dict[str, Any], size: int) -> list[str]:
    """What in a header is not of a plain safetensors file of `size` bytes, whose tensors fill it exactly."""
    tensors = {name: t for name, t in header.items() if name not in ("", "__metadata__")}
    if header.get("__metadata__") != {"format": "pt"}:
        return ["the header's metadata is more or less than the format"]
    end = 0
    try:
        for tensor in sorted(tensors.values(), key=lambda t: t["data_offsets"]):
            first, last = tensor["data_offsets"]
            if first != end or last - first != math.prod(tensor["shape"]) * DTYPES[tensor["dtype"]]:
                return ["the header's tensors do not fill the file one after the other"]
            end = last
    except (TypeError, KeyError, ValueError):
        return ["the header describes a tensor wrongly"]
    return [] if tensors and 8 + header[""] + end == size else ["the file is not as long as its header says"]


def _others(source: hub.Source) -> Check:
    return answer(
        "other weights",
        "there are none",
        lambda: [f"{name} may still show the erased people" for name in source.other_weights],
    )


def _recipe(source: hub.Source, statement: Record) -> Check:
    def faults() -> Iterable[str]:
        try:
            options = yaml.safe_load((source.folder / "recipe.yaml").read_bytes())
            name = options.pop("name", None)
            text = json.dumps(options, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError):
            return ["recipe.yaml is missing or cannot be read"]
        method = statement["predicate"]["method"]
        same = hashlib.sha256(text.encode()).hexdigest() == method["recipeDigest"]["sha256"]
        named = method.get("recipe", name) == name
        return [] if same and named else ["recipe.yaml is not the recipe of the record"]

    return answer("recipe", "recipe.yaml is the record's", faults)


def _card(source: hub.Source, statement: Record) -> Check:
    card = _read_text(source.folder / "README.md")
    if other := records.other_words(card, statement):
        return Check("card", "unchecked", f"{other}: use that version, or a newer one")
    return answer(
        "card",
        "says what the record says; the maintainer's notes are free",
        lambda: [f"{part} is not what the record says" for part in records.card_faults(card, statement)],
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _signature(source: hub.Source) -> Check:
    if (source.folder / SIGNATURE).is_file():
        return Check("signature", "unchecked", f"{SIGNATURE} is there: check it with model_signing verify")
    words = "none: that this run's own figures are honest rests on the maintainer's word"
    return Check("signature", "unchecked", words)


# ----------------------------------------------------------------------------------------------------------
# What the record says of its base


class _Base:
    """The base that a record names, as far as it can be had without downloading its weights.

    Every attribute raises HubError where the base, or the Hub, cannot be reached. `purged` says so where it
    is an older revision of the model itself, whose record says that those were removed; `model` is its uri.
    """

    def __init__(self, statement: Record, model: str | None = None):
        said = statement["predicate"]["base"]
        self.statement, self.uri, self.revision = statement, str(said["uri"]), said.get("revision")
        self.sha256 = str(said["digest"]["sha256"])
        self.repo = self.uri.removeprefix("hf://") if self.uri.startswith("hf://") else None
        self.name = f"{self.repo} at {self.revision[:8]}" if self.repo and self.revision else self.uri
        gone = statement["predicate"]["priorRevisions"] == "purged" and model == self.uri
        self.purged = f"{self.name} was purged, says the record" if gone else None

    def folder(self) -> Path:
        """Of a built-in model."""
        try:
            return hub.resolve(self.uri).folder
        except InputError as error:
            raise HubError(*error.problems) from None

    def need(self) -> None:
        if self.uri == "local":
            raise HubError("the base was a folder of the maintainer's; nobody else has it")

    def read(self, name: str) -> bytes | None:
        """A small file of it, None where it has none."""
        self.need()
        if self.repo is not None:
            return hub.read_file(self.repo, name, self.revision)
        path = self.folder() / name
        return path.read_bytes() if path.is_file() else None

    def blobs(self, *names: str) -> dict[str, str]:
        """Those of its files that exist: the SHA-256 of what lies in LFS, git's blob id of the rest."""
        assert self.repo is not None
        with hub.explained(self.repo, self.revision):
            found = HfApi().get_paths_info(self.repo, list(names), revision=self.revision)
        return {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in found if isinstance(f, RepoFile)}

    def weights_sha256(self) -> str | None:
        """None where it has no weights."""
        self.need()
        if self.repo is not None:
            return self.blobs(hub.WEIGHTS).get(hub.WEIGHTS)
        return records.file_sha256(self.folder() / hub.WEIGHTS)

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape by name, from the first bytes of its weights."""
        self.need()
        if self.repo is None:
            return _tensor_table(read_header(self.folder() / hub.WEIGHTS))
        try:
            with hub.explained(self.repo, self.revision):
                found = HfApi().parse_safetensors_file_metadata(
                    self.repo, hub.WEIGHTS, revision=self.revision
                )
        except (SafetensorsParsingError, AttributeError, TypeError):  # a tensor, or the whole, is no object
            raise InputError("the base's weights have a damaged header") from None
        return {name: (t.dtype, tuple(t.shape)) for name, t in found.tensors.items()}

    def card(self) -> dict[str, Any]:
        return records.front_matter((self.read("README.md") or b"").decode("utf-8", "replace"))

    def has_licence_file(self, path: Path) -> bool:
        """Whether its licence file is `path`, or it has none."""
        if self.repo is None:
            theirs = [self.folder() / n for n in hub.LICENSE_NAMES if (self.folder() / n).is_file()]
            return not theirs or (path.is_file() and theirs[0].read_bytes() == path.read_bytes())
        found = self.blobs(*hub.LICENSE_NAMES)
        first = next((found[name] for name in hub.LICENSE_NAMES if name in found), None)
        return first is None or (path.is_file() and first == hub.git_blob_id(path))


def _tensor_table(header: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = header.keys() - {"", "__metadata__"}
    try:
        return {n: (header[n]["dtype"], tuple(header[n]["shape"])) for n in names}
    except (TypeError, KeyError):
        raise InputError("the header describes a tensor wrongly") from None


def _licence(source: hub.Source, base: _Base) -> Check:
    def stated() -> Iterable[str]:
        own = records.licence(source.card)
        if own.get("license_link") == "LICENSE" and not (source.folder / "LICENSE").is_file():
            return ["the card names a LICENSE that is not there"]
        return []

    def faults() -> Iterable[str]:
        theirs = base.card()
        if not theirs.get("license"):  # then the maintainer gave a text
            theirs |= {"license": "other", "license_link": "LICENSE"}
        if records.licence(theirs) != records.licence(source.card):
            yield "the card's licence is not the base's"
        if not base.has_licence_file(source.folder / "LICENSE"):
            yield "LICENSE is not the base's"

    first = answer("licence", "", stated)
    if first.status == "failed":
        return first
    return answer("licence", "is the base's", faults, base.purged)


def _base_weights(base: _Base) -> Check:
    passed = f"the weights of {base.name} are those of the record"
    return answer("base", passed, lambda: _other_weights(base), base.purged)


def _other_weights(base: _Base) -> list[str]:
    same = base.weights_sha256() == base.sha256
    return [] if same else [f"the weights of {base.name} are not the base of the record"]


def _tensors(source: hub.Source, base: _Base) -> Check:
    def faults() -> Iterable[str]:
        ours = _tensor_table(read_header(source.weights_file))
        return [] if ours == base.tensors() else ["names, types or shapes are not those of the base"]

    return answer("tensors", "the base's, by name, type and shape", faults, base.purged)


# ----------------------------------------------------------------------------------------------------------
# The chain of records


def _chain(base: _Base) -> Check:
    """Every link from the record back to a base that has none."""
    links, first = 0, base
    while True:
        try:
            older = base.read(records.record.FILE)
            faults = _link_faults(base, older)
            faults += _other_weights(base) if links else []  # the first one's are a check of their own
        except InputError as error:
            faults = [_text(error)]
        except HubError as error:
            why = "purged, says the record" if first.purged and base.uri == first.uri else _text(error)
            before = f"{_counted(links)}; what lies before" if links else "what lies before"
            return Check("chain", "unchecked", f"{before} is not to be had: {why}")
        if faults or links > MAX_LINKS:
            return Check("chain", "failed", "; ".join(faults) or "it does not end")
        if older is None:
            back = f"{_counted(links)}, back to" if links else "no earlier record: made from"
            return Check("chain", "passed", f"{back} {base.name}")
        links += 1
        base = _Base(records.parse_record(older))


def _counted(links: int) -> str:
    return f"{links} earlier record{'' if links == 1 else 's'} continued"


def _link_faults(base: _Base, older: bytes | None) -> list[str]:
    if older is not None:
        return [p.message for p in records.check_link(base.statement, older)]
    if "previousRecord" in base.statement["predicate"]:
        return [f"the record names an earlier one, but {base.name} has none"]
    return []


def _fork(data: bytes, statement: Record) -> Check:
    """Whether the base's main branch holds this record, the one before it, or one that continues it."""
    base = _Base(statement)
    if base.repo is None:
        return Check("fork", "unchecked", "the base is no repository, so nothing shows other records of it")
    main = base.repo
    lost = f"main of {main} has lost the record that this one continues"
    forked = f"main of {main} went on with other erasures, which this model does not have"
    said = statement["predicate"]
    continued, replaced = said.get("previousRecord", {}), said.get("rebuilt", {}).get("replacesRecord", {})
    previous = (continued or replaced).get("digest", {}).get("sha256")

    def faults() -> Iterable[str]:
        with hub.explained(main):
            head = HfApi().model_info(main).sha  # asked for each time: a cache may know an older one
        tip = hub.read_file(main, records.record.FILE, head)
        if tip is None:
            return [lost] if continued else []
        ours = records.amended_digests(data)
        if not records.amended_digests(tip).isdisjoint({*ours, previous}):
            return []
        link = _Base(records.parse_record(tip))
        for _ in range(MAX_LINKS):
            named = link.statement["predicate"].get("previousRecord", {}).get("digest", {}).get("sha256")
            if named in ours:
                return []  # a later record continues this one
            if named is None or named == previous:
                break
            older = link.read(records.record.FILE)
            if older is None:
                break
            link = _Base(records.parse_record(older))
        return [forked]

    return answer("fork", f"main of {main} knows of no other erasures", faults)
