"""A small GPT-2 that first learns the grammar of the demo's stories: text alone, from scratch, in under a minute.

It stands in for published language models where nothing can be downloaded. It knows which words follow each other and
what a scene is about; its record says how well, on a story that it never read.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brainlit.backbones.tiny import corpus_version, train_one_cycle
from brainlit.backbones.weights import cached_folder
from brainlit.demo.text import FILLERS, TEMPLATES, category_of, random_stream, write_story
from brainlit.weight_files import without_bars

log = logging.getLogger(__name__)

RECORD_FILE = "text.json"
RECIPE_VERSION = 1
"""Part of the cache's key: another number wherever the training below changes."""

UNKNOWN, PADDING = "[UNK]", "[PAD]"
MOST_TOKENS = 256
_WORD = re.compile(r"[a-z']+")
_WORDS_PER_STORY = 600

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TextRecipe:
    """How the tiny language model learns to read.

    Parameters
    ----------
    seed : int
        Of the text, the initial weights and the crops.
    steps : int
        Optimiser steps.
    n_words : int
        Text to learn from; a tenth as much is held out.
    batch_size, crop_words : int
        Random crops per step, and words in each.
    lr : float
        Peak learning rate of a one-cycle schedule.
    """

    seed: int = 0
    steps: int = 300
    n_words: int = 120_000
    batch_size: int = 32
    crop_words: int = 32
    lr: float = 3e-3


def tiny_language_model(seed: int = 0) -> Path:
    """The folder of the tiny language model with its tokenizer; made once per seed, then kept in the cache."""
    return recipe_folder(TextRecipe(seed=seed))


def recipe_folder(recipe: TextRecipe) -> Path:
    """The folder that a recipe makes, from the cache or made now."""
    corpus = corpus_version(["text.py"])
    settings = {"recipe": asdict(recipe), "recipe_version": RECIPE_VERSION, "corpus_version": corpus}
    return cached_folder("tiny-language-model", settings, lambda folder: _teach(recipe, folder))


def vocabulary() -> dict[str, int]:
    """Number of every word form of the grammar, and of unknown words and padding."""
    fixed = _WORD.findall(re.sub(r"\{[NVA]\}", " ", " ".join(TEMPLATES + FILLERS)).lower())
    return {word: k for k, word in enumerate([UNKNOWN, PADDING, *sorted({*fixed, *category_of()})])}


def text_of(rng: np.random.Generator, n_words: int, words: dict[str, int]) -> IntArray:
    """Stories as numbers of words, one after the other, shape (about n_words,)."""
    stories: list[int] = []
    while len(stories) < n_words:
        story = write_story(rng, min(_WORDS_PER_STORY, n_words)).lower()
        stories += [words[word] for word in _WORD.findall(story)]
    return np.array(stories, dtype=np.int64)


def _teach(recipe: TextRecipe, folder: Path) -> None:
    """Train and save into an empty folder."""
    started = time.monotonic()
    words = vocabulary()
    text = text_of(random_stream(recipe.seed, "text to read"), recipe.n_words, words)
    held_out = text_of(random_stream(recipe.seed, "text held out"), recipe.n_words // 10, words)
    model = _random_model(len(words), recipe.seed)
    loss = _learn(model, text, recipe)
    record: dict[str, Any] = {
        "recipe": asdict(recipe),
        "n_word_forms": len(words) - 2,
        "final_loss": loss,
        "held_out": {
            "n_words": len(held_out),
            "perplexity": perplexity(model, held_out, recipe.crop_words),
            "unigram_perplexity": unigram_perplexity(text, held_out, len(words)),
        },
        "seconds": round(time.monotonic() - started, 1),
    }
    held = record["held_out"]
    log.info("held-out perplexity %.1f, by word frequency alone %.1f", held["perplexity"], held["unigram_perplexity"])
    with without_bars():
        model.save_pretrained(folder)
    _tokenizer(words).save_pretrained(folder)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")


def _random_model(n_words: int, seed: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings: dict[str, Any] = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": MOST_TOKENS}
    settings |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    settings |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(vocab_size=n_words, **settings))


def _tokenizer(words: dict[str, int]) -> Any:
    """One token per word, whatever its case and punctuation."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    only_letters = normalizers.Replace(Regex("[^a-z' ]"), "")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), only_letters])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token=UNKNOWN, pad_token=PADDING, model_max_length=MOST_TOKENS
    )


def _learn(model: Any, text: IntArray, recipe: TextRecipe) -> float:
    """Train on random crops, as train_one_cycle does. Uses no global random state."""
    rng = np.random.default_rng(recipe.seed)

    def next_loss() -> Tensor:
        first = rng.integers(0, len(text) - recipe.crop_words, size=recipe.batch_size)
        crops = torch.from_numpy(text[first[:, None] + np.arange(recipe.crop_words)])
        loss: Tensor = model(input_ids=crops, labels=crops).loss
        return loss

    what = "Tiny language model learns the grammar"
    return train_one_cycle(model, next_loss, recipe.steps, recipe.lr, 0.1, what, fused=False)


@torch.no_grad()
def perplexity(model: Any, text: IntArray, crop_words: int) -> float:
    """exp of the mean surprise at a word of consecutive crops, the first word of each crop excepted."""
    crops = torch.from_numpy(text[: len(text) // crop_words * crop_words].reshape(-1, crop_words))
    model.eval()
    losses = [float(model(input_ids=part, labels=part).loss) * len(part) for part in torch.split(crops, 64)]
    return float(np.exp(sum(losses) / len(crops)))


def unigram_perplexity(text: IntArray, held_out: Sequence[int] | IntArray, n_words: int) -> float:
    """The same for a model that knows how frequent each word is in `text` and nothing else (add-one smoothed)."""
    counts = Counter(np.asarray(text).tolist())
    surprise = [-np.log((counts[word] + 1) / (len(text) + n_words)) for word in np.asarray(held_out).tolist()]
    return float(np.exp(np.mean(surprise)))
