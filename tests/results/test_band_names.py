"""A probe of four bands of chosen names, from the store to every place where its numbers are read."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.cli import main
from brainlit.encoding import ProbeConfig
from brainlit.encoding.config import BAND_NAME, BANDS
from brainlit.results import report
from brainlit.results.band_names import bands_among, formulas, labels
from brainlit.results.figures import partition_figure
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.scores import FORMULAS, LABELS
from brainlit.results.style import BAND_COLOURS, part_colours, part_hatches
from tests.callbacks.toy_module import ToyModule, toy_data, toy_probe, toy_trainer
from tests.toy import TwoMeanings

OWN = "{low_level: null, word_vectors: [glove], context: [context]}"
FAST = ["--probe.n_bootstraps", "50", "--probe.n_gammas", "{1: 1, 2: 2, 3: 2}", "--probe.block_trs", "8"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    data = toy_data(folder / "store", TwoMeanings())
    data.prepare_data()
    data.setup()
    rows = {f"toy{k}": data.store.band(f"toy{k}", ["envelope", "glove"]) for k in range(6)}
    np.savez(folder / "features.npz", **rows)
    (folder / "data.yaml").write_text(
        "data:\n  source: {class_path: tests.toy.TwoMeanings}\n"
        f"  store_dir: {folder / 'store'}\n  window: {{n_trs: 8}}\n"
    )
    (folder / "bands.yaml").write_text(f"probe:\n  bands: {OWN}\n  temporal: {{context: fir}}\n")
    return folder


def probe(store: Path, output: Path, *options: str) -> int:
    where = ["--features", str(store / "features.npz"), "-c", str(store / "data.yaml"), "--output", str(output)]
    return main(["probe", *where, *FAST, "--probe.layers", "[0]", "--data.subjects", "[sub-A]", *options])


@pytest.fixture(scope="module")
def probed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("probed") / "own"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "MAX_BRAINS", 0)
        assert probe(store, output, "-c", str(store / "bands.yaml")) == 0
    return output


def test_every_table_has_the_names_that_were_chosen(probed: Path) -> None:
    summary = json.loads((probed / "summary.json").read_text())
    found = {row["metric"] for row in summary["scores"]}
    parts = {metric.removeprefix("partition_") for metric in found if metric.startswith("partition_")}
    assert len(parts) == 15
    assert {"context", "word_vectors", "backbone&context", "backbone&low_level&context&word_vectors"} <= parts
    assert {"r_word_vectors", "r2_context", "split_context", "r2_backbone+context", "low_level_share"} <= found
    assert not any("semantic" in metric for metric in found)
    spaces = {"low_level": ["envelope"], "word_vectors": ["glove"], "context": ["context"]}
    assert summary["probe"]["bands"] == spaces
    assert summary["formulas"]["r_word_vectors"] == "as alignment, word vectors features alone"
    assert "the 15 nested models" in summary["formulas"]["partition"]
    page = (probed / "report.html").read_text()
    assert "low-level: envelope; word vectors: glove; context: context" in page
    assert "R² of context" in page
    (table,) = [path for path in probed.glob("*.csv") if "metric" in path.read_text().splitlines()[0]]
    with table.open() as file:
        assert {f"partition_{part}" for part in parts} <= {row["metric"] for row in csv.DictReader(file)}


def test_the_printed_table_has_all_parts_which_add_up(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw_figures", lambda *_: ({}, {}))
    assert probe(store, tmp_path / "two", "--probe.bands", "{word_vectors: [glove]}") == 0
    said = capsys.readouterr().out
    cells = dict(re.findall(r"^\| ([^|]+?) +\| ([-\d.]+)", said, re.MULTILINE))
    parts = [float(value) for name, value in cells.items() if name.startswith("part: ")]
    names = ["part: only speech model", "part: only word vectors", "part: speech model + word vectors"]
    assert [name for name in cells if name.startswith("part: ")] == names
    assert sum(parts) == pytest.approx(float(cells["R2 of all bands"]), abs=0.002)
    assert "low-level share" not in cells
    assert "no band of the probe is named low_level" in (tmp_path / "two" / "summary.json").read_text()


def test_a_space_that_is_not_there_is_one_clear_error(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(store, tmp_path / "none", "--probe.bands", "{context: [kontext]}") == 2
    said = capsys.readouterr().err
    assert "probe.bands.context names the feature space 'kontext'" in said
    assert "Did you mean 'context'?" in said
    assert "Traceback" not in said


def test_records_of_the_default_do_not_change_and_others_are_told_apart(store: Path, tmp_path: Path) -> None:
    data = toy_data(store / "store", TwoMeanings())
    data.prepare_data()
    data.setup()
    base = toy_probe().engine
    written = replace(base.config, bands={"semantic": None, "low_level": None})
    own = replace(base.config, bands={"low_level": None, "semantic": ["glove"]})
    prints = [toy_probe(probe=config).engine.fingerprint(data, "sub-A") for config in (base.config, written, own)]
    assert prints[0] == prints[1] != prints[2]
    toy_trainer(tmp_path, toy_probe(probe=own, layers=[1]), epochs=0).fit(ToyModule(), data)
    records: list[ProbeRecord] = find_records(tmp_path / "probes")
    assert [record.facts["bands"]["semantic"] for record in records] == [["glove"], ["glove"]]


def test_names_of_bands_cannot_be_mistaken_for_other_numbers() -> None:
    taken = {metric.partition("_")[2] for metric in (*FORMULAS, *LABELS) if re.match(r"r2?_|split_|partition_", metric)}
    free = {name for name in taken if BAND_NAME.fullmatch(name)}
    assert free == {"semantic", "low_level"}


def test_labels_and_formulas_of_the_three_bands_are_those_of_ever() -> None:
    assert list(labels(BANDS).items()) == list(LABELS.items())
    assert formulas(BANDS) == FORMULAS
    assert bands_among(LABELS) == BANDS
    assert ProbeConfig().band_names == BANDS


def test_parts_have_colours_of_their_own(probed: Path) -> None:
    assert part_colours(BAND_COLOURS) == BAND_COLOURS
    summary = json.loads((probed / "summary.json").read_text())
    parts = [metric.removeprefix("partition_") for metric in labels(bands_among(r["metric"] for r in summary["scores"]))
             if metric.startswith("partition_")]  # fmt: skip
    looks = zip(part_colours(parts).values(), part_hatches(parts).values(), strict=True)
    assert len(set(looks)) == len(parts)
    figure = partition_figure(summary)
    assert figure is not None
    assert "only word vectors" in figure.alt
