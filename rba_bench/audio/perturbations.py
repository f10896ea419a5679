"""Perturbations as the user writes them: `noise=10dB,reverb=small,speed=1.2,telephone`, applied from left to right.

    noise=<dB>[:white|pink|brown]   signal-to-noise ratio over the whole clip
    reverb=small|medium|large       a synthetic room; see ROOMS
    speed=<factor>                  played faster or slower, the pitch moves along
    telephone                       8 kHz, 300 to 3400 Hz, 8-bit mu-law
    gain=<dB>                       louder or softer, cut off at full scale
    clip=<dB>                       peaks cut off this far below the loudest sample

What is drawn (noise, echo) depends on the kind of step, its place in the chain and the clip's own hash. So a clip
sounds the same in every run and for every model, two clips get different noise, and another ratio scales the same one.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.audio import perturb
from rba_bench.errors import UserError
from rba_bench.seeding import stable_seed

VERSION = 1  # raise it whenever the samples of a perturbation change
ROOMS = {"small": (0.3, 6.0), "medium": (0.6, 3.0), "large": (1.2, 0.0)}  # RT60 in s, direct to echo in dB
DEFAULT_COLOUR = "white"
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(db)?")


@dataclass(frozen=True)
class Step:
    """One link of the chain.

    Attributes:
        name: Key of KNOWN.
        value: Decibels or factor, 0.0 where there is none.
        choice: Colour of the noise or size of the room, "" where there is none.
    """

    name: str
    value: float = 0.0
    choice: str = ""

    @property
    def text(self) -> str:
        """The step in canonical form; `parse` reads it back."""
        if self.name == "telephone":
            return self.name
        if self.name == "reverb":
            return f"reverb={self.choice}"
        unit = "" if self.name == "speed" else "dB"
        colour = f":{self.choice}" if self.choice not in ("", DEFAULT_COLOUR) else ""
        return f"{self.name}={self.value:.10g}{unit}{colour}"

    def apply(self, wave: np.ndarray, position: int, key: str) -> np.ndarray:
        """The clip with content `key` after this step, which stands at `position` of the chain."""
        seed = stable_seed("perturb", VERSION, self.name, self.choice, position, key)
        return _APPLY[self.name](self, wave, np.random.default_rng(seed))


@dataclass(frozen=True)
class Perturbation:
    """A chain of steps, applied in order."""

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """Canonical form, which goes into records and content keys; `parse(p.text) == p`."""
        return ",".join(step.text for step in self.steps)

    def identity(self) -> dict[str, Any]:
        """JSON facts for the protocol: the chain and the version of what its names mean."""
        return {"text": self.text, "version": VERSION}

    def apply(self, wave: np.ndarray, key: str) -> np.ndarray:
        """The clip as it will be heard.

        Args:
            wave: float32 samples at 16 kHz, shape [n].
            key: Hash of the clip's content.

        Returns:
            float32 samples in [-1, 1] at 16 kHz; `speed` and `reverb` change the length.
        """
        for position, step in enumerate(self.steps):
            wave = step.apply(wave, position, key)
        return np.ascontiguousarray(wave, dtype=np.float32)


def parse(text: str) -> Perturbation:
    """The chain that `text` describes; see the module for the words.

    Raises:
        UserError: an unknown or ill-formed step, or none at all.
    """
    steps = tuple(_step(part.strip()) for part in text.split(",") if part.strip())
    if not steps:
        raise UserError(f"no perturbation named; known: {_known()}")
    return Perturbation(steps)


def _step(part: str) -> Step:
    name, equals, value = (piece.strip().lower() for piece in part.partition("="))
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
        hint = f"did you mean {KNOWN[near[0]]}? " if near else ""
        raise UserError(f"unknown perturbation {part!r}; {hint}known: {_known()}")
    if name == "telephone":
        if equals:
            raise UserError(f"telephone takes no value, found {part!r}")
        return Step(name)
    if name == "reverb":
        return Step(name, choice=_choice(part, value, ROOMS))
    amount, _, colour = value.partition(":")
    if name == "noise":
        chosen = _choice(part, colour.strip() or DEFAULT_COLOUR, perturb.COLOURS)
        return Step(name, _amount(part, name, amount), chosen)
    return Step(name, _amount(part, name, value))


def _choice(part: str, value: str, known: dict[str, Any]) -> str:
    if value not in known:
        raise UserError(f"cannot read {part!r}: want one of {', '.join(known)}")
    return value


def _amount(part: str, name: str, value: str) -> float:
    low, high = LIMITS[name]
    match = _NUMBER.fullmatch(value.strip())
    if not match or (match[2] and name == "speed"):
        raise UserError(f"cannot read {part!r}: want {KNOWN[name]}, for example {EXAMPLES[name]}")
    number = float(match[1])
    if not low <= number <= high or not math.isfinite(number):
        raise UserError(f"{part!r} is out of range: {name} goes from {low:g} to {high:g}")
    return number + 0.0  # -0.0 would be written another way


def _known() -> str:
    return ", ".join(KNOWN.values())


KNOWN = {
    "noise": "noise=<dB>[:white|pink|brown]",
    "reverb": "reverb=small|medium|large",
    "speed": "speed=<factor>",
    "telephone": "telephone",
    "gain": "gain=<dB>",
    "clip": "clip=<dB>",
}
LIMITS = {"noise": (-30.0, 80.0), "speed": (0.25, 4.0), "gain": (-60.0, 60.0), "clip": (0.0, 60.0)}
EXAMPLES = {"noise": "noise=10dB:pink", "speed": "speed=1.2", "gain": "gain=-6dB", "clip": "clip=12dB"}
_APPLY: dict[str, Callable[[Step, np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": lambda step, wave, rng: perturb.add_noise(wave, step.value, rng, step.choice),
    "reverb": lambda step, wave, rng: perturb.reverberate(wave, *ROOMS[step.choice], rng),
    "speed": lambda step, wave, rng: perturb.change_speed(wave, step.value),
    "telephone": lambda step, wave, rng: perturb.telephone(wave),
    "gain": lambda step, wave, rng: perturb.gain(wave, step.value),
    "clip": lambda step, wave, rng: perturb.overdrive(wave, step.value),
}
