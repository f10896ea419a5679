"""Dialogues: the stage `ask` for recipes with `turns` above 1.

After each exchange the teacher is fed the conversation so far and the opening of the user's next turn, and writes that
turn (Magpie-MT: Xu et al. 2024, arXiv 2406.08464); then it answers with the whole conversation before it. Each turn and
each answer passes the filters of single texts, and those of `texts.follow_ups`. A dialogue ends with the first text
that is dropped, and is part of the set only if it has all its turns.

A record is that of the last exchange that was reached, with the exchanges before it as `turns`. So its reasons are
those for which the dialogue ended, and what reads one exchange reads the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rba_bench.audio.turns import TURNS
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.asking import InstructionAsker, drop_facts
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import (
    instruction_decoding,
    read_answers,
    read_candidates,
    refuse_silence,
    response_decoding,
    sample_candidates,
)
from rba_bench.synthesis.texts.follow_ups import judge_follow_up, judge_next_answer
from rba_bench.synthesis.texts.text_rules import Drop
from rba_bench.textlm.judging import Message
from rba_bench.textlm.query_template import DialogueTemplate

Dialogue = list[dict[str, Any]]  # candidates in order, all but the last with a usable `answer`
FORGED = Drop("malformed", "control string")


@dataclass(kw_only=True)
class DialogueAsker(InstructionAsker):
    """Dialogues of which the teacher writes both sides (an `Asker`).

    Attributes:
        template: Writes the conversation so far.
    """

    template: DialogueTemplate

    def records(self, number: int) -> list[dict[str, Any]]:
        """See `Asker`. Equal first turns may go on differently, so all of them are answered."""
        first = sample_candidates(self.teacher, self.recipe, number, self.query)
        dialogues: list[Dialogue] = [[self._judged_turn([], candidate)] for candidate in first]
        self._answer(dialogues)
        for _ in range(1, self.recipe.turns):
            going_on = [dialogue for dialogue in dialogues if _is_usable(dialogue)]
            self._ask_on(going_on)
            self._answer(going_on)
        return [{**dialogue[-1], TURNS: dialogue[:-1]} for dialogue in dialogues]

    def _ask_on(self, dialogues: Sequence[Dialogue]) -> None:
        """Add the user's next turn to each dialogue."""
        if not dialogues:
            return
        indices = [dialogue[0]["index"] for dialogue in dialogues]
        seeds = [
            stable_seed("instruction", self.recipe.seed, index, len(dialogue) + 1)
            for index, dialogue in zip(indices, dialogues, strict=True)
        ]
        prompts = [self.template.text(_said(dialogue)) for dialogue in dialogues]
        made = self.teacher.complete(prompts, instruction_decoding(self.recipe), seeds)
        refuse_silence(self.recipe, made)
        if self.query is not None:
            made = [replace(one, text=self.query.cut(one.text)) for one in made]
        for dialogue, candidate in zip(dialogues, read_candidates(indices, seeds, made), strict=True):
            dialogue.append(self._judged_turn(dialogue, candidate))

    def _answer(self, dialogues: Sequence[Dialogue]) -> None:
        """Answer the last turn of those dialogues in which it is usable."""
        asked = [dialogue for dialogue in dialogues if dialogue[-1]["reason"] == KEPT]
        if not asked:
            return
        conversations = [_conversation(self.recipe, dialogue) for dialogue in asked]
        seeds = [_answer_seed(self.recipe, dialogue) for dialogue in asked]
        made = self.teacher.converse(conversations, response_decoding(self.recipe), seeds)
        refuse_silence(self.recipe, made)
        last = [dialogue[-1] for dialogue in asked]
        for dialogue, answer in zip(asked, read_answers(self.recipe, last, seeds, made), strict=True):
            dialogue[-1]["answer"] = self._judged_next_answer(dialogue, answer)

    def _judged_turn(self, dialogue: Dialogue, candidate: dict[str, Any]) -> dict[str, Any]:
        judged = self._judged(candidate)
        if judged["reason"] != KEPT:
            return judged
        forged = self.template.forges(judged["text"])
        return judged | drop_facts(FORGED if forged else judge_follow_up(judged["text"], _said(dialogue)))

    def _judged_next_answer(self, dialogue: Dialogue, answer: dict[str, Any]) -> dict[str, Any]:
        judged = self._judged_answer(dialogue[-1], answer)
        if judged["reason"] != KEPT:
            return judged
        forged, earlier = self.template.forges(judged["response"]), _said(dialogue[:-1])
        return judged | drop_facts(FORGED if forged else judge_next_answer(judged["response"], earlier))


def _is_usable(dialogue: Dialogue) -> bool:
    last = dialogue[-1]
    return last["reason"] == KEPT and last["answer"]["reason"] == KEPT


def _said(dialogue: Dialogue) -> list[tuple[str, str]]:
    """What user and assistant said in turn."""
    return [(candidate["text"], candidate["answer"]["response"]) for candidate in dialogue]


def _conversation(recipe: SynthesisRecipe, dialogue: Dialogue) -> list[Message]:
    """A dialogue as the teacher reads it to answer the last turn; what stands behind a turn stands behind each."""
    messages: list[Message] = []
    for candidate in dialogue:
        messages.append(Message("user", f"{candidate['text']}{recipe.answer_prompt or ''}"))
        if candidate is not dialogue[-1]:
            messages.append(Message("assistant", candidate["answer"]["response"]))
    return messages


def _answer_seed(recipe: SynthesisRecipe, dialogue: Dialogue) -> int:
    """Of the first answer that of a set of one turn, so that both sets have the same first exchanges."""
    later = [len(dialogue)] if len(dialogue) > 1 else []
    return stable_seed("answer", recipe.seed, dialogue[0]["index"], *later)
