"""Networks by name: where their weights are found, what to do where they are not, and the frozen network.

A weight file is looked for in `GUIDE_HUB_WEIGHTS`, then in `TORCH_HOME/guide_hub` (default
`~/.cache/torch/guide_hub`), then where its own project keeps it. The package's own files are taken from the
package, unless `GUIDE_HUB_WEIGHTS` holds others. Weights with an address are fetched at their first use,
unless `HF_HUB_OFFLINE` is set, and must be the published ones; of weights that a person has to find, there
may be other copies, so that a hash that differs is only told. Pickled checkpoints are read as tensors only.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from guide_hub.digest import file_sha256
from guide_hub.errors import InputError
from guide_hub.faces.features import FeatureExtractor, InceptionFeatures, PooledFeatures
from guide_hub.faces.identity import AlignedEncoder, FacenetEncoder, IdentityEncoder, PspEncoder
from guide_hub.faces.inversion import InversionEncoder
from guide_hub.faces.perceptual import FeatureDistance, Lpips, PerceptualDistance

BUNDLE = Path(__file__).resolve().parents[1] / "builtin" / "synthetic_heads"
FACENET = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
TORCHVISION = "https://download.pytorch.org/models/"
TORCH_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A weight file. `home`: the folder where its own project keeps it; `hash_prefix`: its SHA-256 or how
    that begins, where it is known; `bundled`: it belongs to the package."""

    file: str
    source: str
    url: str | None = None
    home: Path | None = None
    hash_prefix: str = ""
    bundled: bool = False

    def find(self) -> Path | None:
        """Where the file is on this machine."""
        own = given_folders() if self.bundled else own_folders()
        folders = [*own, *([self.home] if self.home else [])]
        return next((folder / self.file for folder in folders if (folder / self.file).is_file()), None)

    def fits(self, path: Path) -> bool | None:
        """Whether `path` is the published file; None where that is not known."""
        return file_sha256(path).startswith(self.hash_prefix) if self.hash_prefix else None

    @property
    def target(self) -> Path:
        """Where a file that is fetched is kept."""
        return (self.home or own_folders()[-1]) / self.file

    @property
    def remedy(self) -> str:
        """Where a missing file is found, where it goes, and its SHA-256."""
        remedy = self.source
        if not self.bundled:
            remedy += f"; put the file {self.file} into {own_folders()[0]}"
        return f"{remedy}; its SHA-256 {self.hash_text}" if self.hash_prefix else remedy

    @property
    def hash_text(self) -> str:
        """What is known of the hash, in words."""
        return ("is " if len(self.hash_prefix) == 64 else "begins with ") + self.hash_prefix


@dataclass(frozen=True)
class Entry:
    """A network: what it is for (`identity`, `perceptual`, `inversion`, `features`), and how it is built."""

    kind: str
    weights: Callable[[], Weights]
    build: Callable[[dict[str, Tensor], torch.device], nn.Module]


# ----------------------------------------------------------------------------
# Public


def load_identity(name: str, device: torch.device | str = "cpu") -> IdentityEncoder:
    """A frozen identity encoder: vggface2, casia-webface, irse50, curricularface, heads-a or heads-b.

    `name` may carry a file: `irse50:/path/to/model_ir_se50.pth`. InputError for a name that is not known,
    weights that are not there (with their source and where to put them) or do not fit.
    """
    return cast(IdentityEncoder, _load(name, "identity", torch.device(device)))


def load_perceptual(name: str, device: torch.device | str = "cpu") -> PerceptualDistance:
    """A frozen perceptual distance: lpips-vgg, lpips-alex, lpips-squeeze or heads-features."""
    network = _load(name, "perceptual", torch.device(device))
    return cast(PerceptualDistance, network.to(memory_format=torch.channels_last))  # a tenth quicker


def load_inversion(name: str, device: torch.device | str = "cpu") -> InversionEncoder:
    """A frozen inversion encoder: goae or heads-inversion."""
    return cast(InversionEncoder, _load(name, "inversion", torch.device(device)))


def load_features(name: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """A frozen feature extractor for Frechet and kernel distances: inception (FID's) or heads-pooled."""
    return cast(FeatureExtractor, _load(name, "features", torch.device(device)))


def names(kind: str | None = None) -> list[str]:
    """Known names, of one kind (`identity`, `perceptual`, `inversion`, `features`) or all."""
    return [name for name, entry in NETWORKS.items() if kind in (None, entry.kind)]


def check_name(name: str, kind: str) -> None:
    """InputError where NAME or NAME:PATH is no network of that kind."""
    known = name.partition(":")[0]
    if known not in names(kind):
        raise InputError(f"there is no {kind} network {known!r}", remedy="known: " + ", ".join(names(kind)))


def weights_of(name: str) -> Weights:
    """The weight file that a network needs."""
    return NETWORKS[name].weights()


def weights_file(name: str) -> Path:
    """The file that a known network, given as NAME or NAME:PATH, is loaded from. InputError: not there."""
    name, _, given = name.partition(":")
    return _file(name, given, weights_of(name))


def own_folders() -> list[Path]:
    """Folders for weights that a person puts there, in the order of search."""
    return [*given_folders(), torch_home() / "guide_hub"]


def given_folders() -> list[Path]:
    """The folder of GUIDE_HUB_WEIGHTS, if it is set."""
    given = os.environ.get("GUIDE_HUB_WEIGHTS")
    return [Path(given).expanduser()] if given else []


def torch_home() -> Path:
    """torch's cache: TORCH_HOME, else XDG_CACHE_HOME/torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()


# ----------------------------------------------------------------------------
# Loading


def _load(name: str, kind: str, device: torch.device) -> nn.Module:
    check_name(name, kind)
    name, _, given = name.partition(":")
    entry = NETWORKS[name]
    weights = entry.weights()
    path = _file(name, given, weights)
    if not given and weights.fits(path) is False:
        other = f"{path} is not the published file of {name}, whose SHA-256 {weights.hash_text}"
        if weights.url:
            raise InputError(other, remedy=f"delete it, or name it as {name}:PATH; {weights.source}")
        log.warning(other)
    state = _read(path)
    try:
        network = entry.build(state, device)
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not hold the weights of {name}: {reason}", remedy=weights.source
        ) from None
    return network.to(device).eval().requires_grad_(False)


def _file(name: str, given: str, weights: Weights) -> Path:
    if not given:
        return weights.find() or _fetch(name, weights)
    path = Path(given).expanduser()
    if not path.is_file():
        raise InputError(f"the weights given for {name} are not there: {given}", remedy=weights.source)
    return path


def _fetch(name: str, weights: Weights) -> Path:
    remedy, target = weights.remedy, weights.target
    if weights.url is None:
        raise InputError(f"{name} needs weights that are not here", remedy=remedy)
    if offline():
        raise InputError(f"{name} needs weights that are not here, and HF_HUB_OFFLINE is set", remedy=remedy)
    log.info("fetching %s for %s", weights.file, name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(target), weights.hash_prefix or None, progress=False)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{name} needs weights that could not be fetched: {error}", remedy=remedy) from None
    return target


def offline() -> bool:
    """HF_HUB_OFFLINE as huggingface_hub reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict, floats as float32 (the bundle stores halves)."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a readable weight file: {type(error).__name__}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} does not hold a state dict")
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _filled(build: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """The network with exactly these weights; building it draws no random numbers."""
    with torch.device("meta"):
        network = build()
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in state:
            state[name] = torch.zeros_like(value, device="cpu")
    network.load_state_dict(state, strict=True, assign=True)
    return network


# ----------------------------------------------------------------------------
# The networks


def _irse50(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    from guide_hub.faces.networks import ir_se50

    return PspEncoder(_filled(ir_se50, state))


def _curricularface(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    from guide_hub.faces.detection import Detector
    from guide_hub.faces.networks import ir_101

    return AlignedEncoder(_filled(ir_101, state), Detector(device))


def _facenet(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    from facenet_pytorch import InceptionResnetV1

    without_classes = {k: v for k, v in state.items() if not k.startswith("logits.")}
    return FacenetEncoder(_filled(InceptionResnetV1, without_classes))


def _lpips(net: str) -> Callable[[dict[str, Tensor], torch.device], nn.Module]:
    def build(state: dict[str, Tensor], device: torch.device) -> nn.Module:
        import lpips

        heads = torch.load(
            Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth",
            map_location="cpu",
            weights_only=True,
        )
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision in its old way
            module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        wanted = {}
        for name, value in module.state_dict().items():
            if name.startswith("net."):  # net.slice2.7.weight is torchvision's features.7.weight
                wanted[name] = state["features." + name.split(".", 2)[2]]
            elif name.startswith("lins."):  # the same modules as lin0, lin1 ...
                wanted[name] = heads[name.replace("lins.", "lin", 1)]
            else:
                wanted[name] = heads.get(name, value)
        module.load_state_dict(wanted, strict=True, assign=True)
        return Lpips(module)

    return build


def _heads(cls: str) -> Callable[[dict[str, Tensor], torch.device], nn.Module]:
    def build(state: dict[str, Tensor], device: torch.device) -> nn.Module:
        from guide_hub.faces import small

        return _filled(getattr(small, cls), state)

    return build


def _heads_features(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    return FeatureDistance(_heads("HeadsInversion")(state, device))


def _goae(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    from guide_hub.faces.goae import GoaeEncoder

    return _filled(GoaeEncoder, state)


def _heads_pooled(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    return PooledFeatures(_heads("HeadsInversion")(state, device))


def _inception(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    read = io.BytesIO()  # the library unpickles what it is given: tensors only, by now
    torch.save(state, read)
    read.seek(0)
    with torch.random.fork_rng(devices=[]):
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=read)
    return InceptionFeatures(network)


def _by_hand(file: str, source: str, sha256: str = "") -> Callable[[], Weights]:
    return lambda: Weights(file, source, hash_prefix=sha256)


def _facenet_weights(file: str, sha256: str = "") -> Callable[[], Weights]:
    url = FACENET + file
    source = f"facenet-pytorch publishes it at {url}"
    return lambda: Weights(file, source, url, torch_home() / "checkpoints", sha256)


def _trunk_weights(file: str) -> Callable[[], Weights]:
    """torchvision's file for ImageNet, whose name ends in how its SHA-256 begins."""
    url, prefix = TORCHVISION + file, file.removesuffix(".pth").rsplit("-", 1)[1]
    source = f"torchvision publishes it at {url}"
    return lambda: Weights(file, source, url, Path(torch.hub.get_dir()) / "checkpoints", prefix)


def _inception_weights(file: str) -> Callable[[], Weights]:
    """torch-fidelity's file, kept where the library keeps it; its name ends in how its SHA-256 begins."""
    url, prefix = TORCH_FIDELITY + file, file.removesuffix(".pth").rsplit("-", 1)[1]
    source = f"torch-fidelity publishes it at {url}"
    return lambda: Weights(file, source, url, Path(torch.hub.get_dir()) / "checkpoints", prefix)


def _bundled(file: str) -> Callable[[], Weights]:
    source = f"{file} belongs to the guide-hub package: install it again"
    return lambda: Weights(file, source, home=BUNDLE, bundled=True)


NETWORKS: dict[str, Entry] = {
    "vggface2": Entry(
        "identity",
        _facenet_weights(
            "20180402-114759-vggface2.pt",
            # the file's page at huggingface.co/py-feat/facenet, and several projects that pin the release's
            "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        ),
        _facenet,
    ),
    "casia-webface": Entry("identity", _facenet_weights("20180408-102900-casia-webface.pt"), _facenet),
    "irse50": Entry(
        "identity",
        _by_hand(
            "model_ir_se50.pth",
            "GUIDE's and pSp's READMEs link it, InsightFace_Pytorch's IR-SE50; facexlib's release v0.1.0 has "
            "the same file as recognition_arcface_ir_se50.pth",
            # its pages at huggingface.co/lithiumice/ArcFace_PyTorch and /spaces/adirik/stylemc-demo
            "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
        ),
        _irse50,
    ),
    "curricularface": Entry(
        "identity",
        _by_hand(
            "CurricularFace_Backbone.pth",
            "GUIDE's README links it, CurricularFace's IR-101",
            # its pages at huggingface.co/AIRI-Institute/StyleFeatureEditor and, of HyperStyle's copy,
            # /spaces/ethanNeuralImage/inversion_testing
            "031ea0f7ba5f46905980cc446f0bbf9539e361246bff95f7077efffe2f110e04",
        ),
        _curricularface,
    ),
    "heads-a": Entry("identity", _bundled("encoder_a.safetensors"), _heads("HeadsEncoderA")),
    "heads-b": Entry("identity", _bundled("encoder_b.safetensors"), _heads("HeadsEncoderB")),
    "lpips-vgg": Entry("perceptual", _trunk_weights("vgg16-397923af.pth"), _lpips("vgg")),
    "lpips-alex": Entry("perceptual", _trunk_weights("alexnet-owt-7be5be79.pth"), _lpips("alex")),
    "lpips-squeeze": Entry("perceptual", _trunk_weights("squeezenet1_1-b8a52dc0.pth"), _lpips("squeeze")),
    "heads-features": Entry("perceptual", _bundled("inversion.safetensors"), _heads_features),
    "goae": Entry(
        "inversion",
        _by_hand(
            "encoder_FFHQ.pt", "GUIDE's and GOAE's READMEs link it, GOAE's encoder for EG3D's FFHQ model"
        ),
        _goae,
    ),
    "heads-inversion": Entry("inversion", _bundled("inversion.safetensors"), _heads("HeadsInversion")),
    "inception": Entry(
        "features", _inception_weights("weights-inception-2015-12-05-6726825d.pth"), _inception
    ),
    "heads-pooled": Entry("features", _bundled("inversion.safetensors"), _heads_pooled),
}
