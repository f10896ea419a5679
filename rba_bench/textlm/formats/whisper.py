"""Whisper checkpoints of transformers, written from the tensors alone.

What is not in the tensors follows from their shapes and from openai-whisper's tokenizers: there are three vocabularies
(English; 99 languages; 100 languages), told apart by their sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from rba_bench.errors import UserError

VOCABULARIES = {51864: (False, 99), 51865: (True, 99), 51866: (True, 100)}  # size: multilingual, languages
LONGEST_INITIAL_TIMESTAMP = 50  # steps of 20 ms, as in the published checkpoints
RENAMED = {
    "<|nospeech|>": "<|nocaptions|>",
    "<|he|>": "<|iw|>",
}  # names in openai-whisper, and in old vocabularies


@dataclass(frozen=True)
class WhisperWeights:
    """A Whisper model without its tokenizer.

    Attributes:
        state: tensors by their names in transformers; the output layer is that of the input embeddings.
        encoder_heads: attention heads of the encoder.
        decoder_heads: attention heads of the decoder.
        alignment_heads: `[layer, head]` of the decoder that word times come from; None for all heads of its upper half.
        suppress_tokens: tokens that are never written; None for openai-whisper's.
        begin_suppress_tokens: tokens that do not begin a transcript; None for openai-whisper's.
    """

    state: dict[str, torch.Tensor]
    encoder_heads: int
    decoder_heads: int
    alignment_heads: list[list[int]] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None


def save_whisper(weights: WhisperWeights, out: Path, source: Path) -> None:
    """Write model, generation settings, tokenizer and feature extractor as `save_pretrained` does.

    All tensors get one number type: the one that they share, else float32.

    Args:
        weights: the model.
        out: a folder that exists.
        source: how messages name it.

    Raises:
        UserError: tensors are missing or of wrong shapes, or the vocabulary is none of Whisper's.
    """
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    sizes = _sizes(weights, source)
    encoding = _encoding(sizes["vocab_size"], source)
    ends = {"eos_token_id": encoding.eot, "bos_token_id": encoding.eot, "pad_token_id": encoding.eot}
    config = WhisperConfig(
        **sizes, **ends, decoder_start_token_id=encoding.sot, suppress_tokens=None, begin_suppress_tokens=None
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    state = _checked_state(weights.state, model, source)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.config.dtype = model.dtype
    model.generation_config = _generation_config(weights, encoding, sizes, ends)
    model.save_pretrained(out)
    _tokenizer(encoding).save_pretrained(out)
    seconds = sizes["max_source_positions"] // 50
    WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"], chunk_length=seconds).save_pretrained(out)


def _checked_state(state: dict[str, torch.Tensor], model: Any, source: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model, in one number type."""
    head, embeddings = "proj_out.weight", "model.decoder.embed_tokens.weight"
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name != head}
    wrong = sorted(n for n in shapes | state if n not in state or shapes.get(n) != state[n].shape)
    if wrong:
        raise UserError(
            f"{source}: {len(wrong)} tensors are not those of a Whisper model (first: {wrong[0]})"
        )
    types = {tensor.dtype for tensor in state.values()}
    dtype = types.pop() if len(types) == 1 else torch.float32
    done = {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
    return done | {head: done[embeddings]}


def _sizes(weights: WhisperWeights, source: Path) -> dict[str, int]:
    """The sizes of a `WhisperConfig`, from the shapes of the tensors."""
    state = weights.state
    sizes = {
        "encoder_attention_heads": weights.encoder_heads,
        "decoder_attention_heads": weights.decoder_heads,
    }
    try:
        sizes["vocab_size"], sizes["d_model"] = state["model.decoder.embed_tokens.weight"].shape
        sizes["num_mel_bins"] = state["model.encoder.conv1.weight"].shape[1]
        sizes["max_source_positions"] = len(state["model.encoder.embed_positions.weight"])
        sizes["max_target_positions"] = len(state["model.decoder.embed_positions.weight"])
        for side in ("encoder", "decoder"):
            sizes[f"{side}_layers"] = len(
                {n.split(".")[3] for n in state if n.startswith(f"model.{side}.layers.")}
            )
            sizes[f"{side}_ffn_dim"] = len(state[f"model.{side}.layers.0.fc1.weight"])
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{source} lacks tensors of a Whisper model ({error})") from error
    if min(weights.encoder_heads, weights.decoder_heads) < 1 or any(
        sizes["d_model"] % heads for heads in (weights.encoder_heads, weights.decoder_heads)
    ):
        raise UserError(f"{source}: its width of {sizes['d_model']} cannot be divided by its number of heads")
    return sizes


@cache
def _encoding(size: int, source: Path) -> Any:
    """openai-whisper's tokenizer for a vocabulary of this size."""
    from whisper.tokenizer import get_tokenizer

    if size not in VOCABULARIES:
        known = ", ".join(map(str, VOCABULARIES))
        raise UserError(f"{source} has a vocabulary of {size} tokens; those of Whisper have {known}")
    multilingual, languages = VOCABULARIES[size]
    return get_tokenizer(multilingual, num_languages=languages)


def _special_ids(encoding: Any) -> dict[str, int]:
    """Special tokens in the order of their numbers."""
    return dict(sorted(encoding.special_tokens.items(), key=lambda item: item[1]))


def _generation_config(
    weights: WhisperWeights, encoding: Any, sizes: dict[str, int], ends: dict[str, int]
) -> Any:
    """Settings of `generate`, as the published checkpoints have them."""
    from transformers import GenerationConfig

    layers, heads = sizes["decoder_layers"], sizes["decoder_attention_heads"]
    suppressed = [
        *encoding.non_speech_tokens, encoding.transcribe, encoding.translate, encoding.sot, encoding.sot_prev,
        encoding.sot_lm, encoding.no_speech,
    ]  # fmt: skip
    multilingual, languages = VOCABULARIES[sizes["vocab_size"]]
    settings: dict[str, Any] = {"is_multilingual": multilingual}
    if multilingual:
        ids = _special_ids(encoding)
        settings["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in encoding.all_language_codes}
        settings["task_to_id"] = {"transcribe": encoding.transcribe, "translate": encoding.translate}
        assert len(settings["lang_to_id"]) == languages
    return GenerationConfig(
        **ends,
        decoder_start_token_id=encoding.sot,
        no_timestamps_token_id=encoding.no_timestamps,
        prev_sot_token_id=encoding.sot_prev,
        max_length=sizes["max_target_positions"],
        max_initial_timestamp_index=LONGEST_INITIAL_TIMESTAMP,
        return_timestamps=False,
        suppress_tokens=sorted(set(suppressed))
        if weights.suppress_tokens is None
        else weights.suppress_tokens,
        begin_suppress_tokens=weights.begin_suppress_tokens or [*encoding.encode(" "), encoding.eot],
        alignment_heads=weights.alignment_heads
        or [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)],
        **settings,
    )


def _tokenizer(encoding: Any) -> Any:
    """The tokenizer of transformers that makes the same tokens."""
    from transformers import AddedToken, WhisperTokenizer

    vocabulary, merges = _byte_pairs(encoding.language is not None)
    end = "<|endoftext|>"
    tokenizer = WhisperTokenizer(vocab=vocabulary | {end: encoding.eot}, merges=merges, pad_token=end)
    times = encoding.timestamp_begin
    specials = _special_ids(encoding).items()
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=number < times) for t, number in specials])
    tokenizer.set_prefix_tokens()  # they were not in the vocabulary when it was made
    return tokenizer


@cache
def _byte_pairs(multilingual: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in the spelling of byte-level BPE, from ranks of byte strings."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from whisper.tokenizer import get_encoding

    letters = bytes_to_unicode()
    ranks: dict[bytes, int] = get_encoding("multilingual" if multilingual else "gpt2")._mergeable_ranks

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [
        _parts(token, rank, ranks)
        for token, rank in sorted(ranks.items(), key=lambda i: i[1])
        if len(token) > 1
    ]
    pairs = [(spelled(left), spelled(right)) for left, right in merges]
    return {spelled(token): rank for token, rank in ranks.items()}, pairs


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token is merged from: what merges of lower ranks make of its bytes."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def check_vocabulary(tokens: Sequence[str] | None, size: int, source: Path) -> None:
    """Refuse a list of tokens that is not Whisper's own of this size; None is not looked at.

    Raises:
        UserError: the first token that differs is named.
    """
    if tokens is None:
        return
    encoding = _encoding(size, source)
    vocabulary, _ = _byte_pairs(encoding.language is not None)
    expected = {number: token for token, number in (vocabulary | _special_ids(encoding)).items()}
    if len(tokens) != size:
        raise UserError(f"{source}: {len(tokens)} tokens are named for {size} embeddings; copy it again")
    for number, token in enumerate(tokens):
        own = expected[number]
        if token not in (own, RENAMED.get(own)):
            raise UserError(
                f"{source} has a vocabulary of its own (token {number} is {token[:40]!r}, Whisper's is {own!r}): "
                "give the checkpoint of transformers that it was made from"
            )
