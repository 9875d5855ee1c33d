"""Heads that convolve: against loops over rows and bins, on regular and irregular clocks, with impulses and masks."""

import itertools

import numpy as np
import pytest
import torch

from brainlit.backbones.frames import pool_per_tr
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.tuning import BrainTuning, HeadConfig, PoolingConfig, load_tuned
from brainlit.tuning.haemodynamics import SHIFTS_S, HaemodynamicDelays, fine_edges_s
from brainlit.tuning.heads import HEADS, build_head, check_context
from tests.tuning.conftest import FakeData

KINDS, HEAD_KINDS = ("hrf", "hrf_derivatives", "learned"), sorted(HEADS)
HIDDEN, N_TRS, SIZES = 4, 5, {"S1": 3, "S2": 3}
TRS_S, REFERENCES = (0.7, 1.5, 2.0, 2.0045), (0.0, 0.5, 1.0)
RESPONSE = HaemodynamicResponse()


def clock(tr_s=2.0, reference=0.5, irregular=False, context_s=14.0, n_windows=2):
    """Edges of the rows, and when the last N_TRS of them were read."""
    n_rows = int(np.ceil(context_s / tr_s)) + N_TRS
    rng = np.random.default_rng(3)
    lengths_s = np.full((n_windows, n_rows), tr_s) * (rng.uniform(0.7, 1.4, (n_windows, n_rows)) if irregular else 1)
    edges_s = np.concatenate([np.zeros((n_windows, 1)), lengths_s.cumsum(1)], axis=1)
    read_s = edges_s[:, -N_TRS - 1 : -1] + reference * lengths_s[:, -N_TRS:]
    return torch.tensor(edges_s, dtype=torch.float32), torch.tensor(read_s, dtype=torch.float32)


def states(edges_s, seed=0):
    values = torch.randn(len(edges_s), edges_s.shape[1] - 1, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return values, torch.ones(values.shape[:2], dtype=torch.bool)


def head(haemodynamic="hrf", kind="linear", seed=0, **settings):
    config = HeadConfig(kind=kind, rank=2, haemodynamic=haemodynamic, **{"dropout": 0.0, **settings})
    return build_head(config, HIDDEN, SIZES, "tr", seed)


def shapes_of(model):
    """The responses that are read side by side, as functions of the lag."""
    parts = [RESPONSE.at, RESPONSE.by_onset, RESPONSE.by_dispersion]
    if not hasattr(model, "weights"):
        return parts[: model.n_blocks]
    parts += [lambda lag, s=shift_s: RESPONSE.at(lag - s) for shift_s in SHIFTS_S]
    weights = model.weights.detach().double().numpy()
    return [lambda lag: sum(w * part(lag) for w, part in zip(weights, parts, strict=True))]


def slow_rows(shapes, values, edges_s, read_s):
    """Convolution in loops over windows, rows, bins and responses."""
    values, edges_s, read_s = (np.asarray(a, dtype=np.float64) for a in (values, edges_s, read_s))
    rows = np.zeros((len(values), read_s.shape[1], len(shapes), values.shape[2]))
    for b, t in itertools.product(range(len(values)), range(read_s.shape[1])):
        area = 0.0
        for i in range(values.shape[1]):
            begin, end = edges_s[b, i], edges_s[b, i + 1]
            lag = read_s[b, t] - (begin + end) / 2
            if lag < 0:
                continue
            area += float(RESPONSE.at(lag)) * (end - begin)
            for k, shape in enumerate(shapes):
                rows[b, t, k] += float(shape(lag)) * (end - begin) * values[b, i]
        rows[b, t] /= area
    return rows.reshape(*rows.shape[:2], -1)


# --- bins ---


@pytest.mark.parametrize(("tr_s", "bin_s", "n"), [(2.0, 0.5, 4), (1.5, 0.5, 3), (0.7, 0.5, 1), (2.0045, 0.1, 20)])
def test_a_row_holds_a_whole_number_of_bins_of_about_the_length(tr_s, bin_s, n):
    edges_s, _ = clock(tr_s)
    fine = fine_edges_s(edges_s, bin_s)
    assert fine.shape[1] == n * (edges_s.shape[1] - 1) + 1
    torch.testing.assert_close(fine[:, ::n], edges_s, rtol=0, atol=0)
    torch.testing.assert_close(fine.diff(), torch.full_like(fine.diff(), tr_s / n), rtol=0, atol=1e-5)


def test_rows_of_an_irregular_clock_have_their_own_numbers_of_bins():
    edges_s = torch.tensor([[0.0, 2.0, 3.1, 5.0], [1.0, 2.0, 3.0, 4.0]])
    fine = fine_edges_s(edges_s, 0.5)
    first = [0, 0.5, 1, 1.5, 2, 2.55, 3.1, 3.1, 3.1, 3.575, 4.05, 4.525, 5]
    np.testing.assert_allclose(fine, [first, [1, 1.5, 2, 2, 2, 2.5, 3, 3, 3, 3.5, 4, 4, 4]], atol=1e-6)
    assert (fine.diff() >= 0).all()
    assert fine_edges_s(edges_s[1:], 0.5)[0].tolist() == [1, 1.5, 2, 2.5, 3, 3.5, 4]


def test_no_frame_falls_into_a_bin_of_no_length():
    fine = fine_edges_s(torch.tensor([[0.0, 1.0, 3.0]]), 0.5)
    times_s = torch.arange(30) * 0.1
    pooled, heard = pool_per_tr(times_s[None, :, None], torch.ones(1, 30, dtype=torch.bool), times_s, fine)
    assert heard[0].tolist() == [True, True, False, False, True, True, True, True]
    np.testing.assert_allclose(pooled[0, heard[0], 0], [0.2, 0.7, 1.2, 1.7, 2.2, 2.7], atol=1e-6)


# --- convolution ---


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("tr_s", TRS_S)
def test_equals_a_loop_over_rows_and_bins(tr_s, reference, irregular):
    edges_s, read_s = clock(tr_s, reference, irregular)
    fine = fine_edges_s(edges_s, 0.5)
    values, _ = states(fine)
    for kind in KINDS:
        model = HaemodynamicDelays(kind)
        if kind == "learned":
            with torch.no_grad():
                model.weights.copy_(torch.tensor([0.8, 0.3, -0.2, 0.1, 0.2, -0.1]))
        with torch.no_grad():
            rows = model(values, fine, read_s)
        np.testing.assert_allclose(rows, slow_rows(shapes_of(model), values, fine, read_s), atol=2e-5)


@pytest.mark.parametrize("haemodynamic", KINDS)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_head_maps_the_convolved_rows(kind, haemodynamic):
    model = head(haemodynamic, kind)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.set_standardisation(torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 1, 3, 4]))
    edges_s, read_s = clock(irregular=True)
    fine = fine_edges_s(edges_s, 0.5)
    values, heard = states(fine)
    standard = (values - model.pool_mean) / model.pool_sd
    rows = torch.tensor(slow_rows(shapes_of(model.response), standard, fine, read_s), dtype=torch.float32)
    predicted, expected = model(values, heard, N_TRS, fine, read_s), model.predict(rows)
    for subject in SIZES:
        torch.testing.assert_close(predicted[subject], expected[subject], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("tr_s", TRS_S)
def test_an_impulse_is_found_at_its_time_and_nowhere_before(tr_s, reference):
    edges_s, read_s = clock(tr_s, reference, n_windows=1)
    fine = fine_edges_s(edges_s, 0.1)
    middles_s, width_s = (fine[0, 1:] + fine[0, :-1]) / 2, float(fine[0, 1] - fine[0, 0])
    at = int((middles_s - (read_s[0, 2] - 3.3)).abs().argmin())
    values = torch.zeros(1, len(middles_s), 1)
    values[0, at] = 1.0
    rows = HaemodynamicDelays("hrf")(values, fine, read_s)[0, :, 0].numpy()
    lags_s = (read_s[0] - middles_s[at]).numpy()
    assert (rows[lags_s < 0] == 0).all()
    # the shape of the response at these lags, but for an area that is the same within what the context cuts off
    kept = [float(np.sum(RESPONSE.at(read - middles_s.numpy())) * width_s) for read in read_s[0].numpy()]
    np.testing.assert_allclose(rows * kept, RESPONSE.at(lags_s) * width_s, atol=1e-6)
    assert rows[2] > 0


def test_an_impulse_later_than_the_volume_does_not_count():
    edges_s, read_s = clock(2.0, 0.0, n_windows=1)
    fine = fine_edges_s(edges_s, 0.5)
    values, _ = states(fine)
    later = values.clone()
    later[:, fine[0, :-1] >= read_s[0, 1]] += 100.0
    for kind in KINDS:
        model = HaemodynamicDelays(kind)
        if kind == "learned":
            torch.nn.init.ones_(model.weights)
        same = model(values, fine, read_s)[:, :2], model(later, fine, read_s)[:, :2]
        assert torch.equal(*same)


def test_a_steady_state_comes_out_as_it_went_in_however_long_the_context():
    for context_s in (12.0, 20.0, 40.0):
        edges_s, read_s = clock(context_s=context_s)
        fine = fine_edges_s(edges_s, 0.5)
        rows = HaemodynamicDelays("hrf")(torch.ones(2, fine.shape[1] - 1, 1), fine, read_s)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_windows_on_one_clock_and_on_their_own_give_the_same():
    edges_s, read_s = clock(n_windows=2)
    fine = fine_edges_s(edges_s, 0.5)
    values, _ = states(fine)
    model = HaemodynamicDelays("hrf_derivatives")
    together = model(values, fine, read_s)
    moved = torch.stack([fine[0], fine[1] + 1.0]), torch.stack([read_s[0], read_s[1] + 1.0])
    torch.testing.assert_close(model(values, *moved), together, rtol=1e-4, atol=1e-5)
    assert model.kernels(fine[:1], read_s[:1]).shape == (3, 1, N_TRS, fine.shape[1] - 1)


def test_a_windows_rows_do_not_depend_on_its_batch():
    edges_s, read_s = clock(irregular=True)
    times_s = torch.arange(400) * 0.05
    frames = torch.randn(2, 400, HIDDEN, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 400, dtype=torch.bool)

    def rows(which):
        fine = fine_edges_s(edges_s[which], 0.5)
        pooled, _ = pool_per_tr(frames[which], mask[which], times_s, fine)
        return HaemodynamicDelays("hrf")(pooled, fine, read_s[which])

    both = rows(slice(0, 2))
    for k in range(2):
        torch.testing.assert_close(rows(slice(k, k + 1))[0], both[k], rtol=1e-4, atol=1e-5)


# --- starts, gradients, masks ---


@pytest.mark.parametrize("haemodynamic", ["learned", "hrf_derivatives"])
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_the_richer_ones_begin_as_hrf(kind, haemodynamic):
    edges_s, read_s = clock()
    fine = fine_edges_s(edges_s, 0.5)
    values, heard = states(fine)
    rich, plain = (head(name, kind, seed=3)(values, heard, N_TRS, fine, read_s) for name in (haemodynamic, "hrf"))
    for subject in SIZES:
        torch.testing.assert_close(rich[subject], plain[subject], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("haemodynamic", KINDS)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_weight_learns(kind, haemodynamic):
    model = head(haemodynamic, kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    edges_s, read_s = clock()
    fine = fine_edges_s(edges_s, 0.5)
    values, heard = states(fine)
    values.requires_grad_()
    predicted = model(values, heard, N_TRS, fine, read_s)
    sum(own.square().sum() for own in predicted.values()).backward()
    assert all((parameter.grad != 0).any() for parameter in model.parameters())
    reached = (values.grad != 0).any(2)
    assert torch.equal(reached, (fine[:, :-1] + fine[:, 1:]) / 2 < read_s[:, -1:])


def test_a_learned_response_finds_one_that_comes_later():
    edges_s, read_s = clock(context_s=24.0, n_windows=16)
    fine = fine_edges_s(edges_s, 0.5)
    values, _ = states(fine)
    truth = HaemodynamicResponse(delay_s=7.5, dispersion_s=1.2)
    middles_s = (fine[0, 1:] + fine[0, :-1]) / 2
    kernel = torch.tensor(truth.at(read_s[0, :, None] - middles_s), dtype=torch.float32) * fine[0].diff()
    targets = kernel @ values
    learned, fixed = HaemodynamicDelays("learned"), HaemodynamicDelays("hrf")
    optimizer = torch.optim.LBFGS(learned.parameters(), max_iter=60)

    def error(model):
        return (model(values, fine, read_s) - targets).square().mean() / targets.square().mean()

    def closure():
        optimizer.zero_grad()
        loss = error(learned)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(error(learned).detach()) < 0.01
    assert float(error(fixed)) > 0.15


def test_bins_without_sound_count_as_the_mean():
    model = head()
    model.set_standardisation(torch.full((HIDDEN,), 2.0), torch.full((HIDDEN,), 3.0))
    edges_s, read_s = clock()
    fine = fine_edges_s(edges_s, 0.5)
    values, heard = states(fine)
    heard[0, :17] = False
    values[0, :17] = torch.nan
    filled = torch.where(heard[:, :, None], values, 2.0)
    one = model(values, heard, N_TRS, fine, read_s)["S1"]
    other = model(filled, torch.ones_like(heard), N_TRS, fine, read_s)["S1"]
    torch.testing.assert_close(one, other)


# --- settings that do not fit ---


@pytest.mark.parametrize("bin_s", [0.05, 0.6, 0.0])
def test_impossible_bins_are_refused(bin_s):
    with pytest.raises(ValueError, match=r"bin_s is .* give 0\.1 to 0\.5 seconds"):
        HeadConfig(bin_s=bin_s)


def test_an_unknown_response_is_refused():
    with pytest.raises(ValueError, match=r"head haemodynamic is 'hrf_derivative'\. Did you mean 'hrf_derivatives'"):
        HeadConfig(haemodynamic="hrf_derivative")


@pytest.mark.parametrize("haemodynamic", KINDS)
def test_a_window_as_one_row_is_refused_at_once(haemodynamic, make_module):
    config, message = HeadConfig(haemodynamic=haemodynamic), r"convolves bins of 0\.5 s.*--model\.pooling\.over tr"
    with pytest.raises(ValueError, match=message):
        build_head(config, HIDDEN, SIZES, "window", 0)
    with pytest.raises(ValueError, match=message):
        make_module(head=config, pooling=PoolingConfig(over="window"))


@pytest.mark.parametrize(("tr_s", "enough", "least"), [(2.0, 6, "12"), (2.0045, 6, "12.027"), (1.5, 8, "12")])
def test_too_little_context_is_refused_before_anything_is_trained(tr_s, enough, least):
    config = HeadConfig(haemodynamic="hrf", delays_trs=(0, 40))
    check_context(config, enough, tr_s)
    with pytest.raises(ValueError, match=rf"12 s of sound.*--data\.window\.context_s at least {least} "):
        check_context(config, enough - 1, tr_s)


def test_a_response_that_hardly_fits_is_refused():
    edges_s, read_s = clock(context_s=2.0)
    fine = fine_edges_s(edges_s, 0.5)
    with pytest.raises(ValueError, match=r"less than half of the haemodynamic response.*--data\.window\.context_s"):
        head()(*states(fine), N_TRS, fine, read_s)


# --- in a module ---

LONG = {"n_windows": 8, "context_trs": 48}  # 12 s


@pytest.mark.parametrize("how", ["mean", "attention", "max"])
@pytest.mark.parametrize("haemodynamic", KINDS)
def test_a_module_learns_with_it_and_comes_back_from_its_checkpoint(
    haemodynamic, how, make_module, make_trainer, tmp_path
):
    settings = {"head": HeadConfig(haemodynamic=haemodynamic, bin_s=0.1), "pooling": PoolingConfig(how=how)}
    module, data = make_module(**settings), FakeData(**LONG)
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    batch, again = data.batch(), load_tuned(tmp_path / "tuned.ckpt")
    with torch.no_grad():
        for subject, values in module.eval()(batch).items():
            assert values.shape == batch["targets"][subject].shape
            assert torch.equal(values, again(batch)[subject])
    assert again.hparams["head"]["haemodynamic"] == haemodynamic
    resumed = make_module(**settings)
    make_trainer(max_epochs=3).fit(resumed, datamodule=data, ckpt_path=tmp_path / "tuned.ckpt")
    assert torch.equal(resumed.head.pool_mean, module.head.pool_mean)


def test_gradients_reach_the_backbone(make_module):
    module, data = make_module(head=HeadConfig(haemodynamic="hrf", bin_s=0.1)), FakeData(**LONG)
    module.build_head(data.target_sizes)
    module.losses(data.batch())["loss"].backward()
    reached = [
        parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in module.head.parameters()
    ]
    assert all(reached)
    assert any((p.grad != 0).any() for p in module.backbone.layers.parameters() if p.grad is not None)


def test_pools_are_standardised_in_bins_and_probes_see_rows(make_module, make_trainer):
    module, data = make_module(head=HeadConfig(haemodynamic="hrf", bin_s=0.1)), FakeData(**LONG)
    make_trainer(max_epochs=1).fit(module, datamodule=data)
    pooled, heard = module.pool(data.batch())
    assert pooled.shape[1] == heard.shape[1] == 2 * 54  # .25 s are two bins
    assert module.pooled_states(data.batch(), [-1]).shape[2] == 54


def test_windows_too_short_are_refused_at_setup(make_module, make_trainer):
    with pytest.raises(ValueError, match=r"12 s of sound before the first row"):
        make_trainer().fit(make_module(head=HeadConfig(haemodynamic="hrf")), datamodule=FakeData())


def test_checkpoints_from_before_are_of_heads_with_delays(make_module, make_trainer, tmp_path):
    module, trainer = make_module(), make_trainer(max_epochs=1)
    trainer.fit(module, datamodule=FakeData())
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    checkpoint = torch.load(tmp_path / "tuned.ckpt", weights_only=True)
    head = {key: value for key, value in checkpoint["brainlit"]["head"].items() if key not in ("haemodynamic", "bin_s")}
    checkpoint["brainlit"]["head"] = checkpoint["hyper_parameters"]["head"] = head
    torch.save(checkpoint, tmp_path / "earlier.ckpt")
    loaded = load_tuned(tmp_path / "earlier.ckpt")
    assert loaded.head_config == HeadConfig()
    assert "response.weights" not in loaded.head.state_dict()
    make_trainer(max_epochs=2).fit(make_module(), datamodule=FakeData(), ckpt_path=tmp_path / "earlier.ckpt")
    assert isinstance(loaded, BrainTuning)
