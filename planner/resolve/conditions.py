"""Does a node meet the conditions of a rule? Pure; each answer is the first condition that it does not meet, in words."""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Iterator, Sequence

import onnx

from planner.dtypes import QuantConfig
from planner.model.node import Node, Operand
from planner.operators import Role, operator
from planner.profiles.when import OperandCondition, When
from planner.resolve.replacements import matrix_of


def unmet_condition(when: When, node: Node, config: QuantConfig, opset: int, *, of_refusal: bool = False) -> str | None:
    """The first condition that the node does not meet, in words; None where it meets all.

    Args:
        when: the conditions.
        node: of the model.
        config: what is planned for it.
        opset: ai.onnx opset of the model that is to run.
        of_refusal: what is not known of the node (a type, a shape) meets no condition; else it meets each.
    """
    problems = itertools.chain(
        _weight_problems(when, node, config),
        _result_problems(when, node),
        _bound_problems(when, node, opset, of_refusal=of_refusal),
        _attribute_problems(when, node, opset),
        _operand_problems(when, node, config, of_refusal=of_refusal),
    )
    return next(problems, None)


def _weight_problems(when: When, node: Node, config: QuantConfig) -> Iterator[str]:
    has = node.weight is not None
    if when.weight is not None and when.weight != has:
        yield "its weight is not constant" if when.weight else "it has a constant weight"
    if when.per_channel is not None and when.per_channel != (config.per_channel and has):
        yield "its weight is not quantized per channel" if when.per_channel else "its weight is quantized per channel"
    if when.blocked is not None and when.blocked != (node.stored_blocked or config.block_size is not None):
        yield "its weight is not quantized by blocks" if when.blocked else "its weight is quantized by blocks"
    if when.integer_bias is not None and when.integer_bias != _has_integer_bias(node, config):
        yield f"its bias is {'not ' if when.integer_bias else ''}stored as int32"
    if when.asymmetric is not None and when.asymmetric != node.asymmetric:
        yield f"{'all its zero points are' if when.asymmetric else 'one of its zero points is not'} 0"
    if when.off_center is not None and when.off_center != (node.off_center and config.per_channel):
        yield f"its zero points per channel are {'all' if when.off_center else 'not all'} the middle of the type"
    if when.signed_factor is not None and when.signed_factor != node.signed_factor:
        yield f"its second factor has {'no' if when.signed_factor else 'a'} signed type"
    if when.weight_above is not None and (node.largest_code is None or node.largest_code <= when.weight_above):
        yield f"no code of its weight is above {when.weight_above}"
    if when.depthwise is not None and when.depthwise != node.is_depthwise:
        yield f"it is {'not ' if when.depthwise else ''}depthwise"
    if when.cut_block is not None and when.cut_block != (cut := _cuts_a_block(node, config)):
        yield f"the last block of its weight is {'cut short' if cut else 'whole'}"


def _has_integer_bias(node: Node, config: QuantConfig) -> bool:
    """Whether the bias is stored as int32, or would be if the node were quantized so."""
    if node.integer_bias or config == node.stored:
        return node.integer_bias
    quantized = config.activation is not None and not config.activation.is_float
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return quantized and operator(node.op_type).has_integer_bias and bias is not None and bias.constant


def _result_problems(when: When, node: Node) -> Iterator[str]:
    if when.captures_constants is not None and when.captures_constants != node.captures_constants:
        yield f"its body reads {'no' if when.captures_constants else 'some'} constants of the graph around it"
    if when.shape_arithmetic is not None and when.shape_arithmetic != node.shape_arithmetic:
        yield f"it computes with {'more than shapes' if when.shape_arithmetic else 'shapes alone'}"
    if when.static_outputs is not None and when.static_outputs != node.static_outputs:
        yield f"the shapes of its results are {'not ' if when.static_outputs else ''}known"
    if when.empty is not None and when.empty != node.has_empty:
        yield f"{'none' if when.empty else 'one'} of its operands and results is empty"
    if when.given_out is not None and when.given_out != node.given_out:
        yield f"{'none' if when.given_out else 'one'} of its results is an output of the model"
    if when.resizes_channels is not None and when.resizes_channels != node.resizes_channels:
        yield f"its first two dimensions {'keep their sizes' if when.resizes_channels else 'change'}"
    if when.min_outputs is not None and sum(1 for name in node.outputs if name) < when.min_outputs:
        yield f"it has fewer than {when.min_outputs} outputs"


def _bound_problems(when: When, node: Node, opset: int, *, of_refusal: bool) -> Iterator[str]:
    if of_refusal and not node.has_rank and (when.min_rank is not None or when.max_rank is not None):
        yield "its rank is not known"
    for bound, value, least, most in (
        ("opset", opset, when.min_opset, when.max_opset),
        ("rank", node.rank, when.min_rank, when.max_rank),
    ):
        if least is not None and value < least:
            yield f"{bound} {value} is below {least}"
        if most is not None and value > most:
            yield f"{bound} {value} is above {most}"


def _attribute_problems(when: When, node: Node, opset: int) -> Iterator[str]:
    for name, allowed in when.attributes.items():
        value = attribute(node, name, opset)
        if not _is_among(value, allowed, name):
            yield f"attribute {name}={_shown(name, value)} is not among {', '.join(_shown(name, a) for a in allowed)}"
    for name, excluded in when.attributes_not.items():
        value = attribute(node, name, opset)
        if value is None or _is_among(value, excluded, name):
            yield f"attribute {name}={_shown(name, value)} is among {', '.join(_shown(name, e) for e in excluded)}"
    for name, bound in when.attributes_above.items():
        value = attribute(node, name, opset)
        numbers = value if isinstance(value, list | tuple) else [value]
        if not any(isinstance(n, int | float) and n > bound for n in numbers):
            yield f"attribute {name}={value} is not above {bound:g}"


def _is_among(value: object, stated: Sequence[object], name: str) -> bool:
    """Whether a profile states the value; an Einsum's equation says the same with other letters, and with spaces between them."""
    if name == "equation" and isinstance(value, str):
        return _plain_equation(value) in [_plain_equation(str(one)) for one in stated]
    return value in stated


def _plain_equation(equation: str) -> str:
    """The equation with a for its first letter, b for the next one, and so on: "ab,bc->ac" for "ij, jk -> ik"."""
    letters: dict[str, str] = {}
    return "".join(
        letters.setdefault(sign, string.ascii_letters[len(letters)]) if sign.isalpha() else sign
        for sign in equation
        if sign != " "
    )


_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def _shown(name: str, value: object) -> str:
    """A value of an attribute for people: ONNX's number of a type by its name."""
    if name in _TYPE_ATTRIBUTES and isinstance(value, int) and value in onnx.TensorProto.DataType.values():
        return str(onnx.TensorProto.DataType.Name(value)).lower()
    return str(value)


def _operand_problems(when: When, node: Node, config: QuantConfig, *, of_refusal: bool) -> Iterator[str]:
    for position, condition in when.inputs.items():
        index = int(position)
        operand = node.inputs[index] if index < len(node.inputs) else None
        written = None if operand is None else _written_dtype(node, operand, config)
        problem = _unmet_operand(condition, operand, written, of_refusal=of_refusal)
        if problem is not None:
            yield f"input {index} {problem}"


def _unmet_operand(
    condition: OperandCondition, operand: Operand | None, dtype: str | None, *, of_refusal: bool
) -> str | None:
    if condition.present is not None and condition.present != (operand is not None):
        return "is missing" if condition.present else "is given"
    if operand is None:
        return None
    if condition.constant is not None and condition.constant != operand.constant:
        return "is not constant" if condition.constant else "is constant"
    if of_refusal and (condition.dtype is not None and dtype is None):
        return "has a type that is not known"
    if of_refusal and operand.shape is None and (condition.min_rank is not None or condition.max_rank is not None):
        return "has a shape that is not known"
    if condition.dtype is not None and dtype is not None and dtype not in condition.dtype:
        return f"has type {dtype}, not {' or '.join(condition.dtype)}"
    rank = None if operand.shape is None else len(operand.shape)
    if rank is not None and condition.min_rank is not None and rank < condition.min_rank:
        return f"has rank {rank}, below {condition.min_rank}"
    if rank is not None and condition.max_rank is not None and rank > condition.max_rank:
        return f"has rank {rank}, above {condition.max_rank}"
    if (problem := _unmet_dimension(condition, operand.shape, of_refusal=of_refusal)) is not None:
        return problem
    if of_refusal and condition.holds is not None and operand.numbers is None:
        return "holds numbers that are not known"
    if condition.holds is not None and operand.numbers is not None and condition.holds not in operand.numbers:
        return f"does not hold {condition.holds}"
    return None


def _unmet_dimension(
    condition: OperandCondition, shape: tuple[int | None, ...] | None, *, of_refusal: bool
) -> str | None:
    for place, wanted in (condition.dims or {}).items():
        if shape is not None and int(place) >= len(shape):
            return f"has no dimension {place}"
        size = None if shape is None else shape[int(place)]
        if size is None and of_refusal:
            return "has a shape that is not known"
        if size is not None and not wanted.holds(size):
            return f"has dimension {place} of {size}, which is not {wanted.words()}"
    return None


def _written_dtype(node: Node, operand: Operand, config: QuantConfig) -> str | None:
    """The type that the operand will be written in.

    A float one follows its node to another float type than it is stored in; a node that stays as it is keeps its operands.
    """
    activation = config.activation
    if config == node.stored or activation is None or not activation.is_float:
        return operand.dtype
    return activation.value if operand.role is not Role.EXACT and operand.dtype in _FLOATS else operand.dtype


_FLOATS = ("float32", "float16")


def _cuts_a_block(node: Node, config: QuantConfig) -> bool:
    """Whether the numbers along the blocks of a weight are no multiple of the block size."""
    numbers, size = node.attributes.get("K"), node.attributes.get("block_size")
    if isinstance(numbers, int) and isinstance(size, int) and size > 0:  # MatMulNBits
        return numbers % size != 0
    if config.block_size is None:
        return False
    matrix = matrix_of(node)
    return not isinstance(matrix, str) and matrix.numbers % config.block_size != 0


def attribute(node: Node, name: str, opset: int) -> object:
    """The attribute's value, or ONNX's default for it; None where there is neither."""
    if name in node.attributes:
        value = node.attributes[name]
        return list(value) if isinstance(value, tuple) else value
    return _default(node.op_type, node.domain, name, opset)


@functools.cache
def _default(op_type: str, domain: str, name: str, opset: int) -> object:
    try:
        formal = onnx.defs.get_schema(op_type, opset, domain).attributes.get(name)
    except onnx.defs.SchemaError:
        return None
    if formal is None or formal.default_value.type == onnx.AttributeProto.UNDEFINED:
        return None
    value = onnx.helper.get_attribute_value(formal.default_value)
    return value.decode() if isinstance(value, bytes) else value
