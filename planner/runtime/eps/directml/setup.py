"""Making DirectML's environment on Linux. Everything comes from Debian's (or Ubuntu's) packages and the Python registry.

Microsoft's libraries are taken out of the Windows wheel of onnxruntime-directml, which pip fetches from whatever registry it is
set up for. This project ships none of them.
"""

from __future__ import annotations

import filecmp
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from planner.errors import EPError
from planner.runtime.make import must

from . import environment
from .asker import Asker, Died
from .environment import Environment
from .proof import computes
from .server import with_witnesses
from .wine import Display, NoDisplay, variables

_EP = "DmlExecutionProvider"
_MEMBERS = {
    "onnxruntime/capi/onnxruntime.dll": "onnxruntime.dll",
    "onnxruntime/capi/DirectML.dll": "DirectML.dll",
    "onnxruntime/LICENSE": "LICENSE",
    "onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
}
# Where Debian and Ubuntu keep Wine's Windows libraries, below /usr.
_WINE_LIBRARIES = ("lib/x86_64-linux-gnu/wine/x86_64-windows/*", "lib/wine/x86_64-windows/*")
Say = Callable[[str], None]


def create(folder: Path, *, say: Say = lambda _: None) -> Environment:
    """Make the environment, in place of one that is there.

    As root on Debian or Ubuntu the system packages that are missing are installed; elsewhere they are named.

    Args:
        folder: where.
        say: told each step before it is taken.

    Raises:
        EPError: no Linux on x86-64, a package is missing, or a step failed. The folder is no environment then.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise EPError(
            f"DirectML's environment is for Linux on x86-64, and this is {platform.system()} {platform.machine()}",
            "on Windows install onnxruntime-directml: `planner eps` finds it",
        )
    _install_system_packages(say)
    remove(folder)
    folder = folder.resolve()
    folder.mkdir(parents=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    made = Environment(folder, {environment.PACKAGE: environment.VERSION}, environment.source_digest())
    say(f"fetching {environment.PACKAGE} {environment.VERSION} for Windows")
    _fetch_libraries(made.libraries)
    say("building the program that asks")
    must(
        [environment.COMPILER, "-O2", "-s", "-std=c11", "-o", str(made.program), str(environment.SOURCE), "-ldxguid"],
        "the program cannot be built",
    )
    if _build_bridge(made):
        say("built a bridge to the system's libvkd3d")
    say("preparing Wine's folder")
    _prepare_wine(made)
    say("asking DirectML a first question")
    made = replace(made, computes=_prove(made))
    numbers = (
        "computes: models run on it"
        if made.computes
        else "does not compute: it tells placements, and numbers are emulated"
    )
    say(f"the Direct3D of this machine {numbers}")
    made.write()
    return made


def remove(folder: Path) -> None:
    """Delete an environment. Other folders are left alone.

    Raises:
        EPError: the folder is there and is not empty, and `create` did not make it.
    """
    if not folder.exists():
        return
    names = {entry.name for entry in folder.iterdir()}
    if names - {".gitignore", "libraries", "ask.exe", "bridge", "plannerd3d12.dll", "wine", "directml.json"}:
        raise EPError(f"{folder} holds other things than DirectML's environment", "name another folder")
    shutil.rmtree(folder)


def _install_system_packages(say: Say) -> None:
    lacking = list(environment.SYSTEM_PACKAGES) if environment.missing_programs() else []
    lacking += [] if shutil.which(environment.COMPILER) else environment.BUILD_PACKAGES
    if not lacking:
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise EPError(
            f"DirectML's environment needs the system packages {' '.join(lacking)}",
            f"as root on Debian or Ubuntu: {' '.join(command)}",
        )
    say(f"installing {' '.join(lacking)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    must(["apt-get", "update", "-qq"], "the list of system packages cannot be had", quiet)
    must(command, "the system packages cannot be installed", quiet)


def _fetch_libraries(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        kind = ["--platform", "win_amd64", "--python-version", "3.12", "--only-binary=:all:", "--dest", downloads]
        package = f"{environment.PACKAGE}=={environment.VERSION}"
        must([*command, *kind, package], f"{package} cannot be fetched")
        (wheel,) = Path(downloads).glob("*.whl")
        folder.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for member, name in _MEMBERS.items():
                (folder / name).write_bytes(archive.read(member))


def _build_bridge(made: Environment) -> bool:
    """Build the bridge to libvkd3d, where the system has what that takes; without it Wine's own Direct3D is used."""
    folder = made.bridge / "x86_64-unix"
    folder.mkdir(parents=True)
    built, placeholder = folder / "plannerd3d12.dll.so", made.folder / "plannerd3d12.dll"
    exports, object_file = str(environment.BRIDGE_EXPORTS), str(folder / "bridge.o")
    steps = (
        ["gcc", "-fPIC", "-fshort-wchar", "-O2", "-I/usr/include/vkd3d", "-c", str(environment.BRIDGE), "-o", object_file],
        ["winegcc", "-shared", "-m64", "-fPIC", exports, object_file, "-lvkd3d", "-lkernel32", "-o", str(built)],
        # Wine looks for a library of its own kind only where a file of that name lies.
        ["winebuild", "-m64", "--dll", "--fake-module", "-F", placeholder.name, "-E", exports, "-o", str(placeholder)],
    )  # fmt: skip
    try:
        for step in steps:
            must(step, "the bridge cannot be built")
    except (EPError, OSError):
        placeholder.unlink(missing_ok=True)
        shutil.rmtree(made.bridge)
        return False
    return True


def _prepare_wine(made: Environment) -> None:
    prefix = made.prefix
    try:
        with Display() as display:
            using = variables(prefix, display.name, made.bridge)
            must(["wine", "wineboot", "--init"], "Wine cannot make its folder", using)
            setting = [
                "reg",
                "add",
                r"HKCU\Software\Wine\Direct3D",
                "/v",
                "renderer",
                "/t",
                "REG_SZ",
                "/d",
                "vulkan",
                "/f",
            ]
            must(["wine", *setting], "Wine cannot be told to use Vulkan", using)
            must(["wineserver", "--wait"], "Wine does not end", using)
    except (NoDisplay, OSError) as error:
        raise EPError(f"Wine cannot be prepared: {error}") from None
    _link_to_system(prefix)


def _link_to_system(prefix: Path) -> None:
    """Put links in place of Wine's copies of its own libraries: some 690 MB become 10."""
    own = {file.name: file for folder in _WINE_LIBRARIES for file in Path("/usr").glob(folder)}
    for copy in (prefix / "drive_c" / "windows").rglob("*"):
        original = own.get(copy.name)
        if original is not None and not copy.is_symlink() and filecmp.cmp(copy, original, shallow=False):
            copy.unlink()
            copy.symlink_to(original)


def _prove(made: Environment) -> bool:
    """Ask for the placement of the two nodes whose answers are known, and say whether known numbers come out right, too."""
    graph = onnx.helper.make_graph([], "proof", [], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    try:
        asker = Asker(made)
        try:
            answer = asker.ask(with_witnesses(model), made.folder, optimize=False)
            right = computes(asker, made.folder)
        finally:
            asker.close()
    except Died as error:
        raise EPError(f"DirectML does not start under Wine: {error}") from None
    took = {p.op_type: p.ep for p in answer.placement or ()}
    if took.get("Relu") != _EP or took.get("Neg") == _EP:
        raise EPError(f"DirectML's first answer is wrong: {took or answer.error}")
    return right


def main() -> int:
    """`python -m planner.runtime.eps.directml.setup FOLDER`"""
    from planner.errors import PlannerError

    try:
        create(Path(sys.argv[1]), say=lambda message: print(message, file=sys.stderr))
    except PlannerError as error:
        print(f"{error}\n{error.hint}".strip(), file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
