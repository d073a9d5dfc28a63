"""Time and memory have limits, signals act at once, and nothing is left: what only processes show."""

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

COMMAND = [sys.executable, "-m", "planner"]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes and signals of POSIX")


def small(folder: Path) -> Path:
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, [1, 8])],
        [info("y", TensorProto.FLOAT, [1, 8])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


def slow(folder: Path) -> Path:
    """A model that takes minutes to read: branches within branches, twice as many in each."""
    info = helper.make_tensor_value_info
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "b", [], [info("o", TensorProto.FLOAT, None)])
    for _ in range(17):
        node = helper.make_node("If", ["t"], ["o"], then_branch=body, else_branch=body)
        body = helper.make_graph([node], "b", [], [info("o", TensorProto.FLOAT, None)])
    graph = helper.make_graph(
        body.node,
        "g",
        [info("x", TensorProto.FLOAT, [4])],
        [info("o", TensorProto.FLOAT, None)],
        [helper.make_tensor("t", TensorProto.BOOL, [], [True])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "slow.onnx")
    return folder / "slow.onnx"


def planner(*args: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=timeout, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in found.read_text().split()] if found.exists() else []


def gone(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_reading_that_takes_too_long_is_a_wrong_request(tmp_path: Path) -> None:
    done = planner("check", slow(tmp_path), "--ep", "cpu", "--time-limit", 2, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert "took more than 2 s" in error["message"] and "--time-limit" in error["hint"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_reading_that_takes_too_much_memory_is_a_wrong_request(tmp_path: Path) -> None:
    done = planner("check", slow(tmp_path), "--ep", "cpu", "--memory-limit", "20M", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert "more than 20 MiB" in error["message"] and "--memory-limit" in error["hint"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_an_ep_that_takes_too_much_memory_says_so(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "n"], ["e"]), helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0)],
        "g",
        [info("x", TensorProto.FLOAT, [1])],
        [info("y", TensorProto.FLOAT, [])],
        [helper.make_tensor("n", TensorProto.INT64, [2], [1 << 10, 1 << 20])],
    )
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    done = planner("verify", model, "--reference", model, "--ep", "cpu", "--memory-limit", "1G")
    assert done.returncode == 3
    assert "1 GiB of memory" in done.stderr and "--memory-limit" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_the_python_api_has_the_same_limits(tmp_path: Path) -> None:
    code = (
        "import sys, planner\n"
        "from planner.errors import RequestError\n"
        "with planner.limited(memory=20 << 20):\n"
        "    try:\n"
        "        planner.check(sys.argv[1], 'cpu')\n"
        "    except RequestError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, slow(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "more than 20 MiB" in done.stdout, done


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_acts_at_once_even_while_native_code_runs(sent: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "check", slow(tmp_path), "--ep", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: children(process.pid) or process.poll() is not None)
    working = children(process.pid)
    time.sleep(1)
    started = time.monotonic()
    process.send_signal(sent)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - started < 5  # a second on an idle machine
    assert process.returncode == 128 + sent and said.count("interrupted") == 1
    assert all(gone(child) for child in working)


_KEEPS = """
import sys, time
from planner import limits
from planner.cli import supervisor
try:
    supervisor.supervise()
except supervisor.Worked as done:
    sys.exit(done.status)
except KeyboardInterrupt as stop:
    sys.exit(128 + stop.args[0])
try:
    with limits.stoppable():
        print("searching", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("judging", flush=True)
time.sleep(float(sys.argv[1]))
print("kept", flush=True)
supervisor.leave(0)
"""


_FINISHES = _KEEPS.replace(
    """try:
    with limits.stoppable():
        print("searching", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("judging", flush=True)
""",
    """with limits.stopping() as stopped:
    print("searching", flush=True)
    while not stopped():
        time.sleep(0.01)
    print("judging", flush=True)
""",
)


@pytest.mark.parametrize("work", [_KEEPS, _FINISHES], ids=["broken off", "asks"])
@pytest.mark.parametrize("twice", [False, True])
def test_work_that_has_something_to_keep_is_ended_by_the_second_interrupt_alone(twice: bool, work: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", work, "60" if twice else "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "searching\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "judging\n"
    if twice:
        process.send_signal(signal.SIGINT)
    said = process.stdout.read()  # communicate() would lose what lies in the buffer already
    process.wait(20)
    assert (process.returncode, said) == ((130, "") if twice else (0, "kept\n"))
    assert process.stderr.read().count("interrupt once more to give up") == 1


def test_what_works_ends_with_the_process_that_was_started(tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, "check", slow(tmp_path), "--ep", "cpu"], stderr=subprocess.DEVNULL)
    wait_for(lambda: children(process.pid))
    working = children(process.pid)
    time.sleep(0.5)
    process.kill()
    process.wait(10)
    wait_for(lambda: all(gone(child) for child in working))


def test_a_crash_while_reading_is_said_and_is_the_models_fault(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "check", slow(tmp_path), "--ep", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: children(process.pid))
    time.sleep(4)
    os.kill(children(process.pid)[0], signal.SIGSEGV)
    _, said = process.communicate(timeout=20)
    assert process.returncode in (2, 3) and "SIGSEGV" in said


def test_the_next_run_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    stale, young, held = (tmp_path / f".planner-{name}" for name in ("stale", "young", "held"))
    for folder in (stale, young, held):
        folder.mkdir()
        (folder / ".lock").touch()
    for folder in (stale, held):
        os.utime(folder, (1, 1))
    import fcntl

    with (held / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = planner("plan", small(tmp_path), "--ep", "cpu", "--precision", "fp32", "-o", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    assert not stale.exists() and young.exists() and held.exists()


@pytest.mark.parametrize("option", ["--time-limit=0", "--time-limit=x", "--memory-limit=-1", "--memory-limit=1X"])
def test_limits_that_are_none_are_refused(option: str, tmp_path: Path) -> None:
    assert planner("check", tmp_path / "m.onnx", "--ep", "cpu", option).returncode == 2
