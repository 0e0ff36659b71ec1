"""Files are either whole or not there, with the permissions that the user asked for."""

import os
import stat
import threading
from pathlib import Path

import pytest

from spaces import RequestError
from spaces.core.io import read_text, write_atomic


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("content", "written"), [("ünï\n", "ünï\n".encode()), (b"\x00\xff\r\n", b"\x00\xff\r\n"), ("", b"")]
)
@pytest.mark.parametrize("kind", [Path, str])
def test_the_content_is_written_as_it_is(content, written, kind, tmp_path):
    place = tmp_path / "a" / "b" / "file.txt"
    assert write_atomic(kind(place), content) == place
    assert place.read_bytes() == written
    assert everything(tmp_path) == ["a", "a/b", "a/b/file.txt"]


def test_lines_end_as_given(tmp_path):
    assert write_atomic(tmp_path / "f", "a\r\nb\nc").read_bytes() == b"a\r\nb\nc"


def test_an_old_file_is_replaced_whole(tmp_path):
    place = tmp_path / "file"
    place.write_text("a long old text")
    with place.open() as reader:
        write_atomic(place, "new")
        assert reader.read() == "a long old text", "who reads the old file reads it to its end"
    assert place.read_text() == "new"
    assert everything(tmp_path) == ["file"]


def test_a_path_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_atomic("file", "x") == Path("file")
    assert everything(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, " ", ".hidden", "a\nb", "%s{}"])
def test_any_name_that_the_file_system_takes(name, tmp_path):
    assert write_atomic(tmp_path / name, "x").read_text() == "x"
    assert everything(tmp_path) == [name]


@pytest.fixture
def umask():
    """Sets the process's mask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_permissions_are_what_the_umask_leaves(mask, umask, tmp_path):
    umask(mask)
    write_atomic(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    ours, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain"))
    assert ours == plain == 0o666 & ~mask


def test_the_umask_is_never_changed(umask, tmp_path, monkeypatch):
    """It belongs to the process: another thread that writes at that moment would get the wrong one."""

    def refuse(mask):
        raise AssertionError("the umask is shared by all threads")

    monkeypatch.setattr(os, "umask", refuse)
    write_atomic(tmp_path / "file", "x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_many_threads_write_one_file(tmp_path):
    contents = [str(n) * 5000 for n in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "file", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in contents
    assert everything(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    before = everything(tmp_path)
    for place, reason in (
        (tmp_path / "file" / "below", "File exists"),
        (tmp_path / "file" / "far" / "below", "Not a directory"),
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / ("n" * 256), "File name too long"),
    ):
        with pytest.raises(RequestError) as error:
            write_atomic(place, "new")
        assert str(error.value) == f"cannot write {place}: {reason}; choose another path"
        assert isinstance(error.value.__cause__, OSError)
    assert everything(tmp_path) == before
    assert (tmp_path / "file").read_text() == "old"


def test_a_path_with_a_nul(tmp_path):
    for path in (f"{tmp_path}/a\0b", f"{tmp_path}/a\0b/c"):
        with pytest.raises(RequestError, match=r"^cannot write .*null byte; choose another path$"):
            write_atomic(path, "x")
        with pytest.raises(RequestError, match=r"^cannot read the sweep file .*null byte; check the path$"):
            read_text(path, "sweep file")
    assert everything(tmp_path) == []


@pytest.mark.parametrize("fault", [OSError("a bare word"), OSError(28, "No space left on device")])
def test_a_disk_that_is_full(fault, tmp_path, monkeypatch):
    place = write_atomic(tmp_path / "file", "old")

    def fail(_handle):
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RequestError) as error:
        write_atomic(place, "new")
    assert str(error.value) == f"cannot write {place}: {fault.strerror or 'a bare word'}; choose another path"
    assert place.read_text() == "old"
    assert everything(tmp_path) == ["file"]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "new")
    assert everything(tmp_path) == []


def test_the_text_of_a_file(tmp_path):
    place = tmp_path / "file"
    place.write_bytes("ünï\n".encode())
    assert read_text(place, "sweep file") == read_text(str(place), "sweep file") == "ünï\n"


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes("ünï".encode("latin-1"))
    for place, line in (
        (tmp_path / "none", f"cannot read the sweep file {tmp_path}/none: No such file or directory; check the path"),
        (tmp_path, f"cannot read the sweep file {tmp_path}: Is a directory; check the path"),
        (tmp_path / "latin", f"a sweep file must be UTF-8 text, got '{tmp_path}/latin'; is this the right file?"),
    ):
        with pytest.raises(RequestError) as error:
            read_text(place, "sweep file")
        assert str(error.value) == line
