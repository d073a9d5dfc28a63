"""Files of others, by the command line: none of them runs code, blocks, or ends in anything but a plain error."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from planner.cli import main as cli
from tests.unit.small_models import f32, graph, save

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: its status and what it said on stderr."""

    def of(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out and "internal error" not in err, err
        return status, err

    return of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weight = f32(np.random.default_rng(0).normal(size=(4, 8)))
    return save(graph("(float[2,4] x) => (float[2,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": weight}), tmp_path)


@pytest.fixture
def plan(model: Path, tmp_path: Path, run: Run) -> dict[str, Any]:
    assert run("plan", model, "--ep", "cpu", "--precision", "w8a8", "-o", tmp_path / "made.json")[0] == 0
    found: dict[str, Any] = json.loads((tmp_path / "made.json").read_text())
    return found


def quantize(run: Run, model: Path, plan: object, *more: object) -> tuple[int, str]:
    path = model.with_name("plan.json")
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    status, said = run("quantize", model, "--plan", path, "--output", model.with_name("out.onnx"), "--overwrite", *more)
    assert status == 0 or not model.with_name("out.onnx").exists()
    return status, said


def test_a_plan_runs_no_code(
    run: Run, model: Path, plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_inputs.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef samples():\n    Path('ran').touch()\n    yield {}\n"
    )
    monkeypatch.chdir(tmp_path)
    plan["inputs"].update(source="evil_inputs:samples", synthetic=False, seed=None)
    status, said = quantize(run, model, plan)
    assert status == 2 and "evil_inputs:samples" in said and "--inputs evil_inputs:samples" in said
    assert not (tmp_path / "ran").exists()
    quantize(run, model, plan, "--inputs", "evil_inputs:samples")
    assert (tmp_path / "ran").exists(), "the command line may"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("inputs", "seed"), "abc"),
        (("inputs", "seed"), -1),
        (("inputs", "seed"), 1.5),
        (("inputs", "seed"), 10**40),
        (("inputs", "calibration"), 7),
        (("inputs", "calibration"), "nonsense"),
        (("inputs", "sha256"), None),
        (("inputs", "source"), "a\0b"),
        (("inputs", "source"), ["x"]),
        (("inputs", "source"), "/dev/zero"),
        (("opset",), 10**30),
        (("opset",), -5),
        (("precision",), "../../../x"),
        (("target", "ep"), "../x"),
        (("target", "device"), "none"),
        (("target", "options"), {"a": {}}),
        (("shapes",), {"x": [10**30, 4]}),
        (("shapes",), {"nothing": [1]}),
        (("nodes",), []),
        (("nodes", 0), None),
        (("nodes", 0, "name"), "another"),
        (("nodes", 0, "op_type"), "Conv"),
        (("nodes", 0, "weight"), "int4"),
        (("nodes", 0, "activation"), "bool"),
        (("nodes", 0, "weight"), None),
        (("nodes", 0, "fixed"), {"scale": 1e308 * 10, "zero_point": 0}),
        (("nodes", 0, "fixed"), {"scale": 1.0, "zero_point": 10**30}),
        (("nodes", 0, "fixed"), {"scale": 10**400, "zero_point": 0}),
        (("nodes", 0, "fixed"), {"scale": 1.0, "zero_point": -500}),
        (("nodes", 0, "block_size"), 1 << 40),
        (("nodes", 0, "per_channel"), "yes"),
        (("nodes", 0, "dynamic"), True),
        (("nodes", 0, "replacement"), "com.microsoft.MatMulNBits"),
        (("nodes", 0, "weight"), "float32"),
        (("nodes", 0, "replacement"), "MatMulInteger"),
        (("nodes", 0, "replacement"), "com.microsoft.GatherBlockQuantized"),
        (("nodes", 1, "replacement"), "MatMulInteger"),
        (("nodes", 1, "weight"), "int8"),
        (("nodes", 0, "rule"), {"x": 1}),
        (("nodes", 0, "origins"), [1, None]),
        (("model", "sha256"), "0"),
        (("profile", "name"), "\0"),
    ],
)
def test_a_tampered_plan_is_refused_or_applied_never_more(
    field: tuple[str | int, ...], value: object, run: Run, model: Path, plan: dict[str, Any]
) -> None:
    at: Any = plan
    for key in field[:-1]:
        at = at[key]
    at[field[-1]] = value
    if field == ("inputs", "source"):
        plan["inputs"]["synthetic"] = False
    assert quantize(run, model, plan)[0] in (0, 2)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"schema": "planner/plan/1"}', "\ud800", "nan", '{"a":1e999}'])
def test_what_is_no_plan_is_refused(text: str, run: Run, model: Path) -> None:
    path = model.with_name("plan.json")
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert run("quantize", model, "--plan", path, "--output", model.with_name("out.onnx"))[0] == 2


def arguments(kind: str, model: Path, file: Path) -> tuple[object, ...]:
    match kind:
        case "profile":
            return ("check", model, "--ep", "cpu", "--profile", file)
        case "plan":
            return ("quantize", model, "--plan", file, "--output", model.with_name("out.onnx"))
        case "evidence":
            return ("check", model, "--ep", "cpu", "--evidence", file)
        case "inputs":
            return ("plan", model, "--ep", "cpu", "--precision", "w8a8", "--inputs", file, "-o", model.with_name("p"))
        case "models":
            return ("report", "--models", file, "--ep", "cpu", "--no-run", "--output", model.with_name("report"))
        case "baseline":
            return (
                *("report", model, "--ep", "cpu", "--no-run", "--baseline", file),
                *("--output", model.with_name("report")),
            )
        case "against":
            return ("probe", "--ep", "qnn", "--diff", "--against", file)
    return ("check", file, "--ep", "cpu")


KINDS = ("model", "profile", "plan", "evidence", "inputs", "models", "baseline", "against")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "folder", "missing", "nul", "garbage", "deep", "empty"])
def test_a_file_that_is_none_is_refused_and_blocks_nobody(
    kind: str, what: str, run: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file.npz" if what != "/dev/zero" else Path(what)
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "nul":
        file = tmp_path / "a\0b"
    elif what in ("garbage", "deep", "empty"):
        file.write_bytes({"garbage": bytes(range(256)) * 8, "deep": b"[" * 50_000, "empty": b""}[what])
    watchdog = threading.Timer(60, os._exit, [3])  # a read that blocks would hold up the whole run
    watchdog.start()
    try:
        assert run(*arguments(kind, model, file))[0] == 2
    finally:
        watchdog.cancel()


@pytest.mark.parametrize("output", ["inputs.npz", "folder/a.npz", "profile.yaml"])
def test_no_output_takes_the_place_of_what_was_read(output: str, run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("inputs.npz", "folder/a.npz"):
        np.savez(tmp_path / name, x=f32(np.ones((8, 4))))
    (tmp_path / "profile.yaml").write_text("ep: X\n")
    before = (tmp_path / output).read_bytes()
    inputs = tmp_path / ("folder" if output.startswith("folder") else "inputs.npz")
    more = ("--profile", tmp_path / "profile.yaml") if output == "profile.yaml" else ()
    status, _ = run(
        *("target", model, "--ep", "cpu", "--precision", "w8a8", "--inputs", inputs),
        *("--output", tmp_path / output, "--overwrite", *more),
    )
    assert status == 2 and (tmp_path / output).read_bytes() == before


@pytest.mark.parametrize("command", ["quantize", "plan"])
def test_no_output_takes_the_place_of_the_inputs_of_a_plan(command: str, run: Run, model: Path, tmp_path: Path) -> None:
    samples, plan = tmp_path / "samples.npz", tmp_path / "plan.json"
    np.savez(samples, x=f32(np.ones((8, 2, 4))))
    before = samples.read_bytes()
    planning = ("plan", model, "--ep", "cpu", "--precision", "w8a8", "--inputs", samples, "--overwrite", "-o")
    if command == "quantize":
        assert run(*planning, plan)[0] == 0
        status, said = run("quantize", model, "--plan", plan, "--output", samples, "--overwrite")
    else:
        status, said = run(*planning, samples)
    assert status == 2 and "would overwrite the input" in said and samples.read_bytes() == before


@pytest.mark.parametrize("command", ["plan", "target"])
def test_a_model_that_folds_away_is_said_to_be_one(command: str, run: Run, tmp_path: Path) -> None:
    made = graph("(float[3] x) => (float[3] y)", "y = Add(a, a)", {"a": f32(np.ones(3))})
    asked = (command, save(made, tmp_path), "--ep", "cpu", "--precision", "w8a8", "-o", tmp_path / "out")
    status, said = run(*asked)
    assert status == 2 and "no output depends on an input" in said


def test_a_model_that_onnxruntime_itself_refuses_is_not_put_down_to_the_ep(run: Run, tmp_path: Path) -> None:
    made = graph("(float[2,4] x) => (float[2,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": f32(np.ones((4, 8)))})
    for node in made.graph.node:
        node.name = "same"
    status, said = run("verify", save(made, tmp_path), "--reference", tmp_path / "model.onnx", "--ep", "cpu")
    assert status == 2 and "onnxruntime does not take the float32 model itself" in said


def sequence(folder: Path) -> Path:
    """A model that gives out a sequence."""
    info = onnx.helper.make_tensor_value_info
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(1, None))
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["r"]),
            onnx.helper.make_node("SplitToSequence", ["r"], ["y"], axis=1),
        ],
        "g",
        [info("x", 1, [2, 4])],
        [onnx.helper.make_value_info("y", kind), info("r", 1, [2, 8])],
        [onnx.numpy_helper.from_array(f32(np.ones((4, 8))), "w")],
    )
    path = folder / "sequence.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("precision", ["w8a8", "fp16"])
def test_what_gives_out_a_sequence_still_does_and_loads(precision: str, run: Run, tmp_path: Path) -> None:
    source, plan, out = sequence(tmp_path), tmp_path / "plan.json", tmp_path / "out.onnx"
    assert run("plan", source, "--ep", "cpu", "--precision", precision, "-o", plan)[0] == 0
    assert run("quantize", source, "--plan", plan, "--output", out)[0] == 0
    assert onnx.load(out).graph.output[0].type.WhichOneof("value") == "sequence_type"
    ort.InferenceSession(out, providers=["CPUExecutionProvider"])


def test_what_does_not_load_never_gets_its_name(
    run: Run, model: Path, plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from planner.quantization import write

    def broken(_made: Any, path: Path) -> None:
        proto = onnx.load(model)
        proto.graph.node[0].op_type = "Nonsense"
        onnx.save(proto, path)

    monkeypatch.setattr(write, "save", broken)
    status, said = quantize(run, model, plan)
    assert status == 3 and "does not load" in said
    assert not list(model.parent.glob("out.onnx*"))


@pytest.mark.parametrize("size", [16, 1 << 40])
def test_blocks_larger_than_the_weight_are_refused(size: int, run: Run, model: Path, plan: dict[str, Any]) -> None:
    plan["nodes"][0].update(per_channel=False, block_size=size)
    status, said = quantize(run, model, plan)
    assert status == 2 and f"in blocks of {size}" in said
