"""One batch of a step: its prompts, its distinct responses with their roles, and a teacher's distributions for them.

Each response is scored once: the teacher's answer is also RBA-Single's chosen side, and so on.

A teacher's next-token distributions have two forms. `StateTargets` holds hidden states, and logits over the whole
vocabulary are made a chunk at a time, so that [K, V] never exists at once. `TopKTargets` holds the likeliest tokens, as
a cache keeps them. K counts all answer positions of some responses (end token included), in ascending order of
response:

    responses (0, 2), answers of 3 and 2 tokens  ->  K = 5:   0.0  0.1  0.2   2.0  2.1
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import AnswerTokens, PreferencePair, ScoredSample


@dataclass(frozen=True)
class StateTargets:
    """Distributions as hidden states: softmax(head(states) / T), whatever T the loss wants.

    Attributes:
        responses: numbers of the responses, ascending.
        states: [K, Ht] last hidden states of the teacher, after its final norm; Ht is the teacher's width.
        head: states [..., Ht] to logits [..., V]. V is that of the student's head, or less where that has more
            padding rows; the student's logits are then cut to the first V.

    Raises:
        ValueError: responses out of order.
    """

    responses: tuple[int, ...]
    states: Tensor
    head: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        _check(self.responses)

    def __len__(self) -> int:
        """K."""
        return len(self.states)

    def part(self, start: int, stop: int) -> "StateTargets":
        """Positions `start` up to `stop`; `responses` stays, and no longer says which."""
        return StateTargets(self.responses, self.states[start:stop], self.head)

    def to(self, device: torch.device | str) -> "StateTargets":
        """The same with its states on a device; the head stays where it is."""
        return StateTargets(self.responses, self.states.to(device), self.head)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """[K, V] float32, not divided by a temperature, without gradient."""
        return self.head(self.states).float()


@dataclass(frozen=True)
class TopKTargets:
    """Distributions as the k likeliest tokens and what is left, at a temperature T that was chosen before.

    sum(exp(logits)) + exp(log_rest) = 1 at every position, but for the rounding of what was kept on disk.

    Attributes:
        responses: numbers of the responses, ascending.
        ids: [K, k] int64 tokens, likeliest first.
        logits: [K, k] float32 natural-log probabilities of these tokens at temperature T.
        log_rest: [K] float32 natural log of the probability of all other tokens together; -inf where k is the whole
            vocabulary.

    Raises:
        ValueError: responses out of order, or shapes that do not fit together.
    """

    responses: tuple[int, ...]
    ids: Tensor
    logits: Tensor
    log_rest: Tensor

    def __post_init__(self) -> None:
        _check(self.responses)
        if self.ids.shape != self.logits.shape or self.ids.shape[:1] != self.log_rest.shape:
            shapes = tuple(self.ids.shape), tuple(self.logits.shape), tuple(self.log_rest.shape)
            raise ValueError(f"ids {shapes[0]}, logits {shapes[1]} and rest {shapes[2]} do not fit together")

    def __len__(self) -> int:
        """K."""
        return len(self.ids)

    def part(self, start: int, stop: int) -> "TopKTargets":
        """Positions `start` up to `stop`; `responses` stays, and no longer says which."""
        cut = slice(start, stop)
        return TopKTargets(self.responses, self.ids[cut], self.logits[cut], self.log_rest[cut])

    def to(self, device: torch.device | str) -> "TopKTargets":
        """The same on a device."""
        moved = (tensor.to(device) for tensor in (self.ids, self.logits, self.log_rest))
        return TopKTargets(self.responses, *moved)


Targets = StateTargets | TopKTargets


def _check(responses: tuple[int, ...]) -> None:
    if any(index >= next_index for index, next_index in zip(responses, responses[1:], strict=False)):
        raise ValueError(f"responses {responses} are not in ascending order")


@dataclass
class StepBatch:
    """Clips, distinct answers to them, and where each role's answers are among those.

    Attributes:
        prompts: clips; the flag says that the instruction is read instead.
        responses: distinct answers.
        teacher: responses with the teacher's answers.
        chosen, rejected: responses of the pairs, [P] each.
        rated: responses of the rated samples, [Q].
        pairs: [P].
        ratings: [Q].
        groups: number of the group each rated sample belongs to, [Q].
        items: pairs or samples that there could have been; see `Outcome.items`.
    """

    prompts: list[tuple[AlignmentRow, bool]] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    teacher: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    rated: list[int] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    ratings: list[ScoredSample] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    items: int = 0
    _prompts: dict[tuple[str, bool], int] = field(default_factory=dict, init=False, repr=False)
    _responses: dict[Response, int] = field(default_factory=dict, init=False, repr=False)

    def add(self, answer: AnswerTokens) -> int:
        """The index of an answer among `responses`; an answer, or prompt, that is not there yet is added."""
        prompt = self._prompts.setdefault((answer.row.id, answer.as_text), len(self.prompts))
        if prompt == len(self.prompts):
            self.prompts.append((answer.row, answer.as_text))
        response = Response(prompt, answer.tokens, answer.temperature)
        index = self._responses.setdefault(response, len(self.responses))
        if index == len(self.responses):
            self.responses.append(response)
        return index

    def length(self, places: Sequence[int]) -> int:
        """Tokens of the answers at `places`, those that are named twice counted twice."""
        return sum(len(self.responses[place].tokens) for place in places)

    @property
    def trained_tokens(self) -> int:
        """Tokens of the answers that the step trains on; adds up over the batches of a step, however it is split."""
        taught = set(self.teacher)
        others = [place for place in (*self.chosen, *self.rejected, *self.rated) if place not in taught]
        return self.length([*self.teacher, *others])


def assemble_batch(
    rows: Sequence[AlignmentRow],
    pairs: Sequence[PreferencePair] = (),
    rated: Sequence[Sequence[ScoredSample]] = (),
    teacher_tokens: Callable[[str], tuple[int, ...]] | None = None,
    items: int = 0,
) -> StepBatch:
    """Put a step together.

    Args:
        rows: clips of the step that get a teacher answer.
        pairs: preference pairs on clips of the same groups.
        rated: samples with their worth, by group.
        teacher_tokens: response to ids; None leaves the teacher's answers out.
        items: see `StepBatch`.
    """
    batch = StepBatch(pairs=list(pairs), items=items)
    if teacher_tokens is not None:
        batch.teacher = [batch.add(AnswerTokens(row, teacher_tokens(row.response))) for row in rows]
    for pair in pairs:
        batch.chosen.append(batch.add(pair.chosen))
        batch.rejected.append(batch.add(pair.rejected))
    for number, group in enumerate(rated):
        for sample in group:
            batch.rated.append(batch.add(sample.answer))
            batch.ratings.append(sample)
            batch.groups.append(number)
    return batch
