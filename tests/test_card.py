"""The card: valid front matter, a body from the record alone, and nothing that a text can smuggle in."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from test_record import build, chained, erasure, many, metrics

from guide_hub import delivery
from guide_hub import record as rec
from guide_hub.audit import _false_claims
from guide_hub.errors import InputError
from guide_hub.record.card import (
    BASE_NOTES,
    FORMAT,
    GENERATED,
    NOTES_END,
    NOTES_START,
    check_front_matter,
    code,
    md,
)

GOLDEN = Path(__file__).parent / "golden"
QUICK = settings(  # a card takes a while: no shrinking
    max_examples=40, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)
NVIDIA = {"license": "other", "license_name": "nvidia-eg3d", "license_link": "./LICENSE.txt"}


def info(**changes):
    return rec.CardInfo(**({"repo_id": "me/eg3d-erased", "base_metadata": NVIDIA} | changes))


def front(card):
    return yaml.safe_load(card.split("\n---\n")[0])


@pytest.mark.parametrize(("name", "make"), [("", chained), (".many", many)], ids=["two", "many"])
def test_golden_text(name, make):
    """The words of one format never change: `verify` compares cards byte for byte with its own."""
    card = rec.render_card(make(), info(pictures=["retained.png"]))
    assert card == (GOLDEN / f"card.{FORMAT}{name}.md").read_text(encoding="utf-8")


def test_many_people():
    card = rec.render_card(many(), info())
    assert "13 people were measured again after every later erasure" in card
    assert "14 erasures touch about 1.4% of all random faces" in card
    assert "| teacher | the base as it was:" in card
    few = many()
    few["predicate"]["collateral"]["expected"] = 0.009955  # of ten
    assert "Collateral" not in rec.render_card(few, info())
    unseen = many()
    del unseen["predicate"]["collateral"]["recommended"], unseen["predicate"]["collateral"]["alike"]
    assert "At the rate that would touch 1 %, 0.00071, nothing was measured." in rec.render_card(
        unseen, info()
    )


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
        info(pictures=["retained.png"]),
    )
    for needed in (
        "approximate suppression of a generated identity",
        "not proof that training data was removed",
        "**pseudonyms**",
        "| 1 | `2026-0042` | `subject-a` | 2026-08-20 | 2 | 0.710 | 0.020 | 0.030 | 0.300 |",
        "| 0.650 → 0.210 | 0.0% | PASSED |",
        "| 2 | `2026-0042` | `subject-b` | 2026-08-20 | 2 | 0.600 | 0.100 | 0.100 | 0.300 | – | – | PASSED |",
        "| 100 | 97.0% | 0.090 |",
        "](assets/retained.png)",
        "[recipe.yaml](recipe.yaml)",
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
    assert "On request, 2 identities are suppressed in it. Every" in rec.render_card(build(), info())
    assert "On request, one identity is suppressed" in rec.render_card(build(erasures=[erasure()]), info())
    assert "The base came with erasures of its own" in rec.render_card(chained(), info())
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
    f"{NOTES_END}\n{NOTES_START}",
    NOTES_START[:9] + NOTES_END + NOTES_START[9:],
    "{{template}} ${HOME} &lt;b&gt;",
]


@QUICK
@example("".join(EVIL))
@given(st.one_of(st.text(max_size=80), st.sampled_from(EVIL)))
def test_base_fields_cannot_inject(text):
    """What a base card's front matter says ends in the same two fields, or nowhere."""
    fields = {"license": "other", "license_name": text, "license_link": text, "base_model": text}
    for repo in ("me/eg3d-erased", "org/eg3d"):
        more = {
            "tags": [text],
            "title": text,
            "model-index": text,
            text: text,
            "library_name": text,
        }
        card = rec.render_card(build(), info(base_metadata=more | fields, repo_id=repo))
        clean = rec.render_card(build(), info(repo_id=repo))
        own = ("license_name", "license_link", "base_model", "base_model_relation")
        assert {k: v for k, v in front(card).items() if k not in own} == {
            k: v for k, v in front(clean).items() if k not in own
        }
        assert card.partition("\n---\n")[2] == clean.partition("\n---\n")[2]  # the body is not touched
        assert ModelCard(card).data.license_name == front(card)["license_name"]
        assert rec.rerender_card(card, build()) == card


@QUICK
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(EVIL), max_size=4).map("\n".join)))
def test_a_base_cards_body_survives_and_injects_nothing(text):
    """The maintainer's own words stay, below everything that is ours, on the base's own page alone."""
    card = rec.render_card(build(), info(repo_id="org/eg3d", previous_card=f"---\nlicense: x\n---\n{text}"))
    clean = rec.render_card(build(), info(repo_id="org/eg3d"))
    assert card.startswith(clean.split(NOTES_START)[0])
    assert card.count(NOTES_START) == card.count(NOTES_END) == 1
    assert card.endswith(f"\n{NOTES_END}\n")
    assert rec.rerender_card(card, build()) == card
    assert rec.card_faults(card, build()) == []
    other = rec.render_card(build(), info(previous_card=text))
    assert other == rec.render_card(build(), info())


@pytest.mark.parametrize("text", EVIL)
def test_escape_leaves_no_markup(text):
    out = md(text)
    assert "\n" not in out
    assert not re.search(r"(?<!\\)[<>\[\]`*_|~$@!:.{}()]", out)
    assert code("2026-0042") == "`2026-0042`"
    assert code(f"a{text}") == md(f"a{text}")


def test_a_recipe_name_is_plain():
    with pytest.raises(ValueError, match="publishable"):
        build(recipe_name="<b>")


def test_only_pictures_of_people_who_stay():
    with pytest.raises(ValueError, match="not erased"):
        rec.render_card(build(), info(pictures=["jane.png"]))


@pytest.mark.parametrize("repo", ['x"); import os  # $(rm)', "a b", "a/b/c", "<b>", "a\nb", ""])
def test_a_repository_has_a_plain_name(repo):
    with pytest.raises(InputError, match="name is not one"):
        info(repo_id=repo)


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


def test_the_base_cards_own_words_become_notes():
    theirs = "---\nlicense: mit\n---\n\n# Faces\n\nOur words.\n\n---\nlicense: none\n---\n"
    first = rec.render_card(build(), info(repo_id="org/eg3d", previous_card=theirs.replace("\n", "\r\n")))
    notes = f"{BASE_NOTES}\n\n# Faces\n\nOur words.\n\n---\nlicense: none\n---"
    assert rec.maintainer_notes(first) == notes
    again = rec.render_card(chained(), info(repo_id="org/eg3d", previous_card=first))
    assert rec.maintainer_notes(again) == notes
    assert rec.maintainer_notes(rec.render_card(build(), info(repo_id=None, previous_card=theirs))) == notes
    assert rec.maintainer_notes(rec.render_card(build(), info(previous_card=theirs))) == ""
    emptied = first.replace(f"{NOTES_START}\n{notes}\n{NOTES_END}\n", "")  # somebody deleted the markers too
    assert rec.maintainer_notes(rec.rerender_card(emptied, build())) == ""


def test_the_maintainers_own_front_matter_survives():
    own = {"language": ["en"], "extra_gated_prompt": "Agree?\n---\nlicense: none", "datasets": ["ffhq"]}
    card = rec.render_card(build(), info(repo_id="org/eg3d", base_metadata=NVIDIA | own | {"widget": 1}))
    assert {k: v for k, v in front(card).items() if k in own} == own
    assert "widget" not in front(card)
    assert rec.rerender_card(card, build()) == card
    odd = card.replace("extra_gated_prompt:", "extra_gated_x: !!omap [a: b]\nextra_gated_prompt:")
    with pytest.raises(InputError, match="front matter"):
        rec.rerender_card(odd, build())
    assert not front(rec.render_card(build(), info(base_metadata=NVIDIA | own))).keys() & own.keys()


def test_rerender_after_a_purge():
    card = rec.render_card(chained(), info(pictures=["retained.png"]))
    noted = card.replace(f"{NOTES_START}\n", f"{NOTES_START}\nours")
    purged = rec.parse_record(rec.with_prior_revisions(rec.to_bytes(chained()), "purged"))
    assert rec.card_faults(noted, purged) == ["section 'Limits'"]
    again = rec.rerender_card(noted, purged)
    assert rec.card_faults(again, purged) == []
    assert again.replace("The maintainer removed older revisions from the history.", "X") == noted.replace(
        "**Older revisions can still be downloaded** from its history.", "X"
    )
    for other in (
        "# Another\n",
        card.replace(GENERATED.format(FORMAT), ""),
        card.replace("license: other\n", ""),
    ):
        with pytest.raises(InputError):
            rec.rerender_card(other, purged)
    assert rec.card_format(card) == FORMAT
    assert rec.card_format(card.replace("\n", "\r\n")) == FORMAT


def test_the_pull_requests_text():
    text = delivery.description(chained(), "org/eg3d", ["ffhq.pkl", "a`|<script>.pt"])
    for needed in (
        "| `2026-0042` | `subject-a` | 0.710 | – | 0.650 to 0.210 | 0.300 | PASSED |",
        "| `2026-0043` | `subject-c` | 0.710 | 0.030 |",
        "**Others**: still themselves in 97% of the views of 100 random people.",
        "Deleted: `ffhq.pkl`, a\\`\\|&#60;script&#62;\\.pt.",
        "guide-hub verify org/eg3d --revision refs/pr/N",
        "**Merging does not** remove older revisions",
    ):
        assert needed in text, needed
    assert "<script" not in text
    assert "hmac" not in text
    assert "No other weights are deleted" in delivery.description(build(retained=None), "org/eg3d", [])


def test_a_card_of_another_guide_hub():
    """Its number excuses a card only where the record, too, says that another version made it."""
    card = rec.render_card(build(), info()).replace(f"guide-hub card {FORMAT}:", "guide-hub card 9:")
    assert rec.other_words(card, build()) is None
    assert rec.card_faults(card, build()) == ["introduction"]
    other = build(tool_version="0.9.0")
    assert "(card 9, record by 0.9.0)" in rec.other_words(card, other)
    assert rec.other_words(rec.render_card(other, info()), other) is None
    assert rec.other_words("# Another\n", other) is None
    notes: list[str] = []  # the same for an audit
    claims = _false_claims(card.encode(), rec.to_bytes(build()), notes)
    assert (claims, notes) == (["the card's introduction is not what the record says"], [])
    assert _false_claims(card.encode(), rec.to_bytes(other), notes) == []
    assert notes == ["a card, which is in the words of another guide-hub (card 9, record by 0.9.0)"]


@pytest.mark.parametrize(
    "line",
    ["date: 2026-02-30", "tags: [!!bool x]", "tags: !!int ''", "tags: !!timestamp x", "tags: " + "[" * 2000],
    ids=lambda line: line[:20],
)
def test_front_matter_that_yaml_cannot_read(line):
    card = rec.render_card(build(), info()).replace("license: other", f"license: other\n{line}", 1)
    assert rec.front_matter(card) == {}
    with pytest.raises(InputError, match="front matter"):
        rec.card_faults(card, build())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("library_name: guide-hub", "library_name: x"),
        ("tags:\n- guide-hub\n- machine-unlearning\n- guide\n- eg3d\n", "tags: 5\n"),
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
