"""Requests: what a valid one becomes, and every kind of bad input at its exact place."""

import datetime
import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image

from guide_hub import request as module
from guide_hub.errors import InputError
from guide_hub.request import load_request

TODAY = datetime.date(2026, 8, 10)
SECRET = "jane_doe_1987"  # the file name that no message may hold

GOOD = f"""\
schema: guide-hub/request/v1
request_id: "2026-0042"
regime: gdpr
ground: art-17-1-b
received: "2026-08-03"
requester_verified: true
target:
  repo: org/eg3d
  revision: null
identities:
  - id: subject-a
    images:
      - photos/{SECRET}.png
      - {{path: photos/b.png, face: [30, 20]}}
  - id: subject-b
    images: [photos/c.png]
publish: [ground]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name, colour in ((SECRET, "red"), ("b", "green"), ("c", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text, **options):
    Path("takedown.yaml").write_text(text, encoding="utf-8")
    return load_request("takedown.yaml", today=TODAY, **options)


def faults(text, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(text, **options)
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 2
    return [str(p) for p in caught.value.problems]


def test_valid_request(folder):
    request = load(GOOD, repo="org/eg3d")
    assert request.request_id == "2026-0042"
    assert request.regime == "gdpr"
    assert request.public_ground == "art-17-1-b"
    assert request.public_received is None
    assert request.target_repo == "org/eg3d"
    assert request.target_revision is None
    assert request.received == datetime.date(2026, 8, 3)
    assert request.expected_by == datetime.date(2026, 9, 3)
    assert [i.id for i in request.identities] == ["subject-a", "subject-b"]
    first, second = request.identities[0].images
    data = (folder / "photos" / f"{SECRET}.png").read_bytes()
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert first.key == "identities[0].images[0]"
    assert (first.line, first.column) == (13, 9)
    assert second.face == (30.0, 20.0)
    assert second.size == (40, 30)
    assert request.warnings == []


def test_ids_are_taken_as_written(folder):
    assert load(GOOD.replace('"2026-0042"', "00123")).request_id == "00123"
    assert load(GOOD.replace("id: subject-a", "id: no")).identities[0].id == "no"


def test_regime_is_voluntary_unless_said(folder):
    assert load(GOOD.replace("regime: gdpr\n", "")).regime == "voluntary"


def test_repr_names_no_photo(folder):
    request = load(GOOD)
    assert SECRET not in repr(request)
    assert request.identities[0].images[0].sha256 not in repr(request)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("identities:\n", "idnetities:\n", "10:1: unknown key 'idnetities' (did you mean 'identities'?)"),
        ("request/v1", "request/v2", "1:9: schema must be guide-hub/request/v1"),
        ("schema: guide-hub/request/v1\n", "", "1:1: missing key 'schema'"),
        ("regime: gdpr", "regime: gpdr", "3:9: regime must be one of gdpr, ccpa, voluntary, other"),
        ("regime: gdpr", "regime: gdpr\nregime: ccpa", "4:1: duplicate key 'regime' (keep one of them)"),
        ('"2026-0042"', '"Jane Doe"', "2:13: request_id must be 1 to 64 letters, digits, dots, hyphens"),
        ('"2026-0042"', "~", "2:13: request_id must be 1 to 64 letters, digits, dots, hyphens and"),
        ('"2026-08-03"', "2026-08-32", "5:11: received is not a day of the calendar"),
        ('"2026-08-03"', "03.08.2026", "5:11: received must be a date, YYYY-MM-DD"),
        ('"2026-08-03"', "2026-08-03T10:00:00Z", "5:11: received must be a date, YYYY-MM-DD"),
        ('"2026-08-03"', '"2026-08-03"\nexpected_by: 2026-08-02', "6:14: expected_by is before `received`"),
        ("verified: true", "verified: false", "6:21: requester_verified must be true: insufficient"),
        ("verified: true", 'verified: "true"', "6:21: requester_verified must be true or false"),
        ("requester_verified: true\n", "", "1:1: missing key 'requester_verified'"),
        ("repo: org/eg3d", "repo: org/other", "8:9: target.repo is not the model that --repo names"),
        ("revision: null", "revison: null", "9:3: unknown key 'revison' in target"),
        ("id: subject-a", "id: Subject A", "11:9: identities[0].id must be 1 to 63 lower-case letters,"),
        ("id: subject-b", "id: subject-a", "15:5: identities[1] has the id of identities[0]"),
        ("id: subject-b", "id: subject-b\n    name: Jane", "16:5: key 'name' does not belong here"),
        ("regime: gdpr", "email: a@b.org", "3:1: key 'email' does not belong here"),
        ("regime: gdpr", "contact: {a: b}", "3:1: key 'contact' does not belong here"),
        ("[photos/c.png]", "[]", "16:13: identities[1].images must have at least 1 picture"),
        ("[photos/c.png]", "photos/c.png", "16:13: identities[1].images must be a list"),
        ("[photos/c.png]", "[photos]", "16:14: identities[1].images[0] is not a regular file"),
        ("[photos/c.png]", "[photos/none.png]", "16:14: identities[1].images[0] does not exist"),
        ("[photos/c.png]", '["photos/\\0.png"]', "16:14: identities[1].images[0] cannot be read: not a path"),
        ("[photos/c.png]", "[takedown.yaml]", "16:14: identities[1].images[0] is not a picture"),
        ("[photos/c.png]", "[{sha256: 00}]", "16:14: missing key 'path' in identities[1].images[0]"),
        ("photos/c.png", f"photos/{SECRET}.png", "16:14: identities[1].images[0] is the same picture"),
        ("face: [30, 20]", "face: [30, 31]", "14:36: identities[0].images[1].face lies outside"),
        ("face: [30, 20]", "face: [30]", "14:36: identities[0].images[1].face must be two numbers, [x, y]"),
        ("face: [30, 20]", "face: [-1, 20]", "14:37: identities[0].images[1].face[0] must be a number >= 0"),
        ("face: [30, 20]", "sha256: " + "0" * 64, "14:38: identities[0].images[1].sha256 does not"),
        ("face: [30, 20]", "sha256: abc", "14:38: identities[0].images[1].sha256 must be a SHA-256"),
        ("[ground]", "[received, e-mail]", "17:21: publish[1] must be one of ground, received"),
        ("ground: art-17-1-b", "ground: <b>x</b>", "4:9: ground must be a short code such as art-17-1-b"),
        ("regime: gdpr", "regime: !!python/name:os.system gdpr", "3:9: tags are not supported"),
        ("regime: gdpr", "regime: *gdpr", "3:9: aliases are not supported"),
        ("regime: gdpr", "regime: [gdpr", "4:7: expected ',' or ']', but got ':'"),
        ("regime: gdpr", "regime:\tgdpr\x01", "3:13: control characters are not allowed"),
        ("regime: gdpr", "x: " + "[" * 3000, "3:23: nested too deeply"),
        ("publish:", "---\npublish:", "17:1: expected a single document in the stream, but found another"),
    ],
)  # fmt: skip
def test_each_fault_at_its_place(folder, old, new, expected):
    assert old in GOOD
    found = faults(GOOD.replace(old, new, 1), repo="org/eg3d")
    assert any(f.startswith(f"takedown.yaml:{expected}") for f in found), found


def test_all_faults_at_once_in_the_order_of_the_file(folder):
    text = GOOD.replace("gdpr", "gpdr").replace("true", "false").replace("photos/c.png", "photos/none.png")
    assert [f.split(": ")[0] for f in faults(text)] == [
        "takedown.yaml:3:9",
        "takedown.yaml:6:21",
        "takedown.yaml:16:14",
    ]


def test_at_least_one_identity(folder):
    head = GOOD[: GOOD.index("identities:")]
    assert faults(head + "identities: []\n") == [
        "takedown.yaml:10:13: identities must have at least 1 identity"
    ]
    assert faults(head) == ["takedown.yaml:1:1: missing key 'identities'"]


def test_unknown_keys_are_not_quoted_unless_misspelled(folder):
    (found,) = faults(GOOD.replace("[photos/c.png]", f"[{{path: photos/c.png, {SECRET}.jpg: x}}]"))
    assert found.startswith("takedown.yaml:16:35: unknown key in identities[1].images[0] (known keys:")


def test_a_flood_of_faults_is_cut(folder):
    found = faults(GOOD + "".join(f"zz{i}: 1\n" for i in range(500)))
    assert len(found) == 51
    assert "more problems" in found[-1]


@pytest.mark.parametrize("name", ["takedown.yaml", "photos"])
def test_request_that_is_no_file(folder, name):
    with pytest.raises(InputError) as caught:
        load_request(name)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "takedown.yaml:1:1: is empty"),
        (b"- a\n", "takedown.yaml:1:1: must be a mapping (key: value)"),
        (b"a: 1\nb: \xff\n", "takedown.yaml:2:4: is not UTF-8 text (save it as UTF-8)"),
        (b"#" * (1 << 20) + b"#", "takedown.yaml: is larger than 1 MiB"),
        (b"a: &x [1]\nb: [*x, *x]\n", "takedown.yaml:2:5: aliases are not supported"),
    ],
)
def test_request_that_is_no_request(folder, data, expected):
    Path("takedown.yaml").write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_request("takedown.yaml")
    assert str(caught.value.problems[0]) == expected


def test_damaged_empty_and_huge_pictures(folder, monkeypatch):
    text = GOOD.replace("[photos/c.png]", "[photos/d.jpg]")
    place = "takedown.yaml:16:14: identities[1].images[0]"
    picture = Path("photos/d.jpg")
    Image.effect_noise((200, 200), 50).save(picture)
    picture.write_bytes(picture.read_bytes()[:2000])
    assert faults(text)[0].startswith(f"{place} is a damaged or incomplete picture")
    picture.write_bytes(b"")
    assert faults(text) == [f"{place} is empty"]
    Image.new("1", (20_000, 20_000)).save(picture, format="PNG")  # a small file of many pixels
    assert faults(text)[0].startswith(f"{place} has more than 80 million pixels")
    picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert faults(text)[0].startswith(f"{place} is not a picture, or not of a format that is read here")
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 1 << 20)
    picture.write_bytes(b"x" * ((1 << 20) + 1))
    assert faults(text)[0].startswith(f"{place} is larger than 1 MiB")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_picture(folder):
    os.mkfifo("photos/pipe.png")  # opening it would wait for ever
    assert "is not a regular file" in faults(GOOD.replace("photos/c.png", "photos/pipe.png"))[0]


def test_too_many_pictures(folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGES", 2)
    assert faults(GOOD)[0].startswith("takedown.yaml:11:3: identities have more than 2 pictures")


def test_one_group_photo_may_serve_two_people(folder):
    text = GOOD.replace("[photos/c.png]", "[{path: photos/b.png, face: [5, 5]}]")
    assert len(load(text).identities) == 2
    assert "is the same picture" in faults(text.replace("[5, 5]", "[30, 20]"))[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("id: subject-a", "id: jane-doe", "11:9: identities[0].id looks like a name, and ids become public"),
        ("2026-08-03", "2026-07-03", "5:11: the answer was due on 2026-08-03"),
        ('"2026-08-03"', "2026-08-03\nexpected_by: 2026-08-09", "6:14: the answer was due on 2026-08-09"),
        ("2026-08-03", "2026-08-13", "5:11: received is in the future"),
        ("ground: art-17-1-b\n", "", "16:10: publish names `ground`, which the request does not give"),
    ],
)
def test_warnings(folder, old, new, expected):
    (warning,) = load(GOOD.replace(old, new)).warnings
    assert str(warning).startswith(f"takedown.yaml:{expected}")


@pytest.mark.parametrize(
    "name", ["subject-a", "p1", "case-2026-0042", "person-3", "a-b", "fade-0123", "user-alpha"]
)
def test_labels_that_look_like_no_name(name):
    assert not module._looks_like_name(name)


@pytest.mark.parametrize("name", ["jane", "jane-doe", "subject-smith", "doe2-jane"])
def test_ids_that_look_like_a_name(name):
    assert module._looks_like_name(name)


@pytest.mark.parametrize(
    ("received", "due"),
    [("2026-01-31", "2026-02-28"), ("2026-12-15", "2027-01-15"), ("2028-01-30", "2028-02-29")],
)
def test_one_month(received, due):
    day = datetime.date.fromisoformat
    assert module._month_later(day(received)) == day(due)


def opened(image, name="photos/c.png", **options):
    image.save(name, **options)
    return load(GOOD.replace("photos/c.png", name)).identities[1].images[0].open()


def test_open_turns_by_exif(folder):
    image = Image.new("RGB", (40, 20), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    out = opened(image, exif=exif)
    assert out.size == (20, 40)
    assert out.getpixel((19, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), "photos/t.png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), "photos/t.png", (255, 0, 0)),
        ("LA", (0, 0), "photos/t.png", (255, 255, 255)),
        ("I;16", 128 * 257, "photos/t.png", (128, 128, 128)),
        ("L", 7, "photos/t.png", (7, 7, 7)),
        ("1", 1, "photos/t.png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "photos/t.tif", (255, 0, 0)),
    ],
)
def test_open_gives_rgb_on_white(folder, mode, colour, name, expected):
    out = opened(Image.new(mode, (8, 8), colour), name)
    assert out.mode == "RGB"
    assert out.getpixel((3, 3)) == expected


def test_open_of_a_transparent_palette(folder):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0] * 256)
    assert opened(image, "photos/t.png", transparency=0).getpixel((1, 1)) == (255, 255, 255)


def test_open_notices_a_changed_file(folder):
    photo = load(GOOD).identities[0].images[0]
    Image.new("RGB", (40, 30), "black").save(f"photos/{SECRET}.png")
    with pytest.raises(InputError) as caught:
        photo.open()
    assert str(caught.value).startswith("takedown.yaml:13:9: identities[0].images[0] changed")
    assert SECRET not in str(caught.value)
