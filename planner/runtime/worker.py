"""The worker: one process, one EP, one open session. Started by path; needs the standard library, numpy, onnxruntime.

It speaks over an inherited socket (a pipe on Windows): a JSON header, then the bytes of each array that the header
announces. No pickles, so the two sides may have different versions of Python and numpy. Standard output belongs to the
EP's own chatter and is sent where standard error goes. Standard input is a lifeline: when the caller dies it ends, and
so does the worker, even while native code hangs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import re
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

# Of an EP's verbose log, what says why a node is refused; the rest is thousands of lines.
_TELLING = re.compile(
    r"Validation (FAILED|PASSED)|backendValidateOpConfig|does not support a single|kernel not found in registries|Force fallback to CPU"
)
_FROM_STDERR = re.compile(r"\[([VIWEF]):[^\]]*?, (?P<where>[^\]]+)\] (?P<message>.*)", re.S)
_SEVERITIES = "VIWEF"
_WARNING = 2


def write(connection: Any, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Send a message. Arrays of Python strings travel in the header, all others as raw bytes behind it."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array.dtype.kind not in "OUS"}
    texts = {
        name: {"shape": list(array.shape), "values": [str(v) for v in array.ravel()]}
        for name, array in arrays.items()
        if name not in plain
    }
    # ascontiguousarray makes a scalar one-dimensional: the shape is the original's.
    specs = [[name, array.dtype.str, list(arrays[name].shape)] for name, array in plain.items()]
    connection.send_bytes(json.dumps({**header, "arrays": specs, "texts": texts}).encode())
    for array in plain.values():
        if array.size:
            connection.send_bytes(array.reshape(-1).view(np.uint8).data)


def read(connection: Any) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Receive a message.

    Raises:
        EOFError: the other side is gone.
    """
    header = json.loads(connection.recv_bytes())
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, dtype, shape in header.pop("arrays"):
        empty = 0 in shape
        arrays[name] = np.frombuffer(b"" if empty else connection.recv_bytes(), dtype=np.dtype(dtype)).reshape(shape)
    for name, text in header.pop("texts").items():
        arrays[name] = np.array(text["values"], dtype=object).reshape(text["shape"])
    return header, arrays


def as_array(value: object) -> np.ndarray[Any, Any] | None:
    """An output as one array: the values of a map in order of its keys, those of a sequence one after the other.

    None where it is none of these, or holds text.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict):
        return np.array([value[key] for key in sorted(value)])
    if isinstance(value, list):
        parts = [as_array(part) for part in value]
        if any(part is None for part in parts):
            return None
        return np.concatenate([part.reshape(-1) for part in parts if part is not None] or [np.zeros(0, np.float32)])
    return None


class Server:
    """Holds the EP and the open session, and answers one request at a time."""

    def __init__(self, launcher: Any, ort: Any) -> None:
        self.launcher = launcher
        self.ort = ort
        self.session: Any = None
        self.held: Any = None
        self.output_names: list[str] = []

    def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        ort = self.ort
        self.close()
        reset_peak()
        session_options = ort.SessionOptions()
        if not request["optimize"]:
            session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if request.get("lean"):
            # Nothing is kept for the next run, and each node runs as soon as it can: what observes a tensor does so
            # while the tensor is there.
            session_options.enable_cpu_mem_arena = session_options.enable_mem_pattern = False
            session_options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        # Older builds do not know the entry; an unknown one is ignored.
        session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        for key, value in request["session_config"].items():
            session_options.add_session_config_entry(key, value)
        lines: list[tuple[int, str, str]] = []
        started = time.perf_counter()
        try:
            keep = functools.partial(keep_telling, lines)
            with capture_log(ort, session_options, keep) if request["log"] else contextlib.nullcontext():
                started = time.perf_counter()
                self.session = self._session(session_options, request)
            seconds = time.perf_counter() - started
            logged = functools.partial(self.logged, request, session_options)
            placed = self.launcher.assignment(self.session, Path(request["model"]), logged)
        except Exception as error:
            self.close()
            return {"status": "session_failed", **told(error), "log": lines, "peak_rss_mb": peak()}
        self.output_names = [output.name for output in self.session.get_outputs()]
        return {
            "status": "ok",
            "seconds": seconds,
            "peak_rss_mb": peak(),
            "assignment": placed,
            "providers": list(self.session.get_providers()),
            "log": lines,
        }

    def _session(self, session_options: Any, request: Mapping[str, Any]) -> Any:
        model, options = request["model"], request["options"]
        if folder := request.get("schedule"):
            return self.launcher.schedule(self.ort, model, folder, session_options, options)
        return self.launcher.session(self.ort, model, session_options, options)

    def logged(self, request: Mapping[str, Any], session_options: Any, model: bytes) -> list[tuple[int, str, str]]:
        """The verbose log of building a session as the request says, of a model in place of the request's; of a failed one, too."""
        lines: list[tuple[int, str, str]] = []
        folder = str(Path(request["model"]).parent)
        session_options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        with (
            capture_log(self.ort, session_options, lambda *record: lines.append(record)),
            contextlib.suppress(Exception),
        ):
            self.launcher.session(self.ort, model, session_options, request["options"])
        return lines

    def run(self, sample: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        if self.session is None:
            return {"status": "run_failed", "message": "no session is open"}, {}
        started = time.perf_counter()
        try:
            values = self.session.run(None, dict(sample))
        except Exception as error:
            return {"status": "run_failed", **told(error)}, {}
        seconds = time.perf_counter() - started
        outputs = {}
        for name, value in zip(self.output_names, values, strict=True):
            array = as_array(value)
            if array is None:
                return {
                    "status": "run_failed",
                    "message": f"output {name!r} is no tensor but a {type(value).__name__}",
                }, {}
            outputs[name] = array
        return {"status": "ok", "seconds": seconds, "peak_rss_mb": peak()}, outputs

    def compile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.close()
        started = time.perf_counter()
        options = self.ort.SessionOptions()
        try:
            soc = self.launcher.compile(self.ort, request["model"], request["output"], options, request["options"])
        except Exception as error:
            return {"status": "compile_failed", **told(error)}
        return {"status": "ok", "seconds": time.perf_counter() - started, "soc": soc}

    def time(self, sample: Mapping[str, np.ndarray[Any, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each of several runs in a row, after a few that warm up; outputs are thrown away."""
        if self.session is None:
            return {"status": "run_failed", "message": "no session is open"}
        feed = dict(sample)
        try:
            for _ in range(request["warmup"]):
                self.session.run(None, feed)
            seconds = []
            for _ in range(request["runs"]):
                started = time.perf_counter()
                self.session.run(None, feed)
                seconds.append(time.perf_counter() - started)
        except Exception as error:
            return {"status": "run_failed", **told(error)}
        return {"status": "ok", "seconds": seconds}

    def hold(self) -> None:
        self.held, self.session = self.session, None

    def close(self) -> None:
        self.session = None


# Onnxruntime's status of a graph that no EP was asked about, since it breaks the rules of its operators.
INVALID = "InvalidGraph"


def told(error: Exception) -> dict[str, Any]:
    """What an error says, its class (onnxruntime has one for each status), and whether it says that there was no memory."""
    message, code = f"{error}", type(error).__name__
    none_left = "bad_alloc" in message or "Failed to allocate memory" in message or "bad allocation" in message
    if code == "Fail" and ("This is an invalid model" in message or "Load model from" in message):
        code = INVALID  # onnxruntime drops the status of a file that does not load, and keeps its words
    return {"message": message, "code": code, "memory": isinstance(error, MemoryError) or none_left}


def limit_memory(size: int) -> None:
    """Let the operating system refuse this process more memory than that (Linux; 0 for no limit)."""
    if size and sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (size if hard < 0 else min(size, hard), hard))


# What is done with a record of onnxruntime's log: severity, place in the code, message.
Keep = Callable[[int, str, str], None]


def keep_telling(lines: list[tuple[int, str, str]], severity: int, where: str, message: str) -> None:
    """Append the record where it says why a node is refused, or warns."""
    if severity >= _WARNING or _TELLING.search(message) or "QnnLogging" in where:
        lines.append((severity, where, message[:4000]))


@contextlib.contextmanager
def capture_log(ort: Any, session_options: Any, keep: Keep) -> Iterator[None]:
    """Hand every record of the verbose log over."""
    session_options.log_severity_level = 0
    if hasattr(ort, "set_default_logger_callback"):
        ort.set_default_logger_callback(lambda s, _category, _id, where, message: keep(int(s), where, message), 0)
        try:
            yield
        finally:
            ort.set_default_logger_callback(None, _WARNING)
            ort.set_default_logger_severity(_WARNING)
        return
    # Builds without the callback log to standard error: borrow it for the while.
    with tempfile.TemporaryFile() as borrowed:
        ort.set_default_logger_severity(0)
        kept = os.dup(2)
        os.dup2(borrowed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            ort.set_default_logger_severity(_WARNING)
            borrowed.seek(0)
            for record in re.split(r"\n(?=\S+ \S+ \[[VIWEF]:)", borrowed.read().decode(errors="replace")):
                if found := _FROM_STDERR.search(re.sub(r"\x1b\[[0-9;]*m", "", record)):
                    keep(_SEVERITIES.index(found[1]), found["where"], found["message"])


def give_back() -> None:
    """Let the C library return free memory (Linux), so that the peak of the next session is its own."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    """Let the peak of this session not be that of the one before (Linux; elsewhere it stays the process's)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float | None:
    """Peak resident memory in MiB; None where the platform does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    kibibyte = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kibibyte / 1024


def versions(names: list[str]) -> dict[str, str]:
    """Installed versions of those distributions that are there."""
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _lifeline() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def _connection(handle: int) -> Any:
    from multiprocessing import connection

    kind: Callable[..., Any] = connection.PipeConnection if os.name == "nt" else connection.Connection  # type: ignore[attr-defined, unused-ignore]
    return kind(handle)


def _beside(name: str) -> Any:
    """Load a module of this file's folder: the planner around it may not be importable here, or be another one."""
    package = types.ModuleType("planner_runtime")
    package.__path__ = [str(Path(__file__).parent)]
    sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(f"planner_runtime.{name}")


def _started(launcher: Any) -> tuple[Any, dict[str, str]]:
    """What answers requests, ready, and the versions of the packages that the EP comes from."""
    if (server := launcher.server()) is not None:
        return server, dict(server.runtime)
    import onnxruntime as ort

    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        ort.disable_telemetry_events()  # Windows has no regard for the variable
    launcher.start(ort)
    needs = [name for need in launcher.needs for name in need.split("|")]
    packages = versions(needs) or {"onnxruntime": ort.__version__}
    return Server(launcher, ort), {**packages, **launcher.drivers()}


def _answer(
    server: Server, request: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Do what the request says; returns the reply and the arrays that go with it."""
    match request["do"]:
        case "open":
            return server.open(request), {}
        case "run":
            reply, outputs = server.run(arrays)
            return reply, outputs
        case "time":
            return server.time(arrays, request), {}
        case "compile":
            return server.compile(request), {}
        case "hold":
            server.hold()
        case "close":
            server.close()
            give_back()
    return {"status": "ok"}, {}


def main(ep: str, handle: int, memory: int) -> None:
    """Start the EP, say so, and answer requests until the caller is gone."""
    # The folder of this file must not lend its module names to anybody's import.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
    limit_memory(memory)
    os.dup2(2, 1)
    threading.Thread(target=_lifeline, daemon=True).start()
    connection = _connection(handle)
    try:
        _beside("lifeline").end_with(0)
        server, runtime = _started(_beside("registry").launcher(ep))
    except Exception as error:
        write(connection, {"status": "missing", "message": f"{type(error).__name__}: {error}"}, {})
        return
    write(connection, {"status": "ready", "runtime": runtime}, {})
    while True:
        try:
            request, arrays = read(connection)
        except (EOFError, OSError):
            break
        write(connection, *_answer(server, request, arrays))
    # Not through the interpreter's shutdown: a plugin's own teardown may crash or hang, and nobody needs it any more.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
