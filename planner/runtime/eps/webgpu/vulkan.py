"""The GPUs that Vulkan offers, real and software, and which of them WebGPU would use.

Run as a script (`python vulkan.py`) it prints those of the driver in force as JSON: asking loads drivers, which may crash, so that
it is done in a process of its own. The standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_uint32, c_void_p
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_TIMEOUT = 30.0
_LIBRARY = "libvulkan.so.1"
# SwiftShader, as browsers carry it.
_SWIFTSHADER = tuple(
    f"{folder}/vk_swiftshader_icd.json"
    for folder in ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome")
)
# Variables by which the user names drivers; where one is set, no other is looked for.
_CHOSEN = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")

# Constants and offsets of vulkan_core.h.
_APPLICATION_INFO, _INSTANCE_CREATE_INFO = 0, 1
_FEATURES_2, _PROPERTIES_2 = 1000059000, 1000059001
_SHADER_FLOAT16_INT8, _STORAGE_16_BIT, _DRIVER_PROPERTIES = 1000082000, 1000083000, 1000196000
_VERSION_1_2 = 1 << 22 | 2 << 12
_PROCESSOR = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
_PROPERTIES_SIZE = 2048  # VkPhysicalDeviceProperties2 is 840 bytes
_FEATURES = 55
# Of VkPhysicalDeviceFeatures what Dawn asks for, at least: shaderUniformBuffer- and shaderSampledImageArrayDynamicIndexing.
_NEEDED = (33, 34)


@dataclass(frozen=True)
class Gpu:
    """A GPU, by its driver.

    Attributes:
        name: the driver's.
        version: the driver's.
        software: whether the processor computes it.
        float16: whether shaders may compute and store float16 (WebGPU's shader-f16).
        usable: whether it can do what WebGPU asks for.
        loader: the library that Vulkan was loaded from.
        manifest: the file that names its driver; empty where the loader finds it by itself.
    """

    name: str
    version: str
    software: bool
    float16: bool
    usable: bool
    loader: str
    manifest: str = ""


def find(python: Path) -> Gpu | None:
    """The GPU that WebGPU will use: a real one before one in software; None where there is none.

    Args:
        python: the interpreter that asks.
    """
    chosen = tuple(os.environ.get(name, "") for name in _CHOSEN)
    return _find(python, chosen)


@functools.cache
def _find(python: Path, chosen: tuple[str, ...]) -> Gpu | None:
    manifests = ("",) if any(chosen) else ("", *(m for m in _SWIFTSHADER if Path(m).is_file()))
    for manifest in manifests:
        usable = [gpu for gpu in _asked(python, manifest) if gpu.usable]
        if usable:
            return min(usable, key=lambda gpu: gpu.software)
    return None


def _asked(python: Path, manifest: str) -> list[Gpu]:
    """What the drivers say in a process of their own; nothing where that fails."""
    environment = {**os.environ, **({"VK_ICD_FILENAMES": manifest} if manifest else {})}
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, TypeError):
        said = subprocess.run(
            [str(python), "-I", "-S", __file__, manifest],
            capture_output=True,
            timeout=_TIMEOUT,
            check=True,
            stdin=subprocess.DEVNULL,
            env=environment,
        ).stdout
        return [Gpu(**gpu) for gpu in json.loads(said)]
    return []


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("version", c_uint32),
        ("engine", c_char_p),
        ("engine_version", c_uint32),
        ("api", c_uint32),
    )


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("next", c_void_p),
        ("flags", c_uint32),
        ("application", POINTER(_ApplicationInfo)),
        ("layer_count", c_uint32),
        ("layers", c_void_p),
        ("extension_count", c_uint32),
        ("extensions", c_void_p),
    )


class _DriverProperties(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("next", c_void_p),
        ("id", c_int),
        ("name", ctypes.c_char * 256),
        ("info", ctypes.c_char * 256),
        ("conformance", c_uint32),
    )


class _Float16Features(ctypes.Structure):
    _fields_ = (("type", c_int), ("next", c_void_p), ("float16", c_uint32), ("int8", c_uint32))


class _Storage16Features(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("next", c_void_p),
        ("buffer", c_uint32),
        ("uniform", c_uint32),
        ("push", c_uint32),
        ("io", c_uint32),
    )


class _Features2(ctypes.Structure):
    _fields_ = (("type", c_int), ("next", c_void_p), ("features", c_uint32 * _FEATURES))


class _Properties2(ctypes.Structure):
    _fields_ = (("type", c_int), ("next", c_void_p), ("properties", ctypes.c_char * _PROPERTIES_SIZE))


def gpus(manifest: str) -> list[Gpu]:
    """The GPUs of the drivers in force.

    Args:
        manifest: the file that names the driver, if it is not the loader's own choice; a loader may lie beside it.

    Raises:
        OSError: there is no Vulkan.
    """
    vulkan, loader = _loaded(manifest)
    application = _ApplicationInfo(_APPLICATION_INFO, None, b"planner", 0, None, 0, _VERSION_1_2)
    create = _InstanceCreateInfo(_INSTANCE_CREATE_INFO, None, 0, ctypes.pointer(application), 0, None, 0, None)
    instance = c_void_p()
    if vulkan.vkCreateInstance(byref(create), None, byref(instance)):
        raise OSError("Vulkan does not start")
    count = c_uint32()
    vulkan.vkEnumeratePhysicalDevices(instance, byref(count), None)
    devices = (c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, byref(count), devices)
    return [_gpu(vulkan, c_void_p(device), loader, manifest) for device in devices if device]


def _loaded(manifest: str) -> tuple[Any, str]:
    """The Vulkan loader: the system's, else one beside the driver."""
    try:
        return ctypes.CDLL(_LIBRARY), _LIBRARY
    except OSError:
        beside = str(Path(manifest).with_name(_LIBRARY))
        return ctypes.CDLL(beside), beside


def _gpu(vulkan: Any, device: c_void_p, loader: str, manifest: str) -> Gpu:
    driver = _DriverProperties(_DRIVER_PROPERTIES)
    properties = _Properties2(_PROPERTIES_2, ctypes.cast(ctypes.pointer(driver), c_void_p))
    vulkan.vkGetPhysicalDeviceProperties2(device, byref(properties))
    # VkPhysicalDeviceProperties: apiVersion, driverVersion, vendorID, deviceID, deviceType, deviceName.
    _api, driver_version, _vendor, _device, kind = (c_uint32 * 5).from_buffer(
        properties, _Properties2.properties.offset
    )
    storage = _Storage16Features(_STORAGE_16_BIT)
    half = _Float16Features(_SHADER_FLOAT16_INT8, ctypes.cast(ctypes.pointer(storage), c_void_p))
    features = _Features2(_FEATURES_2, ctypes.cast(ctypes.pointer(half), c_void_p))
    vulkan.vkGetPhysicalDeviceFeatures2(device, byref(features))
    return Gpu(
        driver.name.decode(errors="replace"),
        driver.info.decode(errors="replace") or _version(driver_version),
        software=kind == _PROCESSOR,
        float16=bool(half.float16 and storage.buffer),
        usable=all(features.features[i] for i in _NEEDED),
        loader=loader,
        manifest=manifest,
    )


def _version(number: int) -> str:
    return f"{number >> 22}.{number >> 12 & 0x3FF}.{number & 0xFFF}"


if __name__ == "__main__":
    print(json.dumps([asdict(gpu) for gpu in gpus(sys.argv[1])]))
