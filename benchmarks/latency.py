"""Refits the rates that turn a schedule into milliseconds, and says how far they are off architectures they did not see.

    python -m benchmarks.latency                    fit, cross-validate, and show; --write keeps the rates
    python -m benchmarks.latency collect FOLDER --measurements FILE
        compile FOLDER/{float,w8a8,w8a16}/NAME.onnx (benchmarks/architectures.py exports them) and keep what each schedule
        asks for beside the measured milliseconds, in ep_profiles/qnn/schedules.json

    python -m benchmarks.latency trained MODEL... --shape D,D   a model with its own weights beside the same with random ones

Measured: Qualcomm's own published figures (quic/ai-hub-models, perf.yaml), runtime "onnx" (onnxruntime's QNN EP). Each model
is predicted by rates fitted without its whole family. One whose float form takes onnxruntime more than twice as long as Qualcomm's own
runtime, by a millisecond at least, takes no part, but in rows of their own. Beside it stand the predictors that people use without a schedule.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import onnx

from benchmarks.architectures import ARCHITECTURES
from planner.codec import from_json, to_json
from planner.errors import PlannerError
from planner.estimation.latency import WORK, Error, LatencyModel, Rates, work
from planner.estimation.schedule import parse
from planner.profiles.load import load_profiles

_HERE = Path(__file__).resolve().parents[1] / "ep_profiles" / "qnn"
SCHEDULES = _HERE / "schedules.json"
_EP = "QNNExecutionProvider"
_PRECISIONS = ("float", "w8a8", "w8a16")
# Device of the profile -> device of the measurements.
DEVICES = {
    "snapdragon-x-elite": "Snapdragon X Elite CRD",
    "snapdragon-8-gen3": "Samsung Galaxy S24",
    "snapdragon-8-elite": "Samsung Galaxy S25",
    "snapdragon-8-gen2": "QCS8550 (Proxy)",
    "snapdragon-8-elite-gen5": "Snapdragon 8 Elite Gen 5 QRD",
    "snapdragon-8-gen1": "QCS8450 (Proxy)",
}
Column = tuple[str, ...]
# From this relative error on, a model counts by its size in the fit, not by its square.
_BENDS = 0.2
# A model that takes onnxruntime so many times as long as Qualcomm's own runtime, and so many milliseconds more than a run costs
# however small it is, tells of onnxruntime, not of the chip.
_CONTRADICTED, _MORE_MS = 2.0, 1.0
# A device with fewer models gets no rates, a precision with fewer no error and so no milliseconds.
_FEWEST, _FEWEST_OF_A_PRECISION = 20, 5


@dataclass(frozen=True)
class Row:
    """A model at a precision: what its schedule asks for, and the milliseconds measured on each device.

    Attributes:
        parameters: in millions, as published. ms: of the runtime "onnx" by the measurements' device; only where every layer
            ran on the NPU. dlc_ms: the same of Qualcomm's own runtime. runtimes: what turns those of a quantized model into
            onnxruntime's, see `Runtimes`.
    """

    model: str
    family: str
    precision: str
    parameters: float
    work: Mapping[str, float]
    ms: Mapping[str, float] = field(default_factory=dict)
    dlc_ms: Mapping[str, float] = field(default_factory=dict)
    runtimes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The file of rows."""

    source: str
    runtime: str
    soc_model: str
    rows: tuple[Row, ...]
    schema: str = "planner/schedules/1"


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit(rows: Sequence[Row], ms: np.ndarray, columns: Column = WORK) -> np.ndarray:
    """Rates that are not negative and make the relative error least: an array of len(columns).

    Squared up to a fifth, beyond that by its size (Huber 1964): a model that no rates explain must not bend those of all others.
    """
    from scipy.optimize import least_squares, nnls

    asked = np.array([[row.work.get(name, 0.0) for name in columns] for row in rows]) / ms[:, None]
    begun = nnls(asked, np.ones(len(rows)))[0]
    found = least_squares(
        lambda rates: asked @ rates - 1, begun, lambda _: asked, bounds=(0, np.inf), loss="huber", f_scale=_BENDS,
        x_scale="jac",
    )  # fmt: skip
    return np.asarray(found.x)


def left_out(rows: Sequence[Row], ms: np.ndarray, columns: Column = WORK) -> np.ndarray:
    """Each row's milliseconds as predicted by a fit without any row of its family."""
    predicted = np.zeros(len(rows))
    for family in {row.family for row in rows}:
        out = np.array([row.family == family for row in rows])
        kept = [row for row in rows if row.family != family]
        rates = fit(kept, ms[~out], columns)
        predicted[out] = np.array([[r.work.get(n, 0.0) for n in columns] for r in rows if r.family == family]) @ rates
    return predicted


def error_of(rows: Sequence[Row], measured: np.ndarray, predicted: np.ndarray) -> Error:
    """How far off the predictions are."""
    from scipy.stats import spearmanr

    relative = np.abs(predicted / measured - 1)
    ratio = measured / predicted
    return Error(
        n=len(rows),
        families=len({row.family for row in rows}),
        median=round(float(np.median(relative)), 3),
        within_35=round(float((relative <= 0.35).mean()), 3),
        rank=round(float(spearmanr(predicted, measured)[0]), 3),
        low=round(float(np.quantile(ratio, 0.1)), 3),
        high=round(float(np.quantile(ratio, 0.9)), 3),
    )


_BY_TYPE = {"float": "float", "w8a8": "int8", "w8a16": "int16"}


@dataclass(frozen=True)
class Device:
    """A device's rows, and their leave-one-family-out predictions by several sets of columns."""

    name: str
    rows: tuple[Row, ...]
    measured: np.ndarray
    predicted: np.ndarray

    def errors(self) -> dict[str, Error]:
        found = {"all": error_of(self.rows, self.measured, self.predicted)}
        for precision in _PRECISIONS:
            of = np.array([row.precision == precision for row in self.rows])
            if of.sum() >= _FEWEST_OF_A_PRECISION:
                rows = [row for row in self.rows if row.precision == precision]
                found[_BY_TYPE[precision]] = error_of(rows, self.measured[of], self.predicted[of])
        return found


def device(rows: Iterable[Row], name: str, columns: Column = WORK, *, every: bool = False) -> Device | None:
    """Cross-validate one device; None where too few models were measured on it.

    A model that is `contradicted` there takes no part, unless every one does.
    """
    rows = list(rows)
    out = set() if every else contradicted(rows, DEVICES[name])
    known = [
        (row, ms) for row in rows if row.model not in out and (ms := _milliseconds(row, DEVICES[name])) is not None
    ]
    if len(known) < _FEWEST:
        return None
    measured = np.array([ms for _, ms in known])
    found = tuple(row for row, _ in known)
    return Device(name, found, measured, left_out(found, measured, columns))


def contradicted(rows: Iterable[Row], device: str) -> set[str]:
    """Models whose float form takes onnxruntime more than twice as long there as Qualcomm's own runtime, by a millisecond at least.

    By the measurements alone, whatever is predicted.
    """
    return {
        row.model
        for row in rows
        if row.precision == "float"
        and device in row.ms
        and device in row.dlc_ms
        and row.ms[device] > max(_CONTRADICTED * row.dlc_ms[device], row.dlc_ms[device] + _MORE_MS)
    }


def _milliseconds(row: Row, device: str) -> float | None:
    """As measured in onnxruntime; where a quantized model was not, in Qualcomm's own runtime, times `Row.runtimes`."""
    if device in row.ms:
        return row.ms[device]
    if device in row.dlc_ms and device in row.runtimes:
        return row.dlc_ms[device] * row.runtimes[device]
    return None


_OTHERS: dict[str, Column] = {
    "MACs": ("run", "gmac"),
    "parameters": ("run", "parameters"),
    "MACs and parameters": ("run", "gmac", "parameters"),
    "bytes of DRAM and VTCM": ("run", "dram", "vtcm"),
}


def show(rows: Sequence[Row], *, details: bool) -> None:
    """The tables: the schedule's prediction and the others', by device and precision."""
    print("| device | precision | predictor | n | families | median error | within 35 % | rank correlation |")
    print("|---|---|---|---|---|---|---|---|")
    every = "the schedule, contradicted models too"
    for name in DEVICES:
        for label, columns in {"the schedule": WORK, every: WORK, **_OTHERS}.items():
            by = device(rows, name, columns, every=label == every)
            for kind, error in ({} if by is None else by.errors()).items():
                print(
                    f"| {name} | {kind} | {label} | {error.n} | {error.families} | {error.median:.1%} "
                    f"| {error.within_35:.0%} | {error.rank:.3f} |"
                )
        found = device(rows, name)
        if found is not None:
            print(f"| {name} | contradicted: {', '.join(sorted(contradicted(rows, DEVICES[name]))) or 'none'} |")
        if details and found is not None:
            order = np.argsort(-np.abs(found.predicted / found.measured - 1))
            for i in order:
                row = found.rows[i]
                print(
                    f"  {row.model} {row.precision}: {found.measured[i]:.2f} ms, predicted {found.predicted[i]:.2f} ms"
                )


def rates(rows: Rows) -> LatencyModel:
    """The rates of every device that has enough measurements."""
    found = []
    profile = load_profiles(()).find(_EP)
    for name, measured_on in DEVICES.items():
        crossed = device(rows.rows, name)
        if crossed is None:
            continue
        ms = fit(crossed.rows, crossed.measured)
        named = {column: float(f"{rate:.4g}") for column, rate in zip(WORK, ms, strict=True)}
        soc_model = profile.options(name)["soc_model"]
        found.append(Rates(name, {"soc_model": soc_model}, measured_on, named, crossed.errors()))
    return LatencyModel(_EP, rows.source, date.today().isoformat(), rows.runtime, tuple(found))


# -- collecting --------------------------------------------------------------------------------------------------------


def collect(folder: Path, measurements: Path, soc_model: str, *, compiling: bool) -> Rows:
    """Compile what was exported, and keep what each schedule asks for.

    The compiler's texts are kept in FOLDER/schedules, and read from there where they are; the others are compiled, or,
    without `compiling`, left out.
    """
    measured = read_measured(measurements)
    runtimes = Runtimes(measured)
    rows = []
    for architecture in ARCHITECTURES:
        for precision in _PRECISIONS:
            model = folder / precision / f"{architecture.name}.onnx"
            key = (architecture.model, architecture.component, precision)
            if not model.exists() or not any(measured.get((runtime, *key)) for runtime in ("onnx", "qnn_dlc")):
                continue
            kept = folder / "schedules" / f"{architecture.name}.{precision}.{soc_model}.gz"
            asked = _asked(model, kept, soc_model, compiling=compiling)
            if asked is None:
                continue
            asked["parameters"] = architecture.parameters
            ms, dlc = measured.get(("onnx", *key), {}), measured.get(("qnn_dlc", *key), {})
            both = runtimes.of(*key) if precision != "float" else {}
            rows.append(
                Row(architecture.name, architecture.family, precision, architecture.parameters, asked, ms, dlc, both)
            )
    source = "quic/ai-hub-models, perf.yaml at 52c080d (2026-02-12), BSD-3-Clause"
    return Rows(source, "onnxruntime-qnn 2.7.0", soc_model, tuple(rows))


# (runtime, model, component, precision) -> device -> milliseconds
Measured = Mapping[tuple[str, str, str, str], Mapping[str, float]]


def read_measured(path: Path) -> Measured:
    """Milliseconds by (runtime, model, component, precision) and device, where the NPU ran every layer."""
    wanted = set(DEVICES.values())
    components = {a.model: a.component for a in ARCHITECTURES}
    found: dict[tuple[str, str, str, str], dict[str, float]] = defaultdict(dict)
    with path.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["unit"] != "NPU" or row["layers"] != row["npu_layers"] or row["device"] not in wanted:
                continue
            # A model of one part is named after itself.
            component = row["component"] if components.get(row["model"], "?") else ""
            found[row["runtime"], row["model"], component, row["precision"]][row["device"]] = float(row["ms"])
    return found


@dataclass(frozen=True)
class Runtimes:
    """How milliseconds of Qualcomm's own runtime become onnxruntime's, for quantized models.

    What the model's float form takes in onnxruntime over what it takes there, times a factor of device and precision: the
    median of what is still missing, over the models that were measured in both. `python -m benchmarks.latency_choices
    runtimes` says how far off that is for a model that the factor did not see.
    """

    measured: Measured

    def of(self, model: str, component: str, precision: str) -> dict[str, float]:
        """By device: the product of both."""
        ratios = self._ratios(model, component, "float")
        return {name: round(ratio * self._factor(name, precision), 4) for name, ratio in ratios.items()}

    def _ratios(self, model: str, component: str, precision: str) -> dict[str, float]:
        ours, theirs = (
            self.measured.get((runtime, model, component, precision), {}) for runtime in ("onnx", "qnn_dlc")
        )
        return {name: ours[name] / theirs[name] for name in ours.keys() & theirs.keys()}

    def missing(self, device: str, precision: str) -> dict[tuple[str, str], float]:
        """By (model, component) measured in both: what it takes in onnxruntime over the product without the factor."""
        found = {}
        for runtime, model, component, kind in self.measured:
            if (runtime, kind) == ("onnx", precision):
                quantized, plain = (self._ratios(model, component, of).get(device) for of in (precision, "float"))
                if quantized and plain:
                    found[model, component] = quantized / plain
        return found

    def _factor(self, device: str, precision: str) -> float:
        missing = self.missing(device, precision)
        return float(np.median(list(missing.values()))) if missing else 1.0


def _asked(model: Path, kept: Path, soc_model: str, *, compiling: bool) -> dict[str, float] | None:
    """What the schedule of a model asks for, from the kept text or its summary; None where there is no schedule."""
    summary = kept.with_suffix(".work.json")
    if summary.exists() and (known := json.loads(summary.read_text(encoding="utf-8"))).keys() >= set(WORK):
        return dict(known)
    if not kept.exists():
        if not compiling:
            return None
        _compile(model, kept, soc_model)
    try:
        with gzip.open(kept) as stream:
            schedule = parse(cast(IO[bytes], stream))
    except (PlannerError, OSError, EOFError) as error:
        print(f"{model.name}: {error}")
        return None
    asked = work(schedule)
    asked["gmac"] = sum(p.macs for p in schedule.products) / 1e9
    asked["dram"], asked["vtcm"] = schedule.dram / 1e6, schedule.vtcm / 1e6
    asked = {name: float(f"{value:.6g}") for name, value in asked.items()}
    summary.write_text(json.dumps(asked), encoding="utf-8")
    return asked


def _compile(model: Path, kept: Path, soc_model: str) -> None:
    from planner.runtime.client import Worker

    options = {"soc_model": soc_model, "enable_htp_fp16_precision": "1", "offload_graph_io_quantization": "0"}
    kept.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, Worker(_EP, timeout=900) as worker:
        worker.open(model, options, schedule=Path(name))
        with gzip.open(kept, "wb") as stream:
            for file in sorted(Path(name).glob("*_schematic.bin")):
                stream.write(file.read_bytes())


# -- random weights ----------------------------------------------------------------------------------------------------


def trained(models: Sequence[Path], shape: str) -> None:
    """Compile each model as it is and with random weights in place of its own, and show where the work differs."""
    from planner.estimation.compile import Compiler
    from planner.model.write import save
    from planner.resolve.target import Target

    target = Target.open("qnn", "snapdragon-x-elite")
    with Compiler(_EP) as compiler, tempfile.TemporaryDirectory() as name:
        for path in models:
            file = Path(name) / "model.onnx"
            read = target.read(path, {"": tuple(map(int, shape.split(",")))} if shape else None, stored=True)
            assert read.ir is not None
            save(read.ir, file)
            try:
                own = work(compiler.compile(file, target.options).schedule)
                _randomize(file)
                other = work(compiler.compile(file, target.options).schedule)
            except PlannerError as error:
                print(f"{path.name}: {error}")
                continue
            apart = max((abs(other[k] / own[k] - 1) for k in WORK if own[k]), default=0.0)
            size = sum(own[k] for k in WORK if k.startswith("gmac"))
            print(
                f"{path.name}, {size:.2f} GMAC: with random weights the work differs by at most {apart:.2%}", flush=True
            )


def _randomize(path: Path) -> None:
    """Float weights of 256 elements and more become random ones of the same spread; smaller ones are parameters."""
    model, rng = onnx.load(path), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 256:
            noise = rng.standard_normal(values.shape, np.float32) * np.float32(values.std() or 1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noise, tensor.name))
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the rates in ep_profiles/qnn/latency.json")
    parser.add_argument("--details", action="store_true", help="each model's prediction")
    commands = parser.add_subparsers(dest="command")
    collecting = commands.add_parser("collect", help="compile the exported models")
    collecting.add_argument("folder", type=Path)
    collecting.add_argument("--measurements", type=Path, required=True)
    collecting.add_argument("--soc-model", default="60")
    collecting.add_argument("--kept", action="store_true", help="only schedules that are kept; compile nothing")
    comparing = commands.add_parser("trained", help="compare own and random weights")
    comparing.add_argument("models", type=Path, nargs="+")
    comparing.add_argument("--shape", default="", help="of their only input, where they leave it open")
    args = parser.parse_args()
    if args.command == "trained":
        trained(args.models, args.shape)
        return
    path = SCHEDULES
    if args.command == "collect":
        _write(path, to_json(collect(args.folder, args.measurements, args.soc_model, compiling=not args.kept)))
        return
    rows = from_json(Rows, json.loads(path.read_text(encoding="utf-8")))
    show(rows.rows, details=args.details)
    if args.write:
        _write(_HERE / "latency.json", to_json(rates(rows)))


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
