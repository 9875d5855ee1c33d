"""Each published data set, in its layout, becomes a store by its own experiment file and is found without errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainlit.cli import main
from brainlit.stories.regions.hcp_mmp1 import HCP_AREAS
from tests.layouts.alice_bids import write_alice_bids
from tests.layouts.deniz2019 import write_deniz2019
from tests.layouts.narratives import write_areas, write_narratives
from tests.layouts.petit_prince import write_petit_prince

ROOT = Path(__file__).parents[2]
STORIES = "--data.source.init_args.stories"


def _narratives(root: Path) -> None:
    write_narratives(root, stories=("black", "bronx"), runs=("sub-265",))
    write_areas(root, others=sorted(set(HCP_AREAS) - {"A1", "4"}))


DATA_SETS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "narratives": (_narratives, [STORIES, "[black,bronx]"], "sub-265"),
    "deniz2019": (
        write_deniz2019,
        [STORIES, "[alternateithicatom,undertheinfluence,wheretheressmoke]"],
        "subject01",
    ),
    "petit_prince": (
        lambda root: write_petit_prince(root, sections=(1, 8, 9)),
        [STORIES, "[lpp1,lpp8,lpp9]"],
        "sub-EN057",
    ),
    "alice_bids": (write_alice_bids, [], "sub-18"),
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_it_becomes_a_store_without_errors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, options, subject = DATA_SETS[name]
    write(tmp_path / "files")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(f"BRAINLIT_{name.upper()}", str(tmp_path / "files"))
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    where = [f"experiments/data/{name}.yaml", *options, "--data.store_dir", str(tmp_path / "store")]
    assert main(["data", "prepare", *where]) == 0
    capsys.readouterr()
    assert main(["data", "check", *where, "--json"]) == 0
    assert not [finding for finding in json.loads(capsys.readouterr().out) if finding["level"] == "error"]
    assert main(["data", "info", *where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["voxels"]) == [subject]
    assert {"clock", "licence", "citation"} <= said["facts"].keys()


def test_saying_it_again_loads_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_alice_bids(tmp_path / "files")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("BRAINLIT_ALICE_BIDS", str(tmp_path / "files"))
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    command = ["data", "prepare", "experiments/data/alice_bids.yaml", "--data.store_dir", str(tmp_path / "store")]
    assert main(command) == 0
    again = f"import sys; from brainlit.cli import main; main({command!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"The store is ready: {tmp_path / 'store'}", "False"]
