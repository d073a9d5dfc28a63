"""The target: a profile on one of its devices, with this processor's traits and what models taught. It reads and judges models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.dtypes import Precision
from planner.errors import RequestError
from planner.model.passes.fuse import FUSED_OPERATORS
from planner.model.read import Model, read_model
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.choose import Resolution, judge_stored, make_plan, resolve, resolve_auto
from planner.resolve.legality import takes
from planner.resolve.plan import Plan, TargetIdentity
from planner.runtime.processor import traits

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs


@dataclass(frozen=True)
class Target:
    """A profile and a device of it: what every step starts from.

    Attributes:
        profile: with the evidence and the processor's traits applied.
        identity: the full name of the EP, the device, and the provider options that start it.
    """

    profile: Profile
    identity: TargetIdentity

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
        if evidence:
            from planner.profiles.learned import with_learned

            for path in evidence:
                profile = with_learned(profile, path)
        return cls.on(profile, device or profile.file.default_device)

    @classmethod
    def on(cls, profile: Profile, device: str) -> Target:
        """The target that a loaded profile has in a device. A processor has the traits of this machine's.

        Args:
            profile: with the evidence applied.
            device: name from the profile.

        Raises:
            RequestError: unknown device.
        """
        identity = TargetIdentity(profile.ep, device, profile.options(device))
        if profile.device(device).kind == "cpu":
            profile = profile.with_traits(device, traits())
        return cls(profile, identity)

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

    def read(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None, *, stored: bool = False) -> Model:
        """Read a model in the form in which this target sees it: only operators that it takes are fused into.

        Args:
            path: an ONNX file.
            shapes: fixed dimensions of inputs, by name.
            stored: to judge the file as it is: its opset stays, which is otherwise raised to what is written.
        """
        fused = [op for op in sorted(FUSED_OPERATORS) if takes(self.profile, self.device, op, 21)]
        return read_model(path, shapes, fused=fused, as_stored=stored)

    def resolutions(self, model: Model, precision: Precision | None) -> Iterator[Resolution]:
        """What the precision resolves to; for None (auto) each candidate in the profile's order of preference.

        Raises:
            RequestError: the model is quantized already: its precision is what it stores.
        """
        _refuse_quantized(model)
        if precision is None:
            yield from resolve_auto(model, self.profile, self.device)
        else:
            yield resolve(model, self.profile, self.device, precision)

    def check(self, model: Model, precision: Precision | None, *, stored: bool = False) -> Resolution:
        """Judge a precision, or (``stored``) the model as it is."""
        if stored:
            return judge_stored(model, self.profile, self.device)
        return next(self.resolutions(model, precision))

    def plan(self, model: Model, resolution: Resolution, inputs: Inputs | None = None) -> Plan:
        """The plan of a legal resolution, calibrated by these inputs where it needs any."""
        plan = make_plan(model, self.profile, self.identity, resolution)
        return replace(plan, inputs=inputs.to_json()) if inputs is not None and plan.is_quantized else plan


def _refuse_quantized(model: Model) -> None:
    stored = [n for n in model.nodes if n.stored.activation is not None and not n.stored.activation.is_float]
    if stored:
        first = stored[0]
        raise RequestError(
            f"{model.path} is quantized already: {len(stored)} nodes, first {first.op_type} {first.name!r} at {first.stored}",
            "give the float32 model it was made of; `planner check` without --precision judges this one as it is, and "
            "`planner verify` runs it",
        )
