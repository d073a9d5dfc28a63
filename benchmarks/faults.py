"""What `planner target` answers, and what it leaves, when something goes wrong around it: Linux only.

A fault strikes at a stage, which is over when the next line of progress is said. Expected of each: a status of the contract,
or that of the signal; a message that names the cause; the model and the samples as they were; an output that is absent, or
complete and loads; no process left; no temporary folder left, or none after the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

READING = "reading"  # no line is said of it: it strikes when the working process is there
STAGES = (READING, "calibrating", "quantizing", "verifying", "timing")
# Stages after the model and the samples were read.
WORKING = STAGES[1:]
# Stages in which an EP's process runs.
RUNNING = ("calibrating", "verifying", "timing")
_PATIENCE = 90.0
_NOBODY = 65534
# Marks the processes of a scene, whoever their parent is now.
_MARK = "PLANNER_FAULTS_SCENE"


@dataclass
class Scene:
    """A folder in which a command runs: its model, its samples, a place for its output and one for temporary files.

    Attributes:
        root: the folder. prefix: what the command is started by. options: those that the fault adds.
        environment: variables that differ; None removes one.
        second: what a fault started beside the command.
    """

    root: Path
    prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environment: dict[str, str | None] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    second: subprocess.Popen[str] | None = None
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def model(self) -> Path:
        return self.root / "model.onnx"

    @property
    def samples(self) -> Path:
        return self.root / "samples.npz"

    @property
    def output(self) -> Path:
        return self.root / "out" / "model.cpu.onnx"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        varying = {"TMPDIR": str(self.temporary), _MARK: str(self.root), **self.environment}
        kept = {key: value for key, value in os.environ.items() if key not in varying}
        return subprocess.Popen(
            [
                *self.prefix, sys.executable, "-m", "planner", "target", str(self.model), "--ep", "cpu", "--inputs",
                str(self.samples), "-o", str(self.output), *self.options,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=kept | {key: value for key, value in varying.items() if value is not None},
        )  # fmt: skip

    def working(self) -> int:
        """The process that works, once it is there."""
        assert self.process is not None
        return _awaited(lambda: children(self.process.pid))  # type: ignore[union-attr]

    def ep(self) -> list[int]:
        """The processes of the EP, once there is one: those that wait for the next worker among them."""

        def running() -> list[int]:
            return [number for number in children(self.working()) if _runs(number, "worker.py")]

        _awaited(running)
        return running()

    def alive(self) -> list[int]:
        """The processes of the scene."""
        mark, found = f"{_MARK}={self.root}".encode(), []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return [number for number in found if not gone(number)]


Strike = Callable[[Scene], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: in words. strike: does it. stages: before or in which it is done; "" for before the command starts.
        statuses: that are right. says: what the message must match; what is empty needs none.
        changes: whether it changes the model or the samples itself. options: of the command.
        lacks: why this machine cannot do it; empty where it can.
        later: temporary folders may stay until the next run.
    """

    name: str
    strike: Strike
    stages: tuple[str, ...]
    statuses: tuple[int, ...]
    says: str = ""
    changes: bool = False
    options: tuple[str, ...] = ("--precision", "w8a8")
    lacks: str = ""
    later: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        status: of the command; negative for a signal. message: its first line that is none of progress.
        wrong: what should not be so; empty where all is well.
    """

    status: int
    message: str
    wrong: tuple[str, ...]


def children(process: int) -> list[int]:
    """Numbers of the processes that a process started, oldest first."""
    found = list[int]()
    with contextlib.suppress(OSError):
        for task in sorted(Path(f"/proc/{process}/task").iterdir()):
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _runs(process: int, script: str) -> bool:
    """Whether a process has got as far as running a script: just forked, it is still a copy of its parent."""
    with contextlib.suppress(OSError):
        return script in Path(f"/proc/{process}/cmdline").read_text()
    return False


def _awaited(found: Callable[[], list[int]], seconds: float = 10.0) -> int:
    deadline = time.monotonic() + seconds
    while not (numbers := found()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return numbers[0]


# -- what goes wrong --------------------------------------------------------------------------------------------------


def _send(number: int, to: Callable[[Scene], int]) -> Strike:
    return lambda scene: os.kill(to(scene), number)


def _send_to_ep(number: int) -> Strike:
    def strike(scene: Scene) -> None:
        for process in scene.ep():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    return strike


def _command(scene: Scene) -> int:
    assert scene.process is not None
    return scene.process.pid


def _delete(what: str) -> Strike:
    return lambda scene: (scene.root / what).unlink()


def _cut(what: str) -> Strike:
    return lambda scene: os.truncate(scene.root / what, (scene.root / what).stat().st_size // 2)


def _rewrite(what: str) -> Strike:
    """Another model or other samples of the same size take the place of the file."""

    def strike(scene: Scene) -> None:
        fresh = scene.root / "fresh"
        fresh.mkdir()
        furnish(fresh, seed=1)
        (fresh / what).replace(scene.root / what)
        shutil.rmtree(fresh)

    return strike


def _remove_folder(what: str) -> Strike:
    return lambda scene: shutil.rmtree(scene.root / what)


def _full(what: str) -> Strike:
    """Too little room: a small file system of its own."""

    def strike(scene: Scene) -> None:
        folder = scene.root / what
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
        scene.cleanup.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)

    return strike


def _as_nobody(scene: Scene, user: int = _NOBODY) -> None:
    """As a user who may not write everywhere; HOME stays as it is."""
    if os.geteuid() == 0:
        scene.prefix = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        for path in (scene.root, *scene.root.iterdir()):
            os.chown(path, user, user)


def _nameless(scene: Scene) -> None:
    _as_nobody(scene, 54321)
    scene.environment["HOME"] = None


def _read_only(scene: Scene) -> None:
    """The folder of the output may not be written."""
    _as_nobody(scene)
    scene.output.parent.chmod(0o555)


def _second_writer(scene: Scene) -> None:
    scene.second = replace(scene, process=None).start()


def _environment(**changes: str | None) -> Strike:
    return lambda scene: scene.environment.update(changes)


_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_NO_MOUNT = "" if _IS_ROOT else "only root may mount a small file system"
_FOLDERS = Path(sys.executable).resolve().parents
_NO_PYTHON = "" if all(folder.stat().st_mode & 0o1 for folder in _FOLDERS) else "nobody but root may run this Python"
_NO_SETPRIV = "" if not _IS_ROOT or shutil.which("setpriv") else "root writes everywhere, and there is no setpriv"
_SEARCH = ("--floor", "65", "--precision", "auto")
_LIMIT = ("--precision", "w8a8", "--time-limit", "3")


def _ended(number: int) -> tuple[int, ...]:
    return (128 + number,)


FAULTS = (
    Fault("SIGKILL of the command", _send(signal.SIGKILL, _command), STAGES, (-signal.SIGKILL,), later=True),
    Fault("SIGKILL of its working process", _send(signal.SIGKILL, Scene.working), STAGES, (2, 3), "SIGKILL|was killed"),
    *(
        Fault(f"{number.name} of the command", _send(number, _command), STAGES, _ended(number), "interrupted")
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    ),
    Fault("SIGTERM in a search", _send(signal.SIGTERM, _command), ("searching",), _ended(signal.SIGTERM), "interrupted",
          options=_SEARCH),
    Fault("SIGINT in a search", _send(signal.SIGINT, _command), ("searching",), (0, 1, 130), options=_SEARCH),
    Fault("SIGKILL in a search", _send(signal.SIGKILL, _command), ("searching",), (-signal.SIGKILL,), options=_SEARCH,
          later=True),
    # One that waits between two uses is replaced, and nothing needs to be said.
    Fault("SIGKILL of the EP's process", _send_to_ep(signal.SIGKILL), RUNNING, (0, 3), "SIGKILL|^$"),
    Fault("SIGSTOP of the EP's process", _send_to_ep(signal.SIGSTOP), RUNNING, (3,), "did not (answer|start) within",
          options=_LIMIT),
    Fault("SIGKILL of the EP's process in a search", _send_to_ep(signal.SIGKILL), ("searching",), (0, 1, 3),
          options=_SEARCH),
    Fault("the model deleted", _delete("model.onnx"), WORKING, (2,), r"model\.onnx.*no such file", changes=True),
    Fault("the model cut short", _cut("model.onnx"), WORKING, (2,), r"model\.onnx.*(changed|truncated)", changes=True),
    Fault("another model in its place", _rewrite("model.onnx"), WORKING, (2,), r"model\.onnx.*changed", changes=True),
    Fault("the samples deleted", _delete("samples.npz"), WORKING, (0,), changes=True),
    Fault("the samples cut short", _cut("samples.npz"), WORKING, (0,), changes=True),
    Fault("other samples in their place", _rewrite("samples.npz"), WORKING, (0,), changes=True),
    Fault("no room for the output", _full("out"), ("",), (2,), r"out/.*No space left", lacks=_NO_MOUNT),
    Fault("no room for temporary files", _full("tmp"), ("",), (2,), r"tmp/.*No space left", lacks=_NO_MOUNT),
    Fault("a read-only output folder", _read_only, ("",), (2,), "out: no permission", lacks=_NO_SETPRIV),
    Fault("the output folder deleted", _remove_folder("out"), STAGES, (2,), "out.*(no such folder|removed)"),
    Fault("the folder of temporary files deleted", _remove_folder("tmp"), STAGES, (0, 2)),
    Fault("a second writer", _second_writer, ("", "calibrating"), (0, 2)),
    Fault("no HOME", _environment(HOME=None), ("",), (0,)),
    Fault("no HOME, a user without a name", _nameless, ("",), (0,), lacks=_NO_SETPRIV or _NO_PYTHON),
    Fault("HOME of somebody else's", _as_nobody, ("",), (0,), lacks=_NO_SETPRIV or _NO_PYTHON),
    Fault("HOME that does not exist", _environment(HOME="/nonexistent"), ("",), (0,)),
    Fault("TMPDIR that does not exist", _environment(TMPDIR="/nonexistent"), ("",), (0,)),
)  # fmt: skip


# -- the scene --------------------------------------------------------------------------------------------------------


def furnish(root: Path, seed: int = 0) -> None:
    """A convolutional network with 150 KB of weights, and 32 samples of it."""
    rng = np.random.default_rng(seed)
    shapes = [(16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64, 5, 5)]
    weights = [
        numpy_helper.from_array((rng.standard_normal(s) / 9).astype(np.float32), f"w{i}") for i, s in enumerate(shapes)
    ]
    nodes, value = [], "x"
    for i in range(len(shapes)):
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], f"conv{i}", strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        value = f"r{i}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [1, 3, 64, 64])], [info(value, TensorProto.FLOAT, None)], weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), root / "model.onnx")
    np.savez(root / "samples.npz", x=rng.standard_normal((32, 3, 64, 64)).astype(np.float32))


@contextlib.contextmanager
def _scene(fault: Fault) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        root.chmod(0o755)
        for folder in ("out", "tmp"):
            (root / folder).mkdir()
        furnish(root)
        scene = Scene(root, options=fault.options)
        with scene.cleanup:
            yield scene


def _digest(scene: Scene) -> tuple[str, ...]:
    return tuple(hashlib.sha256(p.read_bytes()).hexdigest() for p in (scene.model, scene.samples) if p.exists())


def provoke(fault: Fault, stage: str) -> Outcome:
    """Let the command run, and the fault strike at a stage."""
    with _scene(fault) as scene:
        before = _digest(scene)
        if not stage:
            fault.strike(scene)
        scene.process = scene.start()
        said, struck = _follow(scene, stage, fault.strike)
        status = scene.process.returncode
        wrong = [] if struck or not stage else [f"it was never {stage}"]
        message = next(iter(_messages(said)), "")
        statuses = [status]
        if scene.second is not None:
            _, other = scene.second.communicate(timeout=_PATIENCE)
            statuses.append(scene.second.returncode)
            message = next(iter(_messages(other.splitlines())), "") or message
            if sorted(statuses) != [0, 2]:
                wrong.append(f"two writers ended with {statuses}")
        if status not in fault.statuses:
            wrong.append(f"status {status}")
        if not re.search(fault.says, message) or (status not in (0, -signal.SIGKILL) and not message):
            wrong.append("another message")
        if any("Traceback" in line or "internal error" in line for line in said):
            wrong.append("a traceback")
        if not fault.changes and _digest(scene) != before:
            wrong.append("the model or the samples were changed")
        wrong += _left(scene, 0 in statuses, later=fault.later)
        return Outcome(status, message, tuple(wrong))


def _follow(scene: Scene, stage: str, strike: Strike) -> tuple[list[str], bool]:
    """What the command says until it ends, and whether the stage was seen."""
    assert scene.process is not None and scene.process.stderr is not None
    patience = threading.Timer(_PATIENCE, scene.process.kill)
    patience.start()
    struck, said = not stage, list[str]()
    if stage == READING:
        scene.working()
        time.sleep(0.2)
        strike(scene)
        struck = True
    for line in scene.process.stderr:
        said.append(line.rstrip())
        if not struck and re.match(rf"planner: {stage}\b.* \.\.\.", line):
            strike(scene)
            struck = True
    scene.process.wait()
    patience.cancel()
    return said, struck


def _messages(said: Sequence[str]) -> Iterator[str]:
    for line in said:
        found = re.fullmatch(r"planner: (?!WARNING|note|wrote)(.*)", line)
        if found is not None and not line.endswith(" ..."):
            yield found[1]


def _left(scene: Scene, passed: bool, *, later: bool) -> Iterator[str]:
    """What should not be there when the command has ended."""
    deadline = time.monotonic() + 5
    while (alive := scene.alive()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if alive:
        yield f"processes left: {len(alive)}"
        for number in alive:
            os.kill(number, signal.SIGKILL)
    if later:
        _run_again(scene)
    extra = [
        str(p.relative_to(scene.root))
        for folder in ("out", "tmp")
        for p in _entries(scene.root / folder)
        if p != scene.output
    ]
    if extra:
        yield f"files left: {', '.join(extra)}"
    if scene.output.exists():
        if not _loads(scene.output):
            yield "an output that does not load"
    elif passed:
        yield "no output"


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _run_again(scene: Scene) -> None:
    """The next run clears what a killed one left, a minute later."""
    for folder in ("out", "tmp"):
        for path in _entries(scene.root / folder):
            if path != scene.output:
                os.utime(path, (1, 1))
    again = replace(scene, options=(*scene.options, "--overwrite"), process=None).start()
    again.communicate(timeout=_PATIENCE)


def _loads(path: Path) -> bool:
    import onnxruntime

    try:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def faults(only: str) -> int:
    """Each fault whose name has these words, at each of its stages; the number of those that came out wrong."""
    # A shell's background jobs ignore SIGINT, and nohup's SIGHUP: so would every process that is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    count = wrong = 0
    print(f"{'fault':40} {'before':12} status  message, what is wrong")
    for fault in FAULTS:
        if only not in fault.name:
            continue
        if fault.lacks:
            print(f"{fault.name:40} NOT TRIED: {fault.lacks}", flush=True)
            continue
        for stage in fault.stages:
            found = provoke(fault, stage)
            count, wrong = count + 1, wrong + bool(found.wrong)
            print(f"{fault.name:40} {stage or 'start':12} {found.status:6}  {found.message[:200]}", flush=True)
            for problem in found.wrong:
                print(f"{'':40} WRONG: {problem}", flush=True)
    print(f"{count} faults, {wrong} wrong")
    return wrong
