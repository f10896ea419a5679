"""One step's clips and answers, each scored once: the teacher's answer is also RBA-Single's chosen side, and so on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.layout import Branch
from rba_bench.training.pairs import Answer, Pair


@dataclass
class StepBatch:
    """Clips, distinct answers to them, and where teacher, chosen and rejected answers are among those."""

    rows: list[AlignmentRow] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    teacher: list[int] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)


def assemble(
    rows: Sequence[AlignmentRow],
    pairs: Sequence[Pair],
    teacher_tokens: Callable[[str, str], tuple[int, ...]] | None,
) -> StepBatch:
    """Put a step together.

    Args:
        rows: clips of the step that get a teacher answer.
        pairs: preference pairs on clips of the same groups.
        teacher_tokens: (prompt, response) to ids; None leaves the teacher's answers out.
    """
    batch = StepBatch()
    clips: dict[str, int] = {}
    known: dict[Branch, int] = {}

    def place(answer: Answer) -> int:
        clip = clips.setdefault(answer.row.id, len(clips))
        if clip == len(batch.rows):
            batch.rows.append(answer.row)
        branch = Branch(clip, answer.tokens)
        number = known.setdefault(branch, len(known))
        if number == len(batch.branches):
            batch.branches.append(branch)
        return number

    if teacher_tokens is not None:
        batch.teacher = [place(Answer(row, teacher_tokens(row.prompt, row.response))) for row in rows]
    for pair in pairs:
        batch.chosen.append(place(pair.chosen))
        batch.rejected.append(place(pair.rejected))
    return batch
