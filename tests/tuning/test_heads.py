"""What all heads share: delays, standardising, seeds, errors; each kind against loops."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from brainlit.tuning.heads import HEADS, HeadConfig, build_head, check_target_sizes, initial_delay_weights

SIZES = {"S1": 3, "S2": 3}
HIDDEN = 4
KINDS = sorted(HEADS)


def head(kind="linear", delays_trs=(0, 2), over="tr", sizes=SIZES, seed=0, **settings):
    config = HeadConfig(kind=kind, rank=2, delays_trs=delays_trs, **{"dropout": 0.0, **settings})
    return build_head(config, HIDDEN, sizes, over, seed)


def rows(n_bins=7, seed=0):
    pooled = torch.randn(2, n_bins, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return pooled, torch.ones(2, n_bins, dtype=torch.bool)


def shaken(model, seed=5):
    """The head with every parameter drawn anew, so that no zero hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def slow_rows(model, pooled, b, t, context=2):
    """What goes into the map for one row: a weighted sum of the rows back, or all of them side by side."""
    back = [pooled[b, context + t - d] for d in model.delays_trs]
    if model.fir:
        return torch.cat(back)
    return sum(w * row for w, row in zip(model.delay_weights, back, strict=True))


def slow_map(model, kind, subject, x):
    """One subject's responses to one row."""
    k, (w, bias) = list(SIZES).index(subject), (model.linear.weight, model.linear.bias)
    own = slice(3 * k, 3 * k + 3)
    if kind == "linear":
        return w[own] @ x + bias[own]
    if kind == "bottleneck":
        return w[own] @ (model.narrow.weight @ x) + bias[own]
    common = w @ x + bias
    if kind == "shared":
        return common
    return common + model.widen[k] @ model.narrow.weight[2 * k : 2 * k + 2] @ x


@pytest.mark.parametrize("delays", ["mix", "fir", "fixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_loop_over_windows_rows_and_subjects(kind, delays):
    model = shaken(head(kind, delays=delays))
    pooled, heard = rows()
    predicted = model(pooled, heard, n_trs=5)
    assert list(predicted) == list(SIZES)
    for subject, values in predicted.items():
        for b in range(2):
            for t in range(5):
                expected = slow_map(model, kind, subject, slow_rows(model, pooled, b, t))
                torch.testing.assert_close(values[b, t], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_fir_begins_as_the_mix_of_the_same_seed(kind):
    fir, mix = (head(kind, delays_trs=(0, 1, 4), delays=delays, seed=3) for delays in ("fir", "mix"))
    pooled, heard = rows(9)
    for subject, values in fir(pooled, heard, 5).items():
        torch.testing.assert_close(values, mix(pooled, heard, 5)[subject])


def test_fir_learns_a_delay_for_each_voxel_where_one_for_all_cannot():
    generator = torch.Generator().manual_seed(0)
    pooled, heard = torch.randn(16, 12, HIDDEN, generator=generator), torch.ones(16, 12, dtype=torch.bool)
    targets = torch.stack([pooled[:, 4 - d : 12 - d, 0] for d in (1, 3, 4)], dim=2)

    def error(delays):
        model = head(delays_trs=(1, 3, 4), delays=delays, sizes={"S1": 3})
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

        def closure():
            optimizer.zero_grad()
            loss = (model(pooled, heard, 8)["S1"] - targets).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        return float(closure().detach())

    assert error("fir") < 1e-3
    assert error("mix") > 0.3


def test_fixed_weights_are_kept_but_not_learned():
    model = head(delays="fixed")
    assert "delay_weights" in model.state_dict()
    assert "delay_weights" not in dict(model.named_parameters())
    assert "delay_weights" in dict(head(delays="mix").named_parameters())
    assert "delay_weights" not in head(delays="fir").state_dict()


@pytest.mark.parametrize("delays", ["mix", "fir"])
def test_an_impulse_comes_out_at_its_delays_and_nowhere_else(delays):
    model = head(delays_trs=(1, 3), delays=delays)
    pooled, heard = torch.zeros(1, 9, HIDDEN), torch.ones(1, 9, dtype=torch.bool)
    pooled[0, 4] = 1.0
    out = model(pooled, heard, n_trs=6)["S2"][0].abs().sum(1)
    assert (out > 0).nonzero()[:, 0].tolist() == [2, 4]  # rows 3.. of the window are predicted: 4+1-3 and 4+3-3


@pytest.mark.parametrize("delays", ["mix", "fir", "fixed"])
def test_too_little_context_names_the_option(delays):
    with pytest.raises(ValueError, match=r"2 TRs back.*1 rows of context.*--data\.window\.context_s.*delays_trs"):
        head(delays=delays)(*rows(6), n_trs=5)


@pytest.mark.parametrize("delays", ["mix", "fir", "fixed"])
def test_a_window_pooled_as_one_row_has_no_delays(delays):
    model = head(over="window", delays=delays)
    pooled, heard = rows(1)
    torch.testing.assert_close(model(pooled, heard, 1)["S1"], pooled @ model.linear.weight[:3].T)
    assert model.delays_trs is None
    assert "delay_weights" not in model.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_standardises_and_counts_silent_rows_as_the_mean(kind):
    model = shaken(head(kind, over="window"))
    mean, sd = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 1, 0, 4])
    model.set_standardisation(mean, sd)
    pooled, heard = rows(3)
    heard[0, 1] = False
    pooled[0, 1] = torch.nan
    predicted = model(pooled, heard, 3)["S2"]
    scaled = (pooled - mean) / torch.tensor([2.0, 1, 1, 4])
    scaled[0, 1] = 0
    for b in range(2):
        for t in range(3):
            torch.testing.assert_close(predicted[b, t], slow_map(model, kind, "S2", scaled[b, t]))
    assert set(model.state_dict()) >= {"pool_mean", "pool_sd"}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_from_the_seed_and_the_global_state_is_not_touched(kind):
    torch.manual_seed(99)
    expected = torch.rand(2)
    torch.manual_seed(99)
    one, again, other = (head(kind, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["linear.weight"], other["linear.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind):
    model = shaken(head(kind))
    predicted = model(*rows(), 5)
    sum(values.square().sum() for values in predicted.values()).backward()
    assert all((parameter.grad != 0).any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_width_starts_with_responses_of_moderate_size(kind):
    config = HeadConfig(kind=kind, delays_trs=(0,), dropout=0.0)
    model = build_head(config, 768, {"S1": 100, "S2": 100}, "tr", seed=0)
    pooled = torch.randn(4, 20, 768, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted = model(pooled, torch.ones(4, 20, dtype=torch.bool), 20)
    assert [float(values.std()) for values in predicted.values()] == pytest.approx([3**-0.5] * 2, rel=0.05)


# --- shared maps ---


def test_a_low_rank_deviation_begins_as_the_shared_head_and_then_parts_the_subjects():
    model, shared = head("shared_low_rank", seed=3), head("shared", seed=3)
    pooled, heard = rows()
    for subject, values in model(pooled, heard, 5).items():
        torch.testing.assert_close(values, shared(pooled, heard, 5)[subject], rtol=0, atol=0)
    first, second = shaken(model)(pooled, heard, 5).values()
    assert not torch.allclose(first, second)


def test_a_deviation_has_the_rank_asked_for():
    model = shaken(head("shared_low_rank", over="window"))
    probe = torch.eye(HIDDEN)[None], torch.ones(1, HIDDEN, dtype=torch.bool)
    common = probe[0] @ model.linear.weight.T + model.linear.bias
    assert torch.linalg.matrix_rank((model(*probe, HIDDEN)["S2"] - common)[0], atol=1e-4) == 2


@pytest.mark.parametrize("kind", ["shared", "shared_low_rank"])
def test_three_subjects_cost_little_more_than_one(kind):
    def flops(subjects):
        sizes = dict.fromkeys(subjects, 500)
        model = build_head(HeadConfig(kind=kind, rank=8, dropout=0.0), 128, sizes, "tr", seed=0)
        pooled, heard = torch.randn(4, 24, 128), torch.ones(4, 24, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            sum(values.sum() for values in model(pooled, heard, 20).values()).backward()
        return counter.get_total_flops()

    assert flops("ABC") * 2.3 <= 3 * flops("A")


@pytest.mark.parametrize("kind", ["shared", "shared_low_rank"])
def test_subjects_of_different_sizes_cannot_share_a_map(kind):
    with pytest.raises(ValueError, match=r"S1 95, S2 20,484.*common space.*fsaverage5.*min_ceiling null.*kind linear"):
        head(kind, sizes={"S1": 95, "S2": 20_484})


@pytest.mark.parametrize("kind", ["shared", "shared_low_rank"])
def test_subjects_with_other_columns_cannot_share_a_map(kind):
    config = HeadConfig(kind=kind)
    columns = {"S1": np.array([1, 4, 7]), "S2": np.array([1, 4, 8])}
    with pytest.raises(ValueError, match=r"different columns.*S1 3, S2 3, of which 2 are common to all.*fsaverage5"):
        build_head(config, HIDDEN, SIZES, "tr", 0, columns)
    with pytest.raises(ValueError, match=r"another order.*of which 3 are common"):
        build_head(config, HIDDEN, SIZES, "tr", 0, {"S1": [1, 4, 7], "S2": [7, 4, 1]})
    build_head(config, HIDDEN, SIZES, "tr", 0, {"S1": [1, 4, 7], "S2": torch.tensor([1, 4, 7])})


@pytest.mark.parametrize("kind", ["linear", "bottleneck"])
def test_heads_per_subject_take_any_columns(kind):
    columns = {"S1": [0, 1], "S2": [5]}
    model = build_head(HeadConfig(kind=kind), HIDDEN, {"S1": 2, "S2": 1}, "tr", 0, columns)
    assert model.target_sizes == {"S1": 2, "S2": 1}


# --- settings and data that do not fit ---


def test_a_head_of_ones_own_says_by_itself_whether_subjects_share_its_map(monkeypatch):
    class Mine(HEADS["linear"]):
        pass

    monkeypatch.setitem(HEADS, "mine", Mine)
    columns = {"S1": np.array([0, 1, 2]), "S2": np.array([0, 1, 3])}
    sizes = dict.fromkeys(columns, 3)
    assert type(build_head(HeadConfig(kind="mine"), HIDDEN, sizes, "tr", 0, columns)) is Mine
    monkeypatch.setattr(Mine, "same_targets", True)
    with pytest.raises(ValueError, match="of which 2 are common to all"):
        build_head(HeadConfig(kind="mine"), HIDDEN, sizes, "tr", 0, columns)


@pytest.mark.parametrize("delays_trs", [(), (1, 1), (-1, 0)])
def test_impossible_delays_are_refused(delays_trs):
    with pytest.raises(ValueError, match="delays_trs"):
        HeadConfig(delays_trs=delays_trs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "linears"}, "head kind is 'linears'. Did you mean 'linear'"),
        ({"delays": "fir_"}, "head delays is 'fir_'. Did you mean 'fir'"),
        ({"rank": 0}, "rank is 0; give at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; it is a probability"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**settings)


def test_lists_from_a_file_become_tuples():
    assert HeadConfig(delays_trs=[1, 2]) == HeadConfig(delays_trs=(1, 2))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"pooling over is 'windows'\. Did you mean 'window'"):
        head(over="windows")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [{}, {"S1": 0}])
def test_no_voxels_are_refused(kind, sizes):
    with pytest.raises(ValueError, match="at least one voxel"):
        head(kind, sizes=sizes)


def test_targets_must_be_those_of_the_head():
    with pytest.raises(ValueError, match=r"3 voxels of subject 'S2', but the data have 1,000 voxels.*min_ceiling"):
        check_target_sizes(SIZES, {"S1": 3, "S2": 1000})
    with pytest.raises(ValueError, match=r"3 voxels of subject 'S2', but the data have no voxels"):
        check_target_sizes(SIZES, {"S1": 3})
    with pytest.raises(ValueError, match=r"predicts no voxels of subject 'S9'"):
        check_target_sizes(SIZES, {"S2": 3, "S1": 3, "S9": 3})
    check_target_sizes(SIZES, {"S2": 3, "S1": 3})


def test_initial_delay_weights():
    torch.testing.assert_close(initial_delay_weights((0, 1, 2, 3, 4)), torch.tensor([0.05, 0.25, 0.35, 0.25, 0.1]))
    others = initial_delay_weights((2, 6))
    torch.testing.assert_close(others, torch.tensor([0.35, 0.05]) / 0.4)
