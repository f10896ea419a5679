"""Tiny random checkpoints of models whose processors need more than audio does, and what those make of a clip."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.audiolm.families.granite_speech import GraniteFeatures
from tests.speechlm.audiolm.conftest import CHATML, make_tokenizer, text_config

OMNI_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
# A template that takes strings only, with a system turn of its own where there is none; it asks for the date, but in a
# format that is the same on all days
STRINGS = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>It is ' + strftime_now('Monday') + '<|end|>' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def _save(folder: Path, build: Callable[[], Any], tokenizer: Any, louder: tuple[str, ...]) -> Any:
    """A random model whose audio weights are louder, so that answers depend on what is heard.

    It never says a placeholder: the stock `generate` of Phi-4 would look for another clip.
    """
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = build().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1 and any(part in name for part in louder):
                    weight.normal_(0, 0.3)
            known = tokenizer.get_vocab()
            silent = [known[token] for token in ("<|audio|>", "<|image|>", "<|AUDIO|>") if token in known]
            model.get_output_embeddings().weight[silent] = 0.0
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return model


def _save_adapter(model: Any, lora: Any, folder: Path) -> None:
    """Adapter files alone, as they lie in the published repositories."""
    from transformers import PreTrainedModel

    with torch.random.fork_rng():
        torch.manual_seed(8)
        model.add_adapter(lora)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data.normal_(0, 0.3)
    PreTrainedModel.save_pretrained(model, str(folder))
    assert (folder / "adapter_config.json").is_file()


def _omni_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "audio_config": {
            "num_mel_bins": 80,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "d_model": 32,
            "output_dim": 32,
            "n_window": 25,  # windows of 0.5 s, so that the clips have several
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        "text_config": {
            **text_config(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        "audio_token_index": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        "image_token_index": 3,
        "video_token_index": 4,
        "vision_start_token_id": 5,
        "vision_end_token_id": 6,
        "audio_start_token_id": tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
        "audio_end_token_id": tokenizer.convert_tokens_to_ids("<|audio_eos|>"),
    }


def _omni_processor_files(folder: Path) -> None:
    """As the published repository keeps them: settings of audio and images in one object, template as JSON."""
    settings = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5OmniProcessor",
        "feature_size": 80,
        "chunk_length": 300,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 4_800_000,
        "nb_max_frames": 30_000,
        "patch_size": 14,
        "image_mean": [0.5, 0.5, 0.5],
        "padding_value": 0.0,
        "dither": 0.0,
        "sampling_rate": 16_000,
        "return_attention_mask": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    template = CHATML.replace("PLACEHOLDER", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def make_omni(folder: Path) -> Path:
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    tokenizer = make_tokenizer((*OMNI_SPECIAL, "<|IMAGE|>", "<|VIDEO|>"))
    config = Qwen2_5OmniThinkerConfig(**_omni_config(tokenizer))
    _save(folder, lambda: Qwen2_5OmniThinkerForConditionalGeneration(config), tokenizer, ("audio_tower",))
    _omni_processor_files(folder)
    return folder


def audio_only(processor_class: Any) -> Any:
    """The stock processor that takes no image part: its audio and text code runs as it is, without torchvision."""
    return type("AudioOnly", (processor_class,), {"check_argument_for_proper_class": lambda *_: None})


def _named(tokenizer: Any, **tokens: str) -> Any:
    """Special tokens under the names that the published tokenizers give them."""
    for name, token in tokens.items():
        setattr(tokenizer, f"{name}_token", token)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    return tokenizer


def omni_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the stock processor makes of one clip: padded to 300 s, masked, one placeholder for each token."""
    from transformers import Qwen2_5OmniProcessor, WhisperFeatureExtractor

    names = {"image": "<|IMAGE|>", "audio": "<|AUDIO|>", "video": "<|VIDEO|>", "vision_bos": "<|im_start|>"}
    rest = {"vision_eos": "<|im_end|>", "audio_bos": "<|audio_bos|>", "audio_eos": "<|audio_eos|>"}
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    tokenizer = _named(family.tokenizer, **names, **rest)
    processor = audio_only(Qwen2_5OmniProcessor)(None, None, extractor, tokenizer)
    return dict(processor(text=[family.render(prompt)], audio=[audio], return_tensors="pt"))


def make_granite(folder: Path) -> Path:
    """With every multiplier of Granite away from 1, and the adapter in the folder as published."""
    from peft import LoraConfig
    from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

    tokenizer = make_tokenizer(("<|endoftext|>", "<|im_end|>", "<|audio|>", *ROLES))
    tokenizer.chat_template = STRINGS
    config = GraniteSpeechConfig(
        text_config={
            "model_type": "granite",
            **text_config(tokenizer),
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.5,
            "logits_scaling": 4.0,
        },
        encoder_config={
            "input_dim": 160,
            "num_layers": 2,
            "hidden_dim": 32,
            "num_heads": 4,
            "feedforward_mult": 2,
            "output_dim": 10,
            "context_size": 20,  # blocks of 0.4 s, so that the clips have several
            "max_pos_emb": 32,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "encoder_hidden_size": 32,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=True,
    )

    model = _save(
        folder, lambda: GraniteSpeechForConditionalGeneration(config), tokenizer, ("encoder", "projector")
    )
    _save_adapter(model, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"]), folder)
    settings = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "melspec_kwargs": {
            "sample_rate": 16_000,
            "n_fft": 512,
            "win_length": 400,
            "hop_length": 160,
            "n_mels": 80,
        },
        "projector_downsample_rate": 5,
        "projector_window_size": 15,
        "sampling_rate": 16_000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


class _MelSpectrogram(torch.nn.Module):
    """Stands in for `torchaudio.transforms.MelSpectrogram`; the stock extractor does the rest."""

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(400)
        spectrum = torch.stft(audio, 512, 160, 400, window, pad_mode="reflect", return_complex=True)
        return (spectrum.abs() ** 2).transpose(-1, -2).matmul(GraniteFeatures().bank).transpose(-1, -2)


def granite_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the stock processor makes of one clip, but for the mel filter bank (held to torchaudio's below)."""
    from transformers import GraniteSpeechProcessor
    from transformers.models.granite_speech import feature_extraction_granite_speech as stock

    extractor = object.__new__(stock.GraniteSpeechFeatureExtractor)  # its __init__ wants torchaudio
    extractor.sampling_rate = 16_000
    extractor.melspec_kwargs = {"hop_length": 160}
    extractor.projector_window_size, extractor.projector_downsample_rate = 15, 5
    extractor.mel_filters = _MelSpectrogram()
    processor = audio_only(GraniteSpeechProcessor)(extractor, family.tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "requires_backends", lambda *_: None)
        return dict(processor(text=family.render(prompt), audio=[audio.copy()], return_tensors="pt"))


def make_phi(folder: Path) -> Path:
    from peft import LoraConfig
    from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

    tokenizer = make_tokenizer(("<|endoftext|>", "<|im_end|>", "<|audio|>", "<|image|>", *ROLES))
    tokenizer.chat_template = STRINGS
    text = text_config(tokenizer)
    config = Phi4MultimodalConfig(
        **{**text, "bos_token_id": tokenizer.pad_token_id},
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_blocks": 2,
            "num_attention_heads": 4,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 8,
            "audio_token_id": tokenizer.convert_tokens_to_ids("<|audio|>"),
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "crop_size": 28,
            "image_token_id": tokenizer.convert_tokens_to_ids("<|image|>"),
        },
    )
    model = _save(folder, lambda: Phi4MultimodalForCausalLM(config), tokenizer, ("audio_embed",))
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=r".*layers\.\d+\.self_attn\.(qkv|o)_proj")
    _save_adapter(model, lora, folder / "speech-lora")
    settings = {
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "feature_size": 80,
        "crop_size": 448,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def phi_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the stock processor makes of one clip."""
    from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalProcessor

    tokenizer = _named(family.tokenizer, audio="<|audio|>", image="<|image|>")
    processor = audio_only(Phi4MultimodalProcessor)(None, Phi4MultimodalFeatureExtractor(), tokenizer)
    return dict(processor(text=[family.render(prompt)], audio=[audio], return_tensors="pt"))
