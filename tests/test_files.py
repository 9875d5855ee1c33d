"""Files are whole or absent, locks are waited for, a full disk is named."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from brainlit.files import (
    BusyError,
    FullDiskError,
    atomic_path,
    folder_to_fill,
    full_disk_explained,
    is_temporary,
    only_writer,
    require_space,
    reserve,
    sha256_of,
    sweep,
    temporary_beside,
    waiting_lock,
    write_json,
    write_json_by_row,
)
from brainlit.guard import read_json


def test_new_content_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "table.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".csv"
        assert is_temporary(temporary)
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_keeps_the_old_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass


HOLDING = """
import sys, time
from pathlib import Path
from brainlit.files import folder_to_fill, only_writer
with {{"only": only_writer, "fill": folder_to_fill}}[sys.argv[1]](Path(sys.argv[2])):
    print("held", flush=True)
    (Path(sys.argv[2]) / "half").write_text("x") if sys.argv[1] == "fill" else None
    print("written", flush=True)
    time.sleep(60)
"""


def _holder(kind: str, path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing."""
    command = [sys.executable, "-c", HOLDING.replace("{{", "{").replace("}}", "}"), kind, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["held", "written"]
    return process


def test_one_process_writes_and_a_killed_one_leaves_nothing_that_counts(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "export"
    for guard, kind in ((only_writer, "only"), (folder_to_fill, "fill")):
        process = _holder(kind, target)
        try:
            with pytest.raises(BusyError, match=r"another process is writing .*export"), guard(target):
                pass
        finally:
            process.kill()
            process.wait()
        temporary_beside(target).mkdir()
        with guard(target):
            assert not list(target.glob("half"))
            if kind == "fill":
                (target / "whole").write_text("x")
    assert sorted(path.name for path in target.iterdir()) == ["whole"]
    assert {path.name for path in target.parent.iterdir() if not is_temporary(path)} == {"export"}


def test_a_folder_that_holds_something_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="holds something"), folder_to_fill(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "x"

    def failing() -> None:
        with folder_to_fill(tmp_path / "new"):
            (tmp_path / "new" / "half").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert not (tmp_path / "new").exists()


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (".lock", ".hidden.tmp", "a.0123456789ab.tmp")]
    left = [
        tmp_path / ".a.0123456789ab.tmp.json",
        tmp_path / "deep" / ".b.0123456789ab.tmp",
        temporary_beside(kept[0], "old"),
    ]
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    temporary_beside(tmp_path / "deep" / "c").mkdir()
    sweep(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert not list((tmp_path / "deep").iterdir())


def test_names_of_the_user_are_not_temporary(tmp_path: Path) -> None:
    assert not any(is_temporary(tmp_path / name) for name in ("a.tmp", "store.json", ".build.lock", "tmp.h5"))


def test_json_and_hash_are_those_of_the_tools(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"größe": [1, 2.5, None]})
    assert "größe" in file.read_text(encoding="utf-8")
    expected = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert sha256_of(file) == expected


def test_json_by_row_says_the_same_a_line_for_each_row(tmp_path: Path) -> None:
    content = {"größe": {"a": [1]}, "rows": [{"r": 0.5}, {"r": None}], "none": [], "pair": (1, 2)}
    usual, by_row = write_json(tmp_path / "a.json", content), write_json_by_row(tmp_path / "b.json", content)
    assert read_json(by_row, "rows", "") == read_json(usual, "rows", "")
    assert '{"r": 0.5},\n{"r": null}\n]' in by_row.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_by_row(by_row, {"rows": [float("nan")]}, allow_nan=False)
    assert read_json(by_row, "rows", "") == read_json(usual, "rows", "")


def test_waiting_for_another_process_is_said_and_ends_when_it_dies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
            " print('held', flush=True); time.sleep(1); import os; os.kill(os.getpid(), 9)",
            str(lock),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with caplog.at_level(logging.WARNING), waiting_lock(lock, "another process is building"):
        assert holder.wait() == -9
    assert "waiting: another process is building" in caplog.text


def test_too_little_space_names_need_and_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 0, 5_000_000))
    require_space(tmp_path / "small.h5", 3_000_000)
    with pytest.raises(FullDiskError, match=r"big\.h5.*about 4\.5 MB, 5\.0 MB are free") as caught:
        require_space(tmp_path / "big.h5", 4_500_000)
    assert caught.value.errno == errno.ENOSPC


def test_space_is_reserved_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"content")
    reserve(file, 3_000_000)
    assert file.read_bytes()[:7] == b"content"
    assert file.stat().st_blocks * 512 >= 3_000_000


def test_a_full_disk_met_while_reserving_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    (tmp_path / "a").touch()
    with pytest.raises(FullDiskError), full_disk_explained(tmp_path / "a", 100):
        reserve(tmp_path / "a", 100)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_systems_that_cannot_reserve_are_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(descriptor: int, start: int, length: int) -> None:
        raise OSError(code, "unsupported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    (tmp_path / "a").touch()
    reserve(tmp_path / "a", 100)
    assert (tmp_path / "a").stat().st_size == 0


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "no"), RuntimeError("Can't close dataset (file write failed: errno = 28, error ...")],
)
def test_hdf5s_forms_of_a_full_disk_are_recognised(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(FullDiskError), full_disk_explained(tmp_path / "a", 1):
        raise error


def test_a_full_disk_behind_another_error_is_recognised(tmp_path: Path) -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "no")
        finally:
            raise RuntimeError("cannot close")

    with pytest.raises(FullDiskError), full_disk_explained(tmp_path / "a", 1):
        fail()


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_explained(tmp_path / "a", 1):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_a_file_may_be_read_as_the_umask_says_whatever_its_writer_does(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "private.bin") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        write_json(tmp_path / "usual.json", {})
        with atomic_path(tmp_path / "chosen.bin") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            temporary.chmod(0o640)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"private.bin": 0o666 & ~umask, "usual.json": 0o666 & ~umask, "chosen.bin": 0o640}


def test_what_a_killed_writer_of_several_files_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    left = [temporary_beside(tmp_path / name) for name in ("claims.json", "report.html", "figures/r.png")]
    others = temporary_beside(tmp_path / "of_another.html")
    for path in (*left, others):
        path.write_text("half")
    with only_writer(tmp_path / "claims.json", "report.html", "figures"):
        assert [path.exists() for path in (*left, others)] == [False, False, False, True]
