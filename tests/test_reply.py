"""The answer to a requester: right for every outcome, in plain words, with nobody's name."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import pytest
from test_record import build, erasure, purged

from guide_hub.reply import render
from guide_hub.report import ErasureReport, IdentityFigures, InversionReport, Report, RetainedReport
from guide_hub.request import Identity, Photo, Request

PHOTO = Photo("identities[0].images[0]", Path("jane_doe.jpg"), "f00d" * 16, (8, 8))
REQUEST = Request(
    Path("jane/takedown.yaml"), "2026-0042", "gdpr", datetime.date(2026, 8, 3), datetime.date(2026, 9, 3),
    (Identity("subject-a", (PHOTO,)), Identity("subject-b", (PHOTO,))),
)  # fmt: skip


def report(status: str, **more) -> Report:
    whole, held_out = IdentityFigures(0.71, 0.02, 0.3), IdentityFigures(0.6, 0.2, 0.3)
    other = IdentityFigures(0.66, 0.11, 0.3)
    erasures = [
        ErasureReport("2026-0042", "subject-a", 1, whole, 0.03, 0.01, 0.0, held_out, 0.1, "PASSED"),
        ErasureReport("2026-0043", "subject-a", 2, other, 0.11, 0.0, 0.0, None, None, "PASSED"),
    ]
    base = {"repo": "hf://org/faces", "revision": "4" * 40, "sha256": "5" * 64}
    others = RetainedReport(100, 0.97, 0.09)
    return Report(status, "2026-0042", base, erasures=erasures, retained=others, **more)


def test_erased():
    text = render(report("erased", pushed={"repo": "org/eg3d", "commit": "4" * 40, "pr_url": None}), REQUEST)
    for needed in (
        "request 2026-0042",
        "Received on 2026-08-03, to be answered by 2026-09-03",
        "| subject-a | 0.71 | 0.03 | 0.30 | 0% | 0.60 -> 0.20 |",
        "in 97% of the views of 100 random people",
        "published as org/eg3d, commit 4444",
        "no proof that pictures of you were removed",
        "The model that it was made from, org/faces, is unchanged",
        "Articles 77 and 79",
    ):
        assert needed in text, needed
    assert "0.66" not in text  # another request of the same run
    pull = render(
        report("erased", pushed={"repo": "org/faces", "commit": None, "pr_url": "https://e.org/1"}), REQUEST
    )
    assert "proposed at https://e.org/1, and takes effect when that is merged" in pull
    assert "Earlier revisions can still be downloaded" in pull
    assert "is unchanged" not in pull
    local = render(report("erased"), REQUEST)
    assert "It is not published yet" in local
    assert "Earlier revisions" not in local


def test_already_erased():
    text = render(Report("already_erased", "2026-0042"), REQUEST, purged())
    assert "| subject-a | 0.71 | 0.02 | 0.30 | 0% | 0.65 -> 0.21 |" in text  # no `now` on record: `after`
    assert "| subject-b | 0.60 | 0.10 | 0.30 | - | - |" in text
    assert "subject-c" not in text
    assert "Earlier revisions were removed" in text
    assert "was carried out before" in render(Report("already_erased", "2026-0042"), REQUEST)
    open_pull = {"repo": "org/eg3d", "commit": None, "pr_url": "https://e.org/1"}
    proposed = render(Report("already_erased", "2026-0042", pushed=open_pull), REQUEST)
    assert "record says" not in proposed
    assert "proposed at https://e.org/1" in proposed
    assert "| person |" not in render(
        Report("already_erased"), REQUEST, build(erasures=[erasure(request="x")])
    )


def test_no_match():
    found = [
        InversionReport(request, "subject-a", 1, 1, cosine, 0.3, 0.1, recognised)
        for request, cosine, recognised in (
            ("2026-0042", 0.12, False),
            ("2026-0043", 0.21, False),
            ("2026-0044", 0.28, True),
        )
    ]
    report = Report("no_match", inversions=found, request_ids=["2026-0042", "2026-0043", "2026-0044"])
    text = render(report, REQUEST)
    assert "* subject-a: likeness 0.12, and from 0.30" in text
    assert "0.21" not in text
    assert "Nothing was erased" in text
    assert "does not promise" not in text
    shown = render(report, dataclasses.replace(REQUEST, request_id="2026-0044"))
    assert "has not been carried out yet" in shown
    assert "likeness" not in shown


def test_failed():
    text = render(report("failed"), REQUEST)
    assert "was not published" in text
    assert "| subject-a | 0.71 |" in text


@pytest.mark.parametrize("status", ["planned", "error"])
def test_open(status):
    assert "has not been carried out yet" in render(Report(status, "2026-0042"), REQUEST)


@pytest.mark.parametrize("status", ["erased", "already_erased", "no_match", "failed", "error"])
def test_nothing_of_the_person(status):
    text = render(report(status), REQUEST, purged())
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    for private in ("jane", "f00d", "hmac", "images["):
        assert private not in text
