"""Identity encoders, perceptual distances, registry: golden vectors; weights that are missing or wrong."""

import json
import warnings

import eg3d_golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from real_nets import load_lpips, or_skip
from safetensors.torch import load_file, save_file
from torch import nn

from guide_hub.errors import InputError
from guide_hub.faces import registry, small
from guide_hub.faces.crops import to_tensor
from guide_hub.faces.identity import AlignedEncoder, FacenetEncoder, PspEncoder
from guide_hub.faces.networks import ir_101, ir_se50
from guide_hub.faces.perceptual import FeatureDistance, Lpips
from guide_hub.faces.registry import load_identity, load_inversion, load_perceptual
from guide_hub.networks import NetworkNames, weights_sha256


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "golden" / "guide_step" / "guide_step.safetensors")


@pytest.fixture(scope="module")
def seeded(shared):
    """Fills a network with the golden runs' weights."""

    def fill(network, seed, prefix):
        prelu = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.PReLU)}
        shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if v.is_floating_point()}
        weights = eg3d_golden.seeded(shared).seeded_network(shapes, seed, prefix, prelu)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
        return network.eval().requires_grad_(False)

    return fill


def lpips_module(net):
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """No weights anywhere, and no network."""
    for name in ("GUIDE_HUB_WEIGHTS", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(registry, "BUNDLE", tmp_path / "bundle")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("went to the network"))
    return tmp_path / "guide_hub_weights"


# ----------------------------------------------------------------------------
# Golden vectors


@pytest.mark.parametrize(("name", "seed"), [("irse50", 12), ("ir101", 13)], ids=["irse50", "ir101"])
def test_recognisers_give_the_reference_embeddings(shared, golden, seeded, name, seed):
    network = {"irse50": ir_se50, "ir101": ir_101}[name]()
    shapes = json.loads((shared / "golden" / "encoders" / f"{name}_shapes.json").read_text())
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == shapes
    seeded(
        network, seed, f"{name}."
    ).double()  # random weights blow up the rounding of a CPU's quickest kernels
    cosine = (network(golden["irse50.in"].double()) * golden[f"{name}.out"]).sum(1)
    assert cosine.min() > 0.9999
    if name == "irse50":  # with pSp's preprocessing in front
        found = PspEncoder(network)(golden["idfeat.img128"].double())
        assert (found * golden["idfeat.out"]).sum(1).min() > 0.9999


def test_lpips_gives_the_reference_distances(golden, seeded):
    module = lpips_module("vgg")
    seeded(module.net, 11, "lpips.net.")
    distance = Lpips(module)(golden["lpips.a"], golden["lpips.b"])
    torch.testing.assert_close(distance, golden["lpips.out"].flatten(), rtol=1e-5, atol=0)


def test_real_lpips_ranks_what_a_person_would():
    lpips = or_skip(load_lpips, "alex")
    picture = F.interpolate(
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 128, mode="bicubic"
    )
    picture = picture.clamp(0, 1) * 2 - 1
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))
    distance = Lpips(lpips)
    near, far = distance(picture, picture + 0.02 * noise), distance(picture, picture + 0.5 * noise)
    assert distance(picture, picture).item() == 0 < near.item() < 0.25 * far.item()
    torch.testing.assert_close(far, lpips(picture, picture + 0.5 * noise).flatten(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("net", "same", "other"), [("alex", 0.295, 0.456), ("vgg", 0.408, 0.589)])
def test_real_trunks_load_from_torchvisions_format(shared, no_weights, tmp_path, net, same, other):
    """Through the registry, LPIPS is the lpips package's; in photos a person is nearer to themselves."""
    lpips = or_skip(load_lpips, net)
    trunk = {f"features.{k.split('.', 1)[1]}": v for k, v in lpips.net.state_dict().items()}
    torch.save(trunk, tmp_path / "trunk.pth")
    ours = load_perceptual(f"lpips-{net}:{tmp_path / 'trunk.pth'}")
    folder = shared / "data" / "photos"
    person, again, stranger = (
        to_tensor(np.asarray(Image.open(folder / name).convert("RGB").resize((256, 256))))[None]
        for name in ("same_person/1.jpg", "same_person/2.jpg", "others/01.jpg")
    )
    kept = ours.features(person)
    distances = [ours.distance(kept, ours.features(photo)).item() for photo in (person, again, stranger)]
    assert distances[0] == 0
    assert distances[1] == pytest.approx(lpips(person, again).item(), rel=1e-5)
    assert distances[1:] == [pytest.approx(same, abs=0.01), pytest.approx(other, abs=0.01)]


# ----------------------------------------------------------------------------
# Distances


@pytest.mark.parametrize("net", ["alex", "heads"])
def test_features_of_one_side_can_be_kept(net):
    torch.manual_seed(0)
    d = Lpips(lpips_module(net)) if net == "alex" else FeatureDistance(small.HeadsInversion().eval())
    a, b = torch.rand(2, 2, 3, 128, 128) * 2 - 1
    kept = d.features(b)
    assert d(a, b).shape == (2,)
    assert torch.equal(d(a, b), d.distance(d.features(a), kept))
    assert (d(a, b) > 0).all()
    assert (d(a, a) == 0).all()


def test_vanishing_features_have_a_finite_gradient():
    """lpips 0.1.4 itself gives NaN where the squares under its root vanish."""
    torch.manual_seed(0)
    module = lpips_module("alex")
    for conv in module.net.modules():
        if isinstance(conv, nn.Conv2d):
            conv.weight.zero_()
            conv.bias.fill_(1e-25)
    a, b = torch.rand(1, 3, 64, 64, requires_grad=True), torch.rand(1, 3, 64, 64)
    module(a, b).sum().backward()
    assert a.grad.isnan().any()
    a.grad = None
    Lpips(module)(a, b).sum().backward()
    assert torch.isfinite(a.grad).all()


# ----------------------------------------------------------------------------
# Encoders


class Marker(nn.Module):
    """Stands for a recogniser: keeps what it was given."""

    def forward(self, x):
        self.seen = x
        return F.normalize(x.mean((2, 3)), dim=1)


def test_aligned_encoder_puts_landmarks_on_the_template():
    from guide_hub.faces.alignment import ARCFACE_TEMPLATE
    from guide_hub.faces.pose import frontal_points

    image, marker = torch.zeros(1, 3, 256, 256), Marker()
    points = frontal_points(256)
    for x, y in points.round().astype(int):
        image[0, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    encoder = AlignedEncoder(marker, detector=None)
    assert encoder(image, points[None]).shape == (1, 3)
    assert marker.seen.shape == (1, 3, 112, 112)
    for x, y in ARCFACE_TEMPLATE.round().astype(int):  # within 3 pixels: the mean face is not the template
        assert marker.seen[0, 0, y - 3 : y + 4, x - 3 : x + 4].max() > 0.2


def test_aligned_encoder_does_without_a_face():
    class Blind:
        def detect(self, image):
            return []

    image = torch.zeros(2, 3, 64, 64, requires_grad=True)
    AlignedEncoder(Marker(), Blind())(image + 0.5).sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [128, 512])
def test_facenet_sees_its_own_size_and_range(size):
    marker = Marker()
    FacenetEncoder(marker)(torch.full((1, 3, size, size), 3.0))
    assert marker.seen.shape == (1, 3, 160, 160)
    assert marker.seen.max() <= 1


@pytest.mark.parametrize("cls", [small.HeadsEncoderA, small.HeadsEncoderB])
def test_small_encoders_are_compact_and_judge_each_picture_alone(cls):
    torch.manual_seed(0)
    network = cls().eval()
    assert 300_000 < small.parameter_count(network) < 600_000
    images = torch.rand(3, 3, 128, 128) * 2 - 1
    together = network(images)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together[:1], network(images[:1]), rtol=0, atol=1e-5)


# ----------------------------------------------------------------------------
# Registry


def store_bundle(folder):
    """Random networks as the bundle stores its own: halves, without batch counters."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    networks = {}
    for file, cls in [
        ("encoder_a", small.HeadsEncoderA),
        ("encoder_b", small.HeadsEncoderB),
        ("inversion", small.HeadsInversion),
    ]:
        networks[file] = cls().eval()
        state = {k: v.half() for k, v in networks[file].state_dict().items() if "num_batches" not in k}
        save_file(state, folder / f"{file}.safetensors", metadata={"format": "pt"})
    return networks


def test_bundled_networks_load_frozen(no_weights):
    stored = store_bundle(registry.BUNDLE)
    images = (torch.rand(2, 3, 128, 128) * 2 - 1).requires_grad_()
    before = torch.get_rng_state()
    loaded = {
        "encoder_a": load_identity("heads-a"),
        "encoder_b": load_identity("heads-b", torch.device("cpu")),
        "features": load_perceptual("heads-features"),
        "inversion": load_inversion("heads-inversion"),
    }
    assert torch.equal(torch.get_rng_state(), before)
    for network in loaded.values():
        assert not network.training
        assert not any(p.requires_grad or p.is_meta for p in network.parameters())
    for name in ("encoder_a", "encoder_b"):
        torch.testing.assert_close(loaded[name](images), stored[name](images), atol=5e-3, rtol=0)
    loaded["encoder_a"](images).sum().backward()
    assert images.grad.abs().sum() > 0
    z, pose = loaded["inversion"](images)
    assert (z.shape, pose.shape) == ((2, 64), (2, 3))


LOADERS = {"identity": load_identity, "perceptual": load_perceptual, "inversion": load_inversion}


@pytest.mark.parametrize(
    "name", ["vggface2", "casia-webface", "irse50", "curricularface", "goae", "heads-a", "lpips-vgg"]
)
def test_missing_weights_say_where_they_come_from_and_go(no_weights, name):
    load = LOADERS[registry.NETWORKS[name].kind]
    with pytest.raises(InputError) as caught:
        load(name)
    text = str(caught.value)
    assert registry.weights_of(name).file in text
    assert registry.weights_of(name).hash_prefix in text
    assert (str(no_weights) in text) == (
        name != "heads-a"
    )  # the package's own file is not to be put anywhere
    assert not no_weights.exists()


def test_bundled_files_are_replaced_only_on_purpose(no_weights, monkeypatch):
    weights = registry.weights_of("heads-b")
    cache = registry.torch_home() / "guide_hub"
    for folder in (registry.BUNDLE, cache, no_weights):
        folder.mkdir(parents=True)
        (folder / weights.file).touch()
    assert registry.weights_file("heads-b") == no_weights / weights.file
    monkeypatch.delenv("GUIDE_HUB_WEIGHTS")
    assert registry.weights_file("heads-b") == registry.BUNDLE / weights.file
    assert registry.weights_file(f"heads-b:{cache / weights.file}") == cache / weights.file


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match="known: vggface2, casia-webface, irse50"):
        load_identity("lpips-vgg")
    with pytest.raises(InputError, match="lpips-vgg"):
        load_perceptual("lpips-resnet")


def test_torch_home_is_where_other_projects_keep_their_weights(no_weights, tmp_path, monkeypatch):
    """Found where torch.hub and facenet-pytorch would put them; GUIDE_HUB_WEIGHTS comes first."""
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("TORCH_HOME", str(home))
    places = {"lpips-alex": "hub/checkpoints", "vggface2": "checkpoints", "irse50": "guide_hub"}
    for name, place in places.items():
        file = home / place / registry.weights_of(name).file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert registry.weights_file(name) == file
        no_weights.mkdir(exist_ok=True)
        (no_weights / file.name).touch()
        assert registry.weights_file(name) == no_weights / file.name


def test_trunks_are_torchvisions():
    import torchvision.models

    published = {
        "lpips-vgg": torchvision.models.VGG16_Weights,
        "lpips-alex": torchvision.models.AlexNet_Weights,
        "lpips-squeeze": torchvision.models.SqueezeNet1_1_Weights,
    }
    for name, weights in published.items():
        assert registry.weights_of(name).url == weights.IMAGENET1K_V1.url


def test_the_contents_of_weight_files_count(no_weights):
    store_bundle(registry.BUNDLE)
    chosen = NetworkNames("heads-a", "heads-b", "heads-features", None)
    first = weights_sha256(chosen)
    assert list(first) == ["identity_loss", "identity_judge", "perceptual"]
    save_file(small.HeadsEncoderB().state_dict(), registry.BUNDLE / "encoder_b.safetensors")
    changed = {key for key, value in weights_sha256(chosen).items() if value != first[key]}
    assert changed == {"identity_judge"}


def test_weights_in_the_own_folder_are_found(no_weights, caplog):
    network = ir_se50()
    no_weights.mkdir()
    torch.save(network.state_dict(), no_weights / "model_ir_se50.pth")
    images = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        expected = PspEncoder(network.eval())(images)
    torch.testing.assert_close(load_identity("irse50")(images), expected)
    assert "is not the published file of irse50, whose SHA-256 is a035c7" in caplog.text  # told, not refused


def test_lpips_takes_torchvisions_file(no_weights, tmp_path):
    torch.manual_seed(0)
    module = lpips_module("squeeze")
    trunk = {f"features.{k.split('.', 1)[1]}": v for k, v in module.net.state_dict().items()}
    torch.save(trunk | {"classifier.1.bias": torch.zeros(1000)}, tmp_path / "trunk.pth")
    a, b = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    ours = load_perceptual(f"lpips-squeeze:{tmp_path / 'trunk.pth'}")
    torch.testing.assert_close(ours(a, b), module(a, b).flatten(), rtol=1e-4, atol=0)
    assert not any(t.is_meta for t in [*ours.parameters(), *ours.buffers()])


def test_facenet_takes_its_own_file(no_weights, tmp_path):
    from facenet_pytorch import InceptionResnetV1

    torch.manual_seed(0)
    network = InceptionResnetV1().eval()
    torch.save(network.state_dict() | {"logits.bias": torch.zeros(3)}, tmp_path / "facenet.pt")
    images = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        expected = FacenetEncoder(network)(images)
    torch.testing.assert_close(load_identity(f"vggface2:{tmp_path / 'facenet.pt'}")(images), expected)


def test_published_weights_are_fetched_once(no_weights, monkeypatch, capfd):
    from facenet_pytorch import InceptionResnetV1

    calls = []

    def fetch(url, target, *args, **kwargs):
        calls.append(url)
        torch.save(InceptionResnetV1().state_dict(), target)

    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match="could not be fetched: no route to host"):
        load_identity("casia-webface")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    load_identity("casia-webface")
    load_identity("casia-webface")
    assert calls == [registry.FACENET + registry.weights_of("casia-webface").file]
    assert capfd.readouterr() == ("", "")


def test_wrong_weights_are_refused(no_weights, tmp_path):
    no_weights.mkdir()
    with pytest.raises(InputError, match="not there"):
        load_identity(f"irse50:{tmp_path / 'nothing.pth'}")
    torch.save({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)}, no_weights / "model_ir_se50.pth")
    with pytest.raises(InputError, match="does not hold the weights of irse50"):
        load_identity("irse50")
    (no_weights / "model_ir_se50.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable weight file"):
        load_identity("irse50")
    torch.save(nn.Linear(1, 1), no_weights / "model_ir_se50.pth")  # a pickled object, not tensors
    with pytest.raises(InputError, match="not a readable weight file"):
        load_identity("irse50")
    trunk = registry.weights_of("lpips-squeeze")
    torch.save({}, no_weights / trunk.file)
    with pytest.raises(InputError, match=f"begins with {trunk.hash_prefix}"):
        load_perceptual("lpips-squeeze")
