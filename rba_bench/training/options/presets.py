"""The methods by name: the kind of each, and the keys that it sets where a recipe does not. No torch in here."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

MethodName = Literal[
    "sft", "blsp", "audiochatllama", "kd", "diva", "gkd",
    "rba-single", "rba-group", "dpo", "cpo", "spin", "odpo", "tdpo", "ipo", "simpo",
    "grpo", "dapo", "tars", "scst", "mrt",
]  # fmt: skip
CLIPPED = ("grpo", "dapo", "tars")  # losses of a clipped ratio, with or without a divergence
METHODS: tuple[str, ...] = get_args(MethodName)
Reduction = Literal["token", "sequence"]
MethodKind = Literal["likelihood", "distillation", "preference", "policy-gradient"]


@dataclass(frozen=True)
class Preset:
    """One method.

    Attributes:
        kind: which loop it needs.
        about: what it does, in a line.
        defaults: recipe keys it sets unless the recipe does; dots lead into nested keys.
        fixed: recipe keys that make it what it is; another value is refused.
        scales: by the value of the reduction of its own term, recipe keys whose size follows from it.
    """

    kind: MethodKind
    about: str
    defaults: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def reduction(self) -> str:
        """The key of the reduction of the method's own term."""
        return _REDUCTIONS[self.kind]


_REDUCTIONS: dict[MethodKind, str] = {
    "likelihood": "sft_reduction",
    "distillation": "distillation_reduction",
    "preference": "preference_reduction",
    "policy-gradient": "policy_reduction",
}
# Sums of an answer's log-probabilities grow with its length, means do not: what a sum of some tens of tokens tells
# apart with beta 0.1 saturates at 250 tokens. So without a reference the sides of a pair are compared by means, with
# SimPO's beta; log-ratios to a reference start at 0 and stay small, and keep DPO's sums. The cross entropy beside the
# pairs is in the same unit as they are.
_MEANS = {"beta": 2.0, "sft_reduction": "token"}
_SUMS = {"beta": 0.1, "sft_reduction": "sequence"}


def _preference_preset(
    about: str,
    pairs: str,
    reference: str,
    reduction: Reduction,
    sft_weight: float | tuple[float, float] = 0.0,
    fixed: tuple[str, ...] = (),
    beta: float | None = None,
) -> Preset:
    """A preset; `sft_weight` may differ beside means and sums, `beta` may be the same for both."""
    keys = {"pairs": pairs, "reference": reference, "preference_reduction": reduction}
    weights = sft_weight if isinstance(sft_weight, tuple) else (sft_weight, sft_weight)
    scales = {
        name: {**scale, "sft_weight": weight, **({} if beta is None else {"beta": beta})}
        for name, scale, weight in zip(("token", "sequence"), (_MEANS, _SUMS), weights, strict=True)
    }
    defaults = {name: value for name, value in keys.items() if name not in fixed}
    return Preset("preference", about, defaults, {name: keys[name] for name in fixed}, scales)


# The paper's two scalars are read as w = 0.2 and beta = 0.1, for sums. For means w = 1: a token of a pair then weighs
# beta x slope, 1 to 1.8 for slopes of the sigmoid from 0.5 to 0.9, against 1 of the cross entropy. Reckoned, not tuned.
RBA_WEIGHTS = (1.0, 0.2)

# What trains, by paper; the others train the whole student, or do not say (RBA).
# - BLSP (arXiv 2309.00916; `train_stage2.py` of cwang621/blsp): the adapter; Whisper and the LLM are frozen.
# - AudioChatLlama (arXiv 2311.06753, section 2): the audio encoder with its projection; the LLM is frozen.
# - Ultravox (README of fixie-ai/ultravox): the projector; encoder and LLM are frozen (from v0.5 on low-rank adapters of
#   the encoder beside it). kd is its loss.
# - DiVA (arXiv 2410.02678; `connector_only` in Helw150/levanter): query tokens, Q-Former and projection, which is our
#   projector; Whisper and the LLM are frozen.
# - GKD (arXiv 2306.13649): the whole student.
PROJECTOR = {"train_parts": ("projector",)}

PRESETS: dict[str, Preset] = {
    "sft": Preset("likelihood", "cross entropy on the teacher's answers (TTS-SFT)"),
    "blsp": Preset(
        "likelihood", "cross entropy on continuations of the transcripts by the model's own LLM", PROJECTOR
    ),
    "audiochatllama": Preset(
        "likelihood",
        "cross entropy on answers to the transcripts by the model's own LLM",
        {"train_parts": ("projector", "encoder")},
    ),
    "kd": Preset(
        "distillation", "token-level divergence from a text teacher that gets the transcript", PROJECTOR
    ),
    "diva": Preset(
        "distillation",
        "distance to the hidden states of the model's own LLM on the transcript (DiVA)",
        PROJECTOR,
    ),
    "gkd": Preset("distillation", "token-level divergence on the model's own samples (on-policy, GKD)"),
    "rba-single": _preference_preset(
        "teacher's answer against the model's own sample", "single", "none", "token", RBA_WEIGHTS, ("pairs",)
    ),
    "rba-group": _preference_preset(
        "best against worst of a voice group", "group", "none", "token", RBA_WEIGHTS, ("pairs",)
    ),
    "dpo": _preference_preset("DPO with a reference", "single", "base", "sequence", fixed=("reference",)),
    # the paper's pairs are translations of one sentence, whose sums do not saturate
    "cpo": _preference_preset(
        "preference without reference + SFT (CPO)", "single", "none", "token", 1.0, ("reference",)
    ),
    "spin": _preference_preset(
        "teacher against an earlier self", "single", "opponent", "sequence", fixed=("pairs", "reference")
    ),
    "odpo": _preference_preset("DPO offset by the reward gap", "group", "base", "sequence", fixed=("pairs",)),
    "tdpo": _preference_preset(
        "token-level DPO", "single", "base", "sequence", fixed=("preference_reduction",)
    ),
    "ipo": _preference_preset("IPO: squared distance to a fixed margin", "single", "base", "token", beta=0.1),
    "simpo": _preference_preset(
        "SimPO: means and a margin", "single", "none", "token", fixed=("reference", "preference_reduction")
    ),
    "grpo": Preset("policy-gradient", "GRPO: advantage within a group", {"policy_reduction": "sequence"}),
    "dapo": Preset(
        "policy-gradient",
        "DAPO: token mean, wider upper clip, resampling of groups without a gradient, penalty for long answers, no KL",
        {
            "policy_gradient.kl_weight": 0.0,
            "policy_gradient.clip_high": 0.28,
            "policy_gradient.resample": 8,
            "policy_gradient.overlong_share": 0.2,
            "truncated": "keep",  # cut answers are punished, not left out
        },
        {"policy_reduction": "token"},
    ),
    "scst": Preset(
        "policy-gradient",
        "self-critical: the greedy answer is the baseline",
        scales={"sequence": {"sft_reduction": "sequence"}},
    ),
    "tars": Preset(
        "policy-gradient",
        "TARS: rewards spoken answers for following correct answers to the transcript, with DAPO's loss",
        {
            "policy_gradient.kl_weight": 0.0,
            "policy_gradient.clip_high": 0.28,
            "policy_gradient.scale": "none",
            "truncated": "keep",
        },
        {"policy_gradient.baseline": "modality", "group_by": "instruction", "policy_reduction": "token"},
    ),
    "mrt": Preset(
        "policy-gradient",
        "minimum risk over an n-best list",
        {"samples_per_clip": 4, "sft_weight": 0.01},
        {"group_by": "clip"},
        {"sequence": {"sft_reduction": "sequence"}},
    ),
}

DEFAULTS = {  # of all methods whose preset has no other value
    "pairs": "single",
    "sft_weight": 0.0,
    "group_by": "instruction",
    "samples_per_clip": 1,
    "preference_reduction": "sequence",
    "policy_reduction": "token",
    "distillation_reduction": "token",
    "sft_reduction": "token",
    "beta": 0.1,
}


def apply_preset(data: dict[str, Any]) -> dict[str, Any]:
    """Recipe keys with what the method sets where they are absent or null.

    Raises:
        ValueError: a key has a value that the method cannot have.
    """
    data = _migrate_length_normalized(data)
    preset = PRESETS.get(data.get("method", "rba-single"))
    if preset is None:
        return data  # the field's own check names the valid ones
    if isinstance(data.get("reference"), bool):
        data = {**data, "reference": "base" if data["reference"] else "none"}
    for key, value in preset.fixed.items():
        if _get_key(data, key) not in (value, None):
            raise ValueError(
                f"{data['method']} has `{key}: {value}`; leave the key out, or choose another method"
            )
    filled = {**DEFAULTS, **preset.defaults, **preset.fixed}
    reduction = data.get(preset.reduction)
    filled |= preset.scales.get(str(filled[preset.reduction] if reduction is None else reduction), {})
    for key, value in filled.items():
        if _get_key(data, key) is None:
            data = _with_key(data, key, value)
    if data.get("reference") is None:
        weight = _get_key(data, "policy_gradient.kl_weight")
        has_kl = data.get("method") in CLIPPED and (weight is None or weight != 0)  # GRPO's default is not 0
        data = {**data, "reference": "base" if has_kl else "none"}
    return data


def _migrate_length_normalized(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the time when `length_normalized` was the key of all terms, with the keys that replaced it."""
    if "length_normalized" not in data:
        return data
    data = dict(data)
    if data.pop("length_normalized"):
        raise ValueError(
            "length_normalized is no key any more: each term has its own, preference_reduction and sft_reduction, "
            "`token` (was true) or `sequence` (was false)"
        )
    sums: dict[str, Any] = {"sft_reduction": "sequence", "truncated": "keep"}
    method = data.get("method", "rba-single")
    if method not in ("simpo", "ipo"):  # which always had means
        sums["preference_reduction"] = "sequence"
    if method in ("scst", "mrt"):
        sums["policy_reduction"] = "sequence"
    if method == "dapo":
        sums |= {"policy_gradient.resample": 0, "policy_gradient.overlong_share": 0.0}
    for key, value in sums.items():
        if _get_key(data, key) is None:
            data = _with_key(data, key, value)
    return data


def _get_key(data: Any, key: str) -> Any:
    """The value of a key with dots; None where the recipe does not set it."""
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else getattr(data, part, None)
    return data


def _with_key(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The recipe with one more key; nested options that are already parsed stay as they are."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**data, first: value}
    inner = data.get(first)
    if inner is not None and not isinstance(inner, dict):
        return data
    return {**data, first: _with_key(inner or {}, rest, value)}
