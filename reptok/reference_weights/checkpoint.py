"""Read a foreign PyTorch checkpoint without executing anything in it.

Such a file is a zip archive of raw tensors and a pickle that refers to them. The pickle may name any
function of any module; here every name but those of tensors and plain containers resolves to an inert
placeholder that records what it is given.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DAMAGE = (  # what reading a broken or hostile file can raise
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
)
MAX_PICKLE = 2**23
"""Bytes of the pickle; its tensors lie beside it. The release's has a twentieth of it."""
MAX_INTEGER = 8
"""Bytes of a number in it: larger ones only serve to make keys that collide."""
MAX_SHELLS = 16
SCALARS = (str, bytes, int, float, type(None))
LOCAL_HEADER = 30  # fixed part of a zip member's header


class Inert:
    """Stands for an object whose class is not trusted: keeps its state and items, does nothing."""

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.elements: list[Any] = list(arguments)

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        self = super().__new__(cls)
        self.state, self.items, self.elements = None, {}, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return Inert()

    def append(self, element: Any) -> None:
        """Take an element of what was a list."""
        self.elements.append(element)

    def extend(self, elements: Any) -> None:
        """Take elements of what was a list."""
        self.elements.extend(elements)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    if not all(isinstance(number, int) for number in (offset, *size, *stride)):
        raise ValueError("a tensor whose size is no numbers")
    if math.prod(size) > storage.numel():  # a stride of 0 would make many numbers of one
        raise ValueError(f"a tensor of {tuple(size)} over a storage of {storage.numel()} numbers")
    return storage.as_strided(tuple(size), tuple(stride), offset)  # refuses to leave the storage


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_key(key), value) for key, value in items)


def _key(key: Any) -> Any:
    """A key or member that can be hashed in no time: tuples of tuples of the same two take for ever."""
    if isinstance(key, (*SCALARS, Inert)) or (
        isinstance(key, tuple) and all(isinstance(part, SCALARS) for part in key)
    ):
        return key
    raise pickle.UnpicklingError(f"{type(key).__name__} is no key of a checkpoint")


TRUSTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): _ordered,
    ("torch", "Size"): tuple,
}


HASHING = {
    pickle.SETITEM: slice(-2, None, 2),
    pickle.SETITEMS: slice(0, None, 2),
    pickle.DICT: slice(0, None, 2),
    pickle.ADDITEMS: slice(None),
    pickle.FROZENSET: slice(None),
}
"""Instructions that hash, and where they find keys on the stack."""


def _looked_at(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """An instruction that first looks at the keys among what it takes from the stack."""

    def looked_at(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            _key(key)
        load(unpickler)

    return looked_at


class _InertUnpickler(pickle._Unpickler):
    """Resolves tensors and containers; all else is :class:`Inert`.

    The one that is written in Python: it lets keys be looked at before they are hashed.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        **{code[0]: _looked_at(pickle._Unpickler.dispatch[code[0]], keys) for code, keys in HASHING.items()},
    }

    def __init__(self, file: Any, storage: Callable[[Any], Tensor]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        return TRUSTED.get((module, name), Inert)

    def persistent_load(self, reference: Any) -> Tensor:
        return self._storage(reference)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors are mapped from the file, objects of unknown classes become :class:`Inert`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no PyTorch zip checkpoint, or it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename: m for m in archive.infolist()}
            pickles = [n for n in members if n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError(f"{path} is no PyTorch checkpoint: it holds {len(pickles)} data.pkl")
            root = pickles[0].removesuffix("data.pkl")

            def storage(reference: Any) -> Tensor:
                kind, dtype, key, _, num = reference
                if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
                    raise ValueError(f"{path} refers to storage of an unknown kind")
                return _map_storage(path, members[f"{root}data/{key}"], dtype, int(num))

            checkpoint = _InertUnpickler(io.BytesIO(_pickle(archive, members[pickles[0]])), storage).load()
    except (*DAMAGE, MemoryError) as error:
        raise ValueError(f"{path} is no readable PyTorch checkpoint: {error}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds no dictionary")
    return checkpoint


def _pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The pickle, whole, once none of its instructions claims more memory than it has bytes."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > MAX_PICKLE:
        raise ValueError(f"{member.filename} is compressed or has more than {MAX_PICKLE} bytes")
    data = archive.read(member)
    try:
        instructions = list(pickletools.genops(data))
    except ValueError as error:
        raise ValueError(f"{member.filename} is damaged: {error}") from error
    for opcode, argument, _ in instructions:
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError(f"{member.filename} numbers more objects than it can hold")
        if isinstance(argument, int) and argument.bit_length() > 8 * MAX_INTEGER:
            raise ValueError(f"{member.filename} has a number of {argument.bit_length()} bits")
    return data


def _map_storage(path: Path, member: zipfile.ZipInfo, dtype: torch.dtype, num: int) -> Tensor:
    """The flat tensor of one uncompressed member, copy-on-write over the file."""
    nbytes = num * dtype.itemsize
    if member.compress_type != zipfile.ZIP_STORED or member.file_size < nbytes:
        raise ValueError(f"{member.filename} in {path} is compressed or too short")
    if num == 0:
        return torch.empty(0, dtype=dtype)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<26xHH", file.read(LOCAL_HEADER))
    start = member.header_offset + LOCAL_HEADER + name_length + extra_length
    mapped = np.memmap(path, dtype=np.uint8, mode="c", offset=start, shape=(nbytes,))
    return torch.from_numpy(mapped).view(dtype)


def entry(value: Any, *path: str) -> Any:
    """A leaf of untrusted configuration objects, OmegaConf's containers among them; nothing else is visited.

    Such objects may hold each other a million times over, or themselves: only the way to the leaf is walked.

    Raises:
        KeyError: There is no such entry.
    """
    value = _opened(value)
    for key in path:
        if not isinstance(value, dict) or key not in value:
            raise KeyError(key)
        value = _opened(value[key])
    return value


def _opened(value: Any) -> Any:
    """What an object stands for: the content of OmegaConf's containers and leaves, else its items."""
    for _ in range(MAX_SHELLS):
        if not isinstance(value, Inert):
            return value
        state = value.state
        if isinstance(state, dict) and ("_content" in state or "_val" in state):
            value = state["_content"] if "_content" in state else state["_val"]
        else:
            return value.items or state or value.elements or None
    raise KeyError("an object that stands for itself")
