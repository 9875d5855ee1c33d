"""Limits of what is read from text, and the one error for a file that cannot be read."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from omegaconf import OmegaConf

from brainlit.guard import (
    MAX_RESOLVED_CHARS,
    UnreadableFileError,
    check_environment,
    check_interpolations,
    file_guard,
    has_interpolation,
    npz_headers,
    read_json,
    read_text,
    read_yaml,
)

WHAT, CURE = "a config", "Write it anew."
ALIASES = "\n".join(["a0: &a0 [x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)])
DOUBLING = "\n".join(["k0: xxxxxxxxxx"] + [f"k{k}: ${{k{k - 1}}}${{k{k - 1}}}" for k in range(1, 27)])


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 200_000, "line 1: nested deeper than 100 levels"),
        ("{a: " * 20_000, "nested deeper than 100 levels"),
        ("\n".join(" " * k + "a:" for k in range(150)), "line 101: nested deeper"),
        (ALIASES, "more than 200,000 values"),
        ("a: 1\n" * 300_000, "has 1,500,000 bytes"),
        ("a: [1, 2", "is not a config: while parsing a flow sequence"),
        (b"a: \xff", "byte 3 is no UTF-8"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("- 1", "holds a list, not a mapping"),
        ("", "holds a NoneType, not a mapping"),
        ("a: &x {b: *x}", "*x refers to what it lies in"),
    ],
)
def test_yaml_beyond_the_limits_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(UnreadableFileError) as caught:
        read_yaml(path, WHAT, CURE)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert CURE in str(caught.value)


def test_yaml_within_them_is_read(tmp_path: Path) -> None:
    content = {"a": {"b": [1, 2.5, None, "x", True]}, "c": "ü"}
    assert read_yaml(_file(tmp_path, "\ufeffa: {b: [1, 2.5, null, x, true]}\nc: ü\n"), WHAT, CURE) == content
    assert read_yaml(_file(tmp_path, "a: &x [1]\nb: *x"), WHAT, CURE) == {"a": [1], "b": [1]}


@pytest.mark.parametrize("content", ["{", '{"a": 1} x', "[1]", "[" * 100_000, b'"\xff"', ""])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str | bytes) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(UnreadableFileError, match=CURE) as caught:
        read_json(path, WHAT, CURE)
    assert str(path) in str(caught.value)


def test_json_objects_are_read(tmp_path: Path) -> None:
    assert read_json(_file(tmp_path, json.dumps({"a": [1]})), WHAT, CURE) == {"a": [1]}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", WHAT, CURE)


def test_text_has_a_largest_size(tmp_path: Path) -> None:
    assert read_text(_file(tmp_path, "abc"), WHAT, CURE, 3) == "abc"
    with pytest.raises(UnreadableFileError, match="has 4 bytes; a config has at most 3"):
        read_text(_file(tmp_path, "abcd"), WHAT, CURE, 3)


def test_what_a_library_says_gets_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    said = "x.npz is not a config: bad number. Write"
    with pytest.raises(UnreadableFileError, match=said), file_guard(path, WHAT, CURE):
        raise ValueError("bad\n  number")
    with pytest.raises(PermissionError), file_guard(path, WHAT, CURE):
        raise PermissionError(13, "Permission denied", str(path))
    with pytest.raises(KeyboardInterrupt), file_guard(path, WHAT, CURE):
        raise KeyboardInterrupt


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["${" + " " * 900_000, "${" * 400_000, "\\" * 900_000 + "${", "${a" + "." * 900_000])
def test_long_texts_are_looked_at_once(text: str) -> None:
    for check in (check_environment, check_interpolations):
        with contextlib.suppress(UnreadableFileError):
            check({"a": text}, "sent.yaml")
    assert has_interpolation(text) == (text.count("\\") % 2 == 0)


def _resolved_chars(content: dict[str, Any]) -> int:
    """The reference: fill everything in and count."""
    return len(str(OmegaConf.to_container(OmegaConf.create(content), resolve=True)))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (dict(line.split(": ") for line in DOUBLING.splitlines()), "more than 1,000,000 characters"),
        ({"c0": list("xxxxxxxxxx"), **{f"c{k}": [f"${{c{k - 1}}}"] * 9 for k in range(1, 12)}}, "more than 1,000,000"),
        ({"a": "${b}", "b": "${c.d}", "c": {"d": "${a}"}}, "refers to itself"),
        ({"a": {"b": "${a}"}}, "refers to itself"),
        ({"a": {"b": "${.b}"}}, "refers to itself"),
        ({"l0": "x" * 10, **{f"l{k}": f"${{ l{k - 1} }}" * 9 for k in range(1, 9)}}, "more than 1,000,000"),
        ({"é@0": "x" * 10, **{f"é@{k}": f"${{é@{k - 1}}}" * 9 for k in range(1, 9)}}, "more than 1,000,000"),
        ({0: "x" * 10, **{k: f"${{{k - 1}}}" * 9 for k in range(1, 9)}}, "more than 1,000,000"),
        ({"l": ["x" * 10], **{f"l{k}": [f"${{l{k - 1 or ''}[-1]}}" * 9] for k in range(1, 9)}}, "more than 1,000,000"),
        ({"a": {"x": "y" * 10}, "k": "x", "b": "${a.${k}}"}, "within the name of another"),
        ({f"d{k}": f"${{d{k + 1}}}" for k in range(5_000)}, "too deeply"),
    ],
)
def test_interpolations_that_explode_are_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableFileError, match=said):
        check_interpolations(content, "sent.yaml")


@pytest.mark.parametrize(
    "content",
    [
        {"a": "x", "b": "${a}-${a}", "c": {"d": "${b}", "e": "${.d}", "f": ["${c.d}", "${b}"], "g": "${..a}"}},
        {"a": "${oc.env:HOME,x}", "b": {"c": {"d": 1}, "e": "${b.c.d}"}, "f": "${b}"},
        {f"k{k}": f"${{k{k - 1}}}${{k{k - 1}}}" if k else "x" for k in range(13)},
    ],
)
def test_those_that_people_write_pass(content: dict[str, Any]) -> None:
    check_interpolations(content, "mine.yaml")
    assert _resolved_chars(content) < MAX_RESOLVED_CHARS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data": {"facts": {"a": "${oc.env:SECRET}"}}}, "data.facts.a reads a variable"),
        ({"run": {"tags": ["x-${oc.env:SECRET,y}"]}}, "run.tags reads a variable"),
        ({"data": {"roles": {"tune": "${ oc.env:SECRET}"}}}, "data.roles.tune reads"),
        ({"a": "${oc.decode:x}"}, "only ${oc.env:NAME} is known"),
        ({"root": "${oc.dict.values:x}"}, "uses ${oc.dict.values:...}"),
        ({"a": r"\\${oc.env:SECRET}"}, "a reads a variable"),
        ({"a": "${${n}:SECRET}", "n": "oc.env"}, "a has a ${...} within the name of another"),
        ({"a": "${oc.${n}:SECRET}", "n": "env"}, "a has a ${...} within the name of another"),
        ({"root": "${oc.env:SECRET}", "licence": "${root}"}, "licence reads a variable"),
        ({"x": {"root": "${oc.env:SECRET}"}, "y": {"a": ["${ x.root }"]}, "z": "${y.a[0]}"}, "y.a reads"),
        ({"x": {"root": "${oc.env:SECRET}"}, "y": "${[x]}"}, "y reads a variable"),
        ({"x": {0: {"root": "${oc.env:SECRET}"}}, "y": "${x.0}"}, "y reads a variable"),
    ],
)
def test_the_environment_stays_out_of_settings(content: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableFileError) as caught:
        check_environment(content, "sent.yaml")
    assert said in str(caught.value)


def test_paths_and_names_may_come_from_it() -> None:
    names = ("root", "store_dir", "folder", "file", "region_files", "path", "id", "experiment", "weights", "vectors")
    check_environment({"data": dict.fromkeys(names, "${oc.env:MINE,here}/x"), "a": "${b.c}"}, "mine.yaml")


def test_interpolations_are_found_anywhere() -> None:
    assert has_interpolation({"a": [{"b": "x${c}"}]})
    assert has_interpolation({"${a}": 1})
    assert has_interpolation({"a": r"\\${c}"}), "the backslash escapes the other one"
    assert not has_interpolation({"a": ["$x", "{y}", r"\${z}", 3, None]})


# --- Archives of arrays


def bomb(path: Path, n_bytes: int) -> Path:
    """An npz of zeros: a thousandth of the bytes that it unpacks to, written without having them."""
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n_bytes,)})
        for _ in range(n_bytes >> 20):
            file.write(bytes(1 << 20))
    return path


def test_arrays_are_judged_by_their_headers(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", r=np.zeros((3, 4), np.float32), one=np.asarray("é"))
    assert npz_headers(tmp_path / "a.npz", "an archive", "") == {"r": ((3, 4), "<f4"), "one": ((), "<U1")}
    path = bomb(tmp_path / "bomb.npz", 8 << 20)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        assert npz_headers(path, "an archive", "") == {"a": ((8 << 20,), "u1")}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", ["pickled", "longer", "text", "empty"])
def test_archives_that_are_none_are_named(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.npz"
    if way == "pickled":
        np.savez(path, a=np.array([{}]))
    elif way == "longer":
        with ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    else:
        path.write_text("" if way == "empty" else "no archive")
    with pytest.raises(UnreadableFileError, match=r"a\.npz is not an archive: .*Write it again\."):
        npz_headers(path, "an archive", "Write it again.")
