"""A compressor that is pretrained: Whisper's own decoder writes, and each word piece that it writes is an audio token.

The decoder reads the encoder's states of the whole 30 s window, as it was trained to, and writes greedily. A token of
what it wrote is the LLM's input embedding of the same characters, beside the decoder's last hidden state from which
they were chosen: the projector can correct the embedding by what the decoder was unsure of. Nothing here has to train:
both models' word pieces are joined by their characters alone, so any Whisper goes with any LLM. Parts of the decoder
can train for voices that Whisper misreads (`training.decoder_adaptation`).

What it costs: the model hears what the recogniser writes, and the encoder always computes 30 s. What it gives: a
language model's knowledge of spoken words, which a compressor that reads states frame by frame (`ctc_compressor`) has
to learn anew from clips.

Sources: Held et al. 2024, "Distilling an end-to-end voice assistant without instruction training data" (DiVA: the
connector starts as Whisper's decoder, and learns from the LLM that reads the transcript; there it reads by fixed
queries); Lu et al. 2024, "DeSTA2" (the LLM gets what Whisper's decoder writes beside acoustic features). Radford et al.
2022 for Whisper. That tokens are embeddings of the characters, with the hidden state beside, is ours.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder, length_mask, state_lengths

KIND = "decoder"
NONE = -1  # fills rows of `spellings`
STATES_A_PIECE = (
    4  # 20 ms each: nobody says more than 12.5 word pieces a second, so a decoder that loops is stopped
)
LONGEST = 8  # of the LLM's pieces for one of Whisper's; only rows of dots and dashes have more, and are cut
ROWS = 8  # clips that are encoded and decoded together: 30 s each


@dataclass(frozen=True)
class DecoderSettings:
    """What a decoder needs to write a transcript in one language.

    Attributes:
        hidden_size: W, width of its states.
        start: token ids before the transcript: start, language and task of a multilingual model, no timestamps.
        end: token id behind it.
        suppressed: token ids that are never written.
        suppressed_first: token ids that are not written first.
        n_pieces: word embeddings of the LLM that it uses.
        longest: word pieces of the LLM that the characters of one of its own take at most.
        trained: parts of its layers that were trained further, such as `encoder_attn`; () where it is Whisper's own.
    """

    hidden_size: int
    start: tuple[int, ...]
    end: int
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    n_pieces: int = 1
    longest: int = 1
    trained: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For the composite's configuration."""
        stored = {"kind": KIND, **asdict(self)}
        if not self.trained:  # as it was stored before decoders could train
            del stored["trained"]
        return stored

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "DecoderSettings":
        """What `to_dict` gave, after JSON."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
        del fields["kind"]
        return cls(**fields)


class DecoderCompressor(nn.Module):
    """Writes what is said as word pieces of the LLM; see the module.

    Args:
        settings: see `DecoderSettings`.
        config: `WhisperConfig` of encoder and decoder.
        embedding_size: H, width of the LLM's embeddings.

    Attributes:
        spellings: [V, longest] numbers in `pieces` of the characters of each token of the decoder, filled with NONE.
        pieces: [P, H] the LLM's input embeddings, as they were when the compressor was made. They never train, so that
            clips are read alike however the LLM changes.
    """

    spellings: torch.Tensor
    pieces: torch.Tensor
    whole_window = True  # it needs the states of 30 s

    def __init__(self, settings: DecoderSettings, config: Any, embedding_size: int) -> None:
        super().__init__()
        self.sizes = settings
        self.decoder = WhisperDecoder(config)
        spellings = torch.full((config.vocab_size, settings.longest), NONE, dtype=torch.long)
        self.register_buffer("spellings", spellings)
        self.register_buffer("pieces", torch.zeros(settings.n_pieces, embedding_size))

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What differs from Whisper's own decoder, by its name in this module."""
        parts = self.sizes.trained
        return {n: p for n, p in self.named_parameters() if any(part in n.split(".") for part in parts)}

    def encode(
        self, tower: TrueLengthWhisperEncoder, features: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of clips, `forward` of the states of the whole window, of few clips at a time.

        Args:
            tower: the encoder.
            features: [B, M, T] log-mel.
            lengths: [B] frames of each clip; None when all fill T.
        """
        if lengths is None:
            lengths = torch.full(features.shape[:1], features.shape[2])
        windows = fill_window(features, lengths, 2 * tower.mel_stride * tower.max_source_positions)
        lengths = state_lengths(lengths.to(features.device), tower.mel_stride)
        parts = [
            self(tower(windows[i : i + ROWS])[0], lengths[i : i + ROWS]) for i in range(0, len(windows), ROWS)
        ]
        longest = max(tokens.shape[1] for tokens, _ in parts)
        padded = [nn.functional.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens, _ in parts]
        return torch.cat(padded), torch.cat([counts for _, counts in parts])

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of clips.

        Args:
            states: [B, T', D] of the encoder, of the whole window.
            lengths: [B] numbers of states that are not the silence behind the clip.

        Returns:
            [B, A, H + W], of each token a word embedding and the state that it was chosen from, zeros behind a clip's
            last; and the numbers of tokens [B], 0 for a clip without states. They are at most one for two states of
            the clip, and at least one.
        """
        written, hidden, sizes = self.write(states, lengths)
        numbers = self.spellings[written].masked_fill(
            ~length_mask(sizes, written.shape[1])[..., None], NONE
        )  # [B, N, longest]
        hidden = hidden[:, :, None].expand(-1, -1, numbers.shape[2], -1).flatten(1, 2)
        numbers = numbers.flatten(1)
        used = (numbers != NONE) & ((numbers != NONE).cumsum(1) <= (lengths[:, None] + 1) // 2)
        counts = used.sum(1)
        row, column = used.nonzero(as_tuple=True)
        values = torch.cat([self.pieces[numbers[row, column]], hidden[row, column]], -1)
        tokens = values.new_zeros(len(states), max(int(counts.max()), 1), values.shape[1])
        tokens[row, used.cumsum(1)[row, column] - 1] = values
        return tokens, counts

    @torch.no_grad()
    def write(
        self, states: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the decoder writes, greedily.

        Args:
            states: [B, T', D] of the whole window.
            lengths: [B] states of the clips themselves, which bound how much is written.

        Returns:
            Token ids [B, N], the states [B, N, W] from which they were chosen, and their numbers [B].
        """
        settings, device = self.sizes, states.device
        states = states.to(self.decoder.embed_tokens.weight.dtype)
        limits = torch.where(lengths > 0, (lengths // STATES_A_PIECE).clamp(min=1), 0).to(device)
        room = self.decoder.max_target_positions - len(settings.start)
        limits = limits.clamp(max=room)
        never = torch.tensor([*settings.suppressed, *settings.start], device=device)
        first = torch.tensor([*settings.suppressed_first, settings.end], device=device)
        tokens = torch.tensor([settings.start] * len(states), device=device)
        sizes, cache = limits.clone(), None
        written, hidden = [], []
        for step in range(int(limits.max())):
            out = self.decoder(
                input_ids=tokens, encoder_hidden_states=states, past_key_values=cache, use_cache=True
            )
            cache, last = out.past_key_values, out.last_hidden_state[:, -1]
            logits = last @ self.decoder.embed_tokens.weight.T
            logits[:, never] = -torch.inf
            logits[:, settings.end + 1 :] = -torch.inf  # languages, tasks, times
            if step == 0:
                logits[:, first] = -torch.inf
            tokens = logits.argmax(-1, keepdim=True)
            ended = (tokens[:, 0] == settings.end) & (sizes > step)
            sizes = torch.where(ended, step, sizes)
            written.append(tokens)
            hidden.append(last)
            if bool((sizes <= step + 1).all()):
                break
        if not written:
            empty = states.new_zeros(len(states), 0, settings.hidden_size)
            return sizes.new_zeros(len(states), 0), empty, sizes
        return torch.cat(written, 1), torch.stack(hidden, 1), sizes

    @torch.no_grad()
    def transcribe(self, states: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        """Token ids of the decoder that clips are heard as."""
        written, _, sizes = self.write(states, lengths)
        return [row[:size].tolist() for row, size in zip(written, sizes.tolist(), strict=True)]


def fill_window(features: torch.Tensor, lengths: torch.Tensor | None, frames: int) -> torch.Tensor:
    """Log-mel [B, M, T] of clips, with silence behind each up to `frames`, as Whisper's own features have it.

    Whisper's log-mel is cut off at 8 below its maximum, then scaled by (x + 4) / 4: silence is 2 below the maximum,
    and at least -1.5, that of no sound at all.
    """
    batch, bins, length = features.shape
    if lengths is None:
        lengths = torch.full((batch,), length, device=features.device)
    real = length_mask(lengths.to(features.device), length)[:, None]
    loudest = features.masked_fill(~real, -torch.inf).amax((1, 2))
    silence = (loudest - 2.0).clamp(min=-1.5)[:, None, None]
    whole = silence.expand(batch, bins, max(frames, length)).clone()
    whole[..., :length] = torch.where(real, features, silence)
    return whole


def load_decoder(
    folder: Path,
    whisper_tokenizer: Any,
    llm_tokenizer: Any,
    embeddings: torch.Tensor,
    language: str = "en",
    start: tuple[int, ...] = (),
) -> DecoderCompressor:
    """The compressor that the decoder of a Whisper checkpoint makes before an LLM.

    Args:
        folder: a Whisper checkpoint.
        whisper_tokenizer: of the checkpoint.
        llm_tokenizer: of the LLM.
        embeddings: [V, H] of the LLM, see `modeling.word_embeddings`.
        language: code of what is spoken, for multilingual models.
        start: see `DecoderSettings`, instead of what the language gives.

    Raises:
        KeyError: the model does not know the language.
    """
    from transformers import GenerationConfig, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    shipped: GenerationConfig = model.generation_config
    if not start:
        ids = [model.config.decoder_start_token_id]
        if getattr(shipped, "is_multilingual", False):
            ids += [shipped.lang_to_id[f"<|{language}|>"], shipped.task_to_id["transcribe"]]
        start = tuple(int(i) for i in (*ids, shipped.no_timestamps_token_id))
    end = shipped.eos_token_id
    end = int(end[0] if isinstance(end, list) else end)
    numbers, rows = spell_pieces(whisper_tokenizer, llm_tokenizer, end)
    settings = DecoderSettings(
        model.config.d_model,
        start,
        end,
        tuple(i for i in shipped.suppress_tokens or () if i >= 0),
        tuple(i for i in shipped.begin_suppress_tokens or () if i >= 0),
        len(numbers),
        max(len(row) for row in rows),
    )
    made = DecoderCompressor(settings, model.config, embeddings.shape[1])
    made.decoder.load_state_dict(model.model.decoder.state_dict())
    for number, row in enumerate(rows):
        made.spellings[number, : len(row)] = torch.tensor(row)
    made.pieces.copy_(embeddings.detach()[torch.tensor(numbers)])
    return made.eval()


def spell_pieces(whisper_tokenizer: Any, llm_tokenizer: Any, end: int) -> tuple[list[int], list[list[int]]]:
    """How the LLM spells each word piece of Whisper.

    A piece that both tokenizers write alike (most, as both count bytes in GPT-2's way) is that one; the characters of
    others are tokenized; bytes that are no characters alone are looked up one by one.

    Returns:
        Token ids of the LLM that are used, and for each of Whisper's tokens before `end` the numbers of its ids among
        them, at least one.
    """
    vocabulary = llm_tokenizer.get_vocab()
    unknown = llm_tokenizer(" ", add_special_tokens=False)["input_ids"][:1] or [llm_tokenizer.eos_token_id]
    spelled: list[list[int]] = []
    for piece in whisper_tokenizer.convert_ids_to_tokens(list(range(end))):
        text = whisper_tokenizer.convert_tokens_to_string([piece])
        if piece in vocabulary:
            ids = [vocabulary[piece]]
        elif "\N{REPLACEMENT CHARACTER}" in text:
            ids = [vocabulary[byte] for byte in piece if byte in vocabulary]
        else:
            ids = llm_tokenizer(text, add_special_tokens=False)["input_ids"]
        spelled.append(list(ids[:LONGEST]) or unknown)
    used = sorted({i for ids in spelled for i in ids})
    place: dict[int, int] = {number: position for position, number in enumerate(used)}
    return used, [[place[i] for i in ids] for ids in spelled]
