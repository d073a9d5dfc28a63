"""Operators over more dimensions than a target takes, as the same operators over fewer, between Reshapes.

Networks for video and volumes have five dimensions all through: means, norms, activations and arg maxima of them. Those that an
operator treats alike are merged into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import follow, new_constant, put_before
from planner.model.passes.match import int_attribute, ints_attribute, own, producer_of, reduction_of, text_attribute
from planner.model.passes.rank import side_by_side, static_dims
from planner.model.shapes import infer_shapes
from planner.model.values import constant_array

# How many dimensions at most a target takes, by operator.
MostRank = Callable[[str], int]
Dims = list[int]


_ANY = 1 << 30


def any_rank(_op_type: str) -> int:
    """No limit."""
    return _ANY


def fewer_dimensions(model: ir.Model, most: MostRank) -> None:
    """Merge dimensions wherever an operator has more of them than the target takes, in every graph, in place.

    A node stays as it is where its shapes are not known, or its dimensions do not merge into few enough.

    Args:
        model: its shapes are inferred where the target has a limit.
        most: how many the target takes.
    """
    limits = {op_type: most(op_type) for op_type in (*_FORMS, "Reshape")}
    if min(limits.values()) == _ANY:
        return
    infer_shapes(model)
    names = Names(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            read = _FORMS.get(node.op_type)
            if read is None or not own(node):
                continue
            ranks = [len(v.shape) for v in (*node.inputs, *node.outputs) if v is not None and v.shape is not None]
            limit = limits[node.op_type]
            if max(ranks, default=0) <= limit:
                continue
            form = read(node)
            if form is not None and form.rank <= limit:
                _write(node, form, names)
        for node in list(graph):
            _skip_reshape(node, limits["Reshape"], names)


@dataclass
class _Form:
    """A node with fewer dimensions.

    Attributes:
        inputs: new dimensions of operands, by position; others stay.
        outputs: new dimensions of the results.
        attributes: new ones. constants: operands that say axes or the like, anew.
        before: what is done first, over some of the dimensions: of each such node the dimensions that it reads and gives, and
            its attributes.
    """

    inputs: Mapping[int, Dims]
    outputs: Sequence[Dims]
    attributes: Sequence[ir.Attr] = ()
    constants: Mapping[int, np.ndarray] = field(default_factory=dict)
    before: Sequence[tuple[Dims, Dims, Sequence[ir.Attr]]] = ()

    @property
    def rank(self) -> int:
        return max(len(dims) for dims in (*self.inputs.values(), *self.outputs))


def _write(node: ir.Node, form: _Form, names: Names) -> None:
    base = node.outputs[0].name
    for given, made, attributes in form.before:
        read = _reshaped(node, node.inputs[0], given, f"{base}_part", names)
        part = ir.Node("", node.op_type, [read], attributes, name=names.beside(node, "part"))
        node.replace_input_with(0, put_before(node, part, f"{base}_of_part", made, names))
    for position, dims in form.inputs.items():
        value = node.inputs[position]
        assert value is not None
        node.replace_input_with(position, _reshaped(node, value, dims, f"{base}_in_{position}", names))
    for position, array in form.constants.items():
        node.replace_input_with(position, new_constant(node, f"{base}_operand_{position}", array, names))
    for attribute in form.attributes:
        node.attributes[attribute.name] = attribute
    for position, dims in enumerate(form.outputs):
        out = node.outputs[position]
        shape = new_constant(node, f"{out.name}_shape", np.array(static_dims(out), np.int64), names)
        follow(node, "Reshape", shape, "merged", names, position)
        out.shape = ir.Shape(dims)


def _reshaped(node: ir.Node, value: ir.Value | None, dims: Dims, name: str, names: Names) -> ir.Value:
    """The value with other dimensions; what was reshaped before is not reshaped twice."""
    assert value is not None
    if static_dims(value) == dims:
        return value
    array = constant_array(value)
    if array is not None:
        return new_constant(node, f"{value.name}_merged", array.reshape(dims), names)
    before = producer_of(value, "Reshape")
    if before is not None and before.inputs[0] is not None and static_dims(before.inputs[0]) == dims:
        return before.inputs[0]
    shape = new_constant(node, f"{name}_shape", np.array(dims, np.int64), names)
    made = put_before(node, ir.Node("", "Reshape", [value, shape], name=names.beside(node, "merge")), name, dims, names)
    made.type = value.type
    return made


def _skip_reshape(node: ir.Node, limit: int, names: Names) -> None:
    """Let a Reshape read what another Reshape made too many dimensions of; Squeeze, Unsqueeze and Flatten are Reshapes there."""
    if node.op_type not in ("Reshape", "Squeeze", "Unsqueeze", "Flatten") or not own(node):
        return
    x, before = node.inputs[0], producer_of(node.inputs[0], "Reshape")
    result = static_dims(node.outputs[0])
    if x is None or x.shape is None or result is None or (before is None and node.op_type == "Reshape"):
        return
    if max(len(x.shape), len(result)) <= limit:
        return
    shape = new_constant(node, f"{node.outputs[0].name}_shape", np.array(result, np.int64), names)
    source = x if before is None or len(x.shape) <= limit else before.inputs[0]
    for name in list(node.attributes):
        del node.attributes[name]
    node.op_type = "Reshape"
    node.resize_inputs(2)
    node.replace_input_with(0, source)
    node.replace_input_with(1, shape)


# -- dimensions -----------------------------------------------------------------------------------------------------------


def _size(dims: Sequence[int]) -> int:
    return int(np.prod(dims, dtype=np.int64))


def _runs(marks: Sequence[object]) -> list[list[int]]:
    """Runs of neighbours that are marked alike; a mark of None goes with its neighbours, one of its own index with nobody."""
    runs: list[list[int]] = []
    last: object = None
    for axis, mark in enumerate(marks):
        if runs and (mark is None or last is None or mark == last):
            runs[-1].append(axis)
            last = last if mark is None else mark
        else:
            runs.append([axis])
            last = mark
    return runs


def _merged(dims: Sequence[int], runs: Sequence[Sequence[int]]) -> Dims:
    return [_size([dims[axis] for axis in run]) for run in runs]


def _around(rank: int, axes: Sequence[int]) -> list[list[int]]:
    """Each of the axes by itself, and what lies between them merged."""
    return _runs([axis if axis in axes else "other" for axis in range(rank)])


def _place(runs: Sequence[Sequence[int]], axis: int) -> int:
    return next(place for place, run in enumerate(runs) if axis in run)


# -- operators ------------------------------------------------------------------------------------------------------------


def _by_element(node: ir.Node) -> _Form | None:
    """Operands that are broadcast alike along neighbouring dimensions."""
    result = static_dims(node.outputs[0])
    given = {
        i: static_dims(v) for i, v in enumerate(node.inputs) if v is not None and v.shape is not None and len(v.shape)
    }
    if result is None or len(node.outputs) != 1 or any(dims is None for dims in given.values()):
        return None
    whole = {i: [1] * (len(result) - len(dims)) + dims for i, dims in given.items() if dims is not None}
    if any(v is not None and v.shape is None for v in node.inputs) or any(len(d) > len(result) for d in whole.values()):
        return None
    marks = [
        None if size == 1 else tuple(dims[axis] != 1 for dims in whole.values()) for axis, size in enumerate(result)
    ]
    runs = _runs(marks)
    inputs = {i: _merged(dims, runs) for i, dims in whole.items() if _size(dims) > 1 or len(given[i] or ()) > len(runs)}
    return _Form(inputs, [_merged(result, runs)])


def _along_axis(node: ir.Node, default: int = -1) -> _Form | None:
    """One axis by itself; each result has the dimensions of the operand but for that axis."""
    dims, results = static_dims(node.inputs[0]), [static_dims(out) for out in node.outputs]
    if dims is None:
        return None
    axis = int_attribute(node, "axis", default) % len(dims)
    runs = _around(len(dims), [axis])
    made = []
    for result in results:
        if result is None:
            return None
        rest = [*result[:axis], 1, *result[axis:]] if len(result) < len(dims) else result
        merged = _merged(rest, runs)
        made.append(
            merged if len(result) == len(dims) else [d for i, d in enumerate(merged) if i != _place(runs, axis)]
        )
    return _Form({0: _merged(dims, runs)}, made, [ir.AttrInt64("axis", _place(runs, axis))])


def _first_axis(node: ir.Node) -> _Form | None:
    return _along_axis(node, 0)


def _cum_sum(node: ir.Node) -> _Form | None:
    dims, axis = static_dims(node.inputs[0]), constant_array(node.inputs[1])
    if dims is None or axis is None:
        return None
    runs = _around(len(dims), [int(axis.reshape(-1)[0]) % len(dims)])
    place = _place(runs, int(axis.reshape(-1)[0]) % len(dims))
    return _Form({0: _merged(dims, runs)}, [_merged(dims, runs)], constants={1: np.array(place, axis.dtype)})


def _norm_of_last(node: ir.Node) -> _Form | None:
    """What is normalized over the last dimensions; those before them are one."""
    dims = static_dims(node.inputs[0])
    if dims is None or any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return None
    axis = int_attribute(node, "axis", -1) % len(dims)
    merged = [_size(dims[:axis]), *dims[axis:]]
    return _Form({0: merged}, [merged], [ir.AttrInt64("axis", 1)])


def _reduction(node: ir.Node) -> _Form | None:
    found, result = reduction_of(node), static_dims(node.outputs[0])
    dims = None if found is None else static_dims(found[0])
    if found is None or dims is None or result is None:
        return None
    axes = found[1]
    runs = _runs([True if axis in axes else None if size == 1 else False for axis, size in enumerate(dims)])
    reduced = [place for place, run in enumerate(runs) if any(axis in axes for axis in run)]
    keeps = int_attribute(node, "keepdims", 1)
    made = [1 if i in reduced else d for i, d in enumerate(_merged(dims, runs)) if keeps or i not in reduced]
    form = _Form({0: _merged(dims, runs)}, [made])
    if "axes" in node.attributes:
        form.attributes = [ir.AttrInt64s("axes", reduced)]
    else:
        form.constants = {1: np.array(reduced, np.int64)}
    return form


def _one_hot(node: ir.Node) -> _Form | None:
    """Indices in one row, where what is hot lies along the last axis."""
    dims, result = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if dims is None or result is None or int_attribute(node, "axis", -1) not in (-1, len(dims)):
        return None
    return _Form({0: [_size(dims)]}, [[_size(dims), result[-1]]], [ir.AttrInt64("axis", -1)])


def _product(node: ir.Node) -> _Form | None:
    """Matrices that lie alike in both operands are one stack."""
    left, right, result = (static_dims(v) for v in (*node.inputs, *node.outputs))
    if left is None or right is None or result is None or min(len(left), len(right)) < 2:
        return None
    if len(right) == 2:
        rows = [_size(left[:-2]), *left[-2:]]
        return _Form({0: rows}, [[*rows[:-1], right[-1]]])
    depth = len(result) - 2
    stacks = [[1] * (depth + 2 - len(dims)) + dims[:-2] for dims in (left, right)]
    runs = _runs([None if size == 1 else tuple(s[i] != 1 for s in stacks) for i, size in enumerate(result[:-2])])
    new = [[*_merged(stack, runs), *dims[-2:]] for stack, dims in zip(stacks, (left, right), strict=True)]
    return _Form(dict(enumerate(new)), [[*_merged(result[:-2], runs), *result[-2:]]])


def _picture(node: ir.Node) -> _Form | None:
    """Channels by themselves, and the picture's dimensions as two."""
    dims, result = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if dims is None or result is None or len(dims) < 4 or len(node.outputs) != 1:
        return None
    flat, out = ([*d[:2], _size(d[2:-1]), d[-1]] for d in (dims, result))
    return _Form({0: flat}, [out])


def _max_pool(node: ir.Node) -> _Form | None:
    """A maximum over three dimensions is one over the last two, and one over the first."""
    dims, result = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    if (
        dims is None
        or result is None
        or len(dims) != 5
        or len(node.outputs) != 1
        or int_attribute(node, "ceil_mode", 0)
    ):
        return None
    if text_attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return None
    kernel = ints_attribute(node, "kernel_shape", [])
    strides, dilations = (ints_attribute(node, name, [1] * 3) for name in ("strides", "dilations"))
    pads = ints_attribute(node, "pads", [0] * 6)

    def attributes(axes: Sequence[int], none: int) -> list[ir.Attr]:
        """Those of the pooling along some axes, and along others not at all."""
        said = {
            name: [*(values[axis] for axis in axes), *[1] * none]
            for name, values in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilations))
        }
        ends = [*(pads[axis] for axis in axes), *[0] * none, *(pads[3 + axis] for axis in axes), *[0] * none]
        return [ir.AttrInt64s(name, values) for name, values in {**said, "pads": ends}.items()]

    batch, channels, depth, height, width = dims
    first = ([batch, channels * depth, height, width], [batch, channels * depth, *result[3:]], attributes((1, 2), 0))
    size = _size(result[3:])
    return _Form({0: [batch, channels, depth, size]}, [[*result[:3], size]], attributes((0,), 1), before=[first])


def _transpose(node: ir.Node) -> _Form | None:
    dims = static_dims(node.inputs[0])
    if dims is None:
        return None
    groups = side_by_side(dims, ints_attribute(node, "perm", list(range(len(dims)))[::-1]))
    sizes = [_size([dims[axis] for axis in group]) for group in groups]
    # The places that the groups take in the end, in the order in which they lie before.
    places = sorted(range(len(groups)), key=lambda i: groups[i][0])
    steps = [(places, list(range(len(places))))] if len(places) <= _IN_ONE else list(_moves(places))
    parts = []
    for have, wanted in steps:
        runs = _unbroken(have, wanted)
        order = sorted(range(len(runs)), key=lambda i: have.index(runs[i][0]))
        given = [_size([sizes[place] for place in runs[i]]) for i in order]
        perm = [order.index(i) for i in range(len(runs))]
        parts.append((given, [given[i] for i in perm], [ir.AttrInt64s("perm", perm)]))
    given, made, attributes = parts[-1]
    return _Form({0: given}, [made], attributes, before=parts[:-1])


# Groups that one Transpose may reorder; more are moved one by one.
_IN_ONE = 5


def _moves(have: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Orders before and behind each Transpose that brings a run of groups to its place, until all are there."""
    for place in range(len(have)):
        start = have.index(place)
        if start == place:
            continue
        end = start + 1
        while end < len(have) and have[end] == have[end - 1] + 1:
            end += 1
        moved = [*have[:place], *have[start:end], *have[place:start], *have[end:]]
        yield have, moved
        have = moved


def _unbroken(have: list[int], wanted: list[int]) -> list[list[int]]:
    """Runs of groups that stay side by side, in the order that is wanted."""
    runs = [[wanted[0]]]
    for group in wanted[1:]:
        if have.index(group) == have.index(runs[-1][-1]) + 1:
            runs[-1].append(group)
        else:
            runs.append([group])
    return runs


def _gather(node: ir.Node) -> _Form | None:
    dims, places = static_dims(node.inputs[0]), node.inputs[1]
    if dims is None or places is None or places.shape is None or static_dims(node.outputs[0]) is None:
        return None
    taken = static_dims(places) if len(places.shape) else []
    if taken is None:
        return None
    axis = int_attribute(node, "axis", 0) % len(dims)
    runs = _around(len(dims), [axis])
    place, merged = _place(runs, axis), _merged(dims, runs)
    made = [*merged[:place], *taken, *merged[place + 1 :]]
    return _Form({0: merged}, [made], [ir.AttrInt64("axis", place)])


def _slice(node: ir.Node) -> _Form | None:
    dims, result = static_dims(node.inputs[0]), static_dims(node.outputs[0])
    bounds = [constant_array(v) for v in node.inputs[1:]]
    if dims is None or result is None or len(bounds) < 2 or bounds[0] is None or bounds[1] is None:
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None and bounds[2] is None:
        return None
    given = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(bounds[0]))
    axes = [int(axis) % len(dims) for axis in given]
    runs = _around(len(dims), axes)
    places = np.array([_place(runs, axis) for axis in axes], given.dtype)
    return _Form({0: _merged(dims, runs)}, [_merged(result, runs)], constants={3: places})


def _concat(node: ir.Node) -> _Form | None:
    dims, result = [static_dims(v) for v in node.inputs], static_dims(node.outputs[0])
    known = [d for d in dims if d is not None]
    if result is None or len(known) != len(dims):
        return None
    axis = int_attribute(node, "axis", 0) % len(result)
    runs = _around(len(result), [axis])
    inputs = {i: _merged(d, runs) for i, d in enumerate(known)}
    return _Form(inputs, [_merged(result, runs)], [ir.AttrInt64("axis", _place(runs, axis))])


# Of each, which dimensions merge.
_FORMS: Mapping[str, Callable[[ir.Node], _Form | None]] = {
    **dict.fromkeys(
        (
            "Abs", "Add", "And", "Asin", "Atan", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Exp", "Floor", "Gelu",
            "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min",
            "Mish", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin",
            "Softplus", "Sqrt", "Sub", "Tan", "Tanh", "Where", "Xor",
        ),
        _by_element,
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "TopK"), _along_axis),
    **dict.fromkeys(("ArgMax", "ArgMin", "Split"), _first_axis),
    **dict.fromkeys(
        (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
            "ReduceSum", "ReduceSumSquare",
        ),
        _reduction,
    ),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization", "GlobalAveragePool", "GlobalMaxPool"), _picture),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _norm_of_last),
    "Concat": _concat,
    "CumSum": _cum_sum,
    "Gather": _gather,
    "MatMul": _product,
    "MaxPool": _max_pool,
    "OneHot": _one_hot,
    "Slice": _slice,
    "Transpose": _transpose,
}  # fmt: skip
