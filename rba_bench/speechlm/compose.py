"""Composites from parts: any Whisper-type encoder and any causal LM joined by a new projector.

The result is a checkpoint like any other, to be trained with `rba-bench train --set base=DIR`; `compose.json` says what
it was made of. Encoders are those of Whisper and the audio towers of Qwen2-Audio, Voxtral and AudioFlamingo3, which
have its layers under its names; only the encoder's weights are read. The towers of Qwen2-Audio and AudioFlamingo3
average pairs of states before their last norm; here the states are those of the same layers at 50 a second, normalised
one by one, for a projector to stack. Text models are what transformers loads as a causal LM, with a chat template.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rba_bench import __version__
from rba_bench.assets import is_asset
from rba_bench.errors import UserError, first_line
from rba_bench.files import open_up, read_json, write_json
from rba_bench.machine import package_versions
from rba_bench.outputs import claim, release
from rba_bench.speechlm.model_card import PROVENANCE, write_model_card
from rba_bench.textlm.formats.conversion import read_source
from rba_bench.textlm.weights import hub_commit, load_model, local_folder, setup_sha256, weights_sha256

MEL_BINS = (80, 128)
PREFIXES = ("model.encoder.", "encoder.", "model.audio_tower.", "audio_tower.")
TOWERS = ("qwen2_audio", "voxtral", "audioflamingo3")  # beside whisper and composites
# Names of the same sizes in Whisper's configuration and in those of towers written later
SIZES = {
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
}
SAME = ("num_mel_bins", "max_source_positions", "activation_function")
INDEX = "model.safetensors.index.json"


def load_whisper_encoder(folder: Path) -> Any:
    """The encoder in a checkpoint folder, in eval mode, as stored.

    Raises:
        UserError: there is none of Whisper's kind, its weights are incomplete, or its mel bins are not 80 or 128.
    """
    import torch

    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    config = _encoder_config(folder)
    if config.num_mel_bins not in MEL_BINS:
        raise UserError(
            f"the encoder in {folder} takes {config.num_mel_bins} mel bins; composites take 80 or 128"
        )
    weights = dict(_encoder_weights(folder))
    with torch.device("meta"):
        encoder = TrueLengthWhisperEncoder(config)
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    missing = sorted(n for n, shape in shapes.items() if n not in weights or weights[n].shape != shape)
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} weights of the encoder (first: {missing[0]}); copy it again"
        )
    encoder.load_state_dict({name: weights[name] for name in shapes}, assign=True)
    encoder.embed_positions.requires_grad_(False)
    return encoder.eval()


def _encoder_config(folder: Path) -> Any:
    """The encoder's sizes as a `WhisperConfig`."""
    from transformers import AutoConfig, WhisperConfig

    from rba_bench.speechlm.composite import register

    register()
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no usable config.json: {first_line(error)}") from error
    if config.model_type == "whisper":
        return config
    if config.model_type == "rba_composite":
        return config.audio_config
    if config.model_type not in TOWERS:
        raise UserError(
            f"{folder} holds a {config.model_type}, not an encoder of Whisper's kind (whisper, {', '.join(TOWERS)})"
        )
    tower = config.audio_config.to_dict()
    sizes = {name: tower[name] if name in tower else tower[alias] for name, alias in SIZES.items()}
    return WhisperConfig(**sizes, **{name: tower[name] for name in SAME if name in tower})


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint."""
    if (
        folder / "model.safetensors"
    ).is_file():  # some repositories keep a second copy in another number type
        return [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _encoder_weights(folder: Path) -> Iterator[tuple[str, Any]]:
    """The encoder's tensors by their names within it."""
    from safetensors import SafetensorError, safe_open

    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping
                    for prefix in PREFIXES:
                        if name.startswith(prefix):
                            yield name.removeprefix(prefix), tensors.get_tensor(name)
                            break
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); copy it again") from error


def _names(file: Path) -> list[str]:
    """Names of the tensors of a file."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


SCHEMA_VERSION = 1
AUDIO_TOKEN = "<|audio|>"
DTYPES = ("auto", "float32", "bfloat16", "float16")
PROJECTOR_SIZE = 256  # of the projector behind a compressor, which only corrects
STACK, CTC, DECODER = NEW = "stack", "ctc", "decoder"
TRIAL = 12  # tokens on which composite and text model must agree


@dataclass(frozen=True)
class ComposeOptions:
    """How the parts are joined.

    Attributes:
        connector: what stands between encoder and LLM: `stack` (a projector of stacked states), `ctc` (a CTC
            compressor with random weights: about one audio token for a word piece), `decoder` (Whisper's own decoder
            compresses: one audio token for a word piece that it writes), or a trained one (folder or `asset:NAME`).
        stack: encoder states (20 ms each in Whisper) in one audio token of a stacked projector.
        projector_size: width of the projector's hidden layer; 0 = that of the language model.
        seed: of the projector's weights.
        audio_token: placeholder; added to the tokenizer as a special token unless it knows it.
        dtype: number type of all weights: one of `DTYPES`, `auto` = as the language model is stored.
        language: code of what is spoken, for the decoder of a multilingual Whisper.
    """

    connector: str = STACK
    stack: int = 4
    projector_size: int = 0
    seed: int = 0
    audio_token: str = AUDIO_TOKEN
    dtype: str = "auto"
    language: str = "en"


@dataclass(frozen=True)
class ComposedCheckpoint:
    """A composite checkpoint.

    Attributes:
        path: its folder.
        provenance: content of `compose.json`.
    """

    path: Path
    provenance: dict[str, Any]


def compose(
    encoder: str | Path, llm: str | Path, out: Path, options: ComposeOptions | None = None
) -> ComposedCheckpoint:
    """Join an encoder and a language model into a composite checkpoint.

    Args:
        encoder: folder or Hub id of a Whisper-type encoder (see the module), a folder of faster-whisper, or a name or
            `.pt` file of openai-whisper.
        llm: folder, Hub id or GGUF file of a causal language model with a chat template.
        out: the checkpoint's folder; one that holds this very composite already is left as it is.
        options: see `ComposeOptions`.

    Raises:
        MissingPrerequisite: a part is not there.
        UserError: a part is of the wrong kind, or the folder holds something else.
    """
    options = options or ComposeOptions()
    _check(options)
    encoder_folder, llm_folder = _encoder_folder(encoder), local_folder(llm, "text LLM")
    provenance: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "encoder": _part_identity(encoder, encoder_folder),
        "llm": {**_part_identity(llm, llm_folder), "setup_sha256": setup_sha256(llm_folder)},
        "options": asdict(options),
    }
    hashes = [provenance["encoder"]["weights_sha256"], provenance["llm"]["weights_sha256"]]
    if options.connector not in NEW:
        provenance["connector"] = _connector_identity(options.connector)
        hashes += [value for key, value in provenance["connector"].items() if key.endswith("_sha256")]
    identity = {"parts_sha256": hashes, "llm_setup_sha256": setup_sha256(llm_folder), **asdict(options)}
    # folders that were signed before there was a choice stay ours
    if options.connector == STACK:
        del identity["connector"]
    if options.language == ComposeOptions.language:
        del identity["language"]
    exists = (out / PROVENANCE).is_file()
    model, processor = (None, None) if exists else _join(encoder_folder, llm_folder, options)
    claim(out, "compose", identity)  # only now: a mistake leaves no signed folder behind
    try:
        if model is None or processor is None:
            return ComposedCheckpoint(out, read_json(out / PROVENANCE))
        model.save_pretrained(out)
        processor.save_pretrained(out)
        open_up(out)
        provenance["versions"] = {"rba_bench": __version__, **package_versions(("torch", "transformers"))}
        write_json(out / PROVENANCE, provenance)
        write_model_card(out)
    finally:
        release(out)
    return ComposedCheckpoint(out, provenance)


def compose_connector(connector: Path, out: Path) -> None:
    """Join the models between which a connector was trained, which its facts name as `parts`, into a checkpoint.

    Args:
        connector: folder, see `composite.connector_file`.
        out: the checkpoint's folder.

    Raises:
        MissingPrerequisite: a part is not there.
        UserError: the facts name no parts, or a part has other weights now.
    """
    from rba_bench.speechlm.composite.connector_file import connector_facts

    parts = connector_facts(connector).get("parts", {})
    if not {"encoder", "llm"} <= parts.keys():
        raise UserError(
            f"the connector in {connector} does not say what it joins: name encoder and LLM with `rba-bench compose "
            f"--connector {connector}`"
        )
    options = ComposeOptions(connector=str(connector))
    made = compose(parts["encoder"]["id"], parts["llm"]["id"], out, options).provenance
    for role in ("encoder", "llm"):
        if made[role]["weights_sha256"] != parts[role]["weights_sha256"]:
            raise UserError(f"the connector in {connector} was trained with another {parts[role]['id']}")


def _encoder_folder(encoder: str | Path) -> Path:
    from rba_bench.textlm.formats.openai_whisper import download_openai_whisper, is_openai_name

    published = is_openai_name(str(encoder))
    return local_folder(download_openai_whisper(str(encoder)) if published else encoder, "encoder")


def _check(options: ComposeOptions) -> None:
    if options.stack < 1 or options.projector_size < 0:
        raise UserError("stack must be at least 1, and the projector's size at least 0")
    if options.dtype not in DTYPES:
        raise UserError(f"dtype {options.dtype!r} is none of {', '.join(DTYPES)}")
    known = options.connector in NEW or is_asset(options.connector)
    if not known and not Path(options.connector).is_dir():
        close = get_close_matches(options.connector, NEW, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(NEW)}, folders and assets"
        raise UserError(f"no connector {options.connector!r}: {hint}")
    if not options.audio_token.strip() or len(options.audio_token.split()) != 1:
        raise UserError(
            f"the audio token must be one word such as {AUDIO_TOKEN}, not {options.audio_token!r}"
        )


def _part_identity(name: str | Path, folder: Path) -> dict[str, Any]:
    """Identity of a part: the name that the user gave, its commit on the Hub if any, the hash of its weights.

    Weights that were converted also have the `source` that they were made from.
    """
    source = {"source": source} if (source := read_source(folder)) else {}
    return {
        "id": str(name),
        "revision": hub_commit(folder),
        "weights_sha256": weights_sha256(folder),
        **source,
    }


def _connector_identity(connector: str) -> dict[str, Any]:
    """Hash of a connector's weights, and of the connector that it takes its compressor from, if any."""
    from rba_bench.speechlm.composite.connector_file import connector_facts, connector_folder

    folder = connector_folder(connector)
    shared = connector_facts(folder).get("compressor_of")
    return {
        "weights_sha256": weights_sha256(folder),
        **({"compressor_sha256": shared["sha256"]} if shared else {}),
    }


def _join(encoder_folder: Path, llm_folder: Path, options: ComposeOptions) -> tuple[Any, Any]:
    import torch

    from rba_bench.speechlm.audiolm.families.composite import Composite
    from rba_bench.speechlm.composite.connector_file import connector_folder, load_projector
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

    tokenizer = _load_tokenizer(llm_folder, options.audio_token)
    tower = load_whisper_encoder(encoder_folder)
    text_model = _load_text_model(llm_folder, options.dtype)
    expected = _text_logits(text_model)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        compressor, projector_size = _compressor(options, encoder_folder, tower, text_model, tokenizer)
        model = CompositeForConditionalGeneration.from_parts(
            tower.to(text_model.dtype),
            text_model,
            tokenizer.convert_tokens_to_ids(options.audio_token),
            options.stack,
            projector_size,
            compressor,
        )
    if options.connector not in NEW:
        load_projector(connector_folder(options.connector), model)
    if not torch.allclose(_text_logits(model), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise UserError(
            f"{llm_folder}: the logits of a {text_model.config.model_type} cannot be computed from its hidden states "
            "and lm_head: use another LLM"
        )
    stride = tower.mel_stride
    processor = CompositeProcessor(
        LogMelFeatureExtractor(tower.config.num_mel_bins, tower.config.max_source_positions * stride / 50),
        tokenizer,
        stack_factor=options.stack,
        audio_token=options.audio_token,
        mel_stride=stride,
        compresses=compressor is not None,
    )
    # a spoken turn must hold one placeholder, and an answer must stand behind it and end
    family = Composite(model, processor)
    count = family.prompt_ids("").count(family.audio_token_id)
    if count != 1:
        raise UserError(
            f"the LLM's chat template writes {count} placeholders for one clip: it cannot be used here"
        )
    family.answer_ids("yes")
    return model, processor


def _compressor(
    options: ComposeOptions, encoder_folder: Path, tower: Any, text_model: Any, tokenizer: Any
) -> tuple[Any, int]:
    """The compressor that the options ask for, None without one, and the width of the projector behind it."""
    if options.connector == STACK:
        return None, options.projector_size
    from rba_bench.speechlm.composite import connector_file
    from rba_bench.speechlm.composite.decoder_compressor import DecoderSettings
    from rba_bench.speechlm.composite.modeling import word_embeddings

    embeddings = word_embeddings(text_model)
    if options.connector == CTC:
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        pieces = [i for i in range(min(len(tokenizer), len(embeddings))) if i not in special]
        made = connector_file.new_compressor(tower.config, embeddings, pieces)
        return made, options.projector_size or PROJECTOR_SIZE
    if options.connector == DECODER:
        made = _load_decoder(encoder_folder, tokenizer, embeddings, options.language)
        return made, options.projector_size or PROJECTOR_SIZE
    folder = connector_file.connector_folder(options.connector)
    facts = connector_file.connector_facts(folder)
    size = facts["projector_hidden_size"]
    if (stored := connector_file.decoder_of(facts)) is None:
        return connector_file.load_compressor(folder, tower.config, embeddings), size
    connector_file.check_sizes(folder, tower.config, embeddings)
    settings = DecoderSettings.from_dict(stored)
    made = _load_decoder(encoder_folder, tokenizer, embeddings, start=settings.start)
    made.sizes = replace(made.sizes, trained=settings.trained)
    if made.sizes != settings:
        raise UserError(
            f"the connector in {folder} was trained behind another decoder or tokenizer: use the models named in its "
            f"{connector_file.FACTS}"
        )
    connector_file.load_decoder_weights(folder, made)
    return made, size


def _load_decoder(
    folder: Path, tokenizer: Any, embeddings: Any, language: str = "", start: tuple[int, ...] = ()
) -> Any:
    """The compressor that the decoder in an encoder's folder makes."""
    from transformers import AutoConfig, AutoTokenizer

    from rba_bench.speechlm.composite.decoder_compressor import load_decoder

    names = [name for file in _weight_files(folder) for name in _names(file)]
    if AutoConfig.from_pretrained(folder).model_type != "whisper" or not any("decoder." in n for n in names):
        raise UserError(f"{folder} holds no decoder of Whisper: take a whole Whisper, or another --connector")
    try:
        whisper_tokenizer = AutoTokenizer.from_pretrained(folder)
        return load_decoder(folder, whisper_tokenizer, tokenizer, embeddings, language, start)
    except KeyError as error:
        raise UserError(f"the Whisper in {folder} does not know the language {language!r}") from error
    except (
        OSError,
        ValueError,
        AttributeError,
    ) as error:  # without the settings of its decoding, for example
        raise UserError(f"{folder} holds no usable Whisper: {first_line(error)}") from error


def _load_tokenizer(folder: Path, audio_token: str) -> Any:
    """The text model's tokenizer with a placeholder that is one token."""
    from transformers import AddedToken, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no usable tokenizer: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer in {folder} has no chat template: take an instruction-tuned LLM, or add "
            "chat_template.jinja"
        )
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer in {folder} names no eos_token, which fills up rows of a batch")
    tokenizer.add_tokens([AddedToken(audio_token, special=True, normalized=False)], special_tokens=True)
    return tokenizer


def _load_text_model(folder: Path, dtype: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no usable config.json: {first_line(error)}") from error
    known = type(config) in AutoModelForCausalLM._model_mapping
    if config.get_text_config(decoder=True) is not config or not known:
        raise UserError(
            f"{folder} holds a {config.model_type}, which is not a causal language model of text alone"
        )
    return load_model(AutoModelForCausalLM, folder, "text LLM", "cpu", dtype=dtype)


def _text_logits(model: Any) -> Any:
    """Logits of a few words, float32."""
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(size, (1, TRIAL), generator=torch.Generator().manual_seed(0))
    if hasattr(model.config, "audio_token_id"):
        ids = ids.masked_fill(ids == model.config.audio_token_id, 0)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
