"""A trained connector apart from the models that it connects: compressor and projector of a composite, in float16.

Two files: `connector.safetensors` has the weights, without the LLM's word embeddings, which come from the LLM itself;
`connector.json` says their sizes, between which models they were trained (hashes of the weights), and how. Where only
the projector was trained further, the compressor stays in the connector that it comes from, which is named there; and
where Whisper's own decoder compresses, it comes with the encoder, but for the parts that were trained further.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rba_bench import files
from rba_bench.assets import find_asset, is_asset
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite.ctc_compressor import CompressorSizes, CTCCompressor
from rba_bench.speechlm.composite.decoder_compressor import KIND, DecoderCompressor
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.textlm.formats.conversion import CONNECTOR_FACTS as FACTS
from rba_bench.textlm.formats.conversion import CONNECTOR_WEIGHTS as WEIGHTS

SCHEMA_VERSION = 1
_COMPRESSOR, _PROJECTOR = "compressor.", "projector."
_FROM_LLM = f"{_COMPRESSOR}pieces"


def save_connector(
    model: CompositeForConditionalGeneration, folder: Path, facts: Mapping[str, Any], compressor_of: str = ""
) -> None:
    """Write a composite's compressor and projector.

    Args:
        model: with a compressor.
        folder: made if absent.
        facts: where it comes from, such as `parts` (see `compose.json`) and the recipe of its training.
        compressor_of: another connector (folder or `asset:NAME`) that has the same compressor, which is then not
            written again; "": it is written.

    Raises:
        ValueError: the model has no compressor, or another one than `compressor_of`.
    """
    from safetensors.torch import save

    inner = model.model
    if inner.compressor is None:
        raise ValueError("only a composite with a compressor has a connector that stands alone")
    tensors = {}
    stored: dict[str, Mapping[str, torch.Tensor]] = {_PROJECTOR: inner.multi_modal_projector.state_dict()}
    shared: dict[str, Any] = {}
    if isinstance(inner.compressor, DecoderCompressor):
        shared = {"compressor": inner.compressor.sizes.to_dict()}
        stored[_COMPRESSOR] = inner.compressor.trained_parameters()
    else:
        shared = {"sizes": inner.compressor.sizes.to_dict()}
        stored[_COMPRESSOR] = inner.compressor.state_dict()
    for prefix, weights in stored.items():
        for name, tensor in weights.items():
            whole_number = not tensor.is_floating_point()
            tensors[prefix + name] = tensor.detach().cpu().to(torch.int32 if whole_number else torch.float16)
    tensors.pop(_FROM_LLM, None)
    if compressor_of:
        other = connector_folder(compressor_of)
        for name, tensor in _weights(other, _COMPRESSOR).items():
            if not torch.equal(tensors.pop(_COMPRESSOR + name, torch.empty(0)), tensor):
                raise ValueError(f"the compressor of {compressor_of} is another one: {name} differs")
        shared["compressor_of"] = {"id": compressor_of, "sha256": files.sha256_file(other / WEIGHTS)}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomic(folder / WEIGHTS, save({name: t.contiguous() for name, t in tensors.items()}))
    sizes = {
        "states_size": model.config.audio_config.d_model,
        "embedding_size": model.config.hidden_size,
        "projector_hidden_size": model.config.projector_hidden_size,
    }
    files.write_json(folder / FACTS, {"schema_version": SCHEMA_VERSION, **sizes, **shared, **facts})


def connector_folder(name: str) -> Path:
    """The folder of a trained connector: a folder, or `asset:NAME`.

    Raises:
        MissingPrerequisite: there is no connector.
        UserError: no such asset.
    """
    folder = find_asset(name).path() if is_asset(name) else Path(name)
    connector_facts(folder)
    return folder


def connector_facts(folder: Path) -> dict[str, Any]:
    """Content of `connector.json`.

    Raises:
        MissingPrerequisite: there is no connector in the folder.
    """
    if not (folder / FACTS).is_file() or not (folder / WEIGHTS).is_file():
        raise MissingPrerequisite(f"no connector in {folder}: {FACTS} and {WEIGHTS} are needed")
    facts: dict[str, Any] = files.read_json(folder / FACTS)
    return facts


def decoder_of(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the decoder that compresses for a connector, see `DecoderSettings`; None where it has its own."""
    stored: dict[str, Any] = facts.get("compressor", {})
    return stored if stored.get("kind") == KIND else None


def check_sizes(folder: Path, config: Any, embeddings: torch.Tensor) -> None:
    """Refuse an encoder and an LLM of other sizes than a connector was made for.

    Args:
        folder: see `save_connector`.
        config: the encoder's `WhisperConfig`.
        embeddings: [V, H], see `modeling.word_embeddings`.

    Raises:
        MissingPrerequisite: there is no connector in the folder.
        UserError: sizes are others.
    """
    facts = connector_facts(folder)
    ours, theirs = (config.d_model, embeddings.shape[1]), (facts["states_size"], facts["embedding_size"])
    if ours != theirs:
        raise UserError(
            f"the connector in {folder} joins an encoder of width {theirs[0]} and an LLM of width {theirs[1]}, not "
            f"{ours[0]} and {ours[1]}: use the models named in its {FACTS}"
        )


def load_compressor(folder: Path, config: Any, embeddings: torch.Tensor) -> CTCCompressor:
    """The CTC compressor of a connector, for an encoder and an LLM of the sizes that it was made for.

    Arguments as of `check_sizes`.

    Raises:
        MissingPrerequisite: there is no connector in the folder.
        UserError: its sizes are others, or it takes its compressor from a connector that has changed.
    """
    check_sizes(folder, config, embeddings)
    facts = connector_facts(folder)
    compressor = CTCCompressor(CompressorSizes(**facts["sizes"]), config.d_model, embeddings.shape[1])
    weights = _weights(_compressor_folder(folder, facts), _COMPRESSOR)
    compressor.set_pieces(weights["piece_ids"].tolist(), embeddings)
    compressor.load_state_dict({**weights, "pieces": compressor.pieces})
    return compressor


def _compressor_folder(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Where the weights of a connector's compressor lie."""
    if "compressor_of" not in facts:
        return folder
    other = facts["compressor_of"]
    found = connector_folder(other["id"])
    if files.sha256_once(found / WEIGHTS) != other["sha256"]:
        raise UserError(
            f"the connector in {folder} needs the compressor of another {other['id']}: make it again"
        )
    return found


def load_decoder_weights(folder: Path, compressor: DecoderCompressor) -> None:
    """Put the parts of a decoder that a connector was trained with into Whisper's own.

    Args:
        folder: see `save_connector`.
        compressor: whose settings name the parts.

    Raises:
        UserError: the connector has no weights of them, or takes them from a connector that has changed.
    """
    weights = _weights(_compressor_folder(folder, connector_facts(folder)), _COMPRESSOR)
    parameters = compressor.trained_parameters()
    if weights.keys() != parameters.keys():
        raise UserError(f"the connector in {folder} lacks weights of the decoder: make it again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def load_projector(folder: Path, model: CompositeForConditionalGeneration) -> None:
    """Put a connector's projector into a composite that was made with its compressor."""
    model.model.multi_modal_projector.load_state_dict(_weights(folder, _PROJECTOR))


def _weights(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def new_compressor(config: Any, embeddings: torch.Tensor, pieces: list[int], **sizes: int) -> CTCCompressor:
    """An untrained compressor for an encoder and an LLM, that can say `pieces`."""
    made = CTCCompressor(CompressorSizes(**sizes, n_pieces=len(pieces)), config.d_model, embeddings.shape[1])
    made.set_pieces(pieces, embeddings)
    return made
