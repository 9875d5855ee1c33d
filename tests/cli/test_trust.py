"""What a run's configuration may do when somebody sent it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.cli import main
from brainlit.cli.run_options import CONFIG_FILE
from brainlit.cli.trust import UntrustedError, config_argument, plain_settings, run_config
from brainlit.guard import UnreadableFileError

SOURCE = {"class_path": "brainlit.demo.DemoSource", "init_args": {"seed": 3}}
GROUP = {"class_path": "brainlit.stories.GroupMean", "init_args": {"source": SOURCE, "members": ["subject_01"]}}
PATH = Path("sent/config.yaml")
EVIL = """
from pathlib import Path
Path(__file__).with_name("it-ran").touch()
class Source: ...
class Profiler: ...
"""


def _config(**changes: Any) -> dict[str, Any]:
    """A configuration as runs have it, with dotted keys changed."""
    config: dict[str, Any] = {
        "seed_everything": 3,
        "run": {"root": "runs"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "precision": "32-true"},
        "data": {"source": SOURCE, "store_dir": "store", "window": {"n_trs": 8}},
        "model": {"backbone": {"family": "wav2vec"}, "front_end_cache": {"max_gb": 1.0, "folder": "/etc"}},
    }
    for key, value in changes.items():
        group = config
        *above, last = key.split("__")
        for name in above:
            group[name] = dict(group.get(name) or {})
            group = group[name]
        group[last] = value
    return config


def test_a_source_within_a_source_is_plain() -> None:
    assert plain_settings(_config(data__source=GROUP), PATH)["data"]["source"] == GROUP


def test_of_a_run_only_plain_settings_are_taken() -> None:
    kept = plain_settings(_config(trainer__profiler="simple", trainer__callbacks=[{"class_path": "a.B"}]), PATH)
    assert kept == {
        "data": {"source": SOURCE, "store_dir": "store", "window": {"n_trs": 8}},
        "model": {"backbone": {"family": "wav2vec"}},
        "trainer": {"accelerator": "cpu", "devices": 1, "precision": "32-true"},
        "seed_everything": 3,
    }


@pytest.mark.parametrize("value", ["os.system", {"class_path": "os.system"}, ["x"], "../x", {"a": 1}])
def test_what_the_trainer_runs_on_is_one_word(value: Any) -> None:
    assert "accelerator" not in plain_settings(_config(trainer__accelerator=value), PATH)["trainer"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__source": {"class_path": "evil.Source"}}, "data.source names the class 'evil.Source'"),
        ({"data__source": {"class_path": "brainlit.files.os.system"}}, "brainlit.files.os.system"),
        ({"data__source": {"class_path": "brainlit.files.FileLock"}}, "which is none of brainlit's"),
        ({"data__source": {"class_path": "brainlit_evil.Source"}}, "which is none of brainlit's"),
        ({"data__source": {"class_path": ["x"]}}, "which is none of brainlit's"),
        ({"data__source": "os.system"}, "data.source is 'os.system'"),
        ({"data__source": {**SOURCE, "init_args": "x.yaml"}}, "data.source.init_args is 'x.yaml'"),
        ({"data__source": {**SOURCE, "init_args": {"seed": {"class_path": "a.B"}}}}, "data.source.seed names a class"),
        (
            {"data__source": {**GROUP, "init_args": {"source": {"class_path": "evil.S"}}}},
            "data.source.source names the",
        ),
        ({"data__window": "elsewhere.yaml"}, "data.window is 'elsewhere.yaml'"),
        ({"data__store_dir": "${oc.env:HOME}/x"}, "holds"),
        ({"model__backbone": "elsewhere.yaml"}, "model.backbone is 'elsewhere.yaml'"),
        ({"model__layer": {"class_path": "a.B"}}, "model.layer names a class"),
        ({"model__unknown": [{"class_path": "a.B"}]}, "model.unknown names a class"),
    ],
)
def test_foreign_classes_and_files_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UntrustedError) as caught:
        plain_settings(_config(**changes), PATH)
    assert said in str(caught.value)
    assert str(PATH) in str(caught.value)
    assert "--trust" in str(caught.value)


@pytest.mark.parametrize(
    "config", [{"data": "x.yaml", "model": {}}, {"model": {}}, {"data": {}, "model": {}, "run": []}]
)
def test_groups_are_groups(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / CONFIG_FILE).write_text(yaml.safe_dump(config))
    with pytest.raises(UnreadableFileError, match="not a group of settings"):
        run_config(tmp_path)


def test_a_trusted_one_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(yaml.safe_dump(_config(data__source={"class_path": "mine.Source"})))
    assert config_argument(tmp_path, trust=True) == ["-c", str(tmp_path / CONFIG_FILE)]
    with pytest.raises(UntrustedError, match=r"mine\.Source"):
        config_argument(tmp_path, trust=False)
    (tmp_path / CONFIG_FILE).write_text(yaml.safe_dump(_config()))
    assert json.loads(config_argument(tmp_path, trust=False)[1])["data"]["source"] == SOURCE


@pytest.fixture
def sent_run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a module beside it that says when it is imported."""
    run = Path(shutil.copytree(finished_run, tmp_path / "sent" / "run"))
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    return run


@pytest.mark.parametrize("verb", ["test", "validate", "predict", "probe", "report", "export", "downstream"])
def test_no_verb_runs_what_a_run_brings(
    verb: str, sent_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((sent_run / CONFIG_FILE).read_text())
    config["data"]["source"] = {"class_path": "evil.Source"}
    config["trainer"]["profiler"] = {"class_path": "evil.Profiler", "init_args": {"dirpath": str(tmp_path / "there")}}
    config["trainer"]["plugins"] = [{"class_path": "evil.Profiler"}]
    (sent_run / CONFIG_FILE).write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    further = {"downstream": ["--task", "words", "--models", "untuned"], "report": [], "export": []}.get(verb, [])
    monkeypatch.setattr("brainlit.results.report.MAX_BRAINS", 0)
    status = main([verb, str(sent_run), *further])
    said = capsys.readouterr().err
    assert not (tmp_path / "it-ran").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"sent", "evil.py"}
    if verb in ("test", "validate", "predict", "probe"):
        assert status == 2
        assert "data.source names the class 'evil.Source'" in said


def test_nothing_is_written_outside_the_run(sent_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((sent_run / CONFIG_FILE).read_text())
    config["data"] |= {"source": SOURCE, "store_dir": str(tmp_path / "elsewhere")}
    (sent_run / CONFIG_FILE).write_text(yaml.safe_dump(config))
    for verb in ("test", "probe"):
        assert main([verb, str(sent_run)]) == 2
        said = capsys.readouterr().err
        assert "which is not there, and this command writes nothing outside the run" in said
        assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["[" * 200_000], "a0.yaml, line 1: nested deeper"),
        ([b"data: \xff"], "a0.yaml is not a config file: byte 6 is no UTF-8"),
        (["data: {store_dir: x", "model: {layer: 1}"], "a0.yaml is not a config file"),
        (["data: {batch_size: '${oc.env:SECRET}'}"], "a0.yaml: data.batch_size reads a variable"),
        (["data: {store_dir: '${run.root}'}", "run: {root: '${data.store_dir}'}"], "a0.yaml with"),
        (["data: {store_dir: '${oc.env:HOME}'}", "run: {tags: ['${data.store_dir}']}"], "a1.yaml: run.tags reads"),
    ],
)
def test_config_files_have_limits(
    files: list[str | bytes], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = []
    for k, content in enumerate(files):
        path = tmp_path / f"a{k}.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        arguments += ["-c", str(path)]
    assert main(["fit", *arguments]) == 2
    assert said in capsys.readouterr().err
