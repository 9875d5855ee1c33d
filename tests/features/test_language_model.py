"""Hidden states of tiny random models, made here: a causal and a masked one with a word-piece tokenizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from brainlit.features import LanguageModelConfig
from brainlit.features.language_model import LanguageModel, LanguageModelError, shown_weights
from brainlit.timebase import TimeBase
from tests.features.tone import intervals, tone_story

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz'",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz'"),
]
PIECES += ["the", "cat", "##s", "dog", "sl", "##eep", "##ing"]
WORDS = ["The", "cats", "sleeping", "a", "dog", "don't", "the", "cat", "sleep", "zebras", "on", "the", "dogs"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def tokenizer(special):
    pieces = dict.fromkeys(PIECES)
    model = Tokenizer(models.WordPiece({piece: k for k, piece in enumerate(pieces)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        model.normalizer = normalizers.Lowercase()
        ids = [("[CLS]", 2), ("[SEP]", 3)]
        model.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    names = {"unk_token": "[UNK]", **({"pad_token": "[PAD]"} if special else {})}
    return PreTrainedTokenizerFast(tokenizer_object=model, model_max_length=48, **names)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of a causal and a masked model."""
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        causal = GPT2LMHeadModel(GPT2Config(vocab_size=80, n_embd=16, n_layer=2, n_head=2, n_positions=64))
        masked = BertForMaskedLM(BertConfig(vocab_size=80, max_position_embeddings=48, **SIZES))
    for name, model in (("causal", causal), ("masked", masked)):
        model.save_pretrained(root / name)
        tokenizer(special=name == "masked").save_pretrained(root / name)
    return root


def load(folder, **settings):
    return LanguageModel(LanguageModelConfig(str(folder), **settings), progress=False)


def one_at_a_time(folder, words, layer, context_words):
    """Tokenise each word alone, put the pieces in a row, run the model once per word."""
    from transformers import AutoModel, AutoTokenizer

    tokens, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    before, after = ([2], [3]) if "masked" in str(folder) else ([], [])
    states = []
    for k in range(len(words)):
        pieces = [
            tokens(word, add_special_tokens=False)["input_ids"] for word in words[max(0, k - context_words) : k + 1]
        ]
        ids = [*before, *(piece for word in pieces for piece in word), *after]
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer]
        states.append(hidden[0, -1 - len(after)].numpy())
    return np.stack(states)


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize(("layer", "context_words"), [(-1, 3), (1, 0), (2, 20)])
def test_batches_equal_one_word_at_a_time(folders, monkeypatch, kind, layer, context_words):
    monkeypatch.setattr("brainlit.features.language_model._WORDS_PER_BATCH", 5)
    states, known = load(folders / kind, layer=layer, context_words=context_words).states(WORDS)
    np.testing.assert_allclose(states, one_at_a_time(folders / kind, WORDS, layer, context_words), atol=1e-5)
    assert known.all()


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_word_hears_its_left_context_exactly_that_far_and_nothing_to_its_right(folders, kind):
    model = load(folders / kind, context_words=2)
    states, _ = model.states(WORDS)
    changed, _ = model.states([*WORDS[:4], "zebra", *WORDS[5:]])
    differs = np.abs(states - changed).max(axis=1) > 1e-6
    assert np.flatnonzero(differs).tolist() == [4, 5, 6]


def test_layer_zero_of_a_masked_model_does_not_depend_on_batches(folders, monkeypatch):
    whole, _ = load(folders / "masked", layer=0).states(WORDS)
    monkeypatch.setattr("brainlit.features.language_model._WORDS_PER_BATCH", 1)
    single, _ = load(folders / "masked", layer=0).states(WORDS)
    np.testing.assert_allclose(whole, single, atol=1e-6)


def test_words_without_a_token_are_zero_and_count_against_coverage(folders):
    words = intervals(["the", " ", "cat", ""], [0.5, 1.0, 1.5, 1.8])
    story = replace(tone_story(0, 1), words=words, timebase=TimeBase.regular(3, 2.0))
    model = load(folders / "causal", context_words=5)
    states, known = model.states(words.labels)
    assert known.tolist() == [True, False, True, False]
    assert not states[~known].any()
    space = model.space(story)
    assert (space.kind, space.coverage, space.values.shape) == ("semantic", 0.5, (3, 16))
    np.testing.assert_allclose(space.values[0], states.sum(axis=0), rtol=1e-5)
    assert "hidden state -1 of causal" in space.source
    assert str(folders) not in space.source
    assert not np.allclose(model.space(story, per_tr="lanczos").values, space.values)


def test_a_story_without_words_has_zeros(folders):
    space = load(folders / "causal").space(replace(tone_story(0, 1), words=intervals([], [])))
    assert (space.values.shape, space.values.any(), space.coverage) == ((6, 16), False, 0.0)


def test_transcripts_in_capitals_are_read_in_lower_case(folders):
    model = load(folders / "causal")
    lower, _ = model.states(["the", "cat", "don't"])
    np.testing.assert_array_equal(model.states(["THE", "CAT", "DON'T"])[0], lower)
    assert not np.allclose(model.states(["The", "CAT", "DON'T"])[0][1], lower[1])


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(folders, layer):
    with pytest.raises(LanguageModelError, match=f"layer is {layer}, but .* 0 .* to 2"):
        load(folders / "causal", layer=layer).states(["cat"])


def test_a_context_longer_than_the_model_reads_is_refused(folders):
    with pytest.raises(LanguageModelError, match=r"60 words of context are .* 48 at most; lower"):
        load(folders / "masked", context_words=60).states(["cat"] * 100)


@pytest.mark.parametrize("weights", ["/nowhere/gpt2", "./nowhere/gpt2", "a/b/c"])
def test_a_missing_folder_is_said_to_be_missing(weights):
    with pytest.raises(LanguageModelError, match=r"no such folder.*hf download"):
        load(weights).states(["cat"])


def test_a_hub_out_of_reach_says_which_folder_to_fill(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LanguageModelError) as caught:
        load("no-one/no-such-model").states(["cat"])
    message = str(caught.value)
    assert "hf download no-one/no-such-model --local-dir models/no-such-model" in message
    assert f"to {tmp_path}/models/no-such-model here" in message
    assert "weights to ./models/no-such-model" in message


def test_folders_that_hold_no_such_model_are_refused(tmp_path):
    with pytest.raises(LanguageModelError, match=r"no config\.json"):
        load(tmp_path).states(["cat"])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LanguageModelError, match="cannot be read"):
        load(tmp_path).states(["cat"])
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(LanguageModelError, match="cannot be read"):
        load(tmp_path).states(["cat"])


def test_models_of_another_kind_are_refused(tmp_path):
    sizes = {"conv_dim": [8], "conv_stride": [20], "conv_kernel": [40], "num_feat_extract_layers": 1}
    speech = Wav2Vec2Model(Wav2Vec2Config(**SIZES, **sizes, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2))
    speech.save_pretrained(tmp_path / "speech")
    T5Config(vocab_size=80).save_pretrained(tmp_path / "translation")
    for name in ("speech", "translation"):
        tokenizer(special=True).save_pretrained(tmp_path / name)
        with pytest.raises(LanguageModelError, match="is of another kind"):
            load(tmp_path / name).states(["cat"])


def test_missing_parameters_are_refused_not_made_up(folders, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(folders / "causal")
    state = {key: value for key, value in model.state_dict().items() if "h.1.mlp" not in key}
    model.save_pretrained(tmp_path, state_dict=state)
    tokenizer(special=False).save_pretrained(tmp_path)
    with pytest.raises(LanguageModelError, match=r"lacks 4 parameters.*h\.1\.mlp"):
        load(tmp_path).states(["cat"])


def test_loading_leaves_the_random_state_alone(folders):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load(folders / "masked").states(["cat"])
    assert torch.equal(torch.rand(3), expected)


def test_shown_weights_hold_no_folder():
    assert [shown_weights(name) for name in ("gpt2", "org/gpt2", "~/m/gpt2", "../gpt2/", "a/b/gpt2")] == [
        *("gpt2", "org/gpt2", "gpt2", "gpt2", "gpt2")
    ]
