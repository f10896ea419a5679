import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    PretrainedConfig,
    Qwen3Config,
    WhisperConfig,
)

from rba_bench.speechlm.composite import register
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, CompositeModel
from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

SMALL = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYERS = {
    **SMALL,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
AUDIO = 5
FAMILIES: dict[str, PretrainedConfig] = {
    "llama, untied": LlamaConfig(**LAYERS, tie_word_embeddings=False),
    "qwen3, tied": Qwen3Config(**LAYERS, num_key_value_heads=1, head_dim=8, tie_word_embeddings=True),
    "gpt2, absolute positions": GPT2Config(**SMALL, n_embd=16, n_layer=1, n_head=2),
    "phi, head with bias": PhiConfig(**LAYERS),
}


def tiny_encoder() -> TrueLengthWhisperEncoder:
    sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    return TrueLengthWhisperEncoder(WhisperConfig(**sizes))


def composite_of(config: PretrainedConfig) -> CompositeForConditionalGeneration:
    torch.manual_seed(0)
    text_model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    if text_model.lm_head.bias is not None:
        text_model.lm_head.bias.data.normal_()
    return CompositeForConditionalGeneration.from_parts(tiny_encoder(), text_model, AUDIO, stack_factor=2)


def assert_same(first: torch.nn.Module, second: torch.nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def batch(processor: CompositeProcessor, clips: list[np.ndarray]) -> dict[str, torch.Tensor]:
    prompts = ["", "translate german to english :", "say :", "", "give me a plan :"]
    return dict(processor([processor.render(prompt) for prompt in prompts], clips, padding_side="left"))


def test_round_trip_is_exact(
    tmp_path: Path, model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    model.save_pretrained(tmp_path)
    loaded, report = CompositeForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_same(model, loaded)
    assert torch.equal(model(**batch).logits, loaded(**batch).logits)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    assert loaded.generation_config.eos_token_id == model.generation_config.eos_token_id is not None


def test_auto_classes_know_the_composite(
    tiny_composite_dir: Path, model: CompositeForConditionalGeneration
) -> None:
    register()
    register()
    assert AutoConfig.from_pretrained(tiny_composite_dir).model_type == "rba_composite"
    base = AutoModel.from_pretrained(tiny_composite_dir)
    assert isinstance(base, CompositeModel)
    assert_same(base, model.model)
    whole = AutoModelForMultimodalLM.from_pretrained(tiny_composite_dir)
    assert isinstance(whole, CompositeForConditionalGeneration)
    assert_same(whole, model)


def test_weights_stored_in_half_precision_load_in_single(
    tmp_path: Path, model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    expected = model(**batch).logits
    model.half().save_pretrained(tmp_path)
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(loaded(**batch).logits, expected, atol=0.05, rtol=0)
    stored = CompositeForConditionalGeneration.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in stored.state_dict().values()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_on_single_precision_features(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    expected = model(**batch).logits
    logits = model.to(dtype)(**batch).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=0.3, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_causal_language_model(tmp_path: Path, family: str) -> None:
    config = FAMILIES[family]
    torch.manual_seed(0)
    text_model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    model = composite_of(config)
    ids = torch.tensor([[1, 7, 9, 3]])
    if config.model_type != "phi":  # whose bias was changed
        assert torch.equal(model(ids).logits, text_model(ids).logits)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == config.tie_word_embeddings

    ids = torch.tensor([[1, AUDIO, AUDIO, AUDIO, 9], [0, 0, 1, AUDIO, 9]])
    mask = (ids != 0).long()
    audio = {"audio_states": torch.randn(2, 5, 16), "audio_lengths": torch.tensor([5, 2])}
    logits = model(ids, mask, **audio).logits
    alone = model(ids[1:, 2:], audio_states=audio["audio_states"][1:, :2]).logits
    torch.testing.assert_close(logits[1:, 2:], alone, atol=1e-5, rtol=1e-5)

    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) != config.tie_word_embeddings
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.tie_word_embeddings == config.tie_word_embeddings
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == config.tie_word_embeddings
    assert_same(model, loaded)
    assert torch.equal(loaded(ids, mask, **audio).logits, logits)


def test_an_encoder_of_half_rate(tmp_path: Path, tiny_tokenizer_dir: Path, clips: list[np.ndarray]) -> None:
    """Saved with its stride, and the processor counts as the model does."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    torch.manual_seed(0)
    model = CompositeForConditionalGeneration.from_parts(
        TrueLengthWhisperEncoder(WhisperConfig(**sizes, conv1_stride=2)),
        AutoModelForCausalLM.from_config(LlamaConfig(**{**LAYERS, "vocab_size": len(tokenizer)})),
        tokenizer.convert_tokens_to_ids("<|audio|>"),
        stack_factor=3,
    )
    processor = CompositeProcessor(LogMelFeatureExtractor(), tokenizer, stack_factor=3, mel_stride=2)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, processor = (
        CompositeForConditionalGeneration.from_pretrained(tmp_path),
        CompositeProcessor.from_pretrained(tmp_path),
    )
    batch = processor([processor.render("")] * 5, clips, padding_side="left")
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    _, lengths = loaded.encode_audio(batch["input_features"], batch["feature_lengths"])
    assert lengths.tolist() == [8, 12, 20, 32, 50]


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**LAYERS, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.02),
        GraniteConfig(**LAYERS, logits_scaling=4.0, embedding_multiplier=3.0),
        CohereConfig(**LAYERS, logit_scale=0.25),
    ],
    ids=["gemma2", "granite", "cohere"],
)
def test_what_a_text_model_does_to_its_logits_is_done(config: PretrainedConfig) -> None:
    torch.manual_seed(0)
    text_model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    model = composite_of(config)
    ids = torch.tensor([[1, 7, 9, 3]])
    expected = text_model(ids).logits
    hidden = model.model(ids).last_hidden_state
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-7, rtol=1e-6)
    assert float((model.lm_head(hidden) - expected).abs().max()) > 1e-3  # the head alone is not it


def test_structure_is_that_of_transformers_audio_models(model: CompositeForConditionalGeneration) -> None:
    assert model.get_decoder() is model.model.language_model
    assert model.get_output_embeddings() is model.lm_head
    assert model.get_input_embeddings() is model.model.language_model.embed_tokens
    assert model.get_encoder(modality="audio") is model.model.audio_tower
    assert not model.training


def test_audio_tokens_start_at_the_size_of_words(model: CompositeForConditionalGeneration) -> None:
    torch.manual_seed(0)
    rms = model.get_input_embeddings().weight.detach().pow(2).mean().sqrt()
    embeds, _ = model.project(torch.randn(20, 30, 32))
    assert 0.8 < embeds.pow(2).mean().sqrt() / rms < 1.25
    fresh = CompositeForConditionalGeneration(model.config)  # by the plain constructor, as the Trainer would
    embeds, _ = fresh.project(torch.randn(20, 30, 32))
    assert 0.8 < embeds.pow(2).mean().sqrt() / fresh.get_input_embeddings().weight.pow(2).mean().sqrt() < 1.25


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_do_not_depend_on_batch_mates(
    model_of_attention: CompositeForConditionalGeneration,
    processor: CompositeProcessor,
    clips: list[np.ndarray],
    side: str,
) -> None:
    model = model_of_attention
    texts = [processor.render(prompt) for prompt in ("", "translate german to english :", "say :", "", "x")]
    batch = processor(texts, clips, padding_side=side)
    logits = model(**batch).logits
    for row, (text, clip) in enumerate(zip(texts, clips, strict=True)):
        alone = model(**processor(text, clip)).logits[0]
        torch.testing.assert_close(logits[row][batch["attention_mask"][row].bool()], alone, atol=5e-5, rtol=0)


def test_cached_states_stand_in_for_features(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    expected = model(**batch).logits
    states, lengths = model.encode_audio(batch["input_features"], batch["feature_lengths"])
    text = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    assert torch.equal(model(**text, audio_states=states, audio_lengths=lengths).logits, expected)
    junk = torch.full((5, 7, 32), torch.nan)
    longer = torch.cat([states, junk], dim=1)
    assert torch.equal(model(**text, audio_states=longer, audio_lengths=lengths).logits, expected)
    embeds = model.merge(batch["input_ids"], *model.project(states, lengths))
    assert torch.equal(model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits, expected)


def test_several_clips_in_a_row_keep_their_order(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    texts = ["a <|audio|> b <|audio|>", "c", "<|audio|> d"]
    batch = processor(texts, clips[:3], padding_side="right")
    logits = model(**batch).logits
    alone = [processor(texts[0], clips[:2]), processor(texts[1]), processor(texts[2], clips[2])]
    for row, inputs in enumerate(alone):
        expected = model(**inputs).logits[0]
        torch.testing.assert_close(logits[row, : len(expected)], expected, atol=5e-5, rtol=0)
    swapped = model(**processor(texts[0], [clips[1], clips[0]])).logits[0]
    assert not torch.allclose(swapped[-1], logits[0, len(swapped) - 1], atol=1e-2)


def test_text_alone_is_the_language_model(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, tiny_textlm_dir: Path
) -> None:
    text_model = AutoModelForCausalLM.from_pretrained(tiny_textlm_dir)
    batch = processor(["hello there", "what is the capital of france"], padding_side="right")
    assert torch.equal(model(**batch).logits, text_model(**batch).logits)


def test_audio_that_would_be_dropped_is_an_error(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    text = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with pytest.raises(ValueError, match="but the clips make 0 audio tokens"):
        model(**text)
    with pytest.raises(ValueError, match="the text has 0 audio placeholders"):
        model(**{**batch, "input_ids": torch.full_like(batch["input_ids"], 9)})
    with pytest.raises(ValueError, match="audio placeholders, but"):
        model(**{**batch, "feature_lengths": batch["feature_lengths"] - 12})
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model()


def test_what_is_heard_changes_the_answer(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    silent = {**batch, "input_features": torch.zeros_like(batch["input_features"])}
    assert (model(**batch).logits - model(**silent).logits)[:, -1].abs().max() > 0.1


def test_the_placeholder_may_lie_outside_the_vocabulary(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    expected = model(**batch).logits
    outside = model.config.text_config.vocab_size
    ids = batch["input_ids"].masked_fill(batch["input_ids"] == model.config.audio_token_id, outside)
    model.config.audio_token_id = outside
    assert torch.equal(model(**{**batch, "input_ids": ids}).logits, expected)
    assert model.generate(**{**batch, "input_ids": ids}, max_new_tokens=2).shape[1] == ids.shape[1] + 2


def test_loss_is_cross_entropy_on_labelled_tokens(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    output = model(**batch, labels=labels)
    log_probs = output.logits.log_softmax(-1)
    picked = log_probs[:, -3:-1].gather(-1, labels[:, -2:, None])
    torch.testing.assert_close(output.loss, -picked.mean())


def test_only_wanted_logits_are_computed(
    model: CompositeForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    full = model(**batch).logits
    torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, full[:, -2:], atol=1e-6, rtol=0)
    places = torch.tensor([3, 9])
    torch.testing.assert_close(
        model(**batch, logits_to_keep=places).logits, full[:, places], atol=1e-6, rtol=0
    )


def test_positions_reset_by_a_packed_batch_are_kept(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    rows = [processor(processor.render(""), clip) for clip in clips[:2]]
    expected = [model(**row).logits[0] for row in rows]
    lengths = [row["input_ids"].shape[1] for row in rows]
    packed = model(
        input_ids=torch.cat([row["input_ids"] for row in rows], dim=1),
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        **processor.feature_extractor(clips[:2]),
        use_cache=False,
    ).logits[0]
    torch.testing.assert_close(packed, torch.cat(expected), atol=5e-5, rtol=0)
