"""Outputs are written whole or not at all, and never over something by surprise."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from planner.errors import EPError, RequestError
from planner.files import Snapshot, atomic, check_output, make_folder, unchanged, write_text


def test_a_new_file_in_an_existing_folder_is_fine(tmp_path: Path) -> None:
    check_output(tmp_path / "out.onnx", (tmp_path / "in.onnx",))


def test_an_existing_file_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.touch()
    with pytest.raises(RequestError, match="exists already") as caught:
        check_output(path)
    assert "--overwrite" in caught.value.hint
    check_output(path, overwrite=True)


@pytest.mark.parametrize("kind", ["same", "relative", "symlink", "hard link"])
def test_the_input_is_never_overwritten(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_text("x")
    if kind == "same":
        output = source
    elif kind == "relative":
        monkeypatch.chdir(tmp_path)
        output = Path("./in.onnx")
    elif kind == "symlink":
        output.symlink_to(source)
    else:
        output.hardlink_to(source)
    with pytest.raises(RequestError, match="would overwrite the input"):
        check_output(output, (source,), overwrite=True)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a directory"):
        check_output(tmp_path)
    with pytest.raises(RequestError, match="no such folder"):
        check_output(tmp_path / "none" / "out.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="no such folder"):
        check_output(tmp_path / "file" / "out.onnx")


def test_a_folder_that_cannot_be_written_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RequestError, match="no permission"):
        check_output(tmp_path / "out.onnx")


def test_a_link_that_leads_nowhere_is_there_already(tmp_path: Path) -> None:
    link = tmp_path / "out.onnx"
    link.symlink_to("nowhere.onnx")
    with pytest.raises(RequestError, match="exists already"):
        check_output(link)
    check_output(link, overwrite=True)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "o"):
        with pytest.raises(RequestError, match="cannot be written: "):
            check_output(path)
    with pytest.raises(RequestError, match="cannot be made"):
        make_folder(tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="the platform has no /dev/stdout")
def test_the_link_of_stdout_is_not_replaced_where_it_leads_to_a_file(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom planner.files import check_output\n"
        "try:\n    check_output(Path('/dev/stdout'), overwrite=True)\nexcept Exception as error:\n    sys.exit(str(error))\n"
    )
    with (tmp_path / "stdout").open("wb") as out:
        done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert "not a regular file" in done.stderr


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null", "/dev/zero"])
def test_a_device_is_no_output_file(name: str) -> None:
    if not Path(name).exists():
        pytest.skip(f"{name} does not exist here")
    with pytest.raises(RequestError, match="not a regular file"):
        check_output(Path(name), overwrite=True)


def test_an_output_appears_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "plan.json", "{}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"] and (tmp_path / "plan.json").read_text() == "{}\n"


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_what_was_there(stop: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_text("before")
    with pytest.raises(stop), atomic(path) as temporary:
        temporary.write_text("half of it")
        raise stop
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"] and path.read_text() == "before"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    with pytest.raises(RequestError, match="No space left"), atomic(path) as temporary:
        temporary.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_external_data_moves_along_and_the_model_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    with atomic(path) as temporary:
        temporary.write_text("model")
        temporary.with_name("out.onnx.data").write_text("weights")
        assert not path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]


def test_an_error_of_the_work_itself_is_not_taken_for_a_failure_to_write(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the model is broken"), atomic(tmp_path / "out.onnx"):
        raise RequestError("the model is broken")


def test_a_file_gets_the_permissions_that_any_new_file_gets(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_text(tmp_path / "out", "x")
    assert (tmp_path / "out").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("early", [True, False])
def test_of_two_writers_the_second_replaces_nothing(early: bool, tmp_path: Path) -> None:
    path, data = tmp_path / "out.onnx", tmp_path / "out.onnx.data"
    if early:  # the other one is done before this one begins to write; both were asked for when there was nothing
        path.write_text("other")
    with pytest.raises(RequestError, match="meanwhile"), atomic(path, overwrite=False) as one:
        one.write_text("one")
        one.with_name(data.name).write_text("weights of one")
        if not early:
            with atomic(path, overwrite=False) as other:
                other.write_text("other")
    assert path.read_text() == "other" and [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_data_beside_the_output_is_replaced_only_where_asked(tmp_path: Path) -> None:
    data = tmp_path / "out.onnx.data"
    data.write_text("somebody's")
    with (
        pytest.raises(RequestError, match=r"out\.onnx\.data.*meanwhile"),
        atomic(tmp_path / "out.onnx", overwrite=False) as one,
    ):
        one.write_text("one")
        one.with_name(data.name).write_text("weights of one")
    assert data.read_text() == "somebody's" and [p.name for p in tmp_path.iterdir()] == [data.name]


@pytest.mark.parametrize("outer", [True, False])
def test_a_folder_that_is_removed_while_it_is_used_is_said(outer: bool, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    with pytest.raises(RequestError, match="was removed while planner was working in it"), atomic(place / "m") as path:
        shutil.rmtree(place if outer else path.parent)
        path.write_text("m")


@pytest.mark.parametrize("fails", [True, False])
def test_work_on_a_file_that_is_another_one_by_then_is_worth_nothing(fails: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with (
        pytest.raises(RequestError, match="was changed while planner was working on it"),
        unchanged([Snapshot.of(path)]),
    ):
        path.write_text("another")
        if fails:
            raise EPError("the EP could not build a session")


def test_work_on_a_file_that_stays_ends_as_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with unchanged([Snapshot.of(path)]):
        pass
    with pytest.raises(EPError, match="session"), unchanged([Snapshot.of(path)]):
        raise EPError("the EP could not build a session")


def test_what_was_there_before_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_text("before")
    with atomic(path) as temporary:
        temporary.write_text("after")
    assert path.read_text() == "after"
