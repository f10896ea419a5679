"""What the build achieved: the base and the teacher on the micro test sets, by the rule judge.

`rba-bench micro build`: teacher, reward model and base SpeechLM from nothing, seeded, in stages that resume.

Two chains run side by side, one thread each: text (teacher, reward model, the base's own LM) and speech (utterances,
encoder). Then the base is assembled and taught to answer speech. Intermediate results lie in `<out>/work`; delete a
folder there to make its stage again.
"""

import multiprocessing
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rba_bench import __version__, files, progress
from rba_bench.audio import clips, espeak
from rba_bench.audio.espeak import BANKS
from rba_bench.errors import RbaError
from rba_bench.micro import testsets, world
from rba_bench.micro.build import speech_model, text_models

COMPARED = ("micro_alpacaeval", "micro_study_instruct")  # sets with win rates


def spoken_testset(name: str) -> list[speech_model.Utterance]:
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
        spoken.append(
            speech_model.Utterance(
                item, row["voice"], speech_model.log_mel(clips.decode_clip(row["audio"]["bytes"]))
            )
        )
    return spoken


def _base(out: Path) -> tuple[Any, Any]:
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor

    model = CompositeForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32).eval()
    return model, CompositeProcessor.from_pretrained(out / "base").tokenizer


def baseline_answers(out: Path) -> dict[str, str]:
    """The base's greedy answers to the spoken instructions: what win rates are measured against."""
    model, tokenizer = _base(out)
    found: dict[str, str] = {}
    for name in COMPARED:
        data = spoken_testset(name)
        answers = speech_model.answer(model, tokenizer, data, speech_model.States(model, data))
        found |= {f"{name}-{i:03d}": text for i, text in enumerate(answers)}
    return found


def base_validity(model: Any, tokenizer: Any) -> dict[str, float]:
    """Percent of valid greedy answers over all test sets, in all and by kind."""
    data = [utterance for name in testsets.SPECS for utterance in spoken_testset(name)]
    found = speech_model.validity(
        data, speech_model.answer(model, tokenizer, data, speech_model.States(model, data))
    )
    return {name: round(value, 1) for name, value in found.items()}


def measure(out: Path) -> dict[str, Any]:
    """Percent of valid answers on each test set (base greedy and sampled, teacher on the text); the ear's errors."""
    from transformers import AutoModelForCausalLM

    from rba_bench.speechlm.composite.ctc import CTCRecognizer

    model, tokenizer = _base(out)
    teacher = AutoModelForCausalLM.from_pretrained(out / "teacher", dtype=torch.float32).eval()
    head = CTCRecognizer.load(out / "asr")
    found: dict[str, Any] = {}
    for name in testsets.SPECS:
        data = spoken_testset(name)
        states = speech_model.States(model, data)
        torch.manual_seed(0)
        found[name] = {
            "base_greedy": speech_model.validity(data, speech_model.answer(model, tokenizer, data, states))[
                "all"
            ],
            "base_sampled": speech_model.validity(
                data, speech_model.answer(model, tokenizer, data, states, sample=True)
            )["all"],
            "teacher_text": 100 * text_models.valid_share(teacher, tokenizer, [u.item for u in data]),
            **speech_model.error_rates(model.model.audio_tower, head, data),
        }
    return {name: {k: round(v, 1) for k, v in row.items()} for name, row in found.items()}


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result. The defaults are the shipped build."""

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


def _stage(folder: Path, key: Any, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
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
    for config in (
        model.config,
        *(getattr(model.config, name) for name in getattr(model.config, "sub_configs", {})),
    ):
        config._name_or_path = ""  # where the parts lay on this machine is nobody's business
    model.half().save_pretrained(folder)


def _text_chain(work: Path, plan: Plan) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from rba_bench.micro.build import text_models
    from rba_bench.micro.build import text_models as tokenizer

    torch.set_num_threads(1)
    _stage(work / "tokenizer", "tokenizer", lambda f: {"size": len(tokenizer.build(f))})
    words = _tokenizer(work)

    def lm(
        size: text_models.Size, steps: int, seed: int, label: str, unusable: float
    ) -> Callable[[Path], dict[str, Any]]:
        def make(folder: Path) -> dict[str, Any]:
            model = text_models.train_lm(words, size, steps, seed, label, unusable_share=unusable)
            held_out = text_models.greedy_validity(model, words, plan.checked, seed)
            _save(model, folder)
            words.save_pretrained(folder)
            return {"parameters": model.num_parameters(), "held_out_valid": held_out}

        return make

    def second_cycle(folder: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(work / "teacher-first", dtype=torch.float32)
        text_models.continue_lm(
            model,
            words,
            plan.teacher_more_steps,
            plan.seed + 3,
            "teacher, second cycle",
            2e-3,
            diet=(65, 15, 20),
        )
        held_out = text_models.greedy_validity(model, words, plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_valid": held_out}

    def drill(folder: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(work / "teacher-second", dtype=torch.float32)
        text_models.continue_lm(
            model,
            words,
            plan.teacher_drill_steps,
            plan.seed + 4,
            "teacher, third cycle",
            2e-3,
            diet=(45, 20, 35),
            drill=0.3,
        )
        held_out = text_models.greedy_validity(model, words, plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_valid": held_out}

    def reward(folder: Path) -> dict[str, Any]:
        model = text_models.train_reward(work / "teacher", words, plan.reward_steps, plan.seed + 2)
        accuracy = text_models.reward_accuracy(model, words, 2 * plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_pair_accuracy": accuracy}

    teacher = lm(text_models.TEACHER, plan.teacher_steps, plan.seed, "teacher", 0.05)
    student = lm(text_models.STUDENT, plan.student_steps, plan.seed + 1, "student LM", 0.0)
    first = [asdict(text_models.TEACHER), plan.teacher_steps, plan.seed]
    _stage(work / "teacher-first", first, teacher)
    _stage(work / "student", [asdict(text_models.STUDENT), plan.student_steps, plan.seed], student)
    _stage(work / "teacher-second", [first, plan.teacher_more_steps], second_cycle)
    cycles = [first, plan.teacher_more_steps, plan.teacher_drill_steps]
    _stage(work / "teacher", cycles, drill)
    _stage(work / "reward", [*cycles, plan.reward_steps], reward)


def _tokenizer(work: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(work / "tokenizer")


def _speech_chain(work: Path, plan: Plan) -> None:
    import torch

    from rba_bench.micro.build import speech_model
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    torch.set_num_threads(1)
    heard = speech_model.Conditions(BANKS["base"] + BANKS["train"][:8], (12, 35), 0.6)

    def clips(n: int, seed: int) -> list[speech_model.Utterance]:
        return speech_model.utterances(speech_model.draw_items(n, seed), heard, seed, "speak for the encoder")

    def keep(folder: Path, model: Any, head: Any) -> dict[str, Any]:
        model.half().save_pretrained(folder / "encoder")
        head.half().save(folder / "asr")
        return {"parameters": model.num_parameters()}

    def first(folder: Path) -> dict[str, Any]:
        made = speech_model.train(clips(plan.encoder_clips, plan.seed), plan.encoder_steps, plan.seed)
        return keep(folder, *made)

    def second(folder: Path) -> dict[str, Any]:
        begun = work / "encoder-first"
        model = TrueLengthWhisperEncoder.from_pretrained(begun / "encoder", dtype=torch.float32)
        data = clips(plan.encoder_more_clips, plan.seed + 10)
        made = speech_model.continue_training(
            model, CTCRecognizer.load(begun / "asr"), data, plan.encoder_more_steps, plan.seed + 1
        )
        return keep(folder, *made)

    shape = [speech_model.WIDTH, speech_model.LAYERS, speech_model.HEADS, speech_model.FEED_FORWARD]
    key = [shape, plan.encoder_clips, plan.encoder_steps, plan.seed]
    _stage(work / "encoder-first", key, first)
    _stage(work / "encoder", [*key, plan.encoder_more_clips, plan.encoder_more_steps], second)


def _make_base(work: Path, plan: Plan) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from rba_bench.micro.build import speech_model
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    words = _tokenizer(work)

    def make(folder: Path) -> dict[str, Any]:
        torch.manual_seed(plan.seed)
        ear = TrueLengthWhisperEncoder.from_pretrained(work / "encoder" / "encoder", dtype=torch.float32)
        student = AutoModelForCausalLM.from_pretrained(work / "student", dtype=torch.float32)
        model, processor = speech_model.assemble(ear, student, words)
        clean = speech_model.Conditions(BANKS["base"], (30, 30), 0.0, (1.0, 1.0))
        data = speech_model.utterances(
            speech_model.draw_items(plan.base_clips, plan.seed + 1),
            clean,
            plan.seed + 1,
            "speak for the base",
        )
        states = speech_model.States(model, data)
        speech_model.tune(model, words, data, states, plan.base_steps, plan.seed)
        _save(model, folder)
        processor.save_pretrained(folder)
        model.float()
        valid = base_validity(model, words)
        speech_model.tune(model, words, data, states, plan.saturation_steps, plan.seed + 1, peak=3e-4)
        return {
            "parameters": model.num_parameters(),
            "test_valid": valid,
            f"test_valid_after_{plan.saturation_steps}_more_steps": base_validity(model, words),
        }

    return _stage(
        work / "base",
        [
            plan.base_clips,
            plan.base_steps,
            plan.seed,
            files.read_json(work / "encoder" / "stage.json")["key"],
        ],
        make,
    )


def _publish(work: Path, out: Path) -> None:
    """Copy what ships, without the stages' own notes."""
    shipped = {
        "teacher": work / "teacher",
        "reward": work / "reward",
        "base": work / "base",
        "asr": work / "encoder" / "asr",
    }
    for name, source in shipped.items():
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(source, out / name, ignore=shutil.ignore_patterns("stage.json"))


def build_weights(out: Path, plan: Plan | None = None) -> Path:
    """Build the micro world's models into `out` and return the path of `provenance.json`.

    Raises:
        RbaError: a chain died; its traceback is on stderr.
    """
    plan = plan or Plan()
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
    _make_base(work, plan)
    _publish(work, out)
    progress.say("measuring what was built")
    return _provenance(out, work, plan, time.monotonic() - start)


def _provenance(out: Path, work: Path, plan: Plan, seconds: float) -> Path:
    import torch
    import transformers

    stages = {p.parent.name: files.read_json(p) for p in sorted(work.glob("*/stage.json"))}
    files.write_json(out / "baseline.json", baseline_answers(out))
    weights = {
        p.relative_to(out).as_posix(): files.sha256_file(p) for p in sorted(out.glob("*/*.safetensors"))
    }
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
        "sha256": weights,
    }
    files.write_json(out / "provenance.json", facts)
    return out / "provenance.json"
