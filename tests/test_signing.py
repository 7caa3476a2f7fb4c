"""The commands of docs/signing.md, with a local key. Skips without model_signing: it is no dependency."""

import subprocess
import sys

import pytest
from test_record import erasure
from test_verify import base_folder, erase, failed, statuses

pytest.importorskip("model_signing", reason="needs pip install model_signing pyOpenSSL")


@pytest.fixture
def keys(tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "signing.pem").write_bytes(private)
    (tmp_path / "signing.pub").write_bytes(public)
    return tmp_path / "signing.pem", tmp_path / "signing.pub"


def model_signing(*arguments) -> int:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("inside", [True, False])
def test_a_signature_holds_until_a_file_changes(tmp_path, keys, inside):
    private, public = keys
    folder = erase(tmp_path / "erased", base_folder(tmp_path / "base"), 1, "local", None, erasure(), to=None)
    signature = (folder if inside else tmp_path) / "model.sig"
    check = ("verify", "key", folder, "--signature", signature, "--public_key", public)
    assert model_signing("sign", "key", folder, "--private_key", private, "--signature", signature) == 0
    assert model_signing(*check) == 0
    assert failed(folder) == set()  # the signature is no part of SHA256SUMS
    assert statuses(folder)["signature"] == "unchecked"

    (folder / "ema.pt").write_bytes(b"")
    assert model_signing(*check) != 0
    (folder / "ema.pt").unlink()
    assert model_signing(*check) == 0
    record = folder / "erasure_record.json"
    record.write_text(record.read_text().replace('"now": 0.03', '"now": 0.01'))
    assert model_signing(*check) != 0
