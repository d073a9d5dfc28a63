"""The one place that names execution providers: what each needs, whether it can run here, how its session is made.

The worker loads this file by path in whatever interpreter an EP needs, so it imports nothing but the standard library.
`onnxruntime` comes in as an argument, and only in the worker: asking what is available stays quick.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Kind = Literal["hardware", "simulator"]
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Availability:
    """Whether an EP can run on this machine.

    Attributes:
        kind: "hardware", "simulator" (the EP's own, from its vendor), or None where it can't run.
        packages: installed distributions that the EP comes from, with their versions.
        reason: why it can't run, and what to do; empty where it can.
        python: the interpreter that the EP runs in.
    """

    kind: Kind | None
    packages: Mapping[str, str]
    reason: str
    python: Path


class NoDevice(Exception):
    """The EP loaded, but has nothing to run on. Raised in the worker only."""


@dataclass(frozen=True)
class Launcher:
    """How one EP is found and started. The base class serves EPs built into the installed onnxruntime.

    Attributes:
        ep: full provider name. alias: short name; PLANNER_PYTHON_<ALIAS> and .venv-<alias> are named after it.
        needs: distributions of which the EP needs every one; alternatives are separated by "|".
        reserved: provider options that only the launcher may set, since they name files to load.
        compiles: whether it can write a model compiled ahead of time (an EPContext model) without the device at hand.
    """

    ep: str
    alias: str
    needs: tuple[str, ...] = ("onnxruntime",)
    reserved: frozenset[str] = field(default=frozenset())
    compiles: bool = False

    # -- in the caller ----------------------------------------------------------------------------------------------

    def availability(self) -> Availability:
        """Look the packages up; imports nothing of them."""
        python = interpreter(self.alias)
        installed = _distributions(python)
        found: dict[str, str] = {}
        missing: list[str] = []
        for need in self.needs:
            names = [name for name in need.split("|") if name in installed]
            found.update({name: installed[name] for name in names})
            if not names:
                missing.append(need.replace("|", " or "))
        if missing:
            return Availability(None, found, f"not installed: {', '.join(missing)}{self.where()}", python)
        kind, reason = self.kind(python)
        return Availability(kind, found, reason, python)

    def where(self) -> str:
        """A clause that says where to install what is missing; empty for this environment."""
        return ""

    def kind(self, python: Path) -> tuple[Kind | None, str]:
        """What a run here would be, given that the packages are installed; (None, reason) if there is none."""
        return "hardware", ""

    # -- in the worker ----------------------------------------------------------------------------------------------

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

    def compile(self, ort: Any, model: str, output: str, session_options: Any, options: Mapping[str, str]) -> str:
        """Write the model compiled ahead of time for the device that the options name; returns the device's own name.

        Raises:
            NotImplementedError: the EP has no such form, or none that was tried here; see `compiles`.
        """
        raise NotImplementedError(f"{self.ep} compiles nothing ahead of time")


class Builtin(Launcher):
    """An EP that we know nothing of but that the installed onnxruntime may list."""

    def kind(self, python: Path) -> tuple[Kind | None, str]:
        code = "import onnxruntime; print('\\n'.join(onnxruntime.get_available_providers()))"
        try:
            # Importing onnxruntime may itself fail or chatter: not in the caller's process.
            listed = subprocess.run(
                [str(python), "-c", code],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                stdin=subprocess.DEVNULL,
            ).stdout.split()
        except (OSError, subprocess.SubprocessError):
            return None, "the installed onnxruntime cannot be imported"
        if self.ep in listed:
            return "hardware", ""
        return None, f"the installed onnxruntime does not have {self.ep}: it has {', '.join(listed)}"


class Qnn(Launcher):
    """Qualcomm's EP, a plugin: its wheel for x86-64 carries the HTP simulator, that for ARM64 drives the NPU."""

    def kind(self, python: Path) -> tuple[Kind | None, str]:
        system, machine = platform.system(), platform.machine().lower()
        if machine in ("x86_64", "amd64") and system in ("Linux", "Windows"):
            return "simulator", ""
        if machine in ("arm64", "aarch64") and (system == "Windows" or hasattr(sys, "getandroidapilevel")):
            return "hardware", ""
        return None, f"neither the NPU nor its simulator runs on {system} {machine}"

    def start(self, ort: Any) -> None:
        import onnxruntime_qnn  # type: ignore[import-not-found, unused-ignore]

        ort.register_execution_provider_library(self.ep, onnxruntime_qnn.get_library_path())
        if not self._devices(ort):
            raise NoDevice(f"{self.ep} is installed but offers no device on this machine")

    def session(self, ort: Any, model: str, session_options: Any, options: Mapping[str, str]) -> Any:
        self._add(ort, session_options, options)
        return ort.InferenceSession(model, session_options)

    def compile(self, ort: Any, model: str, output: str, session_options: Any, options: Mapping[str, str]) -> str:
        self._add(ort, session_options, options)
        compiler = ort.ModelCompiler(session_options, model, embed_compiled_data_into_model=True)
        compiler.compile_to_file(output)
        return options.get("soc_model", "")

    def _add(self, ort: Any, session_options: Any, options: Mapping[str, str]) -> None:
        import onnxruntime_qnn  # type: ignore[import-not-found, unused-ignore]

        backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
        session_options.add_provider_for_devices(self._devices(ort), {**options, **backend})

    def _devices(self, ort: Any) -> list[Any]:
        """Its own devices, the NPU alone where there is one (a simulator calls its device a CPU)."""
        devices = [d for d in ort.get_ep_devices() if d.ep_name == self.ep]
        return [d for d in devices if str(d.device.type).endswith("NPU")] or devices


class OpenVino(Launcher):
    """Intel's EP: its wheel is an onnxruntime of its own, so it lives in an environment of its own."""

    def where(self) -> str:
        return f" (in an environment of its own: .venv-{self.alias}, or name its interpreter in {variable(self.alias)})"

    def start(self, ort: Any) -> None:
        import openvino  # type: ignore[import-not-found, unused-ignore] # noqa: F401 - loads the libraries the EP links to

        super().start(ort)


class DirectMl(Launcher):
    """Microsoft's EP for any DirectX 12 GPU: Windows only."""

    def availability(self) -> Availability:
        if platform.system() != "Windows":
            return Availability(None, {}, "DirectML runs on Windows only", interpreter(self.alias))
        return super().availability()


_LAUNCHERS: tuple[Launcher, ...] = (
    Launcher(CPU, "cpu", ("onnxruntime|onnxruntime-gpu|onnxruntime-directml|onnxruntime-openvino",)),
    Qnn("QNNExecutionProvider", "qnn", ("onnxruntime", "onnxruntime-qnn"), frozenset({"backend_path"}), compiles=True),
    OpenVino("OpenVINOExecutionProvider", "openvino", ("onnxruntime-openvino", "openvino")),
    DirectMl("DmlExecutionProvider", "directml", ("onnxruntime-directml",)),
)
# Every distribution that carries the module `onnxruntime` itself (a plugin such as onnxruntime-qnn 2 does not).
_CARRIERS = re.compile(
    r"onnxruntime(-(gpu|directml|openvino|training|training-cpu|azure|silicon|cann|migraphx|rocm|vitisai|foundry))?"
    r"|ort-nightly(-.*)?|onnxruntime-windowsml"
)


def launcher(ep: str) -> Launcher:
    """The launcher of an EP by its full name; for a name unknown here, one that asks the installed onnxruntime."""
    for known in _LAUNCHERS:
        if known.ep == ep:
            return known
    alias = re.sub(r"[^a-z0-9]", "", ep.removesuffix("ExecutionProvider").lower())
    return Builtin(ep, alias, ("onnxruntime|onnxruntime-gpu|onnxruntime-directml|onnxruntime-openvino",))


def variable(alias: str) -> str:
    """The environment variable that names the interpreter of an EP's own environment."""
    return f"PLANNER_PYTHON_{alias.upper()}"


def interpreter(alias: str) -> Path:
    """The interpreter an EP runs in: from the environment variable, a `.venv-<alias>` beside this one, or this one."""
    named = os.environ.get(variable(alias))
    if named:
        return Path(named)
    executable = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    # Beside the running environment and beside our own source; never the working folder, which may be anybody's.
    for folder in (Path(sys.prefix).parent, Path(__file__).resolve().parents[2]):
        candidate = folder / f".venv-{alias}" / executable
        if candidate.is_file():
            return candidate
    return Path(sys.executable)


def conflicts(python: Path | None = None) -> tuple[str, ...]:
    """Installed distributions that each carry the module `onnxruntime`, where they are two or more; else empty.

    They overwrite one another's files: with two installed, neither is whole.
    """
    carriers = [
        f"{name} {version}" for name, version in sorted(_distributions(python).items()) if _CARRIERS.fullmatch(name)
    ]
    return tuple(carriers) if len(carriers) > 1 else ()


def _distributions(python: Path | None = None) -> dict[str, str]:
    """Installed distributions, canonical name -> version, of this or another interpreter's environment."""
    if python is None or python == Path(sys.executable):
        found: Iterator[metadata.Distribution] = iter(metadata.distributions())
    else:
        # Read from the folder: starting another interpreter only to ask would take longer than all the rest. The
        # path is not resolved, since a virtual environment's python is a link to the one it was made from.
        prefix = python.parent.parent
        folders = [*prefix.glob("lib/python3*/site-packages"), prefix / "Lib" / "site-packages"]
        found = iter(metadata.distributions(path=[str(f) for f in folders if f.is_dir()]))
    result: dict[str, str] = {}
    for distribution in found:
        name = distribution.metadata["Name"]
        if name:
            result.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return result
