"""What of this machine's processor bears on quantized kernels.

The instruction CPUID is asked, not the operating system: under an emulator (`make test-old-cpu`) it tells of the
processor that the kernels see.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import platform
import sys

from planner.errors import RequestError

# What a profile may ask of a processor beside a device's own traits: "no-vnni", an x86 one on which sums of products of
# uint8 and int8 saturate.
PROCESSOR_TRAITS = ("no-vnni",)
# Names the traits, separated by commas, in place of those of this processor: to plan for another machine, and for tests.
VARIABLE = "PLANNER_PROCESSOR"

# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t found[4]), by the calling convention of Unix on x86-64.
_CPUID = bytes.fromhex(
    "53"  # push rbx
    "4989d0"  # mov r8, rdx
    "89f8"  # mov eax, edi
    "89f1"  # mov ecx, esi
    "0fa2"  # cpuid
    "418900"  # mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5bc3"  # pop rbx; ret
)


def traits() -> tuple[str, ...]:
    """What rules of a profile may ask of the processor: "no-vnni" where sums of uint8 times int8 can saturate.

    Without VNNI, AVX2 and AVX-512 add two products of an unsigned and a signed 8-bit number in 16 bits, which can
    saturate (onnxruntime, docs: "Quantize ONNX models", on U8S8 and reduce_range); unsigned weights do not.

    Returns:
        Those of this machine, or those that the environment variable PLANNER_PROCESSOR names; none where unknown.

    Raises:
        RequestError: the variable names a trait that there is not.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return PROCESSOR_TRAITS if has_vnni() is False else ()
    found = tuple(filter(None, (name.strip() for name in named.split(","))))
    for name in found:
        if name not in PROCESSOR_TRAITS:
            raise RequestError(
                f"{VARIABLE}: unknown trait {name!r}",
                f"known: {', '.join(PROCESSOR_TRAITS)}; empty for a processor that has none of them",
            )
    return found


@functools.cache
def has_vnni() -> bool | None:
    """Whether an x86 processor adds products of 8-bit numbers without saturating (AVX512_VNNI or AVX_VNNI).

    Returns:
        None where the processor is no x86-64 or cannot be asked.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name == "nt" or sys.maxsize < 2**32:
        return None
    try:
        with mmap.mmap(-1, len(_CPUID), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
            code.write(_CPUID)
            return _tells_of_vnni(code)
    except OSError:  # a system that lets no page be both written and run
        return None


def _tells_of_vnni(code: mmap.mmap) -> bool:
    first = ctypes.c_char.from_buffer(code)
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(first))

    def cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        found = (ctypes.c_uint32 * 4)()
        call(leaf, subleaf, ctypes.addressof(found))
        return found[0], found[1], found[2], found[3]

    try:
        if cpuid(0, 0)[0] < 7:
            return False
        subleaves, _, features, _ = cpuid(7, 0)
        avx512_vnni = bool(features >> 11 & 1)
        avx_vnni = subleaves >= 1 and bool(cpuid(7, 1)[0] >> 4 & 1)
        return avx512_vnni or avx_vnni
    finally:
        # A buffer that is still lent out keeps the page from being given back.
        del first
