"""An ONNX file read as far as its inputs, outputs, operators and external weights, without `onnx`.

The file is a protocol buffer (https://protobuf.dev/programming-guides/encoding) of `ModelProto`
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). OpenVINO runs such files by itself, but does not
say which files their weights are in, nor which operators are not ONNX's. A test compares with `onnx`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.features.backbones.model_facts import Dimension, ModelFacts, Tensor

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "org.openvinotoolkit")


class _Damaged(ValueError):
    """The bytes are not those of a protocol buffer."""


class _Field(NamedTuple):
    number: int
    value: int | memoryview

    @property
    def bytes(self) -> memoryview:
        if isinstance(self.value, int):
            raise _Damaged
        return self.value

    @property
    def text(self) -> str:
        return str(self.bytes, "utf-8")


def onnx_facts(path: Path) -> ModelFacts:
    """Inputs, outputs, the number of parameters and the files of external weights.

    Raises `ConfigError` for a file that is no ONNX model, that uses operators which ONNX does not
    define, or whose external weights are not beside it.
    """
    try:
        with _mapped(path) as data:
            model = list(_fields(data))
            graphs = [field.bytes for field in model if field.number == 7]
            if len(graphs) != 1:
                raise _Damaged
            _require_known_operators(path, model, graphs[0])
            facts = _graph_facts(path, graphs[0])
            # A view that is still held would keep the file mapped.
            del model, graphs
            return facts
    except OSError as error:
        raise ConfigError(
            f"the model file {str(path)!r} cannot be read ({error.strerror}): "
            "check its path and permissions"
        ) from None
    except (_Damaged, UnicodeDecodeError):
        raise ConfigError(
            f"{str(path)!r} is no ONNX model, or a damaged one: export the model again "
            "(torch.onnx.export, tf2onnx or Keras' model.export)"
        ) from None


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise _Damaged
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield data


def _graph_facts(path: Path, graph: memoryview) -> ModelFacts:
    inputs, outputs, weights, external = [], [], set(), set()
    parameters = 0
    for field in _fields(graph):
        if field.number == 5:
            name, count, locations = _weight(field.bytes)
            weights.add(name)
            parameters += count
            external |= locations
        elif field.number == 11:
            inputs.append(_value(field.bytes))
        elif field.number == 12:
            outputs.append(_value(field.bytes))
        elif field.number == 1:
            for tensor in _constants(field.bytes):
                external |= _weight(tensor)[2]
    files = tuple(_external_file(path, location) for location in sorted(external))
    return ModelFacts(
        # Older files list their weights among the inputs.
        inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
        outputs=tuple(outputs),
        parameters=parameters,
        files=files,
    )


def _external_file(path: Path, location: str) -> Path:
    file = path.parent / location
    if os.path.isabs(location) or ".." in Path(location).parts:
        raise ConfigError(
            f"{str(path)!r} keeps weights in {location!r}, outside of its folder: save the model "
            "again, with its weights in one file or beside it"
        )
    if not file.is_file():
        raise ConfigError(
            f"{str(path)!r} keeps weights in {location!r}, which is not beside it: "
            f"copy that file to {str(path.parent)!r} too"
        )
    return file


def _require_known_operators(path: Path, model: list[_Field], graph: memoryview) -> None:
    functions = {_function(field.bytes) for field in model if field.number == 25}
    custom = {
        f"{domain}::{name}"
        for domain, name in _operators(graph)
        if domain not in _OWN_DOMAINS and (domain, name) not in functions
    }
    if custom:
        raise ConfigError(
            f"{str(path)!r} uses the operators {', '.join(sorted(custom))}, which ONNX does not define: "
            "export the model with operators of ONNX only, or give package.module:function, which "
            "returns a backbone that can run it"
        )


def _operators(graph: memoryview) -> Iterator[tuple[str, str]]:
    """(domain, operator) of every node, those of subgraphs too."""
    for field in _fields(graph):
        if field.number != 1:
            continue
        domain = operator = ""
        for part in _fields(field.bytes):
            if part.number == 4:
                operator = part.text
            elif part.number == 7:
                domain = part.text
            elif part.number == 5:
                for attribute in _fields(part.bytes):
                    if attribute.number in (6, 11):
                        yield from _operators(attribute.bytes)
        yield domain, operator


def _function(data: memoryview) -> tuple[str, str]:
    texts = {field.number: field.text for field in _fields(data) if field.number in (1, 10)}
    return texts.get(10, ""), texts.get(1, "")


def _constants(node: memoryview) -> Iterator[memoryview]:
    """The tensors among a node's attributes."""
    for field in _fields(node):
        if field.number == 5:
            for attribute in _fields(field.bytes):
                if attribute.number == 5:
                    yield attribute.bytes


def _weight(tensor: memoryview) -> tuple[str, int, set[str]]:
    """A tensor's name, how many numbers it has if they are floats, and the files in which they are."""
    name, dtype, dimensions, files = "", 0, list[int](), set[str]()
    for field in _fields(tensor):
        if field.number == 1:
            one = field.value
            dimensions += [one] if isinstance(one, int) else list(_varints(one))
        elif field.number == 2 and isinstance(field.value, int):
            dtype = field.value
        elif field.number == 8:
            name = field.text
        elif field.number == 13:
            entry = {part.number: part.text for part in _fields(field.bytes)}
            if entry.get(1) == "location":
                files.add(entry.get(2, ""))
    learned = "float" in _DTYPES.get(dtype, "")
    return name, math.prod(dimensions) if learned else 0, files


def _value(data: memoryview) -> Tensor:
    """A `ValueInfoProto`: its name, and what its `TypeProto.Tensor` says."""
    name, dtype = "", ""
    shape: tuple[Dimension, ...] | None = None
    for field in _fields(data):
        if field.number == 1:
            name = field.text
        elif field.number == 2:
            for kind in _fields(field.bytes):
                for part in _fields(kind.bytes) if kind.number == 1 else ():
                    if part.number == 1 and isinstance(part.value, int):
                        dtype = _DTYPES.get(part.value, "another type")
                    elif part.number == 2:
                        shape = tuple(map(_dimension, _messages(part.bytes)))
    return Tensor(name=name, shape=shape, dtype=dtype)


def _messages(data: memoryview) -> Iterator[memoryview]:
    return (field.bytes for field in _fields(data) if field.number == 1)


def _dimension(data: memoryview) -> Dimension:
    for field in _fields(data):
        if field.number == 1 and isinstance(field.value, int):
            return field.value
    return None


def _fields(data: memoryview) -> Iterator[_Field]:
    """The fields of a message. Raises `_Damaged` where the bytes are none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            whole, at = _varint(data, at)
            yield _Field(number, whole)
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or not number or at + size > len(data):
            raise _Damaged
        yield _Field(number, data[at : at + size])
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    whole = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        whole |= (byte & 127) << shift
        if byte < 128:
            return whole, at
    raise _Damaged


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        whole, at = _varint(data, at)
        yield whole
