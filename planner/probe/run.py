"""Putting probe cases to an EP: in workers that survive a crash or a hang, in parallel, resumable."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx

from planner.errors import PlannerError
from planner.files import temporary_folder
from planner.probe.build import NODE, build, inputs_of
from planner.probe.case import Case
from planner.probe.cases import PROBE_VERSION, case_by_id
from planner.runtime.client import Opened, RunFailed, SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.registry import CPU, launcher
from planner.runtime.worker import INVALID

_TIMEOUT = 30.0
# An EP that leaves a process in a bad state would do so for every case after: a fresh one now and then is cheap.
_CASES_PER_PROCESS = 1500
_QUIET = {"session.intra_op.allow_spinning": "0"}  # threads of idle sessions would take the cores from one another
_COMPANY = "company"  # what the nodes of `in_company` are called
_RANDOM = ("RandomNormalLike", "RandomUniformLike", "Bernoulli")


class Result(StrEnum):
    """What came of a case.

    TAKEN: the EP runs the operator. CPU: it is left to the CPU EP. FAILS: no session can be created. CRASHED: the EP's
    process died or hung. FOLDED: onnxruntime computed or removed the operator before any EP saw it. INVALID: onnxruntime
    refuses to load the model with the CPU EP too, so that it says nothing about the EP.
    """

    TAKEN = "taken"
    CPU = "cpu"
    FAILS = "fails"
    CRASHED = "crashed"
    FOLDED = "folded"
    INVALID = "invalid"


@dataclass(frozen=True)
class Outcome:
    """The answer to a case.

    Attributes:
        reason: in the EP's own words, without names of this case; None where it was taken.
        sqnr_db: how far the EP's numbers are from the CPU EP's on the same file, the worst output; None if not run.
    """

    result: Result
    reason: str | None = None
    sqnr_db: float | None = None


def probe(
    cases: Sequence[Case],
    ep: str,
    options: Mapping[str, str],
    *,
    workers: int = 2,
    partial: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Put every case to the EP.

    Args:
        cases: what to ask.
        ep: full provider name.
        options: provider options of the device.
        workers: processes of the EP at a time, each with one of the CPU EP beside it for comparison.
        partial: a file that keeps outcomes as they come in; answers already there are not asked again.
        progress: called with the number of cases done and in all.

    Returns:
        The outcome of each case by id, and the versions of the packages that answered.

    Raises:
        EPError: the EP cannot be started here.
    """
    with Worker(ep) as first:
        runtime = _versions(first, options)
    done: dict[str, Outcome] = {}
    if partial is not None:
        stamp = {"ep": ep, "options": dict(options), "runtime": runtime, "probe": PROBE_VERSION}
        done = _read_partial(partial, stamp, {c.id for c in cases})
    with partial.open("a", encoding="utf-8") if partial is not None else contextlib.nullcontext() as stream:
        interview = _Interview(cases, done, stream, progress or (lambda *_: None))
        interview.hold(ep, options, workers)
    return {case.id: interview.done[case.id] for case in cases}, runtime


class _Interview:
    """Cases that wait for an answer, and the answers as they come in from several threads."""

    def __init__(
        self,
        cases: Sequence[Case],
        done: dict[str, Outcome],
        stream: IO[str] | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self.done, self.total = done, len(cases)
        self._stream, self._progress = stream, progress
        self._pending: queue.SimpleQueue[Case] = queue.SimpleQueue()
        for case in cases:
            if case.id not in done:
                self._pending.put(case)
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        progress(len(done), self.total)

    def hold(self, ep: str, options: Mapping[str, str], workers: int) -> None:
        """Ask until no case waits, or a thread fails."""
        threads = [threading.Thread(target=self._work, args=(ep, options), daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except KeyboardInterrupt:
            self._failures.append(KeyboardInterrupt())
            raise
        if self._failures:
            raise self._failures[0]

    def _work(self, ep: str, options: Mapping[str, str]) -> None:
        try:
            with _Asker(ep, options) as asker:
                while not self._failures:
                    try:
                        case = self._pending.get_nowait()
                    except queue.Empty:
                        return
                    self._keep(case, asker.ask(case))
        except BaseException as error:
            self._failures.append(error)

    def _keep(self, case: Case, outcome: Outcome) -> None:
        with self._lock:
            self.done[case.id] = outcome
            if self._stream is not None:
                self._stream.write(json.dumps({"case": case.id, **asdict(outcome)}) + "\n")
                self._stream.flush()
            self._progress(len(self.done), self.total)


def _versions(worker: Worker, options: Mapping[str, str]) -> dict[str, str]:
    """Start the EP once, on the smallest case, to learn the versions before anything is asked in earnest."""
    with temporary_folder() as folder:
        path = folder / "start.onnx"
        path.write_bytes(build(case_by_id("Relu/float32")).SerializeToString())
        with contextlib.suppress(SessionFailed):
            worker.open(path, options)
    return dict(worker.runtime)


def _read_partial(path: Path, stamp: Mapping[str, Any], wanted: set[str]) -> dict[str, Outcome]:
    """Outcomes of an interrupted run of the same probe on the same EP; the file is begun anew for any other."""
    found: dict[str, Outcome] = {}
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            if json.loads(lines[0]) == stamp:
                for line in lines[1:]:
                    entry = json.loads(line)
                    if entry["case"] in wanted:
                        found[entry["case"]] = Outcome(Result(entry["result"]), entry["reason"], entry["sqnr_db"])
                return found
    path.write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    return found


class _Asker:
    """One process of the EP and one of the CPU EP."""

    def __init__(self, ep: str, options: Mapping[str, str]) -> None:
        self.ep, self.options = ep, options
        self.node_by_node = launcher(ep).node_by_node
        self.runs = launcher(ep).availability().runs
        self.worker = Worker(ep, timeout=_TIMEOUT)
        self.reference = Worker(CPU, timeout=_TIMEOUT)
        self.asked = 0
        self.process_is_new = True
        self._open = contextlib.ExitStack()

    def __enter__(self) -> _Asker:
        self._folder = self._open.enter_context(temporary_folder())
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()
        self.reference.close()
        self._open.close()

    def ask(self, case: Case) -> Outcome:
        self.asked += 1
        if self.asked % _CASES_PER_PROCESS == 0:
            self.worker.close()
            self.process_is_new = True
        path = self._folder / "case.onnx"
        try:
            if self.process_is_new:
                self._warm_up(path)
            path.write_bytes(build(case).SerializeToString())
            opened = self.worker.open(path, self.options, log=True, session_config=_QUIET)
        except (WorkerCrashed, WorkerTimeout) as error:
            self.process_is_new = True
            return self._unless_invalid(case, path, Outcome(Result.CRASHED, tidy(str(error), case)))
        except SessionFailed as error:
            said = error.refusals[-1].reason if error.refusals else str(error)
            return self._unless_invalid(case, path, Outcome(Result.FAILS, tidy(said, case)))
        outcome = placed(opened, self.ep, case, node_by_node=self.node_by_node)
        inputs = inputs_of(case)
        if self._may_want_company(outcome) and self._takes_in_company(case, path):
            outcome = Outcome(Result.TAKEN)
            inputs = {**inputs, _COMPANY: np.zeros(1, np.float32)}
        if outcome.result is not Result.TAKEN or not self.runs:
            return outcome
        if opened.unbuilt:
            return outcome if opened.lost else Outcome(Result.FAILS, tidy(opened.unbuilt, case))
        if case.form.op in _RANDOM:
            return outcome
        try:
            ran = self.worker.run(inputs).outputs
        except (WorkerCrashed, WorkerTimeout) as error:
            self.process_is_new = True
            return Outcome(Result.CRASHED, tidy(str(error), case))
        except RunFailed as error:
            return outcome if error.lost else Outcome(Result.FAILS, tidy(str(error), case))
        if self.ep == CPU:
            return outcome
        return Outcome(outcome.result, outcome.reason, self._distance(path, inputs, ran))

    def _may_want_company(self, outcome: Outcome) -> bool:
        return outcome.result is Result.CPU and outcome.reason is None and not self.node_by_node

    def _takes_in_company(self, case: Case, path: Path) -> bool:
        """Ask again with two more nodes: an EP may find a graph of one node not worth its while, and say nothing."""
        path.write_bytes(in_company(build(case)).SerializeToString())
        try:
            opened = self.worker.open(path, self.options, log=True, session_config=_QUIET)
        except (WorkerCrashed, WorkerTimeout):
            self.process_is_new = True
            return False
        except SessionFailed:
            return False
        return placed(opened, self.ep, case).result is Result.TAKEN

    def _warm_up(self, path: Path) -> None:
        """Build a session that every EP takes and keep it: the EP's libraries stay loaded between cases."""
        self.process_is_new = False
        path.write_bytes(build(case_by_id("Relu/float32")).SerializeToString())
        with contextlib.suppress(SessionFailed):
            self.worker.open(path, self.options, session_config=_QUIET)
            self.worker.hold()

    def _unless_invalid(self, case: Case, path: Path, outcome: Outcome) -> Outcome:
        if self.ep != CPU:
            try:
                self.reference.open(path, {})
            except SessionFailed as error:
                # A kernel that is missing or refuses is the CPU EP's, and it was asked since the EP had left the node.
                if error.code == INVALID:
                    return Outcome(Result.INVALID, tidy(str(error), case))
            except PlannerError:
                pass  # it crashed: nothing is known of the graph
        return outcome

    def _distance(self, path: Path, inputs: Mapping[str, Any], ran: Mapping[str, Any]) -> float | None:
        try:
            # Without its own treatment of Q/DQ, which fuses integer kernels that differ from the plain definition.
            self.reference.open(path, {}, session_config={**_QUIET, "session.disable_quant_qdq": "1"})
            expected = self.reference.run(inputs).outputs
        except PlannerError:
            return None
        return min((_sqnr_db(expected[name], ran[name]) for name in expected if name in ran), default=None)


def in_company(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with two nodes beside it that every EP takes; they share nothing with it."""
    graph = model.graph
    for op, source, result in (("Relu", _COMPANY, f"{_COMPANY}_a"), ("Neg", f"{_COMPANY}_a", f"{_COMPANY}_b")):
        graph.node.append(onnx.helper.make_node(op, [source], [result], name=result))
    graph.input.append(onnx.helper.make_tensor_value_info(_COMPANY, onnx.TensorProto.FLOAT, [1]))
    graph.output.append(onnx.helper.make_tensor_value_info(f"{_COMPANY}_b", onnx.TensorProto.FLOAT, [1]))
    return model


def placed(opened: Opened, ep: str, case: Case, *, node_by_node: bool = False) -> Outcome:
    """Who runs the operator of the case, by the assignment after partitioning.

    Args:
        opened: the session of the case.
        ep: full provider name.
        case: the question.
        node_by_node: the Q/DQ around it count too; see `Launcher`.
    """
    own = [
        a
        for a in opened.assignment
        if (a.op_type not in ("QuantizeLinear", "DequantizeLinear") or case.form.op == a.op_type)
        and not a.name.startswith(_COMPANY)
    ]
    if not own:
        return Outcome(Result.FOLDED)
    if all(a.ep == ep for a in own):
        around = [a.op_type for a in opened.assignment if a.ep != ep] if node_by_node else []
        return Outcome(Result.CPU, f"{around[0]} around it is left to another EP") if around else Outcome(Result.TAKEN)
    said = [r for r in opened.refusals if r.name == NODE] or list(opened.refusals)
    return Outcome(Result.CPU, tidy(said[-1].reason, case) if said else None)


def tidy(message: str, case: Case) -> str:
    """An EP's message without what is of this case only: names, paths, time stamps."""
    # A dying process says what it says: time stamps, addresses, half a line.
    text = re.sub(r"case\.onnx", "the model", message.partition("; it last said")[0])
    text = re.sub(r"\b[xcy]\d(_raw|_q|_dq|_scale|_zero|_Q|_DQ)*(_token_\d+)?\b", "…", text)
    text = re.sub(rf"\b{case.form.op}\b", "OP", text)
    text = re.sub(rf"\b{NODE}(_\w+)?\b", "…", text)
    text = re.sub(r"0x[0-9a-f]+|\b\d{6,}\b", "…", text)
    return re.sub(r"\s+", " ", text).strip()[:300]


def _sqnr_db(reference: Any, output: Any) -> float:
    """10 log10(sum ref^2 / sum (ref - out)^2), within -200..200."""
    a, b = np.asarray(reference, np.float64), np.asarray(output, np.float64)
    if a.shape != b.shape:
        return -200.0
    same = np.isnan(a) & np.isnan(b) | (a == b)
    with np.errstate(all="ignore"):
        noise = float(np.sum(np.where(same, 0.0, a - b) ** 2))
        signal = float(np.sum(np.where(np.isfinite(a), a, 0.0) ** 2))
    if noise == 0:
        return 200.0
    if not np.isfinite(noise) or signal == 0:
        return -200.0
    return float(np.clip(10 * np.log10(signal / noise), -200, 200))


def select(cases: Iterable[Case], operators: Sequence[str]) -> list[Case]:
    """The cases of some operators (by name, with or without domain); all if none is named."""
    wanted = {o.lower() for o in operators}
    return [c for c in cases if not wanted or c.form.name.lower() in wanted or c.form.op.lower() in wanted]
