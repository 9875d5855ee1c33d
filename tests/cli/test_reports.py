"""`brainlit compare` and `export`: the commands of docs/comparing.md and docs/export.md, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any, ClassVar

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from brainlit.cli import main
from tests.comparison.planted_runs import planted_run

Command = Callable[..., list[str]]
DOCS = Path(__file__).parents[2] / "docs"
MARKED = "# Demo\n<!-- claims:begin -->\n<!-- claims:end -->\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Brain and permuted runs of two seeds under runs/reproduce, and a page with markers."""
    root = tmp_path_factory.mktemp("compare")
    for seed in (11, 12):
        for regime in ("pretrained", "brain", "permuted"):
            planted_run(root / "runs", seed, regime)
    (root / "docs").mkdir()
    (root / "docs" / "demo.md").write_text(MARKED)
    return root


def commands_of(page: str, verb: str) -> list[str]:
    """The commands of a page that use the verb, without the program's name."""
    return re.findall(rf"^brainlit ({verb} .*)$", (DOCS / page).read_text(), re.MULTILINE)


def snippet_of(page: str) -> str:
    """The one block of Python of a page."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return code


def expanded(command: str) -> list[str]:
    """As a shell would."""
    return [name for word in shlex.split(command) for name in (sorted(glob(word)) or [word])]  # noqa: PTH207


def test_the_commands_of_the_page_do_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("brainlit.comparison.report.comparison_figures", lambda _: [])
    commands = commands_of("comparing.md", "compare")
    assert len(commands) == 3
    for command in commands:
        assert main(expanded(command)) == 0, command
    out = capsys.readouterr().out
    assert "| wav2vec (tiny) | 11 | 0.320 | 0.492 | +54 % |" in out
    assert "| alignment rises more than with permuted responses (" in out
    assert "alignment rises in auditory voxels" in out
    page = (folder / "docs" / "demo.md").read_text()
    assert page.startswith("# Demo\n<!-- claims:begin -->\n**The listeners are simulated: this shows that the method")
    assert "\n\nwav2vec (tiny), 2 seeds: alignment r with semantic voxels is 0." in page
    assert "\n\n**wav2vec (tiny)**, 2 seeds (11, 12); semantic voxels" in page
    assert page.endswith("<!-- claims:end -->\n")
    assert (folder / "runs" / "reproduce" / "report.html").is_file()
    assert json.loads((folder / "comparison" / "claims.json").read_text())["region"] == "auditory"
    exec(snippet_of("comparing.md"), {})
    assert "supported" in capsys.readouterr().out


def test_a_page_without_markers_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    assert main(["compare", str(tmp_path / "no_run"), "--into", str(page)]) == 2
    assert "needs the lines <!-- claims:begin -->" in capsys.readouterr().err


def test_runs_without_a_pair_still_get_their_claims(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder / "runs" / "reproduce" / "wav2vec-brain-11")]) == 0
    out = capsys.readouterr().out
    assert "| model | seed |" not in out
    assert "cannot tell with this n" in out
    assert "- wav2vec (tiny), permuted: no run of any seed" in out


def test_what_cannot_be_compared_is_refused_in_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = folder / "runs" / "reproduce"
    copy = tmp_path / "copy"
    shutil.copytree(runs / "wav2vec-brain-11", copy)
    for arguments, words in (
        ([str(tmp_path / "nothing")], "has no summary.json"),
        ([str(runs / "wav2vec-brain-11"), "--region", "semantc"], "Did you mean 'semantic'?"),
        ([str(runs / "wav2vec-brain-11"), str(copy)], "have the regime 'brain'; name only one of them"),
    ):
        assert main(["compare", *arguments]) == 2
        assert words in capsys.readouterr().err


# --- export ---


def test_the_page_has_its_commands() -> None:
    assert len(commands_of("export.md", "export")) == 4


class FakeHub:
    """The part of huggingface_hub.HfApi that an upload uses; remembers what it was asked."""

    refuses: OSError | None = None
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    files: ClassVar[set[str]] = set()

    def whoami(self) -> dict[str, str]:
        """As the hub answers a token that it knows."""
        return {"name": "lab"}

    def create_repo(self, repo: str, **options: Any) -> None:
        """Nothing is made."""
        self.asked.append((repo, options))

    def upload_folder(self, **options: Any) -> None:
        """Looks at what would be sent."""
        if self.refuses is not None:
            raise self.refuses
        self.asked.append((options["repo_id"], options))
        self.files.update(path.name for path in Path(options["folder_path"]).iterdir())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    import huggingface_hub

    class Fresh(FakeHub):
        asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []
        files: ClassVar[set[str]] = set()

    monkeypatch.setattr(huggingface_hub, "HfApi", Fresh)
    return Fresh


def test_the_commands_of_the_page_and_its_snippet(
    finished_run: Path,
    tmp_path: Path,
    hub: type[FakeHub],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import ModelCard

    monkeypatch.chdir(tmp_path)
    for command in commands_of("export.md", "export"):
        arguments = command.replace("runs/brain_tune/ID", str(finished_run)).split()
        assert main(arguments) == 0, capsys.readouterr().err
    assert hub.asked[0] == ("USER/NAME", {"private": True, "exist_ok": True})
    assert hub.files == {path.name for path in (finished_run / "export").iterdir()} >= {"README.md", "config.json"}
    card = ModelCard.load(finished_run / "export" / "README.md").data
    assert card.to_dict()["license"], "what the hub asks of a card"
    assert "brain-tuning" in card.to_dict()["tags"]
    assert "with its card: models/tuned" in capsys.readouterr().out
    said = json.loads((finished_run / "export" / "config.json").read_text())["brainlit"]
    assert (said["run"], said["regime"]) == ("brain_tune/finished", "brain")
    card = (finished_run / "export" / "README.md").read_text()
    assert "'After' is of the weights in this folder" in card
    assert "The listeners are simulated." in card
    loaded: dict[str, object] = {}
    exec(snippet_of("export.md"), loaded)
    assert type(loaded["model"]).__name__ == "Wav2Vec2Model"


def test_what_is_not_there_is_said(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert main(["export", str(finished_run), "--checkpoint", "bset"]) == 2
    assert "give best, last or a file. The run has: best.ckpt, last.ckpt" in capsys.readouterr().err
    (tmp_path / "mine.txt").touch()
    assert main(["export", str(finished_run), "--output", str(tmp_path)]) == 2
    assert "something else than an export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "answer", "words"),
    [
        (["--push", "tuned"], None, "--push tuned names no owner; give USER/NAME."),
        (["--push", "lab/a name"], None, "--push lab/a name: Repo id must use alphanumeric chars"),
        (["--public"], None, "--public is for --push USER/NAME"),
        (["--push", "lab/tuned"], LocalTokenNotFoundError("no token"), "nobody is logged in. Run `hf auth login`"),
        (["--push", "lab/tuned"], ConnectionError("no route"), "the hub does not answer, or not to this token"),
    ],
)  # fmt: skip
def test_an_upload_that_cannot_be_is_refused_before_anything_is_exported(
    arguments: list[str],
    answer: OSError | None,
    words: str,
    hub: type[FakeHub],
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def whoami(_: FakeHub) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(hub, "whoami", whoami)
    output = tmp_path / "tuned"
    assert main(["export", str(finished_run), "--output", str(output), *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not output.exists()
    assert not hub.asked


def test_an_upload_that_fails_leaves_the_export(
    hub: type[FakeHub],
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hub, "refuses", OSError("413 too large"))
    output = tmp_path / "tuned"
    assert main(["export", str(finished_run), "--output", str(output), "--push", "lab/tuned", "--public"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"{output} could not be uploaded to lab/tuned: 413 too large. It stays here whole" in error
    assert (output / "model.safetensors").is_file()
    assert hub.asked == [("lab/tuned", {"private": False, "exist_ok": True})]
