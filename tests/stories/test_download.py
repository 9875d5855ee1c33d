"""Downloads from a server on this machine: what is asked for, interrupted, damaged, changed, refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from brainlit.stories.base import Remote
from brainlit.stories.download import (
    LOCK_FILE,
    DownloadError,
    DownloadReport,
    download,
    missing_locally,
    plan_text,
    pointer_problem,
    transfer,
)
from brainlit.stories.download.hosts import ATTEMPTS, open_host
from brainlit.stories.download.verify import LEDGER_FILE, parts_etags, usual_part_bytes
from tests.stories.local_server import BUCKET, LocalServer

BIG, WAVS = "responses/UTS03/souls.hf5", tuple(f"stimuli/story {k}.wav" for k in range(5))
BIG_BYTES = 6 << 20
Download = Callable[..., DownloadReport]


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Five small files, one of them empty, and a large one."""
    rng = np.random.default_rng(0)
    objects = {f"ds/{name}": rng.bytes(1000 * k) for k, name in enumerate(WAVS)}
    objects |= {
        f"ds/{BIG}": rng.bytes(BIG_BYTES),
        "ds/stimuli/notes.txt": b"no sound",
        "other/x.wav": b"another data set",
    }
    server = LocalServer(objects)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short patience; no proxy between the tests and this machine."""
    monkeypatch.setattr(transfer, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr("brainlit.stories.download.hosts.ATTEMPTS", 2)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def fetch(server: LocalServer, root: Path) -> Download:
    def run(*paths: str, url: str = f"s3://{BUCKET}/ds", **options: object) -> DownloadReport:
        asked = Remote(url, root, paths or (BIG, "stimuli/*.wav"), "CC0")
        return download(asked, progress=False, endpoint_url=server.url, **options)  # type: ignore[arg-type]

    return run


def content(server: LocalServer, path: str) -> bytes:
    return server.objects[f"ds/{path}"]


def files_in(root: Path) -> set[str]:
    """Everything but the two files that the download keeps for itself."""
    paths = (path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(root)) for path in paths if not path.name.startswith(".brainlit")}


def assert_all_there(server: LocalServer, root: Path, *paths: str) -> None:
    for path in paths:
        assert (root / path).read_bytes() == content(server, path), path
    assert files_in(root) == set(paths), "nothing else, and nothing half"


# What is asked for


def test_only_what_is_asked_for_comes(server: LocalServer, root: Path, fetch: Download) -> None:
    report = fetch()
    assert_all_there(server, root, BIG, *WAVS)
    assert report.checked == {"MD5": 6}
    assert sum(report.fetched.values()) == BIG_BYTES + 10_000
    assert "6 by MD5" in report.text()
    assert "Licence: CC0" in report.text()


def test_wildcards_stay_within_a_folder(server: LocalServer, root: Path, fetch: Download) -> None:
    server.objects |= {"ds/responses/UTS03/deeper/x.hf5": b"deeper", "ds/responses/UTS04/souls.hf5": b"four"}
    fetch("responses/UTS0[34]/s*.hf5", "stimuli/story ?.wav")
    assert_all_there(server, root, BIG, "responses/UTS04/souls.hf5", *WAVS)


def test_a_dry_run_fetches_nothing_and_says_what_would_come(server: LocalServer, root: Path, fetch: Download) -> None:
    report = fetch(dry_run=True)
    assert not server.gets()
    assert not root.exists()
    text = report.text()
    assert "stimuli/*.wav" in text
    assert "licence: CC0" in text
    assert f"{(BIG_BYTES + 10_000) / 1e6:.2f} MB to fetch" in text


def test_many_folders_are_counted_by_ending(server: LocalServer, fetch: Download) -> None:
    server.objects |= {f"ds/sub-{k}/func/x_hemi-L.func.gii": b"12" for k in range(20)}
    text = fetch("sub-*/func/*.func.gii", BIG, dry_run=True).text()
    assert "*.func.gii" in text
    assert len(text.splitlines()) < 10


def test_what_is_whole_is_not_fetched_again_and_the_network_is_left_alone(
    server: LocalServer, root: Path, fetch: Download
) -> None:
    fetch()
    server.stop()
    n_asked, start_s = len(server.log), time.perf_counter()
    report = fetch()
    assert time.perf_counter() - start_s < 0.5
    assert len(server.log) == n_asked
    assert not report.fetched
    assert report.checked == {"an earlier download": 6}
    server.start()  # for the fixture's end


def test_more_files_later_fetch_only_those(server: LocalServer, root: Path, fetch: Download) -> None:
    fetch(WAVS[1])
    report = fetch(WAVS[1], WAVS[2])
    assert list(report.fetched) == [WAVS[2]]
    assert report.checked == {"MD5": 2}
    assert len(server.gets()) == 2


def test_files_that_came_another_way_are_compared_not_fetched(server: LocalServer, root: Path, fetch: Download) -> None:
    (root / BIG).parent.mkdir(parents=True)
    (root / BIG).write_bytes(content(server, BIG))
    report = fetch(BIG)
    assert not server.gets()
    assert report.checked == {"MD5": 1}


@pytest.mark.parametrize("same_size", [True, False])
def test_files_that_differ_stay_until_somebody_says_what_is_meant(
    server: LocalServer, root: Path, fetch: Download, same_size: bool
) -> None:
    fetch(WAVS[1])
    mine = b"\0" * (1000 if same_size else 900)
    (root / WAVS[1]).write_bytes(mine)
    with pytest.raises(DownloadError, match=r"differs from the published file .* --on-difference replace") as caught:
        fetch(WAVS[1], WAVS[2])
    assert list(caught.value.failures) == [WAVS[1]]
    assert (root / WAVS[1]).read_bytes() == mine
    assert (root / WAVS[2]).read_bytes() == content(server, WAVS[2])
    assert WAVS[1] in fetch(WAVS[1], WAVS[2], on_difference="keep").text()
    assert (root / WAVS[1]).read_bytes() == mine
    fetch(WAVS[1], WAVS[2], on_difference="replace")
    assert_all_there(server, root, WAVS[1], WAVS[2])


def test_a_damaged_ledger_costs_time_and_nothing_else(
    server: LocalServer, root: Path, fetch: Download, caplog: pytest.LogCaptureFixture
) -> None:
    fetch()
    (root / LEDGER_FILE).write_text('{"remotes": {"s3')
    n_gets = len(server.gets())
    assert fetch().checked == {"MD5": 6}
    assert len(server.gets()) == n_gets
    assert "cannot be read" in caplog.text


# Interruptions


def test_a_cut_connection_is_continued_where_it_broke(server: LocalServer, root: Path, fetch: Download) -> None:
    server.cut_after[f"ds/{BIG}"] = [2_000_000, 1_500_000]
    fetch(BIG)
    assert_all_there(server, root, BIG)
    starts = [int(r.range.removeprefix("bytes=").rstrip("-") or 0) for r in server.gets()]
    assert starts[0] == 0
    assert 1_000_000 < starts[1] <= 2_000_000
    assert starts[1] < starts[2] <= starts[1] + 1_500_000


def test_a_later_run_continues_what_an_earlier_one_left(server: LocalServer, root: Path, fetch: Download) -> None:
    server.cut_after[f"ds/{BIG}"] = [2_500_000, *([0] * 6)]
    with pytest.raises(DownloadError, match="run the same command again: it goes on"):
        fetch(BIG, WAVS[1])
    assert files_in(root) == {WAVS[1], f"{BIG}.part"}
    n_here, n_gets = (root / f"{BIG}.part").stat().st_size, len(server.gets())
    server.cut_after.clear()
    assert f"1 were begun and will be continued: {BIG}" in fetch(BIG, WAVS[1], dry_run=True).text()
    report = fetch(BIG, WAVS[1])
    assert [r.range for r in server.gets()[n_gets:]] == [f"bytes={n_here}-"]
    assert report.fetched == {BIG: BIG_BYTES - n_here}
    assert_all_there(server, root, BIG, WAVS[1])


def test_what_was_published_anew_meanwhile_is_begun_anew(server: LocalServer, root: Path, fetch: Download) -> None:
    server.cut_after[f"ds/{BIG}"] = [2_500_000, *([0] * 6)]
    with pytest.raises(DownloadError):
        fetch(BIG)
    server.cut_after.clear()
    server.objects[f"ds/{BIG}"] = np.random.default_rng(1).bytes(BIG_BYTES)
    fetch(BIG)
    assert server.gets()[-1].range == ""
    assert_all_there(server, root, BIG)


def test_a_file_that_changes_while_it_is_fetched_is_begun_anew(
    server: LocalServer, root: Path, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cut_after[f"ds/{BIG}"] = [2_000_000]
    anew = np.random.default_rng(1).bytes(BIG_BYTES - 1000)
    monkeypatch.setattr(transfer.Transfer, "_go_on", lambda self, n=0: server.objects.__setitem__(f"ds/{BIG}", anew))
    fetch(BIG)
    assert (root / BIG).read_bytes() == anew


def test_a_whole_file_that_was_published_anew_is_fetched_again(
    server: LocalServer, root: Path, fetch: Download
) -> None:
    fetch(WAVS[1])
    server.objects[f"ds/{WAVS[1]}"] = b"better sound"
    assert "1 were published anew since" in plan_text(fetch(WAVS[1], WAVS[2], dry_run=True).plan)
    fetch(WAVS[1], WAVS[2])
    assert_all_there(server, root, WAVS[1], WAVS[2])


KILLED = """
import sys
from pathlib import Path
from brainlit.stories.base import Remote
from brainlit.stories.download import download
url, endpoint, root, path = sys.argv[1:]
download(Remote(url, Path(root), (path,), "CC0"), progress=False, endpoint_url=endpoint)
"""


def test_a_killed_process_leaves_no_half_file_and_its_bytes_are_used(
    server: LocalServer, root: Path, fetch: Download
) -> None:
    server.pause_s = 0.02
    command = [sys.executable, "-c", KILLED, f"s3://{BUCKET}/ds", server.url, str(root), BIG]
    part = root / f"{BIG}.part"
    with subprocess.Popen(command) as process:
        _wait_for(lambda: part.is_file() and part.stat().st_size >= 2 << 20)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert files_in(root) == {f"{BIG}.part"}
    n_here, server.pause_s = part.stat().st_size, 0.0
    assert 2 << 20 <= n_here < BIG_BYTES
    fetch(BIG)
    assert server.gets()[-1].range == f"bytes={n_here}-"
    assert_all_there(server, root, BIG)


def test_ctrl_c_ends_clean(server: LocalServer, root: Path, fetch: Download) -> None:
    server.pause_s, part = 0.02, root / f"{BIG}.part"

    def press() -> None:
        _wait_for(lambda: part.is_file() and part.stat().st_size >= 2 << 20)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell's background
    try:
        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            fetch(BIG, WAVS[1])
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert files_in(root) == {f"{BIG}.part", WAVS[1]}
    n_here, server.pause_s = part.stat().st_size, 0.0
    assert fetch(BIG, WAVS[1]).fetched == {BIG: BIG_BYTES - n_here}
    assert_all_there(server, root, BIG, WAVS[1])


def test_a_second_download_into_the_folder_waits_for_the_first(
    server: LocalServer, root: Path, fetch: Download, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir()
    second = threading.Thread(target=fetch, args=(BIG,))
    with FileLock(root / LOCK_FILE):
        second.start()
        _wait_for(lambda: "another process downloads into" in caplog.text)
        assert not server.log
    second.join()
    assert_all_there(server, root, BIG)


def _wait_for(condition: Callable[[], bool], at_most_s: float = 30) -> None:
    end_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


# Verification


def test_wrong_bytes_are_fetched_once_more(server: LocalServer, root: Path, fetch: Download) -> None:
    server.wrong[f"ds/{BIG}"] = 1
    fetch()
    assert len(server.gets(f"ds/{BIG}")) == 2
    assert_all_there(server, root, BIG, *WAVS)


def test_bytes_that_stay_wrong_are_an_error_and_the_rest_stays(
    server: LocalServer, root: Path, fetch: Download
) -> None:
    server.wrong[f"ds/{BIG}"] = 9
    with pytest.raises(DownloadError, match="1 of 6 files could not be fetched, 5 are in") as caught:
        fetch()
    reason = caught.value.failures[BIG]
    assert hashlib.md5(content(server, BIG)).hexdigest() in reason, "the published value"
    assert reason.count("its MD5 is") == 2, "both that were found"
    assert "try again later" in reason
    assert_all_there(server, root, *WAVS)


@pytest.mark.parametrize("tells_parts", [True, False])
@pytest.mark.parametrize("part_bytes", [1 << 20, 5 << 20, BIG_BYTES])
def test_what_was_uploaded_in_parts_is_verified_by_parts(
    server: LocalServer, root: Path, fetch: Download, tells_parts: bool, part_bytes: int
) -> None:
    server.part_bytes[f"ds/{BIG}"], server.tells_parts = part_bytes, tells_parts
    server.wrong[f"ds/{BIG}"] = int(tells_parts)
    report = fetch(BIG)
    usual = part_bytes != 1 << 20  # nobody's tool makes parts that small
    assert report.checked == {"MD5 of parts" if tells_parts or usual else "size only": 1}
    assert (str(report.size_only) in "()") == (tells_parts or usual)
    assert_all_there(server, root, BIG)


def test_without_a_usual_etag_the_services_checksum_decides(server: LocalServer, root: Path, fetch: Download) -> None:
    server.part_bytes[f"ds/{BIG}"], server.tells_parts = 1 << 20, False
    crc = zlib.crc32(content(server, BIG)).to_bytes(4, "big")
    told = {"x-amz-checksum-crc32": base64.b64encode(crc).decode(), "x-amz-checksum-type": "FULL_OBJECT"}
    server.checksums[f"ds/{BIG}"] = told
    server.wrong[f"ds/{BIG}"] = 1
    assert fetch(BIG).checked == {"CRC32": 1}
    assert_all_there(server, root, BIG)
    (root / LEDGER_FILE).unlink()
    told["x-amz-checksum-type"] = "COMPOSITE"  # of the parts' checksums, which cannot be compared
    report = fetch(BIG)
    assert report.checked == {"size only": 1}
    assert f"tells only the size of 1: {BIG}" in report.text()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(content=st.binary(max_size=300), part_bytes=st.lists(st.integers(1, 120), min_size=1, max_size=3, unique=True))
def test_the_etag_of_parts_is_the_md5_of_their_md5s(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, part_bytes: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "parts"
    path.write_bytes(content)
    for size, etag in parts_etags(path, part_bytes).items():
        digests = [hashlib.md5(content[k : k + size]).digest() for k in range(0, max(len(content), 1), size)]
        assert etag == f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


def test_usual_parts_are_those_that_give_the_number() -> None:
    n_bytes = 2_447_000_216  # the ten repeats of LeBel et al. 2023, which OpenNeuro uploads in parts of 1 GiB
    assert 1 << 30 in usual_part_bytes(n_bytes, 3)
    for n_parts in (1, 3, 10, 292):
        assert all(-(-n_bytes // size) == n_parts for size in usual_part_bytes(n_bytes, n_parts))


# What the server refuses


def test_missing_files_are_known_before_anything_is_fetched(server: LocalServer, root: Path, fetch: Download) -> None:
    asked = (BIG, "stimuli/story 7.wav", "responses/UTS3/souls.hf5", "responses/UTS03/*.nii.gz")
    with pytest.raises(DownloadError, match=r"3 of 4 files are not at s3://laboratory/ds\. Nothing was") as caught:
        fetch(*asked)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  stimuli/story 7.wav: did you mean stimuli/story")
    assert lines[2] == "  responses/UTS3/souls.hf5: did you mean responses/UTS03?"
    assert not server.gets()
    assert not files_in(root)
    many = [f"stimuli/{k}.wav" for k in range(40)]
    with pytest.raises(DownloadError, match="and 30 more"):
        fetch(*many)


def test_a_bucket_that_is_not_there_is_said(fetch: Download) -> None:
    with pytest.raises(DownloadError, match="there is no bucket 'laboratori'"):
        fetch("stimuli/*.wav", url="s3://laboratori/ds")


def test_a_file_that_is_not_public(server: LocalServer, root: Path, fetch: Download) -> None:
    server.status[f"ds/{WAVS[2]}"] = 403
    with pytest.raises(DownloadError, match=r"refuses to show 'stimuli/story 2\.wav' \(403\)"):
        fetch(*WAVS)
    with pytest.raises(DownloadError, match="1 of 5 files could not be fetched, 4 are in") as caught:
        fetch("stimuli/*.wav")
    assert "(403)" in caught.value.failures[WAVS[2]]
    assert files_in(root) == {*WAVS} - {WAVS[2]}


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/ds", "web"])
def test_a_busy_server_is_asked_again(server: LocalServer, root: Path, fetch: Download, url: str) -> None:
    server.busy = 1
    fetch(WAVS[1], url=url if url != "web" else f"{server.url}/{BUCKET}/ds")
    assert_all_there(server, root, WAVS[1])


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/ds", "http://127.0.0.1:9/ds"])
def test_no_network_is_one_error_that_says_what_to_do(root: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        download(Remote(url, root, (BIG,), "CC0"), progress=False, endpoint_url="http://127.0.0.1:9")
    assert "HTTPS_PROXY" in str(caught.value)
    assert f"by hand (aws s3 cp --no-sign-request s3://{BUCKET}/ds/PATH)" in str(caught.value) or "http:" in url


def test_a_network_that_goes_away_ends_the_run_and_not_file_by_file(
    server: LocalServer, root: Path, fetch: Download
) -> None:
    server.objects |= {f"ds/many/{k}": b"x" for k in range(40)}
    server.cut_after = {f"ds/many/{k}": [0] * 9 for k in range(40)}
    with pytest.raises(DownloadError, match="others were not tried") as caught:
        fetch("many/*", WAVS[1])
    assert 3 <= len(caught.value.failures) <= 3 + transfer.FETCH_THREADS


def test_too_little_disk_is_refused_before_it_begins(
    server: LocalServer, root: Path, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=101_000_000))
    with pytest.raises(DownloadError, match=r"6\.30 MB are to be fetched, and 101\.00 MB are free"):
        fetch()
    assert not server.gets()
    fetch(*WAVS)


def test_a_full_disk_stops_the_rest_and_says_so(
    server: LocalServer, root: Path, fetch: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", str(root / BIG))

    monkeypatch.setattr(transfer.os, "fsync", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch()
    assert not {name for name in files_in(root) if not name.endswith(".part")}


@pytest.mark.parametrize("path", ["../outside.wav", "/etc/passwd", "a/./b", "a//b"])
def test_paths_that_leave_the_folder_are_refused(fetch: Download, path: str) -> None:
    with pytest.raises(DownloadError, match="would not lie inside"):
        fetch(path)


def test_a_bucket_cannot_write_outside_the_folder(server: LocalServer, root: Path, fetch: Download) -> None:
    server.objects["ds/stimuli/..\\evil.wav"] = b"evil"
    with pytest.raises(DownloadError, match="would not lie inside"):
        fetch("stimuli/*.wav")
    assert not server.gets()


def test_urls_of_no_known_kind(root: Path) -> None:
    for url, problem in (("ftp://x/y", "no known kind"), ("s3://", "names no bucket")):
        with pytest.raises(DownloadError, match=problem):
            download(Remote(url, root, ("x",), "CC0"))


# Ordinary web servers


@pytest.fixture
def web(server: LocalServer) -> str:
    server.is_s3 = False
    server.headers = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    return f"{server.url}/{BUCKET}/ds"


def test_a_web_server_gives_named_files_and_continues(
    server: LocalServer, root: Path, fetch: Download, web: str
) -> None:
    server.cut_after[f"ds/{BIG}"] = [3_000_000]
    report = fetch(BIG, WAVS[1], url=web)
    assert report.checked == {"size only": 2}
    assert server.gets(f"ds/{BIG}")[-1].range == "bytes=3000000-"
    assert_all_there(server, root, BIG, WAVS[1])
    n_asked = len(server.log)
    assert not fetch(BIG, WAVS[1], url=web).fetched
    assert len(server.log) == n_asked


def test_a_web_server_that_cannot_begin_in_the_middle(
    server: LocalServer, root: Path, fetch: Download, web: str
) -> None:
    server.knows_range = False
    server.cut_after[f"ds/{BIG}"] = [3_000_000]
    fetch(BIG, url=web)
    assert_all_there(server, root, BIG)


def test_a_bucket_behind_https_is_verified_too(server: LocalServer, root: Path, fetch: Download) -> None:
    server.wrong[f"ds/{BIG}"] = 1
    assert fetch(BIG, url=f"{server.url}/{BUCKET}/ds").checked == {"MD5": 1}


def test_what_a_web_server_may_answer_instead(server: LocalServer, root: Path, fetch: Download, web: str) -> None:
    with pytest.raises(DownloadError, match="1 of 1 files are not at http"):
        fetch("stimuli/none.wav", url=web)
    with pytest.raises(DownloadError, match="wildcard"):
        fetch("stimuli/*.wav", url=web)
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="web page instead of the file"):
        fetch(WAVS[1], url=web)
    server.headers.clear()
    server.objects[f"ds/{WAVS[1]}"] = b"/annex/objects/MD5E-s1000--abc.wav\n"
    with pytest.raises(DownloadError, match=r"has no content for it either: .* pointer of git-annex"):
        fetch(WAVS[1], url=web)
    assert not files_in(root)


@pytest.mark.parametrize("kind", ["gzip", "deflate", "br", "x-gzip"])
def test_what_was_packed_on_the_way_is_refused_and_not_unpacked(
    server: LocalServer, root: Path, fetch: Download, web: str, kind: str
) -> None:
    """A thousand bytes that would become a million."""
    server.objects["ds/words.txt"] = gzip.compress(bytes(10**6))
    server.headers["Content-Encoding"] = kind
    with pytest.raises(DownloadError, match=rf"words\.txt is sent packed \(Content-Encoding: {kind}\)"):
        fetch("words.txt", url=web)
    assert not files_in(root)


def test_a_file_that_was_published_packed_comes_as_it_is(
    server: LocalServer, root: Path, fetch: Download, web: str
) -> None:
    """Some servers name gzip as the encoding of every .gz."""
    server.objects["ds/bold.nii.gz"] = gzip.compress(bytes(10**6))
    server.headers["Content-Encoding"] = "x-gzip"
    fetch("bold.nii.gz", url=web)
    assert_all_there(server, root, "bold.nii.gz")


@pytest.mark.parametrize("n_more", [1, 3_000_000])
def test_more_than_was_announced_is_not_kept(
    server: LocalServer, root: Path, fetch: Download, web: str, n_more: int
) -> None:
    server.beyond[f"ds/{WAVS[2]}"] = bytes(n_more)
    for _ in range(2):  # again, as a user would
        with pytest.raises(DownloadError, match=r"the server said 2000 bytes \(2\.00 kB\) and sends more"):
            fetch(WAVS[2], url=web)
        assert not files_in(root)
        assert not [path for path in root.rglob("*") if path.is_file() and path.stat().st_size >= 2000]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Content-Length": "many"}, "which is no number of bytes"),
        ({"Content-Length": "-5"}, "which is no number of bytes"),
        ({"Content-Range": "bytes 0-9/2000"}, r"contradicts itself: it sends bytes 0 to 9 .* 2000"),
        ({"Content-Range": "bytes 7-2006/3000"}, "from another byte than the one asked for, 0"),
    ],
)
def test_sizes_that_contradict_each_other_are_found(
    server: LocalServer, root: Path, fetch: Download, web: str, fields: dict[str, str], message: str
) -> None:
    server.headers |= fields
    with pytest.raises(DownloadError, match=message):
        fetch(WAVS[2], url=web)
    assert not files_in(root)


def test_less_than_was_announced_is_not_whole(server: LocalServer, root: Path, fetch: Download, web: str) -> None:
    server.headers["Content-Length"] = "2100"
    server.cut_after[f"ds/{WAVS[2]}"] = [1999] * 50
    server.knows_range = False
    with pytest.raises(DownloadError, match=r"the connection broke|only from its beginning"):
        fetch(WAVS[2], url=web)
    assert files_in(root) == {f"{WAVS[2]}.part"}


@pytest.mark.parametrize(
    ("onward", "followed"),
    [("http://{host}/{path}", False), ("HTTP://x.org/a", False), ("//x.org/moved", True), ("/moved", True)],
)
def test_https_goes_on_as_https_or_not_at_all(
    server: LocalServer, fetch: Download, web: str, onward: str, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plainly = requests.adapters.HTTPAdapter.send

    def send(adapter: Any, request: Any, **options: Any) -> Any:
        """What a server behind https would answer; http is asked in earnest."""
        asked.append(request.url)
        if request.url.startswith("http:"):
            return plainly(adapter, request, **options)
        answer = requests.Response()
        answer.url, answer.request, answer.raw = request.url, request, io.BytesIO()
        to = onward.format(host=server.url.removeprefix("http://"), path=f"{BUCKET}/ds/notes.txt")
        moved = request.url.endswith("/moved")
        answer.status_code = 200 if moved else 302
        answer.headers = CaseInsensitiveDict({"Content-Length": "7"} if moved else {"Location": to})
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    if followed:
        found = open_host("https://example.org/ds").stat("notes.txt")
        assert found is not None
        assert found.n_bytes == 7
    else:
        with pytest.raises(DownloadError, match=r"leads to (http|HTTP)://.*anyone on the way could change"):
            fetch("notes.txt", url="https://example.org/ds")
    assert all(url.startswith("https:") for url in asked)


# What is here


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/annex/objects/MD5E-s271381088--0a1b.hf5\n", "git-annex"),
        ("../../.git/annex/objects/XX/YY/MD5E-s27--0a1b.hf5/MD5E-s27--0a1b.hf5", "git-annex"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"),
    ],
)
def test_pointers_are_recognised_and_replaced(
    server: LocalServer, root: Path, fetch: Download, text: str, kind: str
) -> None:
    path = root / BIG
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert f"only a pointer of {kind}" in str(pointer_problem(path))
    assert "brainlit data download" in str(pointer_problem(path))
    assert missing_locally(Remote("s3://x/y", root, (BIG,), "CC0")) == [BIG]
    fetch(BIG)
    assert pointer_problem(path) is None
    assert_all_there(server, root, BIG)


def test_links_to_nowhere_are_recognised_and_replaced(server: LocalServer, root: Path, fetch: Download) -> None:
    path = root / BIG
    path.parent.mkdir(parents=True)
    path.symlink_to("../../.git/annex/objects/XX/YY/KEY/KEY")
    assert "datalad get" in str(pointer_problem(path))
    fetch(BIG)
    assert not path.is_symlink()
    other = root / "other.wav"
    other.symlink_to("/no/such/disk/other.wav")
    assert "a link to /no/such/disk/other.wav" in str(pointer_problem(other))


def test_real_files_are_no_pointers(root: Path) -> None:
    root.mkdir()
    for name, written in (("empty", b""), ("text", b"see /annex/objects/"), ("large", b"/annex/objects/x" * 5000)):
        (root / name).write_bytes(written)
        assert pointer_problem(root / name) is None
    assert pointer_problem(root / "absent") is None


def test_missing_locally_names_what_is_not_there(root: Path) -> None:
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.wav").write_bytes(b"1")
    (root / "a" / "y.hf5.part").write_bytes(b"1")
    asked = Remote("s3://x/y", root, ("a/x.wav", "a/z.wav", "a/*.wav", "a/*.hf5*", "b/*.wav"), "CC0")
    assert missing_locally(asked) == ["a/z.wav", "a/*.hf5*", "b/*.wav"]


def test_the_ledger_is_readable_and_holds_no_folder_of_this_machine(root: Path, fetch: Download) -> None:
    fetch()
    text = (root / LEDGER_FILE).read_text()
    assert str(root) not in text
    entry = json.loads(text)["remotes"][f"s3://{BUCKET}/ds"]["files"][BIG]
    assert entry["n_bytes"] == BIG_BYTES
    moved = root.rename(root.with_name("moved"))
    report = download(Remote(f"s3://{BUCKET}/ds", moved, (BIG,), "CC0"), endpoint_url="http://127.0.0.1:9")
    assert report.checked == {"an earlier download": 1}, "a folder may be moved"


def test_the_environment_names_another_service(
    server: LocalServer, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    caplog.set_level(logging.INFO, "brainlit")
    download(Remote(f"s3://{BUCKET}/ds", root, (WAVS[1],), "CC0"), progress=False)
    assert_all_there(server, root, WAVS[1])
    assert "licence: CC0" in caplog.text, "the plan is said before it is carried out"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "somebody"
    assert ATTEMPTS > 2
