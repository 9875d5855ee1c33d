from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from brainlit.backbones.lora import LoraConfig
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.encoding.config import SolverConfig
from brainlit.probing import shared as module
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import weights_hash
from brainlit.probing.shared import SharedProbe, code_of, own_code, what_decides
from tests.callbacks.toy_module import TOY_PROBE, ToyModule, toy_data


@pytest.fixture(scope="module")
def data(toy_store_path: Path) -> StoryDataModule:
    found = toy_data(toy_store_path)
    found.setup()
    return found


def decided(
    data: StoryDataModule, engine: ProbeEngine | None = None, model: ToyModule | None = None, **changes: Any
) -> Path:
    """Where the probe of these settings would lie."""
    model = model or ToyModule()
    facts = {"headline_region": None, "weights": weights_hash(model), **changes.pop("facts", {})}
    given = {"tuned": data, "more": {"precision": "32-true", "n_processes": 1}, **changes}
    subjects = given.pop("subjects", ["sub-A", "sub-B"])
    settings = what_decides(engine or ProbeEngine(TOY_PROBE), model, data, subjects, facts=facts, **given)
    assert settings is not None
    json.dumps(settings, allow_nan=False)
    return SharedProbe(settings, 1.0).path


def test_the_same_model_data_and_probe_are_the_same(data: StoryDataModule, toy_store_path: Path) -> None:
    again = toy_data(toy_store_path)
    again.setup()
    assert decided(data) == decided(again)


def with_lora(alpha: float) -> ToyModule:
    model = ToyModule()
    vars(model)["lora"] = LoraConfig(rank=4, alpha=alpha)
    return model


def with_attention(name: str) -> ToyModule:
    model = ToyModule()
    vars(model.backbone)["model"] = SimpleNamespace(config=SimpleNamespace(_attn_implementation=name))
    return model


def test_scale_of_lora_and_way_of_attention_count(data: StoryDataModule) -> None:
    models = [with_lora(4.0), with_lora(8.0), with_attention("sdpa"), with_attention("eager")]
    assert len({decided(data, model=model) for model in models}) == len(models)


def changed_weights() -> ToyModule:
    model = ToyModule()
    with torch.no_grad():
        model.backbone.gain[1] += 1e-7
    return model


ENGINES: dict[str, Callable[[], ProbeEngine]] = {
    "seed of the mixtures": lambda: ProbeEngine(replace(TOY_PROBE, seed=1)),
    "device": lambda: ProbeEngine(replace(TOY_PROBE, solver=SolverConfig(device="cuda"))),
    "voxels at a time": lambda: ProbeEngine(replace(TOY_PROBE, solver=SolverConfig(n_targets_batch=7))),
    "leave_out_fit": lambda: ProbeEngine(replace(TOY_PROBE, leave_out_fit=not TOY_PROBE.leave_out_fit)),
    "layers": lambda: ProbeEngine(TOY_PROBE, layers=[0, 2]),
    "compared layer": lambda: ProbeEngine(TOY_PROBE, partition_layer=1),
    "seed of the intervals": lambda: ProbeEngine(TOY_PROBE, bootstrap={"block_trs": 10, "n_bootstraps": 9, "seed": 1}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_another_probe_is_another(data: StoryDataModule, name: str) -> None:
    assert decided(data, ENGINES[name]()) != decided(data)


def test_another_model_or_what_its_records_say_is_another(data: StoryDataModule) -> None:
    paths = [
        decided(data),
        decided(data, model=changed_weights()),
        decided(data, facts={"headline_region": "semantic"}),
        decided(data, facts={"fitted_on_tuned": ["s1"]}),
        decided(data, subjects=["sub-A"]),
        decided(data, more={"precision": "bf16-true", "n_processes": 1}),
        decided(data, more={"precision": "32-true", "n_processes": 2}),
    ]
    assert len(set(paths)) == len(paths)


OTHER_DATA: dict[str, dict[str, Any]] = {
    "stories that are tuned on": {"roles": {"tune": ["toy0"], "fit": ["toy2", "toy3"], "score": ["toy5"]}},
    "subjects that are not": {"subjects": ["sub-A"], "held_out_subjects": ["sub-B"]},
}


@pytest.mark.parametrize("name", OTHER_DATA)
def test_other_choices_of_data_are_others(data: StoryDataModule, toy_store_path: Path, name: str) -> None:
    other = toy_data(toy_store_path, **OTHER_DATA[name])
    other.setup()
    assert decided(other) != decided(data)
    assert decided(data, tuned=other) != decided(data)


def test_all_that_roles_say_counts(data: StoryDataModule, toy_store_path: Path) -> None:
    other = toy_data(toy_store_path)
    other.setup()
    before = decided(other)
    for changed in ({"purge_trs": other.roles.purge_trs + 1}, {"allow": ("tune and fit",)}, {"clocks": {"a": 1}}):
        other.roles = replace(other.roles, **changed)
        assert decided(other) != before
        before = decided(other)


def test_windows_and_batches_count(data: StoryDataModule, toy_store_path: Path) -> None:
    other = toy_data(toy_store_path)
    other.setup()
    for name, value in (("batch_size", 3), ("window", WindowConfig(n_trs=10, context_s=6.0))):
        setattr(other, name, value)
        assert decided(other) != decided(data)
        setattr(other, name, getattr(data, name))
    assert decided(other) == decided(data)


def test_how_a_model_trains_does_not_count(data: StoryDataModule, toy_store_path: Path) -> None:
    permuted = toy_data(toy_store_path, regime="permuted")
    permuted.setup()
    assert decided(permuted) == decided(data)


@pytest.mark.parametrize(
    "what", ["code", "own code", "version", "any package", "processor", "threads", "variable", "deterministic", "store"]
)
def test_other_code_machine_or_store_is_another(
    data: StoryDataModule, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before, n_threads = decided(data), torch.get_num_threads()
    if what == "code":
        monkeypatch.setattr(module, "source_hash", lambda: "other")
    elif what == "version":
        monkeypatch.setattr(module, "package_versions", lambda: {"torch": "0"})
    elif what == "own code":
        monkeypatch.setattr(module, "own_code", lambda: "other")
    elif what == "any package":
        monkeypatch.setattr(module, "installed_hash", lambda: "other")
    elif what == "variable":
        monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    elif what == "deterministic":
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    elif what == "processor":
        monkeypatch.setattr(module, "processor", lambda: "other")
    elif what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads + 1)
    else:
        first = next(iter(data.store.index.subjects.values()))
        monkeypatch.setitem(vars(first), "sha256", "0" * 64)
    assert decided(data) != before


def test_code_of_parts_is_hashed_and_parts_without_code_are_not_shared() -> None:
    assert code_of(ToyModule()) == code_of(ToyModule())
    assert code_of(ToyModule()) != code_of(nn.Linear(1, 1))
    typed = type("Typed", (nn.Module,), {"__module__": "__console__"})
    assert code_of(nn.Sequential(typed())) is None


def test_loaded_code_of_no_package_counts_and_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_model_of_a_test.py").write_text("import own_part_of_a_test")
    part = tmp_path / "own_part_of_a_test.py"
    part.write_text("gain = 1")
    found = [own_code()]
    importlib.import_module("own_model_of_a_test")
    found.append(own_code())
    part.write_text("gain = 2")
    module._hash_of_files.cache_clear()  # a process reads its code once
    found.append(own_code())
    for name in ("own_model_of_a_test", "own_part_of_a_test"):
        monkeypatch.delitem(sys.modules, name)
    found.append(own_code())
    assert len(set(found)) == 3
    assert found[0] == found[3], "what is not loaded does not count, nor do installed packages"


def test_all_code_of_brainlit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "brainlit" / "probing"
    folder.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(folder / "shared.py"))
    found = []
    for name, text in (("probing/shared.py", "one = 1"), ("results/scores.py", "two = 2"), ("results/scores.py", "")):
        (tmp_path / "brainlit" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "brainlit" / name).write_text(text)
        found.append(module.source_hash.__wrapped__())
    assert len(set(found)) == 3


def test_where_code_lies_does_not_count(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "z"
    for folder, names in ((here, ("one.py", "two.py")), (there, ("two.py", "one.py"))):
        folder.mkdir()
        for name, text in zip(names, ("x = 1", "y = 2"), strict=True):
            (folder / name).write_text(text)
    files = [tuple(sorted(str(path) for path in folder.iterdir())) for folder in (here, there)]
    assert module._hash_of_files(files[0]) == module._hash_of_files(files[1])
    (there / "one.py").write_text("y = 3")
    assert module._hash_of_files.__wrapped__(files[1]) != module._hash_of_files(files[0])
