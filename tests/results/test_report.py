from __future__ import annotations

import base64
import gc
import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import h5py
import numpy as np
import pytest

from brainlit.files import write_json
from brainlit.results import report as report_module
from brainlit.results.record import find_records, load_record, record_files
from brainlit.results.region_table import region_table
from brainlit.results.report import cite_also, command_said, render_report, write_report
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import UNSEEN_WORDS, ScoreTable
from brainlit.results.style import Figure
from brainlit.results.summary import build_summary, find_score
from tests.results.fake_run import fake_run


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all_of(self, tag: str, key: str) -> list[str]:
        """An attribute of every such tag that has it."""
        return [str(attrs[key]) for name, attrs in self.tags if name == tag and key in attrs]


def assert_loads_nothing(text: str) -> None:
    """That a page shows itself without network, server or another file; it may have links that a reader follows."""
    page = Page(text)
    loaded = [str(value) for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "srcset", "data")]
    assert len(loaded) >= 1
    assert all(address.startswith("data:image/") for address in loaded)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    plotly = r'<script type="text/plain" id="turning-maps-plotly">.*?</script>'  # its addresses are words and links
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", re.sub(plotly, "", text, flags=re.DOTALL))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", plain)
    links = [address for address in page.all_of("a", "href") if not address.startswith(("#", "data:text/csv"))]
    assert all(re.match(r"https://(arxiv\.org|doi\.org|wandb\.ai)/", address) for address in links)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Page, dict[str, Any]]:
    run = fake_run(tmp_path_factory.mktemp("runs"), subjects=("sub-1",), epochs=(0, 4))
    page = Page(write_report(run, state="finished").read_text())
    return run, page, json.loads((run.path / "summary.json").read_text())


def test_it_needs_nothing_from_outside(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    run, page, _ = written
    assert len(page.all_of("img", "src")) >= 6
    assert_loads_nothing((run.path / "report.html").read_text())
    assert "https://arxiv.org/abs/2410.09230" in page.all_of("a", "href")


def test_the_title_says_what_was_done_and_warnings_stand_beside_the_answer(
    written: tuple[RunDirectory, Page, dict[str, Any]],
) -> None:
    run, page, summary = written
    text = render_report({**summary, "warnings": ["Look at <this>."]}, {}, {}, {})
    title = "wav2vec 2.0 (tiny) tuned on the brain responses of 1 simulated listener"
    for one in (text, (run.path / "report.html").read_text()):
        assert re.search(r"<title>(.*?)</title>", one)[1] == re.search(r"<h1>(.*?)</h1>", one)[1] == title  # type: ignore[index]
    head = text.partition("<header")[2].partition("</header>")[0]
    assert head.index(summary["headline"][0][:30]) < head.index("Look at &lt;this&gt;.") < head.index('class="tiles"')
    assert text.count("Look at &lt;this&gt;.") == 1
    assert 'class="warnings"' not in render_report({**summary, "warnings": []}, {}, {}, {})
    assert "run runs" not in page.text
    assert f"run {run.experiment}/{run.run_id}" in page.text


def test_contents_name_every_section_and_what_carries_no_answer_is_folded(
    written: tuple[RunDirectory, Page, dict[str, Any]],
) -> None:
    run, page, _ = written
    text = (run.path / "report.html").read_text()
    sections = re.findall(r'<details class="card" id="([^"]+)"( open)?><summary><h2>(.*?)</h2>', text)
    links = re.findall(r'<li><a href="#([^"]+)">(.*?)</a>', text.partition("</nav>")[0])
    assert links == [("top", "The answer"), *((name, title) for name, _, title in sections)]
    ids = [str(attrs["id"]) for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in page.all_of("a", "href") if address.startswith("#")} <= set(ids)
    assert [title for _, is_open, title in sections if not is_open] == ["What was run", "Provenance"]


def test_each_figure_has_its_numbers_below_it(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    run, page, summary = written
    given = [attrs for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    assert len(given) == len(page.all_of("img", "src"))
    for attrs in given:
        text = base64.b64decode(str(attrs["href"]).partition("base64,")[2]).decode()
        assert text == (run.figures / str(attrs["download"])).read_text()
        assert len(text.splitlines()) > 3
    row = find_score(summary, "semantic", "r_backbone")
    assert row is not None
    assert f"semantic,2,r_backbone,after,{row['after']['value']}," in (run.figures / "alignment.csv").read_text()
    voxels = (run.figures / "brain-sub-1.csv").read_text().splitlines()
    assert voxels[0] == "vertex,r_before,r_after"
    assert len(voxels) == 1 + summary["probe"]["subjects"]["sub-1"]["n_voxels"]


def test_methods_and_citations_are_there_to_paste(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    run, page, _ = written
    pasted = (run.path / "methods.md").read_text()
    assert pasted.startswith("# wav2vec 2.0 (tiny) tuned on the brain responses of 1 simulated listener\n\n**Model.** ")
    bibtex = pasted.partition("```bibtex\n")[2].partition("\n```")[0]
    assert "@inproceedings{moussa2025improving," in bibtex
    assert bibtex in page.text
    for paragraph in pasted.splitlines()[2:12:2]:
        assert paragraph.replace("**", "") in page.text


@pytest.mark.parametrize(
    ("address", "shown"), [("https://wandb.ai/me/p/runs/one", True), ("javascript:alert(1)", False), (None, False)]
)
def test_the_run_in_wandb_is_linked_where_it_is_known(
    written: tuple[RunDirectory, Page, dict[str, Any]], address: str | None, shown: bool
) -> None:
    _, _, summary = written
    text = render_report({**summary, "run": {**summary["run"], "wandb_url": address}}, {}, {}, {})
    assert ("this run in W&amp;B" in text) == shown
    assert "javascript:" not in text


def test_the_command_is_as_it_is_typed(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    for path in ("/home/me/src/brainlit/cli/__main__.py", "/home/me/.venv/bin/brainlit", "brainlit"):
        text = render_report(written[2], {}, {}, {"command": f"{path} fit -c demo --x <1>"})
        assert "<pre>brainlit fit -c demo --x &lt;1&gt;</pre>" in text
        assert "/home/me/" not in text.partition("</header>")[0]
    other = "python /home/me/brainlit_study.py --fast"
    assert command_said({"command": other}) == other


def test_how_a_data_set_of_ones_own_is_cited_is_said(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    _, _, summary = written
    facts = {"data_facts": {"citation": "Me & Mine (2024)"}}
    assert "The data: Me &amp; Mine (2024)" in render_report(
        {**summary, "run": {**summary["run"], **facts}}, {}, {}, {}
    )
    own = facts | {"data_module": {"store": "lebel2023"}}
    assert cite_also({"run": own}) == ""


def test_pictures_are_whole_and_have_words(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    _, page, _ = written
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    for attrs in images:
        kind, _, text = str(attrs["src"]).partition(",")
        assert kind == "data:image/svg+xml"
        assert unquote_to_bytes(text).endswith(b"</svg>\n")
        assert len(str(attrs["alt"])) > 20


def test_numbers_of_the_page_are_those_of_the_summary(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    _, page, summary = written
    text = " ".join(page.text.split())
    for row in summary["scores"]:
        if row["subject"] == "all" and row["metric"] in ("r_backbone", "low_level_share") and row["layer"] == 2:
            for stage in ("before", "after"):
                score = row[stage]
                assert f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" in text
            change = row["difference"]
            assert f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]" in text
    for sentence in summary["headline"] + summary["limits"]:
        assert " ".join(sentence.split()) in text


def test_every_section_is_there(written: tuple[RunDirectory, Page, dict[str, Any]]) -> None:
    run, page, summary = written
    for title in (
        "What was run",
        "Alignment with the brain",
        "What explains the responses",
        "How much of it is low-level",
        "Noise ceiling",
        "Layers",
        "Learning",
        "On the cortex",
        "What this run does not show",
        "Provenance",
    ):
        assert title in page.text
    assert [attrs for _, attrs in page.tags if attrs.get("id") == "turning-maps"]
    assert "1 - SSE / SST" in page.text or "(R2_B + R2_L - R2_BL) / R2_B" in page.text
    assert "110 TRs" in page.text
    assert summary["probe"]["score_stories"] == ["story4", "story5"]
    assert "not finished" not in page.text
    assert {path.name for path in run.figures.iterdir()} >= {"alignment.png", "alignment.svg", "brain-sub-1.png"}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chart is drawn: for tests that only look at the words."""
    monkeypatch.setattr(report_module, "summary_figures", lambda *_: [])


def test_a_figure_that_fails_costs_only_itself(
    small_run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("no ink")

    drawn = Figure("alignment", b"\x89PNG", b"<svg></svg>", "bars of alignment", "caption")
    jobs = [("partition", broken), ("alignment", lambda: drawn)]
    monkeypatch.setattr(report_module, "summary_figures", lambda *_: jobs)
    with caplog.at_level(logging.WARNING):
        page = Page(write_report(small_run).read_text())
    assert "The figure 'partition' could not be drawn" in page.text
    assert "no ink" in caplog.text
    assert "Traceback" in caplog.text
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == ["bars of alignment"]


def test_subjects_without_places_are_named(small_run: RunDirectory, undrawn: None) -> None:
    page = Page(write_report(small_run).read_text())
    assert "No map for sub-1: nothing says where its voxels lie, on fsaverage5 or in a volume." in page.text
    assert "running, not finished" in page.text


def test_voxels_of_a_volume_are_shown_in_the_brain(small_run: RunDirectory, undrawn: None) -> None:
    centres_mm = 3.0 * np.argwhere(np.ones((2, 3, 4), dtype=bool))
    for path in record_files(small_run.probes):
        with h5py.File(path, "a") as file:
            file["record"]["coordinates_mm"] = centres_mm
    page = Page(write_report(small_run).read_text())
    assert "In the brain" in page.text
    assert "On the cortex" not in page.text
    (said,) = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    r = load_record(record_files(small_run.probes)[0]).r
    assert f"Level slices, alignment of subject sub-1. before: mean {np.nanmean(r):.3f}, highest" in said
    assert "24 voxels of 3 x 3 x 3 mm" in page.text
    assert (small_run.figures / "brain-sub-1-slices.svg").is_file()


def test_subjects_without_a_picture_are_counted(tmp_path: Path, undrawn: None) -> None:
    names = ("s1", "s2", "s3", "s4")
    run = fake_run(tmp_path, subjects=names, epochs=(0,), places=False)
    text = Page(write_report(run).read_text()).text
    assert "Pictures of the first 3 of 4 subjects; brainlit maps writes the numbers of all voxels." in text
    assert "No map for s4" not in text


def test_the_permuted_control_is_marked(tmp_path: Path, undrawn: None) -> None:
    run = fake_run(tmp_path, subjects=("sub-1",), learns=0.0, epochs=(0, 4), control=True, places=False)
    page = Page(write_report(run, state="finished").read_text())
    assert "permuted control: responses shuffled in time" in page.text
    assert "Permuted control: Alignment" in page.text


def test_a_run_without_probes_has_a_report(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "e", "empty")
    text = write_report(run).read_text()
    assert "No probe has been run yet" in text
    assert "provenance.json is missing" in text


def test_names_are_escaped(small_run: RunDirectory, undrawn: None) -> None:
    facts = json.loads((small_run.path / "run.json").read_text())
    write_json(small_run.path / "run.json", {**facts, "model": "<script>alert(1)</script>"})
    assert "<script>alert" not in write_report(small_run).read_text()


def test_what_the_data_set_says_of_itself_is_repeated(small_run: RunDirectory, undrawn: None) -> None:
    facts = json.loads((small_run.path / "run.json").read_text())
    said = {**facts, "data_facts": {"clock": "scanner logs of 3 stories, 2.0045 s", "left out": "life: not heard"}}
    write_json(small_run.path / "run.json", said)
    page = write_report(small_run).read_text()
    assert "data: clock" in page
    assert "scanner logs of 3 stories, 2.0045 s" in page
    assert "life: not heard" in page


def test_only_run_directories_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        write_report(tmp_path)


def test_garbage_is_collected_again_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was_on = []

    def broken(folder: Path) -> None:
        was_on.append(gc.isenabled())
        raise OSError("the disk is gone")

    monkeypatch.setattr(report_module, "find_records", broken)
    with pytest.raises(OSError, match="gone"):
        write_report(RunDirectory.create(tmp_path, "e", "one"))
    assert (was_on, gc.isenabled()) == ([False], True)


def test_a_number_without_a_section_of_its_own_gets_one_by_its_label(
    small_run: RunDirectory, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "r of sound alone" not in Page(write_report(small_run).read_text()).text
    monkeypatch.setitem(report_module.LABELS, "r_low_level", "r of sound alone")
    page = Page(write_report(small_run).read_text())
    summary = json.loads((small_run.path / "summary.json").read_text())
    row = find_score(summary, "semantic", "r_low_level")
    assert row is not None
    assert "r of sound alone" in page.text
    assert f"{row['after']['value']:.3f} [{row['after']['low']:.3f}, {row['after']['high']:.3f}]" in page.text
    assert "low-level features alone" in page.text


def test_maps_that_cannot_be_made_cost_the_run_no_report(
    tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no number on the surface")

    run = fake_run(tmp_path, subjects=("sub-1",), epochs=(0, 4))
    monkeypatch.setattr("brainlit.results.turning_maps.turning_maps", broken)
    with caplog.at_level(logging.WARNING):
        page = Page(write_report(run).read_text())
    assert "The figure 'brain-turning' could not be drawn" in page.text
    assert "no number on the surface" in caplog.text


@pytest.mark.parametrize("n_rows", [84, 34])
def test_words_that_tuning_never_heard_have_a_section(
    n_rows: int, written: tuple[RunDirectory, Page, dict[str, Any]]
) -> None:
    run, plain, _ = written
    assert "tuning never heard" not in plain.text, "nothing is known of words there"
    records = []
    for record in find_records(run.probes):
        alike = [row for row in record.table.rows if row.metric == "r_backbone" and row.layer == record.layer]
        new = [replace(row, metric=UNSEEN_WORDS) for row in alike if n_rows >= 60]
        metrics = (UNSEEN_WORDS, "r_backbone_seen_words")
        words = {"n_content_words": 85, "n_words": dict.fromkeys(metrics, 12), "least_trs": 60}
        facts = {**record.facts, "words": {**words, "n_trs": dict.fromkeys(metrics, n_rows)}}
        records.append(replace(record, table=ScoreTable([*record.table.rows, *new]), facts=facts))
    summary = build_summary(run, records)
    text = Page(render_report(summary, {}, {}, {})).text
    section = text.partition("Alignment on new words")[2].partition("What explains")[0]
    assert "Words that tuning never heard: 12 of 85 content words" in section
    assert ("too few for a number: 60 are needed" in section) == (n_rows == 34)
    row = find_score(summary, "semantic", UNSEEN_WORDS)
    assert (row is None) == (n_rows == 34)
    if row is not None:
        for stage, form in (("before", "{:.3f}"), ("after", "{:.3f}"), ("difference", "{:+.3f}")):
            assert form.format(row[stage]["value"]) in section
            assert form.format(row[stage]["low"]) in section
    assert "12 of 85 content words" in region_table(summary)
    assert ("r, words that tuning never heard" in region_table(summary)) == (n_rows == 84)
