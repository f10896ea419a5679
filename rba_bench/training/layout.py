"""How prompts and answers lie in a batch. Index arithmetic only; no model.

With a shared prefix, all answers to a clip stand in one row behind its prompt,

    row:       prompt (text, audio tokens, ...)   answer 1        answer 2      padding
    segment:   0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0    1 1 1 1         2 2 2         -1 -1
    position:  0 1 2 ...                  P-1     P P+1 P+2 ...   P P+1 ...     0 0

and each answer attends to the prompt and to itself. The prompt, mostly audio, is then computed once however many
answers hang on it. Without sharing, every answer has a row of its own and the usual causal mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """One answer to one clip: `clip` is an index into the batch's clips, `tokens` end with the end token if any."""

    clip: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """A batch of R rows, S columns, and N answers of at most L tokens.

    Attributes:
        input_ids: [R, S] prompts with audio placeholders, answers without their last token, `pad_id`.
        segments: [R, S] 0 in the prompt, 1.. in the answers, -1 in padding.
        position_ids: [R, S].
        clip_of_row: [R] index of the row's clip.
        sources: [N, L] index into the flattened [R * S] states: where each answer token is predicted from.
        targets: [N, L] answer tokens, padding 0.
        mask: [N, L] True at answer tokens.
        shared: whether a row may hold several answers.
    """

    input_ids: Tensor
    segments: Tensor
    position_ids: Tensor
    clip_of_row: Tensor
    sources: Tensor
    targets: Tensor
    mask: Tensor
    shared: bool

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on a device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return Layout(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Mask for the decoder: [R, 1, S, S] additive if answers share rows, else [R, S] 0/1.

        The additive form is float on purpose: a boolean 4-D mask is silently misread by eager attention.
        """
        present = self.segments >= 0
        if not self.shared:
            return present.long()
        columns = self.segments.shape[1]
        causal = torch.ones(columns, columns, dtype=torch.bool, device=present.device).tril()
        to_prompt = (self.segments == 0)[:, None, :]
        to_self = self.segments[:, :, None] == self.segments[:, None, :]  # padding sees padding: no empty row
        allowed = causal & (to_prompt | to_self)
        blocked = torch.finfo(dtype).min
        return torch.zeros(allowed.shape, dtype=dtype, device=present.device).masked_fill_(~allowed, blocked)[
            :, None
        ]


def plan(
    prompts: Sequence[Tensor], branches: Sequence[Branch], shared: bool = True, pad_id: int = 0
) -> Layout:
    """Lay out answers behind their prompts.

    Args:
        prompts: prompt ids of each clip, [P_i].
        branches: answers; clips without one get no row.
        shared: answers to one clip share a row.
        pad_id: any text token; not the audio placeholder.

    Raises:
        ValueError: no answer at all, or an empty one.
    """
    if not branches or not all(branch.tokens for branch in branches):
        raise ValueError("every answer needs at least one token")
    rows: dict[int, list[int]] = {}
    for number, branch in enumerate(branches):
        rows.setdefault(branch.clip if shared else number, []).append(number)
    clips = [branches[numbers[0]].clip for numbers in rows.values()]
    widths = [
        len(prompts[clip]) + sum(len(branches[n].tokens) - 1 for n in numbers)
        for clip, numbers in zip(clips, rows.values(), strict=True)
    ]
    size, longest = max(widths), max(len(branch.tokens) for branch in branches)
    ids, segments = np.full((len(rows), size), pad_id), np.full((len(rows), size), -1)
    positions = np.zeros((len(rows), size), dtype=np.int64)
    sources, targets = np.zeros((2, len(branches), longest), dtype=np.int64)
    mask = np.zeros((len(branches), longest), dtype=bool)
    for row, (clip, numbers) in enumerate(zip(clips, rows.values(), strict=True)):
        start = prompt = len(prompts[clip])
        ids[row, :prompt] = prompts[clip].numpy()
        segments[row, :prompt] = 0
        positions[row, :prompt] = np.arange(prompt)
        for segment, number in enumerate(numbers, 1):
            tokens = branches[number].tokens
            inner, stop = len(tokens) - 1, start + len(tokens) - 1
            ids[row, start:stop] = tokens[:-1]
            segments[row, start:stop] = segment
            positions[row, start:stop] = np.arange(prompt, prompt + inner)
            sources[number, 0] = row * size + prompt - 1
            sources[number, 1 : inner + 1] = row * size + np.arange(start, stop)
            targets[number, : inner + 1] = tokens
            mask[number, : inner + 1] = True
            start = stop
    return Layout(
        input_ids=torch.from_numpy(ids),
        segments=torch.from_numpy(segments),
        position_ids=torch.from_numpy(positions),
        clip_of_row=torch.tensor(clips),
        sources=torch.from_numpy(sources),
        targets=torch.from_numpy(targets),
        mask=torch.from_numpy(mask),
        shared=shared,
    )
