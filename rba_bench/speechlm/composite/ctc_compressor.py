"""CTC compressor: encoder states to about one vector per word piece, in the space of the LLM's word embeddings.

    states --frames--> hidden states of 40 ms --scores--> blank and word pieces --compress--> audio tokens
              (letters)

Each frame points at a word piece by the cosine between its vector and the LLM's own input embeddings, or is blank.
Frames that are blank are dropped, and neighbours that say the same word piece become one audio token: the mean of the
frames, with the mixture of the embeddings they point at. The LLM therefore reads what it is used to read, and as few
tokens as it would of the transcript. Training needs the encoder's states and transcripts, but no pass of the LLM.

Sources: Graves et al. 2006 (CTC); Gaido et al. 2021, "CTC-based compression for direct speech translation"; Wu et al.
2023, "On decoder-only architecture for speech-to-text and large language model integration" (CTC compressor before an
LLM); Nozaki and Komatsu 2021, "Relaxing the conditional independence assumption of CTC-based ASR by conditioning on
intermediate predictions" (what a middle layer reads is fed to the layers above; here it reads letters, which are learnt
far sooner than thousands of word pieces). Scores against the LLM's input embeddings instead of a layer of their own
are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn
from transformers import initialization as init

from rba_bench.speechlm.composite.encoder import length_mask

BLANK = 0  # class of the blank; word piece i of the table has class i + 1
BLANK_START = 2.0  # logit of the blank at the start: most frames say nothing
MIXED = 8  # word pieces that a frame's mixture takes
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"  # what the middle layer reads; class i + 1 is letter i, 0 the blank


@dataclass(frozen=True)
class CompressorSizes:
    """Sizes of a compressor.

    Attributes:
        hidden_size: width of its layers.
        num_hidden_layers: transformer layers.
        num_attention_heads: heads of a layer.
        intermediate_size: width of a layer's MLP.
        kernel_size: frames that a layer's depthwise convolution sees.
        n_pieces: word pieces that it can say.
        letters_after: layers after which it reads letters, for the layers above; 0: it does not.
    """

    hidden_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    intermediate_size: int = 960
    kernel_size: int = 7
    n_pieces: int = 1
    letters_after: int = 2

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.kernel_size % 2 == 0:
            raise ValueError("a compressor's width must be a multiple of its heads, and its kernel odd")
        if not 0 <= self.letters_after < self.num_hidden_layers:
            raise ValueError("a compressor reads letters after one of its layers but the last")

    to_dict = asdict


class CompressorLayer(nn.Module):
    """Depthwise convolution, self-attention and MLP, each after a norm and beside what it gets."""

    def __init__(self, sizes: CompressorSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.heads = sizes.num_attention_heads
        self.convolution_norm = nn.LayerNorm(width)
        self.kernel = DepthwiseKernel(sizes.kernel_size, width)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, sizes.intermediate_size)
        self.mlp_out = nn.Linear(sizes.intermediate_size, width)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor, dropout: float) -> torch.Tensor:
        """[B, F, W] with the mask [B, F] of real frames to [B, F, W]."""
        batch, frames, width = hidden.shape
        normed = self.convolution_norm(hidden).masked_fill(~mask[..., None], 0.0)
        hidden = hidden + nn.functional.silu(self.kernel(normed))
        projected = self.qkv(self.attention_norm(hidden)).view(batch, frames, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind()
        mixed = self.attention_out(attend(queries, keys, values, mask))
        hidden = hidden + self._drop(mixed, dropout)
        made = self.mlp_out(nn.functional.gelu(self.mlp_in(self.mlp_norm(hidden))))
        return hidden + self._drop(made, dropout)

    def _drop(self, hidden: torch.Tensor, dropout: float) -> torch.Tensor:
        """Dropout of whole features of a clip: as good, and far fewer random numbers."""
        if not (self.training and dropout):
            return hidden
        return hidden * nn.functional.dropout(hidden.new_ones(len(hidden), 1, hidden.shape[2]), dropout)


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attention over [B, heads, F, D], with the mask [B, F] of real frames, to [B, F, heads x D].

    Written out: clips are short, and the fused kernel's backward pass on CPUs takes a quarter of a training step.
    """
    scores = queries @ keys.transpose(2, 3) * queries.shape[3] ** -0.5
    weights = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min).softmax(-1)
    return (weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)


class DepthwiseKernel(nn.Module):
    """A depthwise convolution over time as a sum of shifted products: several times faster than `Conv1d` on CPUs."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights."""
        init.normal_(self.weight, std=len(self.weight) ** -0.5)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[B, F, W] to [B, F, W]; zeros stand before and behind."""
        size, n_frames = len(self.weight), frames.shape[1]
        padded = nn.functional.pad(frames, (0, 0, size // 2, size // 2))
        result = padded[:, :n_frames] * self.weight[0]
        for i in range(1, size):
            result = result + padded[:, i : i + n_frames] * self.weight[i]
        return result


class CTCCompressor(nn.Module):
    """Reads encoder states as word pieces of the LLM; see the module.

    Args:
        sizes: of its layers.
        states_size: D, width of the encoder's states.
        embedding_size: H, width of the LLM's embeddings.

    Attributes:
        piece_ids: [P] token ids of the word pieces that it can say.
        pieces: [P, H] the LLM's input embeddings of these, as they were when the compressor was made. They never
            train, so that clips are read alike however the LLM changes.
    """

    piece_ids: torch.Tensor
    pieces: torch.Tensor

    def __init__(self, sizes: CompressorSizes, states_size: int, embedding_size: int) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.hidden_size
        self.norm = nn.LayerNorm(states_size)
        self.convolution = nn.Conv1d(states_size, width, kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList(CompressorLayer(sizes) for _ in range(sizes.num_hidden_layers))
        if sizes.letters_after:
            self.letter_norm = nn.LayerNorm(width)
            self.to_letter = nn.Linear(width, 1 + len(LETTERS))
            self.from_letter = nn.Linear(1 + len(LETTERS), width)
        self.last_norm = nn.LayerNorm(width)
        self.to_piece = nn.Linear(width, embedding_size)
        self.to_blank = nn.Linear(width, 1)
        init.constant_(self.to_blank.bias, BLANK_START)
        self.log_scale = nn.Parameter(torch.full((1,), math.log(10.0)))
        self.register_buffer("piece_ids", torch.zeros(sizes.n_pieces, dtype=torch.long))
        self.register_buffer("pieces", torch.zeros(sizes.n_pieces, embedding_size))

    def set_pieces(self, ids: Sequence[int], embeddings: torch.Tensor) -> None:
        """Say which word pieces there are.

        Args:
            ids: P distinct token ids.
            embeddings: [V, H], the LLM's input embeddings.
        """
        self.piece_ids.copy_(torch.tensor(ids))
        self.pieces.copy_(embeddings.detach()[self.piece_ids])

    def frames(
        self, states: torch.Tensor, lengths: torch.Tensor, dropout: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Hidden states [B, F, W] of two encoder states each, their numbers [B], and the logits of letters.

        Args:
            states: [B, T', D].
            lengths: [B] true numbers of states.
            dropout: in training.

        Returns:
            The last of [B, F, 1 + letters], the blank first; None of a compressor that reads none.
        """
        mask = length_mask(lengths, states.shape[1])
        hidden = self.norm(states.to(self.convolution.weight.dtype)).masked_fill(~mask[..., None], 0.0)
        hidden = nn.functional.gelu(self.convolution(hidden.transpose(1, 2))).transpose(1, 2)
        lengths = (lengths + 1) // 2
        mask = length_mask(lengths, hidden.shape[1])
        letters = None
        for number, layer in enumerate(self.layers, 1):
            hidden = layer(hidden, mask, dropout)
            if number == self.sizes.letters_after:
                letters = self.to_letter(self.letter_norm(hidden))
                hidden = hidden + self.from_letter(letters.float().softmax(-1).to(hidden.dtype))
        return self.last_norm(hidden), lengths, letters

    def scores(self, hidden: torch.Tensor, pieces: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [..., 1 + P] of hidden states [..., W], the blank first; of other `pieces` [P', H] on request."""
        pointers = nn.functional.normalize(self.to_piece(hidden), dim=-1)
        directions = nn.functional.normalize(self.pieces if pieces is None else pieces, dim=-1)
        cosines = (pointers @ directions.to(pointers.dtype).T).float()
        return torch.cat([self.to_blank(hidden).float(), cosines * self.log_scale.exp()], dim=-1)

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of clips.

        Args:
            states: [B, T', D] of the encoder.
            lengths: [B] true numbers of states.

        Returns:
            [B, A, H + W], of each token the mixture of word embeddings and the hidden state, zeros behind a clip's
            last; and the numbers of tokens [B], 0 for a clip without states. A clip of blanks alone has one token,
            of the frame that is the least sure of its blank.
        """
        hidden, n_frames, _ = self.frames(states, lengths)
        mask = length_mask(n_frames, hidden.shape[1])
        scores = [self._read(chunk) for chunk in hidden[mask].split(FRAMES)]
        best = hidden.new_full(mask.shape, BLANK, dtype=torch.long)
        mixtures = hidden.new_zeros(*mask.shape, self.pieces.shape[1])
        margins = torch.full(mask.shape, -torch.inf, device=hidden.device)
        if scores:
            parts = [torch.cat(column) for column in zip(*scores, strict=True)]
            best[mask], margins[mask], mixtures[mask] = parts[0], parts[1], parts[2].to(mixtures.dtype)
        # a clip of silence still has one token, or the LLM could not be asked about it
        surest = margins.argmax(1, keepdim=True)
        silent = (margins <= 0).all(1, keepdim=True) & (n_frames > 0)[:, None]
        says = (margins > 0) | (silent & (torch.arange(mask.shape[1], device=mask.device) == surest))
        classes = best.masked_fill(~says, BLANK)
        return pool_runs(classes, torch.cat([mixtures, hidden], -1))

    def _read(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Best word piece's class [N], its lead over the blank [N], and the mixture [N, H], of hidden states [N, W]."""
        scores = self.scores(hidden)
        top, pieces = scores[:, 1:].topk(min(MIXED, scores.shape[1] - 1))
        mixture = torch.einsum("nk,nkh->nh", top.softmax(-1), self.pieces[pieces].float())
        return pieces[:, 0] + 1, top[:, 0] - scores[:, BLANK], mixture

    @torch.no_grad()
    def transcribe(self, states: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        """Token ids that the clips' audio tokens stand for (greedy CTC)."""
        hidden, n_frames, _ = self.frames(states, lengths)
        rows = []
        for row, length in zip(hidden, n_frames.tolist(), strict=True):
            best = torch.unique_consecutive(self.scores(row[:length]).argmax(-1))
            rows.append(self.piece_ids[best[best != BLANK] - 1].tolist())
        return rows


FRAMES = 4096  # scored at once: 4096 x 10,000 word pieces take 160 MB


def pool_runs(classes: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over runs of frames that have one class, blanks dropped.

    Args:
        classes: [B, F], BLANK where a frame says nothing.
        values: [B, F, C].

    Returns:
        [B, A, C], zeros behind a row's last run, and the numbers of runs [B].
    """
    batch, _, width = values.shape
    before = nn.functional.pad(classes, (1, 0), value=BLANK)[:, :-1]
    starts = (classes != BLANK) & (classes != before)
    counts = starts.sum(1)
    longest = max(int(counts.max()), 1) if len(counts) else 1
    slots = (starts.cumsum(1) - 1 + longest * torch.arange(batch, device=classes.device)[:, None])[
        classes != BLANK
    ]
    sums = values.new_zeros(batch * longest, width).index_add(0, slots, values[classes != BLANK])
    sizes = torch.bincount(slots, minlength=batch * longest).clamp(min=1)
    return (sums / sizes[:, None]).view(batch, longest, width), counts


class CompressedProjector(nn.Module):
    """What a composite trains behind a compressor: corrects the mixtures by the hidden states of the tokens around.

    It starts as the identity on the mixtures: a language model can read them as they are.

    Args:
        embedding_size: H.
        states_size: W, width of the states beside the mixtures.
        hidden_size: width of the MLP.
    """

    def __init__(self, embedding_size: int, states_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        width = embedding_size + states_size
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(3 * width, hidden_size)
        self.act = nn.GELU()
        self.linear_2 = ZeroLinear(hidden_size, embedding_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, A, H + W] of the compressor, zeros behind a clip's last, to audio tokens [B, A, H]."""
        real = (tokens != 0).any(-1, keepdim=True)
        normed = self.norm(tokens).masked_fill(~real, 0.0)
        around = nn.functional.pad(normed, (0, 0, 1, 1))
        neighbours = torch.cat([around[:, :-2], normed, around[:, 2:]], dim=-1)
        return tokens[..., : self.embedding_size] + self.linear_2(self.act(self.linear_1(neighbours)))


class ZeroLinear(nn.Linear):
    """A linear layer that starts with zeros."""

    def reset_parameters(self) -> None:
        """Zero weights and bias; those that came from a checkpoint stay."""
        init.zeros_(self.weight)
        init.zeros_(self.bias)
