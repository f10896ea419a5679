"""How prompts and answers lie in a batch. Index arithmetic only; no model.

All answers to a clip stand behind its prompt, and where short conversations leave room in a row, the next one follows:

    row:       prompt (text, audio tokens, ...)   answer 1        answer 2      prompt of another clip  answer
    document:  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    0 0 0 0         0 0 0         1 1 1 1 1 1 1 1         1 1
    segment:   0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    1 1 1 1         2 2 2         0 0 0 0 0 0 0 0         1 1
    position:  0 1 2 ...                  P-1     P P+1 P+2 ...   P P+1 ...     0 1 2 ...

A token attends to the prompt of its document and to its own answer. The prompt, mostly audio, is then computed once
however many answers hang on it, and little of a row is padding. Three ways, equal but for rounding:

    pack   as above          share   one clip a row          pad   one answer a row, the usual causal mask

Constant text before the audio may be left out of the rows (`openings`): its keys stand before those of every row, the
document's tokens attend to those of its own, and positions count on behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from heapq import heapreplace
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rba_bench.textlm.block_attention import Blocks, make_blocks
from rba_bench.training.model.constant_prefix import Openings

Mode = Literal["pack", "share", "pad"]
TRIED = 24  # numbers of rows that packing tries
REACH = 1000.0  # columns at which attention costs as much as all else, for a model that is not known


@dataclass(frozen=True)
class Response:
    """One answer to one clip.

    Attributes:
        clip: index into the batch's clips.
        tokens: the answer, with the end token if any.
        temperature: its log-probabilities are those of softmax(logits / temperature): what a sample was drawn from.
    """

    clip: int
    tokens: tuple[int, ...]
    temperature: float = 1.0


@dataclass(frozen=True)
class BatchLayout:
    """A batch of R rows, S columns, D documents (a clip's prompt with answers) and N answers of at most L tokens.

    Attributes:
        input_ids: [R, S] prompts with audio placeholders, answers without their last token, `pad_id`; without openings.
        documents: [R, S] document within the row, -1 in padding.
        segments: [R, S] 0 in the prompt, 1.. in the answers, -1 in padding.
        openings: [R, S] opening that stands before the token, -1 for none, -2 in padding.
        columns: [P] opening that each key before the rows belongs to; P = 0 where nothing is left out.
        position_ids: [R, S].
        clip_of_document: [D] index of the clip, documents row by row.
        sources: [N, L] index into the flattened [R * S] states: where each answer token is predicted from.
        targets: [N, L] answer tokens, padding 0.
        mask: [N, L] True at answer tokens.
        causal: whether every row is one whole prompt with one answer, so that the usual causal mask does.
        blocks: the documents for attention by document; None where `causal`, or where attention obeys masks.
    """

    input_ids: Tensor
    documents: Tensor
    segments: Tensor
    openings: Tensor
    columns: Tensor
    position_ids: Tensor
    clip_of_document: Tensor
    sources: Tensor
    targets: Tensor
    mask: Tensor
    causal: bool
    blocks: Blocks | None = None

    def to(self, device: torch.device | str) -> "BatchLayout":
        """The same layout on a device."""
        held: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {k: v.to(device) for k, v in held.items() if isinstance(v, Tensor | Blocks)}
        return BatchLayout(**(held | moved))

    def attention_mask(self, dtype: torch.dtype) -> Tensor | None:
        """Mask for the decoder: [R, 1, S, P + S] additive, [R, S] 0/1 where `causal`, None without any padding too.

        The additive form is float on purpose: a boolean 4-D mask is silently misread by eager attention. With `blocks`
        it only brings them.
        """
        present = self.segments >= 0
        rows, columns = self.segments.shape
        if self.causal:
            return None if bool(present.all()) else present.long()
        if self.blocks is not None:
            return self.blocks.as_mask(rows, columns, len(self.columns), dtype)
        causal = torch.ones(columns, columns, dtype=torch.bool, device=present.device).tril()
        same = self.documents[:, :, None] == self.documents[:, None, :]  # padding sees padding: no empty row
        to_prompt = (self.segments == 0)[:, None, :]
        to_self = self.segments[:, :, None] == self.segments[:, None, :]
        allowed = causal & same & (to_prompt | to_self)
        if len(self.columns):
            allowed = torch.cat([self.openings[:, :, None] == self.columns, allowed], dim=-1)
        blocked = torch.finfo(dtype).min
        empty = torch.zeros(allowed.shape, dtype=dtype, device=present.device)
        return empty.masked_fill_(~allowed, blocked)[:, None]


def plan_layout(
    prompts: Sequence[Tensor],
    responses: Sequence[Response],
    mode: Mode = "pack",
    pad_id: int = 0,
    openings: Openings | None = None,
    reach: float = REACH,
    by_document: bool = False,
) -> BatchLayout:
    """Lay out answers behind their prompts.

    Args:
        prompts: prompt ids of each clip, [P_i].
        responses: answers; clips without one get no place.
        mode: see the module.
        pad_id: any text token; not the audio placeholder.
        openings: what of the prompts is computed elsewhere; None for nothing.
        reach: columns at which attention costs as much as everything else in the decoder, for `pack`.
        by_document: the decoder attends by document: what a row is long costs nothing.

    Raises:
        ValueError: no answer at all, or an empty one.
    """
    if not responses or not all(response.tokens for response in responses):
        raise ValueError("every answer needs at least one token")
    openings = openings or Openings()
    grouped: dict[int, list[int]] = {}
    for number, response in enumerate(responses):
        grouped.setdefault(number if mode == "pad" else response.clip, []).append(number)
    documents = list(grouped.values())
    clips = [responses[numbers[0]].clip for numbers in documents]
    widths = [
        len(prompts[clip]) - openings.length(clip) + sum(len(responses[n].tokens) - 1 for n in numbers)
        for clip, numbers in zip(clips, documents, strict=True)
    ]
    rows = [[d] for d in range(len(documents))]
    if mode == "pack":
        before = len(openings.columns)
        counts = np.unique(np.linspace(1, len(widths), TRIED).round().astype(int))
        tried = (_balanced(widths, int(count)) for count in counts)
        rows = min(tried, key=lambda rows: _cost(rows, widths, before, inf if by_document else reach))
    layout = _fill(rows, documents, widths, prompts, responses, pad_id, openings)
    if not by_document or layout.causal:
        return layout
    return replace(
        layout, blocks=make_blocks(layout.documents, layout.segments, layout.openings, layout.columns)
    )


def _cost(rows: Sequence[Sequence[int]], widths: Sequence[int], before: int, reach: float) -> float:
    """What a decoder pass over rows costs, in tokens: padding is computed, and every token meets all keys."""
    size = max(sum(widths[d] for d in row) for row in rows)
    return len(rows) * size * (1 + (size + before) / reach)


def _balanced(widths: Sequence[int], count: int) -> list[list[int]]:
    """Documents by row: longest first, each into the emptiest of `count` rows; rows in order of first documents."""
    rows: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, row) for row in range(count)]
    for document in sorted(range(len(widths)), key=lambda d: -widths[d]):
        used, row = heap[0]
        rows[row].append(document)
        heapreplace(heap, (used + widths[document], row))
    return sorted(sorted(row) for row in rows)


def _fill(
    rows: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    widths: Sequence[int],
    prompts: Sequence[Tensor],
    responses: Sequence[Response],
    pad_id: int,
    openings: Openings,
) -> BatchLayout:
    size = max(sum(widths[d] for d in row) for row in rows)
    sheet = _Sheet(len(rows), size, responses, pad_id)
    clips: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for order, d in enumerate(row):
            clips.append(responses[documents[d][0]].clip)
            skipped = openings.length(clips[-1])
            opening = openings.of_clip[clips[-1]] if skipped else -1
            sheet.write(r, start, order, opening, skipped, prompts[clips[-1]].numpy(), documents[d])
            start += widths[d]
    return BatchLayout(
        input_ids=torch.from_numpy(sheet.ids),
        documents=torch.from_numpy(sheet.marks[0]),
        segments=torch.from_numpy(sheet.marks[1]),
        openings=torch.from_numpy(sheet.marks[2]),
        columns=torch.tensor(openings.columns, dtype=torch.long),
        position_ids=torch.from_numpy(sheet.positions),
        clip_of_document=torch.tensor(clips),
        sources=torch.from_numpy(sheet.sources),
        targets=torch.from_numpy(sheet.targets),
        mask=torch.from_numpy(sheet.mask),
        causal=all(len(row) == 1 for row in rows)
        and all(len(numbers) == 1 for numbers in documents)
        and not openings.texts,
    )


class _Sheet:
    """The arrays of a layout, written document by document."""

    def __init__(self, rows: int, size: int, responses: Sequence[Response], pad_id: int) -> None:
        longest = max(len(response.tokens) for response in responses)
        self.responses = responses
        self.size = size
        self.ids = np.full((rows, size), pad_id)
        self.marks = np.full((3, rows, size), -1)  # documents, segments, openings
        self.marks[2] = -2
        self.positions = np.zeros((rows, size), dtype=np.int64)
        self.sources, self.targets = np.zeros((2, len(responses), longest), dtype=np.int64)
        self.mask = np.zeros((len(responses), longest), dtype=bool)

    def write(
        self,
        r: int,
        start: int,
        order: int,
        opening: int,
        skipped: int,
        prompt: np.ndarray,
        answers: Sequence[int],
    ) -> None:
        """One prompt, its first `skipped` tokens left out, and its answers, from column `start` of row r on."""
        begin, behind = start, start + len(prompt) - skipped
        self.ids[r, start:behind] = prompt[skipped:]
        self.marks[1, r, start:behind] = 0
        self.positions[r, start:behind] = np.arange(skipped, len(prompt))
        last, start = behind - 1, behind
        for segment, number in enumerate(answers, 1):
            tokens = self.responses[number].tokens
            inner, stop = len(tokens) - 1, start + len(tokens) - 1
            self.ids[r, start:stop] = tokens[:-1]
            self.marks[1, r, start:stop] = segment
            self.positions[r, start:stop] = np.arange(len(prompt), len(prompt) + inner)
            self.sources[number, 0] = r * self.size + last
            self.sources[number, 1 : inner + 1] = r * self.size + np.arange(start, stop)
            self.targets[number, : inner + 1] = tokens
            self.mask[number, : inner + 1] = True
            start = stop
        self.marks[0, r, begin:start] = order
        self.marks[2, r, begin:start] = opening
