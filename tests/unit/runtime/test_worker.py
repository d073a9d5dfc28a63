"""The worker keeps the caller alive: it crashes, hangs, chatters and dies for itself alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from planner.errors import EPError, RequestError
from planner.runtime import client
from planner.runtime import worker as worker_module
from planner.runtime.client import EPMissing, RunFailed, SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.environment import discreet
from planner.runtime.worker import INVALID, as_array
from tests.limits import HANGS

CPU = "CPUExecutionProvider"
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


def model(folder: Path, op_type: str = "Identity", dtype: int = TensorProto.FLOAT, domain: str = "") -> Path:
    shape: list[int | str] = ["n", 3]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"], name="node", domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path = folder / f"{op_type}{dtype}.onnx"
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def pid(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process._popen.pid


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int8", "uint8", "bool"])
def test_arrays_come_back_as_they_went(dtype: str, tmp_path: Path) -> None:
    path = model(tmp_path, dtype=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    value = np.arange(6).reshape(2, 3).astype(dtype)
    with Worker(CPU) as worker:
        worker.open(path, {}, optimize=False)
        result = worker.run({"x": value}).outputs["y"]
        assert result.dtype == value.dtype
        np.testing.assert_array_equal(result, value)
        assert worker.run({"x": value[:0]}).outputs["y"].shape == (0, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="cores of one's own: Linux")
def test_a_worker_keeps_to_its_cores_with_all_its_threads(tmp_path: Path) -> None:
    path, core = model(tmp_path), max(os.sched_getaffinity(0))
    with Worker(CPU) as worker:
        worker.keep_to([core])  # nothing runs yet
        worker.open(path, {})
        worker.keep_to([core])
        threads = [int(thread.name) for thread in Path(f"/proc/{pid(worker)}/task").iterdir()]
        assert threads and all(os.sched_getaffinity(thread) == {core} for thread in threads)
        worker.keep_to([])  # fewer cores than workers: it stays where it is
        assert os.sched_getaffinity(pid(worker)) == {core}
        assert worker.run({"x": np.zeros((1, 3), np.float32)}).outputs["y"].shape == (1, 3)


def test_texts_come_back_too(tmp_path: Path) -> None:
    value = np.array([["a", "ä\n", ""]], object)
    with Worker(CPU) as worker:
        worker.open(model(tmp_path, dtype=TensorProto.STRING), {}, optimize=False)
        assert worker.run({"x": value}).outputs["y"].tolist() == value.tolist()


def test_a_session_tells_who_runs_what_and_on_which_version(tmp_path: Path) -> None:
    with Worker(CPU) as worker:
        opened = worker.open(model(tmp_path, "Relu"), {})
    assert [(a.ep, a.op_type, a.name) for a in opened.assignment] == [(CPU, "Relu", "node")]
    assert set(opened.runtime) == {"onnxruntime"}
    assert opened.seconds > 0


def test_a_model_that_the_ep_refuses_is_a_finding_and_the_worker_goes_on(tmp_path: Path) -> None:
    with Worker(CPU) as worker:
        with pytest.raises(SessionFailed, match="Nonsense") as caught:
            worker.open(model(tmp_path, "Nonsense", domain="some.where"), {})
        assert str(tmp_path) not in str(caught.value)
        first = pid(worker)
        worker.open(model(tmp_path), {})
        assert pid(worker) == first


@pytest.mark.parametrize(
    ("op_type", "dtype", "code"),
    [
        ("Nonsense", TensorProto.FLOAT, INVALID),
        ("Not", TensorProto.FLOAT, INVALID),  # a type that its operator does not have
        ("Sigmoid", TensorProto.BFLOAT16, "NotImplemented"),  # a type that the CPU EP has no kernel for
    ],
)
def test_a_graph_that_breaks_the_rules_is_told_from_one_that_lacks_a_kernel(
    op_type: str, dtype: int, code: str, tmp_path: Path
) -> None:
    with Worker(CPU) as worker, pytest.raises(SessionFailed) as caught:
        worker.open(model(tmp_path, op_type, dtype), {})
    assert caught.value.code == code


def test_a_sample_that_does_not_fit_is_a_failed_run(tmp_path: Path) -> None:
    with Worker(CPU) as worker:
        worker.open(model(tmp_path), {})
        with pytest.raises(RunFailed):
            worker.run({"x": np.zeros((1, 4), np.float32)})
        assert worker.run({"x": np.zeros((1, 3), np.float32)}).outputs["y"].shape == (1, 3)
        worker.close_session()
        with pytest.raises(RunFailed, match="no session"):
            worker.run({"x": np.zeros((1, 3), np.float32)})


@posix
def test_after_a_crash_the_error_says_how_and_the_next_call_starts_anew(tmp_path: Path) -> None:
    path = model(tmp_path)
    with Worker(CPU) as worker:
        worker.open(path, {})
        os.kill(pid(worker), signal.SIGSEGV)
        with pytest.raises(WorkerCrashed, match="SIGSEGV"):
            worker.run({"x": np.zeros((1, 3), np.float32)})
        with pytest.raises(RunFailed, match="no session"):
            worker.run({"x": np.zeros((1, 3), np.float32)})
        worker.open(path, {})
        assert worker.run({"x": np.ones((1, 3), np.float32)}).outputs["y"].sum() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="there onnxruntime maps external data")
def test_a_model_that_is_cut_while_it_is_mapped_is_not_put_down_to_the_ep(tmp_path: Path) -> None:
    rows, data = 1 << 16, tmp_path / "table.data"
    data.write_bytes(bytes(rows * 16))
    table = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[rows, 4])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value=data.name)
    index = helper.make_tensor_value_info("i", TensorProto.INT64, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Gather", ["t", "i"], ["y"])], "g", [index], [result], [table])
    path = tmp_path / "gather.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with Worker(CPU) as worker:
        worker.open(path, {})
        os.truncate(data, 0)
        with pytest.raises(WorkerCrashed, match="lost a file of the model") as caught:
            worker.run({"i": np.array([rows - 1], np.int64)})
        assert "cut" in caught.value.hint


@posix
def test_a_start_that_hangs_is_ended_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(f"import time; time.sleep({HANGS})")
    monkeypatch.setattr(worker_module, "__file__", str(tmp_path / "worker.py"))
    monkeypatch.setattr(client, "_LEAST_START", 0.2)
    with Worker(CPU, timeout=0.2) as worker, pytest.raises(WorkerTimeout, match=r"did not start within 0\.2 s"):
        worker.open(model(tmp_path), {})


@pytest.mark.parametrize(("said", "kept"), [(None, "1"), ("0", "0")])
def test_no_makers_are_told_of_models_unless_the_user_says_so(
    said: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if said is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    assert discreet()["ORT_DISABLE_TELEMETRY"] == kept


@posix
def test_a_hang_is_ended_at_the_time_limit(tmp_path: Path) -> None:
    path = model(tmp_path)
    with Worker(CPU, timeout=0.5) as worker:
        worker.timeout = HANGS  # building the first session may take its time
        worker.open(path, {})
        stopped = pid(worker)
        os.kill(stopped, signal.SIGSTOP)
        worker.timeout = 0.5
        with pytest.raises(WorkerTimeout, match=r"0\.5 s"):
            worker.run({"x": np.zeros((1, 3), np.float32)})
        assert not alive(stopped)
        worker.timeout = HANGS
        worker.open(path, {})


@posix
def test_who_waits_for_an_answer_that_nobody_wants_any_more_is_let_go(tmp_path: Path) -> None:
    with Worker(CPU) as worker, ThreadPoolExecutor(1) as pool:
        worker.open(model(tmp_path), {})
        os.kill(pid(worker), signal.SIGSTOP)
        waiting = pool.submit(worker.run, {"x": np.zeros((1, 3), np.float32)})
        worker.abandon()
        with pytest.raises(WorkerCrashed):
            waiting.result(HANGS)
        worker.abandon()  # there is nothing to end
        with pytest.raises(WorkerCrashed, match="no longer wanted"):
            worker.open(model(tmp_path), {})


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A process that has ended, but that nobody has waited for yet, is still listed.
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@posix
@pytest.mark.parametrize(
    ("end", "stopped"),
    [
        (signal.SIGKILL, False),
        (signal.SIGINT, False),
        pytest.param(signal.SIGKILL, True, marks=pytest.mark.skipif(sys.platform != "linux", reason="F_SETSIG")),
    ],
)
def test_no_worker_outlives_its_caller(end: signal.Signals, stopped: bool, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from planner.runtime.client import Worker\n"
        f"w = Worker({CPU!r}); w.open(Path({str(model(tmp_path))!r}), {{}})\n"
        f"print(w._process._popen.pid, flush=True); time.sleep({HANGS})"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert caller.stdout is not None
    child = int(caller.stdout.readline())
    assert alive(child)
    if stopped:
        os.kill(child, signal.SIGSTOP)
    caller.send_signal(end)
    caller.wait(HANGS)
    caller.stdout.close()
    deadline = time.monotonic() + HANGS
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_what_an_ep_prints_does_not_reach_the_callers_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Worker(CPU) as worker:
        worker.open(model(tmp_path), {}, log=True)
    assert capfd.readouterr() == ("", "")


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    value = np.ones((350_000, 3), np.float32)  # 4 MB
    with Worker(CPU) as worker:
        worker.open(model(tmp_path, "Relu"), {})
        first = [worker.run({"x": value}).peak_rss_mb for _ in range(5)][-1]
        last = [worker.run({"x": value}).peak_rss_mb for _ in range(40)][-1]
    if first is None or last is None:
        pytest.skip("the platform does not tell")
    assert last - first < 16


def test_an_ep_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_OPENVINO", str(tmp_path / "bin" / "python"))
    with (
        Worker("OpenVINOExecutionProvider") as worker,
        pytest.raises(EPMissing, match="onnxruntime-openvino") as caught,
    ):
        worker.open(model(tmp_path), {})
    assert isinstance(caught.value, EPError)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("ep", "option"),
    [
        ("QNNExecutionProvider", "backend_path"),
        ("QNNExecutionProvider", "qnn_saver_path"),
        ("QNNExecutionProvider", "qnn_ir_backend_path"),
        ("QNNExecutionProvider", "profiling_file_path"),
        ("QNNExecutionProvider", "op_packages"),
        ("QNNExecutionProvider", "of_a_later_release"),
        ("OpenVINOExecutionProvider", "cache_dir"),
        ("OpenVINOExecutionProvider", "load_config"),
        ("VitisAIExecutionProvider", "config_file"),
        (CPU, "anything"),
    ],
)
def test_an_option_that_is_not_known_to_be_harmless_is_refused(ep: str, option: str, tmp_path: Path) -> None:
    with Worker(ep) as worker, pytest.raises(RequestError, match=option) as caught:
        worker.open(model(tmp_path), {option: str(tmp_path / "evil.so")})
    assert "allowed:" in caught.value.hint
    with Worker(ep) as worker, pytest.raises(RequestError, match=option):
        worker.compile(model(tmp_path), tmp_path / "out.onnx", {option: str(tmp_path / "evil.so")})


def test_maps_and_sequences_come_back_as_arrays() -> None:
    found = as_array([{1: 0.25, 0: 0.75}, {0: 0.5, 1: 0.5}])
    assert found is not None and found.tolist() == [0.75, 0.25, 0.5, 0.5]
    pieces = as_array([np.ones((1, 2)), np.zeros(3)])
    assert pieces is not None and pieces.tolist() == [1, 1, 0, 0, 0]
    assert as_array("text") is None and as_array([["text"]]) is None
