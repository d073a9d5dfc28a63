"""Wine, and the X server that draws nowhere, which it wants before it opens a Vulkan driver. Standard library only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .environment import vulkan_driver

# Before a command: it ends when the process that started it ends, however that ends.
TIED = ("setpriv", "--pdeathsig", "KILL")


class NoDisplay(Exception):
    """The X server does not start."""


class Display:
    """A running X server.

    Attributes:
        name: for the variable DISPLAY.
    """

    def __init__(self) -> None:
        """Start it on the first number that is free.

        Raises:
            NoDisplay: it does not start. OSError: it is not installed.
        """
        reader, writer = os.pipe()
        command = [*TIED, "Xvfb", "-displayfd", str(writer), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
        with os.fdopen(reader, "rb") as stream:
            try:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=(writer,),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            finally:
                os.close(writer)
            number = stream.readline().decode().strip()
        self.name = f":{number}"
        if not number:
            self.close()
            raise NoDisplay("Xvfb does not start")

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; safe to call again."""
        self._process.terminate()
        self._process.wait()


def variables(prefix: Path, display: str, libraries: Path) -> dict[str, str]:
    """The process environment in which Wine finds its folder, libraries beside its own, the display and the software Vulkan driver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WINE", "VK_"))}
    driver = str(vulkan_driver() or "")
    return {
        **kept,
        "WINEPREFIX": str(prefix),
        "WINEDLLPATH": str(libraries),
        "WINEDEBUG": "-all",
        # Not started: .NET, a browser, the debugger on a crash, and what writes entries into the user's menus.
        "WINEDLLOVERRIDES": "mscoree,mshtml,winedbg.exe,winemenubuilder.exe=",
        "DISPLAY": display,
        "VK_ICD_FILENAMES": driver,
        "VK_DRIVER_FILES": driver,
    }
