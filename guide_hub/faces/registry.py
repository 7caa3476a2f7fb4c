"""Networks by name: where their weights are found, what to do where they are not, and the frozen network.

A weight file is looked for in `GUIDE_HUB_WEIGHTS`, then in `TORCH_HOME/guide_hub` (default
`~/.cache/torch/guide_hub`), then where its own project keeps it. The package's own files are taken from the
package, unless `GUIDE_HUB_WEIGHTS` holds others. Weights with an address are fetched at their first use,
unless `HF_HUB_OFFLINE` is set. Pickled checkpoints are read as tensors only.
"""

from __future__ import annotations

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
from guide_hub.faces.identity import AlignedEncoder, FacenetEncoder, IdentityEncoder, PspEncoder
from guide_hub.faces.perceptual import FeatureDistance, Lpips, PerceptualDistance
from guide_hub.faces.small import HeadsInversion

BUNDLE = Path(__file__).resolve().parents[1] / "builtin" / "synthetic_heads"
FACENET = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
LPIPS_TRUNKS = {
    "lpips-vgg": "VGG16_Weights",
    "lpips-alex": "AlexNet_Weights",
    "lpips-squeeze": "SqueezeNet1_1_Weights",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A weight file. `home`: the folder where its own project keeps it; `hash_prefix`: how its SHA-256
    begins; `bundled`: it belongs to the package."""

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


@dataclass(frozen=True)
class Entry:
    """A network: what it is for (`identity`, `perceptual`, `inversion`) and how it is put together."""

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
    return cast(PerceptualDistance, _load(name, "perceptual", torch.device(device)))


def load_inversion(name: str, device: torch.device | str = "cpu") -> HeadsInversion:
    """A frozen inversion encoder (`heads-inversion`)."""
    return cast(HeadsInversion, _load(name, "inversion", torch.device(device)))


def names(kind: str | None = None) -> list[str]:
    """Known names, of one kind (`identity`, `perceptual`, `inversion`) or all."""
    return [name for name, entry in NETWORKS.items() if kind in (None, entry.kind)]


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
    name, _, given = name.partition(":")
    entry = NETWORKS.get(name)
    if entry is None or entry.kind != kind:
        raise InputError(f"there is no {kind} network {name!r}", remedy="known: " + ", ".join(names(kind)))
    weights = entry.weights()
    path = _file(name, given, weights)
    if not given and weights.hash_prefix and not file_sha256(path).startswith(weights.hash_prefix):
        raise InputError(
            f"{path} is not the published file of {name} (its SHA-256 begins with {weights.hash_prefix})",
            remedy=f"delete it; {weights.source}",
        )
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
    folders = own_folders()
    remedy = weights.source
    if not weights.bundled:
        remedy += f"; put the file {weights.file} into {folders[0]}"
    if weights.hash_prefix:
        remedy += f"; its SHA-256 begins with {weights.hash_prefix}"
    if weights.url is None:
        raise InputError(f"{name} needs weights that are not here", remedy=remedy)
    if offline():
        raise InputError(f"{name} needs weights that are not here, and HF_HUB_OFFLINE is set", remedy=remedy)
    target = (weights.home or folders[-1]) / weights.file
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


def _by_hand(file: str, source: str) -> Callable[[], Weights]:
    return lambda: Weights(file, source)


def _facenet_weights(file: str) -> Callable[[], Weights]:
    return lambda: Weights(
        file, "facenet-pytorch's release v2.2.9 has it", FACENET + file, torch_home() / "checkpoints"
    )


def _trunk_weights(name: str) -> Callable[[], Weights]:
    def weights() -> Weights:
        import torchvision.models

        url = getattr(torchvision.models, LPIPS_TRUNKS[name]).IMAGENET1K_V1.url
        file = url.rsplit("/", 1)[1]
        prefix = file.removesuffix(".pth").rsplit("-", 1)[1]
        return Weights(
            file, f"torchvision publishes it at {url}", url, Path(torch.hub.get_dir()) / "checkpoints", prefix
        )

    return weights


def _bundled(file: str) -> Callable[[], Weights]:
    source = f"{file} belongs to the guide-hub package: install it again"
    return lambda: Weights(file, source, home=BUNDLE, bundled=True)


NETWORKS: dict[str, Entry] = {
    "vggface2": Entry("identity", _facenet_weights("20180402-114759-vggface2.pt"), _facenet),
    "casia-webface": Entry("identity", _facenet_weights("20180408-102900-casia-webface.pt"), _facenet),
    "irse50": Entry(
        "identity",
        _by_hand("model_ir_se50.pth", "GUIDE's and pSp's READMEs link it, InsightFace_Pytorch's IR-SE50"),
        _irse50,
    ),
    "curricularface": Entry(
        "identity",
        _by_hand("CurricularFace_Backbone.pth", "GUIDE's README links it, CurricularFace's IR-101"),
        _curricularface,
    ),
    "heads-a": Entry("identity", _bundled("encoder_a.safetensors"), _heads("HeadsEncoderA")),
    "heads-b": Entry("identity", _bundled("encoder_b.safetensors"), _heads("HeadsEncoderB")),
    "lpips-vgg": Entry("perceptual", _trunk_weights("lpips-vgg"), _lpips("vgg")),
    "lpips-alex": Entry("perceptual", _trunk_weights("lpips-alex"), _lpips("alex")),
    "lpips-squeeze": Entry("perceptual", _trunk_weights("lpips-squeeze"), _lpips("squeeze")),
    "heads-features": Entry("perceptual", _bundled("inversion.safetensors"), _heads_features),
    "heads-inversion": Entry("inversion", _bundled("inversion.safetensors"), _heads("HeadsInversion")),
}
