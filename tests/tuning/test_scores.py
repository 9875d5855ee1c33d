"""Correlation in batches is correlation."""

import numpy as np
import torch

from brainlit.tuning.scores import RunningCorrelation


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
