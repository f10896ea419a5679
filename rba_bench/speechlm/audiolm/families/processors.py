"""Processors loaded in parts, LoRA adapters of checkpoints, and families whose encoder cannot tell padding from audio.

The processors of models that also take images require image packages (torchvision), and one requires torchaudio for a
mel filter bank. Evaluation needs neither, so tokenizer, audio features and chat template are loaded one by one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from rba_bench.errors import MissingPrerequisite, RbaError, UserError, first_line
from rba_bench.files import link_or_copy, read_json, sha256_file, write_atomic
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily

TEMPLATES = ("chat_template.jinja", "chat_template.json")  # the second is how older repositories keep it
KEPT = (*TEMPLATES, "preprocessor_config.json", "processor_config.json")
ADAPTER = "adapter_config.json"
# No part of any module's name (as "speech" would be): transformers 5.23 takes modules of that name for the adapter's.
ADAPTER_NAME = "lora_of_checkpoint"


class Parts:
    """What an adapter asks of a processor.

    Args:
        tokenizer: of the checkpoint.
        feature_extractor: what the family computes features with.
        chat_template: of the processor; "" leaves the tokenizer's own.
        files: the processor's files by name, to be saved again as they are.
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any = None,
        chat_template: str = "",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.chat_template = chat_template or tokenizer.chat_template
        self.files = dict(files or {})

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer, and the processor's files as they were."""
        self.tokenizer.save_pretrained(folder)
        for name, content in self.files.items():
            write_atomic(folder / name, content)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> Any:
        """As the processor does, text only."""
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **kwargs)


def load_parts(folder: Path, make_features: Callable[[Path], Any], trust_remote_code: bool = False) -> Parts:
    """Parts of a checkpoint folder.

    Args:
        folder: of the checkpoint.
        make_features: the feature extractor from the folder.
        trust_remote_code: run Python code that ships with the tokenizer.

    Raises:
        UserError: there is no tokenizer, or no description of the features.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        files = {name: (folder / name).read_bytes() for name in KEPT if (folder / name).is_file()}
        return Parts(tokenizer, make_features(folder), find_template(folder), files)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no usable processor: {first_line(error)}") from error


def find_template(folder: Path) -> str:
    """The processor's chat template, "" where it has none of its own."""
    for name in TEMPLATES:
        if (path := folder / name).is_file():
            content = read_json(path) if name.endswith(".json") else path.read_text("utf-8")
            return str(content.get("chat_template", "") if isinstance(content, dict) else content)
    return ""


def audio_settings(folder: Path, *names: str) -> dict[str, Any]:
    """Settings of the feature extractor: `preprocessor_config.json`, or its part of `processor_config.json`.

    Args:
        folder: of the checkpoint.
        *names: what the part may be called there (`feature_extractor`, `audio_processor`).

    Raises:
        OSError: there is neither file.
    """
    whole = folder / "processor_config.json"
    settings = read_json(whole) if whole.is_file() else {}
    for name in names:
        if isinstance(settings.get(name), dict):
            return dict(settings[name])
    return dict(read_json(folder / "preprocessor_config.json"))


def need_peft(what: str) -> None:
    """The package that runs adapters.

    Raises:
        MissingPrerequisite: it is not installed.
    """
    from transformers.utils import is_peft_available

    if not is_peft_available():
        raise MissingPrerequisite(f"{what} needs peft for its LoRA adapter for audio: {extra('train')}")


def adapter_identity(folder: Path) -> dict[str, str]:
    """Hashes of an adapter's files by name."""
    files = [folder / ADAPTER, *sorted(folder.glob("adapter_model*.safetensors"))]
    return {file.name: sha256_file(file) for file in files if file.is_file()}


def encode_by_length(
    mels: torch.Tensor, frames: torch.Tensor, encode: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """States of clips through an encoder that cannot tell padding from sound: only clips of one length together.

    Args:
        mels: [N, T, M], padded behind.
        frames: [N], true ones.
        encode: states [n, S, D] of mels [n, t, M] without padding.

    Returns:
        States [N, S, D] with zeros behind each end, and their numbers [N].
    """
    rows: list[torch.Tensor] = [mels[0]] * len(mels)
    for length in sorted(set(frames.tolist())):
        members = (frames == length).nonzero().flatten().tolist()
        for i, row in zip(members, encode(mels[members, :length]), strict=True):
            rows[i] = row
    lengths = torch.tensor([len(row) for row in rows], device=mels.device)
    return pad_sequence(rows, batch_first=True), lengths


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A view of a checkpoint folder without its adapter.

    transformers (5.23) loads an adapter that lies beside the weights by itself, and then reports what the adapter
    lacks instead of what the model lacks.
    """
    with TemporaryDirectory() as plain:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                link_or_copy(file.resolve(), Path(plain) / file.name)
        try:
            yield Path(plain)
        except RbaError as error:
            raise type(error)(str(error).replace(plain, str(folder))) from error


def load_adapter(model: Any, folder: Path) -> None:
    """Put the LoRA adapter of a folder into a model and switch it on.

    Raises:
        UserError: the adapter is damaged or of another model.
    """
    conversions = getattr(model, "_weight_conversions", None)
    try:
        report = model.load_adapter(str(folder), adapter_name=ADAPTER_NAME)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"adapter {folder} cannot be loaded: {first_line(error)}") from error
    # transformers (5.23) now takes the adapter's names for those the model was loaded under, and would save it so
    model._weight_conversions = conversions
    absent = sorted(key for key in map(str, report.missing_keys) if "lora_" in key)
    if absent:
        raise UserError(f"adapter {folder} lacks {len(absent)} weights (first: {absent[0]}); copy it again")
    model.set_adapter(ADAPTER_NAME)


@contextmanager
def switched_adapter(model: Any, on: bool) -> Iterator[None]:
    """The model with its adapter on or off, and on afterwards.

    Switching alone would also decide what trains: peft makes adapters trainable or not as it switches them.
    """
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    (model.enable_adapters if on else model.disable_adapters)()
    try:
        yield
    finally:
        model.enable_adapters()
        for parameter, flag in trains:
            parameter.requires_grad_(flag)


@contextmanager
def plain_layers(model: Any) -> Iterator[None]:
    """The model without its adapter, as if none had ever been loaded: what `save_pretrained` then writes is whole."""
    from peft.tuners.lora import LoraLayer

    taken = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]
    loaded, model._hf_peft_config_loaded = model._hf_peft_config_loaded, False
    try:
        for name, layer in taken:
            model.set_submodule(name, layer.get_base_layer())
        yield
    finally:
        for name, layer in taken:
            model.set_submodule(name, layer)
        model._hf_peft_config_loaded = loaded


class Unpadded(AudioFamily):
    """A family whose encoder cannot tell padding from sound, and whose model carries an adapter for speech.

    `load_model` leaves the hashes of the adapter's files in `model.adapter_files`, empty where there is none.
    """

    adapter_folder: ClassVar[str] = "."  # where checkpoints keep the adapter

    @property
    def has_adapter(self) -> bool:
        """See `Trainable.has_adapter`."""
        return bool(self.model.adapter_files)

    @contextmanager
    def reading_text(self) -> Iterator[None]:
        """See `Trainable.reading_text`: the adapter is off."""
        with switched_adapter(self.model, False) if self.has_adapter else nullcontext():
            yield

    def save(self, folder: Path) -> None:
        """See `Trainable.save`; weights and adapter in files of their own, as they came."""
        if not self.has_adapter:
            super().save(folder)
            return
        with plain_layers(self.model):
            super().save(folder)
        PreTrainedModel.save_pretrained(self.model, folder / self.adapter_folder)

    def identity(self) -> dict[str, Any]:
        """Also hashes of the adapter's files, where there is one."""
        adapter = {"adapter": self.model.adapter_files} if self.has_adapter else {}
        return {**super().identity(), **adapter}

    @property
    def padding(self) -> str:
        """Clips are never padded in the encoder."""
        return "none"
