"""Probes of frozen features: logistic regression, and a small network of one hidden layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainlit.downstream.task import CHOOSE, TRAIN, Kind
from brainlit.encoding.arrays import Float32Array, IntArray
from brainlit.hints import did_you_mean
from brainlit.tuning.heads import initial_map


@dataclass(frozen=True)
class LayerProbeConfig:
    """Which probes are fitted, and what they may choose from.

    Parameters
    ----------
    probes : tuple of str
        linear: logistic regression, multinomial or one for each label. mlp: one hidden layer.
    strengths : tuple of float
        L2 strengths of the linear probe: loss per clip + strength / 2 x squared weights.
    decays : tuple of float
        Weight decays of the mlp, per step and unit of the learning rate (AdamW).
    hidden : int
        Units of the mlp.
    rate : float
        Learning rate of the mlp.
    batch_size : int
        Clips per step of the mlp.
    max_epochs, patience : int
        The mlp stops after so many epochs, or so many without a lower loss on 'choose'; the best weights count.
    seeds : tuple of int
        Of the mlp's initial weights and order of clips; scores are means over them. The linear probe needs none.
    max_steps : int
        Steps of the linear probe's solver (L-BFGS), at most.
    """

    probes: tuple[str, ...] = ("linear", "mlp")
    strengths: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001, 0.0001)
    decays: tuple[float, ...] = (1.0, 0.1)
    hidden: int = 64
    rate: float = 3e-3
    batch_size: int = 128
    max_epochs: int = 60
    patience: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    max_steps: int = 100

    def __post_init__(self) -> None:
        for probe in self.probes:
            if probe not in PROBES:
                raise ValueError(f"probe is {probe!r}. {did_you_mean(probe, PROBES)}")
        for name in ("probes", "strengths", "decays", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"probe {name} are empty; give at least one.")
        if min(*self.strengths, *self.decays) < 0:
            raise ValueError(f"probe strengths {self.strengths} and decays {self.decays} cannot be negative.")
        for name in ("hidden", "batch_size", "max_epochs", "patience", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"probe {name} is {getattr(self, name)}; give at least 1.")
        if not self.rate > 0:
            raise ValueError(f"probe rate is {self.rate}; it must be above 0.")


class LayerData(NamedTuple):
    """One layer's features, and the right answers.

    Parameters
    ----------
    features : mapping of part to float32 array of shape (n_clips, n_features)
        All parts, 'train' and 'choose' among them.
    targets : mapping of part to int array
        As in Task; only those of 'train' and 'choose' are looked at.
    """

    features: Mapping[str, Float32Array]
    targets: Mapping[str, IntArray]
    kind: Kind
    n_labels: int


class ProbePredictions(NamedTuple):
    """What the probes of one layer answer, fitted with each setting and seed.

    Parameters
    ----------
    settings : tuple of float, length n_settings
        Regularisation, the strongest first.
    predictions : mapping of part to int array of shape (n_settings, n_seeds, n_clips) or (..., n_clips, n_labels)
        For all parts but 'train': label indices, or 0 and 1 for kind 'multi'.
    """

    settings: tuple[float, ...]
    predictions: dict[str, IntArray]


def standardised(features: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    """Zero mean and unit variance over the clips of 'train', the same shift and scale for all parts.

    What does not vary in train becomes 0.
    """
    train = np.asarray(features[TRAIN], dtype=np.float64)
    mean, scale = train.mean(axis=0), train.std(axis=0)
    constant = scale <= 1e-7 * np.abs(mean)
    weight = np.where(constant, 0.0, 1 / np.where(constant, 1.0, scale))
    return {part: ((values - mean) * weight).astype(np.float32) for part, values in features.items()}


def fit_linear(data: LayerData, config: LayerProbeConfig, device: torch.device | str = "cpu") -> ProbePredictions:
    """Logistic regression for each L2 strength, by L-BFGS from the strongest on; deterministic.

    Softmax over the labels for kind 'single', one yes or no per label for 'multi'. The intercept is not penalised.
    """
    x, y = _tensors(data, TRAIN, device)
    weight = torch.zeros(x.shape[1], data.n_labels, device=device, requires_grad=True)
    bias = torch.zeros(data.n_labels, device=device, requires_grad=True)
    settings = tuple(sorted(config.strengths, reverse=True))
    logits: dict[str, list[Tensor]] = {part: [] for part in _predicted_parts(data)}
    for strength in settings:
        _minimise(x, y, weight, bias, data.kind, strength, config.max_steps)
        for part in logits:
            given = torch.from_numpy(data.features[part]).to(device)
            logits[part].append((given @ weight + bias).detach())
    return ProbePredictions(
        settings, {part: _decided(torch.stack(rows), data.kind, (-1, 1)) for part, rows in logits.items()}
    )


def _minimise(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, kind: Kind, strength: float, max_steps: int) -> None:
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=max_steps, tolerance_grad=1e-5, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _losses(x @ weight + bias, y, kind).mean() + strength / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]


def fit_mlp(data: LayerData, config: LayerProbeConfig, device: torch.device | str = "cpu") -> ProbePredictions:
    """A network of one hidden layer for each weight decay and seed; each stops by its own loss on 'choose'.

    All are trained side by side as one batch of networks, which draws on the global random state for nothing.
    """
    settings = tuple(sorted(config.decays, reverse=True))
    networks = _Networks(data, config, settings, device)
    networks.train()
    shape = (len(settings), len(config.seeds))
    answers = {part: _decided(networks.logits(part), data.kind, shape) for part in _predicted_parts(data)}
    return ProbePredictions(settings, answers)


class _Networks:
    """Networks for all decays and seeds: parameters have one axis more, (n_settings x n_seeds, ...)."""

    def __init__(
        self, data: LayerData, config: LayerProbeConfig, settings: tuple[float, ...], device: torch.device | str
    ) -> None:
        self.data, self.config, self.device = data, config, device
        self.x, self.y = _tensors(data, TRAIN, device)
        self.generators = [torch.Generator().manual_seed(seed) for seed in config.seeds]
        self.n_settings = len(settings)
        self.decay = torch.tensor(settings, device=device).repeat_interleave(len(config.seeds))
        sizes = ((self.x.shape[1], config.hidden), (config.hidden, data.n_labels))
        self.parameters = [part.requires_grad_() for size in sizes for part in self._new(*size)]
        self.best = [parameter.detach().clone() for parameter in self.parameters]

    def _new(self, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
        """Weights (n_networks, n_in, n_out) and biases (n_networks, 1, n_out); a seed's are the same for all decays."""
        weight = torch.stack([initial_map(n_in, n_out, one).weight.detach().T for one in self.generators])
        weight = weight.repeat(self.n_settings, 1, 1).to(self.device)
        return weight.contiguous(), torch.zeros(len(weight), 1, n_out, device=self.device)

    def train(self) -> None:
        """Adam with decoupled weight decay, until no network has become better for `patience` epochs."""
        solver = torch.optim.Adam(self.parameters, lr=self.config.rate)
        lowest = torch.full((len(self.decay),), torch.inf, device=self.device)
        waited = torch.zeros_like(lowest)
        for _ in range(self.config.max_epochs):
            self._epoch(solver)
            loss = self._choose_loss()
            better = (loss < lowest) & (waited < self.config.patience)
            lowest = torch.where(better, loss, lowest)
            waited = torch.where(better, torch.zeros_like(waited), waited + 1)
            for best, parameter in zip(self.best, self.parameters, strict=True):
                best[better] = parameter.detach()[better]
            if bool((waited >= self.config.patience).all()):
                return

    def _epoch(self, solver: torch.optim.Adam) -> None:
        n_clips = len(self.x)
        orders = torch.stack([torch.randperm(n_clips, generator=one) for one in self.generators])
        orders = orders.repeat(self.n_settings, 1).to(self.device)
        for first in range(0, n_clips, self.config.batch_size):
            chosen = orders[:, first : first + self.config.batch_size]
            with torch.enable_grad():
                losses = _losses(_forward(self.x[chosen], self.parameters), self.y[chosen], self.data.kind)
                solver.zero_grad()
                losses.mean(1).sum().backward()  # type: ignore[no-untyped-call]
            solver.step()
            with torch.no_grad():
                for weight in self.parameters[::2]:
                    weight.mul_(1 - self.config.rate * self.decay[:, None, None])

    def _choose_loss(self) -> Tensor:
        x, y = _tensors(self.data, CHOOSE, self.device)
        with torch.no_grad():
            logits = _forward(x, self.parameters)
            return _losses(logits, y.expand(len(self.decay), *y.shape), self.data.kind).mean(1)

    def logits(self, part: str) -> Tensor:
        """Of the best weights: (n_networks, n_clips, n_labels)."""
        x = torch.from_numpy(self.data.features[part]).to(self.device)
        return _forward(x, self.best)


PROBES: dict[str, Callable[[LayerData, LayerProbeConfig, torch.device | str], ProbePredictions]] = {
    "linear": fit_linear,
    "mlp": fit_mlp,
}


def _forward(x: Tensor, parameters: list[Tensor]) -> Tensor:
    """Each network's own clips (n_networks, n_clips, n_features), or the same ones (n_clips, n_features) for all."""
    weight_1, bias_1, weight_2, bias_2 = parameters
    hidden = x @ weight_1 if x.ndim == 3 else torch.einsum("nf,kfh->knh", x, weight_1)
    return torch.relu(hidden + bias_1) @ weight_2 + bias_2


def _losses(logits: Tensor, y: Tensor, kind: Kind) -> Tensor:
    """Loss of each clip: (..., n_clips, n_labels) -> (..., n_clips)."""
    if kind == "single":
        return functional.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)
    return functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(-1)


def _decided(logits: Tensor, kind: Kind, shape: tuple[int, int]) -> IntArray:
    """Answers, the first axis (networks) cut into settings and seeds.

    Raises
    ------
    ValueError
        If a score of a label is NaN or infinite: the first label would win.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "a probe of a layer did not converge: scores of labels are NaN or infinite. Look for features that are very"
            " large, or give the probe other strengths."
        )
    decided = (logits.argmax(-1) if kind == "single" else (logits > 0).long()).cpu().numpy()
    return np.asarray(decided.reshape(*shape, *decided.shape[1:]), dtype=np.int64)


def _predicted_parts(data: LayerData) -> list[str]:
    return [part for part in data.features if part != TRAIN]


def _tensors(data: LayerData, part: str, device: torch.device | str) -> tuple[Tensor, Tensor]:
    y = torch.from_numpy(data.targets[part]).to(device)
    return torch.from_numpy(data.features[part]).to(device), y if data.kind == "single" else y.float()
