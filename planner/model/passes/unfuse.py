"""Operators that onnxruntime's own optimizer makes for some EPs, written with ONNX's again for those that have none.

onnxruntime, docs/ContribOperators.md: what each computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import put_before, put_in_place
from planner.model.passes.match import float_attribute, int_attribute, text_attribute

_DOMAIN = "com.microsoft"
# LayerNormalization and Gelu are ONNX's own from these opsets on.
_LAYER_NORM_OPSET, _GELU_OPSET = 17, 20


def unfuse(model: ir.Model, taken: Collection[str]) -> None:
    """Write those that the target does not take with others, in every graph, in place.

    Args:
        model: at the opset that it will be written at.
        taken: operators that the target takes, with their domain before a dot.
    """
    opset, names = model.opset_imports.get("", 1), Names(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            spelled = _SPELLED.get(node.op_type) if node.domain == _DOMAIN else None
            if spelled is None or opset < spelled[0]:
                continue
            _, required, spell = spelled
            if any(i >= len(node.inputs) or node.inputs[i] is None for i in required):
                continue  # the file is broken
            # A Gelu of ONNX can be quantized, one of these cannot.
            better = spell is _bias_gelu and "Gelu" in taken
            if better or f"{_DOMAIN}.{node.op_type}" not in taken:
                spell(_Writer(node, names))


_TO_FLOAT = ir.AttrInt64("to", int(ir.DataType.FLOAT))


def _is_read(node: ir.Node, *positions: int) -> bool:
    """Whether anything reads one of these results."""
    results = [node.outputs[i] for i in positions if i < len(node.outputs)]
    return any(out.uses() or out.is_graph_output() for out in results)


class _Writer:
    """Nodes in the place of one."""

    def __init__(self, node: ir.Node, names: Names) -> None:
        self.node, self._names = node, names

    def operand(self, position: int) -> ir.Value | None:
        return self.node.inputs[position] if position < len(self.node.inputs) else None

    def put(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()) -> ir.Value:
        """A node before this one; its result."""
        new = ir.Node("", op_type, inputs, attributes, name=self._names.beside(self.node, op_type))
        return put_before(self.node, new, f"{self.node.outputs[0].name}_{op_type}", None, self._names)

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """A constant vector of int64."""
        made = self.put("Constant", [], [ir.AttrInt64s("value_ints", numbers)])
        made.type = ir.TensorType(ir.DataType.INT64)
        return made

    def number(self, number: float) -> ir.Value:
        """A constant of one float."""
        return self.put("Constant", [], [ir.AttrFloat32("value_float", number)])

    def sum(self, *values: ir.Value | None) -> ir.Value | None:
        """What is given of them, added."""
        total: ir.Value | None = None
        for value in values:
            if value is not None:
                total = value if total is None else self.put("Add", [total, value])
        return total

    def end(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = ()) -> None:
        """The node whose result takes the place of this one's first."""
        put_in_place(self.node, ir.Node("", op_type, inputs, attributes))

    def hand_over(self, position: int, value: ir.Value | None) -> None:
        """Let whoever reads a further result read another value."""
        if position < len(self.node.outputs) and value is not None and self.node.outputs[position].name:
            old = self.node.outputs[position]
            name = old.name
            old.replace_all_uses_with(value, replace_graph_outputs=True)
            if value.is_graph_output():
                old.name, value.name = None, name


def _skip_norm(write: _Writer) -> None:
    node = write.node
    if _is_read(node, 1, 2):
        return  # mean and deviation are wanted too
    simplified = node.op_type.startswith("SkipSimplified")
    bias = write.operand(3 if simplified else 4)
    total = write.sum(write.operand(0), write.operand(1), bias)
    write.hand_over(3, total)
    epsilon = ir.AttrFloat32("epsilon", float_attribute(node, "epsilon", 1e-5 if simplified else 1e-12))
    attributes = [ir.AttrInt64("axis", -1), epsilon]
    if simplified:
        write.end("SimplifiedLayerNormalization", [total, write.operand(2)], attributes)
    else:
        beta = write.operand(3)
        write.end("LayerNormalization", [total, write.operand(2), *([] if beta is None else [beta])], attributes)


def _bias_gelu(write: _Writer) -> None:
    around = "tanh" if write.node.op_type == "FastGelu" else "none"
    write.end("Gelu", [write.sum(write.operand(0), write.operand(1))], [ir.AttrString("approximate", around)])


_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"),
}  # fmt: skip


def _activated(write: _Writer, op_type: str, inputs: Sequence[ir.Value | None]) -> None:
    """An operator of ONNX with an activation behind it."""
    node = write.node
    activation = text_attribute(node, "activation", "")
    kept = [a for name, a in node.attributes.items() if not name.startswith("activation")]
    params = list(node.attributes["activation_params"].as_floats()) if "activation_params" in node.attributes else []
    if not activation:
        write.end(op_type, inputs, kept)
    elif activation == "Clip" and len(params) == 2:
        result = write.put(op_type, inputs, kept)
        write.end("Clip", [result, *(write.number(bound) for bound in params)])
    elif activation in _ACTIVATIONS:
        given = params or [
            node.attributes[f"activation_{name}"].as_float()
            for name in _ACTIVATIONS[activation]
            if f"activation_{name}" in node.attributes
        ]
        named = [ir.AttrFloat32(name, number) for name, number in zip(_ACTIVATIONS[activation], given, strict=False)]
        write.end(activation, [write.put(op_type, inputs, kept)], named)


def _fused_conv(write: _Writer) -> None:
    if write.operand(3) is None:
        _activated(write, "Conv", [v for v in (write.operand(i) for i in range(3)) if v is not None])


def _fused_gemm(write: _Writer) -> None:
    _activated(write, "Gemm", [v for v in (write.operand(i) for i in range(3)) if v is not None])


def _embedding_norm(write: _Writer) -> None:
    node, mask = write.node, write.operand(7)
    counted = _is_read(node, 1)
    if counted and mask is None:
        return
    ids, places = write.operand(0), write.operand(8)
    if places is None:
        if ids is None or ids.shape is None or len(ids.shape) != 2 or not isinstance(ids.shape[1], int):
            return
        places = write.integers(list(range(ids.shape[1])))
    if counted:
        # How many of each row count: onnxruntime believes that these are the first.
        kept = write.put("Cast", [mask], [_TO_FLOAT])
        numbers = write.put("ReduceSum", [kept, write.integers([1])], [ir.AttrInt64("keepdims", 0)])
        lengths = write.put("Cast", [numbers], [ir.AttrInt64("to", int(ir.DataType.INT32))])
        lengths.type = ir.TensorType(ir.DataType.INT32)
        write.hand_over(1, lengths)
    rows = [write.put("Gather", [write.operand(table), at]) for table, at in ((2, ids), (3, places))]
    if write.operand(1) is not None and write.operand(4) is not None:
        rows.append(write.put("Gather", [write.operand(4), write.operand(1)]))
    total = write.sum(*rows)
    write.hand_over(2, total)
    epsilon = ir.AttrFloat32("epsilon", float_attribute(node, "epsilon", 1e-12))
    write.end("LayerNormalization", [total, write.operand(5), write.operand(6)], [ir.AttrInt64("axis", -1), epsilon])


def _is_spelled_mask(mask: ir.Value, dims: Sequence[int]) -> bool:
    """Whether a mask is one of 0 and 1 for each place, or one length for each row."""
    shape = None if mask.shape is None or not mask.shape.is_static() else [int(d) for d in mask.shape.numpy()]
    return shape in (list(dims[:2]), [dims[0]])


def _attention(write: _Writer) -> None:
    """Self-attention by one weight: product, heads apart, scores, mask, Softmax, heads together."""
    node = write.node
    x, weight, bias, mask, past, added = (write.operand(i) for i in range(6))
    dims = [] if x is None or x.shape is None or not x.shape.is_static() else [int(d) for d in x.shape.numpy()]
    width = None if weight is None or weight.shape is None else weight.shape[-1]
    heads = int_attribute(node, "num_heads", 0)
    further = _is_read(node, 1, 2, 3)
    known = len(dims) == 3 and isinstance(width, int) and heads > 0 and width % (3 * heads) == 0
    if (
        not known
        or past is not None
        or further
        or any(int_attribute(node, n, 0) for n in ("unidirectional", "do_rotary"))
    ):
        return
    if "qkv_hidden_sizes" in node.attributes or (mask is not None and not _is_spelled_mask(mask, dims)):
        return
    assert isinstance(width, int)
    batch, length, hidden = dims[0], dims[1], width // 3
    size = hidden // heads
    packed = write.put("MatMul", [x, weight])
    packed = packed if bias is None else write.put("Add", [packed, bias])
    parts = []
    for which, perm in enumerate(([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])):
        bounds = [write.integers([number]) for number in (which * hidden, (which + 1) * hidden, 2)]
        part = write.put("Slice", [packed, *bounds])
        part = write.put("Reshape", [part, write.integers([batch, length, heads, size])])
        parts.append(write.put("Transpose", [part], [ir.AttrInt64s("perm", perm)]))
    query, key, value = parts
    scale = float_attribute(node, "scale", 0.0) or size**-0.5
    scores = write.put("Mul", [write.put("MatMul", [query, key]), write.number(scale)])
    if mask is not None:
        kept = write.put("Cast", [mask], [_TO_FLOAT])
        if mask.shape is not None and len(mask.shape) == 1:  # lengths
            places = write.put("Constant", [], [ir.AttrFloat32s("value_floats", [float(i) for i in range(length)])])
            before = write.put("Less", [places, write.put("Reshape", [kept, write.integers([-1, 1])])])
            before.type = ir.TensorType(ir.DataType.BOOL)
            kept = write.put("Cast", [before], [_TO_FLOAT])
        lost = write.put(
            "Mul",
            [
                write.put("Sub", [write.number(1.0), kept]),
                write.number(float_attribute(node, "mask_filter_value", -10000.0)),
            ],
        )
        scores = write.put("Add", [scores, write.put("Reshape", [lost, write.integers([-1, 1, 1, length])])])
    scores = scores if added is None else write.put("Add", [scores, added])
    context = write.put("MatMul", [write.put("Softmax", [scores], [ir.AttrInt64("axis", -1)]), value])
    together = write.put("Transpose", [context], [ir.AttrInt64s("perm", [0, 2, 1, 3])])
    write.end("Reshape", [together, write.integers([batch, length, hidden])])


# From which opset on it can be written, and its operands that are never left out.
_SPELLED: Mapping[str, tuple[int, tuple[int, ...], Callable[[_Writer], None]]] = {
    "Attention": (13, (0, 1), _attention),
    "SkipLayerNormalization": (_LAYER_NORM_OPSET, (0, 1, 2), _skip_norm),
    "SkipSimplifiedLayerNormalization": (1, (0, 1, 2), _skip_norm),
    "EmbedLayerNormalization": (_LAYER_NORM_OPSET, (0, 2, 3, 5, 6), _embedding_norm),
    "BiasGelu": (_GELU_OPSET, (0, 1), _bias_gelu),
    "FastGelu": (_GELU_OPSET, (0,), _bias_gelu),
    "FusedConv": (1, (0, 1), _fused_conv),
    "FusedGemm": (1, (0, 1), _fused_gemm),
}
UNFUSED_OPERATORS = frozenset(f"{_DOMAIN}.{name}" for name in _SPELLED)
