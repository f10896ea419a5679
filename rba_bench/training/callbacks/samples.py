"""`samples.jsonl`: some groups of a run as they were trained on, to be read by people.

A record is a group in a step: instruction, teacher's answer, voices, samples with their rewards, and the pairs that the
method made of them. How many there can be is known beforehand: a few groups a step, a bounded number of steps, bounded
texts. What is drawn ahead of its step travels in the outcome, and so in checkpoints: a resumed run writes what the
run would have written.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.pairs import AnswerTokens, Outcome, Sample
from rba_bench.training.training_recipe import TrainingRecipe

GROUPS = 4  # of a step
STEPS = 250  # with groups in the file, at most
SAMPLES = 16  # of a group
CHARACTERS = 2_000  # of a text


class SampleSelection:
    """Which groups are written down.

    Args:
        recipe: `samples_every`, `steps`, `groups_per_step`.
        writes: whether this process writes.
    """

    def __init__(self, recipe: TrainingRecipe, writes: bool = True) -> None:
        self.steps, self.groups = recipe.steps, recipe.groups_per_step
        self.every = max(recipe.samples_every, math.ceil(recipe.steps / STEPS)) if recipe.samples_every else 0
        self.writes = writes

    def step(self, position: int) -> int:
        """The step (1, 2, ...) that a position of the run belongs to."""
        return position // self.groups + 1

    def __call__(self, position: int) -> bool:
        """Whether the group at a position of the run is written down: the first ones of every N-th step."""
        if not self.writes or not self.every or position % self.groups >= GROUPS:
            return False
        step = self.step(position)
        return step % self.every == 0 or step in (1, self.steps)


def group_record(
    rows: Sequence[AlignmentRow],
    samples: Sequence[Sample],
    rewards: Sequence[float] | None,
    outcome: Outcome,
    text_of: Callable[[AlignmentRow, Sequence[int]], str],
) -> dict[str, Any]:
    """A group as JSON values.

    Args:
        rows: its clips.
        samples: the policy's answers, if the method samples.
        rewards: one for each, NaN where it could not be judged; None where nothing is rewarded.
        outcome: what the method made of them.
        text_of: the text of an answer that is no sample.
    """
    places = {(sample.row.id, sample.tokens): number for number, sample in reversed(list(enumerate(samples)))}
    anywhere = {sample.tokens: number for number, sample in reversed(list(enumerate(samples)))}

    def side(answer: AnswerTokens) -> dict[str, Any]:
        place = places.get((answer.row.id, answer.tokens), anywhere.get(answer.tokens))
        text = bounded(text_of(answer.row, answer.tokens) if place is None else samples[place].text)
        # a sample that equals the teacher's answer makes no pair with it, so what is no sample is given
        return {"clip": answer.row.id, "voice": answer.row.voice, "text": text, "sample": place}

    first = rows[0]
    return {
        "group": first.group_id,
        "kind": first.kind,
        "prompt": bounded(first.prompt),
        "instruction": bounded(first.instruction),
        "teacher": bounded(first.response),
        "voices": [{"clip": row.id, "voice": row.voice} for row in rows[:SAMPLES]],
        "samples": [
            {
                "clip": sample.row.id,
                "voice": sample.row.voice,
                "text": bounded(sample.text),
                "tokens": len(sample.tokens),
                "cut": not sample.ended,
                "read": sample.as_text,
                "reward": None if rewards is None or math.isnan(rewards[number]) else rewards[number],
            }
            for number, sample in enumerate(samples[:SAMPLES])
        ],
        "samples_left_out": max(len(samples) - SAMPLES, 0),
        "pairs": [
            {"chosen": side(pair.chosen), "rejected": side(pair.rejected), "gap": pair.gap}
            for pair in outcome.pairs[:SAMPLES]
        ],
    }


def bounded(text: str) -> str:
    """A text of a length that a page can show, in characters that a file can hold."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= CHARACTERS else whole[: CHARACTERS - 1] + "…"
