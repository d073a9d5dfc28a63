"""Does my kind of model work? Every model of examples/zoo.py through `planner target` on each execution provider.

python -m examples.zoo DIR          (in an environment with the extra `zoo`)
python -m benchmarks.zoo DIR        (planner's own; goes on where it was stopped)
python -m benchmarks.zoo DIR --markdown docs/models.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import planner
from examples.zoo import ZOO, Entry
from planner.errors import PlannerError
from planner.files import write_text
from planner.progress import Progress
from planner.resolve.target import Target
from planner.results import TargetResult

EPS = (("qnn", "snapdragon-x-elite"), ("directml", "gpu"), ("cpu", "cpu"))
_TITLES = {"qnn": "QNN, Snapdragon X Elite (simulator)", "directml": "DirectML", "cpu": "CPU"}
_RESULTS = "results.json"
_KINDS = {"software": "run on a software GPU"}


@dataclass(frozen=True)
class Result:
    """What `planner target` came to for one model on one EP.

    Attributes:
        outcome: "verified", "not verified", "illegal", "unknown", "error" or "unfinished". reason: why not, in planner's words.
        kind: what the numbers ran on: "hardware", "simulator" or "emulation". placed_by: what decided the placement, or None.
        precision: of the plan that was kept. least_db: of its worst output or part.
        judged: nodes whose placement was predicted and seen. contradicted: those that fared otherwise.
        seconds: wall time. runtime: versions of what ran.
    """

    model: str
    ep: str
    outcome: str
    reason: str = ""
    kind: str = ""
    placed_by: str | None = None
    precision: str = ""
    least_db: float | None = None
    judged: int = 0
    contradicted: tuple[str, ...] = ()
    seconds: float = 0.0
    runtime: str = ""


def judge(entry: Entry, folder: Path, ep: str, device: str) -> Result:
    """Plan, quantize and verify one model."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        try:
            found = planner.target(
                folder / f"{entry.name}.onnx",
                ep,
                Path(out) / "out.onnx",
                device=device,
                inputs=str(folder / f"{entry.name}.npz"),
                progress=_teller(entry.name, ep),
            )
        except PlannerError as error:
            return Result(entry.name, ep, "error", str(error), seconds=time.monotonic() - started)
    return _result(entry.name, ep, found, time.monotonic() - started)


def _teller(name: str, ep: str) -> Progress:
    def tell(what: str, _done: int, _total: int) -> None:
        print(f"\r{name} on {ep}: {what}".ljust(100), end="", file=sys.stderr, flush=True)

    return tell


def _result(name: str, ep: str, found: TargetResult, seconds: float) -> Result:
    if found.kept is None:
        outcome = "unknown" if found.check.legal is None else "illegal"
        return Result(name, ep, outcome, found.check.sentence(), seconds=seconds)
    seen, plan = found.kept.verification, found.kept.plan
    placed = set(seen.placement.nodes) | {left.name for left in seen.placement.fallback}
    return Result(
        name,
        ep,
        "verified" if found.passed else "not verified",
        "; ".join(seen.reasons),
        seen.kind,
        seen.placement.by,
        plan.precision,
        found.kept.worst_db,
        sum(line.on_target is not None and line.name in placed for line in plan.nodes),
        tuple(f"{c.op_type} {c.name}: {c.sentence()}" for c in seen.contradictions),
        seconds,
        ", ".join(f"{package} {version}" for package, version in seen.runtime.items()),
    )


def read(folder: Path) -> dict[tuple[str, str], Result]:
    """What was judged so far."""
    path = folder / _RESULTS
    rows = json.loads(path.read_text()) if path.exists() else []
    return {(row["model"], row["ep"]): Result(**{**row, "contradicted": tuple(row["contradicted"])}) for row in rows}


def run(folder: Path, names: Sequence[str], eps: Sequence[str]) -> dict[tuple[str, str], Result]:
    """Judge what was not judged yet, or what is named, and keep it."""
    results = read(folder)
    for ep, device in EPS:
        for entry in ZOO:
            wanted = entry.name in names if names else (entry.name, ep) not in results
            if ep not in eps or not wanted or not (folder / f"{entry.name}.npz").exists():
                continue
            found = results[entry.name, ep] = judge(entry, folder, ep, device)
            line = f"{found.model} on {ep}: {found.outcome} {found.precision} {found.reason}"
            print(f"\r{line[:300].ljust(100)} ({found.seconds:.0f} s)", flush=True)
            write_text(folder / _RESULTS, json.dumps([asdict(row) for row in results.values()], indent=1))
    return results


# -- the page -------------------------------------------------------------------------------------------------------------


def markdown(results: dict[tuple[str, str], Result]) -> str:
    """The page for users."""
    shown = [ep for ep, _ in EPS if any(key[1] == ep for key in results)]
    lines = [
        "# Does my kind of model work?",
        "",
        "Small models of many kinds with random weights, exported as their users do it (`examples/zoo.py`), each through",
        "`planner target MODEL --ep EP --inputs SAMPLES` with nothing else said. Measured by",
        "",
        "    python -m examples.zoo DIR",
        "    python -m benchmarks.zoo DIR --markdown docs/models.md",
        "",
        f"Versions: {', '.join(dict.fromkeys(v for r in results.values() for v in r.runtime.split(', ') if v))}. A cell says the precision that "
        "planner chose by itself,",
        "and the least SQNR of an output or part against float32. Weights are random: the figures show that a kind works, not how",
        "accurate a trained model of it stays. A dash: not measured yet.",
        "",
        *_summary(results, shown),
        "",
        f"| kind | model | written by | {' | '.join(_TITLES[ep] for ep in shown)} |",
        f"|---|---|---|{'---|' * len(shown)}",
    ]
    reasons: dict[str, int] = {}
    for entry in ZOO:
        cells = [_cell(results.get((entry.name, ep)), reasons) for ep in shown]
        how = f"{entry.exporter}, opset {entry.opset}{', open batch' if entry.open else ''}"
        lines.append(f"| {entry.kind} | {entry.name} | {how} | {' | '.join(cells)} |")
    if reasons:
        lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items())]
    return "\n".join([*lines, ""])


def _summary(results: dict[tuple[str, str], Result], shown: Iterable[str]) -> list[str]:
    lines = ["| | verified | judged by the profile as the EP answered | seconds, median |", "|---|---|---|---|"]
    for ep in shown:
        rows = [row for row in results.values() if row.ep == ep]
        outcomes = Counter(row.outcome for row in rows)
        judged, contradicted = sum(row.judged for row in rows), sum(len(row.contradicted) for row in rows)
        agree = "not asked" if not judged else f"{judged - contradicted} of {judged} nodes"
        seconds = sorted(row.seconds for row in rows)[len(rows) // 2]
        lines.append(f"| {_TITLES[ep]}{_how(rows)} | {outcomes['verified']} of {len(rows)} | {agree} | {seconds:.0f} |")
    return lines


def _how(rows: Sequence[Result]) -> str:
    kinds = dict.fromkeys(_KINDS.get(row.kind, row.kind) for row in rows if row.kind)
    placed = dict.fromkeys(row.placed_by for row in rows if row.kind == "emulation")
    by = "" if not placed else f", placed by {' and '.join(name or 'nobody: declared' for name in placed)}"
    return f": {', '.join(kinds)}{by}" if kinds else ""


def _cell(found: Result | None, reasons: dict[str, int]) -> str:
    if found is None:
        return "-"
    if found.outcome == "verified":
        assert found.least_db is not None
        return f"{found.precision}, {'same' if found.least_db >= 200 else f'{found.least_db:.0f} dB'}"
    return f"**{found.outcome}** [{reasons.setdefault(found.reason or found.outcome, len(reasons) + 1)}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the zoo; 1 where a model is not verified."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="what `python -m examples.zoo` wrote")
    parser.add_argument("names", nargs="*", help="these models alone, anew")
    parser.add_argument("--ep", action="append", choices=[ep for ep, _ in EPS], help="these alone; may be repeated")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page, of what was judged so far")
    args = parser.parse_intermixed_args(arguments)
    eps = args.ep or [ep for ep, _ in EPS]
    for ep, device in EPS:
        Target.open(ep, device)
    results = read(args.folder) if args.markdown is not None else run(args.folder, args.names, eps)
    if args.markdown is not None:
        write_text(args.markdown, markdown(results))
    return int(any(row.outcome != "verified" for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
