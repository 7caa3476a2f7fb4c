"""What every test shares: thread settings before torch, and the optional reference material."""

import atexit
import json
import os
import shutil
import tempfile

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # two torch threads each in two processes stall one another
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback_hub import WRITE_TOKEN, LoopbackHub

# huggingface_hub reads these once, when it is first imported, so they are set before any test module is.
_HUB = LoopbackHub()
os.environ.update(
    HF_ENDPOINT=_HUB.endpoint,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_ETAG_TIMEOUT="120",  # a busy machine is no lost connection
    HF_HUB_DOWNLOAD_TIMEOUT="120",
    HF_HOME=tempfile.mkdtemp(prefix="guide-hub-tests-"),
)
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1,localhost"]))
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_OIDC_RESOURCE"):
    os.environ.pop(_name, None)
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and test data beside the checkout; tests that need it skip without it."""
    folder = Path(os.environ.get("GUIDE_HUB_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("reference material (shared/) is not here")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """An empty Hub on 127.0.0.1 for huggingface_hub, here and in subprocesses, and a token that may write."""
    _HUB.reset()
    _HUB.start()
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    return _HUB


@pytest.fixture
def call(monkeypatch, capsys):
    """`guide-hub ARGUMENTS` in this process: code, out, err, and with --json the object."""
    from guide_hub import cli

    def call(*arguments):
        arguments = [str(a) for a in arguments]
        monkeypatch.setattr("sys.argv", ["guide-hub", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(
            code=code, out=out, err=err, json=json.loads(out) if "--json" in arguments else None
        )

    return call
