"""Reading inputs and writing outputs: plain files only, whole or not at all, and never over something by surprise."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from planner import limits
from planner.errors import RequestError

# Flags that other platforms lack count for nothing there.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_plain(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a plain file for reading; what would block or never end (a pipe, a device) is refused.

    Args:
        path: the file.
        follow: whether it may be a symbolic link.

    Raises:
        RequestError: it is missing, no plain file, or may not be read.
    """
    try:
        descriptor = os.open(path, _FLAGS if follow else _FLAGS | _NO_LINK)
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "is a directory" if stat.S_ISDIR(mode) else "is not a plain file"
        raise RequestError(f"{path}: {kind}", "give the path of a file; save what a pipe holds to a file first")
    return os.fdopen(descriptor, "rb")


def exists(path: Path) -> bool:
    """Whether there is something at the path; not where no file can have such a name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, where they are missing.

    Raises:
        RequestError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be made: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: Path, what: str = "a text file", *, limit: int = 1 << 28) -> str:
    """The text of a plain file in UTF-8.

    Args:
        path: the file.
        what: it should be, for the error: "a plan file".
        limit: most bytes that are believed to be such a file.

    Raises:
        RequestError: it is missing, no plain file, too large, or no text.
    """
    try:
        with open_plain(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise RequestError(f"{path}: not {what}: larger than {limit >> 20} MiB")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not {what}: byte {error.start} is no UTF-8") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True)
class Snapshot:
    """A file as it was when it was first looked at. Reading it later, when it is another one, is an error.

    It is opened anew for each reading, so that nothing is held open between them.

    Attributes:
        path: where it lies. size: bytes. follow: whether the path may be a symbolic link.
    """

    path: Path
    size: int
    follow: bool
    _identity: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path, *, follow: bool = True) -> Snapshot:
        """Look at a file.

        Raises:
            RequestError: as `open_plain`; where links are not followed, also for a file with a second name (a hard link).
        """
        with open_plain(path, follow=follow) as stream:
            status = os.fstat(stream.fileno())
        if not follow and status.st_nlink > 1:
            raise RequestError(f"{path}: has a second name (a hard link)")
        return cls(path, status.st_size, follow, _identity(status))

    def open(self) -> BinaryIO:
        """Open it again.

        Raises:
            RequestError: it is gone, or is no longer the file that it was.
        """
        try:
            stream = open_plain(self.path, follow=self.follow)
        except RequestError as error:
            raise RequestError(f"{error}, and was there when planner began to read it", _SETTLE) from None
        if _identity(os.fstat(stream.fileno())) != self._identity:
            stream.close()
            raise self._changed()
        return stream

    def check(self) -> None:
        """Raise RequestError if it is no longer the file that it was."""
        self.open().close()

    def read(self, offset: int, length: int) -> bytes:
        """Some of its bytes.

        Raises:
            RequestError: as `open`.
        """
        with self.open() as stream:
            return self.read_from(stream, offset, length)

    def read_from(self, stream: BinaryIO, offset: int, length: int) -> bytes:
        """As `read`, of the stream that `open` gave."""
        try:
            stream.seek(offset)
            data = stream.read(length)
        except OSError as error:
            raise RequestError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        if len(data) != length:
            raise self._changed()
        return data

    def _changed(self) -> RequestError:
        return RequestError(f"{self.path} was changed while planner was working on it", _SETTLE)


@contextlib.contextmanager
def unchanged(sources: Sequence[Snapshot]) -> Iterator[None]:
    """What comes of the work in here is worth nothing, error or result, where a file that it reads is another one by then.

    Raises:
        RequestError: a file is gone, or is no longer what it was.
    """
    try:
        yield
    except Exception:
        _check(sources)
        raise
    _check(sources)


def _check(sources: Sequence[Snapshot]) -> None:
    for source in sources:
        source.check()


_SETTLE = "run again when nothing else writes to it"


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_output(path: Path, inputs: tuple[Path, ...] = (), *, overwrite: bool = False) -> None:
    """Refuse an output path early, before any long work.

    Raises:
        RequestError: the path is one of the inputs, exists without ``overwrite``, is a directory or a device, or its
            folder is missing.
    """
    try:
        _check_output(path, inputs, overwrite)
    except OSError as error:
        # A name too long for any file, links that lead in a circle.
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}", "give another --output") from None


def _check_output(path: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    for source in inputs:
        if path.exists() and exists(source) and path.samefile(source):
            raise RequestError(f"{path}: the output would overwrite the input", "give another --output")
    if path.is_dir():
        raise RequestError(f"{path}: is a directory", "give the path of a file")
    # /dev/stdout may lead to a regular file; what would be replaced is the link of that name, everybody's.
    if (path.exists() and not path.is_file()) or path.absolute().parent in _OF_DEVICES:
        raise RequestError(f"{path}: not a regular file", "give the path of a file")
    if os.path.lexists(path) and not overwrite:
        raise RequestError(f"{path}: exists already", "give another --output, or --overwrite")
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent}: no such folder", "create it first")
    if not os.access(path.parent, os.W_OK):
        raise RequestError(f"{path.parent}: no permission to write there")


_OF_DEVICES = (Path("/dev"), Path("/dev/fd"))
# A folder that its owner has just made may not be locked yet.
_SETTLED_SECONDS = 60.0
_LOCK = ".lock"


@contextlib.contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that is gone when this ends; one that a killed run left behind there goes too.

    Args:
        beside: the folder to make it in; None for the system's own place for such things.

    Raises:
        RequestError: it was removed, and something in here failed for that.
    """
    place = Path(tempfile.gettempdir()) if beside is None else beside
    _clear_stale(place)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as name:
        limits.tell_watcher("made", str(Path(name).absolute()))
        try:
            with _locked(Path(name)):
                yield Path(name)
        except Exception:
            if not Path(name).is_dir():
                gone = place if not place.is_dir() else name
                raise RequestError(f"{gone}: was removed while planner was working in it", "run again") from None
            raise
    limits.tell_watcher("removed", str(Path(name).absolute()))


_PREFIX = ".planner-"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock that the operating system takes off when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / _LOCK).open("wb") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _clear_stale(place: Path) -> None:
    """Remove the temporary folders there whose owner is gone: nobody holds their lock."""
    try:
        import fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError):
        for folder in place.glob(f"{_PREFIX}*"):
            lock = folder / _LOCK
            with contextlib.suppress(OSError):
                status = folder.lstat()
                mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
                if not stat.S_ISDIR(status.st_mode) or not mine or time.time() - status.st_mtime < _SETTLED_SECONDS:
                    continue
                with lock.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path in a folder beside ``path``; what was written there takes its place at the end, or nothing does.

    Further files written in the temporary folder (external data) move along, under their own names.

    Args:
        path: of the file.
        overwrite: whether what has these names at the end may be replaced.

    Raises:
        RequestError: the disk is full, nothing may be written there, or another process wrote there meanwhile.
    """
    try:
        with temporary_folder(path.parent) as folder:
            temporary = folder / path.name
            yield temporary
            extra = sorted(p for p in folder.iterdir() if p != temporary and p.name != _LOCK)
            _take_names((*extra, temporary), path.parent, overwrite=overwrite)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from None


def _take_names(finished: Sequence[Path], folder: Path, *, overwrite: bool) -> None:
    """Move finished files into a folder: all of them or, where one would replace what it may not, none."""
    taken: list[Path] = []
    try:
        for temporary in finished:
            path = folder / temporary.name
            if overwrite:
                temporary.replace(path)
                continue
            _take_free_name(temporary, path)
            taken.append(path)
    except BaseException:
        for path in taken:
            path.unlink(missing_ok=True)
        raise


def _take_free_name(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or os.path.lexists(path):
            raise RequestError(
                f"{path}: was written by another process meanwhile", "give another --output, or --overwrite"
            ) from None
        temporary.replace(path)  # the file system has no links


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file whole or not at all; arguments and errors are those of `atomic`."""
    with atomic(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
