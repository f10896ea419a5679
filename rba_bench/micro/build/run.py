"""`rba-bench micro build`: teacher, reward model and base SpeechLM from nothing, seeded, in stages that resume.

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

from rba_bench import __version__, files, progress
from rba_bench.audio import espeak
from rba_bench.audio.voices import BANKS
from rba_bench.errors import RbaError


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

    from rba_bench.micro.build import textlms, tokenizer

    torch.set_num_threads(1)
    _stage(work / "tokenizer", "tokenizer", lambda f: {"size": len(tokenizer.build(f))})
    words = _tokenizer(work)

    def lm(
        size: textlms.Size, steps: int, seed: int, label: str, unusable: float
    ) -> Callable[[Path], dict[str, Any]]:
        def make(folder: Path) -> dict[str, Any]:
            model = textlms.train_lm(words, size, steps, seed, label, unusable_share=unusable)
            held_out = textlms.greedy_validity(model, words, plan.checked, seed)
            _save(model, folder)
            words.save_pretrained(folder)
            return {"parameters": model.num_parameters(), "held_out_valid": held_out}

        return make

    def second_cycle(folder: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(work / "teacher-first", dtype=torch.float32)
        textlms.continue_lm(
            model,
            words,
            plan.teacher_more_steps,
            plan.seed + 3,
            "teacher, second cycle",
            2e-3,
            diet=(65, 15, 20),
        )
        held_out = textlms.greedy_validity(model, words, plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_valid": held_out}

    def drill(folder: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(work / "teacher-second", dtype=torch.float32)
        textlms.continue_lm(
            model,
            words,
            plan.teacher_drill_steps,
            plan.seed + 4,
            "teacher, third cycle",
            2e-3,
            diet=(45, 20, 35),
            drill=0.3,
        )
        held_out = textlms.greedy_validity(model, words, plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_valid": held_out}

    def reward(folder: Path) -> dict[str, Any]:
        model = textlms.train_reward(work / "teacher", words, plan.reward_steps, plan.seed + 2)
        accuracy = textlms.reward_accuracy(model, words, 2 * plan.checked, plan.seed)
        _save(model, folder)
        words.save_pretrained(folder)
        return {"parameters": model.num_parameters(), "held_out_pair_accuracy": accuracy}

    teacher = lm(textlms.TEACHER, plan.teacher_steps, plan.seed, "teacher", 0.05)
    student = lm(textlms.STUDENT, plan.student_steps, plan.seed + 1, "student LM", 0.0)
    first = [asdict(textlms.TEACHER), plan.teacher_steps, plan.seed]
    _stage(work / "teacher-first", first, teacher)
    _stage(work / "student", [asdict(textlms.STUDENT), plan.student_steps, plan.seed], student)
    _stage(work / "teacher-second", [first, plan.teacher_more_steps], second_cycle)
    cycles = [first, plan.teacher_more_steps, plan.teacher_drill_steps]
    _stage(work / "teacher", cycles, drill)
    _stage(work / "reward", [*cycles, plan.reward_steps], reward)


def _tokenizer(work: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(work / "tokenizer")


def _speech_chain(work: Path, plan: Plan) -> None:
    import torch

    from rba_bench.micro.build import encoder, speech
    from rba_bench.speechlm.composite.ctc import CTCRecognizer
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    torch.set_num_threads(1)
    heard = speech.Conditions(BANKS["base"] + BANKS["train"][:8], (12, 35), 0.6)

    def clips(n: int, seed: int) -> list[speech.Utterance]:
        return speech.utterances(speech.draw_items(n, seed), heard, seed, "speak for the encoder")

    def keep(folder: Path, model: Any, head: Any) -> dict[str, Any]:
        model.half().save_pretrained(folder / "encoder")
        head.half().save(folder / "asr")
        return {"parameters": model.num_parameters()}

    def first(folder: Path) -> dict[str, Any]:
        made = encoder.train(clips(plan.encoder_clips, plan.seed), plan.encoder_steps, plan.seed)
        return keep(folder, *made)

    def second(folder: Path) -> dict[str, Any]:
        begun = work / "encoder-first"
        model = TrueLengthWhisperEncoder.from_pretrained(begun / "encoder", dtype=torch.float32)
        data = clips(plan.encoder_more_clips, plan.seed + 10)
        made = encoder.continue_training(
            model, CTCRecognizer.load(begun / "asr"), data, plan.encoder_more_steps, plan.seed + 1
        )
        return keep(folder, *made)

    shape = [encoder.WIDTH, encoder.LAYERS, encoder.HEADS, encoder.FEED_FORWARD]
    key = [shape, plan.encoder_clips, plan.encoder_steps, plan.seed]
    _stage(work / "encoder-first", key, first)
    _stage(work / "encoder", [*key, plan.encoder_more_clips, plan.encoder_more_steps], second)


def _base(work: Path, plan: Plan) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from rba_bench.micro.build import base, measure, speech
    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    words = _tokenizer(work)

    def make(folder: Path) -> dict[str, Any]:
        torch.manual_seed(plan.seed)
        ear = TrueLengthWhisperEncoder.from_pretrained(work / "encoder" / "encoder", dtype=torch.float32)
        student = AutoModelForCausalLM.from_pretrained(work / "student", dtype=torch.float32)
        model, processor = base.assemble(ear, student, words)
        clean = speech.Conditions(BANKS["base"], (30, 30), 0.0, (1.0, 1.0))
        data = speech.utterances(
            speech.draw_items(plan.base_clips, plan.seed + 1), clean, plan.seed + 1, "speak for the base"
        )
        states = base.States(model, data)
        base.tune(model, words, data, states, plan.base_steps, plan.seed)
        _save(model, folder)
        processor.save_pretrained(folder)
        model.float()
        valid = measure.base_validity(model, words)
        base.tune(model, words, data, states, plan.saturation_steps, plan.seed + 1, peak=3e-4)
        return {
            "parameters": model.num_parameters(),
            "test_valid": valid,
            f"test_valid_after_{plan.saturation_steps}_more_steps": measure.base_validity(model, words),
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


def build(out: Path, plan: Plan | None = None) -> Path:
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
    _base(work, plan)
    _publish(work, out)
    progress.say("measuring what was built")
    return _provenance(out, work, plan, time.monotonic() - start)


def _provenance(out: Path, work: Path, plan: Plan, seconds: float) -> Path:
    import torch
    import transformers

    from rba_bench.micro.build import measure

    stages = {p.parent.name: files.read_json(p) for p in sorted(work.glob("*/stage.json"))}
    files.write_json(out / "baseline.json", measure.baseline_answers(out))
    weights = {
        p.relative_to(out).as_posix(): files.sha256_file(p) for p in sorted(out.glob("*/*.safetensors"))
    }
    facts = {
        "made_by": f"rba-bench {__version__}: rba-bench micro build",
        "plan": asdict(plan),
        "stages": {name: {k: v for k, v in stage.items() if k != "key"} for name, stage in stages.items()},
        "measured": measure.measure(out),
        "seconds_this_run": round(seconds),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "espeak-ng": espeak.version(),
        },
        "machine": platform.machine(),
        "sha256": weights,
    }
    files.write_json(out / "provenance.json", facts)
    return out / "provenance.json"
