"""Sizes by name: hub ids, and architectures with the published numbers of parameters."""

import pytest
import torch
import transformers

from brainlit.backbones import BACKBONES, BackboneConfig, WeightsError, load_backbone
from brainlit.backbones.addresses import Address
from brainlit.backbones.families import FAMILIES
from brainlit.backbones.registry import BackboneClasses, named_architecture, resolve_weights
from brainlit.backbones.wav2vec_like import HubertBackbone
from tests.backbones.conftest import CONVOLUTIONAL

MILLIONS = {
    ("wav2vec", "base"): 94.4,
    ("wav2vec", "large"): 315.4,
    ("wav2vec", "large-lv60"): 315.4,
    ("wav2vec", "xls-r-300m"): 315.4,
    ("wav2vec", "xls-r-1b"): 962.5,
    ("wav2vec", "xls-r-2b"): 2159.3,
    ("hubert", "base"): 94.4,
    ("hubert", "large"): 315.4,
    ("hubert", "xlarge"): 962.5,
    ("wavlm", "base"): 94.4,
    ("wavlm", "base-plus"): 94.4,
    ("wavlm", "large"): 315.5,
    ("data2vec", "base"): 93.2,
    ("data2vec", "large"): 313.3,
    ("unispeech-sat", "base"): 94.4,
    ("unispeech-sat", "large"): 315.4,
}


def resolved(family, weights):
    return resolve_weights(BACKBONES[family], BackboneConfig(family=family, weights=weights))


@pytest.fixture(autouse=True)
def no_weights_here(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINLIT_WEIGHTS", str(tmp_path / "weights"))


@pytest.mark.parametrize(("family", "size"), MILLIONS)
def test_parameter_counts_are_the_published_ones(family, size):
    config_class, model_class = (getattr(transformers, name) for name in BACKBONES[family].class_names)
    with torch.device("meta"):
        model = model_class(config_class(**named_architecture(BACKBONES[family], size)))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(MILLIONS[family, size], abs=0.06)


def test_every_family_has_sizes_and_base_is_among_them():
    assert set(FAMILIES) == set(BACKBONES)
    for family, facts in FAMILIES.items():
        sizes = facts.sizes
        assert BACKBONES[family].family == family
        assert "base" in sizes
        assert "tiny" not in sizes
        assert set(facts.architectures) <= set(sizes)
        assert all(hub_id.count("/") == 1 for hub_id in sizes.values())


def test_large_models_normalise_as_published():
    norms = {
        family: (settings.get("feat_extract_norm", "group"), settings.get("do_stable_layer_norm", False))
        for family, settings in ((family, FAMILIES[family].architectures["large"]) for family in CONVOLUTIONAL)
    }
    assert norms.pop("wav2vec") == ("group", False)
    assert norms.pop("data2vec") == ("group", False)  # which its model does not look at
    assert set(norms.values()) == {("layer", True)}


@pytest.mark.parametrize(
    ("family", "size", "hub_id"),
    [
        ("wav2vec", "base", "facebook/wav2vec2-base"),
        ("wav2vec", "xls-r-300m", "facebook/wav2vec2-xls-r-300m"),
        ("hubert", "large", "facebook/hubert-large-ll60k"),
        ("wavlm", "base-plus", "microsoft/wavlm-base-plus"),
        ("data2vec", "base", "facebook/data2vec-audio-base"),
    ],
)
def test_a_size_stands_for_a_hub_id(family, size, hub_id):
    assert resolved(family, size) == (Address(hub_id), {"kind": "pretrained", "hub_id": hub_id})
    assert resolved(family, hub_id) == resolved(family, size)


def test_an_unknown_size_names_the_nearest_and_the_known():
    with pytest.raises(WeightsError, match=r"'xlarg' are no size of hubert.*Did you mean 'xlarge'.*base, large, tiny"):
        resolved("hubert", "xlarg")
    with pytest.raises(WeightsError, match="no size of wavlm"):
        named_architecture(BACKBONES["wavlm"], "xlarge")


def test_families_by_name():
    assert set(CONVOLUTIONAL) < set(BACKBONES)
    assert {"whisper", "speecht5", "w2v-bert"} < set(BACKBONES)
    assert len(BACKBONES) == len(list(BACKBONES))
    for name in CONVOLUTIONAL:
        assert BACKBONES[name].family == name
    assert "hubbert" not in BACKBONES
    with pytest.raises(KeyError):
        BACKBONES["hubbert"]
    with pytest.raises(ValueError, match=r"'hubbert'.*Did you mean 'hubert'"):
        load_backbone(BackboneConfig(family="hubbert"))


def test_a_family_is_imported_when_it_is_asked_for():
    families = BackboneClasses({"here": "wav2vec_like:HubertBackbone", "later": "not_there:Backbone"})
    assert list(families) == ["here", "later"]
    assert "later" in families
    assert families["here"] is HubertBackbone
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        families["later"]
