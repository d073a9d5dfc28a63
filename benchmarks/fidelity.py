"""Does the verdict match the real EP? The predicted placement of real models against the EP's own, node by node.

    python -m benchmarks.fidelity                         (all example models, QNN's simulator, Snapdragon X Elite)
    python -m benchmarks.fidelity magika rec --json

Every model is judged as shipped (its shapes bound), and in float16, w8a8, w8a16 and w8a16 with float16, which are made by
the CPU profile, so that no rule of the judged EP had a say in them. A node counts where the EP's runtime names it: what
onnxruntime folds away or fuses before any EP sees it is on no device. Where no session could be built, the nodes that the
EP's own log refuses count as not taken, and the rest as not observed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from examples.fetch import EXAMPLES, fetch
from examples.inputs import of_example
from planner.dtypes import parse_precision
from planner.errors import PlannerError
from planner.model.normalize import bind_shapes
from planner.model.read import load
from planner.model.write import save
from planner.pipeline import Session, calibrate, quantize
from planner.runtime.client import SessionFailed, Worker
from planner.verify.placement import placement_of, unplaced

PRECISIONS = ("fp16", "w8a8", "w8a16", "w8a16+fp16")


@dataclass(frozen=True)
class Disagreement:
    """A node that was predicted otherwise than it fared."""

    node: str
    op_type: str
    pair: str
    predicted: bool | None
    taken: bool
    rule: str | None
    reason: str | None


@dataclass(frozen=True)
class Row:
    """One model at one precision.

    Attributes:
        nodes: of the model; observed: that the runtime named; agreed, unknown: of the observed ones.
        predicted: the verdict on the whole model; real: whether the EP took every node.
        seconds: of predicting.
    """

    model: str
    precision: str
    nodes: int
    observed: int
    agreed: int
    unknown: int
    predicted: bool | None
    real: bool
    seconds: float
    disagreements: tuple[Disagreement, ...]


def files_of(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The model as shipped with its shapes bound, then the files made of it."""
    example = EXAMPLES[name]
    source = fetch(name)
    bound = load(source)
    bind_shapes(bound, example.shapes)
    shipped = folder / f"{name}.onnx"
    save(bound, shipped)
    yield "as shipped", shipped
    session = Session.open("cpu")
    model = session.read(shipped)
    ranges = calibrate(model, list(islice(of_example(name)(), 2)))
    for precision in PRECISIONS:
        resolution = session.check(model, parse_precision(precision))
        path = folder / f"{name}.{precision}.onnx"
        quantize(model, session.plan(model, resolution), ranges, path)
        yield precision, path


def compare(name: str, precision: str, path: Path, session: Session, worker: Worker) -> Row:
    """Predict, then ask the EP."""
    started = time.perf_counter()
    model = session.read(path)
    resolution = session.check(model, None, stored=True)
    seconds = time.perf_counter() - started
    asked = load(path)
    candidate = {n.name: n.op_type for n in asked.graph.all_nodes() if n.name}
    try:
        opened = worker.open(path, session.target.options, log=True)
        placement = placement_of(opened, session.target.ep, candidate)
        real = not placement.fallback
    except SessionFailed as error:
        placement = unplaced(candidate, {r.name: r.reason for r in error.refusals})
        real = False
    reasons = {f.name: f.reason for f in placement.fallback}
    agreed = unknown = observed = 0
    wrong = []
    for verdict in resolution.verdicts:
        names = [
            n for n in dict.fromkeys((verdict.node.name, *verdict.node.origins)) if n in placement.nodes or n in reasons
        ]
        if not names:
            continue
        observed += 1
        taken = all(placement.nodes.get(n) == session.target.ep for n in names)
        if verdict.ruling.legal is None:
            unknown += 1
        if verdict.ruling.legal is taken:
            agreed += 1
        else:
            reason = next((reasons[n] for n in names if n in reasons), None)
            pair = f"{verdict.pair}{' per channel' if verdict.per_channel else ''}"
            wrong.append(
                Disagreement(
                    verdict.node.name,
                    verdict.node.op_type,
                    pair,
                    verdict.ruling.legal,
                    taken,
                    verdict.ruling.rule,
                    reason,
                )
            )
    return Row(
        name,
        precision,
        len(resolution.verdicts),
        observed,
        agreed,
        unknown,
        resolution.legal,
        real,
        seconds,
        tuple(wrong),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(EXAMPLES))
    parser.add_argument("--ep", default="qnn")
    parser.add_argument("--device")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    session = Session.open(args.ep, args.device)
    rows: list[Row] = []
    with Worker(session.target.ep) as worker, tempfile.TemporaryDirectory() as folder:
        for name in args.models or EXAMPLES:
            try:
                for precision, path in files_of(name, Path(folder)):
                    rows.append(compare(name, precision, path, session, worker))
                    row = rows[-1]
                    print(
                        f"{row.model:16} {row.precision:11} {row.agreed:4}/{row.observed:4} of {row.nodes:4}  "
                        f"predicted {row.predicted!s:5} real {row.real!s:5} {row.seconds:5.2f} s",
                        file=sys.stderr,
                        flush=True,
                    )
                    for d in row.disagreements[:6]:
                        print(
                            f"    {d.op_type} {d.pair} {d.node}: predicted {d.predicted} by {d.rule}, {d.reason}",
                            file=sys.stderr,
                        )
            except PlannerError as error:
                print(f"{name}: {error}", file=sys.stderr)
    observed = sum(r.observed for r in rows)
    agreed = sum(r.agreed for r in rows)
    summary = {
        "ep": session.target.ep,
        "device": session.target.device,
        "files": len(rows),
        "nodes_observed": observed,
        "agreement": agreed / observed if observed else None,
        "unknown": sum(r.unknown for r in rows) / observed if observed else None,
        "called_unsupported_but_taken_whole": sum(r.real and r.predicted is False for r in rows),
        "called_supported_but_not_taken_whole": sum(not r.real and r.predicted is True for r in rows),
        "undecided": sum(r.predicted is None for r in rows),
    }
    if args.json:
        print(json.dumps({**summary, "rows": [asdict(r) for r in rows]}, indent=1))
    else:
        print(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
