"""`brainlit figure`: width, fonts and sizes of text in the file, and what is refused."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from brainlit.cli import main
from brainlit.results.run_directory import RunDirectory
from tests.comparison.planted_runs import planted_run
from tests.results.fake_run import fake_run

POINTS_PER_MM = 72 / 25.4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return fake_run(tmp_path_factory.mktemp("runs"), subjects=("sub-1",), epochs=(0, 4))


def drawing(content: bytes) -> str:
    """What the streams of a PDF say."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    found = []
    for stream in streams:
        try:
            found.append(zlib.decompress(stream).decode("latin-1"))
        except zlib.error:
            continue
    return "\n".join(found)


@pytest.mark.parametrize(("width", "expected_mm"), [("column", 88), ("page", 180), ("120", 120)])
def test_a_pdf_is_as_wide_as_asked_with_its_fonts_and_text_that_can_be_read(
    width: str, expected_mm: float, run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figure.pdf"
    assert main(["figure", "alignment", str(run.path), "-o", str(path), "--width", width]) == 0
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", content)
    assert box is not None
    assert float(box[1]) == pytest.approx(expected_mm * POINTS_PER_MM, abs=0.1)
    assert b"/FontFile2" in content, "TrueType, embedded"
    sizes = [float(size) for size in re.findall(r"/F\d+ ([\d.]+) Tf", drawing(content))]
    assert len(sizes) >= 5
    assert min(sizes) >= 5
    assert max(sizes) <= 8
    said = capsys.readouterr().out
    assert said.startswith("Simulated listeners.")
    assert "Alternative text: Simulated listeners. Alignment by region. all voxels: before" in said


def test_the_same_figure_twice_is_the_same_file_and_the_map_is_one_too(run: RunDirectory, tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        assert main(["figure", "layers", str(run.path), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()
    assert main(["figure", "brain-sub-1", str(run.path), "-o", str(tmp_path / "brain.svg")]) == 0
    svg = (tmp_path / "brain.svg").read_text()
    assert "data:image/png;base64" in svg, "triangles are a picture"
    assert len(svg) < 2_000_000


def test_names_are_listed_and_several_runs_have_those_of_their_comparison(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figure", "all", str(run.path)]) == 0
    assert {"alignment", "layers", "partition", "brain-sub-1"} <= set(capsys.readouterr().out.split())
    for regime in ("brain", "permuted"):
        planted_run(tmp_path / "runs", 11, regime)
    runs = [str(path) for path in sorted((tmp_path / "runs").glob("*/*"))]
    assert main(["figure", "alignment", *runs, "-o", str(tmp_path / "both.pdf"), "--width", "column"]) == 0
    assert (tmp_path / "both.pdf").read_bytes().startswith(b"%PDF")


def test_what_overlaps_is_said_and_few_regions_fit_a_column(
    run: RunDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["figure", "partition", str(run.path), "-o", str(tmp_path / "narrow.pdf"), "--width"]
    assert main([*command, "40"]) == 0
    assert "Text of this figure overlaps at 40 mm" in caplog.text
    caplog.clear()
    command[1] = "alignment"
    assert main([*command, "column", "--regions", "semantic", "null"]) == 0
    assert not caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alignement", "RUN", "-o", "x.pdf"], "there is no figure 'alignement'.*Did you mean 'alignment'"),
        (["alignment", "RUN", "-o", "x.docx"], r"-o is x.docx; its ending says what to write: .pdf, .svg, .png"),
        (["alignment", "RUN", "-o", "x.pdf", "--width", "wide"], "--width is wide; give column, page, or 40 to 500"),
        (["alignment", "RUN", "-o", "x.pdf", "--region", "null"], "--region is for several runs"),
        (["alignment", "RUN", "-o", "x.pdf", "--regions", "nul"], "--regions names 'nul'. Did you mean 'null'"),
        (["alignment", "nowhere", "-o", "x.pdf"], "nowhere"),
    ],
)
def test_what_is_refused(
    arguments: list[str], said: str, run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["figure", *(str(run.path) if word == "RUN" else word for word in arguments)]) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())
