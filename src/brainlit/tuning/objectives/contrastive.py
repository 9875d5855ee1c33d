"""wav2vec 2.0's own loss: tell the quantised sound of a hidden frame from that of other hidden frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones import FrontEnd, SpeechBackbone, WeightsError
from brainlit.backbones.registry import checkpoint_file
from brainlit.backbones.state_dicts import inner_state
from brainlit.tuning.across_processes import mean_over_rows, sum_over_processes
from brainlit.tuning.heads import initial_map
from brainlit.tuning.objectives.base import Batch, Objective, ObjectiveConfig
from brainlit.tuning.objectives.masking import clip_generators, draw_others, hide_spans, mask_settings

log = logging.getLogger(__name__)

# --- Product quantisation with a Gumbel softmax, as wav2vec 2.0 makes its targets ---


class Quantised(NamedTuple):
    """Codewords of some frames.

    Parameters
    ----------
    vectors : Tensor of shape (n_frames, codevector_dim)
    codes : int64 Tensor of shape (n_frames, n_groups)
        Which entry of each codebook.
    perplexity : Tensor of shape ()
        How many entries are in use, added up over codebooks: n_groups at least, n_groups x n_vars at most.
    """

    vectors: Tensor
    codes: Tensor
    perplexity: Tensor


def new_quantiser(n_features: int, n_groups: int, n_vars: int, codevector_dim: int, generator: torch.Generator) -> Any:
    """transformers' Wav2Vec2GumbelVectorQuantizer, so that parameters have the names and shapes of checkpoints.

    Initialised as there, from the generator.
    """
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    settings = SimpleNamespace(
        num_codevector_groups=n_groups,
        num_codevectors_per_group=n_vars,
        codevector_dim=codevector_dim,
        conv_dim=[n_features],
    )
    with torch.random.fork_rng(devices=[]):
        quantiser = Wav2Vec2GumbelVectorQuantizer(settings)  # type: ignore[no-untyped-call]
    nn.init.normal_(quantiser.weight_proj.weight, generator=generator)
    nn.init.zeros_(quantiser.weight_proj.bias)
    nn.init.uniform_(quantiser.codevectors, generator=generator)
    return quantiser


def quantise(quantiser: Any, features: Tensor, temperature: float = 1.0, noise: Tensor | None = None) -> Quantised:
    """The nearest codewords, or with noise a sample of them that gradients pass through (arXiv 1611.01144).

    The numbers of the library's own forward, which cannot be used here: its noise comes from the global random state,
    and it multiplies every codeword by its 0 or 1 for every frame, gigabytes for a batch of long windows.

    Parameters
    ----------
    quantiser : Wav2Vec2GumbelVectorQuantizer
    features : float32 Tensor of shape (n_frames, n_features)
    temperature : float
        Of the Gumbel softmax.
    noise : float32 Tensor of shape (n_frames, n_groups, n_vars), or None
        Gumbel noise, see `gumbel_noise`; None for none, and no gradients through the choice.
    """
    n_groups, n_vars = quantiser.num_groups, quantiser.num_vars
    logits = quantiser.weight_proj(features).view(len(features), n_groups, n_vars)
    if noise is None:
        codes = logits.argmax(-1)
        chosen = functional.one_hot(codes, n_vars).to(logits.dtype)
        shares = mean_over_rows(chosen)
    else:
        soft = ((logits + noise) / temperature).softmax(-1)
        codes = soft.argmax(-1)
        chosen = functional.one_hot(codes, n_vars).to(logits.dtype) - soft.detach() + soft
        shares = mean_over_rows(logits.softmax(-1))
    vectors = torch.einsum("ngv,gvd->ngd", chosen, quantiser.codevectors.view(n_groups, n_vars, -1))
    perplexity = torch.exp(-torch.xlogy(shares, shares).sum(-1)).sum()
    return Quantised(vectors.flatten(1), codes, perplexity)


def gumbel_noise(generators: Sequence[torch.Generator], n_frames: Sequence[int], *sizes: int) -> Tensor:
    """Clip after clip from a generator each: float32 (sum of n_frames, *sizes), on the device of the generators."""
    drawn = (
        torch.empty(n, *sizes, device=generator.device).exponential_(generator=generator)
        for n, generator in zip(n_frames, generators, strict=True)
    )
    return -torch.cat(list(drawn)).log()


class StepDraws(NamedTuple):
    """What a step hides and compares.

    Parameters
    ----------
    hidden : bool Tensor of shape (batch, n_frames)
        Frames hidden from the transformer; n_hidden is the most in one clip.
    negatives : int64 Tensor of shape (batch, n_hidden, n_negatives)
        Distractors of each hidden frame of a clip, as numbers among the clip's hidden frames.
    noise : list of torch.Generator, or None
        Of the Gumbel softmax, one for each clip; None to quantise without noise.
    """

    hidden: Tensor
    negatives: Tensor
    noise: list[torch.Generator] | None


class Contrastive(Objective):
    """Contrastive and diversity loss of wav2vec 2.0 (arXiv 2006.11477, eq. 2 to 4), per hidden frame.

    The same numbers as transformers' Wav2Vec2ForPreTraining for the same draws, divided by the hidden frames. A clip
    with fewer than two hidden frames has no distractors and does not count.

    Parameters
    ----------
    config : ObjectiveConfig
    backbone : SpeechBackbone
        The wav2vec 2.0 model that is to be trained.
    seed : int
        Of the initial weights and of all that is drawn.
    """

    def __init__(self, config: ObjectiveConfig, backbone: SpeechBackbone, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.mask_prob, self.mask_length = mask_settings(config, backbone)
        settings = backbone.model.config
        n_groups = config.n_groups or settings.num_codevector_groups
        n_vars = config.n_vars or settings.num_codevectors_per_group
        if settings.codevector_dim % n_groups:
            raise ValueError(
                f"objective.n_groups is {n_groups}, and codewords of {settings.codevector_dim} numbers cannot be cut"
                " into so many parts; give a divisor, or null for what the checkpoint says."
            )
        generator = torch.Generator().manual_seed(seed)
        self.quantizer = new_quantiser(backbone.n_features, n_groups, n_vars, settings.codevector_dim, generator)
        self.project_hid = initial_map(backbone.hidden_size, settings.proj_codevector_dim, generator)
        self.project_q = initial_map(settings.codevector_dim, settings.proj_codevector_dim, generator)

    def forward(
        self, backbone: SpeechBackbone, front: FrontEnd, batch: Batch, step: int, states: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss, its two parts, perplexity of the codebooks, accuracy and hidden frames; see Objective.forward."""
        draws = self.draw(front.frame_mask, batch, step)
        predicted = backbone.trunk(front.features, front.frame_mask, hidden_from=draws.hidden)[-1]
        model: Any = backbone.model
        with torch.autocast(predicted.device.type, enabled=False):
            heard = model.feature_projection.layer_norm(front.features[draws.hidden].float())
            return self.score(predicted[draws.hidden].float(), heard, draws, self.config.gumbel_temperature(step))

    def draw(self, frame_mask: Tensor, batch: Batch, step: int) -> StepDraws:
        """Hidden frames, distractors and the source of noise for a batch; without noise in eval mode."""
        generators = clip_generators(self.seed, step if self.training else None, batch)
        hidden = hide_spans(frame_mask, self.mask_prob, self.mask_length, generators)
        n_hidden = hidden.sum(1).tolist()
        negatives = np.zeros((len(n_hidden), max(n_hidden), self.config.n_negatives), dtype=np.int64)
        for k, (count, rng) in enumerate(zip(n_hidden, generators, strict=True)):
            negatives[k, :count] = draw_others(count, self.config.n_negatives, rng)
        noise = None
        if self.training:
            seeds = [int(generator.integers(2**62)) for generator in generators]
            noise = [torch.Generator(frame_mask.device).manual_seed(seed) for seed in seeds]
        return StepDraws(hidden, torch.from_numpy(negatives).to(frame_mask.device), noise)

    def score(self, predicted: Tensor, heard: Tensor, draws: StepDraws, temperature: float) -> dict[str, Tensor]:
        """Losses from the hidden frames alone.

        Parameters
        ----------
        predicted : float32 Tensor of shape (n_hidden_of_all_clips, hidden_size)
            What the transformer makes of hidden frames, clip after clip.
        heard : float32 Tensor of shape (n_hidden_of_all_clips, n_features)
            What was hidden, as it comes out of the layer norm before the projection.
        temperature : float
            Of the Gumbel softmax.
        """
        n_hidden = draws.hidden.sum(1)
        there = torch.arange(draws.negatives.shape[1], device=n_hidden.device) < n_hidden[:, None]
        counted = there & (n_hidden > 1)[:, None]
        sizes = self.quantizer.num_groups, self.quantizer.num_vars
        noise = None if draws.noise is None else gumbel_noise(draws.noise, n_hidden.tolist(), *sizes)
        quantised = quantise(self.quantizer, heard, temperature, noise)
        logits = self._logits(self.project_hid(predicted), quantised, there, draws.negatives)[counted]
        positive = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        nats = functional.cross_entropy(logits, positive, reduction="sum")
        n_right = (logits.detach().argmax(1) == 0).sum()
        sums = torch.stack([nats, n_right.to(nats), counted.sum().to(nats)])
        total, n_right_of_all, n_counted = sum_over_processes(sums)
        contrastive = total / n_counted.clamp(min=1)
        diversity = 1 - quantised.perplexity / (sizes[0] * sizes[1])
        loss = contrastive + self.config.diversity_weight * diversity
        parts = {
            "loss": loss,
            "contrastive": contrastive.detach(),
            "diversity": diversity.detach(),
            "perplexity": quantised.perplexity.detach(),
            "accuracy": (n_right_of_all / n_counted.clamp(min=1)).detach(),
        }
        # Where nothing could be compared there is nothing to learn, diversity included.
        parts = {name: torch.where(n_counted > 0, value, 0.0) for name, value in parts.items()}
        return {**parts, "n_hidden": n_counted.detach()}

    def _logits(self, projected: Tensor, quantised: Quantised, there: Tensor, negatives: Tensor) -> Tensor:
        """Cosine similarities / temperature, the true one first: (batch, n_hidden, 1 + n_negatives).

        Of all pairs in a clip as one product, then the drawn ones. Distractors with the same codes as the true
        codeword are left out.
        """
        predicted = _per_clip(functional.normalize(projected, dim=-1), there)
        codewords = _per_clip(functional.normalize(self.project_q(quantised.vectors), dim=-1), there)
        similarity = predicted @ codewords.transpose(1, 2)
        # The codes of all groups as one number, so that equal codewords are found by one comparison.
        radix = self.quantizer.num_vars ** torch.arange(quantised.codes.shape[1], device=there.device)
        codes = _per_clip((quantised.codes * radix).sum(1), there)
        clip = torch.arange(len(there), device=there.device)[:, None, None]
        same = codes[clip, negatives] == codes[:, :, None]
        others = similarity.gather(2, negatives).masked_fill(same, -torch.inf)
        true = similarity.diagonal(dim1=1, dim2=2)[:, :, None]
        return torch.cat([true, others], 2) / self.config.temperature


def _per_clip(rows: Tensor, there: Tensor) -> Tensor:
    """Rows of all clips one after another -> (batch, n_hidden, ...), with zeros where a clip has fewer."""
    padded = rows.new_zeros((*there.shape, *rows.shape[1:]))
    padded[there] = rows
    return padded


# --- Heads of wav2vec 2.0's own training, where a checkpoint still has them ---

FILES = ("model.safetensors", "pytorch_model.bin")


def use_pretraining_heads(backbone: SpeechBackbone, module: Contrastive) -> bool:
    """Go on with the heads of the backbone's own checkpoint; True where it has them. Says so in the log."""
    file, weights = checkpoint_file(backbone, *FILES), backbone.config.named
    before = str(backbone.origin.get("prefix", "")).removesuffix(f"{backbone.model.base_model_prefix}.")
    found = file is not None and load_pretraining_heads(file, module, before)
    if found:
        log.info("quantiser and projections of the contrastive loss: those of %s", weights)
    else:
        log.info("%s has no quantiser: it begins at random (seed %d), and so does the loss", weights, module.seed)
    return found


def load_pretraining_heads(file: Path, module: Contrastive, before: str = "") -> bool:
    """Load quantizer, project_hid and project_q from a Wav2Vec2ForPreTraining checkpoint; False if it lacks any.

    Parameters
    ----------
    file : Path
        model.safetensors or pytorch_model.bin.
    before : str
        What names in the file begin with: 'module.' where DataParallel saved it.

    Raises
    ------
    WeightsError
        If the checkpoint's heads have other shapes.
    """
    wanted = module.state_dict()
    found = _read(file, {before + name for name in wanted})
    tensors = {name.removeprefix(before): value for name, value in found.items()}
    if set(tensors) != set(wanted):
        return False
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)} in {file} and {tuple(wanted[name].shape)} here; leave"
                " --model.objective.n_groups and n_vars at null to take what the checkpoint says."
            )
    module.load_state_dict(tensors)
    return True


def _read(file: Path, names: set[str]) -> dict[str, Tensor]:
    """Those of the named tensors that are in a file."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_tensor(name) for name in names & set(tensors.keys())}
    loaded: dict[str, Tensor] = inner_state(torch.load(file, map_location="cpu", weights_only=True))
    return {name: loaded[name] for name in names & set(loaded)}
