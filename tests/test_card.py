"""The card: valid front matter, a body from the record alone, and nothing that a text can smuggle in."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from test_record import build, erasure, metrics

from guide_hub import record as rec
from guide_hub.errors import InputError
from guide_hub.record.card import NOTES_END, NOTES_START, check_front_matter, code, md

NVIDIA = {"license": "other", "license_name": "nvidia-eg3d", "license_link": "./LICENSE.txt"}


def info(**changes):
    return rec.CardInfo(
        **({"title": "EG3D, erased", "repo_id": "me/eg3d-erased", "base_metadata": NVIDIA} | changes)
    )


def front(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_front_matter():
    card = rec.render_card(build(), info())
    data = front(card)
    results = data.pop("model-index")
    assert data == {
        "license": "other",
        "license_name": "nvidia-eg3d",
        "license_link": "LICENSE",
        "library_name": "guide-hub",
        "base_model": "org/eg3d",
        "base_model_relation": "finetune",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["guide-hub", "machine-unlearning", "guide", "eg3d"],
    }
    (model,) = results
    assert model["name"] == "eg3d-erased"
    figures = {m["type"]: m["value"] for r in model["results"] for m in r["metrics"]}
    assert figures == {
        "identity_similarity": 0.065,  # the mean of both people: no one's own row
        "identity_similarity_held_out": 0.21,
        "identity_verified": 0.0,
        "retained_verified": 0.97,
        "perceptual_distance": 0.09,
    }
    loaded = ModelCard(card)  # as the Hub's client reads it
    assert loaded.data.license == "other"
    assert len(loaded.data.eval_results) == 5


@pytest.mark.parametrize("uri", ["builtin:synthetic-heads", "local"])
def test_no_base_model_where_it_is_not_on_the_hub(uri):
    data = front(rec.render_card(build(base=rec.Base(uri, "3" * 64)), info()))
    assert not {"base_model", "base_model_relation"} & data.keys()


def test_a_model_is_not_its_own_base():
    assert "base_model" not in front(rec.render_card(build(), info(repo_id="org/eg3d")))
    base = NVIDIA | {"base_model": "nvidia/eg3d"}
    data = front(rec.render_card(build(), info(repo_id="org/eg3d", base_metadata=base)))
    assert data["base_model"] == "nvidia/eg3d"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({"license": "mit"}, {"license": "mit"}),
        ({"license": "other"}, {"license": "other", "license_name": "custom", "license_link": "LICENSE"}),
        (
            {"license": "other", "license_name": "x: y\nz", "license_link": "https://e.org/l"},
            {"license": "other", "license_name": "x: y z", "license_link": "https://e.org/l"},
        ),
        (
            {"license": "mit", "license_link": "javascript:alert(1)"},
            {"license": "mit", "license_link": "LICENSE"},
        ),
    ],
)
def test_licence_is_inherited(base, expected):
    data = front(rec.render_card(build(), info(base_metadata=base)))
    assert {k: v for k, v in data.items() if k.startswith("license")} == expected


@pytest.mark.parametrize("base", [{}, {"license": ""}, {"license": ["a"]}, {"license": "x\ny"}])
def test_no_licence_no_card(base):
    with pytest.raises(InputError, match="names no licence"):
        rec.render_card(build(), info(base_metadata=base))


def test_body_says_what_it_is_and_what_it_is_not():
    card = rec.render_card(
        build(),
        info(assets={"retained.png": "before and after"}, contact="privacy team", recipe_yaml="a: 1\n"),
    )
    for needed in (
        "approximate suppression of a generated identity",
        "not proof that training data was removed",
        "**pseudonyms**",
        "| 1 | `2026-0042` | `subject-a` | 2026-08-20 | 2 | 0.710 | 0.020 | 0.030 | 0.300 |",
        "| 0.650 → 0.210 | 0.0% | PASSED |",
        "| 2 | `2026-0042` | `subject-b` | 2026-08-20 | 2 | 0.600 | 0.100 | 0.100 | 0.300 | – | – | PASSED |",
        "| 100 | 97.0% | 0.090 |",
        "![before and after](assets/retained.png)",
        f"https://huggingface.co/org/eg3d/tree/{'4' * 40}",
        "https://arxiv.org/abs/2405.09879",
        "Older revisions can still be downloaded",
        "surrogate",
        "White-box re-inversion was not tested",
        "Comparing this model with its base",
        "Threat model",
        "guide-hub verify me/eg3d-erased",
        "sha256sum -c SHA256SUMS",
        "Questions and appeals",
        "Contact: privacy team",
        'EG3D.from_pretrained("me/eg3d-erased")',
        "5" * 64,
    ):  # fmt: skip
        assert needed in card, needed
    assert "hmac-sha256" not in card


def test_body_follows_the_record():
    tested = build(
        limitations=["approximate", "not-proof-of-data-removal"], prior_revisions="purged", retained=None
    )
    card = rec.render_card(tested, info(repo_id=None))
    assert "re-inversion was not tested" not in card
    assert "removed older revisions" in card
    assert "Everybody else" not in card
    assert "from_pretrained" not in card
    assert "by suppressing one identity on request" in rec.render_card(build(), info(carried=1))
    assert "That base already had one identity suppressed." in rec.render_card(build(), info(carried=1))
    failed = build(erasures=[erasure(result="FAILED")])
    assert "**Not every erasure meets its target**" in rec.render_card(failed, info())
    not_again = build(previous=rec.to_bytes(build()), erasures=[erasure("subject-c")])
    assert "| 0.710 | 0.020 | – | 0.300 |" in rec.render_card(not_again, info())


EVIL = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/track.png)",
    "a\n\n# Heading\n\n| b |",
    "a --- \n---\nlicense: mit\n",
    "`code` $$x$$ **b** ~~s~~ @someone https://evil.example www.evil.example",
    "\u202ereversed \u200bhidden\x00",
    "<!-- comment",
    NOTES_START,
    "{{template}} ${HOME} &lt;b&gt;",
]


@pytest.mark.parametrize("text", EVIL)
def test_texts_are_shown_and_nothing_else(text):
    clean = rec.render_card(build(), info(title="T", contact="C", assets={"retained.png": "A"}))
    card = rec.render_card(
        build(), info(title=f"T{text}", contact=f"C{text}", assets={"retained.png": f"A{text}"})
    )
    assert len(card.splitlines()) == len(clean.splitlines())
    assert front(card) == front(clean) | {"model-index": front(card)["model-index"]}
    for bare in (
        "<script",
        "](javascript",
        "![x](",
        " @someone",
        "://evil",
        "www.evil",
        "\u202e",
        "\u200b",
        "\x00",
    ):
        assert bare not in card
    assert card.count("<!--") == 2  # the notes markers


@pytest.mark.parametrize("text", EVIL)
def test_escape_leaves_no_markup(text):
    out = md(text)
    assert "\n" not in out
    assert not re.search(r"(?<!\\)[<>\[\]`*_|~$@!:.{}()]", out)
    assert code("2026-0042") == "`2026-0042`"
    assert code(f"a{text}") == md(f"a{text}")


def test_a_recipe_cannot_leave_its_fence():
    card = rec.render_card(build(), info(recipe_yaml="a: 1\n```\n<script>\n````\n"))
    start = card.index("`````yaml\n")
    assert card.index("<script>") < card.index("\n`````\n", start)


def test_a_recipe_name_is_plain():
    with pytest.raises(ValueError, match="publishable"):
        build(recipe_name="<b>")


@pytest.mark.parametrize("name", ["../x.png", "a b.png", "x.svg", "x)(y.png"])
def test_names_of_pictures_are_plain(name):
    with pytest.raises(ValueError, match="plain"):
        rec.render_card(build(), info(assets={name: "caption"}))


def test_repo_id_that_is_none_is_not_shown():
    card = rec.render_card(build(), info(repo_id='x"); import os  # $(rm)'))
    assert "import os" not in card
    assert "guide-hub verify .  " in card


def test_only_records_become_cards():
    record = build()
    record["predicate"]["erasures"][0]["requestId"] = "<script>"
    with pytest.raises(InputError):
        rec.render_card(record, info())


def test_the_maintainers_notes_survive():
    first = rec.render_card(build(), info())
    assert rec.maintainer_notes(first) == ""
    notes = "## Ours\n\n*kept* as it <b>is</b>"
    edited = first.replace(f"{NOTES_START}\n\n{NOTES_END}", f"{NOTES_START}\n{notes}\n{NOTES_END}")
    assert edited != first
    again = rec.render_card(build(erasures=[erasure(metrics=metrics(now=0.1))]), info(previous_card=edited))
    assert rec.maintainer_notes(again) == notes
    assert again == rec.render_card(
        build(erasures=[erasure(metrics=metrics(now=0.1))]), info(previous_card=again)
    )
    for without in ("# Another card\n", NOTES_START, NOTES_END + NOTES_START, None):
        assert rec.maintainer_notes(rec.render_card(build(), info(previous_card=without))) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("library_name: guide-hub", "library_name: x"),
        ("license_link: LICENSE\n", ""),
        ("base_model: org/eg3d\n", ""),
        ("license: other", "license: [other]"),
        ("value: 0.97", "value: high"),
        ("license: other", "license: other\nwidget: []"),
        ("---\n", "\n---\n"),
    ],
)
def test_front_matter_that_is_not_valid(old, new):
    card = rec.render_card(build(), info())
    check_front_matter(card)
    assert old in card
    with pytest.raises(ValueError, match="front matter"):
        check_front_matter(card.replace(old, new, 1))
