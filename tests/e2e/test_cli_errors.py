"""The command as a process: what no call inside Python shows. Signals, broken pipes, full disks, and long work refused early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.limits import HANGS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "planner"]


def _model(folder: Path, layers: int = 1, rows: int = 1) -> Path:
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i in range(layers):
        weights.append(numpy_helper.from_array(rng.normal(0, 0.1, (64, 64)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"h{i}"], name=f"layer{i}"))
        value = f"h{i}"
    nodes.append(helper.make_node("Relu", [value], ["y"], name="last"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [rows, 64])], [info("y", TensorProto.FLOAT, [rows, 64])], weights
    )
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def _run(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=HANGS,
        **kwargs,  # type: ignore[call-overload]
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_target_prints_one_json_document_and_everything_else_on_stderr(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    done = _run("target", _model(tmp_path), "--ep", "cpu", "--precision", "w8a8", "--output", output, "--json")
    document = json.loads(done.stdout, parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))
    assert next(iter(document)) == "schema" and document["schema"] == "planner/target/1"
    assert {"model", "target", "plan", "artifact", "verification", "passed"} <= set(document)
    assert done.returncode == (0 if document["passed"] else 1)
    assert document["plan"]["inputs"]["synthetic"] is True and "WARNING" in done.stderr
    verification = document["verification"]
    assert {"ran_on", "kind", "runtime", "placement", "fidelity", "seconds", "peak_rss_mb"} <= set(verification)
    assert {"total", "on_target", "fallback"} <= set(verification["placement"])
    assert {"load", "run"} <= set(verification["seconds"])
    assert {"output", "sqnr_db", "cosine", "max_abs_error", "top1_agreement"} <= set(verification["fidelity"][0])
    assert document["artifact"]["bytes"] == output.stat().st_size
    onnx.checker.check_model(output, full_check=True)


def test_verify_tells_a_faithful_candidate_from_another_one(tmp_path: Path) -> None:
    path = _model(tmp_path)
    other = onnx.load(path)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((64, 64), np.float32), "w0"))
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(other.SerializeToString())
    assert _run("verify", path, "--reference", path, "--ep", "cpu").returncode == 0
    done = _run("verify", wrong, "--reference", path, "--ep", "cpu", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["passed"] is False and "not verified" in done.stderr


@pytest.mark.slow
def test_the_floor_decides(tmp_path: Path) -> None:
    path = _model(tmp_path, layers=3)
    asked = ("target", path, "--ep", "cpu", "--precision", "w8a8", "--overwrite", "-o", tmp_path / "out.onnx")
    assert _run(*asked, "--floor", "5").returncode == 0
    done = _run(*asked, "--floor", "150")
    assert done.returncode == 1 and "not verified" in done.stderr
    assert _run(*asked, "--floor", "500").returncode == 2
    assert _run(*asked, "--floor", "nan").returncode == 2


def test_a_reader_that_goes_away_is_no_error_of_ours(tmp_path: Path) -> None:
    path = _model(tmp_path, layers=400)
    for args in (["--json"], []):
        with subprocess.Popen(
            [*COMMAND, "check", str(path), "--ep", "cpu", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            err = process.stderr.read().decode()
            process.wait(120)
        assert "Traceback" not in err and "Exception ignored" not in err, err
        assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_said(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "check", str(_model(tmp_path)), "--ep", "cpu", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=HANGS,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_target_leaves_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    path = _model(folder, layers=40, rows=512)
    np.savez(folder / "x.npz", x=np.random.default_rng(0).normal(size=(400, 512, 64)).astype(np.float32))
    before = sorted(p.name for p in folder.iterdir())
    with subprocess.Popen(
        [*COMMAND, "target", str(path), "--ep", "cpu", "--precision", "w8a8", "--inputs", str(folder / "x.npz"),
         "-o", str(folder / "out.onnx")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stderr is not None and process.stdout is not None
        said = b""
        while b"calibrating" not in said:
            chunk = process.stderr.read(1)
            assert chunk, said
            said += chunk
        time.sleep(0.5)
        process.send_signal(sent)
        rest = process.stderr.read().decode()
        process.wait(HANGS)
    assert process.returncode == 128 + sent, rest
    assert "interrupted" in rest and "Traceback" not in rest
    assert sorted(p.name for p in folder.iterdir()) == before


def test_help_comes_at_once() -> None:
    seconds = []
    for _ in range(5):
        started = os.times()
        _run("target", "--help")
        ended = os.times()
        seconds.append(ended.children_user + ended.children_system - started.children_user - started.children_system)
    assert min(seconds) < 0.3


@pytest.mark.qnn
@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--device", "snapdragon-8cx-gen3", "--precision", "fp16"], 1, "float16"),
        (["--device", "snapdragon-8-gen1", "--precision", "w16a16"], 1, "int16"),
        (["--device", "toaster"], 2, "toaster"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_an_illegal_target_on_qnn_is_refused_before_anything_runs(
    args: list[str], status: int, words: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.onnx"
    done = _run("target", _model(tmp_path), "--ep", "qnn", *args, "-o", output)
    assert done.returncode == status and words in done.stderr and not output.exists()
    assert "calibrating" not in done.stderr
