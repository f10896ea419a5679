"""Qwen2.5-Omni, Granite Speech and Phi-4-multimodal: without their image and torchaudio parts, equal to stock."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM
from rba_bench.speechlm.audiolm.families.base import AudioFamily
from rba_bench.speechlm.audiolm.families.granite_speech import SYSTEM, GraniteFeatures
from rba_bench.speechlm.audiolm.families.phi4_multimodal import ADAPTER_NAME, Phi4Multimodal
from rba_bench.speechlm.audiolm.families.qwen2_5_omni import Qwen25Omni
from tests.speechlm.audiolm import contract
from tests.speechlm.audiolm.conftest import CHATML, make_tokenizer, text_config

Clips = list[np.ndarray]
OMNI_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
STRINGS = (  # a template that takes strings only, with a system turn of its own where there is none
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>Today is ' + strftime_now('%d') + '<|end|>' }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def _save(folder: Path, build: Callable[[], Any], tokenizer: Any, louder: tuple[str, ...]) -> Any:
    """A random model whose audio weights are louder, so that answers depend on what is heard."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = build().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1 and any(part in name for part in louder):
                    weight.normal_(0, 0.3)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return model


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


@pytest.fixture(scope="session")
def omni_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    tokenizer = make_tokenizer((*OMNI_SPECIAL, "<|IMAGE|>", "<|VIDEO|>"))
    config = Qwen2_5OmniThinkerConfig(**_omni_config(tokenizer))
    folder = tmp_path_factory.mktemp("audiolm") / "thinker"
    _save(folder, lambda: Qwen2_5OmniThinkerForConditionalGeneration(config), tokenizer, ("audio_tower",))
    _omni_processor_files(folder)
    return folder


def omni_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """What the stock processor makes of one clip: padded to 300 s, masked, one placeholder for each token."""
    from transformers import WhisperFeatureExtractor
    from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import _get_feat_extract_output_lengths

    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    mel = extractor(
        audio, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    count = int(_get_feat_extract_output_lengths(mel["attention_mask"].sum(-1))[0])
    text = family.render(prompt).replace("<|AUDIO|>", "<|AUDIO|>" * count)
    return {
        **family.tokenizer(text, return_tensors="pt"),
        "input_features": mel["input_features"],
        "feature_attention_mask": mel["attention_mask"],
    }


@pytest.fixture(scope="session")
def granite_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    folder = tmp_path_factory.mktemp("audiolm") / "granite"

    def build() -> Any:
        model = GraniteSpeechForConditionalGeneration(config)
        model.add_adapter(LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
        return model

    _save(folder, build, tokenizer, ("encoder", "projector", "lora_"))
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


def granite_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """As `GraniteSpeechProcessor` for one clip; the log-mel is held to the stock extractor elsewhere."""
    mel = GraniteFeatures()(audio)[None]
    count = -(-mel.shape[1] // 15) * 3
    text = family.render(prompt).replace("<|audio|>", "<|audio|>" * count)
    mask = torch.ones(1, count, dtype=torch.bool)
    return {**family.tokenizer(text, return_tensors="pt"), "input_features": mel, "input_features_mask": mask}


@pytest.fixture(scope="session")
def phi_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    folder = tmp_path_factory.mktemp("audiolm") / "phi"
    _save(folder, lambda: Phi4MultimodalForCausalLM(config), tokenizer, ("audio_embed",))
    with torch.random.fork_rng():
        torch.manual_seed(8)
        model = Phi4MultimodalForCausalLM.from_pretrained(folder)
        lora = LoraConfig(r=4, lora_alpha=16, target_modules=r".*layers\.\d+\.self_attn\.(qkv|o)_proj")
        model.add_adapter(lora, "speech")
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data.normal_(0, 0.3)
    model.save_pretrained(folder / "speech-lora")
    (adapter,) = (folder / "speech-lora").glob("**/adapter_config.json")
    assert adapter.parent == folder / "speech-lora"  # as published
    settings = {
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "feature_size": 80,
        "crop_size": 448,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def phi_inputs(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict[str, Any]:
    """As `Phi4MultimodalProcessor` for one clip."""
    from transformers import Phi4MultimodalFeatureExtractor

    mel = Phi4MultimodalFeatureExtractor()(audio, sampling_rate=16_000, return_tensors="pt")
    text = family.render(prompt).replace("<|audio|>", "<|audio|>" * int(mel["audio_embed_sizes"][0]))
    return {**family.tokenizer(text, return_tensors="pt"), **mel}


CASES = [("omni_dir", omni_inputs), ("granite_dir", granite_inputs), ("phi_dir", phi_inputs)]
NAMES = [name for name, _ in CASES]


@pytest.fixture
def folder_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    return lambda name: request.getfixturevalue(name)


@pytest.mark.parametrize(("name", "inputs_of"), CASES, ids=NAMES)
def test_answers_are_those_of_the_stock_path(
    name: str, inputs_of: Any, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.answers_are_stock(folder_of(name), speech, inputs_of)


@pytest.mark.parametrize(("name", "inputs_of"), CASES[:2], ids=NAMES[:2])
def test_embeddings_and_logits_are_those_of_the_full_forward(
    name: str, inputs_of: Any, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.embeds_and_logits_are_stock(folder_of(name), speech[1], inputs_of)


@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_do_not_matter(name: str, folder_of: Callable[[str], Path], speech: Clips) -> None:
    contract.batch_mates_do_not_matter(folder_of(name), [speech[0], speech[1], speech[1][::-1].copy()])


@pytest.mark.parametrize("name", NAMES)
def test_cached_clips_are_not_encoded_again(
    name: str, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.cached_clips_are_not_encoded_again(folder_of(name), speech)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_tokens_is_known_before_encoding(
    name: str, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    family = TransformersSpeechLM.from_pretrained(folder_of(name)).family
    rng = np.random.default_rng(3)
    for n_samples in (2_000, 2_559, 4_800, 4_801, 16_000, 31_999):
        clip = rng.normal(0, 0.1, n_samples).astype(np.float32)
        with torch.no_grad():
            _, count = family.project(*family.encode_audio(family.features([clip])))
        assert int(count[0]) == family.n_tokens(n_samples) > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_is_too_short_to_hear_is_an_error(name: str, folder_of: Callable[[str], Path]) -> None:
    lm = TransformersSpeechLM.from_pretrained(folder_of(name))
    (answer,) = lm.generate([contract.SpeechRequest(np.zeros(200, dtype=np.float32))], contract.GREEDY)
    assert answer.status == "error" and "too short" in answer.error


def test_true_length_of_omni_is_exact(omni_dir: Path, speech: Clips) -> None:
    short = TransformersSpeechLM.from_pretrained(omni_dir)
    padded = TransformersSpeechLM.from_pretrained(omni_dir, true_length=False)
    requests = contract.requests_of(speech[:2])
    assert short.generate(requests, contract.GREEDY) == padded.generate(requests, contract.GREEDY)
    assert padded.family.features(speech[:1])["input_features"].shape[-1] == 30_000


def test_thinker_is_found_in_the_whole_omni(omni_dir: Path, tmp_path: Path, speech: Clips) -> None:
    """The published checkpoints hold Thinker, Talker and vocoder; weights are named `thinker.*`."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(omni_dir, tmp_path / "omni"))
    config = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "qwen2_5_omni", "thinker_config": config, "enable_audio_output": True}
    (folder / "config.json").write_text(json.dumps(whole))
    state = load_file(folder / "model.safetensors")
    renamed = {
        f"thinker.{name.replace('model.language_model.', 'model.')}": value for name, value in state.items()
    }
    renamed = {
        name.replace("thinker.model.audio_tower", "thinker.audio_tower").replace(
            "thinker.model.visual", "thinker.visual"
        ): value
        for name, value in renamed.items()
    }
    renamed["talker.codec_head.weight"] = torch.zeros(2, 2)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    lm, alone = TransformersSpeechLM.from_pretrained(folder), TransformersSpeechLM.from_pretrained(omni_dir)
    assert isinstance(lm.family, Qwen25Omni)
    requests = contract.requests_of(speech)
    assert lm.generate(requests, contract.GREEDY) == alone.generate(requests, contract.GREEDY)


def test_granite_answers_with_its_adapter(granite_dir: Path, speech: Clips) -> None:
    lm = TransformersSpeechLM.from_pretrained(granite_dir)
    assert set(lm.identity()["adapter"]) == {"adapter_config.json", "adapter_model.safetensors"}
    requests = contract.requests_of(speech)
    heard = lm.generate(requests, contract.GREEDY)
    lm.family.model.disable_adapters()
    assert lm.generate(requests, contract.GREEDY) == heard  # switched on for every answer
    assert lm.family.model.active_adapters() == ["default"]
    with torch.no_grad():
        for name, weight in lm.family.model.named_parameters():
            if "lora_" in name:
                weight.zero_()
    assert lm.generate(requests, contract.GREEDY) != heard


def _tones() -> np.ndarray:
    time = np.arange(4_800) / 16_000
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3_000 * time)).astype(np.float32)


def test_granite_features_are_those_of_the_stock_extractor() -> None:
    """Values of `GraniteSpeechFeatureExtractor` (transformers 5.23.0, torchaudio 2.11.0) on the same clip."""
    found = GraniteFeatures()(_tones())
    assert tuple(found.shape) == (15, 160)
    first = [1.22611690, 1.23644722, 1.25218117, 1.28488946, 1.26894784, 1.28103256]
    middle = [-0.27740419, -0.27740419, -0.27740419, 0.07075185, 0.17071098]
    last = [0.11500716, 0.10877437, 0.10157990, 0.09651387, 0.09203070]
    assert np.allclose(found[0, :6], first, atol=3e-5)
    assert np.allclose(found[7, 70:90:4], middle, atol=3e-5)
    assert np.allclose(found[-1, 150:155], last, atol=3e-5)
    assert float(found.mean()) == pytest.approx(0.12232819, abs=1e-5)
    assert float(found.std()) == pytest.approx(0.57619011, abs=1e-5)


def test_granite_features_are_the_stock_ones_of_any_clip(speech: Clips) -> None:
    pytest.importorskip("torchaudio", reason="the stock extractor needs it")
    from transformers import GraniteSpeechFeatureExtractor

    for clip in speech:
        expected = GraniteSpeechFeatureExtractor()(clip.copy())["input_features"][0]
        assert float((GraniteFeatures()(clip) - expected).abs().max()) < 5e-5


def test_granite_says_the_same_every_day(granite_dir: Path) -> None:
    family = TransformersSpeechLM.from_pretrained(granite_dir).family
    assert family.render("hi") == f"<|system|>{SYSTEM}<|end|><|user|><|audio|>hi<|end|><|assistant|>"


def test_granite_without_its_adapter_is_refused(granite_dir: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(granite_dir, tmp_path / "granite"))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="lacks adapter_config.json, which its config announces"):
        TransformersSpeechLM.from_pretrained(folder)


@pytest.mark.parametrize("name", ["granite_dir", "phi_dir"])
def test_adapters_need_peft(
    name: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(name)
    monkeypatch.setattr("transformers.utils.is_peft_available", lambda *_: False)
    with pytest.raises(MissingPrerequisite, match=r"pip install 'rba-bench\[train\]'"):
        TransformersSpeechLM.from_pretrained(folder)


def test_phi_embeddings_and_logits_are_those_of_the_full_forward(phi_dir: Path, speech: Clips) -> None:
    """Its backbone merges inside, so the merged embeddings are seen elsewhere than with the others."""
    family = TransformersSpeechLM.from_pretrained(phi_dir).family
    inputs = phi_inputs(family, speech[1], contract.PROMPTS[1])
    seen: list[torch.Tensor] = []
    hook = family.decoder.embed_tokens_extend.register_forward_hook(
        lambda _m, _a, output: seen.append(output)
    )
    with torch.no_grad():
        expected = family.model(**inputs).logits
        hook.remove()
        embeds, count = family.project(*family.encode_audio(family.features([speech[1]])))
        ids, mask = family.collate([family.expand(family.prompt_ids(contract.PROMPTS[1]), int(count[0]))])
        merged = family.merge(ids, embeds, count)
        logits = family.head(family.decode(merged, mask))
    assert torch.equal(ids, inputs["input_ids"])
    assert float((merged - seen[0]).abs().max()) < 1e-5
    assert float((logits - expected).abs().max()) < 2e-4 and float(expected.std()) > 0.1


def test_the_adapter_of_phi_leaves_the_projector_alone(phi_dir: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(phi_dir / "model.safetensors")
    embed = TransformersSpeechLM.from_pretrained(phi_dir).family.model.model.embed_tokens_extend.audio_embed
    for name in ("up_proj_for_speech", "down_proj_for_speech"):
        weight = stored[f"model.embed_tokens_extend.audio_embed.{name}.weight"]
        assert torch.equal(getattr(embed, name).weight, weight)


def test_the_adapter_of_phi_is_the_stored_one(phi_dir: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(phi_dir / "speech-lora" / "adapter_model.safetensors")
    model = TransformersSpeechLM.from_pretrained(phi_dir).family.model
    loaded = {
        name.replace(f".{ADAPTER_NAME}", ""): weight
        for name, weight in model.named_parameters()
        if "lora_" in name
    }
    assert len(loaded) == len(stored) == 8
    for name, weight in loaded.items():
        assert torch.equal(weight, stored[f"base_model.model.{name}"])


def test_phi_answers_with_its_speech_adapter(phi_dir: Path, tmp_path: Path, speech: Clips) -> None:
    import shutil

    lm = TransformersSpeechLM.from_pretrained(phi_dir)
    assert lm.family.model.active_adapters() and lm.identity()["adapter"]
    folder = Path(shutil.copytree(phi_dir, tmp_path / "phi"))
    shutil.rmtree(folder / "speech-lora")
    bare = TransformersSpeechLM.from_pretrained(folder)
    requests = contract.requests_of(speech)
    assert bare.generate(requests, contract.GREEDY) != lm.generate(requests, contract.GREEDY)
    assert "adapter" not in bare.identity()


def test_a_damaged_adapter_is_an_error(phi_dir: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(phi_dir, tmp_path / "phi"))
    (folder / "speech-lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="speech-lora cannot be loaded"):
        TransformersSpeechLM.from_pretrained(folder)


def test_phi_features_count_the_frames(phi_dir: Path) -> None:
    family = TransformersSpeechLM.from_pretrained(phi_dir).family
    assert isinstance(family, Phi4Multimodal)
    features = family.features([np.zeros(n, dtype=np.float32) for n in (2_000, 8_000, 8_159)])
    assert features["frames"].tolist() == [family.n_frames(n) for n in (2_000, 8_000, 8_159)]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_without_feature_settings_is_an_error(
    name: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(folder_of(name), tmp_path / "copy"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="holds no usable processor"):
        TransformersSpeechLM.from_pretrained(folder)
