"""What a profile says: which weight/activation pairs an EP accepts on which device, per operator, and how it is known.

The structs below are the YAML format itself: the loader decodes a file into them, and the JSON Schema for editors is
generated from them. All of it is data; what it means for a node is decided in planner/resolve/legality.py.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import onnx
from msgspec import Meta, Struct, structs

from planner.dtypes import DType, Precision
from planner.errors import RequestError

SCHEMA = "planner/profile/1"
# What rules may ask of a processor beside a device's own traits: "no-vnni", an x86 one on which sums of products of uint8
# and int8 saturate (planner/runtime/processor.py finds it out).
PROCESSOR_TRAITS = ("no-vnni",)

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
AttributeValue = str | int | float | list[int]


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a rule comes from: observed on the EP itself, or documented by someone. At least one is given.

    Attributes:
        observed: package, version and device that were asked, and how (the probe or evidence file).
        documented: a citation: page or file, with its version or commit.
    """

    observed: str | None = None
    documented: str | None = None

    def __post_init__(self) -> None:
        if not self.observed and not self.documented:
            raise ValueError("a source says `observed` or `documented`")


class OperandCondition(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold of one input of a node.

    Attributes:
        constant: whether it is known before the model runs.
        dtype: its element type is among these. min_rank, max_rank: bounds of its rank.
        present: whether the operand is given at all.
    """

    constant: bool | None = None
    dtype: list[str] | None = None
    min_rank: int | None = None
    max_rank: int | None = None
    present: bool | None = None


class When(Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions on a node. All must hold for a rule to apply; unknown facts (a missing shape) do not contradict.

    Attributes:
        weight: whether the node has a constant weight.
        per_channel: whether that weight is quantized with one scale per channel.
        min_opset, max_opset: bounds of the model's ai.onnx opset.
        min_rank, max_rank: bounds of the node's rank.
        blocked: whether that weight has one scale per block, in the file or as it is planned.
        cut_block: whether the numbers along the blocks are no multiple of the block size.
        min_outputs: the node has at least so many outputs that are used.
        captures_constants: whether a body of the node (If, Loop, Scan) reads constants of the graph around it.
        static_outputs: whether the shape of every output is known, by inference or because the model states it.
        empty: whether an operand that flows, or a result, holds no number at all: one of its dimensions is 0.
        attributes: attribute name to the values it may have; an absent attribute counts as its ONNX default.
        attributes_not: attribute name to values it must not have; an absent attribute without a default has none.
        attributes_above: attribute name to a bound that it, or one of its numbers, lies above.
        inputs: input position (as text) to what must hold of that operand.
    """

    weight: bool | None = None
    per_channel: bool | None = None
    min_opset: int | None = None
    max_opset: int | None = None
    min_rank: int | None = None
    max_rank: int | None = None
    blocked: bool | None = None
    cut_block: bool | None = None
    min_outputs: int | None = None
    captures_constants: bool | None = None
    static_outputs: bool | None = None
    empty: bool | None = None
    attributes: dict[str, list[AttributeValue]] = {}
    attributes_not: dict[str, list[AttributeValue]] = {}
    attributes_above: dict[str, float] = {}
    inputs: dict[Annotated[str, Meta(pattern="^[0-9]{1,2}$")], OperandCondition] = {}


class PairRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Pairs that are allowed (or, in a refusal, refused): any of the weights with any of the activations.

    Attributes:
        activation: types of the activations.
        weight: types of the weight. None: nodes without a weight, and float nodes, whose weight has their own type.
        per_channel: which of the weight types may have one scale per output channel.
        blocks: block sizes that may be planned for a weight (one scale per so many numbers of it, behind a DequantizeLinear).
    """

    activation: list[DType]
    weight: list[DType] | None = None
    per_channel: list[DType] = []
    blocks: list[Annotated[int, Meta(ge=16)]] = []


class FixedParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """Output quantization parameters that the EP demands."""

    scale: Annotated[float, Meta(gt=0)]
    zero_point: int


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One statement about some operators.

    Attributes:
        id: unique in the profile; verdicts name it.
        ops: operator types; "*" for any.
        domain: operator domain; "" is ai.onnx.
        traits, without: the device must have all of these traits, and none of those.
        when: conditions on the node.
        pairs: what is allowed; empty for operators that have no precision to choose.
        refuse: the reason, if the rule is a refusal; then `pairs` lists what it refuses (empty: everything).
        kernels: legality follows a kernel table: the name of a JSON file beside the profile, or "installed" for the
            registry of the installed build.
        cast_float16: with `kernels`: a node without a float16 kernel is run in float32 between casts, which the
            runtime inserts by itself.
        fixed: output parameters that an activation type demands.
        suggestion: what to do where the rule says no.
    """

    id: Name
    ops: Annotated[list[str], Meta(min_length=1)]
    source: Source
    domain: str = ""
    traits: list[Name] = []
    without: list[Name] = []
    when: When = When()
    pairs: list[PairRule] = []
    refuse: str | None = None
    kernels: str | None = None
    cast_float16: bool = False
    fixed: dict[DType, FixedParameters] = {}
    suggestion: str | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for every node: shapes must be known ahead; no tensor has more dimensions; the nodes inside an If,
    Loop or Scan that the EP leaves to another are left with it.
    """

    static_shapes: bool = False
    max_rank: int | None = None
    bodies_follow: bool = False


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """What computing costs on a device, in units of one multiply-accumulate of 8-bit numbers. Relative: it ranks plans.

    Attributes:
        byte: moving one byte of a weight or an activation.
        multiply: one multiply-accumulate, by weight and activation bits ("8x8", "8x16", "16x16", "4x16") or float type
            ("float16"); what is not given counts as the product of the operands' widths in bytes.
        held_as: types that the device holds and computes as others: float32 as float16, say.
        source: where the rates come from.
    """

    byte: Annotated[float, Meta(ge=0)] = 16.0
    multiply: dict[Annotated[str, Meta(pattern="^([0-9]+x[0-9]+|float16|float32)$")], Annotated[float, Meta(gt=0)]] = {}
    held_as: dict[DType, DType] = {}
    source: Source | None = None


class Device(Struct, frozen=True, forbid_unknown_fields=True, rename={"kind": "class"}):
    """A device that the EP runs on: a class (npu, gpu, cpu) or a chip.

    Attributes:
        title: what people call it.
        kind: `class` in the file: npu, gpu or cpu.
        options: provider options that select it, beside the profile's own.
        traits: what rules may ask of it.
        prefer: precisions in order of preference, where they differ from the profile's.
        cost: what computing costs on it, where it differs from the profile's.
    """

    title: str
    kind: Annotated[str, Meta(pattern="^(npu|gpu|cpu)$")]
    source: Source
    options: dict[str, str] = {}
    traits: list[Name] = []
    prefer: list[str] = []
    cost: Cost | None = None


class ProfileFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A profile as written. See `Profile` for the one that the planner works with.

    Attributes:
        schema: "planner/profile/1".
        ep: full provider name. aliases: other names for --ep.
        default_device: the device that is meant when none is named.
        prefer: precisions in order of preference (shorthands; w8a16+fp16 quantizes what has weights).
        options: provider options for every device.
        cost: what computing costs, for devices that say nothing of their own.
    """

    schema: Annotated[str, Meta(pattern=f"^{SCHEMA}$")]
    ep: Name
    title: str
    default_device: str
    devices: Annotated[dict[Name, Device], Meta(min_length=1)]
    prefer: Annotated[list[str], Meta(min_length=1)]
    rules: Annotated[list[Rule], Meta(min_length=1)]
    aliases: list[Name] = []
    options: dict[str, str] = {}
    limits: Limits = Limits()
    cost: Cost = Cost()


@functools.cache
def operator_version(op_type: str, domain: str, opset: int) -> int | None:
    """The opset at which ONNX last changed the operator, up to this one; None if ONNX does not define it there."""
    if domain:
        return None
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None


@dataclass(frozen=True)
class Kernel:
    """One kernel of a table: the opsets it serves and the element types of each type constraint."""

    first_opset: int
    last_opset: int | None
    types: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class KernelTable:
    """The kernels that a build of ONNX Runtime has for an EP.

    Attributes:
        source: where the table comes from, for reasons.
        kernels: (domain, operator) to its kernels.
    """

    source: str
    kernels: Mapping[tuple[str, str], Sequence[Kernel]]

    def types(self, op_type: str, domain: str, opset: int) -> Mapping[str, frozenset[str]] | None:
        """Element types by type constraint, over all kernels that serve the operator at this opset; None if none does.

        As ONNX Runtime matches them (kernel_registry.cc): a kernel with a closed range of opsets serves each of them,
        an open one only the version of the operator that it starts with, since a later version may mean another thing.

        Args:
            opset: of the model; the operator's own version at that opset is what counts.
        """
        version = operator_version(op_type, domain, opset)
        types: dict[str, frozenset[str]] = {}
        found = False
        for kernel in self.kernels.get((domain, op_type), ()):
            if version is None:
                serves = True
            elif kernel.last_opset is None:
                serves = kernel.first_opset == version
            else:
                serves = kernel.first_opset <= version <= kernel.last_opset
            if serves:
                found = True
                for name, dtypes in kernel.types.items():
                    types[name] = types.get(name, frozenset()) | dtypes
        return types if found else None


@dataclass(frozen=True)
class Learned:
    """How a kind of node fared on the EP itself, as a model taught: `planner probe --from-model`.

    Attributes:
        reason: the EP's own, where it did not take it. source: the file it stands in, and the packages that answered.
    """

    on_target: bool
    reason: str | None
    source: str


@dataclass(frozen=True)
class Profile:
    """A profile, loaded: the file's content, its kernel tables, its hash.

    Attributes:
        path: the file it came from. sha256: of its bytes and those of the kernel tables it names.
        prefer: by device, the precisions in order of preference.
        tables: kernel table by the name that rules use.
        notes: what whoever relies on a verdict should know of the profile.
        learned: by (device, signature of a node), what the EP itself was seen to do: it stands above the rules.
    """

    path: str
    sha256: str
    file: ProfileFile
    prefer: Mapping[str, tuple[Precision, ...]]
    tables: Mapping[str, KernelTable]
    _by_operator: Mapping[tuple[str, str], tuple[Rule, ...]]
    notes: tuple[str, ...] = ()
    learned: Mapping[tuple[str, str], Learned] = field(default_factory=dict, repr=False)

    @property
    def ep(self) -> str:
        return self.file.ep

    @property
    def limits(self) -> Limits:
        return self.file.limits

    @property
    def devices(self) -> Mapping[str, Device]:
        return self.file.devices

    def device(self, name: str) -> Device:
        """The device of that name.

        Raises:
            RequestError: if there is none; the message lists those there are.
        """
        try:
            return self.file.devices[name]
        except KeyError:
            known = ", ".join(self.file.devices)
            raise RequestError(f"{self.ep} has no device {name!r} in its profile", f"devices: {known}") from None

    def cost(self, device: str) -> Cost:
        """What computing costs on the device."""
        return self.device(device).cost or self.file.cost

    def options(self, device: str) -> dict[str, str]:
        """Provider options that start the EP for the device."""
        return {**self.file.options, **self.device(device).options}

    def with_traits(self, device: str, traits: Iterable[str]) -> Profile:
        """The profile whose device has these traits as well."""
        own = self.device(device)
        more = structs.replace(own, traits=[*dict.fromkeys([*own.traits, *traits])])
        return replace(self, file=structs.replace(self.file, devices={**self.file.devices, device: more}))

    def rules_for(self, op_type: str, domain: str, device: str) -> tuple[Rule, ...]:
        """The rules that speak of the operator on the device, in the profile's order."""
        traits = set(self.device(device).traits)
        found = self._by_operator.get((domain, op_type), self._by_operator.get((domain, "*"), ()))
        return tuple(r for r in found if traits.issuperset(r.traits) and traits.isdisjoint(r.without))


def index_rules(rules: Sequence[Rule]) -> dict[tuple[str, str], tuple[Rule, ...]]:
    """Rules by (domain, operator), each list in the given order; a rule for "*" stands in every list of its domain."""
    operators = {(r.domain, op) for r in rules for op in r.ops}
    return {
        (domain, op): tuple(r for r in rules if r.domain == domain and (op in r.ops or "*" in r.ops))
        for domain, op in operators
    }
