"""What every EP's launcher can do; by itself it serves an EP that the installed onnxruntime was built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..environment import distributions, interpreter

Kind = Literal["hardware", "software", "simulator", "placement"]
CPU = "CPUExecutionProvider"
# Any of these carries the CPU EP and what else it was built with.
ANY_ONNXRUNTIME = "onnxruntime|onnxruntime-gpu|onnxruntime-directml|onnxruntime-openvino"


# A record of onnxruntime's log: severity, place in its code, message.
Record = tuple[int, str, str]
Logged = Callable[[bytes], Sequence[Record]]


@dataclass(frozen=True)
class Availability:
    """Whether an EP can run on this machine.

    Attributes:
        kind: "hardware", "software" (the EP itself, on a device that a driver computes on the processor), "simulator" (the EP's
            own, from its vendor), "placement" where the EP says which nodes it takes but runs none, or None where it can't
            even be asked.
        packages: installed distributions that the EP comes from, and what drives its device, with their versions.
        reason: why it can't run, and what to do; empty where it can.
        python: the interpreter that the EP runs in.
        float16: whether the device computes in float16. Where not, the EP says which float16 nodes it takes, and runs none.
    """

    kind: Kind | None
    packages: Mapping[str, str]
    reason: str
    python: Path
    float16: bool = True

    @property
    def runs(self) -> bool:
        """Whether models run on the EP here."""
        return self.kind in ("hardware", "software", "simulator")

    def runs_model(self, *, float16: bool) -> bool:
        """Whether a model runs on the EP here.

        Args:
            float16: whether the model computes in float16.
        """
        return self.runs and (self.float16 or not float16)

    @property
    def by(self) -> str:
        """The packages that answer, with their versions."""
        return ", ".join(f"{name} {version}" for name, version in self.packages.items())


class NoDevice(Exception):
    """The EP loaded, but has nothing to run on. Raised in the worker only."""


@dataclass(frozen=True)
class Launcher:
    """How one EP is found and started.

    Attributes:
        ep: full provider name.
        alias: short name; PLANNER_PYTHON_<ALIAS> and .venv-<alias> are named after it.
        needs: distributions of which the EP needs every one; alternatives are separated by "|".
        options: provider options that a profile or a plan may set. Any other is refused: options of an EP can name
            libraries to load and files to write, and what names a file only the launcher sets.
        node_by_node: it takes each node by itself, so that a Q or DQ which it leaves is a node on another EP. Others take the
            nodes between DQ and Q as one unit, and leave Q and DQ at the edges.
        compiles: whether it can write a model compiled ahead of time (an EPContext model) without the device at hand.
        schedules: whether its compiler writes down the schedule that it makes of a model.
        version: of its own package, which then lies in an environment of its own; empty for whatever is installed.
    """

    ep: str
    alias: str
    needs: tuple[str, ...] = (ANY_ONNXRUNTIME,)
    options: frozenset[str] = field(default=frozenset())
    node_by_node: bool = False
    compiles: bool = False
    schedules: bool = False
    version: str = ""

    # -- in the caller ----------------------------------------------------------------------------------------------

    @property
    def python(self) -> Path:
        """The interpreter that the EP runs in."""
        return interpreter(self.environment)

    @property
    def environment(self) -> str:
        """What an environment of its own is called: by its alias, with the version that was asked for (qnn@2.5)."""
        return f"{self.alias}@{self.version}" if self.version else self.alias

    @property
    def packages(self) -> tuple[str, ...]:
        """What pip installs for it; a version that was asked for is that of its own package, not of what lies below it."""
        first = [need.split("|")[0] for need in self.needs]
        own = next((name for name in first if name.endswith(f"-{self.alias}")), first[0])
        return tuple(f"{name}=={self.version}" if self.version and name == own else name for name in first)

    def availability(self, options: Mapping[str, str] | None = None) -> Availability:
        """Look the packages up; imports nothing of them.

        Args:
            options: provider options that select the device; None for whatever device there is.
        """
        python = self.python
        installed = distributions(python)
        found: dict[str, str] = {}
        missing: list[str] = []
        for need in self.needs:
            names = [name for name in need.split("|") if name in installed]
            found.update({name: installed[name] for name in names})
            if not names:
                missing.append(need.replace("|", " or "))
        if missing:
            return Availability(None, found, f"not installed: {', '.join(missing)}{self._where()}", python)
        kind, reason = self.kind()
        lacking = self.lacks(options) if kind is not None and options is not None else ""
        return Availability(None if lacking else kind, found, lacking or reason, python)

    def lacks(self, options: Mapping[str, str]) -> str:  # noqa: ARG002 - of those with several devices
        """Why the device that the options select cannot be reached here; empty where it can, or nothing tells."""
        return ""

    def _where(self) -> str:
        made = f" (planner env create {self.alias}=={self.version})" if self.version else ""
        return made or self.where()

    def where(self) -> str:
        """A clause that says where to install what is missing; empty for this environment."""
        return ""

    def kind(self) -> tuple[Kind | None, str]:
        """What a run here would be, given that the packages are installed; (None, reason) if there is none."""
        return "hardware", ""

    def make_environment(self, folder: Path, say: Callable[[str], None]) -> Mapping[str, str]:
        """Make an environment of the EP's own; the packages in it, with their versions.

        Args:
            folder: where; what was made there before is replaced.
            say: told each step before it is taken.

        Raises:
            EPError: a step failed.
        """
        from planner.runtime.make import virtual_environment

        return virtual_environment(folder, self.packages, say)

    # -- in the worker ----------------------------------------------------------------------------------------------

    def server(self) -> Any:
        """What answers the worker's requests for an EP that Python's onnxruntime does not reach; None for all others.

        It has the methods of the worker's own server, and `runtime`: its packages with their versions.

        Raises:
            Exception: it does not start.
        """
        return None

    def start(self, ort: Any) -> None:
        """Prepare the process, once.

        Raises:
            NoDevice: the EP is not in this onnxruntime, or offers no device.
        """
        if self.ep not in ort.get_available_providers():
            raise NoDevice(f"onnxruntime {ort.__version__} was built without {self.ep}")

    def session(self, ort: Any, model: str, session_options: Any, options: Mapping[str, str]) -> Any:
        """Build the session. The CPU EP stays behind every other, so that what the EP leaves is seen, not lost."""
        providers: list[Any] = [(self.ep, dict(options))]
        if self.ep != CPU:
            providers.append(CPU)
        return ort.InferenceSession(model, session_options, providers=providers)

    def drivers(self) -> Mapping[str, str]:
        """What drives the EP's device, beside its packages: names with versions."""
        return {}

    def assignment(self, session: Any, _model: Path, _logged: Logged) -> list[tuple[str, str, str]]:
        """Who runs what: (EP, operator, node name), as partitioned; empty where the build cannot tell.

        Args:
            session: the open session.
            _model: the file it is of.
            _logged: builds a session of another model in the same way, lets it go, and returns the verbose log of that.
        """
        if not hasattr(session, "get_provider_graph_assignment_info"):
            return []
        return [
            (group.ep_name, node.op_type, node.name)
            for group in session.get_provider_graph_assignment_info()
            for node in group.get_nodes()
        ]

    def compile(self, ort: Any, model: str, output: str, session_options: Any, options: Mapping[str, str]) -> str:
        """Write the model compiled ahead of time for the device that the options name; returns the device's own name.

        Raises:
            NotImplementedError: the EP has no such form, or none that was tried here; see `compiles`.
        """
        raise NotImplementedError(f"{self.ep} compiles nothing ahead of time")

    def schedule(self, ort: Any, model: str, folder: str, session_options: Any, options: Mapping[str, str]) -> Any:
        """Build the session and let the compiler write its schedules into the folder; returns the session.

        Raises:
            NotImplementedError: the EP's compiler writes none, or none that is known here; see `schedules`.
        """
        raise NotImplementedError(f"{self.ep} writes no schedule")
