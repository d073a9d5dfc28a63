"""What a profile says: which weight/activation pairs an EP accepts on which device, per operator, and how it is known.

The structs below are the YAML format itself: the loader decodes a file into them, and the JSON Schema for editors is
generated from them. `Rule` and `Profile` are what the planner works with. All of it is data; what it means for a node is
decided in planner/resolve/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from planner.dtypes import DType, Precision
from planner.errors import RequestError
from planner.profiles.kernels import KernelTable
from planner.profiles.shipped import PROFILE
from planner.profiles.when import When

SCHEMA = "planner/profile/2"
DERIVED_SCHEMA = "planner/derived/1"
RULES_SCHEMA = "planner/rules/1"

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
_NAME = r"([A-Za-z0-9_.]+\.)?([A-Za-z0-9_]+|\*)"
OperatorNames = Annotated[str, Meta(pattern=rf"^{_NAME}(, *{_NAME})*$")]
WeightType = Literal[
    "float32", "float16", "float8e4m3fn",
    "uint16", "int16", "uint8", "int8", "uint4", "int4",
    "uint16-per-tensor", "int16-per-tensor", "uint8-per-tensor", "int8-per-tensor", "uint4-per-tensor", "int4-per-tensor",
    "uint16-per-channel", "int16-per-channel", "uint8-per-channel", "int8-per-channel", "uint4-per-channel", "int4-per-channel",
]  # fmt: skip


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


class FixedParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """Output quantization parameters that the EP demands."""

    scale: Annotated[float, Meta(gt=0)]
    zero_point: int


class Statement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every statement about an operator may say.

    Attributes:
        on: traits; it speaks of the devices that have one of them, of all devices where none is named.
        when: conditions on the node.
        weight: types of the weight. `int8` is any int8, `int8-per-tensor` one with one scale, `int8-per-channel` one with a
            scale per output channel. None: nodes without a weight, and float nodes, whose weight has their own type.
        activation: types of the activations.
        seen: probe cases that show it.
        source: how it is known, where the file does not say so for all its statements.
        id: what verdicts call it; its place in the file where it has none.
    """

    # Not `Name`: with a pattern in this union, msgspec 0.22 leaves memory behind that crashes the interpreter when it ends.
    on: str | list[str] = []
    when: When = When()
    weight: WeightType | list[WeightType] = []
    activation: DType | list[DType] = []
    seen: list[str] = []
    source: Source | None = None
    id: Name | None = None


class Takes(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pairs that the EP takes: any of the weights with any of the activations. Without both, it takes an operator that has no
    precision to choose.

    Attributes:
        blocks: block sizes that may be planned for a weight (one scale per so many numbers of it, behind a DequantizeLinear).
        fixed: output parameters that an activation type demands.
        kernels: legality follows a kernel table: the name of a JSON file beside the profile, or "installed" for the
            registry of the installed build.
        cast_float16: with `kernels`: a node without a float16 kernel is run in float32 between casts, which the
            runtime inserts by itself.
        do: what to do where another pair is asked for.
    """

    blocks: list[Annotated[int, Meta(ge=16)]] = []
    fixed: dict[DType, FixedParameters] = {}
    kernels: str | None = None
    cast_float16: bool = False
    do: str | None = None


class Refuses(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the EP does not take: the pairs that it names, or every pair.

    Attributes:
        why: the reason, for people. do: the next step.
    """

    why: Annotated[str, Meta(min_length=1)]
    do: Annotated[str, Meta(min_length=1)]


class Operator(Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile says of an operator. A refusal that matches stands above all that is taken."""

    takes: list[Takes] = []
    refuses: list[Refuses] = []


class DefectNode(Struct, frozen=True, forbid_unknown_fields=True):
    """A node that shows a defect, alone or as one of a pair.

    Attributes:
        op: its operator, or several, as in `operators`.
        when: conditions on it.
        activation: types that it computes with; none: any.
    """

    op: OperatorNames
    when: When = When()
    activation: list[DType] = []


class Defect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that the EP takes and gets wrong: a node, or one that reads another.

    Attributes:
        id: what notes and plans call it.
        what: what happens and where it was seen, for people.
        aborts: no session is built, or building it ends the process; else the numbers are wrong.
        first, then: the nodes; `then` reads the result of `first`. None: `first` alone shows it.
        at: the operand of `then` that is this result; None: any.
        beside: whether `then` also reads what `first` reads.
        behind: operators; one of them lies somewhere before `first`.
        on: traits; it speaks of the devices that have one of them, of all devices where none is named.
        avoid: types for `first` that avoid it, best first.
        factor: type for the second factor of `first`, a product, that avoids it; its zero point is 0 then.
        written: how planner writes such nodes, where another spelling avoids it; for people, too.
        model: the smallest graph that shows it, as ONNX's text; its first input flows, the others are constants. `planner probe`
            asks it again, quantized at the precision where it is not quantized by itself.
        precision: at which it shows.
        source: how it is known, and since which version.
    """

    id: Name
    what: Annotated[str, Meta(min_length=1)]
    first: DefectNode
    model: Annotated[str, Meta(min_length=1)]
    precision: str
    source: Source
    then: DefectNode | None = None
    aborts: bool = False
    at: Annotated[int, Meta(ge=0)] | None = None
    beside: bool = False
    behind: OperatorNames | None = None
    on: list[str] = []
    avoid: list[DType] = []
    factor: DType | None = None
    written: str | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for every node.

    Attributes:
        static_shapes: shapes must be known ahead.
        max_rank: no tensor has more dimensions.
        bodies_follow: the nodes inside an If, Loop or Scan that the EP leaves to another are left with it.
        one_scale_to_float: traits of devices on which a DequantizeLinear that hands a weight to a node in float has one scale.
        feeds_by_place: inputs that nothing reads must stand last: the EP feeds the others by their place among those that are read.
    """

    static_shapes: bool = False
    max_rank: int | None = None
    bodies_follow: bool = False
    one_scale_to_float: list[str] = []
    feeds_by_place: bool = False


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
        rules: the file beside the profile with all that is said of this device: no statement of the profile speaks of it.
    """

    title: str
    kind: Annotated[str, Meta(pattern="^(npu|gpu|cpu)$")]
    source: Source
    options: dict[str, str] = {}
    traits: list[Name] = []
    prefer: list[str] = []
    cost: Cost | None = None
    rules: str | None = None


class ProfileFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A profile as written. See `Profile` for the one that the planner works with.

    Attributes:
        schema: "planner/profile/2".
        ep: full provider name. aliases: other names for --ep.
        default_device: the device that is meant when none is named.
        prefer: precisions in order of preference (shorthands; w8a16+fp16 quantizes what has weights).
        options: provider options for every device.
        opset: the ai.onnx opset that models are written at where no other serves more of their operators.
        cost: what computing costs, for devices that say nothing of their own.
        operators: statements by operator: `Conv`, `Conv, ConvTranspose` where they agree, `com.microsoft.Gelu` in another
            domain, `*` and `com.microsoft.*` for every operator of a domain.
        source: how its statements are known, where one has no source of its own.
        defects: what the EP takes and gets wrong.
        written_as: operators that plans write others as, since the EP is faster so: Gemm, a product of a constant matrix and its bias
            (not where weights alone are integers).
        derived: the file beside it that holds the generated statements; those written here stand above them.
    """

    schema: Annotated[str, Meta(pattern=f"^{SCHEMA}$")]
    ep: Name
    title: str
    default_device: str
    devices: Annotated[dict[Name, Device], Meta(min_length=1)]
    prefer: Annotated[list[str], Meta(min_length=1)]
    operators: Annotated[dict[OperatorNames, Operator], Meta(min_length=1)]
    aliases: list[Name] = []
    options: dict[str, str] = {}
    opset: Annotated[int, Meta(ge=13)] | None = None
    limits: Limits = Limits()
    cost: Cost = Cost()
    source: Source | None = None
    defects: list[Defect] = []
    written_as: list[Literal["Gemm"]] = []
    derived: str | None = None


class RulesFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Statements in a file beside a profile: those that `python -m planner.derive` generated, or those about one device.

    Attributes:
        schema: "planner/derived/1" or "planner/rules/1". ep: full provider name. source: how its statements are known, where
            one has no source of its own; of generated ones, the packages whose answers they were derived from.
    """

    schema: Annotated[str, Meta(pattern=f"^({DERIVED_SCHEMA}|{RULES_SCHEMA})$")]
    ep: Name
    source: Source
    operators: dict[OperatorNames, Operator]


@dataclass(frozen=True)
class Rule:
    """A statement about one operator, as verdicts name it.

    Attributes:
        id: its own, or its place: "Gemm.refuses[0]", "derived.Gemm.refuses[0]".
        refuse: the reason, if the rule is a refusal; then weight and activation are what it refuses (none: everything).
        suggestion: what to do where the rule says no.
        on, when, weight, activation, blocks, fixed, kernels, cast_float16: as in `Statement` and `Takes`.
    """

    id: str
    source: Source
    on: tuple[str, ...] = ()
    when: When = field(default_factory=When)
    weight: tuple[WeightType, ...] = ()
    activation: tuple[DType, ...] = ()
    blocks: tuple[int, ...] = ()
    fixed: Mapping[DType, FixedParameters] = field(default_factory=dict)
    kernels: str | None = None
    cast_float16: bool = False
    refuse: str | None = None
    suggestion: str | None = None

    def names_weight(self, dtype: DType, *, per_channel: bool) -> bool:
        """Whether its weights include this type, scaled so."""
        return dtype in self.weight or f"{dtype}-per-{'channel' if per_channel else 'tensor'}" in self.weight

    def names_blocked_weight(self, dtype: DType) -> bool:
        """Whether its weights include this type, however it is scaled."""
        return any(weight.partition("-")[0] == dtype for weight in self.weight)


@dataclass(frozen=True)
class Learned:
    """How a kind of node fared on the EP itself, as a model taught: `planner probe --from-model`.

    Attributes:
        reason: the EP's own, where it did not take it. source: its file, and the packages that answered.
    """

    on_target: bool
    reason: str | None
    source: str


ByOperator = Mapping[tuple[str, str], tuple[Rule, ...]]


@dataclass(frozen=True)
class Profile:
    """A profile, loaded: the file's content, its kernel tables, its hash.

    Attributes:
        path: the file it came from. sha256: of its bytes and those of the files it names.
        prefer: by device, the precisions in order of preference.
        tables: kernel table by the name that rules use.
        by_operator: rules by (domain, operator) in the order in which they are asked; the operator "*" stands for those that
            no rule names.
        of_device: the same for each device that has rules of its own.
        notes: what whoever relies on a verdict should know of the profile.
        learned: by (device, signature of a node), what the EP itself was seen to do: it stands above the rules.
    """

    path: str
    sha256: str
    file: ProfileFile
    prefer: Mapping[str, tuple[Precision, ...]]
    tables: Mapping[str, KernelTable]
    by_operator: ByOperator
    of_device: Mapping[str, ByOperator] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    learned: Mapping[tuple[str, str], Learned] = field(default_factory=dict, repr=False)

    @property
    def ep(self) -> str:
        """The full provider name."""
        return self.file.ep

    @property
    def name(self) -> str:
        """What the profile is called: its folder where that is its own, as for the shipped ones; else its file."""
        path = Path(self.path)
        return path.parent.name if path.name == PROFILE else path.name

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

    def defects(self, device: str) -> tuple[Defect, ...]:
        """What the EP takes and gets wrong on the device."""
        traits = self.device(device).traits
        return tuple(d for d in self.file.defects if not d.on or any(trait in d.on for trait in traits))

    def with_traits(self, device: str, traits: Iterable[str]) -> Profile:
        """The profile whose device has these traits as well."""
        own = self.device(device)
        more = structs.replace(own, traits=[*dict.fromkeys([*own.traits, *traits])])
        return replace(self, file=structs.replace(self.file, devices={**self.file.devices, device: more}))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule once, in the order of the operators."""
        every = (self.by_operator, *self.of_device.values())
        return tuple({rule.id: rule for indexed in every for rules in indexed.values() for rule in rules}.values())

    def is_observed(self, device: str) -> bool:
        """Whether anything that the device is said to take was seen on the EP itself, or all of it is read in documents."""
        indexed = self.of_device.get(device, self.by_operator)
        return any(rule.refuse is None and rule.source.observed for rules in indexed.values() for rule in rules)

    def rules_for(self, op_type: str, domain: str, device: str) -> tuple[Rule, ...]:
        """The rules that speak of the operator on the device, in the order in which they are asked."""
        traits = self.device(device).traits
        indexed = self.of_device.get(device, self.by_operator)
        found = indexed.get((domain, op_type), indexed.get((domain, "*"), ()))
        return tuple(r for r in found if not r.on or any(trait in r.on for trait in traits))
