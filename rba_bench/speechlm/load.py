"""From what the user writes after `--model` to a model."""

import os
from pathlib import Path

import rba_bench
from rba_bench.errors import MissingPrerequisite
from rba_bench.files import sha256_file, sha256_json
from rba_bench.speechlm.base import SpeechLM

BUILT_IN = {
    "base": "the SpeechLM that training starts from",
    "text": "the teacher reading the gold transcript: the ceiling",
    "cascade": "the base's encoder transcribes, the teacher answers",
    "constant": "one answer to everything: the floor",
}


def load(
    spec: str | Path, *, batch_size: int = 32, device: str = "cpu", weights: Path | str | None = None
) -> SpeechLM:
    """The model behind a name or a checkpoint folder.

    Args:
        spec: one of BUILT_IN, or a folder that `save_pretrained` wrote. The names win over folders of the same
            name; write `./base` for the folder.
        batch_size: requests per batch; answers do not depend on it.
        device: a torch device, or `auto`.
        weights: folder with `base/ teacher/ asr/` for the names; the shipped micro world by default.

    Raises:
        MissingPrerequisite: the checkpoint or the shipped weights are not there.
        UserError: it is there but cannot be used.
    """
    if str(spec) not in BUILT_IN:
        if not Path(spec).exists():
            raise MissingPrerequisite(
                f"no model {str(spec)!r}: give a checkpoint folder (`rba-bench train` makes one) "
                f"or one of {', '.join(BUILT_IN)}"
            )
        return _composite(Path(spec), device, batch_size)
    if str(spec) == "constant":
        from rba_bench.speechlm.reference import ConstantAnswer

        return ConstantAnswer()
    folder = Path(weights) if weights is not None else shipped_weights()
    if str(spec) == "base":
        return _composite(_part(folder, "base"), device, batch_size, "base")
    return _text(folder, device, batch_size) if str(spec) == "text" else _cascade(folder, device, batch_size)


def shipped_weights() -> Path:
    """Where the micro world's weights lie: beside the code, or where `RBA_MICRO_WEIGHTS` says.

    `rba_bench.micro.paths.weights_dir` says the same (a test holds them together); `micro` stands above this
    layer, so it cannot be asked.
    """
    override = os.environ.get("RBA_MICRO_WEIGHTS")
    return Path(override) if override else Path(rba_bench.__file__).parent / "micro" / "weights"


def _part(folder: Path, name: str) -> Path:
    part = folder / name
    if not part.is_dir():
        raise MissingPrerequisite(f"no {name!r} among the weights in {folder}: run `rba-bench micro build`")
    return part


def _composite(path: Path, device: str, batch_size: int, name: str | None = None) -> SpeechLM:
    from rba_bench.speechlm.local import CompositeSpeechLM

    return CompositeSpeechLM.from_pretrained(path, device, batch_size, name)


def _text(folder: Path, device: str, batch_size: int) -> SpeechLM:
    from rba_bench.speechlm.reference import TextOracle
    from rba_bench.textlm.local import LocalTextLM

    return TextOracle(LocalTextLM.from_pretrained(_part(folder, "teacher"), device, batch_size))


def _cascade(folder: Path, device: str, batch_size: int) -> SpeechLM:
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.local import CompositeSpeechLM
    from rba_bench.speechlm.reference import Cascade
    from rba_bench.textlm.local import LocalTextLM

    head = _part(folder, "asr")
    recognizer = CTCRecognizer.load(head)
    base = CompositeSpeechLM.from_pretrained(_part(folder, "base"), device, batch_size)
    encoder = base.model.model.audio_tower
    files = sorted(file for file in head.iterdir() if file.suffix in (".safetensors", ".json"))
    return Cascade(
        recognizer.to(encoder.device),
        encoder,
        base.processor.feature_extractor,
        LocalTextLM.from_pretrained(_part(folder, "teacher"), device, batch_size),
        sha256_json([base.identity()["weights_sha256"], *(sha256_file(file) for file in files)]),
        batch_size,
    )
