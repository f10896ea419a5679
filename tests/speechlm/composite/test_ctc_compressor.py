"""The CTC compressor: frames to word pieces, runs to audio tokens, and the composite around it."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, WhisperConfig

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite import connector_file
from rba_bench.speechlm.composite.ctc_compressor import (
    BLANK,
    CompressedProjector,
    CompressorSizes,
    CTCCompressor,
    DepthwiseKernel,
    attend,
    pool_runs,
)
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, word_embeddings

SIZES = CompressorSizes(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    kernel_size=5,
    n_pieces=20,
    letters_after=1,
)
AUDIO = 5
LENGTHS = torch.tensor([300, 120, 50])  # mel frames


@pytest.fixture
def compressor() -> CTCCompressor:
    torch.manual_seed(0)
    made = CTCCompressor(SIZES, 8, 16)
    made.set_pieces(range(10, 30), torch.randn(64, 16))
    return made.eval()


@pytest.fixture
def composite() -> CompositeForConditionalGeneration:
    torch.manual_seed(0)
    whisper = WhisperConfig(d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16)
    llama = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    text_model = AutoModelForCausalLM.from_config(llama)
    made = CTCCompressor(SIZES, 8, 16)
    made.set_pieces(range(10, 30), word_embeddings(text_model))
    return CompositeForConditionalGeneration.from_parts(
        TrueLengthWhisperEncoder(whisper).eval(), text_model, AUDIO, projector_hidden_size=10, compressor=made
    )


def test_attention_written_out_is_that_of_torch() -> None:
    queries, keys, values = torch.randn(3, 2, 4, 7, 8)
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    expected = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask[:, None, None, :]
    )
    torch.testing.assert_close(attend(queries, keys, values, mask), expected.transpose(1, 2).flatten(2))


def test_runs_of_one_class_are_averaged_and_blanks_dropped() -> None:
    classes = torch.tensor([[0, 3, 3, 0, 3, 4], [0, 0, 0, 0, 0, 0], [7, 7, 8, 8, 8, 0]])
    values = torch.arange(18.0).view(3, 6, 1)
    means, counts = pool_runs(classes, values)
    assert counts.tolist() == [3, 0, 2]
    assert means[..., 0].tolist() == [[1.5, 4.0, 5.0], [0.0, 0.0, 0.0], [12.5, 15.0, 0.0]]


def test_the_depthwise_kernel_is_a_convolution() -> None:
    kernel = DepthwiseKernel(5, 4)
    plain = torch.nn.Conv1d(4, 4, 5, padding=2, groups=4, bias=False)
    plain.weight.data.copy_(kernel.weight.T[:, None])
    frames = torch.randn(2, 9, 4)
    torch.testing.assert_close(kernel(frames), plain(frames.transpose(1, 2)).transpose(1, 2))


def test_a_frame_that_points_at_a_word_piece_becomes_its_embedding(compressor: CTCCompressor) -> None:
    """With a large scale the mixture is the embedding of the piece, and the transcript is its token."""
    compressor.log_scale.data.fill_(6.0)
    compressor.to_blank.bias.data.fill_(-1e4)
    states, lengths = torch.randn(1, 12, 8), torch.tensor([12])
    tokens, counts = compressor(states, lengths)
    (said,) = compressor.transcribe(states, lengths)
    assert counts.tolist() == [len(said)] and set(said) <= set(range(10, 30))
    numbers = [said_token - 10 for said_token in said]
    # mixtures are of the pieces that the frames point at: nearest by cosine to the one that was said
    cosines = torch.nn.functional.cosine_similarity(tokens[0, :, None, :16], compressor.pieces[None], dim=-1)
    assert cosines.argmax(-1).tolist() == numbers


def test_a_clip_does_not_depend_on_its_batch_mates(compressor: CTCCompressor) -> None:
    compressor.to_blank.bias.data.fill_(0.5)
    states, lengths = torch.randn(3, 40, 8), torch.tensor([40, 17, 3])
    tokens, counts = compressor(states, lengths)
    transcripts = compressor.transcribe(states, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone, count = compressor(states[i : i + 1, :length], lengths[i : i + 1])
        assert count[0] == counts[i] == max(1, len(transcripts[i]))
        torch.testing.assert_close(alone[0], tokens[i, : count[0]])


def test_silence_has_one_token_and_a_clip_without_states_none(compressor: CTCCompressor) -> None:
    compressor.to_blank.bias.data.fill_(1e4)
    tokens, counts = compressor(torch.randn(2, 30, 8), torch.tensor([30, 0]))
    assert counts.tolist() == [1, 0] and bool(tokens[0].any()) and not bool(tokens[1].any())
    assert compressor.transcribe(torch.randn(1, 30, 8), torch.tensor([30])) == [[]]


def test_scores_are_cosines_with_the_llms_embeddings(compressor: CTCCompressor) -> None:
    hidden = torch.randn(4, 12)
    scores = compressor.scores(hidden)
    pointers = compressor.to_piece(hidden)
    expected = 10 * torch.nn.functional.cosine_similarity(pointers[:, None], compressor.pieces[None], dim=-1)
    torch.testing.assert_close(scores[:, 1:], expected)
    torch.testing.assert_close(scores[:, :1], compressor.to_blank(hidden))
    torch.testing.assert_close(
        compressor.scores(hidden, compressor.pieces[[3, 1]])[:, 1:], expected[:, [3, 1]]
    )
    assert BLANK == 0


def test_the_projector_starts_as_the_identity_and_corrects_by_the_tokens_around() -> None:
    torch.manual_seed(0)
    projector = CompressedProjector(16, 12, 10)
    tokens = torch.randn(2, 5, 28)
    tokens[1, 3:] = 0.0
    assert torch.equal(projector(tokens), tokens[..., :16])
    torch.nn.init.normal_(projector.linear_2.weight)
    changed = projector(tokens)
    torch.testing.assert_close(
        projector(tokens[1:, :3])[0], changed[1, :3]
    )  # zeros behind the end do not count
    assert not torch.equal(changed, tokens[..., :16])


def test_generation_grows_the_one_placeholder_and_batches_agree(
    composite: CompositeForConditionalGeneration,
) -> None:
    features = torch.randn(3, 80, 300)
    input_ids = torch.tensor([[7, 5, 8], [9, 5, 8], [7, 5, 9]])
    options = {"min_new_tokens": 5, "max_new_tokens": 5, "do_sample": False}
    together = composite.generate(
        input_ids=input_ids, attention_mask=torch.ones_like(input_ids), input_features=features,
        feature_lengths=LENGTHS, **options,
    )  # fmt: skip
    _, counts = composite.encode_audio(features, LENGTHS)
    assert together.shape[1] == 2 + int(counts.max()) + 5
    for i, length in enumerate(LENGTHS.tolist()):
        alone = composite.generate(
            input_ids=input_ids[i : i + 1], input_features=features[i : i + 1, :, :length],
            feature_lengths=LENGTHS[i : i + 1], **options,
        )  # fmt: skip
        assert alone[0, -5:].tolist() == together[i, -5:].tolist()


def test_labels_grow_with_the_rows(composite: CompositeForConditionalGeneration) -> None:
    """The loss of a batch is that of its rows; audio tokens have none."""
    features = torch.randn(2, 80, 300)
    input_ids = torch.tensor([[7, 5, 8, 11, 12], [9, 5, 8, 13, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    labels = torch.tensor([[-100, -100, -100, 11, 12], [-100, -100, -100, 13, -100]])
    lengths = torch.tensor([300, 120])
    loss = composite(
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        input_features=features,
        feature_lengths=lengths,
    ).loss
    rows = []
    for i, length in enumerate(lengths.tolist()):
        states, n_tokens = composite.encode_audio(features[i : i + 1, :, :length], lengths[i : i + 1])
        ids = input_ids[i][mask[i] == 1]
        wide = torch.repeat_interleave(ids, torch.where(ids == AUDIO, n_tokens, 1))[None]
        logits = composite(input_ids=wide, audio_states=states, audio_lengths=n_tokens).logits[0]
        answer = labels[i][labels[i] >= 0]
        rows += logits[-len(answer) - 1 : -1].log_softmax(-1).gather(1, answer[:, None])[:, 0].tolist()
    assert float(loss) == pytest.approx(-sum(rows) / 3, rel=1e-4)


def test_a_checkpoint_is_read_as_it_was_written(
    composite: CompositeForConditionalGeneration, tmp_path: Path
) -> None:
    composite.save_pretrained(tmp_path)
    loaded, report = CompositeForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    features = torch.randn(3, 80, 300)
    for ours, theirs in zip(
        composite.encode_audio(features, LENGTHS), loaded.encode_audio(features, LENGTHS), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_connector_may_leave_its_compressor_in_another_one(
    composite: CompositeForConditionalGeneration, tmp_path: Path
) -> None:
    first, second, facts = tmp_path / "first", tmp_path / "second", {}
    connector_file.save_connector(composite, first, facts)
    torch.nn.init.normal_(composite.model.multi_modal_projector.linear_2.weight)
    connector_file.save_connector(composite, second, facts, compressor_of=str(first))
    assert (second / connector_file.WEIGHTS).stat().st_size < (first / connector_file.WEIGHTS).stat().st_size
    embeddings, config = word_embeddings(composite), composite.config.audio_config
    ours, theirs = (connector_file.load_compressor(folder, config, embeddings) for folder in (first, second))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
    torch.nn.init.zeros_(composite.model.compressor.to_piece.weight)
    with pytest.raises(ValueError, match="another one: to_piece.weight differs"):
        connector_file.save_connector(composite, tmp_path / "third", facts, compressor_of=str(first))
    connector_file.save_connector(composite, first, facts)  # it changed behind the second's back
    with pytest.raises(UserError, match="needs the compressor of another"):
        connector_file.load_compressor(second, config, embeddings)


def test_a_connector_travels_without_the_models_around_it(
    composite: CompositeForConditionalGeneration, tmp_path: Path
) -> None:
    torch.nn.init.normal_(composite.model.multi_modal_projector.linear_2.weight)
    connector_file.save_connector(composite, tmp_path, {"made": "here"})
    assert connector_file.connector_facts(tmp_path)["made"] == "here"
    embeddings = word_embeddings(composite)
    loaded = connector_file.load_compressor(tmp_path, composite.config.audio_config, embeddings)
    ours = composite.model.compressor.state_dict()
    assert loaded.state_dict().keys() == ours.keys()
    assert torch.equal(loaded.piece_ids, ours["piece_ids"]) and torch.equal(loaded.pieces, ours["pieces"])
    torch.testing.assert_close(
        loaded.state_dict()["to_piece.weight"], ours["to_piece.weight"], rtol=1e-3, atol=1e-4
    )
    other = copy.deepcopy(composite)
    torch.nn.init.zeros_(other.model.multi_modal_projector.linear_2.weight)
    connector_file.load_projector(tmp_path, other)
    torch.testing.assert_close(
        other.model.multi_modal_projector.linear_2.weight,
        composite.model.multi_modal_projector.linear_2.weight,
        rtol=1e-3,
        atol=1e-3,
    )
    with pytest.raises(UserError, match="encoder of width 8 and an LLM of width 16, not 8 and 20"):
        connector_file.load_compressor(tmp_path, composite.config.audio_config, torch.zeros(64, 20))
    with pytest.raises(MissingPrerequisite, match="no connector in"):
        connector_file.connector_facts(tmp_path / "none")
