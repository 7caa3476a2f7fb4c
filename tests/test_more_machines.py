"""examples/more_machines: shards of a request and the cost table."""

from __future__ import annotations

import json
import math
import shlex
import stat
import sys

import pytest
import tiny_erasure as tiny

from guide_hub.request import load_request

sys.path.insert(0, str(tiny.TESTS.parent / "examples" / "more_machines"))
import cost
import shard

PEOPLE = {f"subject-{k}": (f"jane_doe_{k}.png",) for k in range(5)}


@pytest.fixture
def request_file(tmp_path):
    return tiny.make_request(tmp_path / "request", people=PEOPLE)


def run(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


def test_shards_hold_everybody_once(request_file):
    shards = shard.split(request_file, 2)
    ids = [[i.id for i in load_request(s).identities] for s in shards]
    assert ids == [["subject-0", "subject-2", "subject-4"], ["subject-1", "subject-3"]]
    whole = {i.id: [p.sha256 for p in i.images] for i in load_request(request_file).identities}
    assert whole == {i.id: [p.sha256 for p in i.images] for s in shards for i in load_request(s).identities}
    assert {load_request(s).request_id for s in shards} == {"req-7"}
    assert all(stat.S_IMODE(s.stat().st_mode) == 0o600 for s in shards)
    assert len(shard.split(request_file, 9)) == 5


def test_the_plan_for_shells(request_file, monkeypatch, capsys):
    options = ["--repo", request_file.parent, "--world", 2, "--staging", "/private/my staging"]
    lines = run(shard, monkeypatch, capsys, request_file, *options).splitlines()
    assert lines[0] == "umask 077"
    words = [shlex.split(line) for line in lines[2:]]
    assert [w[w.index("--output") + 1] for w in words] == [f"/private/my staging/shard-{k}" for k in (0, 1)]
    assert all("--no-push" in w for w in words)
    assert "jane_doe" not in "".join(lines)


def test_the_plan_for_jobs(request_file, monkeypatch, capsys):
    options = ["--repo", "org/eg3d", "--revision", "abc", "--world", 2, "--bucket", "org/staging"]
    where = ["--requests", "org/requests/2026-0042"]
    lines = run(shard, monkeypatch, capsys, request_file, *options, *where).splitlines()
    assert lines[0] == "hf buckets create org/staging --private"
    for rank, line in enumerate(lines[1:]):
        words = shlex.split(line)
        assert words[:4] == ["hf", "jobs", "uv", "run"]
        erase = words[words.index("--") + 1 :]
        assert erase[erase.index("--request") + 1] == f"/requests/2026-0042/req-7.shard-{rank}-of-2.yaml"
        assert erase[erase.index("--revision") + 1] == "abc"
        assert erase[erase.index("--output") + 1] == f"/staging/shard-{rank}"
        assert "--no-push" in erase
        assert "--timeout" in words
    with pytest.raises(SystemExit):  # all shards must start from one commit
        run(shard, monkeypatch, capsys, request_file, "--repo", "org/eg3d", "--world", 2, "--staging", "s")


def test_costs_by_hand():
    costs = cost.Costs(step=2.0, steps=100, each=160.0, start=60.0, machines=4, price=3.0)
    assert costs.identity == 360.0
    assert costs.machine_hours(1) == pytest.approx(420 / 3600)
    assert costs.machine_hours(10) == pytest.approx((3600 + 240) / 3600)
    assert costs.days(10) * 86400 == pytest.approx(3 * 360 + 60)
    assert costs.money(10) == pytest.approx(3.2)
    assert cost.Costs(1.0, 1).money(1) is None
    assert [line.split(" | ")[0] for line in cost.table(costs)[2:]] == [f"| {n}" for n in cost.PEOPLE]


def test_times_come_from_benchmarks_or_files(tmp_path, monkeypatch, capsys):
    machine = {"CPU": "a CPU", "threads": 2}
    results = {
        "full512-step-ours": {"wall_s": [90.0, 88.0, 80.0], "machine": machine},
        "full512-step-released": {"failed": "for want of memory"},
        "full512-erasure-ours": {"wall_s": [9e9]},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    assert cost.read(tmp_path) == {"full512-step-ours, a CPU, 2 threads": 88.0}
    assert cost.read(tmp_path, "tiny") == {}
    (tmp_path / "mine.json").write_text('{"a card": 0.5}')
    assert cost.read(tmp_path / "mine.json") == {"a card": 0.5}
    said = run(cost, monkeypatch, capsys, "--times", tmp_path / "mine.json", "--recipe", "heads")
    assert "a card: 0.5 s a step, 30 s an identity" in said  # 60 steps
    assert math.isclose(float(said.split("| 1000 | ")[1].split(" |")[0]), 8.3)
    assert "Not measured" in said
    assert "No price" in said
    with pytest.raises(SystemExit, match="no measured step times"):
        run(cost, monkeypatch, capsys, "--times", tmp_path, "--match", "nothing")
