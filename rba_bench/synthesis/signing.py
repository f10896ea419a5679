"""What signs the folder of a set: another recipe, teacher or source is refused there."""

from typing import Any

from pydantic import BaseModel

from rba_bench.files import sha256_json
from rba_bench.synthesis.quality import signed_filters
from rba_bench.synthesis.synthesis_recipe import DATASET_KEYS, SynthesisRecipe
from rba_bench.synthesis.teacher import is_server
from rba_bench.synthesis.utterances import Utterance

# Keys that may differ between a run and its resumption.
NOT_CONTENT = frozenset({"device", "batch_size", "max_candidates", "requests"})
# Keys of later versions count only where they are used, so that folders of earlier versions can still be resumed.
LATER = (
    "instruction_prompt", "topics", "answer_prompt", "max_answer_words", "source", "kind", "template",
    "drop_unspeakable", "teacher_tokenizer", "query_template", "query_stops", "strip_markdown", "text_filters",
    "labels", "voices", "spoken_form", "clip_limits", "max_seconds", "augmentation", "round_trip",
    "turns", "turns_prompt",
)  # fmt: skip
PLACES = ("manifest", "path", "dataset", *DATASET_KEYS)  # of `source`
LATER_BELOW = {"round_trip": ("precision", "silence_s")}  # the same for keys of keys
DEFAULTS = SynthesisRecipe.model_validate({}).resolved()


def signed_config(
    recipe: SynthesisRecipe, identity: dict[str, Any], utterances: list[Utterance]
) -> dict[str, Any]:
    """Everything that decides the content of the set, as JSON values.

    Args:
        recipe: Of the set.
        identity: Of the teacher.
        utterances: Of the recipe's source.
    """
    config = {
        key: value
        for key, value in recipe.resolved().items()
        if key not in NOT_CONTENT and not (key in LATER and value == DEFAULTS[key])
    }
    if "text_filters" in config:
        config["text_filters"] = signed_filters(config["text_filters"])
    for key, names in LATER_BELOW.items():
        if isinstance(options := getattr(recipe, key), BaseModel):
            fields = type(options).model_fields
            usual = [name for name in names if getattr(options, name) == fields[name].default]
            config[key] = {name: value for name, value in config[key].items() if name not in usual}
    if is_server(recipe):
        config["teacher"] = identity["name"]
    if recipe.source is not None:  # a hash stands for the speech, wherever it lies
        config["source"] = {k: v for k, v in config["source"].items() if k not in PLACES}
        if recipe.source.dataset:  # what the hash does not tell
            directions = ["_".join(direction) for direction in recipe.source.directions()]
            config["source"] |= {"audio_column": utterances[0].column, "pairs": directions}
        config["source_sha256"] = sha256_json([utterance.content() for utterance in utterances])
    config |= {f"teacher_{key}": identity[key] for key in ("weights_sha256", "setup_sha256")}
    return config | ({"template": identity["template"]} if "template" in identity else {})
