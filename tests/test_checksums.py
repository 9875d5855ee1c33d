"""JSON and tables that brainlit writes: every changed value is found, what is no damage is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from brainlit.checksums import KEY
from brainlit.files import write_csv, write_json
from brainlit.guard import UnreadableFileError, read_csv, read_json
from tests.flips import flip_each

CONTENT: dict[str, Any] = {"r": 0.125, "names": ["ä", "b"], "by": {"sub": None, "n": 12}, "nan": float("nan"), "x": ""}
COLUMNS, ROWS = ("region", "r", "low"), [{"region": "AC, left", "r": 0.25}, {"region": 'a "b"', "r": 1e-9, "low": None}]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return write_json(tmp_path / "run.json", CONTENT)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "probe.csv", COLUMNS, ROWS)


def as_read(path: Path) -> object:
    read = read_json if path.suffix == ".json" else read_csv
    return json.dumps(read(path, "what it is", "Fetch it again."), sort_keys=True)


@pytest.mark.parametrize("kind", ["record", "table"])
def test_no_flipped_bit_is_used(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    outcome = flip_each(path, lambda: as_read(path), n=8 * path.stat().st_size)
    assert outcome.silent == []
    assert len(outcome.refused) > 6 * path.stat().st_size
    for error in outcome.refused:
        assert isinstance(error, UnreadableFileError)
        assert str(error).startswith(f"{path} is not what it is: ")
        assert str(error).endswith("Fetch it again.")


def test_what_is_written_is_plain_json_and_csv(record: Path, table: Path) -> None:
    whole = json.loads(record.read_text(encoding="utf-8"))
    assert list(whole) == [*CONTENT, KEY]
    assert json.dumps(whole | {KEY: 0}) == json.dumps({**CONTENT, KEY: 0})
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["region"], row["r"], row["low"]) for row in rows] == [("AC, left", "0.25", ""), ('a "b"', "1e-09", "")]


def test_what_editors_do_to_blanks_is_no_damage(record: Path, table: Path) -> None:
    before = as_read(record), as_read(table)
    record.write_text(json.dumps(json.loads(record.read_text(encoding="utf-8"))), encoding="utf-8")
    table.write_bytes(table.read_bytes().replace(b"\r\n", b"\n"))
    assert (as_read(record), as_read(table)) == before


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"r": 1}')
    (tmp_path / "probe.csv").write_text("region,r\nAC,1\n")
    assert read_json(tmp_path / "run.json", "a record", "") == {"r": 1}
    assert read_csv(tmp_path / "probe.csv", "a table", "") == [{"region": "AC", "r": "1"}]
    (tmp_path / "probe.csv").write_text("")
    assert read_csv(tmp_path / "probe.csv", "a table", "") == []


def test_a_row_less_or_a_cell_more_is_found(table: Path) -> None:
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UnreadableFileError, match="not what its checksum says"):
        as_read(table)
    table.write_text("region,r\nAC,1,2\n")
    with pytest.raises(UnreadableFileError, match="row 2 has 3 cells for 2 columns"):
        as_read(table)


@pytest.mark.parametrize("n_kept", [3, 8, 9])
def test_a_table_that_ends_in_its_header_is_damaged(table: Path, n_kept: int) -> None:
    table.write_bytes(table.read_bytes()[:n_kept])
    with pytest.raises(UnreadableFileError, match=r"ends within its first line"):
        as_read(table)


def test_a_hole_in_a_header_is_damage(table: Path) -> None:
    head, line, rest = table.read_bytes().partition(b"\r\n")
    table.write_bytes(head[:-17] + bytes(17) + line + rest)
    with pytest.raises(UnreadableFileError, match="zero bytes"):
        as_read(table)


def test_writing_again_what_was_read_keeps_one_checksum(record: Path) -> None:
    whole = json.loads(record.read_text(encoding="utf-8"))
    write_json(record, {**whole, "more": 1})
    assert json.loads(record.read_text(encoding="utf-8")).keys() == {*CONTENT, "more", KEY}
    assert "more" in read_json(record, "a record", "")
