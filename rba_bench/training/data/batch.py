"""One step's clips and answers, each scored once: the teacher's answer is also RBA-Single's chosen side, and so on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import Answer, Pair, ScoredSample


@dataclass
class StepBatch:
    """Clips, distinct answers to them, and where each role's answers are among those.

    Attributes:
        heard: clips; the flag says that the instruction is read instead.
        branches: distinct answers.
        teacher: branches with the teacher's answers.
        chosen, rejected: branches of the pairs, [P] each.
        rated: branches of the rated samples, [Q].
        pairs: [P].
        ratings: [Q].
        groups: number of the group each rated sample belongs to, [Q].
        items: pairs or samples that there could have been; see `Outcome.items`.
    """

    heard: list[tuple[AlignmentRow, bool]] = field(default_factory=list)
    branches: list[Response] = field(default_factory=list)
    teacher: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    rated: list[int] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    ratings: list[ScoredSample] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    items: int = 0

    def length(self, places: Sequence[int]) -> int:
        """Tokens of the answers at `places`, those that are named twice counted twice."""
        return sum(len(self.branches[place].tokens) for place in places)

    @property
    def trained_tokens(self) -> int:
        """Tokens of the answers that the step trains on; adds up over the batches of a step, however it is split."""
        taught = set(self.teacher)
        others = [place for place in (*self.chosen, *self.rejected, *self.rated) if place not in taught]
        return self.length([*self.teacher, *others])

    def listen(self, row: AlignmentRow, tokens: tuple[int, ...]) -> None:
        """Make sure that a clip is heard: add `row`'s, with an answer that plays no role, where all are read.

        Without any the projector would take no part in the step, and processes would not all do the same.
        """
        if all(as_text for _, as_text in self.heard):
            self.heard.append((row, False))
            self.branches.append(Response(len(self.heard) - 1, tokens))


def assemble(
    rows: Sequence[AlignmentRow],
    pairs: Sequence[Pair] = (),
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
    clips: dict[tuple[str, bool], int] = {}
    known: dict[Response, int] = {}

    def place(answer: Answer) -> int:
        clip = clips.setdefault((answer.row.id, answer.as_text), len(clips))
        if clip == len(batch.heard):
            batch.heard.append((answer.row, answer.as_text))
        branch = Response(clip, answer.tokens, answer.temperature)
        number = known.setdefault(branch, len(known))
        if number == len(batch.branches):
            batch.branches.append(branch)
        return number

    if teacher_tokens is not None:
        batch.teacher = [place(Answer(row, teacher_tokens(row.response))) for row in rows]
    for pair in pairs:
        batch.chosen.append(place(pair.chosen))
        batch.rejected.append(place(pair.rejected))
    for number, group in enumerate(rated):
        for one in group:
            batch.rated.append(place(one.answer))
            batch.ratings.append(one)
            batch.groups.append(number)
    return batch
