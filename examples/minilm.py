"""all-MiniLM-L6-v2 as ONNX, built from its trained weights, and the WordPiece tokenizer it was trained with.

The network is BERT (post-norm, 6 layers, 12 heads of 32, erf Gelu) followed by mean pooling over the unmasked tokens
and division by the length, as the model's card, in the package that carries the weights, describes.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_LAYER_NORM_EPSILON = 1e-12
# Far below any attention score, and within float16's range.
_MASKED = -10000.0


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 and int64 tensors of a safetensors file: an 8-byte length, a JSON header, then the raw bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    dtypes = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[first:last], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


class _Graph:
    """Nodes and initializers in the making; each method returns the name of the value it makes."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, *, transpose: bool = False) -> str:
        value = self._weights[name]
        return self.constant(name, value.T if transpose else value)

    def constant(self, name: str, value: object) -> str:
        array = np.ascontiguousarray(np.asarray(value))
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def add(self, op_type: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, name: str, x: str, prefix: str) -> str:
        product = self.add("MatMul", f"{name}/MatMul", x, self.weight(f"{prefix}.weight", transpose=True))
        return self.add("Add", f"{name}/Add", product, self.weight(f"{prefix}.bias"))

    def layer_norm(self, name: str, x: str, prefix: str) -> str:
        scale, bias = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.add("LayerNormalization", name, x, scale, bias, axis=-1, epsilon=_LAYER_NORM_EPSILON)

    def gelu(self, name: str, x: str) -> str:
        scaled = self.add("Div", f"{name}/Div", x, self.constant("sqrt2", np.float32(np.sqrt(2))))
        erf = self.add("Erf", f"{name}/Erf", scaled)
        one_more = self.add("Add", f"{name}/Add", erf, self.constant("one", np.float32(1)))
        product = self.add("Mul", f"{name}/Mul", x, one_more)
        return self.add("Mul", f"{name}/Mul_1", product, self.constant("half", np.float32(0.5)))


def build(weights: Path, destination: Path) -> None:
    """Write the encoder as ONNX, opset 17: input_ids, attention_mask int64 [batch, tokens] -> float32 [batch, 384]."""
    tensors = read_safetensors(weights)
    g = _Graph(tensors)
    words = g.add("Gather", "embeddings/word", g.weight("embeddings.word_embeddings.weight"), "input_ids")
    length = g.add("Shape", "embeddings/length", "input_ids", start=1, end=2)
    positions = g.add(
        "Slice",
        "embeddings/position",
        g.weight("embeddings.position_embeddings.weight"),
        g.constant("zero", np.array([0])),
        length,
        g.constant("axis0", np.array([0])),
    )
    # Every token is of the first segment.
    segment = g.constant("embeddings.segment", tensors["embeddings.token_type_embeddings.weight"][0])
    x = g.add("Add", "embeddings/Add_1", g.add("Add", "embeddings/Add", words, positions), segment)
    x = g.layer_norm("embeddings/LayerNormalization", x, "embeddings.LayerNorm")

    mask = g.add("Cast", "mask/Cast", "attention_mask", to=TensorProto.FLOAT)
    keys = g.add("Unsqueeze", "mask/keys", mask, g.constant("axes12", np.array([1, 2])))
    hidden = g.add("Sub", "mask/Sub", g.constant("one", np.float32(1)), keys)
    bias = g.add("Mul", "mask/Mul", hidden, g.constant("masked", np.float32(_MASKED)))

    split = g.constant("split", np.array([0, 0, _HEADS, _WIDTH // _HEADS]))
    merge = g.constant("merge", np.array([0, 0, _WIDTH]))
    root = g.constant("root", np.float32(np.sqrt(_WIDTH // _HEADS)))
    for i in range(_LAYERS):
        layer, at = f"encoder.layer.{i}", f"layer.{i}"
        heads = {}
        for role, permutation in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            projected = g.linear(f"{at}/{role}", x, f"{layer}.attention.self.{role}")
            shaped = g.add("Reshape", f"{at}/{role}/Reshape", projected, split)
            heads[role] = g.add("Transpose", f"{at}/{role}/Transpose", shaped, perm=permutation)
        scores = g.add("MatMul", f"{at}/scores/MatMul", heads["query"], heads["key"])
        scores = g.add("Add", f"{at}/scores/Add", g.add("Div", f"{at}/scores/Div", scores, root), bias)
        attention = g.add("Softmax", f"{at}/Softmax", scores, axis=-1)
        context = g.add("MatMul", f"{at}/context/MatMul", attention, heads["value"])
        context = g.add("Transpose", f"{at}/context/Transpose", context, perm=[0, 2, 1, 3])
        context = g.add("Reshape", f"{at}/context/Reshape", context, merge)
        out = g.linear(f"{at}/attention/output", context, f"{layer}.attention.output.dense")
        x = g.layer_norm(
            f"{at}/attention/LayerNormalization",
            g.add("Add", f"{at}/attention/residual", out, x),
            f"{layer}.attention.output.LayerNorm",
        )
        inner = g.gelu(f"{at}/gelu", g.linear(f"{at}/intermediate", x, f"{layer}.intermediate.dense"))
        out = g.linear(f"{at}/output", inner, f"{layer}.output.dense")
        x = g.layer_norm(
            f"{at}/output/LayerNormalization",
            g.add("Add", f"{at}/output/residual", out, x),
            f"{layer}.output.LayerNorm",
        )

    weight = g.add("Unsqueeze", "pool/mask", mask, g.constant("axes2", np.array([2])))
    axis = g.constant("axis1", np.array([1]))
    total = g.add("ReduceSum", "pool/sum", g.add("Mul", "pool/Mul", x, weight), axis, keepdims=0)
    count = g.add("ReduceSum", "pool/count", weight, axis, keepdims=0)
    mean = g.add("Div", "pool/mean", total, count)
    norm = g.add("ReduceL2", "pool/length", mean, axes=[1], keepdims=1)
    g.add("Div", "sentence_embedding", mean, norm)

    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", _WIDTH])],
        list(g.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(destination))


class WordPiece:
    """BERT's uncased tokenizer: lower case, accents stripped, punctuation apart, longest known piece first."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {piece: i for i, piece in enumerate(vocabulary)}

    def encode(self, text: str, length: int) -> dict[str, np.ndarray]:
        """input_ids and attention_mask, int64 [1, length], padded or cut to length."""
        pieces = [piece for word in self._words(text) for piece in self._pieces(word)][: length - 2]
        ids = [self._ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]
        row = np.zeros((2, 1, length), np.int64)
        row[0, 0, : len(ids)] = ids
        row[1, 0, : len(ids)] = 1
        return {"input_ids": row[0], "attention_mask": row[1]}

    @staticmethod
    def _words(text: str) -> list[str]:
        bare = (c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        return "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in bare).split()

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in self._ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(prefix + word[start:end])
            start = end
        return pieces
