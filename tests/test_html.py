"""The HTML report: what each edition shows and must not, how it is built, and how a browser takes it."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import re
import shutil
import signal
import stat
from html.parser import HTMLParser
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_erasure as tiny
import torch
from PIL import Image, ImageSequence

from guide_hub import pipeline
from guide_hub.attacks.base import Curve, Finding
from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.faces import crops
from guide_hub.guide.eraser import StepLosses
from guide_hub.html import erasure, events, losses, plots, render, verdict
from guide_hub.html.page import (
    AttackResult,
    Check,
    Kept,
    Likeness,
    Matrix,
    PublicPage,
    attack_results,
    matrix_of,
)
from guide_hub.interrupt import Stopped
from guide_hub.progress import Silent
from guide_hub.recipe import load_recipe
from guide_hub.report import ErasureReport, IdentityFigures, Report, RetainedReport
from guide_hub.request import load_request

PRIVATE, PUBLIC = render.PRIVATE, render.PUBLIC
MARK = "jane"  # in every name that must stay private
GREEN, YELLOW, MAGENTA, CYAN, BLUE = (-1, 1, -1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (-1, -1, 1)
LIMIT = 5 << 20  # bytes of a page of three people


def plain(colour, *shape):
    """A tensor [..., 3, S, S] of one colour in [-1, 1]."""
    return torch.tensor(colour).float().view(3, 1, 1).expand(*shape, 3, 32, 32)


def latent(colour):
    """[1, 14, 32] whose render, by `paint`, has this colour."""
    w = torch.zeros(1, 14, 32)
    w[..., :3] = torch.tensor(colour)
    return w


def paint(model, ws, c):
    """In place of `render_views`: the colour that the latent names."""
    return torch.stack([plain(w[0, :3].tolist(), len(c)) for w in ws])


def erased(name, now=0.1, views=0.0):
    figures, others = IdentityFigures(0.9, now, 0.5), IdentityFigures(0.8, 0.2, 0.5)
    return ErasureReport("req-7", name, 1, figures, now, 0.2, views, others, 0.0, "PASSED")


def findings():
    curve = Curve(f"{MARK} found", "step", "cosine", [0, 1, 2], {MARK: [0.1, 0.2, 0.3]}, {"threshold": 0.5})
    picture = {f"{MARK}.jpg, the erased model": plain(CYAN, 2)}
    kept = Finding("draws", "Random draws", True, "no draw is verified", {"draws": 2000, "cosine_max": 0.21})
    return {
        "subject-a": [
            Finding(
                "reinversion", "Re-inversion", False, "at most 10 % verify", {"best": 0.6}, [curve], picture
            ),
            kept,
        ],
        "subject-b": [Finding("reinversion", "Re-inversion", None, "nothing to judge", {}), kept],
    }


def write(folder, names=("subject-a", "subject-b", "subject-c"), attacks=None, matrix=None):
    """Both editions, of people whose photos and renders have colours of their own."""
    torch.manual_seed(0)
    teacher = EG3D(tiny.config())
    student = copy.deepcopy(teacher)
    for p in student.backbone.synthesis.parameters():
        p.data += 0.01 * torch.randn_like(p)
    report = Report("erased", "req-7", request_ids=["req-7"], erasures=[erased(n) for n in names])
    report.retained, report.output = RetainedReport(10, 0.99, 0.03), f"/home/{MARK}/out"
    recipe = load_recipe("heads")
    rows = {n: [[float(k), 1.0, 5.0 / k, 2.0, 2.0, 1.0, 0.0, 0.0] for k in range(1, 40)] for n in names}
    extras = erasure.Extras(attacks or {}, rows, matrix)
    public = erasure.public_page(
        report, recipe.gate, attack_results(extras.findings),
        erasure.others_of(teacher, student, latent(BLUE).expand(9, -1, -1), recipe.camera),
        erasure.change_of(teacher, student), matrix, [], "guide-hub erase --repo BASE", [("seed", "0")],
    )  # fmt: skip
    seen = [
        erasure.Seen(plain(MAGENTA, 3), 2, latent(GREEN).expand(2, -1, -1), latent(YELLOW)) for _ in names
    ]
    erasure.write_pages(
        folder, public, names, seen, teacher, student, recipe.camera, extras,
        f"guide-hub erase --request /home/{MARK}/takedown.yaml", [("written to", f"/home/{MARK}/out")],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages with everything: three people, attacks, a matrix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasure, "render_views", paint)
        names = ["subject-a", "subject-b", "subject-c"]
        values = [[0.1, 0.9, 0.8], [0.2, 0.1, 0.8], [0.6, 0.2, 0.1]]
        verified = [[0.0, None, None], [0.0, 0.0, None], [0.4, 0.0, 0.0]]
        matrix = Matrix(names, names, values, verified, 0.5)
        return write(tmp_path_factory.mktemp("pages") / "report", names, findings(), matrix)


@pytest.fixture(params=[PRIVATE, PUBLIC])
def page(request, folder):
    return (folder / request.param).read_text(encoding="utf-8")


def pictures(text):
    """Every picture of a page, decoded: all frames as RGB arrays."""
    found = []
    for data in re.findall(r'(?:src|srcset)="data:image/\w+;base64,([^"]+)"', text):
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            found += [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    return found


def shows(text, colour):
    """Whether any pixel of any picture has about this colour."""
    wanted = (np.array(colour) * 127.5 + 127.5).round()
    return any((np.abs(p.astype(float) - wanted).max(-1) < 40).any() for p in pictures(text))


# ----------------------------------------------------------------------------------------------------------
# What is private stays private


def test_private_page_shows_the_people(folder):
    text = (folder / PRIVATE).read_text()
    assert all(shows(text, colour) for colour in (GREEN, YELLOW, MAGENTA, CYAN, BLUE))
    assert f"/home/{MARK}/takedown.yaml" in text
    assert f"{MARK}.jpg" in text
    assert "Private edition" in text
    assert text.count("best attack") == 1


def test_public_page_holds_nothing_of_a_person(folder):
    text = (folder / PUBLIC).read_text()
    assert len(pictures(text)) == 2
    assert shows(text, BLUE)
    assert not any(shows(text, colour) for colour in (GREEN, YELLOW, MAGENTA, CYAN))
    assert MARK not in text.lower()
    for data in re.findall(r"base64,([^\"]+)", text):
        assert MARK.encode() not in base64.b64decode(data)
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            assert not image.getexif()
            assert "xmp" not in image.info
    private = set(re.findall(r"base64,([^\"]+)", (folder / PRIVATE).read_text()))
    shared = set(re.findall(r"base64,([^\"]+)", text))
    assert len(private - shared) > 6
    assert "at most 10 % verify" in text  # a rule and its figures are for everybody
    assert "0.21" in text


def test_public_page_takes_opaque_ids_alone():
    said = verdict.of_erasure([], None, [], [])
    for name in ("Jane Doe", "a/b.jpg", "<b>", ""):
        with pytest.raises(ValueError, match="ids alone"):
            PublicPage("t", said, people=[Likeness(name, True, 0.9, 0.1, 0.5, 0.0)])
        with pytest.raises(ValueError, match="ids alone"):
            PublicPage("t", said, attacks=[AttackResult(name, "a", True, "r")])


def test_pages_are_for_the_owner_alone(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    assert {f.name for f in folder.iterdir()} == {PRIVATE, PUBLIC}


def test_the_same_figures_give_the_same_bytes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(erasure, "render_views", paint)
    one, two = (tiny.tree(write(tmp_path / n, attacks=findings())) for n in ("one", "two"))
    assert one == two


def test_what_comes_from_outside_is_escaped(tmp_path):
    check = Check("record", "failed", "<script>alert(1)</script>")
    said = verdict.of_checks([], [check], [])
    render.write(tmp_path, None, PublicPage("a <b>", said, checks=[check]))
    text = (tmp_path / PUBLIC).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    title = plots.curve(Curve("</svg><b>", "x", "<i>", [0.0, 1.0], {"<u>": [0.0, 1.0]}), "k")
    assert not re.search(r"<(b|i|u)>|</svg>.", str(title.svg))


# ----------------------------------------------------------------------------------------------------------
# How a page is built


class Tree(HTMLParser):
    """Tags in order, with what is open around each."""

    VOID = ("meta", "img", "source", "br", "link", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), [t for t, _ in self.open]))
        if tag not in self.VOID:
            self.open.append((tag, self.getpos()))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), [t for t, _ in self.open]))

    def handle_endtag(self, tag):
        assert self.open, f"nothing to close with {tag}"
        opened, place = self.open.pop()
        assert opened == tag, f"{opened} from {place} is closed as {tag} at {self.getpos()}"

    def all(self, *names):
        return [attrs for tag, attrs, _ in self.tags if tag in names]


def test_structure(page):
    tree = Tree(page)
    assert tree.open == []
    assert tree.all("html") == [{"lang": "en"}]
    assert re.search(r"<title>Erasure report: request req-7: .+</title>", page)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tree.all("meta")
    levels = [int(tag[1]) for tag, _, _ in tree.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [a["id"] for _, a, _ in tree.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in tree.all("a", "use")]
    links += [a["aria-labelledby"] for _, a, _ in tree.tags if "aria-labelledby" in a]
    links += re.findall(r"url\(#([^)]+)\)", page)
    assert set(links) <= set(ids)
    assert all(len(a["alt"]) > 5 and a["width"] and a["height"] for a in tree.all("img"))
    assert all(a.get("role") == "img" for a in tree.all("svg"))
    assert all(a.get("scope") in ("col", "row") for a in tree.all("th"))
    assert page.count("<table") == page.count("<caption>") > 2
    around = [parents for tag, _, parents in tree.tags if tag == "table"]
    assert all("div" in parents for parents in around)
    for _, a, _ in tree.tags:
        if a.get("role") == "group":
            assert a["aria-label"]
            assert a["tabindex"] == "0"


def test_needs_no_network_and_no_script(page):
    tree = Tree(page)
    assert tree.all("script", "link", "iframe", "object", "form") == []
    policy = [a["content"] for a in tree.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert all(a["src"].startswith("data:image/") for a in tree.all("img"))
    text = re.sub(r'"data:[^"]+"', "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|\son\w+=", text)


def test_verdict_comes_first_in_words(page):
    body = re.sub(r"<[^>]+>", " ", page[page.index("<main>") :])
    first = " ".join(body.split())[:400]
    assert first.startswith("Gone for the judge, not for every attack")
    assert "subject-a Gone" in first
    assert "What fell short" in body
    assert body.index("What fell short") < body.index("Figures")


def test_size(folder):
    assert (folder / PRIVATE).stat().st_size < LIMIT
    assert (folder / PUBLIC).stat().st_size < LIMIT / 5


def test_a_large_picture_is_made_small(tmp_path):
    from guide_hub.html import pictures as made

    noise = torch.rand(13, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert len(made.strip(noise[:5], "", "").uri) < 400_000
    (first, *_) = pictures(f'<img src="{made.tile(noise[0], "", "").uri}">')
    assert first.shape == (made.PIXELS, made.PIXELS, 3)


def themes():
    text = (render.TEMPLATES / "style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in (light, dark)]
    return {"light": found[0], "dark": {**found[0], **found[1]}}


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    """By WCAG 2: from 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme):
    c = themes()[theme]
    text = [("ink", "paper"), ("ink", "back"), ("muted", "paper"), ("muted", "back"), ("accent", "paper")]
    text += [("accent", "back"), ("bad", "back"), ("ink", "hot"), ("ink", "cool")]
    text += [(word, f"{word}-back") for word in ("good", "bad", "fair")]
    assert {(a, b): contrast(c[a], c[b]) for a, b in text if contrast(c[a], c[b]) < 4.5} == {}
    lines = [f"series-{k + 1}" for k in range(len(plots.SERIES))] + ["bad", "good", "fair"]
    assert {a: contrast(c[a], c["paper"]) for a in lines if contrast(c[a], c["paper"]) < 3} == {}


def test_plots_take_the_page_s_colours(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 3
    for drawing in drawings:
        assert re.findall(r"#[0-9a-f]{6}\b", drawing) == []
        assert "var(--ink)" in drawing
        assert not re.search(r"<style|<metadata|<!--|\swidth=\"\d+pt|font-family", drawing)


# ----------------------------------------------------------------------------------------------------------
# Verdicts, losses, the matrix


def of(people=(), kept=None, attacks=(), short=()):
    return verdict.of_erasure([*people], kept, [*attacks], [*short])


GONE, BACK = Likeness("a", True, 0.9, 0.1, 0.5, 0.0), Likeness("b", False, 0.9, 0.7, 0.5, 0.8)
STILL, CHANGED = Kept(10, 0.99, 0.03, 0.95), Kept(10, 0.5, 0.3, 0.95)
HELD, BROKEN = AttackResult("a", "search", True, "x"), AttackResult("a", "draws", False, "y")
OPEN = AttackResult("a", "light", None, "z")


def test_verdict_of_an_erasure():
    assert of([GONE], STILL).level == "passed"
    assert of([GONE], STILL, [HELD, OPEN]).level == "passed"
    assert "1 could not be judged" in of([GONE], STILL, [HELD, OPEN]).detail
    mixed = of([GONE], STILL, [HELD, BROKEN])
    assert mixed.level == "mixed"
    assert mixed.short == ["a: draws. Its rule does not hold: y"]
    assert of([GONE, BACK], STILL).level == "failed"
    assert "1 of 2 people is still recognised" in of([GONE, BACK], STILL).detail
    assert "50%" in of([GONE], CHANGED).detail
    assert of([GONE], STILL, short=["it came back"]).short == ["it came back"]
    told = of([GONE], STILL, [BROKEN], ["the attack draws finds the person: not so that y"])
    assert len(told.short) == 1


def test_verdict_of_a_verification():
    passed, failed = Check("files", "passed", "whole"), Check("card", "failed", "another text")
    unknown = Check("chain", "unchecked", "cannot be reached")
    assert verdict.of_checks([], [passed], []).level == "passed"
    mixed = verdict.of_checks([], [passed, unknown], [])
    assert mixed.level == "mixed"
    assert mixed.short == ["chain is unchecked: cannot be reached"]
    assert verdict.of_checks([], [passed, failed], []).level == "failed"
    assert verdict.of_checks([BACK], [passed], []).level == "failed"
    attacked = verdict.of_checks([GONE], [passed, Check("draws a", "failed", "y")], [BROKEN])
    assert attacked.level == "mixed"


def test_losses_of_a_resumed_run_are_whole():
    def note(kept, first, last, steps=450):
        progress = losses.Losses(Silent(), kept)
        progress.start("subject-a", steps, first)
        for k in range(first, last):
            progress.step(k + 1, StepLosses(local=float(k)))
        return progress.rows

    whole = note(None, 0, 450)
    half = copy.deepcopy(note(None, 0, 200))
    assert note(half, 200, 450) == whole
    assert len(whole["subject-a"]) <= losses.POINTS
    curve = losses.curve(whole["subject-a"])
    assert (curve.x[0], curve.x[-1]) == (3, 450)
    assert list(curve.lines) == ["total", "local"]
    assert curve.lines["local"][0] == 1.0  # of steps 0, 1 and 2
    assert losses.begins_late(whole["subject-a"]) is None
    assert losses.begins_late(note(None, 200, 450)["subject-a"]) == 201
    assert losses.curve([]) is None


def test_matrix_from_its_file():
    def cell(cosine, verified=0.0):
        return {"cosine": cosine, "verified": verified, "others": None, "others_verified": None}

    def person(number, request, step):
        return {
            "number": number, "request_id": request, "identity_id": "subject-a", "own_step": step,
            "threshold": 0.5,
        }  # fmt: skip

    told = {
        "people": [person(1, "req-6", 1), person(2, "req-7", 2)],
        "steps": [
            {"step": 1, "people": [cell(0.1), None], "retained": {"verified": None}},
            {"step": 2, "people": [cell(0.6, 0.3), cell(0.2)], "retained": {"verified": 0.97}},
        ],
    }
    found = matrix_of(told, ["req-7"])
    assert found.columns == ["req-6.subject-a", "subject-a"]
    assert found.rows == found.columns
    assert found.values == [[0.1, None], [0.6, 0.2]]
    assert found.verified == [[0.0, None], [0.3, 0.0]]
    assert (found.threshold, found.kept) == (0.5, [None, 0.97])
    curve = plots.reemergence(found)
    assert curve.lines["subject-a"] == [None, 0.2]
    many = Matrix(["x"] * 2, [*"abcdefg"], [[0.1] * 7, [0.3] * 6 + [0.5]], [[0.0] * 7] * 2)
    assert plots.reemergence(many).lines == {
        "mean": [pytest.approx(0.1), pytest.approx(2.3 / 7)],
        "worst": [0.1, 0.5],
    }


def test_matrix_says_who_came_back(page):
    assert re.search(r'<td style="--v: 0.60" class="back">0.60 verified</td>', page)
    assert page.count('class="back"') == 1


# ----------------------------------------------------------------------------------------------------------
# From a run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two people out of the tiny model, by a run that was stopped in the middle, and then verified."""
    home = tmp_path_factory.mktemp("run") / f"{MARK}_doe_private"
    people = {"subject-a": (f"{MARK}_1987.png", f"{MARK}_2.png"), "subject-b": (f"{MARK}_beach.png",)}
    model, request = tiny.make_model(home / "model"), tiny.make_request(home / "request", people=people)
    tiny.calibrated(model, tiny.EVERYBODY)
    options = {
        "recipe": tiny.make_recipe(home / "recipe"), "output": home / "erased", "state": home / "state",
        "report": home / "private", "device": "cpu",
    }  # fmt: skip

    def stop(identity, step):
        if (identity, step) == ("subject-b", 2):
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(home / "weights")))
        patch.setattr(crops, "read_faces", tiny.whole_photos)
        patch.setattr("guide_hub.people.check_grouping", lambda *_: None)
        with pytest.raises(Stopped):
            pipeline.erase(str(model), request, progress=tiny.Watch(stop), **options)
        report = pipeline.erase(str(model), request, **options)
    return SimpleNamespace(home=home, model=model, request=request, report=report, private=home / "private")


@pytest.fixture
def world(made, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_WEIGHTS", str(made.home / "weights"))
    monkeypatch.setenv("GUIDE_HUB_STATE", str(made.home / "state"))
    monkeypatch.setattr(crops, "read_faces", tiny.whole_photos)
    monkeypatch.setattr("guide_hub.remeasure.check_grouping", lambda *_: None)


def assert_public(text, made):
    assert MARK not in text
    assert str(made.home.parent) not in text
    for identity in load_request(made.request).identities:
        for photo in identity.images:
            assert photo.sha256[:12] not in text
    hidden = set(re.findall(r"base64,([^\"]+)", (made.private / PRIVATE).read_text()))
    shown = set(re.findall(r"base64,([^\"]+)", text))
    assert len(hidden - shown) >= 10


def test_pages_of_a_run(made):
    private, public = ((made.private / name).read_text() for name in (PRIVATE, PUBLIC))
    assert_public(public, made)
    assert str(made.request) in private
    assert "--request req-7.yaml" in public
    assert "--repo BASE" in public
    assert "--recipe recipe.yaml" in public
    for e in made.report.erasures:
        assert f'class="id">{e.identity_id}</th>' in public
        assert f"<td>{e.now:.2f}</td>" in public


def test_losses_of_a_stopped_run_are_all_there(made):
    tree = (made.private / PRIVATE).read_text()
    tables = re.findall(
        r"<caption><span>subject-.: Losses over the steps</span></caption>(.*?)</table>", tree, re.DOTALL
    )
    steps = [re.findall(r'<th scope="row" class="id">(\d+)</th>', table) for table in tables]
    assert steps == [["1", "2", "3"]] * 2


def test_verify_writes_a_page_too(made, world, call, tmp_path):
    out = tmp_path / "report"
    done = call(
        "verify", made.home / "erased", "--request", made.request, "--base", made.model, "--device", "cpu",
        "-q", "--report", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    private, public = ((out / name).read_text() for name in (PRIVATE, PUBLIC))
    assert_public(public, made)
    assert "commitment subject-a" in public
    assert "guide-hub verify MODEL" in public
    assert str(made.request) in private
    assert len(pictures(private)) > len(pictures(public)) == 2
    for text in (private, public):
        assert Tree(text).open == []


def test_verify_without_photos_writes_the_public_page_alone(made, world, call, tmp_path):
    done = call("verify", made.home / "erased", "--report", tmp_path / "report")
    assert done.code == 0, done.err
    assert [f.name for f in (tmp_path / "report").iterdir()] == [PUBLIC]
    inside = call("verify", made.home / "erased", "--report", made.home / "erased" / "report")
    assert inside.code == 2
    assert "--report" in inside.err
    assert not (made.home / "erased" / "report").exists()


# ----------------------------------------------------------------------------------------------------------
# Event files


def test_event_files_are_refused_before_the_work(made, world, monkeypatch, tmp_path, call):
    arguments = ("erase", "--repo", made.model, "--request", made.request, "--tensorboard")
    done = call(*arguments)
    assert done.code == 2
    assert "--report" in done.err
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    done = call(*arguments, "--report", tmp_path / "report")
    assert done.code == 2
    assert "guide-hub[tensorboard]" in done.err
    with pytest.raises(InputError):
        events.check(tmp_path)


def test_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = Report("erased", "req-7", request_ids=["req-7"], erasures=[erased("subject-a")])
    rows = {"subject-a": [[1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 0.0, 0.0], [3.0, 2.0, 4.0, 1.0, 2.0, 1.0, 0.0, 0.0]]}
    events.write(tmp_path, rows, report)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "subject-a"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss/total")] == [(1, 3.0), (3, 2.0)]
    assert found.Scalars("cosine/now")[0].value == pytest.approx(0.1)
    files = [p for p in (tmp_path / "tensorboard").rglob("*") if p.is_file()]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


# ----------------------------------------------------------------------------------------------------------
# In a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    if BROWSER is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver here")
    from selenium.common.exceptions import WebDriverException

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {error.msg}")
    yield driver
    driver.quit()


def show(browser, file, width, theme, motion="no-preference"):
    """Opens a page as a screen of this width shows it in this theme, with nothing folded away."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wants = {"prefers-color-scheme": theme, "prefers-reduced-motion": motion}
    features = [{"name": name, "value": value} for name, value in wants.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(file.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")


@pytest.mark.parametrize(
    ("name", "width", "theme"),
    [(PRIVATE, 360, "dark"), (PRIVATE, 1280, "light"), (PUBLIC, 360, "light"), (PUBLIC, 1280, "dark")],
)
def test_in_a_browser(browser, folder, name, theme, width):
    axe = pytest.importorskip("axe_core_python.selenium")
    assert browser.get_log("performance") is not None  # what was before this page
    show(browser, folder / name, width, theme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    level = int(re.findall(r"\d+", back)[0])
    assert level > 200 if theme == "light" else level < 60
    assert browser.get_log("browser") == []
    here, told = (folder / name).as_uri(), browser.get_log("performance")
    sent = [json.loads(entry["message"])["message"] for entry in told]
    sent = [m["params"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    urls = {s["request"]["url"].split(",")[0] for s in sent if s["documentURL"] == here}
    assert urls == {here, "data:image/webp;base64"}
    faults = axe.Axe().run(browser)["violations"]
    assert [(f["id"], [n["html"][:120] for n in f["nodes"][:3]]) for f in faults] == []


def test_keyboard_and_motion(browser, folder):
    from selenium.webdriver.common.keys import Keys

    show(browser, folder / PRIVATE, 360, "light", "reduce")
    moving = "return [...document.querySelectorAll('picture')].map(p => [p.querySelector('img').currentSrc"
    chosen = browser.execute_script(f"{moving} === p.querySelector('source').srcset])")
    assert chosen == [[True]] * 3
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the verdict"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#verdict")
    reached = set()
    for _ in range(25):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.switch_to.active_element.tag_name)
    assert {"summary", "div"} <= reached  # what unfolds, and what scrolls sideways
