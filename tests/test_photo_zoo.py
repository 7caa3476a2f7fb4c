"""Photos that are hostile or hopeless, each with the words it is refused with, and odd ones that are good."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, features

from guide_hub.errors import InputError, Problem
from guide_hub.faces.crops import read_faces, read_photo
from guide_hub.faces.detection import Detector
from guide_hub.request import Photo, load_request

FACES = Path(__file__).resolve().parents[1] / "examples" / "takedown" / "photos"
HEAD = """\
schema: guide-hub/request/v1
request_id: zoo
received: 2999-01-01
requester_verified: true
identities:
  - id: subject-a
    images:
"""
NAME = "jane_doe_1987"  # of every file; no message may hold it
DAMAGED = "is a damaged or incomplete picture"
UNKNOWN = "is not a picture, or not of a format that is read here"
IRREGULAR = "is not a regular file"


@cache
def face(name: str = "a1", size: int = 256) -> Image.Image:
    picture = Image.open(FACES / f"{name}.jpg").convert("RGB")
    return picture if size == 256 else picture.resize((size, size), Image.Resampling.LANCZOS)


def saved(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def on_grey(picture: Image.Image, size: tuple[int, int], at: tuple[int, int]) -> Image.Image:
    ground = Image.new("RGB", size, (128, 128, 128))
    ground.paste(picture, at)
    return ground


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, *between: bytes, depth: int = 8, colour: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Deflated zeros, written without ever holding them."""
    squeeze, out = zlib.compressobj(9), []
    for start in range(0, count, 1 << 20):
        out.append(squeeze.compress(bytes(min(1 << 20, count - start))))
    return b"".join(out) + squeeze.flush()


def tiff(*tags: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


def strips(width: int, height: int, at: int, count: int) -> bytes:
    return tiff((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
                (273, 4, 1, at), (278, 4, 1, height), (279, 4, 1, count))  # fmt: skip


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small JPEG that says it is large."""
    data = saved(Image.new("RGB", (16, 16)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def many_scans() -> bytes:
    data = saved(face(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 200 + data[-2:]


def huge_gif() -> bytes:
    image = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\0"
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0" + image + b";"


def ico_of_large_png() -> bytes:
    inside = png(30_000, 30_000, b"")
    return (
        struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inside), 22) + inside
    )


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 51 << 20)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.write(FACES / "a1.jpg", "a1.jpg")
    return buffer.getvalue()


def noise(size: int = 300) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


def texture() -> Image.Image:
    y, x = np.mgrid[:300, :300]
    return Image.fromarray((127 + 120 * np.sin(x / 9) * np.cos(y / 13)).astype(np.uint8))


def text_bomb() -> bytes:
    return png(8, 8, zeros(72), chunk(b"zTXt", b"a\0\0" + zeros(8 << 20)))


def icc_bomb() -> bytes:
    return png(8, 8, zeros(72), chunk(b"iCCP", b"a\0\0" + zeros(8 << 20)))


def pair() -> Image.Image:
    both = on_grey(face("b1"), (512, 256), (256, 0))
    both.paste(face("a1"), (0, 0))
    return both


# What the file holds, or how the path is made: what is said of it. Refused when the request is read.
HOSTILE: dict[str, tuple[bytes | Callable[..., object], str]] = {
    # no picture
    "zero bytes": (b"", "is empty"),
    "one byte": (b"\xff", UNKNOWN),
    "a directory": (lambda path: path.mkdir(), IRREGULAR),
    "a pipe": (lambda path: os.mkfifo(path), IRREGULAR),
    "a device": (lambda path: path.symlink_to("/dev/zero"), IRREGULAR),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read: Too many levels"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "no file": (lambda path: None, "does not exist"),
    "text": (b"not a picture\n" * 99, UNKNOWN),
    "HTML": (b"<!DOCTYPE html><html><body><img src='/x.jpg'></body></html>", UNKNOWN),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", UNKNOWN),
    "PDF": (b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n", UNKNOWN),
    "ZIP": (archive, UNKNOWN),
    "gzip of a photo": (lambda: gzip.compress(saved(face(), "JPEG")), UNKNOWN),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\n(x) run\n", UNKNOWN),
    "WMF": (b"\xd7\xcd\xc6\x9a" + bytes(60), UNKNOWN),
    "FITS": (b"SIMPLE  =                    T" + b" " * 2850, UNKNOWN),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(80), UNKNOWN),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(80), "is a HEIF picture (HEIC)"),
    "an executable": (b"\x7fELF\x02\x01\x01" + bytes(90), UNKNOWN),
    "a JPEG's first bytes alone": (b"\xff\xd8\xff\xe0", UNKNOWN),
    # damaged
    "cut-off JPEG": (lambda: saved(face(), "JPEG")[:3000], DAMAGED),
    "cut-off PNG": (lambda: saved(face())[:3000], DAMAGED),
    "cut-off WebP": (lambda: saved(face(), "WEBP")[:3000], DAMAGED),
    "cut-off JPEG 2000": (lambda: saved(face(), "JPEG2000")[:400], DAMAGED),
    "cut-off GIF": (lambda: saved(face(), "GIF")[:3000], DAMAGED),
    "PNG with a wrong sum": (lambda: saved(face()).replace(b"IEND", b"IENE"), DAMAGED),
    "PNG without pixels": (lambda: png(64, 64, b""), DAMAGED),
    "TIFF with a strip beyond the file": (lambda: strips(64, 64, 0xFFFFFF00, 4096), DAMAGED),
    "TIFF with a strip of 4 GB": (lambda: strips(64, 64, 8, 0xFFFFFFFF), DAMAGED),
    "TIFF that is its own next page": (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", UNKNOWN),
    "TIFF of no width": (lambda: strips(0, 64, 8, 64), UNKNOWN),
    # bombs
    "PNG of 81 megapixels": (lambda: png(9000, 9001, b""), "has more than 80 million pixels"),
    "PNG of 4 gigapixels a side": (lambda: png(2**31 - 1, 2**31 - 1, b""), "has more than 80 million pixels"),
    "JPEG of 65535 x 65535": (lambda: jpeg_of_size(65535, 65535), "has more than 80 million pixels"),
    "GIF of 65535 x 65535": (huge_gif, "has more than 80 million pixels"),
    "TIFF of 10^12 pixels": (lambda: strips(10**6, 10**6, 8, 64), "has more than 80 million pixels"),
    "icon with a huge PNG in it": (ico_of_large_png, "has more than 80 million pixels"),
    "text bomb in a PNG": (text_bomb, DAMAGED),
    "profile bomb in a PNG": (icc_bomb, DAMAGED),
    "JPEG of 200 scans": (many_scans, "has more than 100 scans"),
    "51 MiB": (sparse, "is larger than 50 MiB"),
    # pictures of the wrong kind
    "TIFF of floats": (lambda: saved(Image.new("F", (64, 64), 0.5), "TIFF"), "has floating-point pixels"),
    "TIFF of 32 bit": (lambda: saved(Image.new("I", (64, 64), 1 << 30), "TIFF"), "has 32 bit pixels"),
    "TIFF of Lab": (lambda: saved(Image.new("LAB", (64, 64)), "TIFF"), "has Lab colours"),
}  # fmt: skip

# The same, refused when the face is looked for.
HOPELESS: dict[str, tuple[bytes | Callable[..., object], str]] = {
    "PNG whose pixels are a bomb": (lambda: png(64, 64, zeros(64 << 20)), "shows no face"),
    "1 x 1": (lambda: saved(Image.new("RGB", (1, 1))), "shows no face"),
    "3000 x 1": (lambda: saved(Image.new("RGB", (3000, 1))), "shows no face"),
    "all black": (lambda: saved(Image.new("RGB", (300, 300))), "shows no face"),
    "noise": (lambda: saved(noise()), "shows no face"),
    "texture": (lambda: saved(texture()), "shows no face"),
    "GIF of 2000 frames": (lambda: saved(Image.new("L", (40, 40)), "GIF", save_all=True, append_images=[
        Image.new("L", (40, 40), i % 256) for i in range(2000)]), "shows no face"),
    "two faces": (lambda: saved(pair()), "shows 2 faces"),
    "tiny face": (lambda: saved(on_grey(face(size=80), (300, 300), (110, 110))), "shows a face of only 4"),
    "blurred face": (lambda: saved(face().filter(ImageFilter.GaussianBlur(4))), "shows a blurred face"),
    "enlarged face": (lambda: saved(face(size=36).resize((400, 400))), "shows a blurred face"),
    "left half of a face": (lambda: saved(face().crop((0, 0, 128, 256))), "shows no face"),
    "face without a chin": (lambda: saved(face().crop((0, 0, 256, 154))), "shows a face that the photo"),
    "upside down": (lambda: saved(face("b2").rotate(180)), "shows a face that stands on its head"),
    "on its side": (lambda: saved(face("a2").rotate(90)), "shows a face that lies on its side"),
    "tilted": (lambda: saved(face("b1").rotate(-60, fillcolor=(128,) * 3)), "shows a head tilted by about"),
}  # fmt: skip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / NAME).mkdir()
    return tmp_path / NAME / f"{NAME}.jpg"


def put(made: object, path: Path) -> None:
    """Writes what the table gives: bytes, a function that makes them, or one that makes the path itself."""
    if callable(made):
        made = made(path) if made.__code__.co_argcount else made()
    if isinstance(made, bytes):
        path.write_bytes(made)


def request_of(*paths: Path) -> list[Photo]:
    folder = paths[0].parents[1]
    lines = [f"      - {path.relative_to(folder)}\n" for path in paths]
    (folder / "takedown.yaml").write_text(HEAD + "".join(lines), encoding="utf-8")
    (identity,) = load_request(folder / "takedown.yaml").identities
    return list(identity.images)


def check_words(problem: Problem, words: str) -> None:
    assert problem.message.startswith(f"identities[0].images[0] {words}")
    assert (problem.line, problem.column) == (8, 9)
    assert NAME not in problem.message + problem.remedy


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file(kind, place):
    made, words = HOSTILE[kind]
    put(made, place)
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        request_of(place)
    assert time.monotonic() - start < 10
    (problem,) = caught.value.problems
    check_words(problem, words)


@pytest.mark.parametrize("kind", HOPELESS)
def test_hopeless_photo(kind, place, detector):
    made, words = HOPELESS[kind]
    put(made, place)
    (photo,) = request_of(place)
    reading = read_photo(photo, detector, 128, CPU)
    check_words(reading.problems[0], words)
    assert reading.problems[0].remedy


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(place):
    put(saved(face()), place)
    place.chmod(0)
    with pytest.raises(InputError) as caught:
        request_of(place)
    check_words(caught.value.problems[0], "cannot be read: Permission denied")


@pytest.mark.slow  # the renderer is compiled first
def test_a_profile(shared, place, detector, monkeypatch):
    """A head at 80 degrees, from the renderer behind the example's photos."""
    pytest.importorskip("numba")
    head = shared / "data" / "heads" / "face_model.safetensors"
    if not head.is_file():
        pytest.skip("the renderer's head is not here")
    monkeypatch.syspath_prepend(str(FACES.parents[1] / "synthetic_heads"))
    import heads

    model = heads.HeadModel(head)
    shown = heads.prepare(model, heads.draw_factors(np.random.default_rng(7), 1)[0])
    for yaw, words in ((-80, "shows a head turned aside by about"), (30, None)):
        camera = heads.lookat(np.radians(yaw), 0.05, 2.7, heads.FACE_CENTRE, 0)
        picture = heads.render_person(model, shown, camera, heads.standard_intrinsics(), 320)
        put(saved(Image.fromarray(picture)), place)
        (photo,) = request_of(place)
        problems = read_photo(photo, detector, 128, CPU).problems
        if words:
            check_words(problems[0], words)
        else:
            assert problems == ()


def test_all_refusals_at_once(place):
    """Good photos among the bad do not save the request, and each bad one has its own line."""
    kinds = ["1 x 1", "two faces", "upside down", "blurred face"]
    paths = [place.with_name(f"{NAME}{i}") for i in range(len(kinds) + 1)]
    put(saved(face()), paths[0])
    for kind, path in zip(kinds, paths[1:], strict=True):
        put(HOPELESS[kind][0], path)
    photos = request_of(*paths)
    with pytest.raises(InputError) as caught:
        read_faces(load_request(photos[0].file).identities, 128, CPU)
    assert [(p.line, p.column) for p in caught.value.problems] == [(line, 9) for line in (9, 10, 11, 12)]
    for problem, kind in zip(caught.value.problems, kinds, strict=True):
        assert HOPELESS[kind][1] in problem.message


# ----------------------------------------------------------------------------
# Odd and good


def wide_png() -> bytes:
    """16 bits a channel, which Pillow reads and does not write."""
    pixels = np.asarray(face()).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return png(256, 256, zlib.compress(rows), depth=16, colour=2)


def grey16() -> Image.Image:
    return Image.fromarray(np.asarray(face().convert("L")).astype(np.uint16) * 257)


def with_alpha(mode: str) -> Image.Image:
    """The face, and transparent black around it."""
    picture = face().convert(mode[0] if mode == "LA" else "RGB").convert(mode)
    picture.putalpha(255)
    ground = Image.new(mode, (300, 300))
    ground.paste(picture, (20, 20))
    return ground


def animated(format: str) -> bytes:
    """The face first, black after."""
    return saved(face(), format, save_all=True, append_images=[Image.new("RGB", (256, 256))], duration=40)


def turned(orientation: int) -> bytes:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions, as Image.Transpose numbers them
    picture = face() if orientation == 1 else face().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(picture, "JPEG", quality=95, exif=exif)


GOOD: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(face(), "JPEG", quality=95),
    "progressive JPEG": lambda: saved(face(), "JPEG", quality=95, progressive=True),
    "CMYK JPEG": lambda: saved(face().convert("CMYK"), "JPEG", quality=95),
    "MPO": lambda: animated("MPO"),
    "PNG": lambda: saved(face()),
    "PNG of 3 x 16 bit": wide_png,
    "palette PNG": lambda: saved(face().quantize(256)),
    "animated PNG": lambda: animated("PNG"),
    "WebP": lambda: saved(face(), "WEBP", lossless=True),
    "animated WebP": lambda: saved(face(), "WEBP", lossless=True, save_all=True,
                                   append_images=[Image.new("RGB", (256, 256))]),
    "GIF": lambda: saved(face(), "GIF"),
    "animated GIF": lambda: animated("GIF"),
    "TIFF": lambda: saved(face(), "TIFF", compression="tiff_lzw"),
    "TIFF of pages": lambda: animated("TIFF"),
    "CMYK TIFF": lambda: saved(face().convert("CMYK"), "TIFF"),
    "JPEG 2000": lambda: saved(face(), "JPEG2000"),
    "BMP": lambda: saved(face(), "BMP"),
    "PPM": lambda: saved(face(), "PPM"),
    "TGA": lambda: saved(face(), "TGA"),
    "SGI": lambda: saved(face(), "SGI"),
    "PCX": lambda: saved(face(), "PCX"),
    "icon": lambda: saved(face(), "ICO", sizes=[(256, 256)]),
    **{f"EXIF {n}": partial(turned, n) for n in range(1, 9)},
}  # fmt: skip
if features.check("avif"):
    GOOD["AVIF"] = lambda: saved(face(), "AVIF", quality=95)
GOOD_GREY: dict[str, Callable[[], bytes]] = {
    "grey": lambda: saved(face().convert("L")),
    "grey PNG of 16 bit": lambda: saved(grey16()),
    "grey TIFF of 16 bit": lambda: saved(grey16(), "TIFF"),
}


def difference(photo: Photo, wanted: Image.Image) -> float:
    picture = photo.open()
    assert (picture.mode, picture.size) == ("RGB", wanted.size)
    return float(np.abs(np.asarray(picture, float) - np.asarray(wanted.convert("RGB"), float)).mean())


@pytest.mark.parametrize("kind", [*GOOD, *GOOD_GREY])
def test_odd_and_good(kind, place):
    place.write_bytes((GOOD | GOOD_GREY)[kind]())
    (photo,) = request_of(place)
    assert difference(photo, face() if kind in GOOD else face().convert("L")) < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode, place):
    put(saved(with_alpha(mode)), place)
    (photo,) = request_of(place)
    wanted = Image.new("RGB", (300, 300), "white")
    wanted.paste(face().convert("L" if mode == "LA" else "RGB"), (20, 20))
    assert difference(photo, wanted) < 0.1


def test_odd_photos_show_their_face(place, detector):
    for kind in ("CMYK JPEG", "PNG of 3 x 16 bit", "grey TIFF of 16 bit", "animated GIF", "EXIF 6"):
        place.write_bytes((GOOD | GOOD_GREY)[kind]())
        (photo,) = request_of(place)
        assert read_photo(photo, detector, 128, CPU).problems == (), kind


def test_no_program_is_started(place, monkeypatch):
    """Ghostscript is what Pillow reads EPS with."""
    started = place.with_name("started")
    for name in ("gs", "gswin64c", "djpeg"):
        program = place.with_name(name)
        program.write_text(f"#!/bin/sh\ntouch {started}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(place.parent))
    for head in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(28)):
        put(head + b"%%BoundingBox: 0 0 90 90\n%%EndComments\nshowpage\n%%EOF\n", place)
        with pytest.raises(InputError):
            request_of(place)
    assert not started.exists()


LARGE = """
import re, sys, time, torch
from pathlib import Path
from guide_hub.faces.crops import read_faces
from guide_hub.request import load_request
read_faces(load_request(sys.argv[2]).identities, 512, torch.device("cpu"))
def peak():  # getrusage's would count the process that started this one
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before, start = peak(), time.monotonic()
((crop,),) = read_faces(load_request(sys.argv[1]).identities, 512, torch.device("cpu"))
print(crop.pose.yaw, time.monotonic() - start, before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory as Linux shows it")
@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("JPEG", "CMYK")])
def test_50_megapixels(format, mode, tmp_path):
    files = []
    for name, side in (("large", 7072), ("small", 256)):
        folder = tmp_path / name / "photos"
        folder.mkdir(parents=True)
        options = {"compress_level": 1} if format == "PNG" else {}
        face().resize((side, side), Image.Resampling.BICUBIC).convert(mode).save(
            folder / "a", format, **options
        )
        request_of(folder / "a")
        files.append(str(tmp_path / name / "takedown.yaml"))
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *files], capture_output=True, text=True, timeout=300, check=True
    )
    yaw, seconds, before, after = map(float, done.stdout.split())
    print(f"{format} {mode}: {seconds:.1f} s, {before / 1024:.0f} -> {after / 1024:.0f} MiB")
    assert abs(np.degrees(yaw) + 4) < 5
    assert seconds < 60
    assert after < 2 * 1024 * 1024, "KiB"
