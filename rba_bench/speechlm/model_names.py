"""Names of models: from what a user writes after `--model` to a loaded model.

    base | text | cascade | constant        the micro world
    text:<llm>                              gold transcript in, any text LLM: the ceiling
    cascade:<recogniser>+<llm>              speech recognition, then any text LLM
    openai:<base_url>#<model>               a server with `input_audio`
    <folder or Hub id>                      a composite checkpoint, or an audio LLM of transformers
    asset:<name>                            weights by name, wherever a folder may stand: `rba-bench assets list`

A Hub id may name its commit, branch or tag: `Qwen/Qwen2-Audio-7B-Instruct@0a095220c30b7b31434169c3086508ef3ea5bf0a`.

An `<llm>` is a folder, a Hub id, a GGUF file (on the Hub `owner/repository:file.gguf`) or `openai:<base_url>#<model>`;
for a `<recogniser>` see `recognizers.load_recognizer`.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rba_bench.assets import PREFIX, model_folder
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_file, sha256_json
from rba_bench.speechlm.speech_model import SpeechLM
from rba_bench.textlm.chat import Variables, template_variables, warn_unread_variables
from rba_bench.textlm.text_model import TextLM

if TYPE_CHECKING:
    from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM


BUILT_IN = {
    "base": "the SpeechLM that training starts from",
    "text": "the teacher reading the gold transcript: the ceiling",
    "cascade": "the base's encoder transcribes, the teacher answers",
    "constant": "one answer to everything: the floor",
}
EXAMPLE = "cascade:large-v3+Qwen/Qwen2.5-7B-Instruct"


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: a torch device, or `auto`.
        batch_size: requests per batch; answers do not depend on it.
        trust_remote_code: run Python code that ships with a checkpoint.
        true_length: transformers audio LLMs: encode clips at their own length, where the model allows it, instead of
            padded to 30 s.
        encoder_cache: composite and transformers audio LLMs: folder where encoded clips are kept for later runs,
            None = nowhere.
        language: cascades: what is spoken (`de`), None = the recogniser finds it out.
        template: variables of the chat template, such as `{"enable_thinking": False}`; of a cascade, its text LLM's.
    """

    device: str = "cpu"
    batch_size: int = 32
    trust_remote_code: bool = False
    true_length: bool = True
    encoder_cache: Path | None = None
    language: str | None = None
    template: Variables = field(default_factory=dict)


def load_speech_model(
    spec: str | Path,
    *,
    batch_size: int = 32,
    device: str = "cpu",
    weights: Path | str | None = None,
    trust_remote_code: bool = False,
    true_length: bool = True,
    encoder_cache: Path | None = None,
    language: str | None = None,
    template: Variables | str | None = None,
) -> SpeechLM:
    """The model behind a name, a folder, a Hub id or a server.

    Args:
        spec: see the head of this module. The names of BUILT_IN win over folders of the same name; write `./base`
            for the folder.
        batch_size: requests per batch; answers do not depend on it.
        device: a torch device, or `auto`.
        weights: folder with `base/ teacher/ asr/` for the names; the shipped micro world by default.
        trust_remote_code: see `LoadOptions`, as for the rest.
        true_length: see `LoadOptions`.
        encoder_cache: see `LoadOptions`.
        language: see `LoadOptions`.
        template: see `LoadOptions`; also as text, see `chat.template_variables`. The model's name tells the variables.

    Raises:
        MissingPrerequisite: the checkpoint, the shipped weights or the server's key are not there.
        UserError: it is there but cannot be used, or the spec is malformed.
    """
    text = str(spec)
    variables = template_variables(template)
    options = LoadOptions(
        device, batch_size, trust_remote_code, true_length, encoder_cache, language, variables
    )
    model = _load_spec(text, options, None if weights is None else Path(weights))
    if text == "constant":
        return model
    # the name tells what differs: a model with and without thinking must not have one name in tables
    for key, value in variables.items():
        model.name += f"+{key}={value if isinstance(value, str) else json.dumps(value)}"
    # a server may decode in another way than the protocol says only where the user allowed it
    identity = model.identity()
    parts = [identity, *(part for part in identity.values() if isinstance(part, Mapping))]
    omitted = {str(word) for part in parts for word in part.get("may_omit", ())}
    model.name += "".join(f"+without-{word}" for word in sorted(omitted))
    return model


def _load_spec(text: str, options: LoadOptions, weights: Path | None) -> SpeechLM:
    if text == "constant":
        from rba_bench.speechlm.reference_models import ConstantAnswer

        warn_unread_variables("", options.template, text)
        return ConstantAnswer()
    if text == "base":
        return _load_local(model_folder("base", folder=weights), options, "base")
    if text == "cascade":
        return _load_built_in_cascade(weights, options)
    if text == "text":
        from rba_bench.speechlm.reference_models import TextOracle

        teacher = str(model_folder("teacher", folder=weights))
        return TextOracle(_load_textlm(teacher, options.device, options))
    _refuse_parts_of_cascades(text)
    prefix, colon, rest = text.partition(":")
    if not colon or Path(text).exists():
        from rba_bench.textlm.weights import HUB_ID

        if not Path(text).exists() and not HUB_ID.fullmatch(text):
            close = difflib.get_close_matches(text, BUILT_IN, 1)
            raise MissingPrerequisite(
                f"no model {text!r}{f', did you mean {close[0]!r}?' if close else ':'} give a checkpoint folder "
                f"(`rba-bench train` makes one), a Hub id or one of {', '.join(BUILT_IN)}"
            )
        return _load_local(text, options, short_name(text))
    if prefix in PREFIXES:
        return PREFIXES[prefix](rest, options)
    close = difflib.get_close_matches(prefix, PREFIXES, 1)
    starts = ", ".join(f"{name}:" for name in PREFIXES)
    hint = f"did you mean {close[0]}:{rest}" if close else f"it may start with {starts}"
    raise UserError(f"no kind of model is called {prefix!r} (in {text!r}); {hint}")


def _refuse_parts_of_cascades(text: str) -> None:
    """A text LLM or a recogniser alone cannot be evaluated on speech: say how it can before it is converted."""
    from rba_bench.textlm.formats.conversion import CONNECTOR, GGUF, find_source
    from rba_bench.textlm.weights import HUB_FILE

    path = Path(text)
    source = find_source(path) if path.exists() else None
    named = text.endswith(".gguf") and (":" not in text or HUB_FILE.fullmatch(text))
    if named or (source is not None and source.format == GGUF):
        raise UserError(f"{text} is a text LLM: write text:{text} or cascade:<recogniser>+{text}")
    if source is not None and source.format != CONNECTOR:
        raise UserError(f"{text} is a recogniser ({source.format}): write cascade:{text}+<llm>")


def split_cascade(parts: str) -> tuple[str, str]:
    """Recogniser and text LLM of `<recogniser>+<llm>`; the first plus divides, unless a folder's name holds it.

    Raises:
        UserError: one of the two is missing.
    """
    pluses = [i for i, character in enumerate(parts) if character == "+"]
    place = next((i for i in pluses if Path(parts[:i]).exists()), pluses[0] if pluses else len(parts))
    recognizer, llm = parts[:place].strip(), parts[place + 1 :].strip()
    if not recognizer or not llm:
        lacks = "recogniser" if not recognizer else "text LLM"
        raise UserError(
            f"'cascade:{parts}' names no {lacks}: write cascade:<recogniser>+<llm>, such as {EXAMPLE}"
        )
    return recognizer, llm


def _load_text_oracle(llm: str, options: LoadOptions) -> SpeechLM:
    if not llm:
        raise UserError("'text:' names no text LLM: write text:<llm>, such as text:Qwen/Qwen2.5-7B-Instruct")
    from rba_bench.speechlm.reference_models import TextOracle

    return TextOracle(_load_textlm(llm, options.device, options), f"text-{short_name(llm)}")


def _load_cascade(parts: str, options: LoadOptions) -> SpeechLM:
    recognizer_spec, llm = split_cascade(parts)
    from rba_bench.speechlm.recognizers import load_recognizer
    from rba_bench.speechlm.reference_models import Cascade
    from rba_bench.textlm.weights import resolve_device

    device = resolve_device(options.device)
    recognizer = load_recognizer(
        recognizer_spec,
        device=device,
        batch_size=options.batch_size,
        language=options.language,
        trust_remote_code=options.trust_remote_code,
    )
    name = f"cascade-{short_name(recognizer_spec)}-{short_name(llm)}"
    return Cascade(recognizer, _load_textlm(llm, device, options), name, device)


def _load_textlm(llm: str, device: str, options: LoadOptions) -> TextLM:
    from rba_bench.textlm.text_model import load_textlm

    trusted, template = options.trust_remote_code, options.template
    return load_textlm(llm, device, options.batch_size, trust_remote_code=trusted, template=template)


def short_name(spec: str) -> str:
    """The last part of a folder, a Hub id or an `openai:<base_url>#<model>`, for tables; of a commit 8 digits."""
    from rba_bench.textlm.weights import COMMIT, HUB_FILE, HUB_ID

    tail = spec.rpartition("#")[2] if spec.startswith("openai:") else str(spec).removeprefix(PREFIX)
    path, file = Path(tail), HUB_FILE.fullmatch(tail)
    hub_id = file or HUB_ID.fullmatch(tail)
    if not path.exists() and hub_id is not None and (file or hub_id["revision"]):
        name, revision = Path(file["file"]).stem if file else Path(hub_id["repo"]).name, hub_id["revision"]
        if not revision:
            return name
        return f"{name}@{revision[:8] if COMMIT.fullmatch(revision) else revision.replace('/', '-')}"
    return (path.resolve() if path.is_dir() else path).name.removesuffix(".pt").removesuffix(".gguf")


def _load_endpoint(address: str, options: LoadOptions) -> SpeechLM:
    from rba_bench.speechlm.endpoint import EndpointSpeechLM

    return EndpointSpeechLM.from_spec(f"openai:{address}", template=options.template)


PREFIXES: dict[str, Callable[[str, LoadOptions], SpeechLM]] = {  # what follows `prefix:`, to a model
    "text": _load_text_oracle,
    "cascade": _load_cascade,
    "openai": _load_endpoint,
    "asset": lambda name, options: _load_local(f"{PREFIX}{name}", options, name),
}


def _load_local(path: Path | str, options: LoadOptions, name: str) -> "TransformersSpeechLM":
    from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM

    return TransformersSpeechLM.from_pretrained(
        path,
        options.device,
        options.batch_size,
        true_length=options.true_length,
        trust_remote_code=options.trust_remote_code,
        name=name,
        cache_folder=options.encoder_cache,
        template=options.template,
    )


def _load_built_in_cascade(folder: Path | None, options: LoadOptions) -> SpeechLM:
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.recognizers import EncoderCTC
    from rba_bench.speechlm.reference_models import Cascade

    head = model_folder("asr", folder=folder)
    ctc_head = CTCRecognizer.load(head)
    base = _load_local(model_folder("base", folder=folder), replace(options, template={}), "base")
    encoder = base.family.encoder
    files = sorted(file for file in head.iterdir() if file.suffix in (".safetensors", ".json"))
    recognizer = EncoderCTC(
        ctc_head.to(encoder.device),
        encoder,
        base.family.processor.feature_extractor,
        sha256_json([base.identity()["weights_sha256"], *(sha256_file(file) for file in files)]),
        options.batch_size,
    )
    teacher = _load_textlm(str(model_folder("teacher", folder=folder)), options.device, options)
    return Cascade(recognizer, teacher, device=str(encoder.device))
