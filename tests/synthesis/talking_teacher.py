"""A stand-in for a teacher that talks over several turns: same seed and conversation, same words."""

import random
from collections.abc import Sequence
from typing import Any

from rba_bench.textlm.judging import Message
from rba_bench.textlm.text_model import Decoding, Generation, TextLM

ANIMALS = ("foxes", "owls", "bears", "frogs", "swans", "moles", "crabs", "larks", "hares", "toads")
PLACES = ("lakes", "farms", "caves", "towns", "hills", "woods", "ponds", "ports", "roads", "moors")
MARKS = ["<s>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "<s>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class TalkingTeacher(TextLM):
    """Asks about animals and places, on and on; now and then it only thanks, repeats itself or is cut."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.conversations: list[list[Message]] = []

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        self.prompts += prompts
        return [self._turn(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _turn(self, prompt: str, seed: int) -> Generation:
        rng = random.Random(f"{prompt} {seed}")
        before = prompt.count("<|user|>") - 1
        lot = rng.random()
        if lot < 0.1:
            return Generation("how many", 2, "truncated")
        if before and lot < 0.25:
            return Generation("Thank you, that is very helpful!", 6, "ok")
        if before and lot < 0.4:
            return Generation(prompt.split("<|user|>")[1].split("<|end|>")[0], 6, "ok")
        how = ("Where do", "Why do", "When do", "How do")[before % 4]
        return Generation(f"{how} {rng.choice(ANIMALS)} live near {rng.choice(PLACES)}?", 6, "ok")

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        return self.converse([[Message("user", text)] for text in user_texts], decoding, seeds)

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        self.conversations += [list(messages) for messages in conversations]
        return [self._answer(messages, seed) for messages, seed in zip(conversations, seeds, strict=True)]

    def _answer(self, messages: Sequence[Message], seed: int) -> Generation:
        rng = random.Random(f"{messages} {seed}")
        if rng.random() < 0.1:
            return Generation("", 0, "empty")
        return Generation(
            f"They like {rng.choice(PLACES)} and {rng.choice(PLACES)} {rng.random():.3f}", 5, "ok"
        )

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [-1.0 for _ in user_texts]

    def pre_query_template(self) -> str:
        return "<s><|user|>"

    def identity(self) -> dict[str, Any]:
        return {"name": "talking", "weights_sha256": "1", "setup_sha256": "0"}
