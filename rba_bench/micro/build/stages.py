"""`rba-bench micro build`: teacher, reward model and base SpeechLM from nothing, seeded, in stages that resume.

Two chains run side by side, one thread each: text (teacher, reward model, the base's own LM) and speech (utterances,
encoder). Then the base is assembled and taught to answer speech, and base and teacher are measured on the micro test
sets by the rule judge. Intermediate results lie in `<out>/work`; delete a folder there to make its stage again.
"""

import multiprocessing
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rba_bench import __version__, files, progress
from rba_bench.audio import clips, espeak
from rba_bench.audio.espeak import BANKS
from rba_bench.errors import RbaError
from rba_bench.micro import testsets, world
from rba_bench.micro.build import speech_model, text_models

Make = Callable[[Path], dict[str, Any]]  # makes a stage in a folder; its facts
COMPARED = ("micro_alpacaeval", "micro_study_instruct")  # sets with win rates


@dataclass(frozen=True)
class BuildPlan:
    """Everything that decides the result; the defaults are those of the shipped weights."""

    seed: int = 0
    teacher_steps: int = 2000
    teacher_more_steps: int = 700  # a second cycle on a diet of instructions
    teacher_drill_steps: int = 600  # a third with reasoning in it: copying the third name is learned last
    reward_steps: int = 1000
    student_steps: int = 1500
    encoder_clips: int = 6000
    encoder_steps: int = 1600
    encoder_more_clips: int = 5000  # a second cycle on other clips
    encoder_more_steps: int = 1400
    base_clips: int = 3000
    base_steps: int = 1200
    saturation_steps: int = 300  # further SFT on the same data, only to measure that it does not help
    checked: int = 500  # held-out items on which each text model is measured


def build_weights(out: Path, plan: BuildPlan | None = None) -> Path:
    """Build the micro world's models into `out` and return the path of `provenance.json`.

    Raises:
        RbaError: a chain died; its traceback is on stderr.
    """
    plan = plan or BuildPlan()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    chains = [context.Process(target=chain, args=(work, plan)) for chain in (_text_chain, _speech_chain)]
    for chain in chains:
        chain.start()
    for chain in chains:
        chain.join()
    if any(chain.exitcode for chain in chains):
        raise RbaError("the build stopped half-way; run the same command again to go on")
    encoder_key = files.read_json(work / "encoder" / "stage.json")["key"]
    base_key = [plan.base_clips, plan.base_steps, plan.seed, encoder_key]
    _run_stage(work / "base", base_key, partial(_make_base, work=work, plan=plan))
    for role in ("teacher", "reward", "base", "asr"):
        source = work / "encoder" / "asr" if role == "asr" else work / role
        shutil.rmtree(out / role, ignore_errors=True)
        shutil.copytree(source, out / role, ignore=shutil.ignore_patterns("stage.json"))
    progress.say("measuring what was built")
    return _write_provenance(out, work, plan, time.monotonic() - start)


def _run_stage(folder: Path, key: Any, make: Make) -> dict[str, Any]:
    """Run `make(temporary folder)` once; its facts are kept in `stage.json` beside what it wrote."""
    marker = folder / "stage.json"
    if marker.exists():
        facts = files.read_json(marker)
        if facts["key"] == key:
            return dict(facts)
    temporary = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    start = time.monotonic()
    facts = {"key": key, **make(temporary), "seconds": round(time.monotonic() - start, 1)}
    files.write_json(temporary / "stage.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return facts


def _save(model: Any, folder: Path) -> None:
    """Half precision: it halves the package and costs nothing measurable at this size."""
    parts = (getattr(model.config, name) for name in getattr(model.config, "sub_configs", {}))
    for config in (model.config, *parts):
        config._name_or_path = ""  # a path of this machine would be published with the weights
    model.half().save_pretrained(folder)


def _text_chain(work: Path, plan: BuildPlan) -> None:
    """Tokenizer, the base's own LM, the teacher in three cycles, and the reward model."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    _run_stage(
        work / "tokenizer", "tokenizer", lambda folder: {"size": len(text_models.build_tokenizer(folder))}
    )
    words = _load_tokenizer(work)

    def save(folder: Path, model: Any, **facts: float) -> dict[str, Any]:
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), **facts}

    def first_cycle(size: text_models.Size, steps: int, seed: int, label: str, unusable: float) -> Make:
        def make(folder: Path) -> dict[str, Any]:
            model = text_models.train_lm(words, size, steps, seed, label, unusable_share=unusable)
            valid = text_models.greedy_validity(model, words, plan.checked, seed)
            return save(folder, model, held_out_valid=valid)

        return make

    def next_cycle(start: str, steps: int, seed: int, label: str, **data: Any) -> Make:
        def make(folder: Path) -> dict[str, Any]:
            model = AutoModelForCausalLM.from_pretrained(work / start, dtype=torch.float32)
            text_models.continue_lm(model, words, steps, seed, label, 2e-3, **data)
            valid = text_models.greedy_validity(model, words, plan.checked, plan.seed)
            return save(folder, model, held_out_valid=valid)

        return make

    def reward(folder: Path) -> dict[str, Any]:
        model = text_models.train_reward(work / "teacher", words, plan.reward_steps, plan.seed + 2)
        accuracy = text_models.reward_accuracy(model, words, 2 * plan.checked, plan.seed)
        return save(folder, model, held_out_pair_accuracy=accuracy)

    teacher = first_cycle(text_models.TEACHER, plan.teacher_steps, plan.seed, "teacher", 0.05)
    student = first_cycle(text_models.STUDENT, plan.student_steps, plan.seed + 1, "student LM", 0.0)
    second = next_cycle(
        "teacher-first", plan.teacher_more_steps, plan.seed + 3, "teacher, second cycle", diet=(65, 15, 20)
    )
    third = next_cycle(
        "teacher-second", plan.teacher_drill_steps, plan.seed + 4, "teacher, third cycle",
        diet=(45, 20, 35), drill=0.3,
    )  # fmt: skip
    key = [asdict(text_models.TEACHER), plan.teacher_steps, plan.seed]
    cycles = [key, plan.teacher_more_steps, plan.teacher_drill_steps]
    _run_stage(work / "teacher-first", key, teacher)
    _run_stage(work / "student", [asdict(text_models.STUDENT), plan.student_steps, plan.seed], student)
    _run_stage(work / "teacher-second", cycles[:2], second)
    _run_stage(work / "teacher", cycles, third)
    _run_stage(work / "reward", [*cycles, plan.reward_steps], reward)


def _speech_chain(work: Path, plan: BuildPlan) -> None:
    """The encoder with its CTC head, in two cycles on different clips."""
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    torch.set_num_threads(1)
    conditions = speech_model.Conditions(BANKS["base"] + BANKS["train"][:8], (12, 35), 0.6)

    def speak(n: int, seed: int) -> list[speech_model.SpokenItem]:
        items = speech_model.draw_items(n, seed)
        return speech_model.speak_items(items, conditions, seed, "speak for the encoder")

    def save(folder: Path, encoder: Any, head: Any) -> dict[str, Any]:
        encoder.half().save_pretrained(folder / "encoder")
        head.half().save(folder / "asr")
        return {"parameters": encoder.num_parameters()}

    def first_cycle(folder: Path) -> dict[str, Any]:
        data = speak(plan.encoder_clips, plan.seed)
        return save(folder, *speech_model.train_encoder(data, plan.encoder_steps, plan.seed))

    def second_cycle(folder: Path) -> dict[str, Any]:
        start = work / "encoder-first"
        encoder = TrueLengthWhisperEncoder.from_pretrained(start / "encoder", dtype=torch.float32)
        data = speak(plan.encoder_more_clips, plan.seed + 10)
        head = CTCRecognizer.load(start / "asr")
        trained = speech_model.continue_encoder(encoder, head, data, plan.encoder_more_steps, plan.seed + 1)
        return save(folder, *trained)

    shape = [speech_model.WIDTH, speech_model.LAYERS, speech_model.HEADS, speech_model.FEED_FORWARD]
    key = [shape, plan.encoder_clips, plan.encoder_steps, plan.seed]
    _run_stage(work / "encoder-first", key, first_cycle)
    _run_stage(work / "encoder", [*key, plan.encoder_more_clips, plan.encoder_more_steps], second_cycle)


def _make_base(folder: Path, work: Path, plan: BuildPlan) -> dict[str, Any]:
    """Assemble the base, teach it to answer clean speech, and measure whether more steps would still help."""
    from transformers import AutoModelForCausalLM

    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    words = _load_tokenizer(work)
    torch.manual_seed(plan.seed)
    encoder = TrueLengthWhisperEncoder.from_pretrained(work / "encoder" / "encoder", dtype=torch.float32)
    student = AutoModelForCausalLM.from_pretrained(work / "student", dtype=torch.float32)
    model, processor = speech_model.assemble_base(encoder, student, words)
    clean = speech_model.Conditions(BANKS["base"], (30, 30), 0.0, (1.0, 1.0))
    items = speech_model.draw_items(plan.base_clips, plan.seed + 1)
    data = speech_model.speak_items(items, clean, plan.seed + 1, "speak for the base")
    states = speech_model.EncoderStates(model, data)
    speech_model.tune_base(model, words, data, states, plan.base_steps, plan.seed)
    _save(model, folder)
    processor.save_pretrained(folder)
    model.float()
    valid = base_validity(model, words)
    speech_model.tune_base(model, words, data, states, plan.saturation_steps, plan.seed + 1, peak=3e-4)
    return {
        "parameters": model.num_parameters(),
        "test_valid": valid,
        f"test_valid_after_{plan.saturation_steps}_more_steps": base_validity(model, words),
    }


def _load_tokenizer(work: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(work / "tokenizer")


def _write_provenance(out: Path, work: Path, plan: BuildPlan, seconds: float) -> Path:
    import transformers

    stages = {p.parent.name: files.read_json(p) for p in sorted(work.glob("*/stage.json"))}
    files.write_json(out / "baseline.json", baseline_answers(out))
    tensors = sorted(out.glob("*/*.safetensors"))
    facts = {
        "made_by": f"rba-bench {__version__}: rba-bench micro build",
        "plan": asdict(plan),
        "stages": {name: {k: v for k, v in stage.items() if k != "key"} for name, stage in stages.items()},
        "measured": measure(out),
        "seconds_this_run": round(seconds),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "espeak-ng": espeak.espeak_version(),
        },
        "machine": platform.machine(),
        "sha256": {file.relative_to(out).as_posix(): files.sha256_file(file) for file in tensors},
    }
    files.write_json(out / "provenance.json", facts)
    return out / "provenance.json"


def spoken_testset(name: str) -> list[speech_model.SpokenItem]:
    """A micro test set as the build's own utterances."""
    import pyarrow.parquet as pq

    rows = pq.read_table(testsets.load_testset(name) / "test.parquet").to_pylist()
    spoken = []
    for row in rows:
        item = world.parse(f"{row['prompt']} {row['instruction']}".strip())
        if item is None:
            raise RbaError(
                f"{name} holds {row['instruction']!r}, which the world did not write: remove its cache folder"
            )
        mel = speech_model.log_mel(clips.decode_clip(row["audio"]["bytes"]))
        spoken.append(speech_model.SpokenItem(item, row["voice"], mel))
    return spoken


def _load_base(out: Path) -> tuple[Any, Any]:
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor

    model = CompositeForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32).eval()
    return model, CompositeProcessor.from_pretrained(out / "base").tokenizer


def baseline_answers(out: Path) -> dict[str, str]:
    """The base's greedy answers to the spoken instructions: what win rates are measured against."""
    model, tokenizer = _load_base(out)
    answers_by_item: dict[str, str] = {}
    for name in COMPARED:
        data = spoken_testset(name)
        answers = speech_model.answer_speech(model, tokenizer, data, speech_model.EncoderStates(model, data))
        answers_by_item |= {f"{name}-{i:03d}": text for i, text in enumerate(answers)}
    return answers_by_item


def base_validity(model: Any, tokenizer: Any) -> dict[str, float]:
    """Percent of valid greedy answers over all test sets, in all and by kind."""
    data = [utterance for name in testsets.TEST_SETS for utterance in spoken_testset(name)]
    answers = speech_model.answer_speech(model, tokenizer, data, speech_model.EncoderStates(model, data))
    return {name: round(value, 1) for name, value in speech_model.valid_percent(data, answers).items()}


def measure(out: Path) -> dict[str, Any]:
    """Percent of valid answers on each test set: of the base (greedy and sampled) and of the teacher on the text.

    Beside them the word and character error rates of the base's encoder.
    """
    from transformers import AutoModelForCausalLM

    from rba_bench.speechlm.composite.ctc import CTCRecognizer

    model, tokenizer = _load_base(out)
    teacher = AutoModelForCausalLM.from_pretrained(out / "teacher", dtype=torch.float32).eval()
    head = CTCRecognizer.load(out / "asr")
    rows: dict[str, Any] = {}
    for name in testsets.TEST_SETS:
        data = spoken_testset(name)
        states = speech_model.EncoderStates(model, data)
        torch.manual_seed(0)
        greedy = speech_model.answer_speech(model, tokenizer, data, states)
        sampled = speech_model.answer_speech(model, tokenizer, data, states, sample=True)
        rows[name] = {
            "base_greedy": speech_model.valid_percent(data, greedy)["all"],
            "base_sampled": speech_model.valid_percent(data, sampled)["all"],
            "teacher_text": 100 * text_models.valid_share(teacher, tokenizer, [u.item for u in data]),
            **speech_model.error_rates(model.model.audio_tower, head, data),
        }
    return {name: {key: round(value, 1) for key, value in row.items()} for name, row in rows.items()}
