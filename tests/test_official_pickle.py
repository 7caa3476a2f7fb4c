"""Official pickles: all kinds are read, hostile ones are refused quickly, and nothing in them ever runs."""

from __future__ import annotations

import hashlib
import pickle
import pickle as op
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from eg3d_golden import tiny2x_official
from official_files import (
    RENDERING,
    SMALL,
    SOURCE,
    Official,
    Persistent,
    dumps,
    inert,
    official_file,
    toy_state,
)
from safetensors.torch import load_file

from guide_hub.eg3d import official_pickle
from guide_hub.eg3d.official_pickle import PLANE_AXES, OfficialNetwork, read_official
from guide_hub.errors import InputError

QUICK = 5.0  # seconds of work for any refusal; all but the largest files take milliseconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "network.pkl"


def read(file: Path, data: bytes, network: str = "G_ema") -> OfficialNetwork:
    file.write_bytes(data)
    return read_official(file, network)


def refused(file: Path, data: bytes, network: str = "G_ema") -> str:
    """The one problem with `data`; it must be found quickly."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read(file, data, network)
    assert time.process_time() - start < QUICK
    (problem,) = caught.value.problems
    assert problem.file == "network.pkl"
    assert problem.remedy
    assert str(file.parent) not in str(problem)
    assert len(str(problem)) < 300
    return problem.message


def same(state: dict, expected: dict) -> None:
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert value.dtype == expected[name].dtype
        assert value.shape == expected[name].shape
        assert value.is_contiguous()
        assert torch.equal(value, expected[name]), name


# ----------------------------------------------------------------------------
# What is read.


@pytest.mark.parametrize("name", ["eg3d_tiny2x.pkl", "eg3d_tiny2x_cuda_storage.pkl"])
def test_golden_files(shared, name):
    found = read_official(shared / "golden" / "pickles" / name)
    expected = tiny2x_official(shared)
    same(found.state, load_file(shared / "golden" / "tiny2x" / "state.safetensors"))
    assert found.class_name == "TriPlaneGenerator"
    assert found.init_kwargs == expected["init_kwargs"]
    assert found.rendering_kwargs == expected["init_kwargs"]["rendering_kwargs"]
    assert found.neural_rendering_resolution == expected["neural_rendering_resolution"]
    assert found.sources["TriPlaneGenerator"] == hashlib.sha256(b"# source text removed").hexdigest()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("mapping", [dict, OrderedDict])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_spellings_of_all_ages(file, protocol, mapping, old_numpy):
    official = Official(toy_state(), mapping=mapping)
    found = read(file, official_file(official, protocol=protocol, old_numpy=old_numpy))
    same(found.state, official.state)
    assert (found.init_kwargs, found.neural_rendering_resolution) == (SMALL, 8)
    assert set(found.sources.values()) == {hashlib.sha256(SOURCE.encode()).hexdigest()}
    assert {"TriPlaneGenerator", "backbone", "conv1"} <= found.sources.keys()


def test_only_the_wanted_network(file):
    ema, raw = toy_state(), {name: value + 1 for name, value in toy_state().items()}
    data = dumps({"G": Official(raw, rays=64).generator(), "G_ema": Official(ema).generator()})
    same(read(file, data).state, ema)
    found = read(file, data, "G")
    same(found.state, raw)
    assert found.neural_rendering_resolution == 64
    same(read(file, dumps({"G_ema": Official(ema).generator()})).state, ema)  # as GUIDE writes it


def test_the_live_rendering_options_come_apart_from_those_of_the_start(file):
    live = {**RENDERING, "gpc_reg_prob": 0.8}
    found = read(file, official_file(Official(toy_state(), rendering_kwargs=live)))
    assert found.rendering_kwargs == live
    assert found.init_kwargs["rendering_kwargs"] == RENDERING


def test_strides_half_precision_and_shared_storages(file):
    torch.manual_seed(2)
    whole = torch.randn(4, 6)
    state = {
        "decoder.last": torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last),
        "decoder.turned": torch.randn(3, 7).T,
        "decoder.column": whole[1:, 2],
        "decoder.rest": whole[:, 3:],
        "decoder.half": torch.randn(5).half(),
        "decoder.double": torch.randn(5).double(),
        "decoder.brain": torch.randn(5).bfloat16(),
        "decoder.long": torch.arange(-2, 5),
        "decoder.byte": torch.arange(5, dtype=torch.uint8),
        "decoder.bool": torch.tensor([True, False, True]),
        "decoder.scalar": torch.tensor(3.0),
    }
    same(read(file, official_file(Official(state))).state, state)


def test_what_does_not_belong_to_the_state(file):
    official = Official(
        toy_state(), more={"_last_planes": torch.ones(3), "_buffers": {"gone": torch.ones(2)}}
    )
    generator = official.generator()
    generator.state["_non_persistent_buffers_set"] = {"gone"}
    generator.state["_parameters"]["absent"] = None
    generator.state["_modules"]["absent"] = None
    same(read(file, dumps({"G_ema": generator})).state, official.state)


def test_a_file_whose_storages_say_cuda(file):
    data = official_file(Official(toy_state()))
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    pieces = data.split(cpu)
    assert len(pieces) > 5
    grown = pieces[0]
    for piece in pieces[1:]:  # each lies in a bytes object, whose stated length grows with it
        head, mark, tail = grown.rpartition(b"\x80\x02\x8a\x0a")
        if head[-5:-4] == b"B":
            length = struct.pack("<I", struct.unpack("<I", head[-4:])[0] + 3)
            head = head[:-4] + length
        else:
            assert head[-2:-1] == b"C"
            head = head[:-2] + b"B" + struct.pack("<I", head[-1] + 3)
        grown = head + mark + tail + cuda + piece
    same(read(file, grown).state, toy_state())


def test_nothing_is_imported_or_compiled(file):
    """In a process of its own, where an audit hook sees everything that is executed, opened or imported."""
    file.write_bytes(official_file(Official(toy_state())))
    watch = """
import sys
from guide_hub.eg3d.official_pickle import read_official
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
assert len(read_official(sys.argv[1]).state) == 6
bad = ("exec", "compile", "import", "subprocess", "os", "pickle", "marshal", "socket")
assert not {event for event in seen if event.split(".")[0] in bad}
"""
    done = subprocess.run([sys.executable, "-c", watch, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ----------------------------------------------------------------------------
# Files that are no such thing.


def test_other_contents(file, tmp_path):
    good = Official(toy_state())
    assert "holds no network G_ema" in refused(file, dumps({"G_ema": None}))
    assert "holds no network G_ema" in refused(file, dumps({"G": good.generator()}))
    assert "holds no network G" in refused(file, dumps({"G_ema": good.generator()}), "G")
    assert "holds no networks" in refused(file, dumps([1, 2]))
    assert "holds a SynthesisNetwork" in refused(
        file, official_file(Official(toy_state(), class_name="SynthesisNetwork"))
    )
    assert refused(file, b"") == "is empty"
    assert "is damaged" in refused(file, b"<!DOCTYPE html><html>not found</html>")
    for missing in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_official(missing)


def test_the_other_network_is_offered(file):
    with pytest.raises(InputError, match="choose another with --network: G"):
        read(file, dumps({"G": Official(toy_state()).generator(), "G_ema": None}))


def test_plane_axes(file):
    fixed = (PLANE_AXES[0], PLANE_AXES[1], ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    assert "fixed axes are not supported" in refused(file, official_file(Official(toy_state(), axes=fixed)))
    none = Official(toy_state()).generator()
    del none.state["_modules"]["renderer"].__dict__["plane_axes"]
    assert "no renderer with plane axes" in refused(file, dumps({"G_ema": none}))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"neural_rendering_resolution": None}, "neural_rendering_resolution"),
        ({"_init_args": (512,)}, "nameless arguments"),
        ({"_init_kwargs": None}, "no _init_kwargs"),
        ({"_init_kwargs": {"z_dim": torch.ones(2)}}, "no plain settings"),
        ({"_init_kwargs": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}, "no plain settings"),
        ({"_init_kwargs": {"a": [0] * 1001}}, "no plain settings"),
        ({"_init_kwargs": {"a\x1b[31m": 1}}, "impossible name"),
        ({"_init_kwargs": {"z_dim": 1 << 70}}, "no plain settings"),
        ({"rendering_kwargs": [1]}, "no rendering_kwargs"),
        ({"_parameters": [1]}, "no mapping"),
        ({"_parameters": {"w": 1}}, "no tensors"),
        ({"_parameters": {"w": torch.ones(0)}}, "no tensors"),
        ({"_parameters": {"../w": torch.ones(1)}}, "impossible name"),
        ({"_modules": {"renderer": inert("training.a", "A", {"plane_axes": 1})}}, "no renderer"),
    ],
)
def test_states_that_make_no_network(file, more, message):
    assert message in refused(file, dumps({"G_ema": Official(toy_state(), more=more).generator()}))


def test_modules_that_hold_one_another(file):
    generator = Official(toy_state()).generator()
    loop = inert("training.a", "A", {})
    loop.__dict__["_modules"] = {"a": loop}
    generator.state["_modules"]["loop"] = loop
    assert "far more modules" in refused(file, dumps({"G_ema": generator}))
    level = inert("training.a", "A", {"_parameters": {"w": torch.ones(1)}})
    for _ in range(40):  # 2^40 paths
        level = inert("training.a", "A", {"_modules": {"a": level, "b": level}})
    generator.state["_modules"]["loop"] = level
    assert "far more modules" in refused(file, dumps({"G_ema": generator}))


def test_one_storage_for_everybody(file):
    """A file of 1 MB that would unpack to 200 MB."""
    one = torch.zeros(250_000)
    generator = Official(toy_state(), more={"_parameters": {f"w{i}": one for i in range(200)}}).generator()
    assert "larger than the file" in refused(file, dumps({"G_ema": generator}))


# ----------------------------------------------------------------------------
# Hostile programs. `text`, `call` and so on assemble opcodes.


def text(value: str) -> bytes:
    data = value.encode()
    return op.BINUNICODE + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return op.BININT + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return op.LONG1 + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + op.STACK_GLOBAL


def call(what: bytes, *args: bytes) -> bytes:
    return what + op.MARK + b"".join(args) + op.TUPLE + op.REDUCE


def data(value: bytes) -> bytes:
    return op.BINBYTES + struct.pack("<I", len(value)) + value


def numbers(*values: int) -> bytes:
    return op.MARK + b"".join(number(v) for v in values) + op.TUPLE


def program(body: bytes) -> bytes:
    return b"\x80\x04" + body + op.STOP


def in_file(body: bytes) -> bytes:
    return program(op.EMPTY_DICT + text("G_ema") + body + op.SETITEM)


SYSTEM = call(name("posix", "system"), text("touch canary"))
RUNS_CODE = {
    "system": SYSTEM,
    "system by GLOBAL": b"cposix\nsystem\n" + op.MARK + text("touch canary") + op.TUPLE + op.REDUCE,
    "system by INST": op.MARK + text("touch canary") + b"iposix\nsystem\n",
    "system by OBJ": op.MARK + b"cposix\nsystem\n" + text("touch canary") + b"o",
    "system by NEWOBJ": name("posix", "system") + op.MARK + text("touch canary") + op.TUPLE + op.NEWOBJ,
    "system by NEWOBJ_EX": name("posix", "system") + op.EMPTY_TUPLE + op.EMPTY_DICT + b"\x92",
    "eval": call(name("builtins", "eval"), text("open('canary', 'w')")),
    "getattr": call(name("builtins", "getattr"), name("builtins", "int"), text("real")),
    "an attribute of an allowed name": call(name("collections", "OrderedDict.fromkeys"), text("a")),
    "a dotted name of torch": call(name("torch._utils", "_rebuild_tensor_v2.__globals__")),
    "the real loader": call(name("torch", "load"), text("canary")),
    "a constructor": call(name("training.triplane", "OSGDecoder"), text("canary")),
    "a constructor of torch": call(name("torch.nn.modules.container", "Sequential"), text("canary")),
    "arguments for a constructor": name("torch.nn.modules.container", "Sequential")
    + op.MARK + text("canary") + op.TUPLE + op.NEWOBJ,
    "a method by BUILD": name("training.triplane", "OSGDecoder") + op.EMPTY_TUPLE + op.NEWOBJ
    + op.MARK + op.NONE + op.EMPTY_DICT + text("__setstate__") + SYSTEM + op.SETITEM + op.TUPLE + op.BUILD,
    "a class by BUILD": name("training.triplane", "OSGDecoder") + op.EMPTY_DICT + op.BUILD,
    "a text as callable": call(text("posix.system"), text("touch canary")),
    "extensions": b"\x82\x01",
    "a persistent id": text("canary") + op.BINPERSID,
    "a persistent id in text": b"Pcanary\n",
    "numpy's real reconstruct": call(name("numpy._core.multiarray", "_reconstruct"), op.EMPTY_TUPLE),
    "a dtype of objects": call(name("numpy", "dtype"), text("O8")),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNS_CODE)
@pytest.mark.parametrize("where", ["alone", "in the network's place", "after a good network", "in a storage"])
def test_no_code_runs(file, case, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body = RUNS_CODE[case]
    good = official_file(Official(toy_state()))
    whole = {
        "alone": program(body),
        "in the network's place": in_file(body),
        "after a good network": good[:-1] + text("x") + body + op.SETITEM + op.STOP,
        "in a storage": in_file(call(name("torch.storage", "_load_from_bytes"), data(program(body)))),
    }[where]
    refused(file, whole)
    assert not (tmp_path / "canary").exists()


def test_the_refused_name_is_shown_unless_it_is_markup(file):
    assert "posix.system" in refused(file, in_file(SYSTEM))
    assert "posix.system inside a storage" in refused(
        file, in_file(call(name("torch.storage", "_load_from_bytes"), data(program(SYSTEM))))
    )
    assert "unprintable" in refused(file, in_file(name("os\x1b[2J", "system")))


FLOATS = struct.pack("<6f", *range(6))


def nested(
    magic: int = official_pickle.LEGACY_MAGIC,
    protocol: int = 1001,
    little: bool = True,
    kind: bytes = b"ctorch\nFloatStorage\n",
    count: int = 6,
    view: bytes = op.NONE,
    keys: tuple[str, ...] = ("1",),
    stated: int = 6,
    values: bytes = FLOATS,
) -> bytes:
    """The torch file around a storage."""
    info = op.EMPTY_DICT + text("little_endian") + (op.NEWTRUE if little else op.NEWFALSE) + op.SETITEM
    pid = op.MARK + text("storage") + kind + text("1") + text("cpu") + number(count) + view + op.TUPLE
    listed = op.EMPTY_LIST + b"".join(text(key) + op.APPEND for key in keys)
    parts = (number(magic), number(protocol), info, pid + op.BINPERSID, listed)
    return b"".join(b"\x80\x02" + part + op.STOP for part in parts) + struct.pack("<q", stated) + values


def tensor(
    storage: bytes | None = None, offset: int = 0, size: tuple = (2, 3), stride: tuple = (3, 1), **how: object
) -> bytes:
    where = call(
        name("torch.storage", "_load_from_bytes"), data(nested(**how) if storage is None else storage)
    )
    hooks = call(name("collections", "OrderedDict"))
    parts = (where, number(offset), numbers(*size), numbers(*stride), op.NEWFALSE, hooks)
    return call(name("torch._utils", "_rebuild_tensor_v2"), *parts)


def test_the_assembled_tensor_is_one(file):
    assert "holds no network" in refused(file, in_file(tensor()))  # it got as far as that


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"magic": 1}, "no legacy torch file"),
        ({"protocol": 1002}, "no legacy torch file"),
        ({"little": False}, "no little-endian"),
        ({"kind": b"ctorch\nUntypedStorage\n"}, "torch.UntypedStorage"),
        ({"kind": b"cbuiltins\nFloatStorage\n"}, "builtins.FloatStorage"),
        ({"kind": text("FloatStorage")}, "foreign form"),
        ({"view": op.EMPTY_TUPLE}, "foreign form"),
        ({"keys": ()}, "foreign form"),
        ({"keys": ("1", "1")}, "foreign form"),
        ({"keys": ("2",)}, "not of the size"),
        ({"stated": 5}, "not of the size"),
        ({"count": 5, "stated": 5}, "not of the size"),
        ({"values": FLOATS + b"\0"}, "not of the size"),
        ({"values": FLOATS[:-1]}, "not of the size"),
        ({"count": -1, "stated": -1, "values": b""}, "not of the size"),
        ({"count": 1 << 60, "stated": 1 << 60}, "not of the size"),
        ({"count": 1 << 200}, "not of the size"),
        ({"offset": 1}, "beyond its storage"),
        ({"offset": -1}, "impossible shape"),
        ({"offset": 1 << 62}, "impossible shape"),
        ({"size": (2, 4)}, "beyond its storage"),
        ({"size": (3, 2), "stride": (3, 1)}, "beyond its storage"),
        ({"stride": (-3, 1)}, "impossible shape"),
        ({"stride": (1 << 39, 1)}, "beyond its storage"),
        ({"stride": (3,)}, "impossible shape"),
        ({"size": (1 << 39, 1 << 39), "stride": (0, 0)}, "beyond its storage"),
        ({"size": (7,), "stride": (0,)}, "beyond its storage"),
        ({"size": (1 << 2000,) * 50, "stride": (0,) * 50}, "impossible shape"),
        ({"size": (2, -3)}, "impossible shape"),
        ({"storage": b""}, "truncated"),
        ({"storage": nested()[:40]}, "truncated"),
        ({"storage": b"PK\x03\x04"}, "damaged"),
    ],
)
def test_storages_and_tensors_out_of_bounds(file, how, message):
    assert message in refused(file, in_file(tensor(**how)))


def test_deep_nesting(file):
    n = 150_000
    for inner, outer in (
        (op.EMPTY_LIST * n, op.APPEND * (n - 1)),
        (op.EMPTY_TUPLE, op.TUPLE1 * n),
        ((op.EMPTY_DICT + text("a")) * (n // 10) + op.NONE, op.SETITEM * (n // 10)),
        (op.MARK * n, op.TUPLE * n),
    ):
        assert "holds no network" in refused(file, in_file(inner + outer))
    shell = name("training.a", "A") + op.BINPUT + b"\0"
    deep = shell + op.EMPTY_TUPLE + op.NEWOBJ
    for _ in range(20_000):
        deep = deep + op.BINPUT + b"\1" + op.BINGET + b"\0" + op.EMPTY_TUPLE + op.NEWOBJ + op.EMPTY_DICT + (
            text("a") + op.BINGET + b"\1" + op.SETITEM + op.BUILD
        )  # fmt: skip
    refused(file, in_file(deep))


def test_keys_that_would_take_for_ever_to_hash(file):
    pair = op.EMPTY_TUPLE + (op.BINPUT + b"\0" + op.BINGET + b"\0" + op.TUPLE2) * 60  # 2^60 leaves
    assert "no text" in refused(file, in_file(op.EMPTY_DICT + pair + op.NONE + op.SETITEM))
    assert "no text" in refused(file, in_file(op.EMPTY_DICT + number(1) + op.NONE + op.SETITEM))
    assert "damaged" in refused(file, in_file(op.EMPTY_SET + op.MARK + pair + op.ADDITEMS))
    assert "no plain settings" in refused(
        file, with_state("_init_kwargs", op.EMPTY_DICT + text("a") + pair + op.SETITEM)
    )


def with_state(key: str, value: bytes) -> bytes:
    """A file whose generator has a hostile entry in its state; built around opcodes of a good one."""
    good = dumps({"G_ema": Official(toy_state(), more={key: "REPLACED"}).generator()}, protocol=3)
    marker = op.BINUNICODE + struct.pack("<I", 8) + b"REPLACED"
    assert good.count(marker) == 1
    return good.replace(marker, value)


def test_bombs(file):
    big = text("x" * (1 << 20))
    cases = {
        "far more parts": op.NONE * 600_000,
        "far more text": big * 17,
        "truncated": op.BINBYTES8 + struct.pack("<Q", 1 << 62),
    }
    for message, body in cases.items():
        assert message in refused(file, in_file(body))
    assert "truncated" in refused(file, in_file(op.BINUNICODE8 + struct.pack("<Q", 2**64 - 1)))
    assert "(opcode 0x8b)" in refused(file, in_file(op.LONG4 + struct.pack("<i", 1 << 30)))
    assert "holds no network" in refused(file, in_file(op.NONE + op.LONG_BINPUT + b"\xff" * 4))
    assert "holds no network" in refused(file, b"\x80\x04\x95" + b"\xff" * 8 + in_file(op.NONE)[2:])
    # a storage and a long name that are used again and again
    again = data(nested()) + op.BINPUT + b"\0" + op.EMPTY_LIST
    once = name("torch.storage", "_load_from_bytes") + op.BINGET + b"\0" + op.TUPLE1 + op.REDUCE + op.APPEND
    assert "far more parts" in refused(file, in_file(again + once * 30_000))
    many = (
        op.EMPTY_LIST + op.MARK + text("a") + op.BINPUT + b"\0" + (op.BINGET + b"\0") * 200_000 + op.APPENDS
    )
    sets = many + op.BINPUT + b"\0" + name("builtins", "set") + op.BINPUT + b"\1" + op.EMPTY_LIST
    sets += (op.BINGET + b"\1" + op.BINGET + b"\0" + op.TUPLE1 + op.REDUCE + op.APPEND) * 10_000
    assert "far more parts" in refused(file, in_file(sets))
    long_name = big + op.BINPUT + b"\0" + (op.BINGET + b"\0" + op.BINGET + b"\0" + op.STACK_GLOBAL) * 1000
    assert "damaged" in refused(file, in_file(long_name))


def test_a_long_source_that_all_share(file):
    generator = Official(toy_state()).generator()
    source = "x" * (8 << 20)
    for i in range(5_000):
        generator.state["_modules"][f"m{i}"] = Persistent("A", {}, source)
    start = time.process_time()
    found = read(file, dumps({"G_ema": generator}))
    assert time.process_time() - start < QUICK
    assert found.sources["A"] == hashlib.sha256(source.encode()).hexdigest()


@pytest.mark.parametrize(
    "body",
    [
        b"", op.APPEND, op.SETITEM, op.TUPLE, op.TUPLE3, op.REDUCE, op.BUILD, op.NEWOBJ, op.MEMOIZE, b"\xff",
        op.BINPUT, op.BINGET + b"\7", op.STACK_GLOBAL, number(1) * 2 + op.STACK_GLOBAL, op.STOP,
        op.SETITEMS, op.MARK + op.SETITEMS, op.EMPTY_DICT + op.MARK + text("a") + op.SETITEMS,
        op.EMPTY_LIST + text("a") + op.NONE + op.SETITEM, op.EMPTY_DICT + op.NONE + op.APPEND,
        op.SHORT_BINUNICODE + b"\2\xff\xff", b"cos", b"c\xff\n\xff\n", op.EMPTY_SET + op.NONE + op.APPEND,
        op.BINFLOAT + b"\0", op.LONG1 + b"\x10\0", op.POP, op.DUP, b"I1\n", b"S'a'\n", b"F1\n", b"\x97",
        call(name("numpy", "dtype"), text("f8")) + op.EMPTY_TUPLE + op.BUILD,
        call(name("numpy._core.multiarray", "scalar"), call(name("numpy", "dtype"), text("f8")), data(b"1")),
        call(name("torch._utils", "_rebuild_parameter"), op.NONE), call(name("builtins", "set"), number(1)),
        call(name("collections", "OrderedDict"), op.EMPTY_LIST),
        call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), op.EMPTY_DICT),
    ],
)  # fmt: skip
def test_broken_programs(file, body):
    refused(file, program(body))
    refused(file, in_file(body))


def test_truncation_anywhere(file):
    whole = official_file(Official(toy_state()))
    for end in range(0, len(whole), 29):
        refused(file, whole[:end])
