"""`rba-bench train connector`: the compressor of a composite learns to read the clips of alignment sets.

The transcripts are the spoken instructions. The run encodes every training clip once, trains the compressor without the
LLM, and writes the composite; what it hears of the validation clips is measured as a word error rate.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import load_clip
from rba_bench.errors import UserError
from rba_bench.files import open_up, read_json, write_json
from rba_bench.metrics.wer import word_statistics
from rba_bench.outputs import claim, release
from rba_bench.progress import bar, say
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.composite.connector_file import save_connector
from rba_bench.speechlm.composite.ctc_compressor import CTCCompressor
from rba_bench.speechlm.model_card import CONNECTOR_RUN, PROVENANCE, write_model_card
from rba_bench.speechlm.speech_model import SAMPLING_RATE
from rba_bench.textlm.weights import local_folder, weights_sha256
from rba_bench.training.connector import (
    CompressorTrainer,
    ConnectorRecipe,
    EncodedClip,
    StatesFile,
    transcripts,
)
from rba_bench.training.data.groups import TrainingData, choices
from rba_bench.training.step_trainer import LOG

WORK = "connector-work"  # states and checkpoints of an unfinished run; removed at its end
CONNECTOR = "connector"  # compressor and projector alone, for `rba-bench compose --connector`
BATCH = 16  # clips that are encoded together


@dataclass(frozen=True)
class TrainedConnector:
    """A composite whose compressor was trained.

    Attributes:
        path: folder of the checkpoint; the connector alone lies in its sub-folder `connector`.
        record: content of `connector_run.json`: hashes of what was read, recipe, steps, word error rate.
    """

    path: Path
    record: dict[str, Any]


def train_connector(
    base: str | Path, sets: Sequence[Path | str], out: Path, recipe: ConnectorRecipe, half: bool = False
) -> TrainedConnector:
    """Train the compressor of a composite; an interrupted run goes on.

    Args:
        base: composite with a compressor (`rba-bench compose --connector ctc`): folder, Hub id or asset.
        sets: folders of alignment sets.
        out: folder of the checkpoint.
        recipe: see `ConnectorRecipe`.
        half: compute matrix products in bfloat16.

    Raises:
        UserError: the base has no compressor, or the folder holds something else.
        MissingPrerequisite: base or sets are not there.
    """
    folder = local_folder(base, "speech model")
    family = load_family(folder)
    if not family.compresses or not isinstance(family.model.model.compressor, CTCCompressor):
        raise UserError(f"{base} has no CTC compressor: make one with `rba-bench compose --connector ctc`")
    data = TrainingData.open(choices([str(path) for path in sets]))
    identity = {
        "base_sha256": weights_sha256(folder),
        "alignment_set_sha256": data.sha256,
        "recipe": asdict(recipe),
        "half": half,
    }
    claim(out, "connector", identity)
    try:
        work = out / WORK
        if (out / CONNECTOR_RUN).is_file():
            say(f"{out} is finished already")
            shutil.rmtree(work, ignore_errors=True)
            return TrainedConnector(out, read_json(out / CONNECTOR_RUN))
        compressor = family.model.model.compressor.float()
        tokenize = _tokenizer(family.tokenizer)
        clips = _encoded(family, _rows(data.train), work / "train", "encode clips").read(tokenize)
        trainer = CompressorTrainer(compressor, clips, recipe, work, half)
        trainer.run_with_progress("train connector")
        held_out = _encoded(family, _rows(data.validation), work / "validation", "encode validation")
        record: dict[str, Any] = {**identity, "steps": trainer.step, "clips": len(clips)}
        if len(held_out):
            record["validation_wer"] = _word_errors(family, held_out.read(tokenize))
            say(
                f"word error rate on {len(held_out)} validation clips: {100 * record['validation_wer']:.1f} %"
            )
        family.save(out)
        for name in (PROVENANCE, LOG):  # what the composite was made of, and the curve
            source = folder / name if name == PROVENANCE else work / name
            if source.is_file():
                shutil.copyfile(source, out / name)
        save_connector(family.model, out / CONNECTOR, {**record, **_parts(folder)})
        write_json(out / CONNECTOR_RUN, record)
        write_model_card(out)
        open_up(out)
        shutil.rmtree(work, ignore_errors=True)
        return TrainedConnector(out, record)
    finally:
        release(out)


def _parts(base: Path) -> dict[str, Any]:
    """`parts` for the connector's facts: the models that the composite was made of, where it says so."""
    if not (base / PROVENANCE).is_file():
        return {}
    provenance = read_json(base / PROVENANCE)
    kept = ("id", "revision", "weights_sha256")
    return {"parts": {role: {key: provenance[role][key] for key in kept} for role in ("encoder", "llm")}}


def _tokenizer(tokenizer: Any) -> Any:
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def _rows(groups: Any) -> list[AlignmentRow]:
    return [row for group_id in groups.ids for row in groups[group_id]]


def _encoded(family: Any, rows: Sequence[AlignmentRow], folder: Path, label: str) -> StatesFile:
    """States of the clips before the compressor, with those of an interrupted run."""
    states = StatesFile(folder, family.model.config.audio_config.d_model)
    if missing := rows[len(states) :]:
        with bar(label, len(rows), len(states), "clips") as advance:

            def encode() -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
                for start in range(0, len(missing), BATCH):
                    batch = missing[start : start + BATCH]
                    waves = [family.truncate(load_clip(row.audio)) for row in batch]
                    features = family.processor.feature_extractor(waves, sampling_rate=SAMPLING_RATE)
                    with torch.no_grad():
                        hidden, lengths = family.encoder(
                            features["input_features"], features["feature_lengths"]
                        )
                    for row, clip, length in zip(batch, hidden, lengths.tolist(), strict=True):
                        yield clip[:length].numpy(), {"id": row.id, "text": row.instruction}
                        advance(1)

            states.append(encode())
    return states


def _word_errors(family: Any, clips: Sequence[EncodedClip]) -> float:
    """Word error rate of what the compressor reads, after Whisper's normaliser."""
    said = [family.tokenizer.decode(row) for row in transcripts(family.model.model.compressor, clips)]
    rows = [word_statistics(heard, clip.text) for heard, clip in zip(said, clips, strict=True)]
    return sum(errors for errors, _ in rows) / max(1, sum(words for _, words in rows))
