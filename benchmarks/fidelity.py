"""Does the verdict match the real EP? The predicted placement of real models against the EP's own, node by node.

    python -m benchmarks.fidelity                         (all example models, QNN's simulator, Snapdragon X Elite)
    python -m benchmarks.fidelity magika rec --json
    python -m benchmarks.fidelity --ep directml --precisions fp16,w8a8
    python -m benchmarks.fidelity --fresh                 (models that no rule has seen)
    python -m benchmarks.fidelity --work DIR --markdown   (files and answers stay in DIR: an interrupted run goes on)

Every model is judged as shipped (its shapes bound), and in float16, w8a8, w8a16 and w8a16 with float16, which are made by
the CPU profile, so that no rule of the judged EP had a say in them; --precisions names fewer. A node counts where the EP's runtime names it: what
onnxruntime folds away or fuses before any EP sees it is on no device. Where no session could be built, the nodes that the
EP's own log refuses count as not taken, and the rest as not observed.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.fresh import FRESH, samples
from examples.fetch import EXAMPLES, fetch, fetch_file
from examples.inputs import of_example
from planner.calibrate.run import calibrate
from planner.codec import to_json
from planner.dtypes import parse_precision
from planner.errors import PlannerError
from planner.model.load import load
from planner.model.shapes import bind_shapes
from planner.model.write import save
from planner.quantization.write import Artifact, write_quantized
from planner.resolve.choose import check_model, make_plan
from planner.resolve.revise import without_uncalibrated
from planner.resolve.target import Target
from planner.runtime.client import SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.registry import launcher
from planner.verification.placement import placement_of, unplaced

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
        predicted: the verdict on the whole model; real: whether the EP took every node, None where it did not answer.
        seconds: of predicting.
    """

    model: str
    precision: str
    nodes: int
    observed: int
    agreed: int
    unknown: int
    predicted: bool | None
    real: bool | None
    seconds: float
    disagreements: tuple[Disagreement, ...]


def files_of(name: str, folder: Path, precisions: Sequence[str] = PRECISIONS) -> Iterator[tuple[str, Path]]:
    """The model as shipped with its shapes bound, then the files made of it; those that lie in the folder are kept."""
    example = {**EXAMPLES, **FRESH}[name]
    shipped = folder / f"{name}.onnx"
    if not shipped.exists():
        bound = load(fetch_file(example.file) if name in FRESH else fetch(name))
        bind_shapes(bound, example.shapes)
        save(bound, shipped)
    yield "as shipped", shipped
    paths = {precision: folder / f"{name}.{precision}.onnx" for precision in precisions}
    if any(not path.exists() for path in paths.values()):
        target = Target.open("cpu")
        model = target.read(shipped)
        inputs = samples(shipped) if name in FRESH else of_example(name)()
        ranges = calibrate(model, list(islice(inputs, 2)))
        for precision, path in paths.items():
            plan = make_plan(target, model, check_model(target, model, parse_precision(precision)))
            write_quantized(model, without_uncalibrated(target, model, plan, ranges), ranges, path)
    yield from paths.items()


@dataclass(frozen=True)
class Answer:
    """What the EP did with a file.

    Attributes:
        placed: node -> the EP that runs it. reasons: of nodes that were left. real: whether it took every node; None where
            it gave no answer in time, or died.
    """

    placed: Mapping[str, str]
    reasons: Mapping[str, str]
    real: bool | None


def ask(path: Path, target: Target, worker: Worker) -> Answer:
    """The EP's answer; one that was given before to the same file by the same package is read back."""
    packages = launcher(target.ep).availability().packages
    stamp = {"model": Artifact.of(path).sha256, "target": to_json(target.identity), "packages": dict(packages)}
    kept = path.with_name(f"{path.name}.{target.ep}.{target.device}.json")
    with contextlib.suppress(OSError, ValueError, KeyError):
        data = json.loads(kept.read_text(encoding="utf-8"))
        if data["stamp"] == stamp:
            return Answer(data["placed"], data["reasons"], data["real"])
    candidate = {n.name: n.op_type for n in load(path).graph.all_nodes() if n.name}
    try:
        placement = placement_of(worker.open(path, target.options, log=True), target.ep, candidate)
        reasons = {f.name: f.reason or "" for f in placement.fallback}
        answer = Answer(placement.nodes, reasons, not placement.fallback)
    except SessionFailed as error:
        placement = unplaced(candidate, {r.name: r.reason or "" for r in error.refusals})
        answer = Answer({}, {f.name: f.reason or "" for f in placement.fallback}, False)
    except (WorkerCrashed, WorkerTimeout):
        answer = Answer({}, {}, None)
    kept.write_text(json.dumps({"stamp": stamp, **asdict(answer)}), encoding="utf-8")
    return answer


def conversions(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """By name of a node, the DequantizeLinear before it and the QuantizeLinear behind it: they are nodes of their own to an
    EP that takes nodes one by one, and the node's precision needs them.
    """
    found = {}
    for node in model.graph.all_nodes():
        before = [v.producer() for v in node.inputs if v is not None]
        behind = [use.node for out in node.outputs for use in out.uses()]
        names = [n.name for n in before if n is not None and n.op_type == "DequantizeLinear"]
        names += [n.name for n in behind if n.op_type == "QuantizeLinear"]
        found[node.name or ""] = tuple(name for name in names if name)
    return found


def compare(name: str, precision: str, path: Path, target: Target, worker: Worker) -> Row:
    """Predict, then ask the EP."""
    started = time.perf_counter()
    model = target.read(path, stored=True)
    resolution = check_model(target, model, None, stored=True)
    seconds = time.perf_counter() - started
    answer = ask(path, target, worker)
    agreed = unknown = observed = 0
    wrong = []
    around = conversions(load(path)) if launcher(target.ep).node_by_node else {}
    for verdict in resolution.verdicts:
        own = dict.fromkeys((verdict.node.name, *verdict.node.origins))
        names = [n for n in own if n in answer.placed or n in answer.reasons]
        if not names:
            continue
        observed += 1
        beside = [n for name in names for n in around.get(name, ()) if n in answer.placed or n in answer.reasons]
        taken = all(answer.placed.get(n) == target.ep for n in (*names, *beside))
        ruling = verdict.ruling
        unknown += ruling.legal is None
        agreed += ruling.legal is taken
        if ruling.legal is not taken:
            reason = next((answer.reasons[n] for n in (*names, *beside) if n in answer.reasons), None)
            pair = str(verdict.config)
            node = verdict.node
            wrong.append(Disagreement(node.name, node.op_type, pair, ruling.legal, taken, ruling.rule, reason))
    nodes = len(resolution.verdicts)
    return Row(
        name, precision, nodes, observed, agreed, unknown, resolution.legal, answer.real, seconds, tuple(wrong)
    )  # fmt: skip


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures over all files."""
    observed, agreed = sum(r.observed for r in rows), sum(r.agreed for r in rows)
    return {
        "files": len(rows),
        "nodes_observed": observed,
        "agreement": agreed / observed if observed else None,
        "unknown": sum(r.unknown for r in rows) / observed if observed else None,
        "taken_whole": sum(r.real is True for r in rows),
        "called_unsupported_but_taken_whole": sum(r.real is True and r.predicted is False for r in rows),
        "called_supported_but_not_taken_whole": sum(r.real is False and r.predicted is True for r in rows),
        "undecided": sum(r.predicted is None for r in rows),
        "no_answer_of_the_ep": sum(r.real is None for r in rows),
    }


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a precision, then a line a model, cells "agreed/observed" with what is wrong of the whole verdict."""

    def cell(r: Row | None) -> str:
        if r is None:
            return "-"
        if r.real is None:
            return "no answer"
        said = {True: "yes", False: "no", None: "unknown"}
        whole = said[r.real] if r.predicted is r.real else f"**said {said[r.predicted]}, is {said[r.real]}**"
        return f"{r.agreed}/{r.observed} {whole}"

    kinds = ("as shipped", *PRECISIONS)
    lines = ["| files | count | nodes observed | agreement | unknown | taken whole | falsely no | falsely yes |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for kind in (*kinds, "all"):
        these = summary_of([r for r in rows if kind in (r.precision, "all")])
        share, unknown = these["agreement"] or 0.0, these["unknown"] or 0.0
        lines.append(
            f"| {kind} | {these['files']} | {these['nodes_observed']:,} | {share:.2%} | {unknown:.2%} | {these['taken_whole']} | "
            f"{these['called_unsupported_but_taken_whole']} | {these['called_supported_but_not_taken_whole']} |"
        )
    lines += ["", f"| model | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    by_file = {(r.model, r.precision): r for r in rows}
    for model in dict.fromkeys(r.model for r in rows):
        lines.append(f"| {model} | {' | '.join(cell(by_file.get((model, kind))) for kind in kinds)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of example models (all) or, with --fresh, of those")
    parser.add_argument("--fresh", action="store_true", help="models that no rule has seen (benchmarks/fresh.py)")
    parser.add_argument("--ep", default="qnn")
    parser.add_argument("--device")
    parser.add_argument(
        "--precisions", default=",".join(PRECISIONS), help="which files are made of each model (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep files and answers here: a rerun goes on from them"
    )
    parser.add_argument("--timeout", type=float, default=240, metavar="S", help="seconds that the EP has for a file")
    parser.add_argument("--kept-only", action="store_true", help="judge only what --work has an answer to; ask nothing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    target = Target.open(args.ep, args.device)
    chosen = tuple(args.precisions.split(","))
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(Worker(target.ep, timeout=args.timeout))
        folder = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.models or (FRESH if args.fresh else EXAMPLES):
            try:
                for precision, path in (
                    files_of(name, folder, chosen) if not args.kept_only else _kept(name, folder, chosen)
                ):
                    rows.append(compare(name, precision, path, target, worker))
                    _show(rows[-1])
            except PlannerError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
    summary = {"ep": target.ep, "device": target.device, **summary_of(rows)}
    if args.json:
        print(json.dumps({**summary, "rows": [asdict(r) for r in rows]}, indent=1))
    elif args.markdown:
        print(table(rows))
    else:
        print(json.dumps(summary, indent=1))
    return 0


def _kept(name: str, folder: Path, precisions: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for precision in ("as shipped", *precisions):
        path = folder / (f"{name}.onnx" if precision == "as shipped" else f"{name}.{precision}.onnx")
        if any(folder.glob(f"{glob.escape(path.name)}.*.json")):
            yield precision, path


def _show(row: Row) -> None:
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
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
