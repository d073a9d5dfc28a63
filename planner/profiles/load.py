"""Loading profiles: the ones shipped with planner, and the user's own, which add to or override them."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from planner.codec import Where
from planner.document import Document, parse, read_yaml_text
from planner.dtypes import parse_precision
from planner.errors import RequestError
from planner.files import exists
from planner.profiles.conditions import in_file, names_of, with_attributes
from planner.profiles.kernels import INSTALLED, KernelTable, installed_kernels, read_kernel_table, stored
from planner.profiles.rules import index, index_rules
from planner.profiles.schema import ByOperator, Operator, Profile, ProfileFile, Refuses, RulesFile, Takes
from planner.profiles.shipped import PROFILE, folder_of, folders
from planner.runtime.processor import PROCESSOR_TRAITS

_VERSION = re.compile(r"[0-9][0-9a-z.+!_-]*")


@dataclass(frozen=True)
class Profiles:
    """All profiles that are known in a run. A shipped one is read when it is asked for.

    Attributes:
        own: the user's, which stand before the shipped ones and replace those for the same EP.
    """

    own: tuple[Profile, ...] = ()

    @functools.cached_property
    def by_ep(self) -> Mapping[str, Profile]:
        """By full provider name: the shipped ones in the order of their folders, then the user's."""
        found: dict[str, Profile] = {}
        for profile in (*map(_shipped, folders()), *self.own):
            found.pop(profile.ep, None)
            found[profile.ep] = profile
        return found

    def find(self, name: str) -> Profile:
        """The profile for an alias or a full provider name, or for a version of an EP: "qnn@2.5".

        Raises:
            RequestError: if no profile has the name (the message lists those that exist), or the version is none.
        """
        wanted, at, version = name.lower().partition("@")
        replaced = {profile.ep for profile in self.own}
        # A folder mostly has the name of its EP's alias: the others need not be read then.
        shipped = sorted(folders(), key=lambda ep: wanted not in (folders()[ep].name, ep.lower()))
        ours = (_shipped(ep) for ep in shipped if ep not in replaced)
        for profile in itertools.chain(reversed(self.own), ours):
            if wanted == profile.ep.lower() or wanted in (a.lower() for a in profile.file.aliases):
                return _at_version(profile, version) if at else profile
        known = ", ".join(min([p.ep, *p.file.aliases], key=len) for p in self.by_ep.values())
        raise RequestError(f"unknown EP {name!r}", f"known: {known}; add one with --profile FILE (see `planner eps`)")


def load_profiles(extra: Sequence[Path] = ()) -> Profiles:
    """The shipped profiles and the user's, of which the last for an EP counts.

    Raises:
        RequestError: a file is missing, hostile or malformed; the message names file, line, key and allowed values.
    """
    own = {profile.ep: profile for profile in map(load_profile, extra)}
    return Profiles(tuple(own.values()))


@functools.cache
def _shipped(ep: str) -> Profile:
    return load_profile(folders()[ep] / PROFILE)


def load_profile(path: Path | str, derived: str | None = None) -> Profile:
    """Read and check a profile, and the files beside it that it names.

    Args:
        path: of the profile.
        derived: generated statements to take in place of those in the file that the profile names.

    Raises:
        RequestError: one of them is missing, hostile or malformed.
    """
    document = parse(Path(path), _text(Path(path)))
    file = document.decode(ProfileFile, with_attributes(document), in_file)
    _check(document, file)
    digest = hashlib.sha256(document.text.encode())
    statements = None
    if file.derived is not None:
        source = _beside(document, file, file.derived) if derived is None else (Path(file.derived), derived)
        generated = parse(*source)
        statements = generated.decode(RulesFile, with_attributes(generated), in_file)
        _check_statements(generated, statements.operators, _traits(file), has_source=True)
        digest.update(generated.text.encode())
    rules = index(file, statements)
    of_device: dict[str, ByOperator] = {}
    for name, device in file.devices.items():
        if device.rules is not None:
            own = parse(*_beside(document, file, device.rules))
            said = own.decode(RulesFile, with_attributes(own), in_file)
            _check_statements(own, said.operators, set(device.traits), has_source=True)
            digest.update(own.text.encode())
            of_device[name] = index_rules(said, f"{name}.")
    tables: dict[str, KernelTable] = {}
    notes: list[str] = []
    indexed = (rules, *of_device.values())
    for name in dict.fromkeys(r.kernels for part in indexed for found in part.values() for r in found if r.kernels):
        if name == INSTALLED:
            table_path = stored(file.ep)
            content, note = installed_kernels(file.ep, _text(table_path) if table_path.exists() else None)
            notes += [note] if note else []
        else:
            table_path, content = _beside(document, file, name)
        tables[name] = read_kernel_table(table_path, content)
        digest.update(content.encode())
    return Profile(
        path=str(path),
        sha256=digest.hexdigest(),
        file=file,
        prefer={
            name: tuple(parse_precision(p) for p in (device.prefer or file.prefer))
            for name, device in file.devices.items()
        },
        tables=tables,
        notes=tuple(notes),
        by_operator=rules,
        of_device=of_device,
    )


def _at_version(profile: Profile, version: str) -> Profile:
    """The profile, speaking of one version of its EP: its rules are the same, an installed build has kernels of its own.

    Raises:
        RequestError: no version.
    """
    if not _VERSION.fullmatch(version):
        raise RequestError(f"{version!r} is no version of {profile.ep}", "write it as EP@2.5")
    ep = f"{profile.ep}@{version}"
    tables, notes = dict(profile.tables), []
    if INSTALLED in tables:
        snapshot = stored(ep)
        content, note = installed_kernels(ep, _text(snapshot) if snapshot.exists() else None)
        tables[INSTALLED] = read_kernel_table(snapshot, content)
        notes += [note] if note else []
    return replace(
        profile,
        sha256=hashlib.sha256(f"{profile.sha256} {version} {notes}".encode()).hexdigest(),
        file=structs.replace(profile.file, ep=ep),
        tables=tables,
        notes=(*profile.notes, *notes),
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile file, for editors."""
    schema = msgspec.json.schema(ProfileFile)
    when = schema["$defs"]["When"]
    value = when["properties"]["attributes"]["additionalProperties"]["items"]
    values = {"anyOf": [*value["anyOf"], {"type": "array", "items": value}]}
    # An attribute stands under its own name.
    when["additionalProperties"] = {
        "anyOf": [
            *values["anyOf"],
            {"type": "object", "properties": {"not": values}, "required": ["not"], "additionalProperties": False},
            {"type": "object", "properties": {"above": {"type": "number"}}, "required": ["above"],
             "additionalProperties": False},
        ]
    }  # fmt: skip
    for name in ("attributes", "attributes_not", "attributes_above"):
        del when["properties"][name]
    for definition in schema["$defs"].values():
        if "description" in definition:
            # From Python 3.13 on docstrings have no indentation: the schema is the same on all.
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def _text(path: Path) -> str:
    try:
        return read_yaml_text(path)
    except RequestError as error:
        raise RequestError(str(error), "give the path of a profile: YAML in UTF-8") from None


def _beside(document: Document, file: ProfileFile, name: str) -> tuple[Path, str]:
    """The path and text of a file that a profile names: beside it, or beside the shipped profile of its EP."""
    if Path(name).name != name or "\0" in name:
        raise RequestError(f"{document.path}: {name!r} must be a file beside the profile")
    own, shipped = document.path.parent / name, folder_of(file.ep) / name
    path = shipped if not exists(own) and exists(shipped) else own
    return path, _text(path)


# -- what the types cannot say ------------------------------------------------------------------------------------------


def _check(document: Document, file: ProfileFile) -> None:
    """References must lead somewhere."""
    if file.default_device not in file.devices:
        hint = f"allowed: {', '.join(file.devices)}"
        raise document.error(("default_device",), f"no device {file.default_device!r}", hint)
    preferred: list[tuple[Where, list[str]]] = [(("prefer",), file.prefer)]
    preferred += [(("devices", name, "prefer"), device.prefer) for name, device in file.devices.items()]
    for where, names in preferred:
        for i, name in enumerate(names):
            with document.at(*where, i):
                parse_precision(name)
    _check_statements(document, file.operators, _traits(file), has_source=file.source is not None)
    _check_defects(document, file)


def _check_defects(document: Document, file: ProfileFile) -> None:
    ids = [defect.id for defect in file.defects]
    for i, defect in enumerate(file.defects):
        at: Where = ("defects", i)
        if defect.id in ids[:i]:
            raise document.error((*at, "id"), f"id {defect.id!r} is used twice")
        for trait in defect.on:
            if trait not in _traits(file):
                raise document.error((*at, "on"), f"no device has trait {trait!r}")
        with document.at(*at, "precision"):
            parse_precision(defect.precision)


def _traits(file: ProfileFile) -> set[str]:
    """What statements may ask of a device."""
    traits = {t for d in file.devices.values() for t in d.traits}
    return traits.union(PROCESSOR_TRAITS) if any(d.kind == "cpu" for d in file.devices.values()) else traits


def _check_statements(
    document: Document, operators: Mapping[str, Operator], traits: set[str], *, has_source: bool
) -> None:
    seen: set[str] = set()
    for key in operators:
        for name in names_of(key):
            if name in seen:
                raise document.error(("operators", key), f"operator {name!r} is stated twice")
            seen.add(name)
    ids: set[str] = set()
    for where, statement in _statements(operators):
        if statement.id is not None:
            if statement.id in ids:
                raise document.error((*where, "id"), f"id {statement.id!r} is used twice")
            ids.add(statement.id)
        for trait in [statement.on] if isinstance(statement.on, str) else statement.on:
            if trait not in traits:
                known = f"traits: {', '.join(sorted(traits))}"
                raise document.error((*where, "on"), f"no device has trait {trait!r}", known)
        if statement.source is None and not has_source:
            raise document.error(where, "has no source", "say `source` here, or once for the whole file")


def _statements(operators: Mapping[str, Operator]) -> Iterator[tuple[Where, Takes | Refuses]]:
    for key, operator in operators.items():
        for kind in ("refuses", "takes"):
            for i, statement in enumerate(getattr(operator, kind)):
                yield ("operators", key, kind, i), statement


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
