"""Qualcomm's EP, a plugin: its wheel for x86-64 carries the HTP simulator, that for ARM64 drives the NPU."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .launcher import Kind, Launcher, NoDevice

# Of the options of onnxruntime-qnn 2.7 (onnxruntime, "QNN Execution Provider"), those that take a number or a word. Left
# out are those that name a library (backend_path, backend_type, op_packages, qnn_saver_path, qnn_ir_backend_path) or that
# write files (profiling_level, profiling_file_path, dump_*, *_dir), and those that switch checks off.
_OPTIONS = frozenset(
    {
        "device_id",
        "enable_block_quant_weight_optimization",
        "enable_htp_fp16_clamp_overflow",
        "enable_htp_fp16_precision",
        "enable_htp_graph_splitting",
        "enable_htp_monolithic_lstm",
        "enable_htp_shared_memory_allocator",
        "enable_htp_spill_fill_buffer",
        "enable_vtcm_backup_buffer_sharing",
        "extended_udma",
        "htp_arch",
        "htp_bf16_enable",
        "htp_graph_finalization_optimization_mode",
        "htp_graph_splitting_num_prepare_threads",
        "htp_performance_mode",
        "htp_reused_io_limit_mb",
        "htp_share_resource_optimization",
        "num_graph_prepare_threads",
        "offload_graph_io_quantization",
        "qnn_context_priority",
        "rpc_control_latency",
        "soc_model",
        "vtcm_mb",
    }
)


class Qnn(Launcher):
    """Started as a plugin library; only the HTP backend is used."""

    def kind(self) -> tuple[Kind | None, str]:
        system, machine = platform.system(), platform.machine().lower()
        if machine in ("x86_64", "amd64") and system in ("Linux", "Windows"):
            return "simulator", ""
        if machine in ("arm64", "aarch64") and (system == "Windows" or hasattr(sys, "getandroidapilevel")):
            return "hardware", ""
        return None, f"neither the NPU nor its simulator runs on {system} {machine}"

    def lacks(self, options: Mapping[str, str]) -> str:
        return "planner starts QNN's HTP backend only" if options.get("backend_type") == "gpu" else ""

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

    def schedule(self, ort: Any, model: str, folder: str, session_options: Any, options: Mapping[str, str]) -> Any:
        # The compiler writes *_schematic.bin into the working folder, and the profile of the session where it is told.
        profiling = {"profiling_level": "optrace", "profiling_file_path": str(Path(folder) / "profile.csv")}
        self._add(ort, session_options, {**options, **profiling})
        back = Path.cwd()
        os.chdir(folder)
        try:
            return ort.InferenceSession(model, session_options)
        finally:
            os.chdir(back)

    def _add(self, ort: Any, session_options: Any, options: Mapping[str, str]) -> None:
        import onnxruntime_qnn  # type: ignore[import-not-found, unused-ignore]

        backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
        session_options.add_provider_for_devices(self._devices(ort), {**options, **backend})

    def _devices(self, ort: Any) -> list[Any]:
        """Its own devices, the NPU alone where there is one (a simulator calls its device a CPU)."""
        devices = [d for d in ort.get_ep_devices() if d.ep_name == self.ep]
        return [d for d in devices if str(d.device.type).endswith("NPU")] or devices


LAUNCHER = Qnn(
    "QNNExecutionProvider", "qnn", ("onnxruntime", "onnxruntime-qnn"), _OPTIONS, compiles=True, schedules=True
)
