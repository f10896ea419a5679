"""The methods by name: what kind each is, and what it sets where a recipe says nothing. No torch in here."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Method = Literal[
    "sft", "blsp", "audiochatllama", "kd", "diva", "gkd",
    "rba-single", "rba-group", "dpo", "cpo", "spin", "odpo", "tdpo", "ipo", "simpo",
    "grpo", "dapo", "scst", "mrt",
]  # fmt: skip
METHODS: tuple[str, ...] = get_args(Method)
Kind = Literal["likelihood", "distillation", "preference", "policy-gradient"]


@dataclass(frozen=True)
class Preset:
    """One method.

    Attributes:
        kind: which loop it needs.
        about: what it does, in a line.
        defaults: recipe keys it sets unless the recipe does.
        fixed: recipe keys that make it what it is; another value is refused.
    """

    kind: Kind
    about: str
    defaults: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)


def _preference(
    about: str, pairs: str, reference: str, sft_weight: float = 0.0, fixed: tuple[str, ...] = ()
) -> Preset:
    keys = {"pairs": pairs, "reference": reference, "sft_weight": sft_weight}
    return Preset(
        "preference",
        about,
        {name: value for name, value in keys.items() if name not in fixed},
        {name: keys[name] for name in fixed},
    )


PRESETS: dict[str, Preset] = {
    "sft": Preset("likelihood", "cross entropy on the teacher's answers (TTS-SFT)"),
    "blsp": Preset("likelihood", "cross entropy on the own LLM's continuations of the transcripts"),
    "audiochatllama": Preset("likelihood", "cross entropy on the own LLM's answers to the transcripts"),
    "kd": Preset("distillation", "divergence, token by token, from a text teacher that reads the transcript"),
    "diva": Preset("distillation", "hidden states as the own LLM has them on the transcript (DiVA)"),
    "gkd": Preset("distillation", "token-level divergence on the model's own samples (on-policy, GKD)"),
    "rba-single": _preference("teacher's answer against the own sample", "single", "none", 0.2, ("pairs",)),
    "rba-group": _preference("best against worst of a voice group", "group", "none", 0.2, ("pairs",)),
    "dpo": _preference("DPO with a reference", "single", "base", fixed=("reference",)),
    "cpo": _preference("preference without reference + SFT (CPO)", "single", "none", 1.0, ("reference",)),
    "spin": _preference(
        "teacher against an earlier self", "single", "opponent", fixed=("pairs", "reference")
    ),
    "odpo": _preference("DPO offset by the reward gap", "group", "base", fixed=("pairs",)),
    "tdpo": _preference("token-level DPO", "single", "base"),
    "ipo": _preference("IPO: squared distance to a fixed margin", "single", "base"),
    "simpo": _preference("SimPO: means and a margin", "single", "none", fixed=("reference",)),
    "grpo": Preset("policy-gradient", "GRPO: advantage within a group", {"reference": "base"}),
    "dapo": Preset("policy-gradient", "DAPO: token mean, wider upper clip", {"reference": "base"}),
    "scst": Preset("policy-gradient", "self-critical: the greedy answer is the baseline"),
    "mrt": Preset(
        "policy-gradient",
        "minimum risk over an n-best list",
        {"samples_per_clip": 4, "sft_weight": 0.01},
        {"group_by": "clip"},
    ),
}

PLAIN = {
    "pairs": "single",
    "reference": "none",
    "sft_weight": 0.0,
    "group_by": "instruction",
    "samples_per_clip": 1,
}


def fill(data: dict[str, Any]) -> dict[str, Any]:
    """Recipe keys with what the method sets where they are absent or null.

    Raises:
        ValueError: a key has a value that the method cannot have.
    """
    preset = PRESETS.get(data.get("method", "rba-single"))
    if preset is None:
        return data  # the field's own check names the valid ones
    if isinstance(data.get("reference"), bool):
        data = {**data, "reference": "base" if data["reference"] else "none"}
    for key, value in preset.fixed.items():
        if data.get(key, value) not in (value, None):
            raise ValueError(
                f"{data['method']} has `{key}: {value}`; leave the key out, or choose another method"
            )
    filled = {**PLAIN, **preset.defaults, **preset.fixed}
    return {**data, **{key: value for key, value in filled.items() if data.get(key) is None}}
