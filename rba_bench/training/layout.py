"""How prompts and answers lie in a batch. Index arithmetic only; no model.

All answers to a clip stand behind its prompt, and where short conversations leave room in a row, the next one follows:

    row:       prompt (text, audio tokens, ...)   answer 1        answer 2      prompt of another clip  answer
    document:  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    0 0 0 0         0 0 0         1 1 1 1 1 1 1 1         1 1
    segment:   0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    1 1 1 1         2 2 2         0 0 0 0 0 0 0 0         1 1
    position:  0 1 2 ...                  P-1     P P+1 P+2 ...   P P+1 ...     0 1 2 ...

A token attends to the prompt of its document and to its own answer. The prompt, mostly audio, is then computed once
however many answers hang on it, and little of a row is padding. Three ways, equal but for rounding:

    pack   as above          share   one clip a row          pad   one answer a row, the usual causal mask
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Mode = Literal["pack", "share", "pad"]


@dataclass(frozen=True)
class Branch:
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
class Layout:
    """A batch of R rows, S columns, D documents (a clip's prompt with answers) and N answers of at most L tokens.

    Attributes:
        input_ids: [R, S] prompts with audio placeholders, answers without their last token, `pad_id`.
        documents: [R, S] document within the row, -1 in padding.
        segments: [R, S] 0 in the prompt, 1.. in the answers, -1 in padding.
        position_ids: [R, S].
        clip_of_document: [D] index of the clip, documents row by row.
        sources: [N, L] index into the flattened [R * S] states: where each answer token is predicted from.
        targets: [N, L] answer tokens, padding 0.
        mask: [N, L] True at answer tokens.
        causal: whether every row is one prompt with one answer, so that the usual causal mask does.
    """

    input_ids: Tensor
    documents: Tensor
    segments: Tensor
    position_ids: Tensor
    clip_of_document: Tensor
    sources: Tensor
    targets: Tensor
    mask: Tensor
    causal: bool

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on a device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return Layout(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})

    def attention_mask(self, dtype: torch.dtype) -> Tensor | None:
        """Mask for the decoder: [R, 1, S, S] additive, [R, S] 0/1 where `causal`, None without any padding too.

        The additive form is float on purpose: a boolean 4-D mask is silently misread by eager attention.
        """
        present = self.segments >= 0
        if self.causal:
            return None if bool(present.all()) else present.long()
        columns = self.segments.shape[1]
        causal = torch.ones(columns, columns, dtype=torch.bool, device=present.device).tril()
        same = self.documents[:, :, None] == self.documents[:, None, :]  # padding sees padding: no empty row
        to_prompt = (self.segments == 0)[:, None, :]
        to_self = self.segments[:, :, None] == self.segments[:, None, :]
        allowed = causal & same & (to_prompt | to_self)
        blocked = torch.finfo(dtype).min
        empty = torch.zeros(allowed.shape, dtype=dtype, device=present.device)
        return empty.masked_fill_(~allowed, blocked)[:, None]


def plan(
    prompts: Sequence[Tensor], branches: Sequence[Branch], mode: Mode = "pack", pad_id: int = 0
) -> Layout:
    """Lay out answers behind their prompts.

    Args:
        prompts: prompt ids of each clip, [P_i].
        branches: answers; clips without one get no place.
        mode: see the module.
        pad_id: any text token; not the audio placeholder.

    Raises:
        ValueError: no answer at all, or an empty one.
    """
    if not branches or not all(branch.tokens for branch in branches):
        raise ValueError("every answer needs at least one token")
    grouped: dict[int, list[int]] = {}
    for number, branch in enumerate(branches):
        grouped.setdefault(number if mode == "pad" else branch.clip, []).append(number)
    documents = list(grouped.values())
    widths = [
        len(prompts[branches[numbers[0]].clip]) + sum(len(branches[n].tokens) - 1 for n in numbers)
        for numbers in documents
    ]
    rows = _packed(widths) if mode == "pack" else [[d] for d in range(len(documents))]
    return _fill(rows, documents, widths, prompts, branches, pad_id)


def _packed(widths: Sequence[int]) -> list[list[int]]:
    """Documents by row: first fit, longest first, in rows as long as the longest; rows in order of first documents."""
    room: list[int] = []
    rows: list[list[int]] = []
    for document in sorted(range(len(widths)), key=lambda d: -widths[d]):
        place = next((r for r, left in enumerate(room) if left >= widths[document]), None)
        if place is None:
            room.append(max(widths))
            rows.append([])
            place = len(rows) - 1
        rows[place].append(document)
        room[place] -= widths[document]
    return sorted(sorted(row) for row in rows)


def _fill(
    rows: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    widths: Sequence[int],
    prompts: Sequence[Tensor],
    branches: Sequence[Branch],
    pad_id: int,
) -> Layout:
    size = max(sum(widths[d] for d in row) for row in rows)
    longest = max(len(branch.tokens) for branch in branches)
    ids = np.full((len(rows), size), pad_id)
    marks = np.full((2, len(rows), size), -1)  # documents, segments
    positions = np.zeros((len(rows), size), dtype=np.int64)
    sources, targets = np.zeros((2, len(branches), longest), dtype=np.int64)
    mask = np.zeros((len(branches), longest), dtype=bool)
    clips: list[int] = []
    for r, row in enumerate(rows):
        start = 0
        for order, d in enumerate(row):
            clips.append(branches[documents[d][0]].clip)
            prompt = prompts[clips[-1]].numpy()
            marks[0, r, start : start + widths[d]] = order
            ids[r, start : start + len(prompt)] = prompt
            marks[1, r, start : start + len(prompt)] = 0
            positions[r, start : start + len(prompt)] = np.arange(len(prompt))
            last, start = start + len(prompt) - 1, start + len(prompt)
            for segment, number in enumerate(documents[d], 1):
                tokens = branches[number].tokens
                inner, stop = len(tokens) - 1, start + len(tokens) - 1
                ids[r, start:stop] = tokens[:-1]
                marks[1, r, start:stop] = segment
                positions[r, start:stop] = np.arange(len(prompt), len(prompt) + inner)
                sources[number, 0] = r * size + last
                sources[number, 1 : inner + 1] = r * size + np.arange(start, stop)
                targets[number, : inner + 1] = tokens
                mask[number, : inner + 1] = True
                start = stop
    return Layout(
        input_ids=torch.from_numpy(ids),
        documents=torch.from_numpy(marks[0]),
        segments=torch.from_numpy(marks[1]),
        position_ids=torch.from_numpy(positions),
        clip_of_document=torch.tensor(clips),
        sources=torch.from_numpy(sources),
        targets=torch.from_numpy(targets),
        mask=torch.from_numpy(mask),
        causal=all(len(row) == 1 for row in rows) and all(len(numbers) == 1 for numbers in documents),
    )
