"""Makes the shipped connectors again: between Whisper tiny.en and SmolLM2-135M-Instruct, on two cores.

`small-base`, with Whisper's own decoder as the compressor, in stages:

    decoder    the decoder's attention to the encoder's states learns the voices of `training_speech` that espeak-ng
               makes, which Whisper misreads (`training.decoder_adaptation`); sentences of the teacher, without the LLM
    kd         the projector learns to be read by the LLM as a transcript is: token-level distillation, the LLM reading
               the transcript as the teacher (recipe `small/kd`), on the alignment set of the track and on sentences
               that are to be repeated, so that every word counts
    base       the projector and what was trained of the decoder

With a CTC compressor instead, which hears less (dev/LOG.md), two stages come first:

    texts      sentences of `training_texts`, one file
    states     each is said by `training_speech` and encoded; the clips are not kept
    ctc        the compressor learns to read the states (`training.connector`), without the LLM

`small-aligned-METHOD`: the projector of `small-base` goes on with a method of `recipes/small`.

A killed build goes on: every stage is a file or a folder that the next one reads.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench import cards, files
from rba_bench.errors import UserError
from rba_bench.outputs import RUN_RECORD, claim, release
from rba_bench.progress import bar
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.small import training_speech, training_texts
from rba_bench.small.alignment import TEXTS, load_alignment_set
from rba_bench.small.texts import REPEAT
from rba_bench.small.training_texts import Sentence
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.compose import (
    CTC,
    DECODER,
    PROJECTOR_SIZE,
    ComposeOptions,
    compose,
    load_whisper_encoder,
)
from rba_bench.speechlm.composite.connector_file import (
    FACTS,
    connector_facts,
    connector_folder,
    decoder_of,
    new_compressor,
    save_connector,
)
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration, word_embeddings
from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor
from rba_bench.textlm.weights import load_model, local_folder, weights_sha256
from rba_bench.training.connector import (
    CompressorTrainer,
    ConnectorRecipe,
    StatesFile,
)
from rba_bench.training.decoder_adaptation import DecoderRecipe, DecoderTrainer
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train

ENCODER, LLM = "asset:whisper-tiny.en", "asset:smollm2-135m-instruct"
ALIGNED = ("sft", "rba-single")
# of the projector alone, so that a connector is all that ships
ALIGNMENT = (
    "train_parts=[projector]", "lora=null", "steps=60", "groups_per_step=2", "voices_per_group=4", "warmup_steps=6",
    "learning_rate=3e-4", "max_answer_tokens=128", "max_new_tokens=96", "eval_every=20",
)  # fmt: skip
ADAPTED = ("encoder_attn",)  # of the decoder
WINDOW, BATCH = 256, 16  # clips that are sorted by length, and that are encoded together


@dataclass(frozen=True)
class SmallBuild:
    """What decides the connector.

    Attributes:
        connector: DECODER or CTC.
        seed: of texts, voices and training.
        decoder: how Whisper's decoder is trained.
        repeated: sentences that the distillation has repeated.
        kd_steps: steps of the distillation.
        sentences: of a CTC compressor: training sentences beside the teacher's.
        recipe: of a CTC compressor.
        layers, ffn: sizes of a CTC compressor.
    """

    connector: str = DECODER
    sentences: int = 58_000
    seed: int = 0
    recipe: ConnectorRecipe = ConnectorRecipe(epochs=3)
    layers: int = 4
    ffn: int = 608
    decoder: DecoderRecipe = DecoderRecipe()
    repeated: int = 900
    kd_steps: int = 150


@dataclass(frozen=True)
class _Work:
    """What all stages of a build need: its folder and plan, the models' folders by role, and see `build_weights`."""

    out: Path
    plan: SmallBuild
    folders: dict[str, Path]
    facts: dict[str, Any]
    processes: int
    half: bool


def plan_of(connector: str) -> SmallBuild:
    """The build with a compressor of a kind.

    Raises:
        UserError: it is neither DECODER nor CTC.
    """
    if connector not in (DECODER, CTC):
        raise UserError(f"no build with the connector {connector!r}: there are {DECODER} and {CTC}")
    return SmallBuild(connector)


def encode_sentences(
    sentences: list[Sentence],
    folder: Path,
    encoder: Any,
    seed: int = 0,
    processes: int = 2,
    half: bool = False,
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
                    yield from _encode(window, encoder, extractor, half, advance)
                    window = []
            yield from _encode(window, encoder, extractor, half, advance)

        states.append(encoded())
    return states


def _encode(
    window: list[tuple[int, str, np.ndarray]], encoder: Any, extractor: Any, half: bool, advance: Any
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    ordered = sorted(window, key=lambda clip: len(clip[2]))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        features = extractor([wave for _, _, wave in batch])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            hidden, lengths = encoder(features["input_features"], features["feature_lengths"])
        for (number, text, _), clip, length in zip(batch, hidden, lengths.tolist(), strict=True):
            yield clip[:length].float().numpy(), {"number": number, "text": text}
            advance(1)


def build_weights(out: Path, plan: SmallBuild | None = None, processes: int = 2, half: bool = False) -> Path:
    """Build the connector of `small-base`.

    Args:
        out: Folder of texts, states, checkpoints and result.
        plan: See `SmallBuild`.
        processes: That speak.
        half: Encode for the compressor and train it with matrix products in bfloat16, which some processors compute
            several times faster.

    Returns:
        `connector.json`, which says how it was made; its folder is a model for `--model` and `--base`, and the one
        above it for `RBA_SMALL_WEIGHTS`.

    Raises:
        MissingPrerequisite: An asset, an engine or WordNet is not there.
        UserError: The folder holds something else.
    """
    plan = plan or SmallBuild()
    folders = {"encoder": local_folder(ENCODER, "encoder"), "llm": local_folder(LLM, "text LLM")}
    names = {"encoder": ENCODER, "llm": LLM}
    parts = {
        role: {"id": names[role], "weights_sha256": weights_sha256(folder)}
        for role, folder in folders.items()
    }
    claim(out, "small-base", {"plan": asdict(plan), "parts": parts, "half": half})
    try:
        result = out / "base"
        if not (result / FACTS).is_file():
            work = _Work(out, plan, folders, {"parts": parts, "plan": asdict(plan)}, processes, half)
            base, about = _read_states(work) if plan.connector == CTC else _adapt_decoder(work)
            _distil(out, base, plan)
            model = load_family(out / "kd").model
            save_connector(model, result, {**work.facts, **about, "kd": _facts_of_run(out / "kd")})
        return result / FACTS
    finally:
        release(out)


def _adapt_decoder(work: _Work) -> tuple[Path, dict[str, Any]]:
    """Stage `decoder`: a connector whose decoder knows the training voices, and what its facts add."""
    from transformers import AutoTokenizer

    out, plan = work.out, work.plan
    adapted = out / "decoder" / "connector"
    about = {"bfloat16": work.half, "clips": plan.decoder.steps * plan.decoder.clips}
    if (adapted / FACTS).is_file():
        return adapted, about
    compose(ENCODER, LLM, out / "untrained", ComposeOptions(DECODER, seed=plan.seed))
    model = load_family(out / "untrained").model
    inner, compressor = model.model, model.model.compressor
    compressor.sizes = replace(compressor.sizes, trained=ADAPTED)
    whisper_tokenizer = AutoTokenizer.from_pretrained(work.folders["encoder"])
    sentences = training_texts.repeated_sentences(None, plan.seed)
    extractor = LogMelFeatureExtractor(inner.audio_tower.config.num_mel_bins)

    def spoken(begin: int) -> Iterator[tuple[list[int], np.ndarray]]:
        numbered = [(n, sentences[n % len(sentences)].text) for n in range(begin, about["clips"])]
        for _, text, wave in training_speech.clips(numbered, plan.seed, work.processes, recorded=0.0):
            yield whisper_tokenizer(" " + text, add_special_tokens=False)["input_ids"], wave

    def features(waves: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        made = extractor(waves)
        return made["input_features"], made["feature_lengths"]

    (out / "decoder").mkdir(exist_ok=True)
    trainer = DecoderTrainer(
        compressor, inner.audio_tower, spoken, features, plan.decoder, out / "decoder", work.half
    )
    trainer.run_with_progress("train the decoder")
    save_connector(model, adapted, {**work.facts, **about})
    return adapted, about


def _read_states(work: _Work) -> tuple[Path, dict[str, Any]]:
    """Stages `texts`, `states` and `ctc`: a connector whose compressor reads, and what its facts add."""
    read, texts = work.out / "ctc" / "connector", work.out / "texts.jsonl"
    if not (read / FACTS).is_file():
        _train_compressor(work, _sentences(work.plan, texts), files.sha256_file(texts))
    known = connector_facts(read)
    return read, {key: known[key] for key in ("texts_sha256", "bfloat16", "clips", "hours")}


def _sentences(plan: SmallBuild, path: Path) -> list[Sentence]:
    if not path.is_file():
        made = training_texts.training_sentences(plan.sentences, plan.seed)
        files.write_atomic(path, (files.canonical_json(asdict(s)).decode() + "\n" for s in made))
    return [Sentence(**row) for row in files.read_jsonl(path)]


def _train_compressor(work: _Work, sentences: list[Sentence], texts_sha256: str) -> None:
    """Stages `states` and `ctc`."""
    out, plan = work.out, work.plan
    encoder = load_whisper_encoder(work.folders["encoder"]).float()
    states = encode_sentences(sentences, out / "states", encoder, plan.seed, work.processes, work.half)
    model, tokenizer = _new_composite(plan, encoder, work.folders["llm"], sentences)

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    compressor = model.model.compressor
    assert compressor is not None  # it was made with one
    (out / "ctc").mkdir(exist_ok=True)
    trainer = CompressorTrainer(compressor, states.read(tokenize), plan.recipe, out / "ctc", work.half)
    trainer.run_with_progress("train the compressor")
    seconds = sum(line["length"] for line in states.lines) / 50
    about = {
        "texts_sha256": texts_sha256,
        "bfloat16": work.half,
        "clips": len(states),
        "hours": seconds / 3600,
    }
    save_connector(model, out / "ctc" / "connector", {**work.facts, **about})


def _distil(out: Path, base: Path, plan: SmallBuild) -> None:
    """Stage `kd`."""
    repeated = training_texts.repeated_sentences(plan.repeated, plan.seed)
    rows = [
        {"id": f"repeat-{n}", "kind": "asr", "prompt": REPEAT, "instruction": s.text, "answer": s.text}
        for n, s in enumerate(repeated)
    ]
    texts = out / "kd-texts.jsonl"
    lines = (files.canonical_json(row).decode() + "\n" for row in (*files.read_jsonl(TEXTS), *rows))
    files.write_atomic(texts, lines)
    overrides = (
        f"base={base}",
        f"alignment_set={load_alignment_set(texts)}",
        f"steps={plan.kd_steps}",
        f"seed={plan.seed + 1}",
        "max_answer_tokens=128",
    )
    train(load_recipe(TrainingRecipe, recipe_file("small/kd"), overrides), out / "kd")


def build_aligned(method: str, out: Path, base: str) -> Path:
    """Align the projector of a connector with a method, on the alignment set of the track.

    Args:
        method: one of ALIGNED.
        out: Folder of the run and of the result.
        base: A connector of `build_weights`: its folder, or `asset:NAME`.

    Returns:
        `connector.json`, as of `build_weights`; what was trained of the compressor stays in the base.

    Raises:
        MissingPrerequisite: An asset or an engine is not there.
        UserError: The method is none of these, or the folder holds something else.
    """
    if method not in ALIGNED:
        raise UserError(f"no aligned connector of {method!r}: there are {', '.join(ALIGNED)}")
    known = connector_facts(connector_folder(base))
    run, result = out / "run", out / f"aligned-{method}"
    overrides = (f"base={base}", f"alignment_set={load_alignment_set()}", *ALIGNMENT)
    recipe = load_recipe(TrainingRecipe, recipe_file(f"small/{method}"), overrides)
    train(recipe, run)
    model = load_family(run).model
    facts = {"parts": known["parts"], **cards.without_paths({"base": base}), "aligned": _facts_of_run(run)}
    decoder = decoder_of(known)
    shared = decoder is None or bool(decoder.get("trained"))
    save_connector(model, result, facts, compressor_of=base if shared else "")
    return result / FACTS


def _facts_of_run(run: Path) -> dict[str, Any]:
    """What the connector's facts repeat of the distillation's record: it ships, so paths of this machine stay out."""
    record = cards.without_paths(files.read_json(run / RUN_RECORD))
    return {key: record[key] for key in ("recipe", "alignment_set_sha256", "steps")}


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
        model = CompositeForConditionalGeneration.from_parts(
            encoder, text_model, len(tokenizer), projector_hidden_size=PROJECTOR_SIZE, compressor=compressor
        )
    return model, tokenizer
