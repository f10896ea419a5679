"""A stand-in for the teacher that knows the micro world by heart: same seed, same words."""

import random
from collections.abc import Sequence
from typing import Any

from rba_bench.micro import world
from rba_bench.micro.world import core
from rba_bench.textlm.text_model import Decoding, Generation, TextLM


class FakeTeacher(TextLM):
    """Writes mostly usable instructions; `bad_answers` is how many answers in ten are empty."""

    def __init__(self, bad_answers: int = 0) -> None:
        self.bad_answers = bad_answers
        self.prompts: list[str] = []
        self.decodings: list[Decoding] = []
        self.calls = 0

    def _instruction(self, seed: int) -> Generation:
        rng = random.Random(seed)
        lot = rng.random()
        if lot < 0.05:
            return Generation("what is what is", 4, "truncated")
        if lot < 0.1:
            return Generation("", 0, "empty")
        if lot < 0.15:
            return Generation("colourless green ideas sleep", 4, "ok")
        if lot < 0.25:
            return Generation(core.sample_item(rng, usable=False).user_text, 20, "ok")
        split = "test" if lot < 0.35 else "train"
        return Generation(world.sample_item(rng, split=split).user_text, 10, "ok")

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        self.calls += 1
        self.prompts += prompts
        self.decodings.append(decoding)
        return [self._instruction(seed) for seed in seeds]

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        self.calls += 1
        self.decodings.append(decoding)
        return [self._answer(text, seed) for text, seed in zip(user_texts, seeds, strict=True)]

    def _answer(self, text: str, seed: int) -> Generation:
        if seed % 10 < self.bad_answers:
            return Generation("", 0, "empty")
        item = world.parse(text)
        assert item is not None, text
        return Generation(world.sample_answer(random.Random(seed), item), 8, "ok")

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [-1.0 for _ in user_texts]

    def pre_query_template(self) -> str:
        return "<|bos|><|user|>"

    def identity(self) -> dict[str, Any]:
        return {"name": "fake", "weights_sha256": str(self.bad_answers), "setup_sha256": "0"}
