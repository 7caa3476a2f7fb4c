"""The erasure request: `takedown.yaml` (guide-hub/request/v1) and its photos, checked before any model is.

Nothing said here names a photo: messages give the place in the YAML file and the key, such as
`identities[0].images[1]`.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import io
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from guide_hub import _yaml
from guide_hub.errors import InputError, Problem

SCHEMA = "guide-hub/request/v1"
REGIMES = ("gdpr", "ccpa", "voluntary", "other")
PUBLISHABLE = ("ground", "received")

REQUEST_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
IDENTITY_ID = r"[a-z0-9][a-z0-9-]{0,62}"
GROUND = r"[A-Za-z0-9][A-Za-z0-9:._-]{0,63}"

MAX_IMAGES = 1000
MAX_IMAGE_BYTES = 50 << 20
MAX_IMAGE_PIXELS = 80_000_000
MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over all pixels; ten are usual

# Of what Pillow reads, the raster formats that it decodes by itself: EPS would start Ghostscript, and WMF,
# FITS and the like hold no photos. MPO, the phones' JPEG with several pictures, comes with JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "JPEG2000", "PPM", "TGA", "ICO", "PCX",
           "PSD", "SGI", "QOI", "SUN")  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_PERSONAL = re.compile(
    r"contact|(first|last|full|sur|family)?[-_ ]?names?|e[-_ ]?mails?|(tele)?phone|address|birth(day|_date)",
    re.IGNORECASE,
)
_LABELS = (
    "subject person people identity face user data case request requester req ticket image photo the and "
    "test demo example sample synthetic head alpha beta gamma delta one two three four five six"
)


@dataclass(frozen=True)
class Photo:
    """A photo of the request. `face`: pixel (x, y) of the wanted face; `size`: (w, h); both after EXIF.

    `path` and `sha256` identify the person and stay out of `repr` and of everything published.
    """

    key: str
    path: Path = field(repr=False)
    sha256: str = field(repr=False)
    size: tuple[int, int]
    face: tuple[float, float] | None = None
    file: str | None = field(default=None, repr=False)
    line: int | None = field(default=None, repr=False)
    column: int | None = field(default=None, repr=False)

    def open(self) -> Image.Image:
        """The picture: RGB, upright by its EXIF, transparency on white. InputError if it has changed."""
        try:
            data = _read_bytes(self.path)
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise _BadPhotoError("changed while guide-hub was running")
            return _decode(data)
        except _BadPhotoError as error:
            raise InputError(self.problem(*error.args)) from None

    def problem(self, message: str, remedy: str = "") -> Problem:
        """A problem with this photo, at its place in the request."""
        return Problem(f"{self.key} {message}", remedy, self.file, self.line, self.column)


@dataclass(frozen=True)
class Identity:
    """One person to erase: an opaque `id`, of its request alone, and at least one photo.

    `label` is what a run calls it: the id, or REQUEST.ID in a run of several requests.
    """

    id: str
    images: tuple[Photo, ...]
    key: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.id)


@dataclass(frozen=True)
class Request:
    """A valid request. `identities` are in the order of erasure; `warnings` are for the maintainer only."""

    path: Path
    request_id: str
    regime: str
    received: datetime.date
    expected_by: datetime.date
    identities: tuple[Identity, ...]
    ground: str | None = None
    target_repo: str | None = None
    target_revision: str | None = None
    publish: tuple[str, ...] = ()
    warnings: list[Problem] = field(default_factory=list)

    @property
    def public_ground(self) -> str | None:
        """The ground, if the request lets it be published."""
        return self.ground if "ground" in self.publish else None

    @property
    def public_received(self) -> datetime.date | None:
        """The day of receipt, if the request lets it be published."""
        return self.received if "received" in self.publish else None


class _BadPhotoError(Exception):
    """(message, remedy) about a photo, without its name."""


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _BadPhotoError("is not a regular file", "give the path of one picture")
        if status.st_size > MAX_IMAGE_BYTES:
            raise _BadPhotoError(f"is larger than {MAX_IMAGE_BYTES >> 20} MiB", "save it smaller")
        return path.read_bytes()
    except FileNotFoundError:
        raise _BadPhotoError("does not exist", "paths are relative to the request file") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise _BadPhotoError(f"cannot be read: {reason}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise _BadPhotoError("has floating-point pixels", "save it as an 8 bit JPEG or PNG")
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion clips at 255
        image = image.convert("I")
        _, high = image.getextrema()
        if not (isinstance(high, int) and high <= 0xFFFF):
            raise _BadPhotoError("has 32 bit pixels", "save it as an 8 bit JPEG or PNG")
        return image.point(lambda v: v * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "LAB":
        raise _BadPhotoError("has Lab colours", "save it as an 8 bit JPEG or PNG")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    """FORMATS, as far as this Pillow has them."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(data: bytes) -> Image.Image:
    """The first picture in `data`, fully decoded. Size is judged from the header, before any pixel is."""
    if not data:
        raise _BadPhotoError("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                if image.width * image.height > MAX_IMAGE_PIXELS:
                    raise Image.DecompressionBombError
                if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
                    raise _BadPhotoError(f"has more than {MAX_SCANS} scans", "save it as a usual JPEG")
                image.verify()
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                return _to_rgb(ImageOps.exif_transpose(image))
    except _BadPhotoError:
        raise
    except Image.DecompressionBombError:  # Pillow raises it too, above its own limit
        megapixels = MAX_IMAGE_PIXELS // 1_000_000
        raise _BadPhotoError(f"has more than {megapixels} million pixels", "save it smaller") from None
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
            raise _BadPhotoError("is a HEIF picture (HEIC)", "save it as JPEG") from None
        raise _BadPhotoError(
            "is not a picture, or not of a format that is read here", "save it as JPEG or PNG"
        ) from None
    except Exception:  # damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error
        raise _BadPhotoError(
            "is a damaged or incomplete picture", "save it anew from the original, as JPEG or PNG"
        ) from None


def _personal(key: str) -> tuple[str, str] | None:
    if _PERSONAL.fullmatch(key):
        remedy = "keep personal details out of the request; use your ticket system"
        return f"key '{key}' does not belong here", remedy
    return None


def _looks_like_name(identity_id: str) -> bool:
    """Words of letters that are no usual label: `subject-a` is fine, `jane-doe` is not. Only a warning."""
    words = re.findall(r"(?<![a-z0-9])[a-z]{3,}(?![a-z0-9])", identity_id)
    coded = any(c.isdigit() for c in identity_id)
    return any(w not in _LABELS.split() and not (coded and set(w) <= set("abcdef")) for w in words)


def _month_later(day: datetime.date) -> datetime.date:
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


class _Reader:
    """Walks the nodes of one request and keeps what only the walk knows."""

    def __init__(self, root: _yaml.Node, path: Path) -> None:
        self.root = root
        self.path = path
        self.warnings: list[Problem] = []
        self.images = 0
        self.seen: dict[str, list[tuple[str, Photo]]] = {}

    def photo(self, node: _yaml.Node, owner: str) -> Photo | None:
        face: tuple[float, float] | None = None
        digest: str | None = None
        where: _yaml.Node | None = node
        fields: dict[str, _yaml.Node] = {}
        if node.is_mapping:
            fields = node.mapping(("path", "sha256", "face"), required=("path",), on_unknown=_personal)
            where = fields.get("path")
            if "sha256" in fields:
                digest = fields["sha256"].text(r"[0-9a-fA-F]{64}", "a SHA-256 of 64 hexadecimal digits")
            if "face" in fields:
                face = self.face(fields["face"])
        name = where.text(wanted="the path of a picture") if where else None
        self.images += 1
        if name is None or self.images > MAX_IMAGES:
            return None
        mark = node.raw.start_mark
        path = self.path.parent / name
        try:
            data = _read_bytes(path)
            size = _decode(data).size
        except _BadPhotoError as error:
            node.note(*error.args)
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        if digest and digest.lower() != sha256:
            fields["sha256"].note("does not match the file", "the picture is not the one that was meant")
        if face and not (face[0] < size[0] and face[1] < size[1]):
            fields["face"].note(f"lies outside the picture ({size[0]} x {size[1]} pixels)")
        file = self.root.document.file
        photo = Photo(node.path, path, sha256, size, face, file, mark.line + 1, mark.column + 1)
        for other_owner, other in self.seen.get(sha256, []):
            # one group photo may serve two people, where each face is pointed at
            if owner == other_owner or not (face and other.face) or face == other.face:
                node.note(f"is the same picture as {other.key}", "remove it, or point at a `face` in each")
                break
        self.seen.setdefault(sha256, []).append((owner, photo))
        return photo

    def face(self, node: _yaml.Node) -> tuple[float, float] | None:
        items = node.items()
        values = [item.number(low=0) for item in items]
        if len(items) != 2:
            if items:
                node.note("must be two numbers, [x, y]")
            return None
        x, y = values
        return None if x is None or y is None else (float(x), float(y))

    def identity(self, node: _yaml.Node) -> Identity | None:
        fields = node.mapping(("id", "images"), required=("id", "images"), on_unknown=_personal)
        identity_id = None
        if "id" in fields:
            identity_id = fields["id"].text(
                IDENTITY_ID,
                "1 to 63 lower-case letters, digits and hyphens",
                "an opaque label such as subject-a",
            )
        if identity_id and _looks_like_name(identity_id):
            self.warnings.append(
                fields["id"].problem(
                    "looks like a name, and ids become public", "use a label such as subject-a"
                )
            )
        photos: list[Photo | None] = []
        if "images" in fields:
            photos = [self.photo(item, node.path) for item in fields["images"].items(1, "picture")]
        good = tuple(p for p in photos if p)
        return Identity(identity_id, good, node.path) if identity_id else None

    def identities(self, node: _yaml.Node) -> tuple[Identity, ...]:
        found = []
        places: dict[str, str] = {}
        for item in node.items(1, "identity"):
            identity = self.identity(item)
            if identity is None:
                continue
            if identity.id in places:
                item.note(f"has the id of {places[identity.id]}", "every identity needs its own id")
            places.setdefault(identity.id, item.path)
            found.append(identity)
        if self.images > MAX_IMAGES:
            node.note(f"have more than {MAX_IMAGES} pictures", "split the request")
        return tuple(found)

    def target(self, node: _yaml.Node, repo: str | None) -> tuple[str | None, str | None]:
        fields = node.mapping(("repo", "revision"), on_unknown=_personal)
        values: dict[str, str | None] = {}
        for key, value in fields.items():
            values[key] = None if value.is_null else value.text()
        wanted = values.get("repo")
        if wanted and repo is not None and wanted != repo:
            fields["repo"].note(
                "is not the model that --repo names", "check which model the request is about"
            )
        return wanted, values.get("revision")

    def publish(self, node: _yaml.Node) -> tuple[str, ...]:
        values = [item.choice(PUBLISHABLE) for item in node.items()]
        return tuple(dict.fromkeys(v for v in values if v))

    def request(self, repo: str | None, today: datetime.date) -> Request:
        known = ("schema", "request_id", "regime", "ground", "received", "expected_by", "requester_verified",
                 "target", "identities", "publish")  # fmt: skip
        required = ("schema", "request_id", "received", "requester_verified", "identities")
        fields = self.root.mapping(known, required, on_unknown=_personal)
        # a key with nothing behind it counts as absent where the key is optional
        given = {k: v for k, v in fields.items() if k in required or not v.is_null}

        schema = given["schema"].text() if "schema" in given else None
        if schema and schema != SCHEMA:
            given["schema"].note(f"must be {SCHEMA}")
        request_id = None
        if "request_id" in given:
            request_id = given["request_id"].text(
                REQUEST_ID,
                "1 to 64 letters, digits, dots, hyphens and underscores",
                "it becomes public: no names",
            )
        regime = given["regime"].choice(REGIMES) if "regime" in given else "voluntary"
        ground = (
            given["ground"].text(GROUND, "a short code such as art-17-1-b") if "ground" in given else None
        )
        received = given["received"].date() if "received" in given else None
        expected = given["expected_by"].date() if "expected_by" in given else None
        if "requester_verified" in given and given["requester_verified"].boolean() is False:
            given["requester_verified"].note(
                "must be true: insufficient verification", "verify who asks before erasing anybody"
            )
        target_repo, target_revision = (
            self.target(given["target"], repo) if "target" in given else (None, None)
        )
        identities = self.identities(given["identities"]) if "identities" in given else ()
        publish = self.publish(given["publish"]) if "publish" in given else ()

        if received and received > today:
            self.warnings.append(given["received"].problem("is in the future"))
        if received and expected and expected < received:
            given["expected_by"].note("is before `received`")
        self.root.document.close()
        assert request_id  # what is missing has become a problem above
        assert regime
        assert received
        due = expected or _month_later(received)
        if due < today:
            place = given.get("expected_by", given["received"])
            self.warnings.append(
                self.root.document.problem(place.raw.start_mark, f"the answer was due on {due.isoformat()}")
            )
        if "ground" in publish and ground is None:
            self.warnings.append(given["publish"].problem("names `ground`, which the request does not give"))
        self.warnings.sort(key=lambda p: (p.line or 0, p.column or 0))
        return Request(
            self.path, request_id, regime, received, due, identities, ground, target_repo, target_revision,
            publish, self.warnings,
        )  # fmt: skip


def load_photos(paths: Sequence[str | Path], identity_id: str = "person") -> Identity:
    """Photos of one person outside any request. InputError names those that cannot be read, by position."""
    photos, problems = [], []
    for k, path in enumerate(map(Path, paths), 1):
        key = f"photo {k}"
        try:
            data = _read_bytes(path)
            photos.append(Photo(key, path, hashlib.sha256(data).hexdigest(), _decode(data).size))
        except _BadPhotoError as error:
            message, *remedy = error.args
            problems.append(Problem(f"{key} {message}", *remedy))
    if problems:
        raise InputError(*problems)
    return Identity(identity_id, tuple(photos))


def load_request(path: str | Path, repo: str | None = None, today: datetime.date | None = None) -> Request:
    """Read and check a request and its photos; `repo` is what the command line names, to match `target.repo`.

    Raises one InputError with every problem at its line and column. `today` is for tests.
    """
    root = _yaml.read(path, private=True)
    return _Reader(root, Path(path)).request(repo, today or datetime.date.today())
