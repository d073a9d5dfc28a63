"""The EPs that have a profile, and what of each can be run on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner import codec
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.plan import ProfileIdentity
from planner.runtime import environment
from planner.runtime.registry import launcher


@dataclass(frozen=True)
class DeviceHere:
    """A device of a profile.

    Attributes:
        kind: its class: npu, gpu or cpu.
        prefer: the precisions that the profile prefers there.
        here: what runs on it on this machine: "hardware", "software", "simulator", "placement" or "emulation".
    """

    name: str
    title: str
    kind: str = field(metadata=codec.named("class"))
    prefer: tuple[str, ...]
    here: str


@dataclass(frozen=True)
class EPHere:
    """An EP that has a profile.

    Attributes:
        here: as of a device: what runs on the default one.
        reason: why it cannot run, and what to do; empty where it can.
        packages: installed distributions that it comes from, with their versions.
    """

    ep: str
    title: str
    aliases: tuple[str, ...]
    default_device: str
    devices: tuple[DeviceHere, ...]
    here: str
    reason: str
    packages: Mapping[str, str]
    profile: ProfileIdentity


@dataclass(frozen=True)
class EPs:
    """All of them; and installed distributions that overwrite one another."""

    eps: tuple[EPHere, ...]
    conflicts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `planner eps --json`."""
        return {"schema": "planner/eps/1", **codec.to_json(self)}


def list_eps(profiles: Sequence[Path] = ()) -> EPs:
    """Look up what runs here; starts nothing.

    Args:
        profiles: files that add to or override the shipped profiles.

    Raises:
        RequestError: a profile cannot be read.
    """
    return EPs(tuple(map(_here, load_profiles(profiles).by_ep.values())), environment.conflicts())


def _here(profile: Profile) -> EPHere:
    known, file = launcher(profile.ep), profile.file
    available = known.availability(profile.options(file.default_device))
    devices = tuple(
        DeviceHere(
            name,
            device.title,
            device.kind,
            tuple(map(str, profile.prefer[name])),
            known.availability(profile.options(name)).kind or "emulation",
        )
        for name, device in profile.devices.items()
    )
    return EPHere(
        profile.ep,
        file.title,
        tuple(file.aliases),
        file.default_device,
        devices,
        available.kind or "emulation",
        available.reason,
        available.packages,
        ProfileIdentity(profile.name, profile.sha256),
    )
