"""What the loaders share: names in either case, text as it is spoken, and sound that can be read or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainlit.downstream.data.files import (
    any_case,
    heard_before,
    inside,
    need_file,
    need_folder,
    need_sound,
    plain_text,
    require_option,
)
from brainlit.stories import SourceError


def test_a_missing_file_is_named_with_what_it_is_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"words\.txt does not exist: the words; get it from there, or check"):
        need_file(tmp_path / "words.txt", "the words", "there")
    with pytest.raises(FileNotFoundError, match=r"words is no folder: the words; get it from there"):
        need_folder(tmp_path / "words", "the words", "there")


def test_names_are_found_in_either_case(tmp_path: Path) -> None:
    (tmp_path / "TRAIN").mkdir()
    assert any_case(tmp_path, "train") == tmp_path / "TRAIN"
    assert any_case(tmp_path, "test") == tmp_path / "test"
    assert any_case(tmp_path / "nowhere", "train") == tmp_path / "nowhere" / "train"


def test_the_folder_itself_comes_before_those_below(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    assert inside(tmp_path, "train", "data") == tmp_path / "data"
    assert inside(tmp_path, "elsewhere", "data") == tmp_path
    (tmp_path / "train").mkdir()
    assert inside(tmp_path, "train", "data") == tmp_path


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("She'd HAVE it -- no?", "she'd have it no"),
        ("a well-known 'fact'", "a well known fact"),
        ("It\u2019s\tso_so ", "it's so so"),
        ("'...'", ""),
    ],
)
def test_text_is_what_is_spoken(written: str, spoken: str) -> None:
    assert plain_text(written) == spoken


def test_a_pointer_of_git_lfs_and_a_compressed_sphere_file_are_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 60000\n")
    with pytest.raises(SourceError, match="pointer of git-lfs, not sound: run 'git lfs pull'"):
        need_sound(path, "a sound", "there")
    path.write_bytes(b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n".ljust(1100))
    with pytest.raises(SourceError, match=r"compressed by shorten.*'sph2pipe -f wav IN OUT'"):
        need_sound(path, "a sound", "there")


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"test is 'coer'\. Did you mean 'core'\?"):
        require_option("test", "coer", ("core", "full"))


def test_what_was_heard_before_is_counted_by_part() -> None:
    assert heard_before({"train": ["a", "a"], "choose": ["a", "b"], "test": ["b"]}) == "choose: 1 of 2, test: 0 of 1"
