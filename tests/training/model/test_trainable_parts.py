"""Freezing by part, adapters on the decoder only, learning rates by part."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.training.model import trainable_parts as parts
from rba_bench.training.training_recipe import LoraOptions
from tests.speechlm.audiolm.omni_granite_phi import make_granite

RATES = {"encoder": 1e-5, "projector": 1e-3, "llm": 1e-4}


class Lora(LoraOptions):
    r: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")


@pytest.fixture
def composite(tiny_composite_dir: Path) -> AudioFamily:
    return load_family(tiny_composite_dir)


@pytest.fixture(scope="module")
def granite_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_granite(tmp_path_factory.mktemp("audiolm") / "granite")


def trained(family: AudioFamily) -> set[str]:
    return {name for name, parameter in family.model.named_parameters() if parameter.requires_grad}


def loud(family: AudioFamily) -> None:
    """Adapters start as nothing; give them something to say."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for name, parameter in family.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([[1, 20, 40, 60]])).logits
    return found


@pytest.mark.parametrize("chosen", [("projector",), ("projector", "llm"), ("encoder",)])
def test_only_what_is_asked_for_trains(composite: AudioFamily, chosen: tuple[str, ...]) -> None:
    parts.freeze(composite, chosen)
    expected = {
        id(parameter)
        for part in chosen
        for module in composite.parts()[part]
        for parameter in module.parameters()
    } - {id(parameter) for parameter in composite.frozen_parameters()}
    found = {id(parameter) for parameter in composite.model.parameters() if parameter.requires_grad}
    assert found == expected
    assert not any("embed_positions" in name for name in trained(composite))


def test_unknown_parts_are_refused(composite: AudioFamily) -> None:
    with pytest.raises(UserError, match="train_parts head: name some of encoder, projector, llm"):
        parts.freeze(composite, ("head",))
    with pytest.raises(UserError, match="train_parts is empty"):
        parts.freeze(composite, ())


def test_adapters_go_into_the_decoder_only(composite: AudioFamily) -> None:
    parts.freeze(composite, ("projector", "llm"), Lora(targets=("all-linear",)))
    adapted = {name.partition(".lora_")[0] for name in trained(composite) if "lora_" in name}
    linear = {
        f"model.language_model.{name.removesuffix('.base_layer')}"
        for name, module in composite.model.model.language_model.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
    assert adapted == linear and len(linear) == 2 * 7
    rest = {name for name in trained(composite) if "lora_" not in name}
    assert rest and all(name.startswith("model.multi_modal_projector.") for name in rest)


def test_the_encoder_is_adapted_where_it_is_named(composite: AudioFamily) -> None:
    wanted = Lora(targets=("q_proj",), encoder_targets=("q_proj", "fc1"))
    parts.freeze(composite, ("encoder", "llm"), wanted)
    inside = {
        name.split(".lora_")[0].rpartition(".")[2] for name in trained(composite) if "audio_tower" in name
    }
    assert inside == {"q_proj", "fc1"} and all("lora_" in name for name in trained(composite))
    with pytest.raises(UserError, match="lora adapts the encoder: add `encoder` to train_parts"):
        parts.freeze(composite, ("llm",), wanted)


def test_targets_that_do_not_exist_are_named(composite: AudioFamily) -> None:
    with pytest.raises(UserError, match="lora.targets qkv: no linear layer of the llm .* gate_proj"):
        parts.freeze(composite, ("llm",), Lora(targets=("q_proj", "qkv")))
    with pytest.raises(UserError, match="lora.encoder_targets gate_proj: no linear layer of the encoder"):
        parts.freeze(composite, ("llm", "encoder"), Lora(encoder_targets=("gate_proj",)))


def test_merged_adapters_are_the_model(composite: AudioFamily, tmp_path: Path) -> None:
    parts.freeze(composite, ("llm", "encoder"), Lora(encoder_targets=("fc1",)))
    before = logits(composite.model)
    loud(composite)
    expected = logits(composite.model)
    assert float((expected - before).abs().max()) > 0.01
    parts.merge_lora(composite)
    assert float((logits(composite.model) - expected).abs().max()) < 1e-5
    assert not any("lora_" in name or "base_layer" in name for name in composite.model.state_dict())
    composite.save(tmp_path / "merged")
    assert torch.equal(logits(load_family(tmp_path / "merged").model), logits(composite.model))


def test_an_adapter_alone_is_read_by_peft(
    composite: AudioFamily, tiny_composite_dir: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    with pytest.raises(UserError, match="no adapter of this run"):
        parts.save_adapter(composite, tmp_path)
    parts.freeze(composite, ("projector", "llm"), Lora())
    loud(composite)
    parts.save_adapter(composite, tmp_path / "adapter")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    adapted = PeftModel.from_pretrained(load_family(tiny_composite_dir).model, str(tmp_path / "adapter"))
    assert torch.equal(logits(adapted), logits(composite.model))


def test_groups_have_the_rates_of_their_parts(composite: AudioFamily) -> None:
    from transformers import Trainer

    assert composite.model.config.tie_word_embeddings  # the head is there once
    parts.freeze(composite, ("encoder", "projector", "llm"))
    groups = parts.parameter_groups(composite, RATES, 0.1)
    names = {id(parameter): name for name, parameter in composite.model.named_parameters()}
    decayed = set(Trainer.get_decay_parameter_names(None, composite.model))  # type: ignore[arg-type]
    seen = []
    for group in groups:
        assert group["lr"] == RATES[group["part"]]
        for parameter in group["params"]:
            seen.append(names[id(parameter)])
            assert group["weight_decay"] == (0.1 if seen[-1] in decayed else 0.0)
    assert len(seen) == len(set(seen)) and set(seen) == trained(composite)
    assert {(group["part"], group["weight_decay"] > 0) for group in groups} == {
        (part, decays) for part in RATES for decays in (True, False)
    }
    torch.optim.AdamW([{k: v for k, v in group.items() if k != "part"} for group in groups])


def test_a_part_without_a_rate_is_refused(composite: AudioFamily) -> None:
    parts.freeze(composite, ("projector", "llm"))
    with pytest.raises(UserError, match="learning_rates names none for llm"):
        parts.parameter_groups(composite, {"projector": 1e-3}, 0.0)


def test_a_model_that_cannot_recompute_says_so(
    composite: AudioFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(composite.encoder), "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match="set gradient_checkpointing to false"):
        parts.checkpoint_activations(composite, ("encoder", "llm"))
    parts.checkpoint_activations(composite, ("projector", "llm"))
    flags = {
        name: module.gradient_checkpointing
        for name, module in composite.model.named_modules()
        if hasattr(module, "gradient_checkpointing") and ".layers." in name
    }
    assert flags and all(on == ("language_model" in name) for name, on in flags.items())


def test_an_adapter_of_the_checkpoint_is_what_trains(granite_dir: Path, tmp_path: Path) -> None:
    family = load_family(granite_dir)
    assert family.has_adapter
    with pytest.raises(UserError, match="drop `lora`"):
        parts.freeze(family, ("llm",), Lora())
    parts.freeze(family, ("projector", "llm"))
    mine = {name for name in trained(family) if ".projector." not in name}
    assert mine and all("lora_" in name for name in mine)
    flags = trained(family)
    ids = torch.tensor([[1, 20, 40]])
    with family.reading_text(), torch.no_grad():
        text = family.model(input_ids=ids).logits
        assert trained(family) != flags
    assert trained(family) == flags
    with torch.no_grad():
        assert float((family.model(input_ids=ids).logits - text).abs().max()) > 1e-3
    parts.merge_lora(family)  # nothing of ours to merge
    assert trained(family) == flags


def test_no_dropout_is_left_and_statistics_stay(granite_dir: Path) -> None:
    family = load_family(granite_dir)
    parts.freeze(family, ("encoder", "projector"))
    parts.disable_dropout(family)
    clip = torch.randn(16_000, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    features = family.features([clip])
    with torch.no_grad():
        expected, _ = family.project(*family.encode_audio(features))
        statistics = {k: v.clone() for k, v in family.model.state_dict().items() if "running" in k}
        family.model.train()
        found, _ = family.project(*family.encode_audio(features))
    assert torch.equal(found, expected)
    assert statistics and all(torch.equal(family.model.state_dict()[k], v) for k, v in statistics.items())
