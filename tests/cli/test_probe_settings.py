"""--probe.NAME to fit: the same settings as `brainlit probe` takes, in the probes among trainer.callbacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit.cli.errors import UsageError
from brainlit.cli.probe_settings import typed_settings
from brainlit.cli.training import parsed

ROOT = Path(__file__).parents[2]
CONFIGS = [
    part
    for name in ("brain_tune", "model/wav2vec", "data/demo")
    for part in ("-c", str(ROOT / f"experiments/{name}.yaml"))
]


def _probes(*options: str) -> list[dict[str, Any]]:
    callbacks = parsed("fit", [*CONFIGS, *options]).resolved["trainer"]["callbacks"]
    return [one["init_args"] for one in callbacks if one["class_path"].endswith(".BandedRidgeProbe")]


def test_settings_of_the_probe_are_options_of_fit() -> None:
    (plain,) = _probes()
    (found,) = _probes(
        *("--probe.alphas", "[0.1,1]", "--probe.solver.precision=float64", "--probe.layers", "[0,-1]"),
        *("--trainer.max_epochs", "3", "--probe.temporal.low_level", "fir", "--probe.seed", "7"),
    )
    assert found["layers"] == [0, -1]
    assert found["seed"] == found["probe"]["seed"] == 7
    changed = {"alphas": [0.1, 1.0], "seed": 7, "temporal": {"low_level": "fir"}}
    solver = plain["probe"]["solver"] | {"precision": "float64"}
    assert found["probe"] == plain["probe"] | changed | {"solver": solver}
    assert {key: value for key, value in found.items() if key not in ("probe", "layers", "seed")} == {
        key: value for key, value in plain.items() if key not in ("probe", "layers", "seed")
    }


def test_what_the_probe_does_not_know_is_refused_where_it_is_typed() -> None:
    assert typed_settings(["--probe.n_folds", "5"]) == {"n_folds": 5}
    assert typed_settings(["--probe.purge_trs", "null"]) == {"purge_trs": None}
    for options, words in (
        (["--probe.n_folds", "many"], "probe.n_folds"),
        (["--probe.fold", "3"], "Did you mean --probe.n_folds?"),
        (["--probe.solver.device"], "expected one argument"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            parsed("fit", [*CONFIGS, *options])
    with pytest.raises(UsageError, match=r"has none: there is no brainlit\.callbacks\.BandedRidgeProbe"):
        parsed("fit", [*CONFIGS[2:], "--probe.n_folds", "3"])


def test_the_printed_configuration_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("fit", [*CONFIGS, "--probe.alphas", "[0.5,5]", "--print_config"])
    (probe, *_) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert probe["init_args"]["probe"]["alphas"] == [0.5, 5.0]
