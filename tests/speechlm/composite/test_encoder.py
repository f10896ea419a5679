from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import sinusoids

from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder, length_mask, state_lengths

LENGTHS = [200, 33, 1, 120, 78]


def whisper_config() -> WhisperConfig:
    return WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        init_std=0.1,
    )


@pytest.fixture(params=[1, 2], ids=["whisper rate", "half rate"])
def encoder(attention: str, request: pytest.FixtureRequest) -> TrueLengthWhisperEncoder:
    torch.manual_seed(3)
    config = whisper_config()
    config.conv1_stride = request.param
    config._attn_implementation = attention
    return TrueLengthWhisperEncoder(config).eval()


def padded_features(filling: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(len(LENGTHS), 80, max(LENGTHS), generator=generator)
    lengths = torch.tensor(LENGTHS)
    return features.masked_fill(~length_mask(lengths, max(LENGTHS))[:, None], filling), lengths


@pytest.mark.parametrize("kind", [WhisperModel, WhisperForConditionalGeneration])
def test_whisper_weights_give_whisper_states_on_thirty_seconds(
    tmp_path: Path, kind: type[WhisperModel]
) -> None:
    torch.manual_seed(2)
    whisper = kind(whisper_config()).eval()
    whisper.save_pretrained(tmp_path)
    features = torch.randn(1, 80, 3000)
    with torch.no_grad():
        expected = whisper.get_encoder()(features).last_hidden_state
        for lengths in (None, torch.tensor([3000])):
            states, state_length = TrueLengthWhisperEncoder.from_whisper(tmp_path)(features, lengths)
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)
            assert state_length.tolist() == [1500]


@pytest.mark.parametrize("filling", [0.0, 50.0])
def test_states_do_not_depend_on_batch_mates(encoder: TrueLengthWhisperEncoder, filling: float) -> None:
    features, lengths = padded_features(filling)
    with torch.no_grad():
        states, n_states = encoder(features, lengths)
        for row, length in enumerate(LENGTHS):
            alone, n_alone = encoder(features[row : row + 1, :, :length])
            assert n_alone.item() == n_states[row].item() == alone.shape[1]
            torch.testing.assert_close(states[row, : n_states[row]], alone[0], atol=1e-5, rtol=0)
            assert not states[row, n_states[row] :].any()


def test_gradients_do_not_depend_on_batch_mates(encoder: TrueLengthWhisperEncoder) -> None:
    features, lengths = padded_features(0.0)
    encoder(features, lengths)[0].pow(2).sum().backward()
    together = encoder.conv1.weight.grad.clone()
    encoder.zero_grad()
    for row, length in enumerate(LENGTHS):
        encoder(features[row : row + 1, :, :length])[0].pow(2).sum().backward()
    torch.testing.assert_close(encoder.conv1.weight.grad, together, atol=1e-3, rtol=1e-4)


def test_length_formula_is_that_of_the_convolutions(encoder: TrueLengthWhisperEncoder) -> None:
    for frames in range(1, 12):
        states, n_states = encoder(torch.zeros(1, 80, frames))
        assert (
            states.shape[1]
            == n_states.item()
            == state_lengths(torch.tensor(frames), encoder.mel_stride).item()
        )


def test_positions_are_whispers_and_stay_fixed(encoder: TrueLengthWhisperEncoder) -> None:
    torch.testing.assert_close(encoder.embed_positions.weight.data, sinusoids(1500, 32))
    assert not encoder.embed_positions.weight.requires_grad


def test_a_saved_encoder_keeps_its_rate(tmp_path: Path, encoder: TrueLengthWhisperEncoder) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = TrueLengthWhisperEncoder.from_pretrained(tmp_path)
    features, lengths = padded_features(0.0)
    states, n_states = loaded(features, lengths)
    torch.testing.assert_close(states, encoder(features, lengths)[0], atol=1e-5, rtol=0)
    assert n_states[0].item() == 100 // encoder.mel_stride


def test_input_beyond_the_position_table_is_refused(encoder: TrueLengthWhisperEncoder) -> None:
    limit = 3000 * encoder.mel_stride
    with pytest.raises(ValueError, match=f"{limit + 1} mel frames.*at most {limit}"):
        encoder(torch.zeros(1, 80, limit + 1))
    with pytest.raises(ValueError, match="feature_lengths"):
        encoder(torch.zeros(2, 80, 10), torch.tensor([10]))
