"""An Einsum as what every execution provider takes: Transpose, Reshape, ReduceSum, Mul and MatMul."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_in_place
from planner.model.passes.match import graph_of
from planner.model.values import constant_array, tensor_dtype

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def product_of_einsum(node: ir.Node, names: Names) -> None:
    """Write an Einsum over float operands of known shapes with Transposes, Reshapes and a MatMul, a Mul where it sums nothing over
    both operands, or neither where there is one operand. Of more than two, the first two are multiplied first.

    Left as they are: dimensions of one that are repeated, and an index twice in one operand.
    """
    read = _read(node)
    if read is None:
        return
    operands, result = read
    maker = _Maker(node, names)
    if len(operands) == 1:
        (only,) = operands
        maker.sum_out(only, [i for i in only.labels if i not in result])
        maker.finish(only, result)
        return
    while len(operands) > 1:
        left, right, *others = operands
        wanted = {*result}.union(*(other.labels for other in others))
        kept = result if not others else [i for i in dict.fromkeys([*left.labels, *right.labels]) if i in wanted]
        product = _multiplied(maker, left, right, kept)
        operands = [product, *others]
        if others:
            product.value = maker.reshape(product.value, [product.sizes[i] for i in product.labels])
    maker.finish(product, result)


def _multiplied(maker: _Maker, left: _Operand, right: _Operand, result: Sequence[str]) -> _Operand:
    """The product of two operands, with the indices of the result in some order."""
    shared = [i for i in left.labels if i in right.labels]
    batch, summed = [i for i in shared if i in result], [i for i in shared if i not in result]
    for operand, other in ((left, right), (right, left)):
        alone = [i for i in operand.labels if i not in other.labels and i not in result]
        maker.sum_out(operand, alone)
    sizes = left.sizes | right.sizes
    if not summed:
        for operand in (left, right):
            maker.arrange(operand, [[i] if i in operand.labels else [] for i in result])
        product = maker.node("Mul", [left.value, right.value], [_size(sizes, i) for i in result])
        return _Operand(product, list(result), sizes)
    own = [[i for i in operand.labels if i not in shared] for operand in (left, right)]
    # Without a dimension of their own, matrices stay matrices: a constant one is a weight like any other.
    stack = [batch] if batch else []
    maker.arrange(left, [*stack, own[0], summed])
    maker.arrange(right, [*stack, summed, own[1]])
    shape = [_size(sizes, group) for group in (*stack, *own)]
    product = maker.node("MatMul", [left.value, right.value], shape)
    return _Operand(product, [*batch, *own[0], *own[1]], sizes)


@dataclass
class _Operand:
    """A value, an index for each of its dimensions, and how far each index runs."""

    value: ir.Value
    labels: list[str]
    sizes: dict[str, int]


def _read(node: ir.Node) -> tuple[list[_Operand], list[str]] | None:
    equation = node.attributes["equation"].as_string().replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    if len(node.inputs) != len(terms):
        return None
    ranks = [0 if value is None or value.shape is None else len(value.shape) for value in node.inputs]
    terms, result = _spelled_out(terms, result, ranks, implied=not arrow)
    operands = []
    for term, value in zip(terms, node.inputs, strict=True):
        if value is None or value.shape is None or not value.shape.is_static() or tensor_dtype(value) not in _FLOATS:
            return None
        dims = [int(d) for d in value.shape.numpy()]
        if len(term) != len(dims) or len(set(term)) != len(term) or 0 in dims:
            return None
        operands.append(_Operand(value, list(term), dict(zip(term, dims, strict=True))))
    sizes = [(label, size) for operand in operands for label, size in operand.sizes.items()]
    if any(dict(sizes)[label] != size for label, size in sizes):
        return None  # a dimension of one that is repeated
    return operands, list(result)


def _spelled_out(terms: Sequence[str], result: str, ranks: Sequence[int], *, implied: bool) -> tuple[list[str], str]:
    """The terms and the result with an index for each dimension that an ellipsis stands for, and a result that is only implied.

    Onnxruntime takes ellipses that stand for as many dimensions in each operand alone.
    """
    free = [label for label in string.ascii_letters if not any(label in term for term in (*terms, result))]
    counts = [rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    dots = "".join(free[: max(0, *counts, 0)])
    spelled = [term.replace("...", dots) for term in terms]
    if implied:
        both = "".join(spelled)
        once = sorted(label for label in set(both) if both.count(label) == 1 and label not in dots)
        return spelled, dots + "".join(once)
    return spelled, result.replace("...", dots)


def _size(sizes: dict[str, int], labels: Sequence[str]) -> int:
    return int(np.prod([sizes[label] for label in labels], dtype=np.int64))


@dataclass
class _Maker:
    """Makes the nodes that take the Einsum's place; constants are rearranged at once."""

    einsum: ir.Node
    names: Names
    count: int = field(default=0)

    def node(self, op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int], **attributes: ir.Attr) -> ir.Value:
        """A node before the Einsum; its result."""
        self.count += 1
        base, out_base = self.einsum.name or "einsum", self.einsum.outputs[0].name
        made = ir.Node("", op_type, inputs, attributes.values(), name=self.names.node(f"{base}_{op_type}_{self.count}"))
        out = made.outputs[0]
        out.name, out.type = (
            self.names.value(f"{out_base}_{op_type}_{self.count}"),
            ir.TensorType(tensor_dtype(inputs[0]) or ir.DataType.FLOAT),
        )
        out.shape = ir.Shape(list(shape))
        graph_of(self.einsum).insert_before(self.einsum, made)
        return out

    def integers(self, what: str, numbers: Sequence[int]) -> ir.Value:
        return new_constant(
            self.einsum, f"{self.einsum.outputs[0].name}_{what}", np.array(numbers, np.int64), self.names
        )

    def sum_out(self, operand: _Operand, labels: Sequence[str]) -> None:
        """Sum over indices that nothing else has."""
        if not labels:
            return
        axes = [operand.labels.index(label) for label in labels]
        operand.labels = [label for label in operand.labels if label not in labels]
        array = constant_array(operand.value)
        if array is not None:
            operand.value = self.constant(operand.value, array.sum(axis=tuple(axes)))
            return
        shape = [operand.sizes[label] for label in operand.labels]
        keep = ir.AttrInt64("keepdims", 0)
        operand.value = self.node("ReduceSum", [operand.value, self.integers("axes", axes)], shape, keepdims=keep)

    def constant(self, value: ir.Value, array: np.ndarray) -> ir.Value:
        return new_constant(self.einsum, f"{value.name}_as_matrix", array, self.names)

    def arrange(self, operand: _Operand, groups: Sequence[Sequence[str]]) -> None:
        """Bring the indices into the order of the groups, each of which becomes one dimension."""
        order = [operand.labels.index(label) for group in groups for label in group]
        shape = [_size(operand.sizes, group) for group in groups]
        operand.labels = [label for group in groups for label in group]
        array = constant_array(operand.value)
        if array is not None:
            operand.value = self.constant(operand.value, array.transpose(order).reshape(shape))
            return
        operand.value = self.reshape(self.transpose(operand.value, order), shape)

    def transpose(self, value: ir.Value, order: Sequence[int]) -> ir.Value:
        if list(order) == list(range(len(order))):
            return value
        assert value.shape is not None
        dims = value.shape.numpy()
        return self.node("Transpose", [value], [dims[i] for i in order], perm=ir.AttrInt64s("perm", order))

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        assert value.shape is not None
        if list(value.shape.numpy()) == list(shape):
            return value
        return self.node("Reshape", [value, self.integers("shape", shape)], shape)

    def finish(self, product: _Operand, result: Sequence[str]) -> None:
        """Give the product the dimensions and the order of the Einsum's result, under its name."""
        dims = [product.sizes[label] for label in product.labels]
        order = [product.labels.index(label) for label in result]
        value = self.transpose(self.reshape(product.value, dims), order)
        last = value.producer()
        if last is None or value is self.einsum.inputs[0]:  # it gives its operand as it is
            last = ir.Node("", "Identity", [value])
        else:
            graph_of(self.einsum).remove(last)
        put_in_place(self.einsum, last)
