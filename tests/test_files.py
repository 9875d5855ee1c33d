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
    FullDiskError,
    atomic_path,
    full_disk_explained,
    is_temporary,
    require_space,
    reserve,
    sha256_of,
    waiting_lock,
    write_json,
)


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


def test_names_of_the_user_are_not_temporary(tmp_path: Path) -> None:
    assert not any(is_temporary(tmp_path / name) for name in ("a.tmp", "store.json", ".build.lock", "tmp.h5"))


def test_json_and_hash_are_those_of_the_tools(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"größe": [1, 2.5, None]})
    assert "größe" in file.read_text(encoding="utf-8")
    expected = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert sha256_of(file) == expected


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
