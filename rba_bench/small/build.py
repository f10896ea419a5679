"""Makes the connector of `small-base` again: between Whisper tiny.en and SmolLM2-135M-Instruct, on two cores.

    texts     sentences of `training_texts`, one file
    states    each is said by `training_speech` and encoded; the clips are not kept
    ctc       the compressor learns to read the states (`training.connector`), without the LLM
    measure   word errors on the development clips of the track, which no stage has seen

A killed build goes on: every stage is a file or a folder that the next one reads.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench import files
from rba_bench.metrics.wer import word_statistics
from rba_bench.outputs import claim, release
from rba_bench.progress import bar, say
from rba_bench.small import training_speech, training_texts
from rba_bench.small.training_texts import Sentence
from rba_bench.speechlm.compose import load_whisper_encoder
from rba_bench.speechlm.composite.connector_file import new_compressor, save_connector
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, word_embeddings
from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor
from rba_bench.textlm.weights import load_model, local_folder, weights_sha256
from rba_bench.training.connector import (
    CompressorTrainer,
    ConnectorRecipe,
    EncodedClip,
    StatesFile,
    transcripts,
)

ENCODER, LLM = "asset:whisper-tiny.en", "asset:smollm2-135m-instruct"
WINDOW, BATCH = 256, 16  # clips that are sorted by length, and that are encoded together


@dataclass(frozen=True)
class SmallBuild:
    """What decides the connector.

    Attributes:
        sentences: number of training clips.
        seed: of texts, voices and training.
        recipe: of the compressor.
        layers, ffn: sizes of the compressor.
    """

    sentences: int = 30_000
    seed: int = 0
    recipe: ConnectorRecipe = ConnectorRecipe()
    layers: int = 4
    ffn: int = 640


def encode_sentences(
    sentences: list[Sentence], folder: Path, encoder: Any, seed: int = 0, processes: int = 2
) -> StatesFile:
    """Say and encode what is not yet encoded in `folder`; lines of the index hold the sentence's `number`."""
    states = StatesFile(folder, encoder.config.d_model)
    done = {line["number"] for line in states.lines}
    missing = [(number, s.text) for number, s in enumerate(sentences) if number not in done]
    if not missing:
        return states
    extractor = LogMelFeatureExtractor(encoder.config.num_mel_bins)
    with bar("say and encode", len(sentences), len(done), "clips") as advance:

        def encoded() -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
            window: list[tuple[int, str, np.ndarray]] = []
            spoken = training_speech.clips(missing, seed, processes)
            for clip in spoken:
                window.append(clip)
                if len(window) == WINDOW:
                    yield from _encode(window, encoder, extractor, advance)
                    window = []
            yield from _encode(window, encoder, extractor, advance)

        states.append(encoded())
    return states


def _encode(
    window: list[tuple[int, str, np.ndarray]], encoder: Any, extractor: Any, advance: Any
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    ordered = sorted(window, key=lambda clip: len(clip[2]))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        features = extractor([wave for _, _, wave in batch])
        with torch.no_grad():
            hidden, lengths = encoder(features["input_features"], features["feature_lengths"])
        for (number, text, _), clip, length in zip(batch, hidden, lengths.tolist(), strict=True):
            yield clip[:length].float().numpy(), {"number": number, "text": text}
            advance(1)


def build_connector(
    out: Path, plan: SmallBuild | None = None, processes: int = 2, half: bool = False
) -> Path:
    """Build the connector into `out` and say how well it reads; the folder of `connector.safetensors`.

    Args:
        out: Of texts, states, checkpoints and result.
        plan: See `SmallBuild`.
        processes: That speak.
        half: Train with matrix products in bfloat16.

    Raises:
        MissingPrerequisite: An asset, an engine or WordNet is not there.
        UserError: The folder holds something else.
    """
    plan = plan or SmallBuild()
    encoder_folder, llm_folder = local_folder(ENCODER, "encoder"), local_folder(LLM, "text LLM")
    parts = {"encoder": weights_sha256(encoder_folder), "llm": weights_sha256(llm_folder)}
    claim(out, "small-base", {"plan": asdict(plan), "parts_sha256": parts, "half": half})
    try:
        sentences = _sentences(plan, out / "texts.jsonl")
        encoder = load_whisper_encoder(encoder_folder).float()
        states = encode_sentences(sentences, out / "states", encoder, plan.seed, processes)
        model, tokenizer = _new_composite(plan, encoder, llm_folder, sentences)

        def tokenize(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        compressor = model.model.ctc_compressor
        assert compressor is not None  # it was made with one
        (out / "ctc").mkdir(exist_ok=True)
        trainer = CompressorTrainer(compressor, states.read(tokenize), plan.recipe, out / "ctc", half)
        trainer.run(lambda step, loss: say(f"small build: step {step}/{trainer.total}, loss {loss:.3f}"))
        connector = out / "connector"
        save_connector(model, connector, {"parts": parts, "plan": asdict(plan)})
        return connector
    finally:
        release(out)


def _sentences(plan: SmallBuild, path: Path) -> list[Sentence]:
    if not path.is_file():
        made = training_texts.training_sentences(plan.sentences, plan.seed)
        files.write_atomic(path, (files.canonical_json(asdict(s)).decode() + "\n" for s in made))
    return [Sentence(**row) for row in files.read_jsonl(path)]


def _new_composite(
    plan: SmallBuild, encoder: Any, llm_folder: Path, sentences: list[Sentence]
) -> tuple[CompositeForConditionalGeneration, Any]:
    """The untrained composite, whose compressor can say the word pieces of the sentences, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm_folder)
    text_model = load_model(AutoModelForCausalLM, llm_folder, "text LLM", "cpu", dtype=torch.float32)
    pieces = sorted({i for s in sentences for i in tokenizer(s.text, add_special_tokens=False)["input_ids"]})
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        sizes = {"num_hidden_layers": plan.layers, "intermediate_size": plan.ffn}
        compressor = new_compressor(encoder.config, word_embeddings(text_model), pieces, **sizes)
        torch.nn.init.constant_(compressor.to_blank.bias, 2.0)  # most frames say nothing
        model = CompositeForConditionalGeneration.from_parts(
            encoder, text_model, len(tokenizer), projector_hidden_size=256, compressor=compressor
        )
    return model, tokenizer


def word_error_rate(compressor: Any, clips: list[EncodedClip], tokenizer: Any) -> float:
    """Of what a compressor reads, after Whisper's normaliser."""
    said = [tokenizer.decode(row) for row in transcripts(compressor, clips)]
    rows = [word_statistics(text, clip.text) for text, clip in zip(said, clips, strict=True)]
    return sum(errors for errors, _ in rows) / max(1, sum(words for _, words in rows))
