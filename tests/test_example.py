"""The main job on real input: two people who did not come out of the model leave it, everybody else stays."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest
import torch

from guide_hub import hub
from guide_hub.eg3d import EG3D
from guide_hub.pipeline import erase
from guide_hub.record import check_sums, overall, read_record

ROOT = Path(__file__).resolve().parents[1]
REQUEST = ROOT / "examples" / "takedown" / "takedown.yaml"
BUILTIN = "builtin:synthetic-heads"


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_two_people_leave_the_model(seed, tmp_path):
    report = erase(BUILTIN, REQUEST, seed=seed, output=tmp_path / "erased", state=tmp_path / "state")
    assert report.status == "erased"
    assert [e.identity_id for e in report.erasures] == ["subject-a", "subject-b"]
    for erasure in report.erasures:  # on the final weights: the first person stays gone after the second
        assert erasure.id.before >= erasure.id.threshold > erasure.now
        assert erasure.verified_after == 0
        assert erasure.verified_others_after is not None
        assert erasure.verified_others_after <= 0.10
    assert report.retained is not None
    assert report.retained.n == 100
    assert report.retained.verified >= 0.95
    assert check_sums(tmp_path / "erased") == []
    assert overall(read_record(tmp_path / "erased")) == "PASSED"
    erased = EG3D.from_pretrained(str(tmp_path / "erased"))
    source = EG3D.from_pretrained(str(hub.resolve(BUILTIN).folder))
    changed = {n for n, v in erased.state_dict().items() if not torch.equal(v, source.state_dict()[n])}
    assert changed
    assert all(name.startswith("backbone.synthesis.") for name in changed)
    assert not (tmp_path / "state" / "runs").exists() or not any((tmp_path / "state" / "runs").iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    assert peak < 6, "GiB, of the whole test process"
    shutil.rmtree(tmp_path / "erased")
