"""Dry runs: what the probe measures is what a real run does, and the plan follows from it."""

import json
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from fake_teacher import FakeTeacher
from stages_of import decisions
from typer.testing import CliRunner

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.speech_engines import engine_of_bank
from rba_bench.cli.main import app
from rba_bench.cli.synth_plan import parse_price
from rba_bench.errors import AudioError, RbaError, UserError
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.plan import _candidates_for, plan_synthesis
from rba_bench.synthesis.probe import ITEMS, MOST_ROUNDS, Probe, probe_synthesis
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import load_teacher
from rba_bench.textlm.text_model import Decoding, Generation

pytest.importorskip("espeakng_loader")


def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_recipe: SynthesisRecipe
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    probe_synthesis(small_recipe, teacher=FakeTeacher())
    assert list(tmp_path.iterdir()) == []


def test_the_probe_is_the_beginning_of_the_set(tmp_path: Path, small_recipe: SynthesisRecipe) -> None:
    """The same decisions as a run in rounds of as many candidates, with the bytes that such a run writes."""
    probe = probe_synthesis(small_recipe, teacher=FakeTeacher(bad_answers=2))
    assert probe.candidates == ITEMS == probe.instructions.total()
    wide = small_recipe.model_copy(update={"round_size": ITEMS, "n_instructions": 2 * probe.usable})
    out = synthesize(wide, tmp_path / "set", teacher=FakeTeacher(bad_answers=2))
    real = decisions(out)
    first = real[:ITEMS]
    assert probe.instructions == Counter(one["reason"] for one in first)
    assert probe.answers == Counter(one["answer"] for one in first if "answer" in one)
    assert probe.answers["empty"] > 0 < probe.instructions["unparsed"]
    data = AlignmentSet.open(out)
    known = [one["group_id"] for one in first if one.get("answer") == "kept"]
    rows = [row for row in data.rows() if row.group_id in known]
    assert probe.clips == len(rows) == 2 * probe.usable
    assert sum(probe.speech) * 2 == pytest.approx(sum(row.duration for row in rows))
    written = sum(file.stat().st_size for file in out.rglob("*.parquet"))
    each = written / data.manifest["counts"]["clips"]
    assert probe.set_bytes / probe.clips == pytest.approx(each, rel=0.2)
    stages = sum(file.stat().st_size for name in ("ask", "filter", "done") for file in out.glob(f"{name}/*"))
    assert probe.stage_bytes / ITEMS == pytest.approx(stages / len(real), rel=0.3)


def test_steps_are_timed_and_a_slow_voice_is_seen(small_recipe: SynthesisRecipe) -> None:
    import time

    real = engine_of_bank(small_recipe.voice_bank)

    def slow(text, language, voice):  # type: ignore[no-untyped-def]
        time.sleep(0.05)
        return real.speak(text, language, voice)

    probe = probe_synthesis(small_recipe, 6, teacher=FakeTeacher(), engine=replace(real, speak=slow))
    assert set(probe.seconds) == set(probe.cpu_s) == {
        "instructions", "answers", "rules", "filter", "speech", "clips", "files",
    }  # fmt: skip
    assert probe.seconds["speech"] > 0.05 * probe.clips
    assert probe.cpu_s["speech"] < probe.seconds["speech"]  # it slept
    plan = plan_synthesis(small_recipe, probe, workers=0)
    assert plan.slowest == "filter and speak"
    assert plan.stage_h["filter and speak"].value * 3600 > 0.05 * 40
    two = plan_synthesis(small_recipe, probe, workers=2)
    four = plan_synthesis(small_recipe, probe, workers=4)
    assert two.slowest == "speak"
    assert two.stage_h["speak"].value == pytest.approx(2 * four.stage_h["speak"].value)


class TestPlan:
    """Numbers of the plan from given measurements."""

    probe = Probe(
        candidates=20, kinds=Counter(instruct=5), instructions=Counter(kept=6, too_long=14),
        answers=Counter(kept=5, empty=1), clips=10, dropped_clips=Counter(high_wer=2), speech=[4.0, 6.0, 5.0],
        seconds={"instructions": 10.0, "answers": 5.0, "filter": 1.0, "speech": 2.0, "files": 1.0},
        cpu_s={"instructions": 20.0, "answers": 10.0, "filter": 1.0, "speech": 2.0, "files": 1.0},
        start_s=3.0, prompt_tokens=1000, completion_tokens=2000, stage_bytes=4000, set_bytes=80_000,
    )  # fmt: skip
    recipe = SynthesisRecipe(n_instructions=100, voices_per_instruction=2)

    def test_of_the_whole_set(self) -> None:
        plan = plan_synthesis(self.recipe, self.probe, workers=1)
        assert plan.candidates.value == 400  # a quarter is usable
        assert plan.candidates.low < 250 and plan.candidates.high > 800
        assert plan.clips.value == pytest.approx(160)  # a fifth is dropped
        assert plan.speech_h.value == pytest.approx(160 * 5 / 3600)
        assert plan.speech_h.low < plan.speech_h.value < plan.speech_h.high
        assert plan.stage_h["ask"].value * 3600 == pytest.approx(400 * 15 / 20)
        assert plan.stage_h["filter"].value * 3600 == pytest.approx(400 / 20)
        assert plan.stage_h["speak"].value * 3600 == pytest.approx(200 * 3 / 10)
        assert plan.set_bytes.value == pytest.approx(160 * 10_000)
        assert plan.stage_bytes.value == pytest.approx(400 * 200)
        work = 400 * 31 / 20 + 200 * 3 / 10
        assert plan.stage_h["processor"].value * 3600 == pytest.approx(work / plan.cores)
        longest = max(hours.value for name, hours in plan.stage_h.items() if name != "start")
        assert plan.hours.value * 3600 == pytest.approx(longest * 3600 + 3.0)

    def test_dollars(self) -> None:
        assert plan_synthesis(self.recipe, self.probe, 1).dollars.value == 0  # type: ignore[union-attr]
        server = self.recipe.model_copy(update={"teacher": "openai:http://localhost:1/v1#m"})
        assert plan_synthesis(server, self.probe, 1).dollars is None
        priced = plan_synthesis(server, self.probe, 1, (0.5, 2.0))
        assert priced.dollars is not None
        assert priced.dollars.value == pytest.approx((20_000 * 0.5 + 40_000 * 2.0) / 1e6)
        assert priced.dollars.low < priced.dollars.value < priced.dollars.high
        uncounted = replace(self.probe, prompt_tokens=0)
        assert plan_synthesis(server, uncounted, 1, (0.5, 2.0)).dollars is None

    def test_a_kind_that_did_not_occur_is_not_guessed(self) -> None:
        recipe = self.recipe.model_copy(update={"kinds": {"instruct": 60, "qa": 40}})
        with pytest.raises(RbaError, match="none of 20 candidates is of kind qa"):
            plan_synthesis(recipe, self.probe, 1)
        enough = self.recipe.model_copy(update={"kinds": {"instruct": 100, "qa": 40}})
        assert plan_synthesis(enough, self.probe, 1).candidates.value == 400

    def test_a_run_that_would_give_up_is_foretold(self) -> None:
        recipe = self.recipe.model_copy(update={"max_candidates": 300})
        assert any("max_candidates" in remark for remark in plan_synthesis(recipe, self.probe, 1).remarks)

    def test_without_a_kept_clip_nothing_is_said_of_the_size(self) -> None:
        probe = replace(self.probe, dropped_clips=Counter(high_wer=10), speech=[], set_bytes=0)
        plan = plan_synthesis(self.recipe, probe, 1)
        assert plan.clips.value == 0 and any("none of the probe's 10 clips" in line for line in plan.remarks)


@pytest.mark.parametrize("seed", range(20))
def test_candidates_until_kinds_with_limits_are_enough(seed: int) -> None:
    """Against counting, one candidate after the other."""
    rng = random.Random(seed)
    shares = [(rng.uniform(0.01, 0.3), rng.randint(0, 80)) for _ in range(rng.randint(1, 3))]
    wanted = rng.randint(1, max(1, sum(limit for _, limit in shares)))
    possible = sum(limit for _, limit in shares) >= wanted
    n = 0
    while possible and sum(min(limit, share * n) for share, limit in shares) < wanted - 1e-9:
        n += 1
    found = _candidates_for(float(wanted), shares)
    assert found == (pytest.approx(n, abs=1) if possible else float("inf"))


class Barren(FakeTeacher):
    """Writes nothing usable in its first rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def complete(self, prompts, decoding, seeds):  # type: ignore[no-untyped-def]
        self.rounds -= 1
        if self.rounds >= 0:
            return [Generation("what is what is", 4, "truncated") for _ in seeds]
        return super().complete(prompts, decoding, seeds)


def test_a_barren_teacher_gets_more_rounds_and_is_then_given_up(small_recipe: SynthesisRecipe) -> None:
    assert probe_synthesis(small_recipe, 8, teacher=Barren(2)).candidates == 24
    with pytest.raises(RbaError, match=rf"none of the probe's {8 * MOST_ROUNDS} candidates.*truncated 40"):
        probe_synthesis(small_recipe, 8, teacher=Barren(99))
    with pytest.raises(UserError, match="--probe-items is 0"):
        probe_synthesis(small_recipe, 0, teacher=FakeTeacher())


def test_clips_that_cannot_be_spoken_are_counted(small_recipe: SynthesisRecipe) -> None:
    real, calls = engine_of_bank(small_recipe.voice_bank), []

    def mute(text, language, voice):  # type: ignore[no-untyped-def]
        calls.append(text)
        if len(text) % 2:
            raise AudioError("no words")
        return real.speak(text, language, voice)

    probe = probe_synthesis(small_recipe, teacher=FakeTeacher(), engine=replace(real, speak=mute))
    assert 0 < probe.dropped_clips["not_spoken"] < probe.clips == 2 * probe.usable
    plan = plan_synthesis(small_recipe, probe, 1)
    kept = 1 - probe.dropped_clips["not_spoken"] / probe.clips
    assert plan.clips.value == pytest.approx(40 * kept)


class Translator(FakeTeacher):
    """Repeats what it is to translate."""

    def chat(self, user_texts, decoding, seeds):  # type: ignore[no-untyped-def]
        return [Generation(text.split("\n\n")[1], 3, "ok") for text in user_texts]


def test_recorded_speech(tmp_path: Path) -> None:
    """Utterances come from everywhere in the list; all are translated, whatever becomes of them."""
    lines = []
    for number in range(300):
        if number % 3 == 0:  # a third has no transcript, and needs no sound
            transcript = ""
        else:
            transcript = f"Satz {number}"
            wave = np.sin(np.arange(8000) / 11) * 0.2
            sf.write(tmp_path / f"{number}.wav", wave, 16_000)
        lines.append(
            {"audio": f"{number}.wav", "transcript": transcript, "source_lang": "de", "target_lang": "en"}
        )
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = SynthesisRecipe.model_validate(
        {"tagger": None, "source": {"manifest": str(tmp_path / "list.jsonl")}}
    )
    probe = probe_synthesis(recipe, 30, teacher=Translator())
    assert probe.candidates == 30 and probe.utterances == 300
    assert probe.answers["no_transcript"] + probe.answers["kept"] == 30
    assert set(probe.seconds) == {"answers", "rules", "filter", "files"}
    plan = plan_synthesis(recipe, probe, 0)
    assert plan.candidates.value == plan.candidates.high == 300
    assert plan.instructions.low < 200 < plan.instructions.high
    assert plan.speech_h.value == pytest.approx(plan.clips.value * 0.5 / 3600)


def test_tokens_of_a_local_teacher() -> None:
    """As its tokenizer counts them: the pre-query template for each candidate, and each answered turn."""
    recipe = SynthesisRecipe(n_instructions=10, voices_per_instruction=1)
    teacher = load_teacher(recipe)
    ids = teacher.tokenizer(teacher.pre_query_template(), add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]
    teacher.complete([teacher.pre_query_template()] * 5, Decoding(2), range(5))
    assert teacher.tokens_read() == 5 * len(ids)
    probe = probe_synthesis(recipe, 8, teacher=teacher)
    assert probe.prompt_tokens > probe.candidates * len(ids)  # type: ignore[operator]
    assert probe.completion_tokens > probe.usable


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["synth", "--dry-run", "--probe-items", "12", "--workers", "2", "--out", "set"]
    run = CliRunner().invoke(app, [*words, "--json", "--price-per-million-tokens", "1,2"])
    assert run.exit_code == 0, run.output
    plan = json.loads(run.stdout)
    assert plan["probe"]["candidates"] >= 12 and plan["workers"] == 2
    tokens = plan["prompt_tokens"]["value"] + 2 * plan["completion_tokens"]["value"]
    assert plan["dollars"]["value"] == pytest.approx(tokens / 1e6)
    assert list(tmp_path.iterdir()) == []
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    for line in (
        "probe    ",
        "needs    ",
        "time     about",
        "disk     set",
        "tokens   prompt",
        "dollars  0.00",
    ):
        assert line in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--probe-items", "3"], "belong to --dry-run"),
        (["--price-per-million-tokens", "1,2"], "belong to --dry-run"),
        (["--dry-run", "--seal", "x"], "leave out --seal"),
        (["--dry-run", "--price-per-million-tokens", "1"], "two numbers"),
        (["--dry-run", "--price-per-million-tokens", "1,-2"], "two numbers"),
        (["--dry-run", "--price-per-million-tokens", "1,nan"], "two numbers"),
    ],
)
def test_options_that_do_not_fit(words: list[str], message: str) -> None:
    run = CliRunner().invoke(app, ["synth", *words])
    assert run.exit_code != 0
    assert message in f"{run.output}{run.exception}"


def test_prices() -> None:
    assert parse_price(None) is None
    assert parse_price("0.88, 1.5") == (0.88, 1.5)
