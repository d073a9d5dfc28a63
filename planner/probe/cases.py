"""All probe cases: the whole matrix of pairs on base forms, a few telling pairs on conditions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping

import onnx

from planner.dtypes import DType
from planner.errors import RequestError
from planner.probe.build import build
from planner.probe.case import Case, Granularity, block_axis
from planner.probe.forms import Form, Kind, Slot
from planner.probe.operators import all_forms

PROBE_VERSION = 2
_D = DType
_ACTIVATIONS = (_D.UINT8, _D.INT8, _D.UINT16, _D.INT16)
_WEIGHTS = (_D.UINT8, _D.INT8, _D.UINT16, _D.INT16, _D.UINT4, _D.INT4)
_FLOATS = (_D.FLOAT32, _D.FLOAT16)
_NEWEST_OPSET = 28
_WIDE_OPSET = 21  # 16-bit and 4-bit Q/DQ came with it
# Pairs that tell how a condition bears on quantized forms: (weight, activation).
_TELLING = ((_D.UINT8, _D.UINT8), (_D.INT8, _D.UINT16), (_D.UINT16, _D.UINT16), (_D.INT4, _D.UINT16))
_TELLING_CHANNELS = ((_D.INT8, _D.UINT8), (_D.INT8, _D.UINT16), (_D.INT4, _D.UINT16))


@functools.cache
def all_cases() -> Mapping[str, Case]:
    """Every case by id, in a fixed order: the whole matrix on base forms, a few telling pairs on conditions."""
    cases: dict[str, Case] = {}
    for form in _with_opsets():
        for case in _cases_of(form):
            if case.id in cases:
                raise ValueError(f"two forms share the id {case.id}")
            cases[case.id] = case
    return cases


def case_by_id(name: str) -> Case:
    """The case of an id.

    Raises:
        RequestError: if no case has it.
    """
    try:
        return all_cases()[name]
    except KeyError:
        raise RequestError(f"no probe case {name!r}", "see the ids in the evidence beside the profiles") from None


def _with_opsets() -> Iterator[Form]:
    """All forms, then each base form at every opset from 11 on at which ONNX changed the operator.

    Also at every element type that ONNX allows it.
    """
    forms = list(all_forms())
    seen = {(form.name, form.condition) for form in forms}
    yield from forms
    for form in forms:
        if form.condition or form.domain or form.opset < 11 or not onnx.defs.has(form.op):
            continue
        own = onnx.defs.get_schema(form.op, form.opset).since_version
        for opset in versions(form.op):
            condition = f"opset={opset}"
            if opset != own and (form.name, condition) not in seen:
                candidate = form.but(condition, opset=opset)
                if _is_valid(candidate):
                    yield candidate
        for candidate in _with_types(form):
            if (form.name, candidate.condition) not in seen and _is_valid(candidate):
                yield candidate


@functools.cache
def versions(op: str) -> tuple[int, ...]:
    """The opsets, 11 and later ones, whose version of an ai.onnx operator is another than the one before."""
    found = {
        s.since_version
        for s in onnx.defs.get_all_schemas_with_history()
        if (s.name, s.domain) == (op, "") and not s.deprecated
    }
    before = {11} if any(v <= 11 for v in found) and not onnx.defs.get_schema(op, 11).deprecated else set()
    return tuple(sorted(before | {v for v in found if 11 < v <= _NEWEST_OPSET}))


def _with_types(form: Form) -> Iterator[Form]:
    """The form with its data, and all that shares their type, of each integer type that ONNX allows it."""
    schema = onnx.defs.get_schema(form.op, form.opset)
    formal = [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(len(form.slots))]
    first = data_position(form)
    if first is None or form.body:
        return
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == formal[first]), ())
    for dtype in INTEGERS:
        if f"tensor({dtype})" not in allowed:
            continue
        slots = [
            _of_type(slot, dtype) if slot is not None and formal[i] == formal[first] else slot
            for i, slot in enumerate(form.slots)
        ]
        if any(s is not None and s.kind is not Kind.EXACT for s in slots):
            continue  # another operand is float all the same: a form of its own
        yield form.but(dtype, *slots)


INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def data_position(form: Form) -> int | None:
    """Which operand holds the data that the operator computes with: the first that is quantized, else the first."""
    flowing = [i for i, s in enumerate(form.slots) if s is not None and s.kind is not Kind.EXACT]
    return next(iter(flowing), 0 if form.slots and form.slots[0] is not None else None)


def _of_type(slot: Slot, dtype: str) -> Slot:
    constant = slot.kind in (Kind.CONSTANT, Kind.WEIGHT, Kind.BIAS, Kind.PLAIN) or (
        slot.kind is Kind.EXACT and slot.constant
    )
    data = None if slot.data is None else tuple(int(v > 0) if dtype == "bool" else abs(int(v)) for v in slot.data)
    return Slot(Kind.EXACT, slot.shape, 1, 5, data=data, dtype=dtype, constant=constant)


def _is_valid(form: Form) -> bool:
    """Whether ONNX knows the form at its opset: not where an attribute has become an operand since."""
    try:
        schema = onnx.defs.get_schema(form.op, form.opset)
        if not set(form.attributes) <= set(schema.attributes):
            return False
        case = Case(form, _D.FLOAT32 if form.has_float else None, _D.FLOAT32 if form.weight is not None else None)
        inferred = onnx.shape_inference.infer_shapes(build(case), check_type=True, strict_mode=True)
        onnx.checker.check_model(inferred)
    except (
        onnx.defs.SchemaError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        TypeError,
        OverflowError,
    ):
        return False
    return True


def _cases_of(form: Form) -> Iterator[Case]:
    """The cases of a form: every pair on a base form, a few telling pairs on a condition."""
    if not form.has_float:
        yield Case(form, None, None)
        return
    for kind in _FLOATS:
        yield Case(form, kind, kind if form.weight is not None else None)
    if form.opset < 13 or form.condition.startswith("opset="):
        if form.opset >= 11:
            yield Case(form, _D.UINT8, _D.UINT8 if form.weight is not None else None)
    elif form.weight is None:
        yield from _without_weight(form)
    elif form.opset < _WIDE_OPSET:
        yield Case(form, _D.UINT8, _D.UINT8)
        if form.weight.axis is not None:
            yield Case(form, _D.UINT8, _D.INT8, Granularity.CHANNEL)
    else:
        yield from _with_weight(form, form.weight)


def _without_weight(form: Form) -> Iterator[Case]:
    every = not form.condition or form.condition in ("symmetric", "free-output-range")
    for activation in _ACTIVATIONS if every else (_D.UINT8, _D.UINT16):
        if form.opset >= _WIDE_OPSET or activation.bits == 8:
            yield Case(form, activation, None)


def _with_weight(form: Form, weight: Slot) -> Iterator[Case]:
    base = not form.condition
    grains = (Granularity.TENSOR, Granularity.CHANNEL) if weight.axis is not None else (Granularity.TENSOR,)
    if base or form.condition in ("symmetric", "no-bias"):
        yield from _cases(form, _WEIGHTS, _ACTIVATIONS, grains)
    else:
        for dtype, activation in _TELLING:
            yield Case(form, activation, dtype)
        if weight.axis is not None:
            for dtype, activation in _TELLING_CHANNELS:
                yield Case(form, activation, dtype, Granularity.CHANNEL)
    if base:
        # The weight alone quantized, in float computation.
        for dtype in (_D.UINT8, _D.INT8, _D.INT16, _D.UINT4, _D.INT4):
            for activation in _FLOATS:
                yield from (Case(form, activation, dtype, grain) for grain in grains)
    if form.condition == "large" and block_axis(form) is not None:
        blocked = (_D.UINT8, _D.UINT16, *_FLOATS)
        yield from _cases(form, (_D.UINT4, _D.INT4, _D.INT8), blocked, (Granularity.BLOCK,))
    if not base and weight.axis is not None and form.op in ("Conv", "MatMul", "Gemm"):
        yield Case(form, _D.FLOAT32, _D.INT8, Granularity.CHANNEL)


def _cases(
    form: Form, weights: Iterable[DType], activations: Iterable[DType], grains: Iterable[Granularity]
) -> Iterator[Case]:
    for grain, weight, activation in itertools.product(grains, weights, activations):
        yield Case(form, activation, weight, grain)
