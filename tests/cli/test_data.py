"""`brainlit data` on stores that are whole, missing and broken, and on raw files that are published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import brainlit
from brainlit.cli import main
from brainlit.cli.data import EXAMPLES, known_store, remember_store
from brainlit.features import FeatureConfig
from brainlit.store import build_store
from brainlit.stories import Remote, Story
from tests.store.test_schema import OnDisk
from tests.stories.local_server import BUCKET, LocalServer
from tests.toy import ToySource

Command = Callable[..., list[str]]


def test_prepare_check_and_info_by_options(small: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = small("--data.store_dir", str(tmp_path / "store"))
    assert main(["data", "info", *options]) == 2
    assert "brainlit data prepare CONFIG" in capsys.readouterr().err
    assert main(["data", "prepare", *options]) == 0
    assert f"The store is ready: {tmp_path / 'store'}" in capsys.readouterr().out
    assert main(["data", "info", *options]) == 0
    assert "240 of 2.0 s" in capsys.readouterr().out
    assert main(["data", "check", *options]) == 0


def test_a_store_is_given_by_its_folder(toy_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(toy_store_path)]) == 0
    assert "toy0, toy1" in capsys.readouterr().out


def test_a_config_file_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "toy.yaml"
    config.write_text(f"data:\n  source: {{class_path: tests.toy.ToySource}}\n  store_dir: {tmp_path / 'store'}\n")
    assert main(["data", "prepare", str(config)]) == 0
    assert (tmp_path / "store" / "store.json").is_file()
    assert main(["data", "prepare", str(config), "--data.source.init_args.seed", "5"]) == 2
    assert "seed" in capsys.readouterr().err, "a store of other settings is refused"


def test_a_config_of_a_probe_says_which_data_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "toy.yaml"
    data = f"data:\n  source: {{class_path: tests.toy.ToySource}}\n  store_dir: {tmp_path / 'store'}\n"
    config.write_text(data + "probe:\n  layers: [0]\n  bands: {word_rate: [word_rate]}\n")
    assert main(["data", "prepare", str(config)]) == 0
    assert (tmp_path / "store" / "store.json").is_file()
    assert main(["data", "prepare", str(config), "--probe.layerz", "[1]"]) == 2
    assert "layerz" in capsys.readouterr().err


def test_a_truncated_store_fails_the_check(
    toy_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(toy_store_path, store)
    file = store / "stories" / "toy0.h5"
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["data", "check", str(store)]) == 1
    assert "toy0.h5" in capsys.readouterr().out
    assert main(["data", "check", "--json", str(store)]) == 1
    finding = json.loads(capsys.readouterr().out)[0]
    assert (finding["level"], finding["where"]) == ("error", "stories/toy0.h5")


def test_info_for_programs(toy_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(toy_store_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["voxels"] == {"sub-A": 12, "sub-B": 12}


def test_wrong_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info"]) == 2
    assert "needs a store's folder or a config" in capsys.readouterr().err
    assert main(["data", "downloads", "x.yaml"]) == 2
    assert "Did you mean 'download'?" in capsys.readouterr().err
    assert main(["data"]) == 2
    assert "brainlit data ACTION --help says more" in capsys.readouterr().out


@pytest.mark.parametrize("action", EXAMPLES)
def test_each_action_tells_its_exit_status(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["data", action, "--help"])
    said = capsys.readouterr().out
    assert f"usage: brainlit data {action}" in said
    assert "exit status: 0" in said


# --- Raw files that are published ---


class PublishedToy(ToySource):
    """The toy, with a file for each story and each subject that must be there."""

    def __init__(self, root: str, subjects: list[str] | None = None) -> None:
        super().__init__()
        self.root, self.subjects = Path(root), subjects or ["sub-A", "sub-B"]

    def subject_names(self) -> list[str]:
        return self.subjects

    def story(self, name: str) -> Story:
        if not (self.root / f"{name}.wav").is_file():
            raise FileNotFoundError(f"{self.root / name}.wav does not exist: the sound of {name}.")
        return super().story(name)

    def remote(self) -> Remote:
        stories = [f"{name}.wav" for name in self.story_names()]
        return Remote(f"s3://{BUCKET}/toy", self.root, (*stories, *(f"{s}/*.hf5" for s in self.subjects)), "CC0")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalServer, list[str], Path]]:
    """A server with the toy's files, the options that name it, and where its files go."""
    objects = {f"toy/toy{k}.wav": b"sound" for k in range(6)}
    server = LocalServer(objects | {f"toy/sub-{letter}/r.hf5": b"responses" for letter in "AB"})
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "toy.yaml"
    config.write_text(
        "data:\n  source:\n    class_path: tests.cli.test_data.PublishedToy\n"
        f"    init_args: {{root: {tmp_path / 'files'}}}\n  store_dir: {tmp_path / 'store'}\n"
    )
    yield server, ["-c", str(config)], tmp_path / "files"
    server.stop()


def test_missing_files_are_told_then_downloaded_then_prepared(
    published: tuple[LocalServer, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, options, root = published
    assert main(["data", "prepare", *options]) == 2
    said = capsys.readouterr().err
    assert "toy0.wav does not exist" in said
    assert f"8 of 8 files of the data set are not in {root} (toy0.wav, ...)" in said
    assert f"brainlit data download {' '.join(options)}" in said

    assert main(["data", "download", *options, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "licence: CC0" in said
    assert "*.wav" in said
    assert not root.exists()

    assert main(["data", "download", *options, "--no-progress"]) == 0
    assert "8 by MD5" in capsys.readouterr().out
    assert (root / "sub-B" / "r.hf5").read_bytes() == b"responses"
    assert main(["data", "prepare", *options]) == 0
    assert "The store is ready" in capsys.readouterr().out


def test_prepare_downloads_when_asked_and_only_what_the_store_needs(
    published: tuple[LocalServer, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, options, root = published
    assert main(["data", "prepare", *options, "--download"]) == 0
    assert "8 by MD5" in capsys.readouterr().out
    shutil.rmtree(root)
    server.stop()
    assert main(["data", "prepare", *options, "--download"]) == 0, "a finished store needs no files"
    assert not root.exists()


def test_only_the_asked_subjects_are_downloaded_and_prepared(
    published: tuple[LocalServer, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, options, root = published
    options += ["--data.subjects", "[sub-A]", "--data.source.init_args.subjects", "${data.subjects}"]
    assert main(["data", "download", *options, "--no-progress"]) == 0
    assert (root / "sub-A" / "r.hf5").is_file()
    assert not (root / "sub-B").exists()
    assert main(["data", "prepare", *options]) == 0
    capsys.readouterr()
    assert main(["data", "info", *options, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["voxels"]) == ["sub-A"]


def test_a_download_that_fails_is_status_2_and_names_the_file(
    published: tuple[LocalServer, list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, options, root = published
    del server.objects["toy/toy3.wav"]
    assert main(["data", "download", *options]) == 2
    assert "toy3.wav: did you mean toy" in capsys.readouterr().err
    server.objects["toy/toy3.wav"] = b"sound"
    server.wrong["toy/toy3.wav"] = 2
    assert main(["data", "download", *options, "--no-progress"]) == 2
    assert "toy3.wav: what came is not what was published" in capsys.readouterr().err
    (root / "toy1.wav").write_bytes(b"my own")
    assert main(["data", "download", *options, "--no-progress", "--on-difference", "keep"]) == 0
    assert "Kept although they differ from the published files: toy1.wav" in capsys.readouterr().out


def test_what_cannot_be_downloaded_is_said(
    small: Command, toy_store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "download", *small()]) == 2
    assert "there is nothing to download for 'toy' (ToySource)" in capsys.readouterr().err
    assert main(["data", "download", str(toy_store_path)]) == 2
    assert "needs the config of a data set" in capsys.readouterr().err


# --- The memory of prepared stores: right as long as nothing changed, silent as soon as anything did ---


Change = Callable[[Path, pytest.MonkeyPatch], object]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_ROOT", "here")
    (tmp_path / "data.yaml").write_text("root: ${oc.env:TOY_ROOT}")
    (tmp_path / "vectors.txt").write_text("a 1 2")
    source = OnDisk(tmp_path / "raw")
    build_store(source, tmp_path / "store", progress=False).close()
    features = FeatureConfig(vectors=str(tmp_path / "vectors.txt"))
    return SimpleNamespace(source=source, features=features, store_dir=str(tmp_path / "store"))


def command(folder: Path) -> list[str]:
    return ["-c", str(folder / "data.yaml"), "--data.subjects", "[sub-A]"]


def test_a_command_that_was_never_run_is_not_known(tmp_path: Path, data: Any) -> None:
    assert known_store(command(tmp_path)) is None


def test_the_same_command_is_known_and_no_other(tmp_path: Path, data: Any) -> None:
    remember_store(command(tmp_path), data)
    assert known_store(command(tmp_path)) == tmp_path / "store"
    assert known_store([*command(tmp_path), "--data.seed", "3"]) is None
    assert known_store([f"--config={tmp_path / 'data.yaml'}"]) is None


CHANGES: dict[str, Change] = {
    "a config file": lambda folder, patch: (folder / "data.yaml").write_text("root: there"),
    "the environment": lambda folder, patch: patch.setenv("TOY_ROOT", "there"),
    "a source file": lambda folder, patch: (folder / "raw" / "toy3").write_text("changed"),
    "a source file is gone": lambda folder, patch: (folder / "raw" / "sub-B").unlink(),
    "a new file beside the sources": lambda folder, patch: (folder / "raw" / "toy3.report").write_text("log"),
    "the file of word vectors": lambda folder, patch: (folder / "vectors.txt").write_text("b 1 2"),
    "a file of the store": lambda folder, patch: (folder / "store" / "stories" / "toy0.h5").unlink(),
    "the whole store": lambda folder, patch: (folder / "store" / "store.json").unlink(),
    "the software": lambda folder, patch: patch.setattr(brainlit, "__version__", "99"),
    "the folder": lambda folder, patch: patch.chdir(folder),
    "the memory itself": lambda folder, patch: next((folder / "cache" / "prepared").iterdir()).write_text("{"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_takes_the_long_way(tmp_path: Path, data: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_store(command(tmp_path), data)
    CHANGES[what](tmp_path, monkeypatch)
    assert known_store(command(tmp_path)) is None
