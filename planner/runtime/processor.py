"""What of this machine's processor bears on quantized kernels."""

from __future__ import annotations

import platform
from pathlib import Path

# What a profile may ask of a processor beside a device's own traits: "no-vnni", an x86 one on which sums of products of
# uint8 and int8 saturate.
PROCESSOR_TRAITS = ("no-vnni",)


def traits(vnni: bool | None) -> tuple[str, ...]:
    """What rules of a profile may ask of the processor: "no-vnni" where sums of uint8 times int8 can saturate.

    Args:
        vnni: as `has_vnni` found it.
    """
    return PROCESSOR_TRAITS if vnni is False else ()


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether an x86 processor adds products of 8-bit numbers without saturating (VNNI); None where that is unknown, or the
    processor is no x86.

    Without VNNI, AVX2 and AVX-512 add two products of an unsigned and a signed 8-bit number in 16 bits, which can
    saturate (onnxruntime, docs: "Quantize ONNX models", on U8S8 and reduce_range); unsigned weights do not.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else any(flag in ("avx512_vnni", "avx_vnni") for flag in flags)
