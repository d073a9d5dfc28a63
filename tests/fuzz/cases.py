"""Cases of each kind of file that planner reads, from a seed: the same seed gives the same bytes."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Make = Callable[[random.Random], bytes]
_NUMBERS = (0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63), 10**12)
_TEXTS = ("", "x", "y", "w", "ai.onnx", "../x", "/dev/zero", "a\0b", "ä" * 40, "NaN", "%s", "MatMul", "Conv", "0")


def model() -> onnx.ModelProto:
    """A model with a weight, a branch, a function, shape arithmetic and a Constant node."""
    info = helper.make_tensor_value_info
    branch = helper.make_graph(
        [helper.make_node("Relu", ["h"], ["o"])], "b", [], [info("o", TensorProto.FLOAT, [2, 8])]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"),
        helper.make_node("If", ["t"], ["r"], name="if", then_branch=branch, else_branch=branch),
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.INT64, [2], [4, 4])),
        helper.make_node("Reshape", ["r", "c"], ["s"], name="reshape"),
        helper.make_node("f", ["s"], ["y"], domain="own"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Tanh", ["a"], ["b"])], opsets)
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, [2, 4])],
        [info("y", TensorProto.FLOAT, [4, 4])],
        [weight, helper.make_tensor("t", TensorProto.BOOL, [], [True])],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function])


_MODEL = model()
_BYTES = _MODEL.SerializeToString()


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content with some bytes flipped, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.randint(1, 40)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 60)]
            case 4:
                data = data[:at] if rng.random() < 0.2 else data
    return bytes(data)


def model_bytes(rng: random.Random) -> bytes:
    """A model file with damaged bytes."""
    return damaged(rng, _BYTES)


def _messages(message: Any) -> list[Any]:
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                found += _messages(inner)
    return found


def _change(rng: random.Random, message: Any) -> None:
    """Change one field of a message to something that its type allows."""
    fields = [f for f in message.DESCRIPTOR.fields if f.message_type is None]
    if not fields:
        return
    field = rng.choice(fields)
    value: Any
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32):
        value = rng.choice([n for n in _NUMBERS if 0 <= n < 2**31])
    elif field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        value = rng.choice([n for n in _NUMBERS if n >= 0] if field.cpp_type == field.CPPTYPE_UINT64 else _NUMBERS)
    elif field.cpp_type == field.CPPTYPE_ENUM:
        value = rng.choice(field.enum_type.values).number
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        value = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    elif field.type == field.TYPE_BYTES:
        value = rng.randbytes(rng.choice((0, 1, 4, 128)))
    else:
        value = rng.choice(_TEXTS)
    if field.is_repeated:
        values = getattr(message, field.name)
        if values and rng.random() < 0.5:
            del values[rng.randrange(len(values))]
        else:
            values.append(value)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, value)


def model_structure(rng: random.Random) -> bytes:
    """A model whose messages are well formed and say something else."""
    proto = onnx.ModelProto()
    proto.CopyFrom(_MODEL)
    for _ in range(rng.randint(1, 4)):
        _change(rng, rng.choice(_messages(proto)))
    return bytes(proto.SerializeToString())


def _mutated(rng: random.Random, value: Any) -> Any:
    """A JSON value with one place changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        changed = dict(value)
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _mutated(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], _mutated(rng, value[at]), *value[at + 1 :]]
    return rng.choice(
        (None, True, -1, 0, 1.5, 10**30, 1e400, "", "x", "uint8", "a\0b", [], {}, [[]], {"a": None}, "../x")
    )


def json_of(document: Any) -> Make:
    """Makes a JSON document with changed values or damaged text."""

    def make(rng: random.Random) -> bytes:
        changed = document
        for _ in range(rng.randint(1, 3)):
            changed = _mutated(rng, changed)
        text = json.dumps(changed).encode()
        return damaged(rng, text) if rng.random() < 0.3 else text

    return make


def text_of(text: str) -> Make:
    """Makes a text with damaged bytes, or with words and lines in other places."""

    def make(rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return damaged(rng, text.encode())
        lines = text.splitlines()
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            match rng.randrange(4):
                case 0:
                    lines[at] = lines[at].replace(rng.choice(lines[at].split() or [""]), rng.choice(_TEXTS))
                case 1:
                    lines[at] = "  " * rng.randrange(4) + lines[at].strip()
                case 2:
                    del lines[at]
                    lines = lines or [""]
                case 3:
                    lines.insert(at, rng.choice(lines))
        return "\n".join(lines).encode(errors="replace")

    return make


def npz(rng: random.Random) -> bytes:
    """An archive of arrays: of another type, shape, order or compression, or damaged."""
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in rng.choice((["x.npy"], ["x.npy", "z.npy"], ["x"], [], ["x.npy", "x"])):
            kind = rng.choice(("f4", "f8", "f2", "i8", "u1", "?", "c8", "U3", "M8[s]", "V3"))
            shape = tuple(rng.choice((0, 1, 2, 3, 4, 8)) for _ in range(rng.randrange(5)))
            member = io.BytesIO()
            array = np.zeros(shape, kind, order=rng.choice(("C", "F")))
            np.lib.format.write_array(member, array)
            content = member.getvalue()
            if rng.random() < 0.3:
                content = content.replace(b"(", b"(" * rng.choice((1, 3, 2000)), 1)
            if rng.random() < 0.3:
                content = content.replace(b"4", rng.choice((b"9" * 30, b"-1", b"None")), 1)
            archive.writestr(name, damaged(rng, content) if rng.random() < 0.3 else content)
    return damaged(rng, stream.getvalue()) if rng.random() < 0.5 else stream.getvalue()


def read(path: Path) -> str:
    """A file of the project, as text."""
    return path.read_text(encoding="utf-8")
