"""What the optimiser holds at what rates, and the rates by optimiser step."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Adam, AdamW

from brainlit.backbones import BackboneConfig, load_backbone
from brainlit.backbones.lora import LoraConfig, add_lora
from brainlit.backbones.trainable import TrainableConfig, apply_trainable, count_layer_parameters
from brainlit.tuning.schedule import (
    default_learning_rates,
    follow_plan,
    optimizer_with_schedule,
    parameter_groups,
    published_2410_backbone,
    published_2410_head,
    warmup_linear_decay,
)
from tests.backbones.conftest import save_mini
from tests.tuning.conftest import FakeData

# --- factors ---


@pytest.mark.parametrize("n_steps", [1, 2, 7, 132, 10_000])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_shape(n_steps, fraction):
    factors = [warmup_linear_decay(step, n_steps, fraction) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert warmup_linear_decay(n_steps, n_steps, fraction) == pytest.approx(0, abs=1e-9) or fraction == 1.0 == n_steps


def test_ends_near_zero_and_starts_above_it():
    """The published schedule of pitfall 19 ended at a factor of 0.988; another started an epoch at 0."""
    assert warmup_linear_decay(131, 132, 0.1) < 0.01
    assert warmup_linear_decay(0, 132, 0.1) == pytest.approx(1 / 13)
    assert warmup_linear_decay(12, 132, 0.1) == 1.0
    assert warmup_linear_decay(0, 132, 0.0) > 0.99


@pytest.mark.parametrize(
    ("n_steps", "n_warmup"),
    [(1, 0), (4, 2), (9, 4), (10, 5), (44, 5), (50, 5), (80, 8), (1000, 100)],
)
def test_warm_up_takes_five_steps_or_half_of_a_very_short_run(n_steps, n_warmup):
    factors = [warmup_linear_decay(step, n_steps, 0.1) for step in range(n_steps)]
    assert factors[:n_warmup] == [(step + 1) / n_warmup for step in range(n_warmup)]
    assert factors[n_warmup] < 1 or n_warmup == 0
    assert warmup_linear_decay(0, n_steps, 0.0) == n_steps / (n_steps + 1)  # none is asked for


PUBLISHED_BACKBONE = [0, 0.2, 0.4, 0.6, 0.8, 1, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68, 0.64, 0.6]
PUBLISHED_BACKBONE += [0.56, 0.52, 0.48, 0.44, 0.4, 0.36, 0.32, 0.28, 0.24, 0.2, 0.16, 0.12, 0.08, 0.04]
PUBLISHED_HEAD = [1, 0.8, 0.64, 0.512, 0.4096, 0.32768, 0.262144, 0.2097152, 0.16777216, 0.134217728, 0.1073741824]
PUBLISHED_HEAD += [0.1] * 19


@pytest.mark.parametrize("steps_per_epoch", [1, 24])
def test_the_released_code_of_2410_in_its_thirty_epochs(steps_per_epoch):
    """Written by hand: five epochs up from 0, 25 down; the head a fifth less each epoch, down to a tenth."""
    steps = range(30 * steps_per_epoch)
    backbone = [published_2410_backbone(step, len(steps), steps_per_epoch) for step in steps]
    head = [published_2410_head(step, steps_per_epoch) for step in steps]
    assert backbone == pytest.approx([factor for factor in PUBLISHED_BACKBONE for _ in range(steps_per_epoch)])
    assert head == pytest.approx([factor for factor in PUBLISHED_HEAD for _ in range(steps_per_epoch)])
    assert published_2410_backbone(len(steps), len(steps), steps_per_epoch) == 0


@pytest.mark.parametrize(
    ("n_epochs", "expected"),
    [
        (1, [0]),
        (2, [0, 1]),
        (8, [0, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]),
        (12, [0, 0.5, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_the_released_code_of_2410_in_runs_of_other_lengths(n_epochs, expected):
    assert [published_2410_backbone(3 * epoch, 3 * n_epochs, 3) for epoch in range(n_epochs)] == pytest.approx(expected)


# --- what the optimiser holds ---


@pytest.fixture(scope="module", params=["group", "stable"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "mini"
    norms = {"group": {"feat_extract_norm": "group"}, "stable": {"do_stable_layer_norm": True}}
    save_mini(path, num_hidden_layers=3, **norms[request.param])
    return path


def load(folder, train=None, read_out=None, lora=None):
    backbone = load_backbone(BackboneConfig(weights=str(folder)))
    backbone.freeze_feature_encoder()
    add_lora(backbone, lora or LoraConfig(), 0)
    apply_trainable(backbone, train or TrainableConfig(), read_out)
    return backbone


def groups_of(backbone, layer_decay=1.0, head=None, backbone_lr=1e-3):
    parameters = (head or nn.Linear(2, 2)).parameters()
    return parameter_groups(backbone, parameters, backbone_lr, 1e-2, layer_decay, weight_decay=0.03)


def names_in(backbone, group):
    by_id = {id(parameter): name for name, parameter in backbone.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_without_decay_one_group_for_the_backbone_and_one_for_the_head(folder):
    backbone, head = load(folder), nn.Linear(2, 2)
    head.bias.requires_grad_(False)
    of_backbone, of_head = groups_of(backbone, head=head)
    assert [id(p) for p in of_backbone.pop("params")] == [id(p) for p in backbone.parameters() if p.requires_grad]
    assert of_backbone == {"name": "backbone", "lr": 1e-3, "weight_decay": 0.03}
    assert of_head == {"name": "head", "params": [head.weight], "lr": 1e-2, "weight_decay": 0.03}


def test_rates_fall_from_the_top_layer_to_the_projection(folder):
    backbone = load(folder)
    groups = groups_of(backbone, 0.5)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {
        "backbone/projection": 1e-3 / 8,
        "backbone/layer-01": 1e-3 / 4,
        "backbone/layer-02": 1e-3 / 2,
        "backbone/layer-03": 1e-3,
        "head": 1e-2,
    }
    held = [id(parameter) for group in groups[:-1] for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    last_norm = {"model.encoder.layer_norm.weight", "model.encoder.layer_norm.bias"}
    is_last = backbone.model.config.do_stable_layer_norm
    assert last_norm <= names_in(backbone, groups[3 if is_last else 0])
    for number, group in enumerate(groups[:4]):
        in_layers = {name for name in names_in(backbone, group) if ".layers." in name}
        assert all(f".layers.{number - 1}." in name for name in in_layers)
        assert bool(in_layers) == (number > 0)


def test_the_topmost_trained_layer_has_the_whole_rate(folder):
    """Also where a lower hidden state is read out, or a last layer norm trains above it."""
    for backbone in (load(folder, read_out=2), load(folder, TrainableConfig(last_layer=2))):
        rates = {group["name"]: group["lr"] for group in groups_of(backbone, 0.5)}
        assert rates == {
            "backbone/projection": 1e-3 / 4,
            "backbone/layer-01": 1e-3 / 2,
            "backbone/layer-02": 1e-3,
            "head": 1e-2,
        }


def test_lora_decays_by_layer_too_and_frozen_parts_have_no_group(folder):
    backbone = load(folder, TrainableConfig(first_layer=2), lora=LoraConfig(rank=1))
    groups = groups_of(backbone, 0.5)
    assert [group["name"] for group in groups] == ["backbone/layer-02", "backbone/layer-03", "head"]
    assert all("lora_" in name for group in groups[:-1] for name in names_in(backbone, group))


def test_only_a_projection_can_train(folder):
    groups = groups_of(load(folder, read_out=0), 0.5)
    assert [(group["name"], group["lr"]) for group in groups] == [("backbone/projection", 1e-3), ("head", 1e-2)]


@pytest.mark.parametrize(
    ("n_parameters", "n_steps", "lora", "backbone", "head"),
    [
        (660_000, 160, False, 2e-3, 3e-3),  # the tiny models on the demo
        (660_000, 504, False, 2e-3, 3e-3),  # Whisper's, in its shorter windows
        (660_000, 600, True, 2e-3, 3e-3),
        (18_900_000, 88, False, 1e-3, 3e-3),  # Whisper base on a few stories
        (18_900_000, 88, True, 2e-3, 3e-3),
        (85_000_000, 1_350, False, 1e-3 * (18.9 / 85) ** (2 / 3) * 8 / 27, 3e-3 * 16 / 81),  # 9/4 of 600
        (85_000_000, 60_000, False, 1e-3 * (18.9 / 85) ** (2 / 3) / 8, 1e-4),
    ],
)
def test_rates_by_size_and_steps(n_parameters, n_steps, lora, backbone, head):
    assert default_learning_rates(n_parameters, n_steps, lora) == pytest.approx((backbone, head))


def test_long_runs_of_base_models_come_near_the_published_rates():
    """5e-5 and 1e-4 of arXiv 2410.09230, 1e-4 and 1e-4 (LoRA) of arXiv 2510.21520, in 30 epochs of batches of 128."""
    n_steps = 30 * round(9752 / 128)
    assert default_learning_rates(85_000_000, n_steps, lora=False) == pytest.approx((5.0e-5, 2.1e-4), rel=0.02)
    assert default_learning_rates(85_000_000, n_steps, lora=True) == pytest.approx((1.0e-4, 2.1e-4), rel=0.02)


def test_larger_models_and_longer_runs_have_lower_rates():
    by_size = [default_learning_rates(n, 100, False)[0] for n in (10**6, 10**7, 10**8, 10**9)]
    by_steps = [default_learning_rates(10**7, n, False) for n in (100, 1_000, 10_000)]
    assert by_size == sorted(by_size, reverse=True)
    assert by_steps == sorted(by_steps, reverse=True)
    assert default_learning_rates(10**7, 0, False) == by_steps[0]  # nothing is trained


def test_parameters_count_in_the_layers_alone(folder):
    backbone = load(folder)
    one = 4 * (16 * 16 + 16) + 2 * (16 * 32) + 32 + 16 + 4 * 16  # attention, feed-forward, two layer norms
    assert count_layer_parameters(backbone) == 3 * one
    assert count_layer_parameters(load(folder, TrainableConfig(first_layer=3))) == 3 * one


# --- the optimiser ---


def two_groups():
    torch.manual_seed(0)
    groups = [("backbone", 1e-3), ("head", 1e-2)]
    return [{"name": n, "params": [nn.Parameter(torch.ones(3))], "lr": lr, "weight_decay": 0.1} for n, lr in groups]


def rates_of(n_steps, **settings):
    """Rates of backbone and head at each step, as torch's scheduler sets them."""
    made = optimizer_with_schedule(two_groups(), n_steps, 2, 0.5, fused=True, **settings)
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(n_steps):
        rates.append([group["lr"] for group in made["optimizer"].param_groups])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return [list(column) for column in zip(*rates, strict=True)]


def test_rates_by_schedule():
    rising = [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2]
    assert rates_of(8) == [pytest.approx([1e-3 * f for f in rising]), pytest.approx([1e-2 * f for f in rising])]
    assert rates_of(8, schedule="constant") == [[1e-3] * 8, [1e-2] * 8]
    backbone, head = rates_of(8, schedule="published_2410")
    assert backbone == pytest.approx([0, 0, 1e-3, 1e-3, 2e-3 / 3, 2e-3 / 3, 1e-3 / 3, 1e-3 / 3])
    assert head == pytest.approx([1e-2, 1e-2, 8e-3, 8e-3, 6.4e-3, 6.4e-3, 5.12e-3, 5.12e-3])


@pytest.mark.parametrize(("name", "reference"), [("adamw", AdamW), ("adam", Adam)])
def test_steps_are_those_of_torch(name, reference):
    ours, theirs = two_groups(), two_groups()
    made = optimizer_with_schedule(ours, 4, 2, 0.0, fused=True, optimizer=name, schedule="constant")["optimizer"]
    plain = reference(
        [{"params": group["params"], "lr": group["lr"]} for group in theirs], weight_decay=0.1, foreach=False
    )
    for optimizer, groups in ((made, ours), (plain, theirs)):
        for step in range(3):
            for group in groups:
                group["params"][0].grad = torch.tensor([1.0, -0.01, 0.0]) * (step + 1)
            optimizer.step()
    for mine, reference_group in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine["params"][0], reference_group["params"][0])
    assert not torch.equal(ours[0]["params"][0], torch.ones(3))


@pytest.mark.parametrize("n_steps", [6, 12])
def test_a_checkpoint_goes_on_with_the_rates_of_the_plan_that_it_is_read_into(n_steps):
    """The same plan: those of the checkpoint; a longer one: those that it has at this step."""

    def made(n):
        found = optimizer_with_schedule(two_groups(), n, 2, 0.5, fused=False)
        return found["optimizer"], found["lr_scheduler"]["scheduler"]

    def stepped(n, n_done):
        optimizer, scheduler = made(n)
        for _ in range(n_done):
            optimizer.step()
            scheduler.step()
        return optimizer, scheduler

    optimizer, scheduler = made(n_steps)
    peaks = list(scheduler.base_lrs)
    for own, saved in zip((optimizer, scheduler), stepped(6, 6), strict=True):
        own.load_state_dict(saved.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0, "the first plan has ended"
    follow_plan(scheduler, peaks)
    expected, _ = stepped(n_steps, 6)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in expected.param_groups]
    scheduler.step()
    expected, _ = stepped(n_steps, 7)
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in expected.param_groups]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"optimizer is 'adamx'\. Did you mean 'adam"):
        optimizer_with_schedule(two_groups(), 4, 2, 0.1, True, optimizer="adamx")
    with pytest.raises(ValueError, match=r"schedule is 'warmup'.* Known: constant, published_2410, warmup_linear"):
        optimizer_with_schedule(two_groups(), 4, 2, 0.1, True, schedule="warmup")


# --- in Lightning ---


class Rates(Callback):
    """Rates at each optimiser step, and those that a further step would have."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_train_end(self, trainer, module):
        self.after = [group["lr"] for group in trainer.optimizers[0].param_groups]


@pytest.mark.parametrize(("accumulate", "n_steps"), [(1, 12), (2, 6), (3, 6)])
def test_the_run_ends_at_rate_0_however_gradients_are_accumulated(make_module, make_trainer, accumulate, n_steps):
    """Three epochs of four batches; the last step of an epoch takes what is left. Pitfall 19: it ended at 0.988."""
    seen = Rates()
    trainer = make_trainer(max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[seen])
    trainer.fit(make_module(warmup_fraction=0.5, backbone_lr=1.0, head_lr=2.0), datamodule=FakeData())
    assert trainer.global_step == len(seen.rates) == n_steps
    assert [backbone for backbone, _ in seen.rates] == [warmup_linear_decay(s, n_steps, 0.5) for s in range(n_steps)]
    assert seen.after == [0, 0]
    assert max(backbone for backbone, _ in seen.rates) == 1.0


@pytest.mark.parametrize(("accumulate", "per_epoch"), [(1, 4), (3, 2)])
def test_published_epochs_are_those_of_the_trainer(make_module, make_trainer, accumulate, per_epoch):
    seen = Rates()
    trainer = make_trainer(max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[seen])
    trainer.fit(make_module(backbone_lr=1.0, head_lr=1.0, schedule="published_2410"), datamodule=FakeData())
    assert [backbone for backbone, _ in seen.rates] == [0] * per_epoch + [1] * per_epoch + [0.5] * per_epoch
    assert [head for _, head in seen.rates] == pytest.approx([1] * per_epoch + [0.8] * per_epoch + [0.64] * per_epoch)


def test_rates_that_are_not_given_suit_the_run_and_those_that_are_win(make_module, make_trainer):
    for given, steps in (({"backbone_lr": None, "head_lr": None}, 4), ({"backbone_lr": None, "head_lr": 1e-5}, 8)):
        module = make_module(**given)
        trainer = make_trainer(max_epochs=steps // 4)
        trainer.fit(module, datamodule=FakeData())
        suits = default_learning_rates(count_layer_parameters(module.backbone), steps, lora=False)
        wanted = (suits[0], given["head_lr"] or suits[1])
        assert (module.hparams["backbone_lr"], module.hparams["head_lr"]) == wanted
        assert [group["initial_lr"] for group in trainer.optimizers[0].param_groups] == list(wanted)


def test_a_short_run_is_warned_of_at_its_start(make_module, make_trainer, caplog):
    make_trainer(max_epochs=1).fit(make_module(), datamodule=FakeData())
    assert "too short to learn: 4 optimiser steps" in caplog.text
    assert "--trainer.max_epochs 8." in caplog.text
    caplog.clear()
    make_trainer(max_epochs=8).fit(make_module(), datamodule=FakeData())
    make_trainer(max_epochs=0).fit(make_module(), datamodule=FakeData())
    assert "too short" not in caplog.text
