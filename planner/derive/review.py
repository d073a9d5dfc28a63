"""An EP's own answers, beside what is stored of it and what its profile says: what `planner probe` finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner import codec
from planner.derive.predict import agrees, explanation, predict
from planner.errors import RequestError
from planner.files import atomic, check_output
from planner.probe import evidence as files
from planner.probe.ask import ask
from planner.probe.cases import all_cases
from planner.probe.defects import Asked, ask_defects
from planner.probe.evidence import Difference, Evidence
from planner.probe.from_model import from_model
from planner.probe.run import Outcome, select
from planner.profiles import kernels, learned
from planner.profiles.learned import LearnedFile, LearnedNode
from planner.progress import Progress, silent
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target


@dataclass(frozen=True)
class Contradiction:
    """A case that the profile judges otherwise than the EP answered.

    Attributes:
        result: the EP's answer.
        rule: the rule that judges it; None where none does.
        on_target: what the rule says.
    """

    case: str
    result: str
    rule: str | None
    on_target: bool | None


@dataclass(frozen=True)
class CasesReview:
    """The answers to the cases of the matrix.

    Attributes:
        before: the evidence that they are compared with, where there is some.
        differences: cases that it answers otherwise.
        contradictions: cases that the profile judges otherwise.
        defects: the EP's known defects, asked again.
    """

    target: TargetIdentity
    found: Evidence = field(repr=False)
    before: Evidence | None = field(repr=False)
    differences: tuple[Difference, ...]
    contradictions: tuple[Contradiction, ...]
    defects: tuple[Asked, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything differs from the stored evidence."""
        return bool(self.differences)

    def to_json(self) -> dict[str, Any]:
        """The contract's `planner/probe/1`."""
        before = self.before
        return _document(
            self.target,
            cases=[outcome_json(case, outcome) for case, outcome in self.found.outcomes.items()],
            differences=[codec.to_json(d) for d in self.differences],
            runtime=dict(self.found.runtime),
            compared_with=before and {"runtime": dict(before.runtime), "date": before.date},
            contradictions=[codec.to_json(c) for c in self.contradictions],
            defects=[codec.to_json(d) for d in self.defects],
        )


@dataclass(frozen=True)
class RegistryReview:
    """The kernel registry of the installed build beside the stored one.

    Attributes:
        before: the stored table's source. after: the installed one's.
        operators: how many the installed build has kernels of.
        differences: (kernel, was, is).
    """

    target: TargetIdentity
    before: str
    after: str
    operators: int
    differences: tuple[tuple[str, str | None, str | None], ...]

    @property
    def changed(self) -> bool:
        """Whether any kernel differs."""
        return bool(self.differences)

    def to_json(self) -> dict[str, Any]:
        """The contract's `planner/probe/1`."""
        return _document(
            self.target,
            cases=[{"case": f"{self.operators} operators", "result": "registry", "reason": None, "sqnr_db": None}],
            differences=[{"case": c, "before": b, "after": a} for c, b, a in self.differences],
            source=self.after,
            compared_with=self.before,
        )


@dataclass(frozen=True)
class ModelReview:
    """The kinds of nodes of one model, where the EP put each, and what the profile says."""

    target: TargetIdentity
    found: LearnedFile

    @property
    def contradictions(self) -> tuple[LearnedNode, ...]:
        """Those that the profile judges otherwise."""
        return tuple(n for n in self.found.nodes if n.predicted is not n.on_target)

    @property
    def changed(self) -> bool:
        """Whether the profile is wrong about any."""
        return bool(self.contradictions)

    def to_json(self) -> dict[str, Any]:
        """The contract's `planner/probe/1`."""
        return _document(
            self.target,
            cases=[codec.to_json(n) for n in self.found.nodes],
            differences=[codec.to_json(n) for n in self.contradictions],
            runtime=dict(self.found.runtime),
        )


Review = CasesReview | RegistryReview | ModelReview


def _document(target: TargetIdentity, **parts: Any) -> dict[str, Any]:
    return {"schema": "planner/probe/1", "target": codec.to_json(target), **parts}


def outcome_json(case: str, outcome: Outcome) -> dict[str, Any]:
    """A case and its answer as plain data."""
    return {"case": case, **codec.to_json(outcome)}


def review(
    target: Target,
    *,
    operators: Sequence[str] = (),
    model: Path | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    against: Path | None = None,
    needs_evidence: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> Review:
    """Ask the installed EP: about a model's nodes, or its kernel registry where its rules follow that, or case by case.

    Args:
        target: what is asked.
        operators: only these, as in ONNX; all where empty.
        model: ask about the nodes of this file, as it is stored.
        output: where the answers are written, as a file that can be compared with or given as evidence.
        overwrite: whether an output that exists is replaced.
        against: compare with this evidence file instead of the shipped one.
        needs_evidence: refuse where there is nothing to compare with.
        workers: processes of the EP at a time.
        progress: told of each case.

    Raises:
        RequestError: no such operator, nothing to compare with, an unreadable file, or an output in the way.
        EPError: the EP cannot be started.
    """
    if output is not None:
        check_output(output, tuple(p for p in (model, against) if p is not None), overwrite=overwrite)
    if model is not None:
        taught = from_model(model, target.profile, target.device)
        return _written(ModelReview(target.identity, taught), output, learned.dump(taught))
    if any(rule.kernels == "installed" for rule in target.profile.rules) and not operators:
        return _registry(target, output)
    before = files.load(against) if against is not None else files.stored(target.ep, target.device, target.options)
    if needs_evidence and before is None:
        raise RequestError(
            f"there is no stored evidence on {target.device} of {target.ep}",
            "probe with -o FILE first, and compare with --against FILE",
        )
    cases = select(all_cases().values(), operators)
    if not cases:
        raise RequestError(f"no probe case for {', '.join(operators)}", "operators are named as in ONNX: Conv, MatMul")
    partial = None if output is None else output.with_suffix(".partial")
    answers = ask(
        cases, target.ep, target.device, target.options, workers=workers, partial=partial,
        progress=lambda done, total: progress(f"probing {target.ep}", done, total),
    )  # fmt: skip
    changed = () if before is None else tuple(files.differences(_asked(before, answers), answers))
    seen = CasesReview(
        target.identity, answers, before, changed, _contradictions(target, answers.outcomes),
        tuple(ask_defects(target, operators)),
    )  # fmt: skip
    _written(seen, output, files.dump(answers))
    if partial is not None:
        partial.unlink(missing_ok=True)
    return seen


def _registry(target: Target, output: Path | None) -> Review:
    before, after = kernels.read(kernels.stored(target.ep)), kernels.installed(target.ep)
    operators = sum(len(of_domain) for of_domain in after["kernels"].values())
    changed = tuple(kernels.differences(before, after))
    found = RegistryReview(target.identity, before["source"], after["source"], operators, changed)
    return _written(found, output, kernels.dump(after))


def _written(found: Review, output: Path | None, text: str) -> Review:
    if output is not None:
        with atomic(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return found


def _asked(before: Evidence, found: Evidence) -> Evidence:
    """The stored answers to the cases that were asked this time."""
    return replace(before, outcomes={c: o for c, o in before.outcomes.items() if c in found.outcomes})


def _contradictions(target: Target, outcomes: Mapping[str, Outcome]) -> tuple[Contradiction, ...]:
    entries = []
    for case, outcome in outcomes.items():
        ruling = predict(case, target.profile, target.device)
        if agrees(ruling, outcome) is False and explanation(case, target.profile, ruling, outcome) is None:
            entries.append(Contradiction(case, str(outcome.result), ruling.rule, ruling.legal))
    return tuple(entries)
