"""Reads official EG3D and GUIDE pickles and executes nothing in them.

A pickle is a program, and the danger in it is that its machine calls whatever the program names. The machine
here knows the opcodes that such files consist of and builds plain containers; the few names that they use
stand for functions of this module, which make data. Another opcode, another name and all that is out of
bounds end in an InputError. Steps, text and tensors are limited, and so are time and memory.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import pickle as op  # its names of the opcodes, nothing else
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guide_hub.errors import InputError, Problem

GENERATOR = "TriPlaneGenerator"
# The released models' projections. The third one was meant to be another: a "fixed" model has other planes.
PLANE_AXES = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 0, 1), (0, 1, 0)),
    ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
)

MAX_STEPS = 500_000  # opcodes of all streams together; a file with G, D and G_ema has about 80,000
MAX_TEXT = 16 << 20  # bytes; the embedded sources are some 100 KB
MAX_PARTS = 20_000  # modules, parameters and buffers of one network
MAX_NAME = 200  # characters
MAX_INTEGER = 1 << 40
MAX_DIMENSIONS = 8

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the torch file around each storage


@dataclass(frozen=True)
class OfficialNetwork:
    """One network of an official file.

    `state` has contiguous tensors in main memory under their official names. `rendering_kwargs` is the
    generator's live attribute, None where it has none. `sources` gives, for each class, the SHA-256 of the
    source text that the file carries and nobody compiled.
    """

    class_name: str
    init_kwargs: dict[str, Any]
    rendering_kwargs: dict[str, Any] | None
    neural_rendering_resolution: int
    state: dict[str, Tensor]
    sources: dict[str, str]


def read_official(path: str | Path, network: str = "G_ema") -> OfficialNetwork:
    """The generator called `network` (`G_ema` or `G`) in an official pickle.

    Where the file says that its tensors were (`cuda:0`, say) does not matter. Raises InputError for all that
    is not such a file, for a file that asks for anything else to be called, and for fixed plane axes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: empty
        what = "is empty" if isinstance(error, ValueError) else f"cannot be read ({error.strerror})"
        raise InputError(Problem(what, "check the file", file=path.name)) from None
    try:
        return _network(_Machine().load(_Stream(data), _known), network, limit=len(data))
    except _Refused as refused:
        raise InputError(Problem(refused.message, refused.remedy, file=path.name)) from None
    except (IndexError, KeyError, UnicodeDecodeError):  # the machine's: empty stack, unset memo, bad text
        raise InputError(Problem(f"is {_DAMAGED}", _AGAIN, file=path.name)) from None


_DAMAGED = "damaged, or no pickle of EG3D"
_AGAIN = "download it again from where its authors put it"
_DISTRUST = "do not load this file with any other program either"


class _Refused(Exception):
    def __init__(self, message: str, remedy: str = _AGAIN):
        self.message, self.remedy = message, remedy


def _shown(text: str) -> str:
    """What a file wrote, fit for a message."""
    return text if re.fullmatch(r"[\w.<>-]{1,80}", text, re.ASCII) else "an unprintable name"


# ----------------------------------------------------------------------------
# What the machine makes beside plain containers.


class _Object:
    """An instance of a class that is not here: its `__dict__` alone."""

    __slots__ = ("name", "source", "state")

    def __init__(self, name: str, state: dict[str, Any] | None = None, source: str | None = None):
        self.name, self.state, self.source = name, state, source


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a file may use: what calling it and what `__new__` stand for."""

    call: Callable[[_Machine, tuple[Any, ...]], Any] | None = None
    new: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype
    data: memoryview


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor that is not copied yet; its bounds are checked."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """A contiguous copy; numpy minds neither the bytes' odd address nor being read-only."""
        width = self.storage.dtype.itemsize
        values = np.ndarray(
            self.size, f"<i{width}", self.storage.data, self.offset * width, [s * width for s in self.stride]
        )
        return torch.from_numpy(values.copy(order="C")).view(self.storage.dtype)


class _Kind:
    """numpy.dtype, as the scalars among a network's gains use it."""

    __slots__ = ("form",)

    def __init__(self, form: str):
        self.form = form


# ----------------------------------------------------------------------------
# The machine.


class _Stream:
    """Bytes and a place in them."""

    def __init__(self, data: memoryview):
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, n: int) -> memoryview:
        if n > self.left:
            raise _Refused("is truncated, or states a length beyond its end")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = bytes(self.data[self.at : self.at + MAX_NAME]).find(b"\n")
        if end < 0:
            raise _Refused(f"is {_DAMAGED}")
        text = str(self.take(end), "utf-8")
        self.at += 1
        return text


_CONSTANTS = {op.NONE: None, op.NEWTRUE: True, op.NEWFALSE: False, op.EMPTY_TUPLE: ()}
_NEW: dict[bytes, type] = {op.EMPTY_DICT: dict, op.EMPTY_LIST: list, op.EMPTY_SET: set}
_NUMBERS = {op.BININT: "<i", op.BININT1: "<B", op.BININT2: "<H", op.BINFLOAT: ">d"}
_TEXTS = {op.SHORT_BINUNICODE: "<B", op.BINUNICODE: "<I", op.BINUNICODE8: "<Q"}
_BYTES = {op.SHORT_BINBYTES: "<B", op.BINBYTES: "<I", op.BINBYTES8: "<Q"}
_TUPLES = {op.TUPLE1: 1, op.TUPLE2: 2, op.TUPLE3: 3}
_ONE = {op.APPEND: 1, op.SETITEM: 2}  # like the ones that take all items since the mark
_MANY = {op.APPENDS: op.APPEND, op.SETITEMS: op.SETITEM, op.ADDITEMS: op.ADDITEMS}
_PUTS = {op.BINPUT: "<B", op.LONG_BINPUT: "<I"}
_GETS = {op.BINGET: "<B", op.LONG_BINGET: "<I"}


class _Machine:
    """Runs the streams of one file, the outer one and those around its storages, within one allowance."""

    def __init__(self) -> None:
        self.steps, self.text = MAX_STEPS, MAX_TEXT

    def load(
        self,
        stream: _Stream,
        find: Callable[[str, str], Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> Any:
        """The value of one pickle; `stream` stands behind it afterwards."""
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        while True:
            self.spend(1)
            code = bytes(stream.take(1))
            if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            elif code in _GETS:
                stack.append(memo[stream.number(_GETS[code])])
            elif code == op.MEMOIZE:
                memo[len(memo)] = stack[-1]
            elif code in _PUTS:
                memo[stream.number(_PUTS[code])] = stack[-1]
            elif code in _NEW:
                stack.append(_NEW[code]())
            elif code in _NUMBERS:
                stack.append(stream.number(_NUMBERS[code]))
            elif code == op.LONG1:
                stack.append(int.from_bytes(stream.take(stream.number("<B")), "little", signed=True))
            elif code in _TEXTS:
                stack.append(self._take_text(stream, stream.number(_TEXTS[code])))
            elif code in _BYTES:
                stack.append(stream.take(stream.number(_BYTES[code])))
            elif code == op.MARK:
                marks.append(stack)
                stack = []
            elif code == op.TUPLE:
                items, stack = stack, marks.pop()
                stack.append(tuple(items))
            elif code in _TUPLES:
                stack.append(tuple(_popped(stack, _TUPLES[code])))
            elif code in _ONE:
                items = _popped(stack, _ONE[code])
                _fill(stack[-1], code, items)
            elif code in _MANY:
                items, stack = stack, marks.pop()
                _fill(stack[-1], _MANY[code], items)
            elif code == op.GLOBAL:
                stack.append(find(stream.line(), stream.line()))
            elif code == op.STACK_GLOBAL:
                module, name = _popped(stack, 2)
                if not all(isinstance(part, str) and len(part) <= MAX_NAME for part in (module, name)):
                    raise _Refused(f"is {_DAMAGED}")
                stack.append(find(module, name))
            elif code == op.REDUCE:
                what, args = _popped(stack, 2)
                stack.append(self._reduce(what, args))
            elif code == op.NEWOBJ:
                what, args = _popped(stack, 2)
                if not isinstance(what, _Global) or what.new is None or args != ():
                    raise _Refused("makes an object that no EG3D has", _DISTRUST)
                stack.append(what.new())
            elif code == op.BUILD:
                state = stack.pop()
                _build(stack[-1], state)
            elif code == op.BINPERSID and persistent is not None:
                stack.append(persistent(stack.pop()))
            elif code == op.PROTO:
                stream.take(1)
            elif code == op.FRAME:
                stream.take(8)
            elif code == op.STOP:
                return stack.pop()
            else:
                raise _Refused(f"is {_DAMAGED} (opcode 0x{code[0]:02x})")

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _Refused("has far more parts than any EG3D", _DISTRUST)

    def _take_text(self, stream: _Stream, length: int) -> str:
        text = stream.take(length)
        self.text -= length
        if self.text < 0:
            raise _Refused("has far more text than any EG3D", _DISTRUST)
        return str(text, "utf-8")

    def _reduce(self, what: Any, args: Any) -> Any:
        if not isinstance(what, _Global) or what.call is None or type(args) is not tuple:
            raise _Refused("calls what no EG3D calls", _DISTRUST)
        return what.call(self, args)

    def storage(self, args: tuple[Any, ...]) -> _Storage:
        """`torch.storage._load_from_bytes`: a torch file of the legacy form with one storage."""
        match args:
            case (memoryview() as data,):
                stream = _Stream(data)
            case _:
                raise _Refused("has a storage of a foreign form")
        head = [self.load(stream, _no_names) for _ in range(3)]
        match head:
            case [int(magic), int(version), {"little_endian": True}]:
                if (magic, version) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
                    raise _Refused("has a storage that is no legacy torch file")
            case _:
                raise _Refused("has a storage that is no little-endian legacy torch file")
        pid, keys = self.load(stream, _storage_type, persistent=lambda pid: pid), self.load(stream, _no_names)
        match pid, keys:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), None), [str(only)]:
                stated = stream.number("<q")
                if key != only or stated != count or count < 0 or stream.left != count * dtype.itemsize:
                    raise _Refused("has a storage that is not of the size that it states")
                return _Storage(dtype, stream.take(stream.left))
        raise _Refused("has a storage of a foreign form")


def _popped(stack: list[Any], n: int) -> list[Any]:
    if len(stack) < n:
        raise _Refused(f"is {_DAMAGED}")
    items = stack[-n:]
    del stack[-n:]
    return items


def _fill(target: Any, code: bytes, items: list[Any]) -> None:
    """APPEND, SETITEM and ADDITEMS. Keys are text: no others occur, and their hashes cannot be chosen."""
    if code == op.APPEND and type(target) is list:
        target.extend(items)
    elif code == op.SETITEM and type(target) is dict and len(items) % 2 == 0:
        keys = items[::2]
        if not all(type(key) is str for key in keys):
            raise _Refused("has a mapping with keys that are no text")
        target.update(zip(keys, items[1::2], strict=True))
    elif code == op.ADDITEMS and type(target) is set and all(type(item) is str for item in items):
        target.update(items)
    else:
        raise _Refused(f"is {_DAMAGED}")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _Object(state=None), dict():
            target.state = state
        case _Kind(), (int(), "<" | "|" | "=", *_):
            pass
        case _:
            raise _Refused("sets what no EG3D sets", _DISTRUST)


# ----------------------------------------------------------------------------
# The names that official files use.


def _persistent(machine: _Machine, args: tuple[Any, ...]) -> _Object:
    """`torch_utils.persistence._reconstruct_persistent_obj`, which would compile and run `module_src`."""
    match args:
        case ({"type": "class", "class_name": str(name), "module_src": str(source), "state": dict(state)},):
            return _Object(name, state, source)
    raise _Refused("has a persistent object of a foreign form")


def _tensor(machine: _Machine, args: tuple[Any, ...]) -> _View:
    """`torch._utils._rebuild_tensor_v2` and its forerunner: storage, offset, size, stride, ..."""
    match args:
        case (_Storage() as storage, int(offset), tuple(size), tuple(stride), *_):
            if len(size) > MAX_DIMENSIONS or len(size) != len(stride):
                raise _Refused("has a tensor of an impossible shape")
            if not all(type(n) is int and 0 <= n < MAX_INTEGER for n in (offset, *size, *stride)):
                raise _Refused("has a tensor of an impossible shape")
            room = len(storage.data) // storage.dtype.itemsize
            count = math.prod(size)
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            if count > room or (count and last >= room):
                raise _Refused("has a tensor that reaches beyond its storage")
            return _View(storage, offset, size, stride)
    raise _Refused("has a tensor of a foreign form")


def _parameter(machine: _Machine, args: tuple[Any, ...]) -> _View:
    match args:
        case (_View() as view, *_):
            return view
    raise _Refused("has a parameter of a foreign form")


_FORMS = {
    "f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "u1": "<B",
    "b1": "<?",
}  # fmt: skip


def _kind(machine: _Machine, args: tuple[Any, ...]) -> _Kind:
    match args:
        case (str(code), *_) if code in _FORMS:
            return _Kind(_FORMS[code])
    raise _Refused("has a number of a foreign kind")


def _scalar(machine: _Machine, args: tuple[Any, ...]) -> Any:
    match args:
        case (_Kind() as kind, memoryview() as data) if len(data) == struct.calcsize(kind.form):
            return struct.unpack(kind.form, data)[0]
    raise _Refused("has a number of a foreign form")


def _empty_dict(machine: _Machine, args: tuple[Any, ...]) -> dict[str, Any]:
    if args != ():
        raise _Refused("has a mapping of a foreign form")
    return {}


def _set(machine: _Machine, args: tuple[Any, ...]) -> set[str]:
    """Protocol 3 has no opcode for sets."""
    made: set[str] = set()
    match args:
        case (list(items),):
            machine.spend(len(items))
            _fill(made, op.ADDITEMS, items)
            return made
    raise _Refused("has a set of a foreign form")


_CALLS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "collections.OrderedDict": _empty_dict,
    "builtins.set": _set,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _Machine.storage,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.dtype": _kind,
}
_INERT = ("training.", "torch.nn.modules.")  # classes of which only `__dict__` is taken
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


def _known(module: str, name: str) -> _Global:
    full = f"{module}.{name}"
    if full in _CALLS:
        return _Global(call=_CALLS[full])
    if full == "dnnlib.util.EasyDict":
        return _Global(new=dict)
    if full.startswith(_INERT):
        return _Global(new=lambda: _Object(name))
    raise _Refused(f"asks for {_shown(full)}, which no EG3D file needs", _DISTRUST)


def _storage_type(module: str, name: str) -> torch.dtype:
    if module == "torch" and name in _STORAGES:
        return _STORAGES[name]
    return _no_names(module, name)


def _no_names(module: str, name: str) -> Any:
    raise _Refused(
        f"asks for {_shown(f'{module}.{name}')} inside a storage, which no EG3D file needs", _DISTRUST
    )


# ----------------------------------------------------------------------------
# From the file's contents to one network.


def _network(content: Any, network: str, limit: int) -> OfficialNetwork:
    if not isinstance(content, dict):
        raise _Refused(f"holds no networks: it is {_DAMAGED}")
    generator = content.get(network)
    if not isinstance(generator, _Object):
        held = [name for name in ("G", "G_ema") if isinstance(content.get(name), _Object)]
        remedy = f"choose another with --network: {', '.join(held)}" if held else _AGAIN
        raise _Refused(f"holds no network {_shown(network)}", remedy)
    if generator.name != GENERATOR or generator.state is None:
        raise _Refused(
            f"holds a {_shown(generator.name)}, not EG3D's {GENERATOR}", "give a checkpoint of EG3D or GUIDE"
        )
    state = generator.state
    if state.get("_init_args", ()) != ():
        raise _Refused("has a generator that was made with nameless arguments")
    resolution = state.get("neural_rendering_resolution")
    if type(resolution) is not int:
        raise _Refused("does not say its neural_rendering_resolution")
    live = state.get("rendering_kwargs")
    kwargs = _settings(state.get("_init_kwargs"), "_init_kwargs")
    _check_axes(generator)
    views, sources = _walk(generator)
    if sum(view.nbytes for view in views.values()) > limit:
        raise _Refused("has tensors that are larger than the file", _DISTRUST)
    return OfficialNetwork(
        class_name=generator.name,
        init_kwargs=kwargs,
        rendering_kwargs=None if live is None else _settings(live, "rendering_kwargs"),
        neural_rendering_resolution=resolution,
        state={name: view.tensor() for name, view in views.items()},
        sources=sources,
    )


def _walk(root: _Object) -> tuple[dict[str, _View], dict[str, str]]:
    """All tensors by name, in the file's order, and the sources' SHA-256 by class."""
    views: dict[str, _View] = {}
    sources: dict[str, str] = {}
    digests: dict[str, str] = {}  # many classes share one long text
    todo, left = [("", root)], MAX_PARTS
    while todo:
        prefix, module = todo.pop()
        parameters, buffers, children = (
            _part(module, key) for key in ("_parameters", "_buffers", "_modules")
        )
        left -= 1 + len(parameters) + len(buffers) + len(children)
        if left < 0 or len(prefix) > MAX_NAME:  # modules that hold one another, for one
            raise _Refused("has far more modules than any EG3D", _DISTRUST)
        passing = (module.state or {}).get("_non_persistent_buffers_set")
        if isinstance(passing, set):
            buffers = {name: view for name, view in buffers.items() if name not in passing}
        for name, view in {**parameters, **buffers}.items():
            if view is None:  # what this module does without
                continue
            _check_name(name)
            if not isinstance(view, _View) or not view.nbytes:
                raise _Refused("has a module with parameters that are no tensors")
            views[prefix + name] = view
        for name, child in reversed(children.items()):
            if child is None:
                continue
            _check_name(name)
            if not isinstance(child, _Object):
                raise _Refused("has a module that is none")
            todo.append((f"{prefix}{name}.", child))
        if module.source is not None:
            if module.source not in digests:
                digests[module.source] = hashlib.sha256(module.source.encode()).hexdigest()
            sources[_shown(module.name)] = digests[module.source]
    return views, sources


def _part(module: _Object, key: str) -> dict[str, Any]:
    part = (module.state or {}).get(key, {})
    if not isinstance(part, dict):
        raise _Refused(f"has a module whose {key} are no mapping")
    return part


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w{1,100}", name, re.ASCII):
        raise _Refused("has a part with an impossible name")


def _check_axes(generator: _Object) -> None:
    renderer = _part(generator, "_modules").get("renderer")
    axes = (renderer.state or {}).get("plane_axes") if isinstance(renderer, _Object) else None
    if not isinstance(axes, _View) or axes.size != (3, 3, 3):
        raise _Refused("has no renderer with plane axes")
    if not torch.equal(axes.tensor().double(), torch.tensor(PLANE_AXES).double()):
        raise _Refused(
            "has other plane axes than the released EG3D models: the fixed axes are not supported",
            "give a checkpoint that was trained with the original renderer",
        )


def _settings(value: Any, what: str) -> dict[str, Any]:
    """Keyword arguments as plain values, of a depth and size that a message can show."""
    if not isinstance(value, dict):
        raise _Refused(f"has no {what}")
    left = 1000

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left > 0 and depth > 0:
            match value:
                case None | bool() | float():
                    return value
                case int() if abs(value) < 2**63:
                    return value
                case str() if len(value) <= MAX_NAME:
                    return value
                case list() | tuple():
                    return [plain(item, depth - 1) for item in value]
                case dict():
                    for key in value:
                        _check_name(key)
                    return {key: plain(item, depth - 1) for key, item in value.items()}
        raise _Refused(f"has {what} that are no plain settings")

    settings: dict[str, Any] = plain(value, depth=5)
    return settings
