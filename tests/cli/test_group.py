"""A group as a subject, from the config file to the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from brainlit.cli import main
from brainlit.cli.data import _files_named_in
from brainlit.cli.probe_options import parsed_datamodule
from brainlit.results import report
from brainlit.stories import GroupMean, ManifestSource, RegionMeans

ROOT = Path(__file__).parents[2]
CONFIG = """
data:
  source:
    class_path: brainlit.stories.GroupMean
    init_args:
      source:
        class_path: brainlit.stories.RegionMeans
        init_args:
          source: {{class_path: tests.crowd.Crowd, init_args: {{a: 0.5, n_trs: 40}}}}
      beside_members: true
  store_dir: {store}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "group.yaml"
    path.write_text(CONFIG.format(store=tmp_path / "store"))
    return path


def test_a_group_is_prepared_tuned_probed_and_reported(
    config: Path,
    small: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "draw_figures", lambda *_, **__: ({}, {}))
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    for verb, said in (("prepare", "The store is ready"), ("check", "r of each with"), ("info", "mean of 4 people")):
        assert main(["data", verb, str(config)]) == 0
        assert said in capsys.readouterr().out
    arguments = small("--run.root", str(tmp_path / "runs"), "--run.id", "group")
    place = arguments.index("--data.source")
    arguments[place : place + 4] = ["-c", str(config)]
    assert main(["fit", *arguments]) == 2
    assert "group is a mean over people and holds the responses of p1" in capsys.readouterr().err
    assert main(["fit", *arguments, "--data.subjects", "[group]", "--trainer.limit_train_batches", "1"]) == 0

    run = tmp_path / "runs" / "brain_tune" / "group"
    summary = json.loads((run / "summary.json").read_text())
    facts = summary["probe"]["subjects"]["group"]
    assert facts["members"] == {"toy5": ["p1", "p2", "p3", "p4"]}
    assert facts["between_members"]["shared"]["n_members"] == 4
    assert summary["run"]["data_module"]["members"]["group"]["toy5"] == 4
    assert summary["run"]["simulated"]
    assert "of 1 subject (mean of 4 people)," in summary["headline"][0]
    page = (run / "report.html").read_text()
    assert "group is the mean of 4 people, taken as fixed: nothing is shown about single people" in page
    assert "group (mean of 4 people)" in page
    assert "group: r of each with the mean of the others" in page
    assert "mean of 4 people</" in page


def test_the_examples_of_the_documentation_are_groups(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "your_data.md").read_text()
    examples = [one for one in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "data:" in one[:5]]
    found = []
    for example in examples:
        (tmp_path / "example.yaml").write_text(example)
        found.append(parsed_datamodule(["-c", str(tmp_path / "example.yaml")]).source)
    assert [type(source) for source in found] == [GroupMean, GroupMean]
    assert (found[0].group, found[0].beside_members) == ("group", True)
    assert isinstance(found[1].source, RegionMeans)
    assert found[1].source.regions == ["LPTL", "LIPL"]


def test_a_manifest_within_a_group_is_watched_for_changes(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.touch()
    assert _files_named_in([vars(GroupMean(ManifestSource(str(manifest))))]) == [manifest]
