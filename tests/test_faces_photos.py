"""From a photo to a crop and a camera: detection, EG3D framing, pose, on real photos and made landmarks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from real_nets import load_dlib, or_skip

from guide_hub.eg3d.camera import lookat_cam2world
from guide_hub.errors import InputError
from guide_hub.faces import detection, quality
from guide_hub.faces.alignment import (
    ARCFACE_TEMPLATE,
    STANDARD_POINTS,
    eg3d_crop,
    fit_pos,
    similarity,
    similarity_warp,
)
from guide_hub.faces.detection import Detector
from guide_hub.faces.pose import (
    FOCAL,
    PRIOR_MEAN,
    RADIUS,
    WORLD_POINTS,
    fit_camera,
    frontal_points,
    look_at_origin,
)
from guide_hub.request import Identity, Photo

OPENCV = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def detector():
    return Detector()


@pytest.fixture(scope="module")
def photos(shared):
    folder = shared / "data" / "photos"
    if not folder.is_dir():
        pytest.skip("no test photos here")
    return folder


@pytest.fixture(scope="module")
def labelled(photos, detector):
    """(picture, face, label's cam2world) of the photos that carry EG3D labels."""
    labels = json.loads((photos / "labels.json").read_text())
    rows = []
    for name, label in labels.items():
        picture = Image.open(photos / name)
        cam2world = np.array(label["camera25"][:16]).reshape(4, 4)
        rows.append((picture, detector.one_face(picture), cam2world))
    return rows


def open_photo(photos, name):
    return Image.open(photos / name).convert("RGB")


def beside(*pictures):
    """The pictures in one row on grey."""
    row = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), (128, 128, 128))
    x = 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width
    return row


def degrees_between(a, b):
    return math.degrees(math.acos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1)))


def refusal(detector, picture, *args, **options):
    with pytest.raises(InputError) as caught:
        detector.one_face(picture, *args, **options)
    (problem,) = caught.value.problems
    return problem


# ----------------------------------------------------------------------------
# Detection


def test_every_labelled_photo_has_one_sure_face(labelled, detector, capfd):
    assert len(labelled) == 11
    for _, face, _ in labelled:
        assert face.probability > 0.98
        left_eye, right_eye, nose, mouth_left, mouth_right = face.points
        assert left_eye[0] < right_eye[0]
        assert mouth_left[0] < mouth_right[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        assert face.contains(*nose)
    again = Detector().one_face(labelled[0][0])
    assert np.array_equal(again.points, labelled[0][1].points)
    assert capfd.readouterr() == ("", "")


def test_large_photos_give_landmarks_in_their_own_pixels(labelled, detector):
    picture, face, _ = labelled[0]
    large = picture.resize((picture.width * 5, picture.height * 5), Image.Resampling.BICUBIC)
    assert np.abs(detector.one_face(large).points / 5 - face.points).max() < 12  # of 512: MTCNN's own spread


@pytest.mark.parametrize("size", [(1, 1), (12, 300), (300, 300)])
def test_a_picture_without_a_face_is_refused(detector, size):
    problem = refusal(detector, Image.new("RGB", size, (200, 180, 160)))
    assert problem.message == "shows no face"
    assert problem.remedy


def test_several_faces_need_a_hint(photos, detector):
    one, two = (open_photo(photos, f"others/0{i}.jpg") for i in (1, 2))
    both = beside(one, two)
    problem = refusal(detector, both)
    assert problem.message == "shows 2 faces"
    assert "face: [x, y]" in problem.remedy
    x, y = detector.one_face(two).points.mean(0)
    centre = (one.width + x, y)
    chosen = detector.one_face(both, centre)
    assert chosen.contains(*centre)
    assert chosen.box[0] > one.width
    assert "at the pixel" in refusal(detector, both, (2.0, 2.0)).message


def test_a_bystander_does_not_count(photos, detector):
    one, two = (open_photo(photos, f"others/0{i}.jpg") for i in (1, 2))
    both = beside(one, two.resize((two.width // 4, two.height // 4)))
    assert len(detector.detect(both)) == 2
    assert detector.one_face(both).box[2] < one.width


def test_small_and_uncertain_faces_are_refused(photos, detector, monkeypatch):
    picture = open_photo(photos, "others/01.jpg")
    small = picture.resize((80, 80))
    assert "pixels (at least 64)" in refusal(detector, small).message
    assert detector.find(small).size < 64
    monkeypatch.setattr(detection, "MIN_PROBABILITY", 1.1)
    assert "uncertain" in refusal(detector, picture).message


def test_faces_that_are_not_upright_or_whole_are_refused(photos, detector):
    picture = open_photo(photos, "same_person/1.jpg")
    assert "stands on its head" in refusal(detector, picture.rotate(180)).message
    for turn in (90, 270):
        assert "lies on its side" in refusal(detector, picture.rotate(turn)).message
    cut = refusal(detector, open_photo(photos, "face_03.jpg").crop((0, 0, 512, 300)))
    assert "edge cuts off" in cut.message


def test_every_real_photo_is_good_enough(photos, detector):
    """And none is once it is blurred by 6 of the crop's 512 pixels, moved over 25, or enlarged from 24."""
    files = [*photos.glob("*.jpg"), *photos.glob("*/*.jpg")]
    assert len(files) == 34
    for i, file in enumerate(sorted(files)):
        picture = Image.open(file).convert("RGB")
        points = detector.one_face(picture).points
        assert quality.faults(fit_camera(eg3d_crop(picture, points, 512).points, 512), 1) == []
        assert quality.sharpness(picture, points) > 1.3 * quality.MIN_SHARPNESS
        frame = 512 * np.ptp(points[:, 1]) / np.ptp(eg3d_crop(picture, points, 512).points[:, 1])
        blurs = (gaussian, moved, enlarged)
        bad = blurs[i % 3](picture, float(frame) / 512)
        assert quality.sharpness(bad, points) < quality.MIN_SHARPNESS


def gaussian(picture, pixel):
    return picture.filter(ImageFilter.GaussianBlur(6 * pixel))


def moved(picture, pixel):
    width = round(25 * pixel)
    sums = np.cumsum(np.asarray(picture, np.float64), axis=1)
    return Image.fromarray(((sums[:, width:] - sums[:, :-width]) / width).astype(np.uint8))


def enlarged(picture, pixel):
    size = (round(picture.width / pixel / 11), round(picture.height / pixel / 11))
    return picture.resize(size, Image.Resampling.LANCZOS).resize(picture.size, Image.Resampling.BICUBIC)


# ----------------------------------------------------------------------------
# Crop


def test_crops_of_framed_photos_keep_their_frame(labelled):
    """The labelled photos were cropped with this very rule, from other landmarks."""
    for picture, face, _ in labelled:
        crop = eg3d_crop(picture, face.points)
        assert crop.image.size == (512, 512)
        was = face.points * 512 / picture.width
        assert np.abs(crop.points.mean(0) - was.mean(0)).max() < 12
        assert np.ptp(crop.points[:, 1]) == pytest.approx(np.ptp(was[:, 1]), rel=0.06)


def made_landmarks(scale=60.0, centre=(150.0, 140.0), height=300, yaw=0.0):
    """STANDARD_POINTS in scaled orthography, turned to the side."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    turned = STANDARD_POINTS @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T
    x, y = scale * turned[:, 0] + centre[0], scale * turned[:, 1] + (height - centre[1])
    return np.stack([x, height - 1 - y], axis=1)


def test_crop_has_eg3d_scale_and_centre():
    crop = eg3d_crop(Image.new("RGB", (300, 300), (90, 90, 90)), made_landmarks(), size=700)
    assert np.linalg.norm(crop.points[0] - crop.points[1]) == pytest.approx(0.6213 * 300, rel=1e-3)
    unit = 700 / (60 * 700 / 300)
    assert np.allclose(crop.points - 350, (made_landmarks() - [150, 140]) * unit, atol=1e-6)
    np.testing.assert_allclose(crop.pose_pos, np.eye(3), atol=1e-9)


def test_pos_finds_the_turn():
    turn = fit_pos(np.stack([(p := made_landmarks(yaw=0.4))[:, 0], 299 - p[:, 1]], axis=1)).rotation
    assert degrees_between(turn, np.eye(3)) == pytest.approx(math.degrees(0.4), abs=1e-6)
    assert turn[0, 2] > 0


@pytest.mark.parametrize(
    ("padding", "ground", "expected"),
    [("white", 40, 255), ("edge", 40, 40), ("auto", 255, 255), ("auto", 40, 90), ("reflect", 40, 90)],
)
def test_beyond_the_photo(padding, ground, expected):
    """A frame of 20 pixels of `ground` around 90; the crop reaches 26 pixels past the left edge."""
    pixels = np.full((300, 300, 3), 90, np.uint8)
    pixels[:20] = pixels[-20:] = ground
    pixels[:, :20] = pixels[:, -20:] = ground
    points = made_landmarks(centre=(20.0, 150.0), scale=40.0)
    crop = eg3d_crop(Image.fromarray(pixels), points, size=140, padding=padding)
    assert abs(int(np.asarray(crop.image)[70, 2, 0]) - expected) < 3


def test_landmarks_that_make_no_face_are_refused():
    grey = Image.new("RGB", (100, 100))
    for points in (np.full((5, 2), 50.0), made_landmarks(scale=500.0), made_landmarks(centre=(9000.0, 50.0))):
        with pytest.raises(InputError, match="shows a face"):
            eg3d_crop(grey, points)


def test_similarity_warp_moves_points_as_opencv_does():
    angle, scale = 0.3, 1.7
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    source = (ARCFACE_TEMPLATE - 50) @ turn.T + [120, 110]
    forward = similarity(source, ARCFACE_TEMPLATE)
    np.testing.assert_allclose(source @ forward[:, :2].T + forward[:, 2], ARCFACE_TEMPLATE, atol=1e-9)
    y, x = torch.meshgrid(torch.arange(240.0), torch.arange(240.0), indexing="ij")
    warped = similarity_warp(
        torch.stack([x, y, x + y]), source, ARCFACE_TEMPLATE, 112
    )  # pixels hold their place
    where = (np.array([[30.0, 40.0], [70.0, 60.0]]) - 50) @ turn.T + [120, 110]
    np.testing.assert_allclose(warped[:2, 40, 30], where[0], atol=1e-3)
    np.testing.assert_allclose(warped[:2, 60, 70], where[1], atol=1e-3)
    averaged = similarity_warp(torch.stack([x, y, x + y]), source, ARCFACE_TEMPLATE, 112, samples=2)
    np.testing.assert_allclose(averaged[:2, 40, 30], where[0], atol=1e-2)


# ----------------------------------------------------------------------------
# Pose


def landmarks_from(yaw, pitch, roll, size=512, distance=2.6):
    seen = WORLD_POINTS @ look_at_origin(yaw, pitch, roll) + np.array([0, 0, distance])
    return size * (FOCAL * seen[:, :2] / seen[:, 2:] + 0.5)


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize("yaw", [-0.6, -0.2, 0.0, 0.35])
def test_known_cameras_are_found_again(yaw, size):
    pose = fit_camera(landmarks_from(yaw, 0.1, -0.08, size), size)
    assert (
        degrees_between(pose.cam2world[:3, :3], look_at_origin(yaw, 0.1, -0.08)) < 2.5
    )  # priors pull a little
    assert pose.yaw == pytest.approx(yaw, abs=0.04)
    assert pose.residual < 2.5 * size / 512


def test_pose_speaks_eg3ds_language():
    pose = fit_camera(landmarks_from(0.0, PRIOR_MEAN[1], 0.0), 512)
    assert pose.residual < 1e-4
    v = math.pi / 2 * (1 - math.sin(PRIOR_MEAN[1]))  # look-at's polar parameter of that height
    np.testing.assert_allclose(pose.cam2world, lookat_cam2world(math.pi / 2, v)[0], atol=1e-4)
    aside = fit_camera(landmarks_from(0.5, 0.05, 0.0), 512).cam2world
    assert np.linalg.norm(aside[:3, 3]) == pytest.approx(RADIUS)
    assert np.linalg.det(aside[:3, :3]) == pytest.approx(1)
    assert aside[0, 3] > 1
    assert np.ptp(frontal_points(512)[:2, 1]) < 2


def test_pose_of_labelled_photos(labelled):
    """Five landmarks against EG3D's labels: the fit beats the closed form, and that beats no turn at all."""
    errors = []
    for picture, face, label in labelled:
        crop = eg3d_crop(picture, face.points)
        fitted = fit_camera(crop.points, 512).cam2world[:3, :3]
        guesses = (fitted, crop.pose_pos.T @ OPENCV, OPENCV)
        errors.append([degrees_between(guess, label[:3, :3]) for guess in guesses])
    fit, closed_form, frontal = np.median(errors, axis=0)
    assert fit <= 3.8
    assert fit < closed_form < frontal
    assert np.max(errors, axis=0)[0] < 9


# ----------------------------------------------------------------------------
# A real recogniser on the crops' landmarks


def test_a_real_recogniser_tells_people_apart(photos, detector):
    dlib = or_skip(load_dlib)

    def embed(name):
        picture = open_photo(photos, name)
        return dlib.embed(picture, detector.one_face(picture).points)

    same = torch.stack([embed(f"same_person/{i}.jpg") for i in (1, 2, 3)])
    others = torch.stack([embed(f"others/{p.name}") for p in sorted((photos / "others").iterdir())[:6]])
    assert torch.pdist(same).max() < 0.6 < torch.cdist(same, others[:4]).min()

    same, others = (torch.nn.functional.normalize(e, dim=1) for e in (same, others))
    threshold = 0.9344  # a thousandth of the pairs of strangers among these photos

    def found(*people):
        request = [made_identity(i, len(person)) for i, person in enumerate(people)]
        return [p.message for p in quality.check_people(request, people, threshold)]

    assert found(same) == []
    assert found(same, *others.split(1)) == []
    for k in range(6):  # somebody else's photo in the middle
        (message,) = found(torch.cat([same[:2], others[k : k + 1], same[2:]]))
        assert message.startswith("identities[0].images[2] shows another person than 3 others")
    (message,) = found(same[:2], others[:1], same[2:])
    assert message.startswith("identities[2].images[0] shows the person of p0")


# ----------------------------------------------------------------------------
# People


def made_identity(i, photos):
    images = [
        Photo(f"identities[{i}].images[{k}]", Path(), "", (9, 9), None, "r.yaml", i + 1, k + 1)
        for k in range(photos)
    ]
    return Identity(f"p{i}", tuple(images), f"identities[{i}]")


def at_degrees(*angles):
    turns = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    return torch.stack([turns.cos(), turns.sin()], dim=1)


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([[0, 10, 20]], []),
        ([[0]], []),
        ([[0], [90]], []),
        ([[0, 30, 60]], []),  # linked by the photo between them
        ([[0, 54]], []),  # 0.59: within the doubt below 0.6
        ([[0, 90]],
         ["r.yaml:1:2: identities[0].images[1] shows another person than identities[0].images[0] "]),
        ([[90, 0, 5]], ["r.yaml:1:1: identities[0].images[0] shows another person than 2 others"]),
        ([[0, 5, 90, 95]], ["r.yaml:1:3: identities[0].images[2] shows another person than 2 others",
                            "r.yaml:1:4: identities[0].images[3] shows another person than 2 others"]),
        ([[0, 5, 90], [88, 92]],
         ["r.yaml:1:3: identities[0].images[2] shows another person than 2 others of this identity, "
          "somebody like p1 (cosine 0.09, at least 0.50)"]),
        ([[0, 5], [100], [10]], ["r.yaml:3:1: identities[2].images[0] shows the person of p0 ("]),
        ([[0], [50]], []),  # 0.64: within the doubt above 0.6
        ([[0], [90], [1], [91]], ["r.yaml:3:1: identities[2].images[0] shows the person of p0",
                                  "r.yaml:4:1: identities[3].images[0] shows the person of p1"]),
    ],
)  # fmt: skip
def test_who_is_put_together(people, expected):
    request = [made_identity(i, len(angles)) for i, angles in enumerate(people)]
    found = quality.check_people(request, [at_degrees(*angles) for angles in people], 0.6)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert str(problem).startswith(start)
        assert problem.remedy
