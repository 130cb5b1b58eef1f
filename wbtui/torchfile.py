"""The header of a PyTorch ``.pt``: names, dtypes and places of its tensors, without running anything and without torch.

Since PyTorch 1.6 ``torch.save`` writes a zip file: a pickle that describes the tensors, and one stored member for each
storage. The pickle's instructions are first held against a list of the few that such files need; then it is read by an
unpickler that knows a handful of names, stand-ins of ours all but one, and refuses every other: stricter than
``torch.load(weights_only=True)``, and, unlike there, tensors can be mapped where they lie. Older files are refused.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wbtui.errors import WeightsError
from wbtui.tensorfile import ITEM_BYTES, Header, TensorEntry
from wbtui.zipplaces import STORED, Member, read_places, unpack

MAX_PICKLE_BYTES = 4_000_000
MAX_TENSORS = 100_000
STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32",
    "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID", "EMPTY_DICT", "SETITEM",
    "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE",
    "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE",
})  # fmt: skip
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_AGAIN = "copy or download the file again"
_SAFE = "wbtui reads tensors only and never unpickles; save the state dict alone, best as safetensors"


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The pickle names something that is no tensor."""


class _Kind:
    """Stands for a storage class."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> _Stored:
    whole = isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if not whole or len(shape) != len(strides) or len(shape) > 8:
        raise _Refused("a malformed tensor")
    for number in (offset, *shape, *strides):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 48:
            raise _Refused("a malformed tensor")
    return _Stored(storage, offset, shape, strides)


def _parameter(data: Any, *_rest: Any) -> _Stored:
    if not isinstance(data, _Stored):
        raise _Refused("a malformed parameter")
    return data


class _Unpickler(pickle._Unpickler):
    """Knows tensors, parameters and ordered dictionaries; everything else that a pickle can name is refused.

    The one written in Python: that in C reserves memory for whatever number a pickle gives to a remembered object.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Attributes of objects (a state dict's ``_metadata``) are dropped, never set."""
        self.stack.pop()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _tensor
        if (module, name) in (("torch._utils", "_rebuild_parameter"), ("torch.nn.parameter", "Parameter")):
            return _parameter
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _Kind(STORAGES[name])
        raise _Refused(f"{module}.{name}"[:120])

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _Kind)):
            raise _Refused("an unknown storage")
        _, kind, key, _, count = pid
        if not isinstance(key, str) or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise _Refused("a malformed storage")
        return _Storage(kind.dtype, key, count)


def read_torch_header(path: Path) -> Header:
    """Read and check what a ``.pt`` says of its tensors.

    Nested dictionaries of tensors get dotted names (``state_dict.encoder.weight``); the header's ``metadata`` holds the
    top level's plain values (OpenAI's ``activation``) as text.

    Raises:
        WeightsError: not a zipped PyTorch file, a pickled object that is no tensor, sizes that contradict each other.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable .pt file") from None
    if start[:4] != b"PK\x03\x04":
        old = start[:2] == b"\x80\x02"
        raise WeightsError(
            f"{path}: {'a pickle stream, as PyTorch wrote it before 1.6' if old else 'not a zipped PyTorch file'}",
            "a file that torch.save of PyTorch 1.6 or later wrote",
            _SAFE,
        )
    members = read_places(path)
    root = next((name.removesuffix("data.pkl") for name in members if re.fullmatch(r"([^/]+/)?data\.pkl", name)), None)
    if root is None:
        raise WeightsError(f"{path}: a zip file without data.pkl", "a PyTorch file", _SAFE)
    order = members.get(f"{root}byteorder")
    if order is not None and unpack(path, order, 100).strip() != b"little":
        raise WeightsError(f"{path}: big-endian", "little-endian tensors")
    data = _loaded(path, unpack(path, members[f"{root}data.pkl"], MAX_PICKLE_BYTES))
    found: dict[str, _Stored] = {}
    _collect(data, "", found, 0)
    if not found:
        raise WeightsError(f"{path}: no tensor in it", "a dictionary of tensors (a state dict)")
    tensors = {name: _entry(path, name, stored, members, root) for name, stored in found.items()}
    plain = {str(k): str(v) for k, v in data.items() if isinstance(v, (str, int, float))}
    return Header(path, tensors, plain, 0, path.stat().st_size)


def _loaded(path: Path, raw: bytes) -> dict[Any, Any]:
    try:
        for opcode, _, _ in pickletools.genops(raw):
            if opcode.name not in OPCODES:
                raise _Refused(f"the instruction {opcode.name}")
        data = _Unpickler(io.BytesIO(raw)).load()
    except _Refused as refused:
        raise WeightsError(f"{path}: its pickle holds {refused}", "tensors", _SAFE) from None
    except Exception as error:  # a damaged pickle can fail in any way; none of them runs anything
        raise WeightsError(f"{path}: damaged pickle ({type(error).__name__})", "a PyTorch file", _AGAIN) from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: holds a {type(data).__name__}", "a dictionary of tensors (a state dict)")
    return data


def _collect(data: dict[Any, Any], prefix: str, out: dict[str, _Stored], depth: int) -> None:
    """Tensors by dotted name, a few levels deep: a dictionary may hold itself."""
    for key, value in data.items():
        name = f"{prefix}{key}"
        if len(out) > MAX_TENSORS:
            return
        if isinstance(value, _Stored):
            out[name] = value
        elif isinstance(value, dict) and depth < 3:
            _collect(value, name + ".", out, depth + 1)


def _entry(path: Path, name: str, stored: _Stored, members: dict[str, Member], root: str) -> TensorEntry:
    member = members.get(f"{root}data/{stored.storage.key}")
    if member is None or member.method != STORED:
        raise WeightsError(f"{path}: no stored bytes for tensor {name}", "a whole PyTorch file", _AGAIN)
    item = ITEM_BYTES[stored.storage.dtype]
    if member.size != stored.storage.count * item:
        raise WeightsError(
            f"{path}: the storage of {name} has {member.size} bytes", f"{stored.storage.count * item}", _AGAIN
        )
    shape, strides = stored.shape, stored.strides
    c_order = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    empty = 0 in shape
    contiguous = empty or all(n == 1 or s == c for n, s, c in zip(shape, strides, c_order, strict=True))
    last = 0 if empty else sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    if stored.offset + last > stored.storage.count:
        raise WeightsError(f"{path}: tensor {name} reaches outside its storage", "a whole PyTorch file", _AGAIN)
    begin = member.begin + stored.offset * item
    return TensorEntry(name, stored.storage.dtype, shape, begin, begin + last * item, None if contiguous else strides)
