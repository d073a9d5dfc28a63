"""The whole road, each step a plain value: read, resolve, calibrate, apply, verify. I/O happens here and below, not above."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.dtypes import Precision, parse_dtype, parse_precision, precision_by_name
from planner.errors import RequestError
from planner.model.fuse import FUSED_OPERATORS
from planner.model.read import Model, read_model
from planner.model.write import save
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.choose import Resolution, judge_stored, make_plan, resolve, resolve_auto
from planner.resolve.legality import takes
from planner.resolve.plan import Plan, Target

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs
    from planner.calibrate.observe import Range
    from planner.verify.floor import Floor
    from planner.verify.verify import Verification

Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Session:
    """A profile and the target within it: what every command starts from."""

    profile: Profile
    target: Target

    @classmethod
    def open(cls, ep: str, device: str | None = None, profiles: Sequence[Path] = ()) -> Session:
        """Find the EP's profile and the device in it.

        Args:
            ep: alias or full provider name. device: name from the profile; None for its default.
            profiles: files that add to or override the shipped profiles.

        Raises:
            RequestError: unknown EP or device, malformed profile.
        """
        profile = load_profiles(profiles).find(ep)
        name = device or profile.file.default_device
        profile.device(name)
        return cls(profile, Target(profile.ep, name, profile.options(name)))

    def read(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
        """Read a model in the form in which this target sees it: only operators that it takes are fused into."""
        fused = [op for op in sorted(FUSED_OPERATORS) if takes(self.profile, self.target.device, op, 21)]
        return read_model(path, shapes, fused=fused)

    def resolutions(self, model: Model, precision: Precision | None) -> Iterator[Resolution]:
        """What the precision resolves to; for None (auto) each candidate in the profile's order of preference."""
        if precision is None:
            yield from resolve_auto(model, self.profile, self.target.device)
        else:
            yield resolve(model, self.profile, self.target.device, precision)

    def check(self, model: Model, precision: Precision | None, *, stored: bool = False) -> Resolution:
        """Judge a precision, or (``stored``) the model as it is."""
        if stored:
            return judge_stored(model, self.profile, self.target.device)
        return next(self.resolutions(model, precision))

    def plan(self, model: Model, resolution: Resolution, inputs: Inputs | None = None) -> Plan:
        """The plan of a legal resolution, calibrated by these inputs where it needs any."""
        plan = make_plan(model, self.profile, self.target, resolution)
        return replace(plan, inputs=inputs.to_json()) if inputs is not None and plan.is_quantized else plan


def requested_precision(
    precision: str | None, weight_type: str | None, activation_type: str | None
) -> Precision | None:
    """The precision that the options ask for; None for auto.

    Raises:
        RequestError: unknown names, or options that contradict one another.
    """
    if weight_type is None and activation_type is None:
        return None if precision is None or precision.strip().lower() == "auto" else parse_precision(precision)
    if precision is not None:
        raise RequestError("--precision and --weight-type/--activation-type exclude one another", "give one of them")
    if weight_type is None or activation_type is None:
        raise RequestError(
            "--weight-type and --activation-type go together",
            "for example --weight-type uint8 --activation-type uint16",
        )
    return precision_by_name(parse_dtype(weight_type), parse_dtype(activation_type))


def calibrate(
    model: Model, samples: Sequence[Mapping[str, Any]], progress: Progress = _silent, method: str = "minmax"
) -> dict[str, Range]:
    """The range of each float tensor of the float32 model over the samples, observed on the CPU EP in a worker.

    Memory does not grow with the number of samples. A model that masks by huge values takes a second pass.

    Args:
        method: minmax, average, percentile, entropy or mse: how ranges for 8-bit codes are cut.

    Raises:
        RequestError: an unknown method, or NaN somewhere in the model, with the name of the node.
    """
    from planner.calibrate.observe import Method, Observed, collect, extend, masked_tensors, merge_unmasked
    from planner.runtime.client import Worker
    from planner.runtime.providers import CPU

    if method not in list(Method):
        raise RequestError(f"unknown calibration method {method!r}", f"known: {', '.join(Method)}")
    assert model.ir is not None

    def over(observed: Observed, what: str, worker: Worker, folder: Path) -> dict[str, Range]:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            progress(what, done, len(samples))

        path = folder / "observed.onnx"
        save(observed.model, path)
        worker.open(path, {})
        progress(what, 0, len(samples))
        return collect(observed, lambda sample: worker.run(sample).outputs, samples, Method(method), step)

    with tempfile.TemporaryDirectory(prefix="planner-") as folder, Worker(CPU) as worker:
        observed = extend(model.ir, sample=Method(method).needs_histogram)
        ranges = over(observed, "calibrating", worker, Path(folder))
        masked = {observed.same.get(name, name) for name in masked_tensors(ranges)}
        if not masked:
            return ranges
        unmasked = over(extend(model.ir, unmasked=masked), "calibrating beside masks", worker, Path(folder))
        for name, source in observed.same.items():
            if source in unmasked:
                unmasked[name] = unmasked[source]
        return merge_unmasked(ranges, unmasked)


@dataclass(frozen=True)
class Artifact:
    """A written model."""

    path: str
    sha256: str
    bytes: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "bytes": self.bytes, "notes": list(self.notes)}


def quantize(
    model: Model, plan: Plan, ranges: Mapping[str, Range], output: Path, *, float16_io: bool = False
) -> Artifact:
    """Apply the plan and write the model to ``output``, whole or not at all.

    The same model, plan and inputs give the same bytes.
    """
    from planner.files import atomic
    from planner.quantize.apply import apply_plan

    applied = apply_plan(model, plan, ranges, float16_io=float16_io)
    with atomic(output) as temporary:
        save(applied.model, temporary)
    return artifact(output, applied.notes)


def artifact(path: Path, notes: tuple[str, ...] = ()) -> Artifact:
    """Size and hash of a written model, its external data included."""
    digest, size = hashlib.sha256(), 0
    for file in (path, path.with_name(f"{path.name}.data")):
        if file.exists():
            size += file.stat().st_size
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return Artifact(str(path), digest.hexdigest(), size, notes)


@dataclass(frozen=True)
class Attempt:
    """One precision that `auto` tried: planned, applied and verified."""

    plan: Plan
    artifact: Artifact
    verification: Verification

    @property
    def passed(self) -> bool:
        return self.verification.passed

    @property
    def worst_db(self) -> float:
        """Least SQNR of any output; -200 where nothing ran."""
        return min((f.sqnr_db for f in self.verification.fidelity), default=-200.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "precision": self.plan.precision,
            "passed": self.passed,
            "worst_sqnr_db": self.worst_db,
            "reasons": list(self.verification.reasons),
        }


@dataclass(frozen=True)
class Outcome:
    """What the whole job came to.

    Attributes:
        resolution: of the attempt kept; or the failed one, where nothing was legal.
        kept: the attempt whose model was written: the first that passed, else the most faithful one; None where
            nothing was legal.
        attempts: all of them, in the order in which they were made.
    """

    resolution: Resolution
    kept: Attempt | None
    attempts: tuple[Attempt, ...]


def run_target(
    session: Session,
    model: Model,
    precision: Precision | None,
    inputs: Inputs,
    output: Path,
    *,
    floor: Floor | None = None,
    allow_fallback: bool = False,
    float16_io: bool = False,
    progress: Progress = _silent,
) -> Outcome:
    """Plan, quantize and verify; with auto, down the profile's order of preference until a plan is verified."""
    from planner.files import atomic
    from planner.runtime.providers import launcher
    from planner.verify.floor import DEFAULT_FLOOR
    from planner.verify.verify import verify

    launcher(session.target.ep)
    ranges: dict[str, Range] | None = None
    attempts: list[tuple[Attempt, Resolution]] = []
    first: Resolution | None = None
    with tempfile.TemporaryDirectory(prefix=".planner-", dir=output.parent) as folder:
        reference = Path(folder) / "reference.onnx"
        assert model.ir is not None
        for number, resolution in enumerate(session.resolutions(model, precision)):
            first = first or resolution
            if resolution.legal is False:
                break
            plan = session.plan(model, resolution, inputs)
            if plan.is_quantized and ranges is None:
                ranges = calibrate(model, inputs.calibration, progress)
            progress(f"quantizing to {plan.precision}", 0, 1)
            path = Path(folder) / f"{number}.onnx"
            made = quantize(model, plan, ranges or {}, path, float16_io=float16_io)
            progress(f"quantizing to {plan.precision}", 1, 1)
            if not reference.exists():
                save(model.ir, reference)
            what = f"verifying {plan.precision} on {session.target.ep}"
            verification = verify(
                path,
                reference,
                session.target,
                inputs.evaluation,
                floor=floor or DEFAULT_FLOOR,
                allow_fallback=allow_fallback,
                progress=lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
            )
            attempts.append((Attempt(plan, made, verification), resolution))
            if verification.passed:
                break
        if not attempts:
            assert first is not None
            return Outcome(first, None, ())
        kept, resolution = max(
            attempts, key=lambda a: (a[0].passed, not a[0].verification.placement.fallback, a[0].worst_db)
        )
        with atomic(output) as temporary:
            source = Path(kept.artifact.path)
            for file in (source, source.with_name(f"{source.name}.data")):
                if file.exists():
                    file.replace(temporary.with_name(file.name.replace(source.name, output.name)))
        kept = replace(kept, artifact=replace(kept.artifact, path=str(output)))
        return Outcome(resolution, kept, tuple(a for a, _ in attempts[:-1]) + (attempts[-1][0],))
