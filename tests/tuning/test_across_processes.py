"""Several processes with their parts of each batch take the steps of one process that has them whole."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from brainlit.backbones import BackboneConfig
from brainlit.tuning import AnchorConfig, BrainTuning, HeadConfig, LossConfig, ObjectiveConfig
from brainlit.tuning.across_processes import gather_in_first, mean_over_rows, sum_over_processes
from brainlit.tuning.losses import LOSSES
from tests.backbones.conftest import save_mini
from tests.tuning.conftest import FakeData

N_RANKS = 3
N_STEPS, N_STEPS_SHORT = 20, 2
LONG = ("mse",)
SIZES = (7, 2, 5)
"""Windows of a step, in turn: none of them goes evenly into three, and one leaves a process without any."""
CEILINGS = {"S1": [0.2, 0.5, 0.9], "S2": [0.1, float("nan"), 0.4, 0.8, 0.3]}
Settings = dict[str, Any]

CASES: dict[str, Settings] = {
    **{name: {"loss": LossConfig(name=name)} for name in LOSSES},
    "sum": {"loss": LossConfig(over_subjects="sum")},
    "bottleneck": {
        "head": HeadConfig(kind="bottleneck", rank=4, dropout=0.0),
        "loss": LossConfig("temporal_correlation"),
    },
    "contrastive": {"objective": ObjectiveConfig(targets=1.0, self_supervised=1.0, n_negatives=6)},
    "ctc": {"objective": ObjectiveConfig(targets=0.0, ctc=1.0)},
    "distillation": {"anchor": AnchorConfig(kind="distillation", weight=1.0)},
    "masked": {
        "family": "hubert",
        "objective": ObjectiveConfig(targets=0.0, self_supervised=1.0, n_clusters=6, kmeans_frames=300),
    },
}


class LossOf(nn.Module):
    """What DDP wraps: a module whose forward is the loss."""

    def __init__(self, module: BrainTuning) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.module.losses(batch)["loss"]


def part_of(batch: dict[str, Any], rank: int, n_ranks: int) -> dict[str, Any]:
    """Windows rank, rank + n_ranks, ... of a batch; one that is silent and counts for nothing where there are none."""
    n_windows = len(batch["audio"])
    own = list(range(rank, n_windows, n_ranks))

    def chosen(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: chosen(part) for name, part in value.items()}
        if isinstance(value, list):
            return [value[k] for k in own or [0]]
        picked = value[own or [0]]
        return picked if own or picked.dtype != torch.bool else torch.zeros_like(picked)

    part: dict[str, Any] = chosen(batch)
    if not own:
        part["text"] = [""]
    return part


def batches(n_steps: int) -> Iterator[dict[str, Any]]:
    data = FakeData(n_windows=sum(SIZES) * 2)
    first = 0
    for step in range(n_steps):
        size = SIZES[step % len(SIZES)]
        items = [data.items[(first + k) % len(data.items)] for k in range(size)]
        first += size
        batch = torch.utils.data.default_collate(items)
        for name, values in batch["targets"].items():  # else voxels are copies, which do not vary over space
            batch["targets"][name] = values + torch.linspace(-1, 1, values.shape[2]) * values.cumsum(1)
        yield batch


def trained(folder: Path, name: str, rank: int = 0, n_ranks: int = 1) -> dict[str, Any]:
    """Losses of all steps, the gradients of the first and the weights after the last."""
    settings = {"head": HeadConfig(dropout=0.0), **CASES[name]}
    family = settings.pop("family", "wav2vec")
    backbone = BackboneConfig(family=family, weights=str(folder / family))
    module = BrainTuning(backbone=backbone, seed=3, **settings)
    if module.objective.targets:
        module.build_head({"S1": 3, "S2": 5})
        if LOSSES[module.loss_config.name].needs_ceilings:
            from brainlit.tuning.losses import TargetLoss

            module.target_loss = TargetLoss(module.loss_config, CEILINGS)
    if module.objective.ctc:
        module._build_ctc(" ghilow")
    for objective in module.objectives.values():
        objective.prepare(module.backbone, batches(3))  # type: ignore[operator]
    module.train()
    module.backbone.eval()
    loss_of: nn.Module = LossOf(module)
    if n_ranks > 1:
        loss_of = DistributedDataParallel(loss_of, find_unused_parameters=True)
    # Not Adam: it makes a step of any gradient, also of one that is 0 but for rounding.
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    losses, first = [], {}
    for batch in batches(N_STEPS if name in LONG else N_STEPS_SHORT):
        optimizer.zero_grad()
        loss = loss_of(part_of(batch, rank, n_ranks))
        loss.backward()
        losses.append(float(loss.detach()))
        first = first or {key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None}
        optimizer.step()
    return {"losses": losses, "gradients": first, "weights": {k: p.detach() for k, p in module.named_parameters()}}


def run_together(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=N_RANKS)
    own = torch.arange(3.0) + rank
    own.requires_grad_()
    total = sum_over_processes(own)
    (total**2).sum().backward()
    found: dict[str, Any] = {"total": total.detach(), "gradient": own.grad, "n": sum_over_processes(torch.tensor(rank))}
    found["mean"] = mean_over_rows(torch.full((rank, 2), float(rank)))
    found["gathered"] = gather_in_first([{"rank": rank, "rows": torch.full((2,), rank)}] * rank)
    found |= {name: trained(folder, name, rank, N_RANKS) for name in CASES}
    torch.save(found, folder / f"found-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes found, and the models that they began with."""
    path = tmp_path_factory.mktemp("across")
    save_mini(path / "wav2vec", codevector_dim=12, proj_codevector_dim=10, num_codevectors_per_group=8)
    save_mini(path / "hubert", "hubert")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tuning.test_across_processes"])
    workers = [context.Process(target=run_together, args=(rank, path)) for rank in range(N_RANKS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
        worker.kill()
    assert [worker.exitcode for worker in workers] == [0] * N_RANKS
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"found-{rank}.pt", weights_only=True) for rank in range(N_RANKS)]


def test_sums_are_those_of_all_and_their_gradients_average_to_the_true_one(found: list[dict[str, Any]]) -> None:
    expected = 3 * torch.arange(3.0) + (0 + 1 + 2)
    for part in found:
        torch.testing.assert_close(part["total"], expected)
        assert part["n"] == 3
        torch.testing.assert_close(part["mean"], torch.full((2,), (1 * 1 + 2 * 2) / 3))
        # d (sum of total squared) / d own is 2 total in the process that owns it, and is averaged over three later.
        torch.testing.assert_close(part["gradient"], N_RANKS * 2 * expected)


def test_the_first_process_gets_what_all_have_however_little(found: list[dict[str, Any]]) -> None:
    assert [one["rank"] for one in found[0]["gathered"]] == [1, 2, 2]
    assert [one["rows"].tolist() for one in found[0]["gathered"]] == [[1, 1], [2, 2], [2, 2]]
    assert found[1]["gathered"] == found[2]["gathered"] == []
    assert gather_in_first([1, 2]) == [1, 2], "one process has all"


@pytest.mark.parametrize("name", CASES)
def test_three_processes_take_the_steps_of_one(folder: Path, found: list[dict[str, Any]], name: str) -> None:
    alone = trained(folder, name)
    assert alone["losses"][-1] != alone["losses"][0]
    for part in found:
        torch.testing.assert_close(part[name]["losses"], alone["losses"], rtol=1e-5, atol=1e-5)
        for kind in ("gradients", "weights"):
            assert relative_error(part[name][kind], alone[kind]) < 1e-5, kind


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Length of the difference over that of what is expected, of all tensors together."""
    off = sum(float((found[key].double() - value).square().sum()) for key, value in expected.items())
    return float(off / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5
