"""A worker's answers for DirectML on Linux: sessions are built under Wine, and run where the machine's Direct3D computes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from .. import witness
from .asker import Answer, Asker, Died, NotDone
from .environment import Environment

_ONLY_PLACEMENT = "the Direct3D of this machine computes nothing: DirectML only says which nodes it takes"


class Server:
    """Answers the same requests as the worker's own server; see `planner.runtime.worker.Server`."""

    def __init__(self, environment: Environment) -> None:
        """Start the program.

        Raises:
            Died: it does not start, or no longer gives the known answers that it gave when the environment was made.
        """
        self.runtime = dict(environment.packages)
        self._environment = environment
        self._asker = Asker(environment)
        if environment.computes:
            from .proof import computes

            if not computes(self._asker, environment.folder):
                self._asker.close()
                raise Died(
                    "the Direct3D of this machine computes wrongly now: `planner env create directml` looks again"
                )

    def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The placement of the model's nodes; the session is kept where the machine computes. One that fails after the placement
        was logged is no failure here: what a software Vulkan driver cannot build says nothing of DirectML.
        """
        path = Path(request["model"])
        try:
            model = with_witnesses(onnx.load(path, load_external_data=False))
            answer = self._asked(model, path.parent, optimize=bool(request["optimize"]))
        except (OSError, DecodeError, ValueError) as error:
            return _failed(f"{type(error).__name__}: {error}")
        except Died as error:
            _end(error)
        if answer.placement is None:
            return _failed(answer.error)
        return {
            "status": "ok",
            "seconds": answer.seconds,
            "peak_rss_mb": None,
            "assignment": [(p.ep, p.op_type, p.name) for p in answer.placement if not witness.is_added(p)],
            "log": [],
            "unbuilt": answer.error,
            "lost": self._asker.lost,
        }

    def _asked(self, model: bytes, data: Path, *, optimize: bool) -> Answer:
        """The answer to a model. One without a placement is asked for again: it may be the machine's, short of something then."""
        for last in (False, True):
            if not self._asker.alive:
                self._asker.close()
                self._asker = Asker(self._environment)
            build = self._asker.open if self._environment.computes else self._asker.ask
            try:
                answer = build(model, data, optimize=optimize)
            except Died:
                if last:
                    raise
                continue
            if answer.placement is not None:
                break
        return answer

    def run(self, sample: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Run the session that is open, if this machine computes."""
        if not self._environment.computes:
            return {"status": "run_failed", "message": _ONLY_PLACEMENT}, {}
        try:
            ran, seconds = self._asker.run({**sample, **witness.feed()})
        except (NotDone, KeyError) as error:
            return {"status": "run_failed", "message": str(error), "lost": self._asker.lost}, {}
        except Died as error:
            _end(error)
        outputs = {name: array for name, array in ran.items() if not witness.is_ours(name)}
        return {"status": "ok", "seconds": seconds, "peak_rss_mb": None}, outputs

    def time(self, _sample: Mapping[str, np.ndarray[Any, Any]], _request: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "run_failed", "message": _ONLY_PLACEMENT}

    def compile(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "compile_failed", "message": _ONLY_PLACEMENT}

    def hold(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


def _end(error: Died) -> NoReturn:
    """The worker ends with what it worked with, and the caller learns that a session crashed."""
    print(error, file=sys.stderr, flush=True)
    os._exit(1)


def with_witnesses(model: onnx.ModelProto) -> bytes:
    """The model's bytes with every node named, and with the two nodes of `witness`. Its nodes are named in place."""
    _name(model.graph)
    return bytes(model.SerializeToString()) + witness.nodes()


def _name(graph: onnx.GraphProto) -> None:
    """Name the nodes that have no name as planner names them when it reads a model."""
    for node in graph.node:
        if not node.name:
            node.name = f"{node.op_type}:{next((o for o in node.output if o), 'unnamed')}"
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _name(attribute.g)


def _failed(message: str) -> dict[str, Any]:
    return {"status": "session_failed", "message": message, "log": [], "peak_rss_mb": None}


__all__ = ["Died", "Server", "with_witnesses"]
