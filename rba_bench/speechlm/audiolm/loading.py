"""From a folder or Hub id to a loaded model, its processor and its adapter."""

from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.speechlm.audiolm.families import family_class
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.textlm.chat import Variables

# In this order. AudioFlamingo3 and MusicFlamingo are registered for sequence-to-sequence only (transformers 5.23).
AUTO_CLASSES = (
    "AutoModelForMultimodalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForCausalLM",
)


def auto_class(config: Any) -> Any:
    """The first auto class that knows the config, or that its own code names (`auto_map`).

    Raises:
        UserError: there is none.
    """
    import transformers

    auto_map = getattr(config, "auto_map", None) or {}
    for name in AUTO_CLASSES:
        candidate = getattr(transformers, name)
        if name in auto_map or type(config) in candidate._model_mapping:
            return candidate
    raise UserError(
        f"transformers has no audio-in, text-out class for a model of type {config.model_type!r}: "
        "serve it behind an OpenAI-compatible endpoint and give `openai:<base_url>#<model>`"
    )


def load_family(
    folder: Path,
    device: str = "cpu",
    true_length: bool = True,
    trust_remote_code: bool = False,
    template: Variables | None = None,
) -> AudioFamily:
    """Load a checkpoint folder, safetensors only.

    Args:
        folder: what `textlm.weights.local_folder` returned.
        device: a torch device as `textlm.weights.resolve_device` returned it.
        true_length: see `AudioFamily`.
        trust_remote_code: run Python code that ships with the model.
        template: variables of the chat template.

    Raises:
        UserError: damaged files, no processor, or another kind of model.
    """
    from transformers import AutoConfig

    from rba_bench.speechlm.composite import register

    register()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no usable config.json: {first_line(error)}") from error
    adapter = family_class(config.model_type)
    processor = adapter.load_processor(folder, trust_remote_code)
    model = adapter.load_model(config, folder, device, trust_remote_code)
    family = adapter(model, processor, true_length, template)
    count = family.prompt_ids("").count(family.audio_token_id)  # raises where turns cannot be written
    if family.splits and count != 1:
        raise UserError(
            f"the chat template in {folder} writes {count} placeholders for one clip: it does not fit a model of "
            f"type {config.model_type!r}; copy chat_template.jinja and config.json again"
        )
    return family


def load_processor(folder: Path, trust_remote_code: bool = False) -> Any:
    """`AutoProcessor` of a folder.

    Raises:
        MissingPrerequisite: it needs a package that is not installed.
        UserError: there is none, or it has no part for audio or for text.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except ImportError as error:
        raise MissingPrerequisite(f"the processor in {folder} cannot run: {first_line(error)}") from error
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no usable processor: {first_line(error)}") from error
    if not hasattr(processor, "tokenizer"):
        raise UserError(
            f"{folder} holds a {type(processor).__name__}, not a processor of audio and text; a text LLM is written "
            "text:LLM, or cascade:RECOGNISER+LLM"
        )
    return processor
