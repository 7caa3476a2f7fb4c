"""One erasure by two processes on one machine, over gloo, against the same by one."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback

import pytest
import tiny_erasure as tiny
import torch
from safetensors.torch import load_file

from guide_hub import processes
from guide_hub.eg3d import EG3D
from guide_hub.errors import InputError
from guide_hub.guide import Eraser
from guide_hub.guide.eraser import step_seed
from guide_hub.guide.losses import Rendering, view, weighted
from guide_hub.networks import choose, load
from guide_hub.recipe import load_recipe
from guide_hub.record import read_record

# What differs between one and two processes is the order of sums: float32's rounding, and Adam's division by
# a root of the gradient's square makes more of it where a gradient is next to nothing.
GRADIENT = 1e-5  # of the gradient's norm
WEIGHTS = 1e-3  # of the whole change's norm, after three steps

# The real command line on photos of noise, as in test_cli; `extra` goes wrong in one of the processes.
SCRIPT = """
import os, sys, signal
import tiny_erasure as tiny
from guide_hub import people, pipeline
from guide_hub.faces import crops
crops.read_faces = tiny.whole_photos
pipeline.find_threshold = lambda *_: tiny.EVERYBODY
people.check_grouping = lambda *_: None
from guide_hub.guide import eraser
{extra}
from guide_hub.cli import main
main()
"""
RANK_1_FAILS = """
def broken(self, *_):
    raise ValueError("Jane Doe")
if os.environ["RANK"] == "1":
    eraser.Eraser._batch = broken
"""
RANK_1_REFUSES = """
from guide_hub.errors import InputError
from guide_hub.faces import registry
def missing(*_):
    raise InputError("the weights are not here", remedy="fetch them")
if os.environ["RANK"] == "1":
    registry.load_perceptual = missing
"""
RANK_1_IS_KILLED = """
def killed(self, *_):
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ["RANK"] == "1":
    eraser.Eraser._batch = killed
"""
RANK_0_IS_KILLED = RANK_1_IS_KILLED.replace('"1"', '"0"')
RANK_1_IS_STOPPED = """
batch = eraser.Eraser._batch
def stopped(self, *rest):
    signal.raise_signal(signal.SIGTERM)
    return batch(self, *rest)
if os.environ["RANK"] == "1":
    eraser.Eraser._batch = stopped
"""
TWO_STEPS = """
import torch
from test_processes import one_step
from guide_hub.processes import launched
with launched("cpu") as group:
    torch.save([one_step(sys.argv[1], name, group) for name in ("heads", "guide")], sys.argv[2])
sys.exit()
"""
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["torch._dynamo", "accelerate.utils", "guide_hub.people", "guide_hub.pipeline", "guide_hub.sequence"]
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module", autouse=True)
def _weights(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUIDE_HUB_WEIGHTS", str(tiny.make_weights(home / "weights")))
        yield


@pytest.fixture(scope="module")
def model(home):
    return tiny.make_model(home / "model")


@pytest.fixture(scope="module")
def job(home, model):
    """A command line without its output and state."""
    request = tiny.make_request(home / "request")
    return ["--repo", model, "--request", request, "--recipe", tiny.make_recipe(home), "--device", "cpu"]


class Run:
    """Processes as a launcher starts them; what each has written, and its exit code.

    They are forked from one that has imported everything, which is most of what such a run takes.
    """

    def __init__(self, folder, *arguments, extra: str = "", count: int = 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.files = [(folder / f"{rank}.out", folder / f"{rank}.err") for rank in range(count)]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        shared |= {"LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        words, env = [str(a) for a in arguments], dict(os.environ)
        self.processes = [
            FORKED.Process(
                target=child,
                args=({**env, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, words, extra, *files),
            )
            for rank, files in enumerate(self.files)
        ]
        for p in self.processes:
            p.start()

    def wait(self, seconds: float = 60) -> Run:
        end = time.monotonic() + seconds
        for p in self.processes:
            p.join(max(end - time.monotonic(), 0))
        self.codes = [p.exitcode for p in self.processes]  # None: it hangs
        for p in self.processes:
            p.kill()
        self.out, self.err = ([file.read_text() for file in side] for side in zip(*self.files, strict=True))
        return self


def child(env, words, extra, out, err):
    """`guide-hub WORDS` as SCRIPT has it, with an end like an interpreter's."""
    os.environ.update(env)
    for fd, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    torch.set_num_threads(1)
    sys.argv = ["guide-hub", *words]
    code = 1
    try:
        exec(SCRIPT.format(extra=extra), {})
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def test_gradients_of_a_step_are_those_of_one_process(model, tmp_path):
    """For const noise, where terms are split, and for random noise, where the recipe's chunks are kept."""
    run = Run(tmp_path, model, tmp_path / "found.pt", extra=TWO_STEPS).wait()
    assert run.codes == [0, 0], run.err
    for name, (gradient, total, terms) in zip(
        ("heads", "guide"), torch.load(tmp_path / "found.pt"), strict=True
    ):
        expected, its_total, its_terms = one_step(model, name, processes.Processes.alone())
        assert expected.norm() > 0
        assert (gradient - expected).norm() <= GRADIENT * expected.norm()
        assert total == pytest.approx(its_total, rel=1e-5)
        assert terms.keys() == its_terms.keys()
        for term, values in terms.items():  # in the same order
            assert values == pytest.approx(its_terms[term], rel=1e-4, abs=1e-6), term


def one_step(model, name, group):
    """Gradient, weighted sum and raw terms of a second step, so that the weights have moved."""
    from guide_hub.interrupt import Stopper

    torch.manual_seed(0)
    teacher, student = (EG3D.from_pretrained(str(model)).eval() for _ in range(2))
    recipe = load_recipe(name)
    names = choose(teacher.config, recipe)
    networks = load(names, torch.device("cpu"))
    group.load(teacher, names, Stopper())
    eraser = Eraser(
        student, teacher, recipe, networks.perceptual, networks.identity_loss, share=group.backward
    )
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    for step in range(2):
        losses = eraser.step(erasure, eraser.draw_at(erasure, 0, 0, step))
    return torch.cat([p.grad.flatten() for p in eraser.parameters]), losses.total, losses.terms


@pytest.mark.parametrize("name", ["heads", "guide"])
def test_one_process_is_bit_equal_to_the_plain_loop(model, name):
    """The losses and gradients of GUIDE's loop, written down plainly: term by term, chunk by chunk."""
    teacher, student = (EG3D.from_pretrained(str(model)).eval() for _ in range(2))
    recipe = load_recipe(name)
    nets = load(choose(teacher.config, recipe), torch.device("cpu"))
    eraser = Eraser(student, teacher, recipe, nets.perceptual, nets.identity_loss)
    erasure = eraser.target(eraser.space.random(1, torch.Generator().manual_seed(2)))
    draws, total = eraser.draw_at(erasure, 0, 0, 0), 0.0
    weights = [p.detach().clone() for p in eraser.parameters]
    for pairs in eraser.pairs(erasure, draws):
        size = recipe.optim.micro_batch or len(pairs.w_student)
        for k in range(0, len(pairs.w_student), size):
            seed = step_seed(draws.seed, pairs.name, 0, k)
            how = Rendering(recipe.noise, recipe.deterministic_rays, recipe.shared_noise, seed, None)
            with torch.no_grad():
                shown = view(teacher, pairs.w_teacher[k : k + size], draws.c, how, side=1)
            aim = eraser.loss.aim(shown, pairs.weights)
            terms = eraser.loss(view(student, pairs.w_student[k : k + size], draws.c, how, side=0), aim)
            loss = weighted(terms, pairs.weights).sum()
            loss.backward()
            total += float(loss.detach())
    expected = [p.grad for p in eraser.parameters]
    for p in eraser.parameters:
        p.grad = None
    losses = eraser.step(erasure, draws)
    assert losses.total == pytest.approx(total, rel=1e-12)  # the same numbers, added by term
    for p, grad, before in zip(eraser.parameters, expected, weights, strict=True):
        assert torch.equal(p.grad, grad)
        assert not torch.equal(p, before) or not grad.any()


@pytest.fixture(scope="module")
def alone(home, job):
    """The job by one process, in today's way: no launcher, no accelerate."""
    extra = "sys.modules['accelerate'] = None"
    options = ["--output", home / "alone", "--state", home / "s1", "--json"]
    run = Run(home, "erase", *job, *options, extra=extra, count=1)
    assert run.wait().codes == [0], run.err
    return json.loads(run.out[0])


@pytest.fixture(scope="module")
def both(home, job):
    """The job by two."""
    run = Run(home, "erase", *job, "--output", home / "both", "--state", home / "s2", "--json").wait()
    assert run.codes == [0, 0], run.err
    return run


def test_an_erasure_ends_like_one_processes(home, model, alone, both):
    assert both.out[1] == both.err[1] == ""  # the first alone speaks
    report = json.loads(both.out[0])
    assert report["status"] == "erased"
    for ours, its in zip(report["erasures"], alone["erasures"], strict=True):
        assert ours["result"] == its["result"]
        assert ours["id"] == pytest.approx(its["id"], abs=1e-4)
    base = load_file(model / "model.safetensors")
    ours, its = (load_file(home / name / "model.safetensors") for name in ("both", "alone"))
    change = torch.cat([(its[k] - base[k]).flatten() for k in base])
    error = torch.cat([(its[k] - ours[k]).flatten() for k in base])
    assert change.norm() > 0
    assert error.norm() <= WEIGHTS * change.norm()
    ours, its = (read_record(home / name)["predicate"]["erasures"] for name in ("both", "alone"))
    assert [e["identityId"] for e in ours] == [e["identityId"] for e in its]
    assert not list((home / "s2" / "runs").glob("*"))


@pytest.mark.parametrize(
    ("extra", "codes", "said"),
    [
        (RANK_1_FAILS, [1, 1], "process 1: unexpected ValueError"),
        (RANK_1_REFUSES, [2, 2], "process 1: the weights are not here"),
        (RANK_1_IS_KILLED, [1, -signal.SIGKILL], "another process has ended"),
    ],
    ids=["fails", "refuses", "killed"],
)
def test_what_ends_the_second_process_ends_the_first(job, tmp_path, extra, codes, said):
    start = time.monotonic()
    run = Run(
        tmp_path, "erase", *job, "--output", tmp_path / "o", "--state", tmp_path / "s", extra=extra
    ).wait()
    assert run.codes == codes, run.err
    assert said in run.err[0]
    assert "Jane Doe" not in "".join(run.out + run.err)
    assert not (tmp_path / "o").exists()
    assert time.monotonic() - start < 50


def test_who_stops_one_stops_both_and_they_go_on_to_the_same_bytes(home, job, tmp_path, both):
    command = ["erase", *job, "--output", tmp_path / "o", "--state", tmp_path / "s"]
    run = Run(tmp_path, *command, extra=RANK_1_IS_STOPPED).wait()
    assert run.codes == [143, 143], run.err
    assert "the same command goes on from the last step" in run.err[0]
    assert not (tmp_path / "o").exists()
    run = Run(tmp_path, *command).wait()
    assert run.codes == [0, 0], run.err
    assert "erasing subject-a from step 2" in run.err[0]
    name = "model.safetensors"
    assert (tmp_path / "o" / name).read_bytes() == (home / "both" / name).read_bytes()


def test_the_second_does_not_outlive_the_first(job, tmp_path):
    run = Run(
        tmp_path, "erase", *job, "--output", tmp_path / "o", "--state", tmp_path / "s", extra=RANK_0_IS_KILLED
    )
    assert run.wait().codes == [-signal.SIGKILL, 1]
    assert "the first process has ended" in run.err[1]


def test_the_first_processes_error_is_everybodys_exit_code(job, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("not to be overwritten")
    run = Run(tmp_path, "erase", *job, "--output", tmp_path / "o", "--state", tmp_path / "s").wait()
    assert run.codes == [2, 2]
    assert "not empty" in run.err[0]
    assert run.out[1] == run.err[1] == ""


def test_torchrun_runs_the_package(job, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "guide_hub", "erase", *map(str, job), "--dry-run", "--json"]
    path = {"PYTHONPATH": str(tiny.TESTS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env={**os.environ, **path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "planned"


def test_several_processes_need_accelerate(monkeypatch):
    assert type(processes.launched("cpu")) is processes.Processes  # nobody launched this
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match="accelerate"):
        processes.launched("cpu")
