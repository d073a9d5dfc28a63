"""The target: a profile on one of its devices, with this processor's traits and what models taught. It reads and judges models."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from planner.dtypes import DType, Precision, in_float
from planner.errors import RequestError
from planner.files import exists
from planner.model.binding import Seen
from planner.model.node import Node, Operand
from planner.model.passes.dimensions import any_rank
from planner.model.passes.fuse import FUSED_OPERATORS
from planner.model.passes.integers import PlainIntegers
from planner.model.read import Model, read_model
from planner.operators import Role
from planner.profiles.conditions import names_of
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile, Rule
from planner.profiles.when import OperandCondition, When
from planner.resolve.conditions import unmet_condition
from planner.resolve.kernels import serves
from planner.resolve.opset import PREFERRED, written_opset
from planner.resolve.plan import EvidenceIdentity, Plan, TargetIdentity
from planner.runtime.processor import traits

_log = logging.getLogger("planner")


@dataclass(frozen=True)
class Target:
    """A profile and a device of it: what every step starts from.

    Attributes:
        profile: with the evidence and the processor's traits applied.
        identity: the full name of the EP, the device, and the provider options that start it.
        evidence: the files of what models taught.
    """

    profile: Profile
    identity: TargetIdentity
    evidence: tuple[EvidenceIdentity, ...] = ()

    @classmethod
    def open(
        cls,
        ep: str,
        device: str | None = None,
        profiles: Sequence[Path] = (),
        evidence: Sequence[Path] = (),
    ) -> Target:
        """Find the EP's profile and the device in it.

        Args:
            ep: alias or full provider name.
            device: name from the profile; None for its default.
            profiles: files that add to or override the shipped profiles.
            evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.

        Raises:
            RequestError: unknown EP or device, malformed profile or evidence.
        """
        profile = load_profiles(profiles).find(ep)
        return cls.on(profile, device or profile.file.default_device, evidence)

    @classmethod
    def on(cls, profile: Profile, device: str, evidence: Sequence[Path] = ()) -> Target:
        """The target that a loaded profile has in a device. A processor has the traits of this machine's.

        Args:
            profile: as it was loaded.
            device: name from the profile.
            evidence: as for `open`.

        Raises:
            RequestError: unknown device, malformed evidence.
        """
        if evidence:
            from planner.profiles.learned import with_learned

            for path in evidence:
                profile = with_learned(profile, path)
        if not profile.is_observed(device):
            note = f"{profile.ep} on {device} is declared by documents, and was never observed: docs/adding-evidence.md"
            profile = replace(profile, notes=(*profile.notes, note))
        known = tuple(EvidenceIdentity(str(p), hashlib.sha256(p.read_bytes()).hexdigest()) for p in evidence)
        identity = TargetIdentity(profile.ep, device, profile.options(device))
        if profile.device(device).kind == "cpu":
            profile = profile.with_traits(device, traits())
        return cls(profile, identity, known)

    def unaware(self, but: Collection[str] = ()) -> Target:
        """The same, but that nothing is known of what the EP gets wrong: plans write what they would avoid.

        Args:
            but: defects that are known all the same.
        """
        return self._saying(defects=[defect for defect in self.profile.file.defects if defect.id in but])

    def asked(self, precision: Precision | None) -> Target:
        """The target of a precision: where weights alone are integers, products stay as they are.

        Args:
            precision: None where the choice is the resolver's.
        """
        return self if precision is None or precision.flows is None else self._products_kept()

    def _products_kept(self) -> Target:
        # QNN takes no Gemm whose weight lies in blocks, as four bits do; and a float bias costs nothing beside the product.
        return self._saying(written_as=[]) if self.profile.file.written_as else self

    def _saying(self, **other: object) -> Target:
        """The same with a profile that says other things."""
        return replace(self, profile=replace(self.profile, file=structs.replace(self.profile.file, **other)))

    @property
    def ep(self) -> str:
        """Full provider name."""
        return self.identity.ep

    @property
    def device(self) -> str:
        """Name of the device in the profile."""
        return self.identity.device

    @property
    def options(self) -> Mapping[str, str]:
        """Provider options that start the EP for the device."""
        return self.identity.options

    def rules_for(self, op_type: str, domain: str = "") -> tuple[Rule, ...]:
        """The rules that speak of the operator on the device, in the profile's order."""
        return self.profile.rules_for(op_type, domain, self.device)

    @property
    def preferred(self) -> tuple[Precision, ...]:
        """The precisions that the profile prefers on the device, best first."""
        return self.profile.prefer[self.device]

    @property
    def computes_float32(self) -> bool:
        """Whether float32 stays float32: a device may take such graphs and compute them in float16; its profile never
        prefers fp32.
        """
        return any(DType.FLOAT32 in precision.activations for precision in self.preferred)

    def takes(self, op_type: str, opset: int, *, or_defined: bool = False) -> bool:
        """Whether the device takes the operator at all: what decides if a decomposed one is fused into it.

        Args:
            op_type: the operator, with its domain before a dot where that is not ONNX's own.
            opset: of the model.
            or_defined: also where it takes all the operators that ONNX defines this one by.
        """
        domain, _, name = op_type.rpartition(".")
        for rule in self.rules_for(name, domain):
            if not rule.when.spans(opset):
                continue
            if rule.kernels is not None:
                table = self.profile.tables[rule.kernels]
                if table.types(name, domain, opset) is not None or (or_defined and serves(table, name, opset)):
                    return True
            elif rule.refuse is None:
                return True
            elif rule.when.asks_opset_alone and self._refuses_floats(rule):
                return False
        return False

    def _refuses_floats(self, rule: Rule) -> bool:
        """Whether a refusal is of every pair, or of float32 where that stays so: the parts may be float32, the operator not."""
        if rule.weight:
            return False
        return not rule.activation or (self.computes_float32 and DType.FLOAT32 in rule.activation)

    def moves(self, op_type: str, dtype: str) -> bool:
        """Whether no rule refuses an operator for the mere type of its plain data.

        Args:
            op_type: of ONNX's own.
            dtype: of its first input, "int64".
        """
        return not any(
            rule.refuse is not None
            and (data := rule.when.inputs.get("0")) is not None
            and dtype in (data.dtype or ())
            and structs.replace(data, dtype=None, present=None) == OperandCondition()
            and rule.when == When(inputs={"0": data})
            for rule in self.rules_for(op_type)
        )

    def most_rank(self, op_type: str) -> int:
        """How many dimensions the device takes of an operator at every precision that it has for fewer."""
        most = self.profile.limits.max_rank or any_rank(op_type)
        for rule in self.rules_for(op_type):
            when = rule.when
            data = structs.replace(when.inputs.get("0", OperandCondition()), present=None)
            least = data.min_rank if when.inputs else when.min_rank
            if rule.refuse is None or least is None or least > most:
                continue
            # A rule that asks for anything else is not about dimensions alone.
            if (when.inputs and data == OperandCondition(min_rank=least) and when == When(inputs=when.inputs)) or (
                when == When(min_rank=least, weight=when.weight)
            ):
                most = least - 1
        return most

    def casts(self, source: str, to: int) -> bool:
        """Whether some rule allows a Cast of a type, by name, to one that has this number in ONNX, wherever it stands."""
        for rule in self.rules_for("Cast"):
            types, data = rule.when.attributes.get("to"), rule.when.inputs.get("0")
            of_source = data is None or data.dtype is None or source in data.dtype
            anywhere = rule.when.given_out is None
            if rule.refuse is None and anywhere and of_source and (types is None or to in types):
                return True
        return False

    def miscasts(self, source: str, to: int) -> bool:
        """Whether a known defect speaks of a Cast of a type, by name, to one that has this number in ONNX."""
        for when in self._known_wrong("Cast"):
            data = when.inputs.get("0")
            of_source = data is not None and data.dtype is not None and source in data.dtype
            if of_source and to in when.attributes.get("to", ()):
                return True
        return False

    def _known_wrong(self, op_type: str) -> tuple[When, ...]:
        """Conditions of the known defects that speak of an operator by itself."""
        return tuple(
            defect.first.when
            for defect in self.profile.defects(self.device)
            if defect.then is None and op_type in names_of(defect.first.op)
        )

    def _misconvolves(self, weight: tuple[int, ...], attributes: Mapping[str, object], bias: bool) -> bool:
        """Whether a known defect speaks of a Conv in float by itself whose weight has this shape."""
        config = in_float(DType.FLOAT32, has_weight=True)
        data = Operand("x", Role.ACTIVATION, "float32", (None,) * len(weight), False)
        operands = [data, replace(data, name="w", role=Role.WEIGHT, shape=weight, constant=True)]
        operands += [replace(data, name="b", role=Role.BIAS, shape=weight[:1], constant=True)] if bias else []
        node = Node("", "Conv", "", tuple(operands), ("y",), (data.shape,), ("float32",), attributes, (), config)
        opset = self.profile.file.opset or PREFERRED
        return any(
            unmet_condition(when, node, config, opset, of_refusal=True) is None for when in self._known_wrong("Conv")
        )

    def read(
        self,
        path: Path,
        shapes: Mapping[str, Sequence[int]] | None = None,
        *,
        stored: bool = False,
        bound: bool = True,
        seen: Seen = lambda _: {},
    ) -> Model:
        """Read a model in the form in which this target sees it: only operators that it takes are fused into.

        Open dimensions are bound where the target wants static shapes, or leaves what computes with shapes to others; elsewhere the
        written model keeps them.

        Args:
            path: an ONNX file.
            shapes: fixed dimensions of inputs, by name.
            stored: to judge the file as it is: its opset stays, which is otherwise brought to what is written.
            bound: whether open dimensions may be bound at all.
            seen: what shapes the samples have.
        """
        wanted = self.profile.file.opset

        def opset(operators: Collection[str], have: int) -> int:
            # What plans add counts too: onnxruntime 1.32 has a kernel for Relu at opset 28, and none for QuantizeLinear.
            added = {op for op in ("QuantizeLinear", "DequantizeLinear") if self.takes(op, wanted or PREFERRED)}
            return written_opset(
                lambda op_type, at: self.takes(op_type, at, or_defined=True), {*operators, *added}, have, wanted
            )

        fused: list[str] = [op for op in sorted(FUSED_OPERATORS) if self.takes(op, wanted or PREFERRED)]
        fused += self.profile.file.written_as

        integers = PlainIntegers(self.moves, self.casts, self.miscasts)

        def read(binding: Seen | None) -> Model:
            return read_model(
                path,
                shapes,
                target_opset=opset,
                fused=fused,
                integers=integers,
                most_rank=self.most_rank,
                misconvolves=self._misconvolves if self._known_wrong("Conv") else None,
                as_stored=stored,
                seen=binding,
            )

        model = read(seen if bound and self.profile.limits.static_shapes else None)
        if not stored and model.dynamic_inputs and any(self._leaves_shapes_of(node) for node in model.nodes):
            model = read(seen)
        return model

    def _leaves_shapes_of(self, node: Node) -> bool:
        """Whether the node computes with shapes alone, and the target leaves that to others: it is gone where shapes are fixed."""
        return node.shape_arithmetic and any(
            rule.when.shape_arithmetic and rule.refuse is not None for rule in self.rules_for(node.op_type, node.domain)
        )


def forms(target: Target, read: Callable[[Target], Model]) -> Callable[[Precision | None], tuple[Target, Model]]:
    """Of each precision the target and the model as it reads it; each form is read once.

    Args:
        target: where the model is to run.
        read: reads it for a target.
    """
    known: dict[bool, tuple[Target, Model]] = {}

    def form(precision: Precision | None) -> tuple[Target, Model]:
        asked = target.asked(precision)
        usual = asked is target
        if usual not in known:
            known[usual] = asked, read(asked)
        return known[usual]

    return form


def open_planned(plan: Plan, profiles: Sequence[Path], evidence: Sequence[Path]) -> Target:
    """The target of a plan, with the evidence that it was made with.

    Args:
        plan: as it was made.
        profiles: files that add to or override the shipped profiles.
        evidence: where the plan's evidence lies now; none for where the plan says.

    Raises:
        RequestError: it is missing, or not the same (its hash differs).
    """
    hint = "say with --evidence where it lies now, or make the plan anew with `planner plan`"
    paths = [Path(path) for path in evidence] or [Path(known.path) for known in plan.evidence]
    for path in paths:
        if not exists(path):
            raise RequestError(f"{path}: the evidence that the plan was made with is not there", hint)
    target = Target.open(plan.target.ep, plan.target.device, profiles, paths)
    if [known.sha256 for known in target.evidence] != [known.sha256 for known in plan.evidence]:
        raise RequestError("the evidence is not what the plan was made with (its hash differs)", hint)
    if target.profile.sha256 != plan.profile.sha256:
        _log.warning("the profile of %s has changed since the plan was made", plan.target.ep)
    return target._products_kept() if plan.weights_alone else target
