"""HuBERT's loss: predict which cluster of the untuned model's states a hidden frame belongs to."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones import FrontEnd, SpeechBackbone
from brainlit.tuning.across_processes import sum_over_processes
from brainlit.tuning.heads import initial_map
from brainlit.tuning.objectives.base import Batch, Objective, ObjectiveConfig
from brainlit.tuning.objectives.masking import clip_generators, hide_spans, mask_settings

Floats = npt.NDArray[np.float32]
log = logging.getLogger(__name__)

CODE_SIZE = 256
"""Size of the space in which states and clusters are compared."""
N_CLUSTERS = 500
N_CLUSTERS_SMALL = 100
FULL_SIZE_LAYERS = 12
KMEANS_BATCH = 4096
KMEANS_PASSES = 5


class MaskedPrediction(Objective):
    """Masked prediction of k-means clusters (HuBERT, arXiv 2106.07447, eq. 1 and 3, with alpha = 1), per hidden frame.

    The clusters are those of a middle layer of the model as it is when this is built, of which a frozen copy is kept
    (in the state_dict too): labels from the model that is being trained would move with it, down to one label for all.
    The published clusters are not part of the checkpoints, so they are found anew on the stimulus audio, and the codes
    of clusters begin at random.

    Parameters
    ----------
    config : ObjectiveConfig
    backbone : SpeechBackbone
        The model that is to be trained, still untuned.
    seed : int
        Of the initial weights, the clusters and the masks.
    """

    centroids: Tensor
    fitted: Tensor

    def __init__(self, config: ObjectiveConfig, backbone: SpeechBackbone, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.mask_prob, self.mask_length = mask_settings(config, backbone)
        self.kmeans_layer = _kmeans_layer(config, backbone)
        small = backbone.n_layers < FULL_SIZE_LAYERS
        self.n_clusters = config.n_clusters or (N_CLUSTERS_SMALL if small else N_CLUSTERS)
        self.teacher = frozen_copy(backbone, self.kmeans_layer)
        generator = torch.Generator().manual_seed(seed)
        self.project = initial_map(backbone.hidden_size, CODE_SIZE, generator)
        self.codes = nn.Parameter(torch.randn(self.n_clusters, CODE_SIZE, generator=generator))
        self.register_buffer("centroids", torch.zeros(self.n_clusters, backbone.hidden_size))
        self.register_buffer("fitted", torch.tensor(False))

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; the frozen copy stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    # --- clusters ---

    @property
    def prepared(self) -> bool:
        """Whether there are clusters."""
        return bool(self.fitted)

    def prepare(self, backbone: SpeechBackbone, batches: Iterable[Batch]) -> None:
        """Find the clusters, on the first kmeans_frames real frames of the batches; not when there are some already.

        Every process of a distributed run has to be given the same batches.

        Raises
        ------
        ValueError
            If there are fewer frames than clusters.
        """
        if self.prepared:
            return
        states = self._collect(backbone, batches)
        if len(states) < self.n_clusters:
            raise ValueError(
                f"{len(states)} frames of sound in the training windows are too few for {self.n_clusters} clusters;"
                " give fewer --model.objective.n_clusters, or more stories."
            )
        log.info("k-means: %d clusters of layer %d, %d frames", self.n_clusters, self.kmeans_layer, len(states))
        self.centroids.copy_(torch.from_numpy(find_clusters(states, self.n_clusters, self.seed)))
        self.fitted.fill_(True)

    @torch.no_grad()
    def _collect(self, backbone: SpeechBackbone, batches: Iterable[Batch]) -> Floats:
        """Teacher states of real frames, float32 of shape (n_frames, hidden_size)."""
        from tqdm import tqdm

        rows: list[Tensor] = []
        wanted, device = self.config.kmeans_frames, self.centroids.device
        with tqdm(total=wanted, desc="Frames to cluster", unit="frame") as bar:
            for batch in batches:
                front = backbone.front_end(batch["audio"].to(device), batch["audio_mask"].to(device))
                states = self.teacher_states(front)[front.frame_mask][: wanted - bar.n]
                rows.append(states.float().cpu())
                bar.update(len(states))
                if bar.n >= wanted:
                    break
        return torch.cat(rows).numpy() if rows else np.empty((0, backbone.hidden_size), dtype=np.float32)

    def teacher_states(self, front: FrontEnd) -> Tensor:
        """States of the untuned model at kmeans_layer, with nothing hidden: (batch, n_frames, hidden_size)."""
        with torch.no_grad():
            return self.teacher.trunk(front.features, front.frame_mask)[self.kmeans_layer]

    def labels(self, states: Tensor) -> Tensor:
        """The nearest cluster of each state: float32 (n_frames, hidden_size) -> int64 (n_frames,)."""
        return (self.centroids.square().sum(1) - 2 * states @ self.centroids.T).argmin(1)

    # --- loss ---

    def forward(
        self, backbone: SpeechBackbone, front: FrontEnd, batch: Batch, step: int, states: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss, accuracy and hidden frames; see Objective.forward.

        Raises
        ------
        RuntimeError
            If there are no clusters yet.
        """
        if not self.prepared:
            raise RuntimeError("masked prediction has no clusters yet: call prepare with training windows first.")
        generators = clip_generators(self.seed, step if self.training else None, batch)
        hidden = hide_spans(front.frame_mask, self.mask_prob, self.mask_length, generators)
        predicted = backbone.trunk(front.features, front.frame_mask, hidden_from=hidden)[-1][hidden]
        true_states = self.teacher_states(front)[hidden]
        with torch.autocast(predicted.device.type, enabled=False):
            return self.score(predicted.float(), self.labels(true_states.float()))

    def score(self, predicted: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss from states of hidden frames (n_hidden, hidden_size) and their clusters (n_hidden,)."""
        projected = functional.normalize(self.project(predicted), dim=-1)
        logits = projected @ functional.normalize(self.codes, dim=-1).T / self.config.temperature
        nats = functional.cross_entropy(logits, labels, reduction="sum")
        n_right = (logits.detach().argmax(1) == labels).sum()
        counted = torch.tensor(float(len(labels)), device=labels.device)
        total, n_right_of_all, n_hidden = sum_over_processes(torch.stack([nats, n_right.to(nats), counted]))
        return {
            "loss": total / n_hidden.clamp(min=1),
            "accuracy": n_right_of_all.detach() / n_hidden.detach().clamp(min=1),
            "n_hidden": n_hidden.detach(),
        }


def find_clusters(states: Floats, n_clusters: int, seed: int) -> Floats:
    """Centroids of states (n_frames, n_features) by mini-batch k-means: float32 (n_clusters, n_features)."""
    from sklearn.cluster import MiniBatchKMeans
    from tqdm import tqdm

    kmeans = MiniBatchKMeans(n_clusters, n_init=1, random_state=seed)
    rng = np.random.default_rng(seed)
    n_parts = max(1, len(states) // max(KMEANS_BATCH, n_clusters))
    orders = [rng.permutation(len(states)) for _ in range(KMEANS_PASSES)]
    for rows in tqdm(
        [part for order in orders for part in np.array_split(order, n_parts)], desc="K-means", unit="step"
    ):
        kmeans.partial_fit(states[rows])
    return np.asarray(kmeans.cluster_centers_, dtype=np.float32)


def frozen_copy(backbone: SpeechBackbone, layer: int) -> SpeechBackbone:
    """A copy of the trunk up to a hidden state, in eval mode and without gradients; its front end is gone.

    One layer more than needed is kept, because some models normalise what comes out of the last.
    """
    teacher = copy.deepcopy(backbone).requires_grad_(False).eval()
    del teacher.layers[layer + 1 :]  # type: ignore[attr-defined]
    teacher.gradient_checkpointing = False
    front_end = list(teacher.front_end_modules())
    for parent in list(teacher.modules()):
        for name, child in list(parent.named_children()):
            if any(child is module for module in front_end):
                setattr(parent, name, nn.Identity())
    return teacher


def _kmeans_layer(config: ObjectiveConfig, backbone: SpeechBackbone) -> int:
    if config.kmeans_layer is None:
        return backbone.n_layers // 2
    if not 0 <= config.kmeans_layer <= backbone.n_layers:
        raise ValueError(
            f"objective.kmeans_layer is {config.kmeans_layer}; the backbone has hidden states 0..{backbone.n_layers}."
        )
    return config.kmeans_layer
