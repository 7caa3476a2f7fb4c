"""`erase` from request to folder and Hub: what is written, repeated, refused, resumed and pushed."""

from __future__ import annotations

import hashlib
import signal
import stat
from types import SimpleNamespace

import pytest
import tiny_erasure as tiny
import torch
from loopback_hub import READ_TOKEN, HubFault
from safetensors.torch import load_file, save_file

from guide_hub import hub as hub_module
from guide_hub import people, pipeline, publish, record
from guide_hub.eg3d import EG3D
from guide_hub.errors import ConflictError, HubError, InputError, RefusedError
from guide_hub.evaluation.calibration import shipped
from guide_hub.evaluation.identity import measure_person
from guide_hub.evaluation.views import yaw_cameras
from guide_hub.faces import crops
from guide_hub.faces.registry import load_identity
from guide_hub.interrupt import Stopped, Stopper
from guide_hub.inversion import Inverter
from guide_hub.invert import invert
from guide_hub.publish import building
from guide_hub.recipe import load_recipe
from guide_hub.request import load_request

REPO = "org/eg3d"
find_threshold, check_grouping = pipeline.find_threshold, people.check_grouping  # every test's are replaced
FILES = {
    "model.safetensors", "config.json", "README.md", "erasure_record.json", "recipe.yaml", "LICENSE",
    "SHA256SUMS", "assets/retained.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def model(home):
    return tiny.make_model(home / "model")


@pytest.fixture(scope="module", autouse=True)
def world(home):
    """Random networks, photos without detection, and a threshold that everybody reaches."""
    latents = []
    invert = Inverter.__call__

    def remembered(self, *photos, **options):
        latents.append(invert(self, *photos, **options))
        return latents[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(home / "weights")))
        patch.setattr(crops, "read_faces", tiny.whole_photos)
        patch.setattr(pipeline, "find_threshold", lambda *_: tiny.EVERYBODY)
        patch.setattr(people, "check_grouping", lambda *_: None)  # noise is nobody
        patch.setattr(Inverter, "__call__", remembered)
        yield SimpleNamespace(latents=latents)


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def first(home, model, world):
    """Two people out of the model, in one uninterrupted run; read only."""
    watch = tiny.Watch()
    options = {
        "recipe": tiny.make_recipe(home / "recipe"), "output": home / "erased", "state": home / "state",
        "report": home / "private", "device": "cpu",
    }  # fmt: skip
    report = pipeline.erase(str(model), tiny.make_request(home / "request"), progress=watch, **options)
    return SimpleNamespace(
        report=report,
        folder=home / "erased",
        watch=watch,
        private=home / "private",
        latents=world.latents[-3:],  # of a photo to erase, a held-out one, and the other person's
    )


@pytest.fixture
def published(hub, model):
    """The model as REPO on the Hub; gives the commit."""
    return hub.create_repo(REPO, tiny.tree(model))


@pytest.fixture
def one(tmp_path):
    """A request about one person, and options for it."""
    request = tiny.make_request(tmp_path / "request", people={"subject-a": ("IMG_2207.png",)})
    options = {"recipe": tiny.make_recipe(tmp_path), "output": tmp_path / "erased", "device": "cpu"}
    return SimpleNamespace(request=request, options=options, output=tmp_path / "erased")


def erase(repo, job, **options):
    return pipeline.erase(str(repo), job.request, **{**job.options, **options})


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# ----------------------------------------------------------------------------------------------------------
# The folder


def test_folder_is_whole(first):
    assert set(tiny.tree(first.folder)) == FILES
    assert record.check_sums(first.folder) == []
    statement = record.read_record(first.folder)
    assert record.check_subject(statement, record.digests(first.folder)) == []
    assert record.overall(statement) == "PASSED"
    assert hub_module.check_folder(first.folder).keys() == FILES
    assert first.report.status == "erased"
    assert first.report.output == str(first.folder)


def test_only_the_synthesis_changes(first, model):
    before, after = (load_file(f / "model.safetensors") for f in (model, first.folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {n for n, _ in EG3D.from_pretrained(first.folder).backbone.synthesis.named_parameters()}
    assert changed
    assert changed <= {f"backbone.synthesis.{n}" for n in trained}
    assert (first.folder / "config.json").read_bytes() == (model / "config.json").read_bytes()


def test_report_says_what_the_record_says(first):
    predicate = record.read_record(first.folder)["predicate"]
    assert predicate["base"]["digest"]["sha256"] == first.report.base["sha256"]
    for said, written in zip(first.report.erasures, predicate["erasures"], strict=True):
        figures = written["metrics"]
        assert (said.identity_id, said.sequence, said.result) == (
            written["identityId"], written["sequence"], written["result"],
        )  # fmt: skip
        assert {**vars(said.id), "now": said.now} == pytest.approx(
            {k: figures["id"][k] for k in ("before", "after", "threshold", "now")}, abs=1e-6
        )
        assert said.verified_after == figures["verifiedAfter"]
        assert (said.id_others is None) == ("idOthers" not in figures) == (said.identity_id == "subject-b")
    assert first.report.retained.n == predicate["retained"]["n"] == 3


def test_nothing_of_the_photos_is_in_the_folder(first, home):
    public = b"\n".join(tiny.tree(first.folder).values())
    for photo in (home / "request").glob("*.png"):
        data = photo.read_bytes()
        for secret in (data[60:160], photo.name.encode(), hashlib.sha256(data).hexdigest().encode()):
            assert secret not in public


def test_people_go_in_order_and_the_first_is_replayed(first):
    assert first.watch.starts == [("subject-a", 0), ("subject-b", 0)]
    replayed = {key: losses.replay > 0 for key, losses in first.watch.losses.items()}
    steps = range(1, tiny.STEPS + 1)
    assert replayed == {
        **{("subject-a", s): False for s in steps},
        **{("subject-b", s): True for s in steps},
    }


def test_now_is_measured_on_the_final_weights(first, home, model):
    a, b = first.report.erasures
    assert b.now == b.id.after
    assert a.now != a.id.after
    teacher, student = EG3D.from_pretrained(model), EG3D.from_pretrained(first.folder)
    request = load_request(home / "request" / "req-7.yaml")
    faces = tiny.whole_photos(request.identities, teacher.config.img_resolution, torch.device("cpu"))[0]
    photos, ws = torch.stack([face.image for face in faces]), torch.cat([f.ws for f in first.latents[:2]])
    cameras = yaw_cameras(teacher, load_recipe("heads").camera, 3)
    judge = load_identity("heads-b")
    again = measure_person(teacher, student, judge, photos, ws, cameras, tiny.EVERYBODY)
    assert a.now == pytest.approx(again.after.cosine, abs=1e-5)
    assert a.id_others.after == pytest.approx(again.others_after.cosine, abs=1e-5)


def test_the_report_is_for_the_owner_alone(first):
    names = {
        "report.html", "report-public.html", "reply-req-7.md", "reemergence.json", "reemergence.png",
    }  # fmt: skip
    assert set(tiny.tree(first.private)) == names
    assert "| subject-b |" in (first.private / "reply-req-7.md").read_text()
    assert {stat.S_IMODE((first.private / name).stat().st_mode) for name in names} == {0o600}
    assert stat.S_IMODE(first.private.stat().st_mode) == 0o700


def test_seed_decides_the_bytes(model, one, tmp_path):
    same = [tmp_path / "one", tmp_path / "two"]
    for folder in same:
        erase(model, one, output=folder)
    erase(model, one, output=tmp_path / "other", seed=1)
    assert weights(same[0]) == weights(same[1])
    assert weights(same[0]) != weights(tmp_path / "other")


def test_unfinished_folder_vanishes(tmp_path):
    def full():
        with building(tmp_path / "erased") as folder:
            (folder / "config.json").write_text("{}")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        full()
    assert list(tmp_path.iterdir()) == []


def test_card_does_not_name_the_folders(one, tmp_path):
    model = tiny.make_model(tmp_path / "jane-doe-in")
    erase(model, one, output=tmp_path / "jane-doe-out")
    assert not any(b"jane-doe" in data for data in tiny.tree(tmp_path / "jane-doe-out").values())
    assert "# Erased model\n" in (tmp_path / "jane-doe-out" / "README.md").read_text()


# ----------------------------------------------------------------------------------------------------------
# Refusals


def test_missed_target_is_written_and_never_pushed(hub, published, one, tmp_path):
    one.options["recipe"] = tiny.make_recipe(tmp_path, erased_views_max=0.0)
    with pytest.raises(RefusedError, match="still verified in 100% of the views") as refused:
        erase(REPO, one)
    assert refused.value.report.status == "failed"
    assert record.overall(record.read_record(one.output)) == "FAILED"
    assert set(tiny.tree(one.output)) == FILES
    assert hub.repos[REPO].pulls == []
    assert hub.head(REPO) == published
    with pytest.raises(InputError, match="did not meet its target"):
        erase(one.output, one, output=tmp_path / "again")


def test_missed_bystanders_fail_everybody(model, one, tmp_path, monkeypatch):
    one.options["recipe"] = tiny.make_recipe(tmp_path, retained_min=1.0)
    monkeypatch.setattr(people, "refuse_unshown", lambda *_: None)
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.NOBODY)
    with pytest.raises(RefusedError, match="of other people are still themselves"):
        erase(model, one)


def test_one_person_under_two_names_is_refused(model, home, one, tmp_path, monkeypatch):
    monkeypatch.setattr(people, "check_grouping", check_grouping)
    with pytest.raises(InputError, match=r"req-7.yaml:\d+:\d+: .* shows the person of subject-a"):
        pipeline.erase(str(model), tiny.make_request(tmp_path / "two"), **one.options)
    assert not (tmp_path / "state").exists()


def test_held_out_photos_that_the_model_does_not_show_test_nothing(model, one, monkeypatch):
    """Two photos, one held out, of which the judge recognises the fitted one alone."""
    request = tiny.make_request(one.request.parent, people={"subject-a": ("IMG_2207.png", "IMG_2208.png")})
    report = erase(model, one)
    (figures,), (erasure,) = report.inversions, report.erasures
    assert erasure.id_others is not None
    between = sorted((figures.cosine, erasure.id_others.before))
    assert between[0] < between[1]
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: sum(between) / 2)
    warned = []
    watch = tiny.Watch()
    watch.warn = warned.append
    if figures.cosine < erasure.id_others.before:  # the fitted one is to be recognised
        request.write_text(
            request.read_text().replace("IMG_2207.png, IMG_2208.png", "IMG_2208.png, IMG_2207.png")
        )
    report = erase(model, one, output=one.output.with_name("again"), progress=watch)
    assert report.erasures[0].id_others is None
    assert any("1 of 1 held-out photos" in text for text in warned)


def test_latents_that_invert_found_are_taken(model, one, tmp_path, world, monkeypatch):
    monkeypatch.setattr("guide_hub.invert.find_threshold", lambda *_: tiny.EVERYBODY)
    invert(str(model), one.request, recipe=one.options["recipe"], report=tmp_path / "found", device="cpu")
    calls = len(world.latents)
    report = erase(model, one, latents=tmp_path / "found" / "latents.safetensors")
    assert len(world.latents) == calls  # nothing was inverted again
    plain = erase(model, one, output=tmp_path / "plain")
    assert weights(tmp_path / "plain") == weights(one.output)
    assert report.erasures[0].id == plain.erasures[0].id
    save_file({"somebody-else": torch.zeros(1, 8, 32)}, tmp_path / "others.safetensors")
    with pytest.raises(InputError, match="no latent of this model for subject-a"):
        erase(model, one, output=tmp_path / "no", latents=tmp_path / "others.safetensors")


def test_no_match_writes_nothing(model, one, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.NOBODY)
    with pytest.raises(RefusedError, match="subject-a: the model does not show this person") as refused:
        erase(model, one)
    report = refused.value.report
    assert report.status == "no_match"
    (figures,) = report.inversions
    assert (figures.identity_id, figures.photos, figures.threshold) == ("subject-a", 1, tiny.NOBODY)
    assert -1 < figures.cosine < tiny.NOBODY
    assert not one.output.exists()
    assert set(tiny.tree(tmp_path / "state")) == {"replies/reply-req-7.md"}  # the answer, no latents


# ----------------------------------------------------------------------------------------------------------
# Stopping and going on


def stop_at(identity, step):
    """SIGTERM right after that step."""
    return tiny.Watch(lambda *at: signal.raise_signal(signal.SIGTERM) if at == (identity, step) else None)


@pytest.mark.parametrize("at", [("subject-a", 1), ("subject-a", tiny.STEPS), ("subject-b", 2)])
def test_stopped_run_goes_on_to_the_same_bytes(first, home, model, tmp_path, at):
    options = {
        "recipe": tiny.make_recipe(tmp_path), "output": tmp_path / "erased", "device": "cpu",
    }  # fmt: skip
    request = home / "request" / "req-7.yaml"
    with pytest.raises(Stopped) as stopped:
        pipeline.erase(str(model), request, progress=stop_at(*at), **options)
    assert stopped.value.exit_code == 143
    assert not (tmp_path / "erased").exists()
    (run,) = (tmp_path / "state" / "runs").iterdir()
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "progress.pt").stat().st_mode) == 0o600

    watch = tiny.Watch()
    report = pipeline.erase(str(model), request, progress=watch, **options)
    assert watch.starts[0] == at
    assert weights(tmp_path / "erased") == weights(first.folder)
    assert report.erasures == first.report.erasures
    assert not run.exists()


def test_other_settings_do_not_take_over_a_stopped_run(model, one):
    with pytest.raises(Stopped):
        erase(model, one, progress=stop_at("subject-a", 1))
    watch = tiny.Watch()
    erase(model, one, progress=watch, seed=1)
    assert watch.starts == [("subject-a", 0)]


def test_another_face_of_the_photo_is_another_run(model, one):
    with pytest.raises(Stopped):
        erase(model, one, progress=stop_at("subject-a", 1))
    text = one.request.read_text()
    one.request.write_text(text.replace("IMG_2207.png", "{path: IMG_2207.png, face: [3, 4]}"))
    watch = tiny.Watch()
    erase(model, one, progress=watch)
    assert watch.starts == [("subject-a", 0)]


def test_strangers_are_refused_on_going_on_too(model, one, monkeypatch):
    with pytest.raises(Stopped):
        erase(model, one, progress=stop_at("subject-a", 1))
    monkeypatch.setattr(pipeline, "find_threshold", lambda *_: tiny.NOBODY)
    with pytest.raises(RefusedError, match="does not show this person"):
        erase(model, one)


@pytest.mark.parametrize("pushed", [False, True])
def test_signal_while_writing_waits_for_the_folder(hub, published, one, tmp_path, monkeypatch, pushed):
    write = publish.write_folder

    def signalled(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return write(*arguments)

    monkeypatch.setattr(publish, "write_folder", signalled)
    if pushed:
        with pytest.raises(Stopped) as stopped:
            erase(REPO, one)
        assert f"guide-hub push {one.output} --to {REPO}" in stopped.value.remedy
        assert stopped.value.report.output == str(one.output)
    else:
        assert erase(REPO, one, push=False).status == "erased"
    assert hub_module.check_folder(one.output).keys() == FILES
    assert list((tmp_path / "state" / "runs").iterdir()) == []
    assert hub.repos[REPO].pulls == []


def test_stopper_waits_for_a_step_only():
    stopper = Stopper()
    with stopper.step():
        stopper(signal.SIGINT, None)
    with pytest.raises(Stopped) as stopped:
        stopper.raise_if_asked()
    assert stopped.value.exit_code == 130
    with pytest.raises(Stopped):
        stopper(signal.SIGTERM, None)


# ----------------------------------------------------------------------------------------------------------
# The Hub


def test_several_requests_are_one_commit(hub, published, one, tmp_path):
    other = tiny.make_request(tmp_path / "other", "req-8", {"subject-a": ("holiday.png",)}, regime="ccpa")
    both = SimpleNamespace(request=[one.request, other], options=one.options)
    watch = tiny.Watch()
    report = erase(REPO, both, progress=watch, report=tmp_path / "private")
    assert (report.request_id, report.request_ids) == (None, ["req-7", "req-8"])
    assert [(e.request_id, e.identity_id, e.sequence) for e in report.erasures] == [
        ("req-7", "subject-a", 1), ("req-8", "subject-a", 2),
    ]  # fmt: skip
    assert [name for name, _ in watch.starts] == ["req-7.subject-a", "req-8.subject-a"]
    assert set(tiny.tree(tmp_path / "private")) == {
        "report.html", "report-public.html", "reply-req-7.md", "reply-req-8.md",
        "reemergence.json", "reemergence.png",
    }  # fmt: skip
    (pull,) = hub.repos[REPO].pulls
    assert pull.title == "Erase the identities of requests req-7, req-8"
    listed = record.read_record(one.output)["predicate"]["erasures"]
    assert [(e["requestId"], e["regime"]) for e in listed] == [("req-7", "voluntary"), ("req-8", "ccpa")]

    again = erase(REPO, both, output=tmp_path / "again")  # open already
    assert (again.status, len(hub.repos[REPO].pulls)) == ("already_erased", 1)
    hub.merge(REPO, 1)
    third = tiny.make_request(tmp_path / "third", "req-9", {"subject-a": ("party.png",)})
    grown = SimpleNamespace(request=[other, third, one.request], options=one.options)
    report = erase(REPO, grown, output=tmp_path / "grown")
    assert [e.request_id for e in report.erasures] == ["req-9"]
    assert hub.repos[REPO].pulls[1].title == "Erase the identities of request req-9"


def test_requests_are_refused_together(model, one, tmp_path):
    broken = tmp_path / "request" / "broken.yaml"
    broken.write_text("schema: guide-hub/request/v2\n")
    with pytest.raises(InputError) as error:
        erase(model, SimpleNamespace(request=[one.request, broken, one.request], options=one.options))
    told = str(error.value)
    assert "broken.yaml:1:9: schema must be guide-hub/request/v1" in told
    assert "request req-7 is given twice" in told


def test_pull_request_by_default(hub, published, one, world, tmp_path):
    hub.commit(REPO, {"notes.txt": b"kept"})
    tip = hub.head(REPO)
    report = erase(REPO, one)
    assert report.base == {
        "repo": f"hf://{REPO}",
        "revision": tip,
        "sha256": record.sha256(hub.files(REPO)["model.safetensors"]),
    }
    assert hub.head(REPO) == tip
    assert report.pushed["pr_url"].endswith("/discussions/1")
    assert hub.repos[REPO].pulls[0].title == "Erase the identities of request req-7"
    assert hub.files(REPO, "refs/pr/1") == {**hub.files(REPO), **tiny.tree(one.output)}

    pulled = EG3D.from_pretrained(REPO, revision="refs/pr/1").state_dict()
    local = EG3D.from_pretrained(one.output).state_dict()
    assert all(torch.equal(pulled[name], value) for name, value in local.items())

    sent = hub.sent()
    photo = (tmp_path / "request" / "IMG_2207.png").read_bytes()
    latent = world.latents[-1].ws[0, 0].numpy().tobytes()
    assert weights(one.output) in sent  # the search would find what is there
    for secret in (photo[60:160], b"IMG_2207", hashlib.sha256(photo).hexdigest().encode(), latent[:16]):
        assert secret not in sent

    hub.merge(REPO, 1)
    assert hub.files(REPO)["model.safetensors"] == weights(one.output)


def test_second_run_of_a_request_has_nothing_to_do(hub, published, one, tmp_path):
    erase(REPO, one, create_pr=False)
    tip, asked = hub.head(REPO), len(hub.requests("POST", "/commit/"))
    again = erase(REPO, one)  # the same command, its output folder still there
    assert again.status == "already_erased"
    assert again.erasures == []
    assert hub.head(REPO) == tip
    assert len(hub.requests("POST", "/commit/")) == asked == 1


def test_open_pull_request_is_not_made_again(hub, published, one, tmp_path):
    first = erase(REPO, one)
    again = erase(REPO, one, output=tmp_path / "again", progress=tiny.Watch(pytest.fail))
    assert (again.status, again.pushed["pr_url"]) == ("already_erased", first.pushed["pr_url"])
    assert len(hub.repos[REPO].pulls) == 1
    one.request = tiny.make_request(tmp_path / "request")  # the same request, now of two people
    assert erase(REPO, one, output=tmp_path / "again").status == "erased"


def test_request_that_grew_erases_the_new_ones(hub, published, one, tmp_path):
    erase(REPO, one, create_pr=False)
    one.request = tiny.make_request(tmp_path / "request")
    watch = tiny.Watch()
    report = erase(REPO, one, output=tmp_path / "more", create_pr=False, progress=watch)
    assert watch.starts == [("subject-b", 0)]
    assert [(e.identity_id, e.sequence) for e in report.erasures] == [("subject-b", 2)]
    statement = record.read_record(tmp_path / "more")
    assert [e["identityId"] for e in statement["predicate"]["erasures"]] == ["subject-a", "subject-b"]
    card = (tmp_path / "more" / "README.md").read_text()
    assert "On request, 2 identities are suppressed in it. The base came with erasures of its own" in card
    assert hub.repos[REPO].pulls == []


def test_next_request_continues_the_record(hub, published, one, tmp_path):
    erase(REPO, one, create_pr=False)
    older = hub.files(REPO)["erasure_record.json"]
    one.request = tiny.make_request(tmp_path / "next", "req-8", {"subject-b": ("holiday.png",)})
    report = erase(REPO, one, output=tmp_path / "twice", create_pr=False)
    statement = record.read_record(tmp_path / "twice")
    assert statement["predicate"]["previousRecord"]["digest"]["sha256"] == record.sha256(older)
    assert record.check_link(statement, older) == []
    assert [(e["sequence"], e["requestId"]) for e in statement["predicate"]["erasures"]] == [
        (1, "req-7"), (2, "req-8"),
    ]  # fmt: skip
    (again,) = report.earlier
    figures = statement["predicate"]["erasures"][0]["metrics"]["id"]
    assert figures["now"] == pytest.approx(again.now, abs=1e-6)  # its photos are gone, the ledger is not
    assert report.erasures[0].sequence == 2
    assert [c.parent for c in hub.log(REPO)] == [report.base["revision"], published, None]


def test_direct_commit(hub, published, one):
    report = erase(REPO, one, create_pr=False)
    assert (report.pushed["commit"], report.pushed["pr_url"]) == (hub.head(REPO), None)
    assert hub.log(REPO)[0].parent == published
    assert hub.repos[REPO].pulls == []


def test_push_elsewhere_makes_the_repository(hub, model, one):
    report = erase(model, one, push_to="org/eg3d-erased")
    assert report.pushed["repo"] == "org/eg3d-erased"
    assert hub.files("org/eg3d-erased")["model.safetensors"] == weights(one.output)


def test_private_base_stays_private(hub, model, one):
    hub.create_repo(REPO, tiny.tree(model), private=True)
    erase(REPO, one, push_to="org/eg3d-erased")
    assert hub.repos["org/eg3d-erased"].private


def test_folder_with_a_repositorys_name_is_not_the_repository(
    hub, published, one, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, data in tiny.tree(model).items():
        (tmp_path / REPO / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / REPO / name).write_bytes(data)
    report = erase(REPO, one, push_to=REPO)
    assert report.base["repo"] == "local"
    assert report.pushed["pr_url"] is None  # to an own repository it would be a pull request
    assert hub.log(REPO)[0].parent == published


def test_erased_people_are_not_brought_back(hub, model, published, one, tmp_path):
    """The target's record is of other erasures, whose people these weights still show."""
    erase(REPO, one, push_to="org/eg3d-erased")
    tip = hub.head("org/eg3d-erased")
    one.request = tiny.make_request(tmp_path / "next", "req-8", {"subject-b": ("holiday.png",)})
    again = {"push_to": "org/eg3d-erased", "output": tmp_path / "again"}
    with pytest.raises(InputError, match=r"undo them \(erase from it with --repo org/eg3d-erased"):
        erase(REPO, one, progress=tiny.Watch(pytest.fail), **again)
    assert hub.head("org/eg3d-erased") == tip
    assert erase("org/eg3d-erased", one, output=tmp_path / "chained", push=False).status == "erased"
    erase(REPO, one, replace_record=True, **again)
    assert hub.log("org/eg3d-erased")[0].parent == tip


def test_other_weights_of_another_target_stop_the_run(hub, model, one):
    hub.create_repo("org/other", {"ffhq.pkl": b"the person is still in here"})
    with pytest.raises(InputError, match=r"ffhq\.pkl"):
        erase(model, one, push_to="org/other")
    erase(model, one, push_to="org/other", delete_other_weights=True)
    assert "ffhq.pkl" not in hub.files("org/other")


@pytest.mark.parametrize("create_pr", [True, False])
def test_somebody_pushes_meanwhile(hub, published, one, monkeypatch, create_pr):
    def slow(*arguments):
        hub.commit(REPO, {"notes.txt": b"meanwhile"})
        return tiny.whole_photos(*arguments)

    monkeypatch.setattr(crops, "read_faces", slow)
    with pytest.raises(ConflictError):
        erase(REPO, one, create_pr=create_pr)
    assert hub_module.check_folder(one.output).keys() == FILES
    assert hub.repos[REPO].pulls == []
    assert "erasure_record.json" not in hub.files(REPO)


def test_broken_push_leaves_the_folder(hub, published, one):
    def down():
        raise HubFault(500, "out of order")

    hub.before_commit = down
    with pytest.raises(HubError) as error:
        erase(REPO, one)
    assert f"guide-hub push {one.output} --to {REPO}" in error.value.problems[0].remedy
    assert (error.value.report.status, error.value.report.output) == ("error", str(one.output))
    assert len(error.value.report.erasures) == 1
    assert hub_module.check_folder(one.output).keys() == FILES


@pytest.mark.parametrize("trouble", ["read-only token", "missing", "gated", "no token"])
def test_access_is_checked_before_the_work(hub, model, one, tmp_path, monkeypatch, trouble):
    if trouble != "missing":
        hub.create_repo(
            "other/eg3d" if trouble == "gated" else REPO, tiny.tree(model), gated=trouble == "gated"
        )
    repo = "other/eg3d" if trouble == "gated" else REPO
    if trouble == "read-only token":
        monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    if trouble == "no token":
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError) as error:
        erase(repo, one, progress=tiny.Watch(pytest.fail))
    assert error.value.problems[0].remedy
    assert not one.output.exists()
    assert not (tmp_path / "state").exists()


def test_stale_revision_is_refused_before_the_work(hub, published, one):
    hub.commit(REPO, {"notes.txt": b"newer"})
    with pytest.raises(InputError, match="another commit than the main branch"):
        erase(REPO, one, revision=published)
    assert not one.output.exists()
    assert erase(REPO, one, revision=published, push=False).base["revision"] == published


def test_other_weights_stop_the_run(hub, published, one):
    hub.commit(REPO, {"ffhq.pkl": b"the person is still in here"})
    with pytest.raises(InputError, match=r"ffhq\.pkl"):
        erase(REPO, one)
    assert not one.output.exists()
    erase(REPO, one, delete_other_weights=True, create_pr=False)
    assert "ffhq.pkl" not in hub.files(REPO)
    assert len(hub.log(REPO)) == 3


# ----------------------------------------------------------------------------------------------------------
# Before the work


def test_dry_run_writes_nothing(model, one, tmp_path):
    before = tiny.tree(tmp_path)
    report = erase(model, one, dry_run=True)
    assert report.status == "planned"
    assert report.plan["identities"] == [{"request_id": "req-7", "identity_id": "subject-a", "photos": 1}]
    assert report.plan["steps"] == tiny.STEPS
    assert tiny.tree(tmp_path) == before


def test_full_output_folder_is_left_alone(model, one):
    one.output.mkdir()
    (one.output / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        erase(model, one)
    assert tiny.tree(one.output) == {"mine.txt": b"keep"}


def test_state_and_output_are_kept_apart(model, one):
    with pytest.raises(InputError, match="secret key"):
        erase(model, one, state=one.output / "state")


@pytest.mark.parametrize("report", ["erased", "erased/private", "."])
def test_report_and_output_are_kept_apart(model, one, tmp_path, report):
    with pytest.raises(InputError, match="people's faces"):
        erase(model, one, report=tmp_path / report)


def test_existing_report_folder_keeps_its_mode(model, one, tmp_path):
    (tmp_path / "private").mkdir(mode=0o755)
    erase(model, one, report=tmp_path / "private")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o755
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in (tmp_path / "private").iterdir())


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        (b"---\nlicense: mit\n---\n\xff", "cannot be read as UTF-8"),
        (b"---\nlicense: [mit, other]\n---\n", "names no licence"),
    ],
)
def test_card_is_checked_before_the_work(one, tmp_path, readme, said):
    model = tiny.make_model(tmp_path / "model")
    (model / "README.md").write_bytes(readme)
    with pytest.raises(InputError, match=said):
        erase(model, one, progress=tiny.Watch(pytest.fail))


def test_key_is_checked_before_the_work(model, one, monkeypatch):
    monkeypatch.setenv("GUIDE_HUB_KEY", "short")
    with pytest.raises(InputError, match="too short"):
        erase(model, one, progress=tiny.Watch(pytest.fail))


def test_record_is_checked_before_the_work(first, one, tmp_path):
    model = tmp_path / "model"
    for name, data in tiny.tree(first.folder).items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    statement = record.read_record(model)
    statement["predicate"]["novelty"] = 1
    (model / "erasure_record.json").write_bytes(record.to_bytes(statement))
    one.request = tiny.make_request(tmp_path / "next", "req-8", {"subject-b": ("holiday.png",)})
    with pytest.raises(InputError, match="cannot carry over"):
        erase(model, one, progress=tiny.Watch(pytest.fail))


def test_output_can_be_a_link(model, one, tmp_path):
    (tmp_path / "place").mkdir()
    one.output.symlink_to("place")
    erase(model, one)
    assert hub_module.check_folder(tmp_path / "place").keys() == FILES
    assert one.output.is_symlink()


def test_shipped_threshold_is_for_these_weights(home, one):
    folder = tiny.make_model(home / "calibrated")
    tiny.calibrated(folder, 0.25)
    plan = pipeline.make_plan(str(folder), one.request, pipeline.Options(**one.options))
    assert (
        find_threshold(plan.source, plan.weights_sha256, None, None, "heads-b", plan.recipe, tiny.Watch())
        == 0.25
    )
    assert shipped(folder, "0" * 64, "heads-b", 1e-3) is None
    assert shipped(folder, plan.weights_sha256, "heads-a", 1e-3) is None
