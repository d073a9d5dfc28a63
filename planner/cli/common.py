"""What the commands share: target and model arguments, tables, progress, JSON. No heavy import at the top."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from planner.calibrate.inputs import Inputs
    from planner.resolve.plan import TargetIdentity
    from planner.resolve.target import Target
    from planner.verification.floor import Floor
    from planner.verification.verify import Verification

YES, NO, WRONG_REQUEST, EP_FAILED, UNKNOWN = 0, 1, 2, 3, 4


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """--ep, --device and --profile."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--ep",
        required=True,
        metavar="EP",
        help="execution provider: an alias (qnn, directml, cpu, ...) or the full name",
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        help="device of the profile: npu, gpu, cpu or a chip (see `planner eps`); default: the profile's own",
    )
    add_profile_argument(group)
    add_evidence_argument(group)


def add_profile_argument(parser: argparse._ActionsContainer) -> None:
    """--profile, of a parser or of a group in one."""
    parser.add_argument(
        "--profile",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a profile that adds to or overrides the shipped ones; may be repeated",
    )


def add_evidence_argument(parser: argparse._ActionsContainer) -> None:
    """--evidence, of a parser or of a group in one."""
    parser.add_argument(
        "--evidence",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="what `planner probe --from-model` learned of an EP: it stands above the profile's rules; may be repeated",
    )


def add_model_arguments(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """MODEL and --shape."""
    parser.add_argument(name, metavar=name.upper(), type=Path, help="an ONNX file")
    parser.add_argument(
        "--shape",
        metavar="[NAME=]D,D,...",
        type=_shape,
        action="append",
        default=[],
        help="fix the shape of a model input, for example x=1,3,48,320; may be repeated",
    )


def add_precision_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """--precision, or --weight-type with --activation-type."""
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        metavar="P",
        help="auto, fp32, fp16, w8a8 (int8), w8a16, w16a16 (int16), w4a16, w4a8, or a mix such as w8a16+fp16; without calibration: "
        f"w4, w8 (weights alone), w4-fp16, w8-fp16, w8a8-dynamic (dynamic); default: {default}",
    )
    group.add_argument(
        "--weight-type", metavar="DTYPE", help="type of the weights, for example uint8; goes with --activation-type"
    )
    group.add_argument("--activation-type", metavar="DTYPE", help="type of the activations, for example uint16")


def add_inputs_arguments(parser: argparse.ArgumentParser, *, calibration: bool = False) -> None:
    """--inputs and --seed; --calibration for the commands that make a plan."""
    parser.add_argument(
        "--inputs",
        metavar="SOURCE",
        help="calibration and evaluation data: an .npz file (one array per model input, leading axis = samples), a folder of "
        "such files, or package.module:function yielding dicts; without it, synthetic data, and the result says so",
    )
    if calibration:
        parser.add_argument(
            "--calibration",
            metavar="METHOD",
            default="minmax",
            choices=("minmax", "average", "percentile", "entropy", "mse"),
            help="how ranges of 8-bit activations are taken from the data: minmax, average, percentile, entropy or mse "
            "(default: minmax; 16-bit ones always get all that was seen)",
        )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the synthetic data (default: 0)")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout; everything else goes to stderr"
    )


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, separator, dims = text.rpartition("=")
    try:
        shape = tuple(int(d) for d in dims.replace("x", ",").split(",") if d != "")
    except ValueError:
        shape = ()
    if not shape or any(d <= 0 for d in shape) or (separator and not name):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; write NAME=1,3,224,224 with positive numbers")
    return name, shape


def shapes(args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """The --shape arguments by input name ("" for the only input)."""
    found: dict[str, tuple[int, ...]] = {}
    for name, dims in args.shape:
        if name in found:
            raise RequestError(f"--shape is given twice for {name or 'the input'!r}")
        found[name] = dims
    return found


def target(args: argparse.Namespace) -> Target:
    """The profile and device that the target arguments name."""
    from planner.resolve.target import Target

    opened = Target.open(args.ep, args.device, args.profile, args.evidence)
    for note in opened.profile.notes:
        say(f"planner: note: {note}")
    return opened


def console() -> Console:
    """The console for people, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, limit: int | None = None, whole: int = 0
) -> None:
    """A table on stdout; cells are plain text (names of nodes are never read as markup).

    Args:
        limit: most rows to show. whole: that many first columns are short names, which are never broken.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i < whole, ratio=None if i < len(columns) - 1 else 1)
    rows = list(rows)
    for row in rows[:limit]:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    out = Console(highlight=False, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
    print(printable(title))
    out.print(table)
    if limit is not None and len(rows) > limit:
        out.print(f"... and {len(rows) - limit} more (all of them with --json)")


def printable(text: str) -> str:
    """The text without control characters: a name in a hostile model could hold terminal commands."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def print_json(schema: str, document: Mapping[str, Any]) -> None:
    """Print one JSON document, its schema first."""
    print(json.dumps({"schema": schema, **document}, indent=2, allow_nan=False, ensure_ascii=True))


def say(message: str) -> None:
    """Plain lines on stderr."""
    for line in message.splitlines():
        print(printable(line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """A progress line on stderr while something long runs: ``update(what, done, total)``. Plain lines where stderr is no
    terminal, one for each new step."""
    if not enabled:
        yield lambda what, done, total: None
        return
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def plain(what: str, done: int, total: int) -> None:
            if what not in seen:
                seen.add(what)
                say(f"planner: {what} ...")

        yield plain
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """--output, --overwrite, --float16-io."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="where to write the model; default: beside it, named after precision and EP",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--float16-io",
        action="store_true",
        help="let the graph's inputs and outputs be float16 where the plan is (default: they stay float32)",
    )


def add_floor_argument(parser: argparse.ArgumentParser) -> None:
    """--floor, --metric and --allow-fallback."""
    group = parser.add_argument_group("what counts as faithful")
    group.add_argument(
        "--floor",
        metavar="F",
        help="least SQNR that every output must reach, in dB (default: 20); or top1=0.99: the least share of top-1 answers "
        "equal to float32's; with --metric, the least value of the metric",
    )
    group.add_argument(
        "--metric",
        metavar="MODULE:FUNCTION",
        help="judge by a function of your own: function(run) returns a number, larger is better; run(sample) runs the model "
        "on a dict of inputs and returns the dict of its outputs",
    )
    group.add_argument(
        "--allow-fallback",
        action="store_true",
        help="let nodes run on the CPU EP where the target does not take them",
    )


def floor(args: argparse.Namespace) -> Floor | None:
    """The floor that the options ask for; None where they say nothing."""
    from planner.verification.floor import parse_floor

    if args.floor is None:
        if args.metric is not None:
            raise RequestError("--metric needs --floor", "give the least value that counts, for example --floor 0.95")
        return None
    return parse_floor(args.floor, args.metric)


def default_output(model: Path, precision: str, target: TargetIdentity) -> Path:
    """`model.onnx` becomes `model.w8a16.qnn.onnx` beside it."""
    ep = target.ep.removesuffix("ExecutionProvider").lower()
    return model.with_name(f"{model.stem}.{precision.replace('/', '-')}.{ep}.onnx")


def warn_of_inputs(inputs: Inputs, *, calibrated: bool = True) -> None:
    """Say loudly where the data proves little."""
    if inputs.synthetic:
        say(
            f"planner: WARNING: {'calibrated and judged' if calibrated else 'judged'} on synthetic data: the result says nothing "
            "about real inputs\n"
            "  give real ones with --inputs"
        )
    elif calibrated and not inputs.held_apart:
        say("planner: WARNING: a single sample: the result is judged on what calibrated it; give more with --inputs")


def show_verification(verification: Verification) -> None:
    """What ran where, the placement, and a line for each output."""
    kind = {
        "hardware": "on the hardware",
        "simulator": "on the EP's own simulator",
        "emulation": "EMULATED by the CPU EP",
    }[verification.kind]
    packages = ", ".join(f"{k} {v}" for k, v in verification.runtime.items())
    place = verification.placement
    placed = (
        "placement unknown (emulation)"
        if place.on_target is None
        else f"{place.on_target} of {place.total} nodes on the EP{f' by {place.by}' if verification.kind == 'emulation' else ''}"
    )
    causes = {c.output: c for c in verification.causes}

    def db(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} dB"

    print_table(
        f"{'verified' if verification.passed else 'NOT VERIFIED'}: ran {kind} ({packages}); {placed}; {verification.samples} samples",
        ("output", "SQNR", "by quantizing", "by the EP", "cosine", "largest error", "top-1"),
        [
            (
                f.output,
                db(f.sqnr_db),
                db(causes[f.output].quantizing if f.output in causes else None),
                db(causes[f.output].ep if f.output in causes else None),
                "-" if f.cosine is None else f"{f.cosine:.6f}",
                "-" if f.max_abs_error is None else f"{f.max_abs_error:.3g}",
                "-" if f.top1_agreement is None else f"{100 * f.top1_agreement:.1f} %",
            )
            for f in verification.fidelity
        ],
    )
    if verification.metric is not None:
        metric = verification.metric
        print(printable(f"{metric.name}: {metric.value:g} (float32: {metric.reference:g})"))
    if place.fallback:
        print()
        print_table(
            f"not on the EP: {len(place.fallback)}",
            ("node", "operator", "the EP's reason"),
            [(f.name, f.op_type, f.reason) for f in place.fallback],
            limit=20,
        )


def conclude_verification(verification: Verification) -> None:
    """The reasons on stderr, where it did not pass."""
    for note in verification.notes:
        say(f"planner: note: {note}")
    if verification.contradictions:
        first = verification.contradictions[0]
        say(
            f"planner: the EP contradicts the profile at {len(verification.contradictions)} nodes; first {first.op_type} "
            f"{first.name!r}: {first.sentence()}\n"
            "  let planner learn it: `planner probe --from-model` this model, then give the file to --evidence"
        )
    for reason in verification.reasons[:5]:
        say(f"planner: not verified: {reason}")
