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
from rba_bench.speechlm.audiolm.families.granite_speech import SYSTEM, GraniteFeatures
from rba_bench.speechlm.audiolm.families.phi4_multimodal import Phi4Multimodal
from rba_bench.speechlm.audiolm.families.processors import ADAPTER_NAME
from rba_bench.speechlm.audiolm.families.qwen2_5_omni import Qwen25Omni
from tests.speechlm.audiolm import contract
from tests.speechlm.audiolm.conftest import CHATML
from tests.speechlm.audiolm.omni_granite_phi import (
    granite_inputs,
    omni_inputs,
    phi_inputs,
)

Clips = list[np.ndarray]
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
    assert lm.family.model.active_adapters() == [ADAPTER_NAME]
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
    with pytest.raises(MissingPrerequisite, match=r"pip install .*\[train\]'"):
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


@pytest.mark.parametrize(("name", "part"), [("phi_dir", "speech-lora"), ("granite_dir", ".")])
def test_base_and_adapter_are_the_stored_ones(name: str, part: str, folder_of: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file

    folder = folder_of(name)
    stored = load_file(folder / "model.safetensors") | load_file(folder / part / "adapter_model.safetensors")
    stored = {_bare(name): weight for name, weight in stored.items()}
    loaded = TransformersSpeechLM.from_pretrained(folder).family.model.state_dict()
    loaded = {_bare(name): weight for name, weight in loaded.items()}
    assert sum("lora_" in name for name in stored) == 8 and stored.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in stored.items())


def _bare(name: str) -> str:
    """A weight's name without what PEFT, the adapter's name and older layouts of a model put into it."""
    for part in ("language_model.", "base_model.model.", "model.", "base_layer.", f"{ADAPTER_NAME}."):
        name = name.replace(part, "")
    return name


@pytest.mark.parametrize(("name", "part"), [("phi_dir", "speech-lora"), ("granite_dir", ".")])
def test_damaged_adapters_and_weights_are_errors(
    name: str, part: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folder_of(name), tmp_path / "copy"))
    adapter = folder / part / "adapter_model.safetensors"
    state = load_file(adapter)
    first = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != first}, adapter)
    with pytest.raises(UserError, match="copy lacks 1 weights|speech-lora lacks 1 weights"):
        TransformersSpeechLM.from_pretrained(folder)
    adapter.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        TransformersSpeechLM.from_pretrained(folder)
    shutil.copy(folder_of(name) / part / "adapter_model.safetensors", adapter)
    state = load_file(folder / "model.safetensors")
    state.pop(next(key for key in state if key.endswith("o_proj.weight")))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="copy lacks 1 weights of the speech model"):
        TransformersSpeechLM.from_pretrained(folder)


def test_phi_takes_templates_of_parts_and_of_strings(phi_dir: Path) -> None:
    family = TransformersSpeechLM.from_pretrained(phi_dir).family
    expected = "<|user|><|audio|>hi<|end|><|assistant|>"
    assert family.render("hi").endswith(expected)
    parts = CHATML.replace("PLACEHOLDER", "<|audio|>").replace("<|im_start|>", "<|user|>")
    family.processor.chat_template = parts
    assert "<|user|>user\n<|audio|>hi<|im_end|>" in family.render("hi")


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
