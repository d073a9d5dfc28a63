"""The caller's side of the worker: start it, ask it, survive it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from planner import limits
from planner.errors import EPError, PlannerError, RequestError
from planner.runtime import spare, worker
from planner.runtime.eps.launcher import Availability
from planner.runtime.process import Process
from planner.runtime.refusals import Line, Refusal, clean, read_refusals, single_node_partition
from planner.runtime.registry import CPU, launcher

T = TypeVar("T")

# Seconds that starting an EP may take, whatever the limit of a request is: importing its packages does not depend on a model.
_LEAST_START, _MOST_START = 20.0, 120.0


class EPMissing(EPError):
    """The EP can't be started here: a package is missing, or there is no device."""


class SessionFailed(EPError):
    """The EP refused to build the session. A finding about the model, not a failure of the worker.

    Attributes:
        refusals: what the EP's log said of single nodes, if it was asked for.
        code: onnxruntime's status, by the name of its exception: "NotImplemented", "InvalidGraph"; "" where another failed.
    """

    def __init__(self, message: str, hint: str = "", refusals: tuple[Refusal, ...] = (), code: str = "") -> None:
        super().__init__(message, hint)
        self.refusals, self.code = refusals, code


def model_refused(error: SessionFailed) -> RequestError:
    """The error where onnxruntime does not load the user's own float32 model."""
    return RequestError(
        f"onnxruntime does not take the float32 model itself: {error}", "correct the model: no EP runs it as it is"
    )


class RunFailed(EPError):
    """The session was built, but running it raised an error.

    Attributes:
        ep: full name of the EP that ran it.
        lost: whether this machine's driver lost the device, which says nothing of the EP.
    """

    def __init__(self, message: str, hint: str = "", ep: str = "", *, lost: bool = False) -> None:
        super().__init__(message, hint)
        self.ep, self.lost = ep, lost


class WorkerCrashed(EPError):
    """The worker's process ended in the middle of a request."""


class WorkerMemory(EPError):
    """Running the model took more memory than the worker may have."""


class WorkerTimeout(EPError):
    """The worker did not answer in time, and was killed."""


@dataclass(frozen=True)
class Assigned:
    """A node as the EP's runtime names it after partitioning, and the EP that got it."""

    ep: str
    op_type: str
    name: str


@dataclass(frozen=True)
class Opened:
    """A built session.

    Attributes:
        assignment: who runs what; empty where the build cannot tell.
        refusals: nodes that the EP examined and refused; only with log=True.
        lone_partition: the EP's own words where it left lone Q or DQ nodes to others; only with log=True.
        seconds: time to build the session. peak_rss_mb: peak resident memory of the worker since, None if unknown.
        runtime: versions of the packages that the EP comes from.
        unbuilt: why there is an assignment and no session that runs; empty where there is one.
        lost: whether that is since this machine's driver lost the device.
    """

    assignment: tuple[Assigned, ...]
    refusals: tuple[Refusal, ...]
    lone_partition: str | None
    seconds: float
    peak_rss_mb: float | None
    runtime: Mapping[str, str]
    unbuilt: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Ran:
    """One run: outputs by name (read-only arrays), seconds within the session, the worker's peak memory so far."""

    outputs: dict[str, np.ndarray[Any, Any]] = field(repr=False)
    seconds: float
    peak_rss_mb: float | None


class Worker:
    """A process that runs one EP. After a crash or a time-out the next `open` starts a new one.

    Use as a context manager; leaving it ends the process (one of the CPU EP may serve the next worker: `spare.reused`). A
    worker serves one thread at a time.
    """

    def __init__(self, ep: str, *, timeout: float | None = None) -> None:
        """Prepare to start the EP; nothing runs before the first request.

        Args:
            ep: full provider name.
            timeout: seconds that a single request may take; None for what `planner.limits` says.
        """
        self.ep = ep
        self.timeout = limits.current().request_seconds if timeout is None else timeout
        self.memory = limits.current().worker_bytes
        self.runtime: Mapping[str, str] = {}
        self._launcher = launcher(ep)
        self._available: Availability | None = None
        self._process: Process | None = None
        self._cores: Collection[int] | None = None
        self._abandoned = False
        self._holds = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, PlannerError):
            self.close()
        else:
            self._end()

    def close(self) -> None:
        """Be done with the process, if there is one."""
        if self.ep == CPU and not self._holds and spare.wanted():
            with contextlib.suppress(EPError):
                self.close_session()  # which ends a process that does not answer
            if self._process is not None and spare.keep(self._process.key, self._process):
                self._process = None
        self._end()

    def abandon(self) -> None:
        """End the process while another thread waits for its answer: there it has crashed. No other is started."""
        self._abandoned = True
        if (process := self._process) is not None:
            process.end()

    def open(
        self,
        model: Path,
        options: Mapping[str, str],
        *,
        optimize: bool = True,
        log: bool = False,
        lean: bool = False,
        session_config: Mapping[str, str] | None = None,
        schedule: Path | None = None,
    ) -> Opened:
        """Build a session, in place of the one that was open.

        Args:
            model: an ONNX file.
            options: provider options, as in a profile.
            optimize: whether onnxruntime may rewrite the graph, as it does by default.
            log: whether to listen to the EP's verbose log for its refusals.
            lean: spend time to hold as little memory as possible.
            session_config: session configuration entries of onnxruntime.
            schedule: a folder where the EP's compiler writes down its schedules of the model, for an EP that `schedules`.

        Raises:
            EPMissing, SessionFailed, WorkerCrashed, WorkerTimeout, RequestError (an option that may not be set).
        """
        self._check_options(options)
        request = {
            "do": "open",
            "model": str(model),
            "options": {str(k): str(v) for k, v in options.items()},
            "optimize": optimize,
            "log": log,
            "lean": lean,
            "session_config": dict(session_config or {}),
        }
        if schedule is not None:
            # The EP writes into its working folder: the model's own path must not hang on that.
            request |= {"model": str(model.resolve()), "schedule": str(schedule.resolve())}
        reply, _ = self._ask(request, {}, f"building a session for {model.name}")
        log_lines: list[Line] = [(line[0], line[1], line[2]) for line in reply["log"]]
        refusals = read_refusals(log_lines)
        if reply["status"] == "session_failed":
            raise SessionFailed(
                f"{self.ep} could not build a session for {model.name}: {self._say(reply, model)}",
                "`planner check` says what the profile knows of the model's nodes",
                refusals,
                reply.get("code", ""),
            )
        return Opened(
            self._assignment(reply),
            refusals,
            single_node_partition(log_lines),
            reply["seconds"],
            reply["peak_rss_mb"],
            dict(self.runtime),
            reply.get("unbuilt", ""),
            bool(reply.get("lost")),
        )

    def run(self, sample: Mapping[str, np.ndarray[Any, Any]]) -> Ran:
        """Run the open session on one sample.

        Raises:
            RunFailed, WorkerMemory, WorkerCrashed, WorkerTimeout.
        """
        if self._process is None:
            raise RunFailed(
                f"{self.ep}: no session is open", "open the model again: a crash or time-out ends its session"
            )
        reply, outputs = self._ask({"do": "run"}, sample, "running the model")
        if reply["status"] == "run_failed":
            raise self._run_failed(reply)
        return Ran(outputs, reply["seconds"], reply["peak_rss_mb"])

    def time(self, sample: Mapping[str, np.ndarray[Any, Any]], *, warmup: int, runs: int) -> list[float]:
        """Seconds of each of so many runs of the open session in a row, measured within the worker.

        Raises:
            RunFailed, WorkerMemory, WorkerCrashed, WorkerTimeout.
        """
        reply, _ = self._ask({"do": "time", "warmup": warmup, "runs": runs}, sample, "timing the model")
        if reply["status"] == "run_failed":
            raise self._run_failed(reply)
        return [float(seconds) for seconds in reply["seconds"]]

    def compile(self, model: Path, output: Path, options: Mapping[str, str]) -> tuple[str, float]:
        """Write the model compiled ahead of time; the chip it is for, in the EP's own terms, and the seconds it took.

        Raises:
            EPError (it cannot), WorkerCrashed, WorkerTimeout, RequestError (an option that may not be set).
        """
        self._check_options(options)
        request = {"do": "compile", "model": str(model), "output": str(output), "options": dict(options)}
        reply, _ = self._ask(request, {}, f"compiling {model.name}")
        if reply["status"] == "compile_failed":
            raise EPError(f"{self.ep} could not compile {model.name}: {self._say(reply, model)}")
        return reply["soc"], reply["seconds"]

    def hold(self) -> None:
        """Put the open session aside for as long as the process lives.

        An EP may unload its backend with its last session and load it again for the next, which takes several times
        as long as building a tiny session: whoever builds thousands of them holds one.
        """
        if self._process is not None:
            self._holds = True
            self._ask({"do": "hold"}, {}, "putting a session aside")

    def keep_to(self, cores: Collection[int]) -> None:
        """Let all threads run on these cores alone, from now on, where the platform has such a thing."""
        self._cores = cores
        if self._process is not None:
            self._process.keep_to(cores)

    def close_session(self) -> None:
        """Release the open session, and keep the process."""
        if self._process is not None:
            self._ask({"do": "close"}, {}, "closing the session")

    # -- inner ------------------------------------------------------------------------------------------------------

    def _assignment(self, reply: Mapping[str, Any]) -> tuple[Assigned, ...]:
        """Who runs what; the runtime knows the EP by its name without a version."""
        own = self._launcher.ep
        return tuple(Assigned(self.ep if ep == own else ep, *node) for ep, *node in reply["assignment"])

    def _check_options(self, options: Mapping[str, str]) -> None:
        allowed = self._launcher.options
        if unknown := sorted(set(options) - allowed):
            raise RequestError(
                f"provider option {unknown[0]!r} of {self.ep} may not be set",
                f"allowed: {', '.join(sorted(allowed)) or 'none'}; options that load libraries or write files are planner's own",
            )

    def _run_failed(self, reply: Mapping[str, Any]) -> EPError:
        message = f"{self.ep} failed to run the model: {self._say(reply)}"
        return (
            WorkerMemory(message)
            if reply.get("memory")
            else RunFailed(message, ep=self.ep, lost=bool(reply.get("lost")))
        )

    def _say(self, reply: Mapping[str, Any], model: Path | None = None) -> str:
        if reply.get("memory") and self.memory is not None:
            return f"it takes more than {limits.gibibytes(self.memory)} of memory (--memory-limit raises that)"
        message = reply["message"]
        return clean(message if model is None else message.replace(str(model), model.name))

    def _ask(
        self, request: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]], doing: str
    ) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        try:
            # A worker that stands still may also stop taking arrays, or giving them: time runs for all three.
            with process.ended_after(self.timeout):
                worker.write(process.connection, request, arrays)
                return worker.read(process.connection)
        except (EOFError, OSError, ValueError):
            if process.late:
                self._end()
                raise WorkerTimeout(
                    f"{self.ep} did not answer within {self.timeout:g} s while {doing}",
                    "raise --time-limit, or try a smaller model",
                ) from None
            raise self._crashed(doing) from None
        except BaseException:
            # An interrupt between question and answer would leave the answer to the next question.
            self._end()
            raise

    def _crashed(self, doing: str) -> WorkerCrashed:
        assert self._process is not None
        process, self._process = self._process, None
        how, last = process.died()
        said = f"; it last said: {' / '.join(last[-3:])}" if last else ""
        if "SIGBUS" in how:
            # What a process gets that reads a mapped file beyond its end; no other cause is likely.
            return WorkerCrashed(
                f"{self.ep} lost a file of the model ({how}) while {doing}{said}",
                "something cut the file short while it was read: run again when nothing else writes to it",
            )
        return WorkerCrashed(
            f"{self.ep} crashed ({how}) while {doing}{said}",
            "the EP itself fails on this model: reduce the model to find the node, and report it to the EP's makers",
        )

    def _start(self) -> None:
        if self._abandoned:
            raise WorkerCrashed(f"{self.ep} is no longer wanted")
        if self._available is None:
            self._available = self._launcher.availability()
        available = self._available
        if available.kind is None:
            raise EPMissing(f"{self.ep} can't run here: {available.reason}", "see `planner eps`")
        kept = spare.take((self._launcher.ep, available.python, self.memory))
        self._process = kept if isinstance(kept, Process) else self._new_process(available)
        if self._cores is not None:
            self._process.keep_to(self._cores)
        if self._process.runtime:
            self.runtime = self._process.runtime
            return
        try:
            seconds = min(_MOST_START, max(_LEAST_START, self.timeout))
            if not self._process.connection.poll(seconds):
                self._end()
                raise WorkerTimeout(f"{self.ep} did not start within {seconds:g} s", "see `planner eps`")
            reply, _ = worker.read(self._process.connection)
        except (EOFError, OSError):
            raise self._crashed("starting") from None
        except BaseException:
            self._end()
            raise
        if reply["status"] == "missing":
            self._end()
            raise EPMissing(f"{self.ep} can't be started: {clean(reply['message'])}", "see `planner eps`")
        self._process.runtime = self.runtime = reply["runtime"]

    def _new_process(self, available: Availability) -> Process:
        try:
            return Process(available.python, self._launcher.ep, self.memory)
        except OSError as error:
            raise EPMissing(
                f"{self.ep}: cannot start the interpreter {available.python.name}: {error.strerror}",
                "see `planner eps`",
            ) from None

    def _end(self) -> None:
        """End the process, if there is one: nothing is known of its state."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()


def asked_twice(work: Callable[[], T]) -> T:
    """What a piece of work comes to, done once more where its process was ended in the middle.

    Once may be the machine's fault, which runs short of memory for a moment, and must not change which plan is taken.

    Raises:
        WorkerCrashed: both times.
    """
    try:
        return work()
    except WorkerCrashed:
        return work()


def prepare(*eps: str) -> None:
    """Start the processes of workers to come, where processes are kept (`spare.reused`): they get ready beside other work.

    Args:
        eps: full provider names, one for each worker; nothing is started for one that cannot run here.
    """
    for known in map(launcher, eps if spare.wanted() else ()):
        available = known.availability()
        if available.kind is not None:
            with contextlib.suppress(OSError):
                process = Process(available.python, known.ep, limits.current().worker_bytes)
                if not spare.keep(process.key, process):
                    process.kill()


def prepare_comparison(ep: str) -> None:
    """Start the processes that calibrate and compare, and that of the EP. See `prepare`."""
    prepare(CPU, CPU, ep)
