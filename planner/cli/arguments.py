"""The options that commands share, and what they ask for. No heavy import at the top."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli.common import say
from planner.errors import RequestError
from planner.limits import MOST_SECONDS

if TYPE_CHECKING:
    from planner.calibrate.source import Source
    from planner.dtypes import Precision
    from planner.resolve.target import Target
    from planner.verification.floor import Floor

# What a report is written as, where nobody says; figures take longer, and are asked for as svg.
_FORMATS = ("html", "markdown", "json", "sarif", "junit")


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """--ep, --device and --profile."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--ep",
        required=True,
        metavar="EP",
        type=word,
        help="execution provider: an alias (qnn, directml, cpu, ...) or the full name",
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        type=word,
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
        type=shape,
        action="append",
        default=[],
        help="fix the shape of a model input, for example x=1,3,48,320; may be repeated",
    )


def names(text: str) -> list[str]:
    """The parts of a list with commas, for an option that adds to those that were given before it."""
    return [part.strip() for part in text.split(",") if part.strip()]


def add_formats_argument(parser: argparse._ActionsContainer) -> None:
    """--formats; what it gives is read with `formats`."""
    parser.add_argument(
        "--formats",
        metavar="F,F",
        type=names,
        action="extend",
        help=f"which files: {', '.join(_FORMATS)}, svg (default: all but svg)",
    )


def formats(args: argparse.Namespace) -> Sequence[str]:
    """What --formats asks for, or what is written without it."""
    return _FORMATS if args.formats is None else tuple(args.formats)


def add_precision_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """--precision, or --weight-type with --activation-type."""
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        metavar="P",
        type=word,
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
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the synthetic data (default: 0)")


def add_estimate_argument(parser: argparse._ActionsContainer) -> None:
    """--no-estimate, for commands that run what an EP's compiler writes its schedule of."""
    parser.add_argument(
        "--no-estimate",
        action="store_true",
        help="leave the estimated latency out: spares reading the compiler's schedule, and comparing plans by it",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout; everything else goes to stderr"
    )


def word(text: str) -> str:
    """A name that is one: an empty one comes of a variable that a script did not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; leave the option out for its default")
    return text


def file(text: str) -> Path:
    """The path of a file to be written."""
    if not text or text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"{text!r} names no file; give the path of a file")
    return Path(text)


def _seed(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: a whole number from 0 on")
    return number


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name (empty for the only input) and dimensions of a --shape."""
    name, separator, dims = text.rpartition("=")
    try:
        shape = tuple(int(d) for d in dims.replace("x", ",").split(","))
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


def precision(args: argparse.Namespace) -> str | Precision | None:
    """The precision that the options ask for; None where they say nothing.

    Raises:
        RequestError: options that contradict one another.
    """
    if args.weight_type is None and args.activation_type is None:
        return str(args.precision) if args.precision is not None else None
    from planner.dtypes import parse_dtype, precision_by_name

    if args.precision is not None:
        raise RequestError("--precision and --weight-type/--activation-type exclude one another", "give one of them")
    if args.weight_type is None or args.activation_type is None:
        raise RequestError(
            "--weight-type and --activation-type go together",
            "for example --weight-type uint8 --activation-type uint16",
        )
    return precision_by_name(parse_dtype(args.weight_type), parse_dtype(args.activation_type))


def source(args: argparse.Namespace) -> Source:
    """Where the samples come from."""
    from planner.calibrate.source import Source

    return Source(args.inputs, args.seed, getattr(args, "calibration", "minmax"))


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """--output, --overwrite, --float16-io."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=file,
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


_UNITS = {"": 1 << 20, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """--time-limit and --memory-limit."""
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=seconds,
        help="most seconds for reading a model (default: 60), and for each request to an execution provider (default: 300)",
    )
    group.add_argument(
        "--memory-limit",
        metavar="SIZE",
        type=_bytes,
        help="most memory for reading a model (default: 2 GiB and 8 times the file), and for each execution provider's process "
        "(default: 80 %% of the machine's), for example 8G or 500M; Linux only",
    )


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([MGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].lower()])
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 8G or 500M")
    return size
