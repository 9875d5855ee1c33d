"""BrainTuning in Lightning: it learns, from what it should, in the mode it was asked for."""

from __future__ import annotations

import copy
import logging

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from brainlit.tuning import ObjectiveConfig, PoolingConfig
from brainlit.tuning.module import RunningCorrelation
from tests.tuning.conftest import PLANTED_DELAY_TRS, TR_S, FakeData


class Recorder(Callback):
    """What happened at each step."""

    def __init__(self):
        self.losses, self.rates, self.modes = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.modes.append((module.backbone.training, module.head.training))
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


def snapshot(module):
    return copy.deepcopy(dict(module.state_dict()))


def test_learns_a_planted_problem_and_finds_the_delay(make_module, make_trainer):
    module, data = make_module(), FakeData()
    trainer = make_trainer(max_epochs=25)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["val/loss"] < 0.3
    assert int(module.head.delay_weights.abs().argmax()) == PLANTED_DELAY_TRS
    (scores,) = trainer.test(module, datamodule=data, verbose=False)
    assert scores["test/r"] > 0.8
    assert {"test/loss", "test/r/S1", "test/r/S2"} <= set(scores)


def test_logs_what_the_contract_says(make_module, make_trainer):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(make_module(), datamodule=FakeData())
    wanted = {"train/loss_step", "train/loss_epoch", "val/loss", "lr-backbone", "lr-head"}
    assert wanted <= set(trainer.callback_metrics) | set(trainer.logged_metrics)


def test_processes_wait_for_no_number_of_a_step_and_for_all_of_an_epoch(make_module, make_trainer):
    seen, data, module = Recorder(), FakeData(n_windows=10), make_module()
    asked, log = {}, module.log

    def noted(name, value, **settings):
        asked[name] = (bool(settings.get("on_step")), bool(settings.get("sync_dist")))
        log(name, value, **settings)

    module.log = noted
    trainer = make_trainer(max_epochs=1, callbacks=[seen])
    trainer.fit(module, datamodule=data)
    assert {name for name, (on_step, _) in asked.items() if on_step} == {"train/loss_step", "lr-backbone", "lr-head"}
    assert {name for name, (on_step, waits) in asked.items() if waits != (not on_step)} == set()
    sizes = [len(batch["audio"]) for batch in data.train_dataloader()]
    assert sizes == [4, 4, 2], "a step of fewer windows counts less"
    mean = sum(loss * n for loss, n in zip(seen.losses, sizes, strict=True)) / sum(sizes)
    for name in ("train/loss", "train/loss_epoch"):
        assert float(trainer.callback_metrics[name]) == pytest.approx(mean, rel=1e-5)


def test_trunk_and_head_change_and_the_convolutions_do_not(make_module, make_trainer):
    module = make_module()
    before = snapshot(module)
    make_trainer(max_epochs=1).fit(module, datamodule=FakeData())
    for name, now in module.state_dict().items():
        frozen = "feature_extractor" in name or "masked_spec_embed" in name
        if name.startswith("backbone") and not name.endswith("k_proj.bias"):
            assert torch.equal(now, before[name]) == frozen, name


def test_two_groups_without_the_frozen_part(make_module, make_trainer):
    module, trainer = make_module(weight_decay=0.03), make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=FakeData())
    backbone, head = trainer.optimizers[0].param_groups
    assert (backbone["name"], head["name"]) == ("backbone", "head")
    assert backbone["weight_decay"] == head["weight_decay"] == 0.03
    frozen = {id(p) for p in module.backbone.model.feature_extractor.parameters()}
    held = {id(p) for group in (backbone, head) for p in group["params"]}
    assert not frozen & held
    assert {id(p) for p in module.parameters() if p.requires_grad} == held


def test_learning_rates_follow_the_optimiser_steps(make_module, make_trainer):
    """Also with gradient accumulation: 16 windows, batches of 4, 2 per step, 5 epochs make 10 steps."""
    recorder = Recorder()
    trainer = make_trainer(max_epochs=5, accumulate_grad_batches=2, callbacks=[recorder])
    trainer.fit(make_module(warmup_fraction=0.2, backbone_lr=1e-3, head_lr=2e-3), datamodule=FakeData())
    rates = torch.tensor(recorder.rates[::2])
    assert len(rates) == 10
    torch.testing.assert_close(rates[:, 1], 2 * rates[:, 0])
    assert float(rates[0, 0]) == pytest.approx(0.2e-3)
    assert float(rates[4, 0]) == pytest.approx(1e-3)
    assert 0 < float(rates[-1, 0]) < 0.17e-3


@pytest.mark.parametrize("objective", [{}, {"targets": 0.5, "self_supervised": 1.0}])
def test_the_loss_of_the_mean_is_what_zeros_would_cost(make_module, make_trainer, objective):
    """Planted responses are -1 and 1, so their mean costs 1; other parts of the loss stay what they are."""
    module, trainer = make_module(objective=ObjectiveConfig(**objective)), make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=FakeData())
    logged = trainer.callback_metrics
    wanted = 1.0 if not objective else 0.5 + float(logged["val/self_supervised"])
    assert float(logged["val/loss_of_mean"]) == pytest.approx(wanted, rel=1e-5)


def test_an_endless_run_is_refused(make_module, make_trainer):
    with pytest.raises(ValueError, match=r"--trainer\.max_epochs"):
        make_trainer(max_epochs=-1).fit(make_module(), datamodule=FakeData())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_backbone_trains_in_the_mode_asked_for(make_module, make_trainer, mode, caplog):
    class Meddler(Callback):
        """Leaves the wrong mode behind, as a careless probe would."""

        def on_train_epoch_end(self, trainer, module):
            module.backbone.train(mode == "eval")

    recorder = Recorder()
    module = make_module(backbone_mode=mode)
    with caplog.at_level(logging.INFO, "brainlit"):
        make_trainer(callbacks=[recorder, Meddler()]).fit(module, datamodule=FakeData())
    assert set(recorder.modes) == {(mode == "train", True)}
    assert f"in {mode} mode" in caplog.text


def test_lightning_alone_keeps_the_mode_over_validation(make_module, make_trainer):
    module = make_module()
    make_trainer().fit(module, datamodule=FakeData())
    assert not module.backbone.training
    assert module.head.training


def run_losses(make_module, make_trainer, everything, **settings):
    pl.seed_everything(everything)
    recorder = Recorder()
    make_trainer(callbacks=[recorder], max_epochs=1).fit(make_module(**settings), datamodule=FakeData())
    return recorder.losses


def test_same_seed_same_losses_other_seed_others(make_module, make_trainer):
    first = run_losses(make_module, make_trainer, 1)
    assert run_losses(make_module, make_trainer, 1) == first
    assert run_losses(make_module, make_trainer, 2) != first
    assert run_losses(make_module, make_trainer, 1, seed=5) != first


def test_pools_are_standardised_by_the_untouched_backbone(make_module, make_trainer):
    module, data = make_module(), FakeData()
    make_trainer(max_epochs=1).fit(module, datamodule=data)
    untouched = make_module()
    pooled, heard = untouched.pool(data.batch(16))
    rows = pooled[heard].detach()
    torch.testing.assert_close(module.head.pool_mean, rows.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.head.pool_sd, rows.std(0, unbiased=False), rtol=1e-3, atol=1e-5)


def test_pools_are_left_alone_on_request(make_module, make_trainer):
    module = make_module(standardise_pools=False)
    make_trainer(max_epochs=1).fit(module, datamodule=FakeData())
    assert (module.head.pool_mean == 0).all()
    assert (module.head.pool_sd == 1).all()


def test_a_run_without_a_step_measures_no_pools(make_module, make_trainer, monkeypatch):
    measured = []
    monkeypatch.setattr("brainlit.tuning.module.pool_statistics", lambda *_: measured.append(1) or (0.0, 1.0))
    make_trainer(max_epochs=0).fit(make_module(), FakeData())
    assert not measured


def test_measuring_the_pools_does_not_change_the_run(make_module, make_trainer):
    """The first loss of a run with and without it differs only through the scale: same batches, same dropout."""
    orders = []
    for standardise in (True, False):
        pl.seed_everything(3)

        class Order(Callback):
            def on_train_batch_start(self, trainer, module, batch, batch_idx):
                orders[-1].append(batch["first_tr"].tolist())

        orders.append([])
        module = make_module(standardise_pools=standardise)
        make_trainer(max_epochs=1, callbacks=[Order()]).fit(module, datamodule=FakeData())
    assert orders[0] == orders[1]


def test_window_pooling_predicts_its_one_row(make_module, make_trainer):
    module, data = make_module(pooling=PoolingConfig(over="window")), FakeData(n_trs=1, context_trs=4)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    (predictions, *_) = trainer.predict(module, datamodule=data)
    assert predictions["predictions"]["S2"].shape == (4, 1, 5)
    batch = data.batch()
    encoded = module.backbone.encode(batch["audio"], batch["audio_mask"])
    mean = encoded.hidden_states[-1][0, encoded.frame_mask[0]].mean(0)
    torch.testing.assert_close(module.pool(batch)[0][0, 0], mean)


def test_window_pooling_refuses_many_rows(make_module, make_trainer):
    with pytest.raises(ValueError, match=r"--data\.window\.n_trs 1"):
        make_trainer().fit(make_module(pooling=PoolingConfig(over="window")), datamodule=FakeData())


def test_too_little_context_is_refused_at_once(make_module, make_trainer):
    with pytest.raises(ValueError, match=r"--data\.window\.context_s"):
        make_trainer().fit(make_module(), datamodule=FakeData(context_trs=3))


def test_windows_shorter_than_the_delays_are_refused_before_anything_is_trained(make_module, make_trainer):
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"up to 4 TRs back, .* 3 rows of context\. .*window\.context_s at least 1 "):
        make_trainer(callbacks=[recorder]).fit(make_module(), datamodule=FakeData(context_trs=3))
    assert not recorder.modes


def test_no_data_module_is_refused(make_module, make_trainer):
    data = FakeData()
    with pytest.raises(ValueError, match="target_sizes"):
        make_trainer().fit(make_module(), data.train_dataloader())


def test_predictions_say_where_they_belong(make_module, make_trainer):
    module, data = make_module(), FakeData()
    trainer = make_trainer()
    first, *_ = trainer.predict(module, datamodule=data)
    assert first["first_tr"].tolist() == [0, 6, 12, 18]
    assert first["story"].tolist() == [0, 1, 2, 0]
    assert first["row_mask"].shape == (4, data.n_trs)
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(first["predictions"]["S1"], module(data.batch())["S1"])


def test_pooled_states_of_several_layers_without_a_head(make_module):
    module, data = make_module(backbone_mode="train", backbone={"dropout": 0.5}), FakeData()
    batch = data.batch()
    module.train()
    states = module.pooled_states(batch, [0, 2, -1])
    assert states.shape == (3, 4, 10, 16)
    assert not states.requires_grad
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[0], states[1])
    assert module.backbone.training
    assert (states[:, 0, :2] == 0).all()
    assert (states[:, 0, 3:].abs().amax(-1) > 0).all()
    assert torch.equal(module.pooled_states(batch, [2]), states[1:2])


def test_pooled_states_give_the_mode_back_after_an_error(make_module):
    module = make_module().train()
    module.backbone.train()
    with pytest.raises(ValueError, match="shorter than one frame"):
        module.pooled_states(
            {**FakeData().batch(), "audio": torch.zeros(1, 9), "audio_mask": torch.ones(1, 9) > 0}, [0]
        )
    assert module.backbone.training


@pytest.mark.parametrize("layer", [3, -4])
def test_layers_that_are_not_there_are_refused(make_module, layer):
    with pytest.raises(ValueError, match="2 layers"):
        make_module(layer=layer)


def test_an_earlier_layer_is_read_out(make_module):
    batch = FakeData().batch()
    module = make_module(layer=1)
    torch.testing.assert_close(module.pool(batch)[0], module.pooled_states(batch, [1])[0])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("backbone_mode", "on"), ("warmup_fraction", 1.5), ("optimizer", "sgd"), ("schedule", "cosine")],
)
def test_impossible_settings_are_refused(make_module, setting, value):
    with pytest.raises(ValueError, match=setting):
        make_module(**{setting: value})


def test_forward_without_a_head_says_so(make_module):
    with pytest.raises(ValueError, match="head is not built"):
        make_module()(FakeData().batch())


def test_bf16_trains_with_the_loss_in_fp32(make_module, make_trainer):
    recorder = Recorder()
    trainer = make_trainer(precision="bf16-mixed", callbacks=[recorder], max_epochs=6)
    module = make_module()
    trainer.fit(module, datamodule=FakeData())
    assert recorder.losses[-1] < recorder.losses[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(FakeData().batch())["S1"].dtype == torch.float32


def test_seconds_of_context_are_what_the_delays_need():
    assert FakeData().context_trs * TR_S == pytest.approx(1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_on_a_gpu(make_module, make_trainer):
    trainer = make_trainer(accelerator="gpu", precision="bf16-mixed", max_epochs=25)
    module = make_module()
    trainer.fit(module, datamodule=FakeData())
    assert trainer.callback_metrics["val/loss"] < 0.5
    module.cuda()
    assert module.pooled_states(FakeData().batch(), [-1]).is_cuda


# --- scores
# Correlation in batches is correlation.


def test_equals_numpy_over_the_rows_that_count():
    rng = np.random.default_rng(0)
    observed = torch.tensor(rng.normal(size=(6, 4, 3)) + 50).float()
    predicted = (observed * 0.3 + torch.tensor(rng.normal(size=(6, 4, 3)))).float()
    mask = torch.tensor(rng.random((6, 4)) > 0.3)
    observed[~mask] = torch.nan
    running = RunningCorrelation(3, torch.device("cpu"))
    for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
        running.update(predicted[part], observed[part], mask[part])
    p, y = predicted[mask].double().numpy(), observed[mask].double().numpy()
    expected = [np.corrcoef(p[:, v], y[:, v])[0, 1] for v in range(3)]
    np.testing.assert_allclose(running.r().numpy(), expected, rtol=1e-9)


def test_constant_columns_and_no_rows_are_nan():
    running = RunningCorrelation(2, torch.device("cpu"))
    assert running.r().isnan().all()
    observed = torch.tensor([[[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]]])
    running.update(observed * 2, observed, torch.ones(1, 3, dtype=torch.bool))
    assert running.r().isnan().tolist() == [True, False]
