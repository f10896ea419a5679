"""Whole runs: contents, resumption after a kill, repair, refusal."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher

from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet
from rba_bench.audio.espeak import Voice
from rba_bench.audio.speech_engines import engine_of_bank
from rba_bench.cards import CARD, front_matter
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json, sha256_file
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.signing import signed_config
from rba_bench.synthesis.synthesis_recipe import RoundTripOptions, SynthesisRecipe

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from fake_teacher import FakeTeacher
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.signing import signed_config
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
synthesize(SynthesisRecipe.model_validate_json({recipe!r}), Path({out!r}), teacher=FakeTeacher())
"""


def contents(out: Path) -> dict[str, str]:
    """Hash by name of everything a run leaves but the dated manifest and what was asked.

    How many shards are asked for ahead depends on the moment; what was taken of them is in the markers of `filter`.
    """
    files = [path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {
        str(path.relative_to(out)): sha256_file(path) for path in files if not path.name.startswith("ask-")
    }


def test_manifest_describes_the_set(finished: Path, small_recipe: SynthesisRecipe) -> None:
    manifest = read_json(finished / MANIFEST)
    counts = manifest["counts"]
    assert (counts["groups"], counts["clips"]) == (20, 40)
    assert manifest["status"] == "complete" and manifest["schema_version"] == 1
    assert sum(counts["clips_by_kind"].values()) == 40 == sum(counts["clips_by_voice"].values())
    assert manifest["recipe"] == small_recipe.resolved()
    instructions = manifest["filters"]["instructions"]
    assert instructions["kept"] + sum(d["n"] for d in instructions["dropped"].values()) == instructions["n"]
    assert instructions["dropped"]["held_out"]["n"] > 0
    assert manifest["teacher"]["pre_query_template"] == "<|bos|><|user|>"
    assert manifest["teacher"]["weights_sha256"] == FakeTeacher().identity()["weights_sha256"]
    assert manifest["checksums"] == {
        f"shards/{path.name}": sha256_file(path) for path in (finished / "shards").glob("*.parquet")
    }
    assert len(manifest["checksums"]) == 3
    assert str(finished) not in (finished / MANIFEST).read_text()


def test_killed_run_ends_with_the_same_bytes(
    tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe
) -> None:
    """kill -9 as soon as the first shard is done, then the same command again."""
    out, tests = tmp_path / "set", str(Path(__file__).parent)
    script = CHILD.format(tests=tests, recipe=small_recipe.model_dump_json(), out=str(out))
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (out / "done" / "part-00000.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (out / "done" / "part-00000.json").exists()
    first = (out / "shards" / "part-00000.parquet").stat().st_mtime_ns
    synthesize(small_recipe, out, teacher=FakeTeacher())
    assert (out / "shards" / "part-00000.parquet").stat().st_mtime_ns == first
    assert contents(out) == contents(finished)
    assert AlignmentSet.open(out).sha256 == AlignmentSet.open(finished).sha256


def test_a_barren_teacher_is_given_up_with_the_reasons(tmp_path: Path, small_recipe: SynthesisRecipe) -> None:
    recipe = small_recipe.model_copy(
        update={"n_instructions": 30, "kinds": {"s2tt": 30}, "max_candidates": 32}
    )
    with pytest.raises(RbaError, match=r"32 candidates gave \d+ of 30 .*quota \d+.*raise max_candidates"):
        synthesize(recipe, tmp_path / "set", teacher=FakeTeacher())


def test_workers_change_no_byte(tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe) -> None:
    out = synthesize(small_recipe, tmp_path / "set", teacher=FakeTeacher(), workers=2)
    assert contents(out) == contents(finished)


@pytest.mark.parametrize("clips_until_failure", [0, 7, 17, 30])
def test_interruption_anywhere_while_speaking(
    tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe, clips_until_failure: int
) -> None:
    real, left = engine_of_bank(small_recipe.voice_bank), [clips_until_failure]

    def failing(text: str, language: str, voice: Voice):  # type: ignore[no-untyped-def]
        if left[0] <= 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return real.speak(text, language, voice)

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        synthesize(small_recipe, out, teacher=FakeTeacher(), engine=replace(real, speak=failing))
    with pytest.raises(UserError, match="no finished alignment set"):
        AlignmentSet.open(out)
    synthesize(small_recipe, out, teacher=FakeTeacher())
    assert contents(out) == contents(finished)


def test_rerun_of_a_complete_set_does_nothing(
    tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe
) -> None:
    out = shutil.copytree(finished, tmp_path / "set")
    before = (out / MANIFEST).read_bytes()
    idle = FakeTeacher()
    synthesize(small_recipe, out, teacher=idle)
    assert idle.calls == 0 and (out / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "marker"])
def test_damage_is_noticed_and_repaired(
    tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe, harm: str
) -> None:
    out = shutil.copytree(finished, tmp_path / "set")
    shard = out / "shards" / "part-00001.parquet"
    data = bytearray(shard.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif harm == "truncate":
        shard.write_bytes(data[:-100])
    else:
        shard.unlink()
    if harm == "marker":
        (out / "done" / "part-00001.json").write_text("{")
    with pytest.raises(
        UserError, match=r"shard .*part-00001\.parquet is (damaged|missing); run `rba-bench synth"
    ) as caught:
        AlignmentSet.open(out)
    assert caught.value.exit_code == 2
    synthesize(small_recipe, out, teacher=FakeTeacher())
    assert contents(out) == contents(finished)
    AlignmentSet.open(out)


def test_leftovers_of_a_torn_write_are_removed(
    tmp_path: Path, finished: Path, small_recipe: SynthesisRecipe
) -> None:
    out = shutil.copytree(finished, tmp_path / "set")
    (out / MANIFEST).unlink()
    (out / "shards" / ".part-00002.parquet.99.tmp").write_bytes(b"half")
    synthesize(small_recipe, out, teacher=FakeTeacher())
    assert contents(out) == contents(finished)


def test_folder_of_another_recipe_or_teacher_is_refused(
    finished: Path, small_recipe: SynthesisRecipe
) -> None:
    other = small_recipe.model_copy(update={"voices_per_instruction": 3})
    with pytest.raises(UserError, match="voices_per_instruction: 2 -> 3"):
        synthesize(other, finished, teacher=FakeTeacher())
    with pytest.raises(UserError, match="teacher_weights_sha256"):
        synthesize(small_recipe, finished, teacher=FakeTeacher(bad_answers=1))
    patient = small_recipe.model_copy(update={"max_candidates": 9999, "batch_size": 2})
    assert synthesize(patient, finished, teacher=FakeTeacher()) == finished


def test_a_missing_teacher_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no teacher at ./nowhere"):
        synthesize(SynthesisRecipe(teacher="./nowhere/at/all"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_card_says_what_made_the_set(
    finished: Path, small_recipe: SynthesisRecipe, tmp_path: Path
) -> None:
    text, metadata = (finished / CARD).read_text(), front_matter(finished / CARD)
    manifest = read_json(finished / MANIFEST)
    assert (
        "synthetic" in metadata["tags"] and "license" not in metadata
    )  # nobody said what a fake teacher gives
    assert "Alignment set of 20 instructions in 40 clips" in text and str(finished) not in text
    assert manifest["teacher"]["weights_sha256"] in text and f"espeak-ng {manifest['tts']['version']}" in text
    dropped = manifest["filters"]["instructions"]["dropped"]["held_out"]
    assert f"| held_out | {dropped['n']} | {dropped['meaning']} |" in text
    out = shutil.copytree(finished, tmp_path / "set")
    (out / CARD).unlink()
    synthesize(small_recipe, out, teacher=FakeTeacher())  # a set of before cards were written gets one
    assert (out / CARD).read_text() == text


def test_keys_of_later_versions_count_only_where_they_are_used(
    small_recipe: SynthesisRecipe,
) -> None:
    """Else a half-made set of an earlier version could not be resumed."""
    identity = FakeTeacher().identity()
    plain = signed_config(small_recipe, identity, [])
    assert "round_trip" not in plain and "voices" not in plain
    usual = small_recipe.model_copy(update={"round_trip": RoundTripOptions()})
    assert set(signed_config(usual, identity, [])["round_trip"]) == {
        "recognizer", "max_wer", "batch_size", "device",
    }  # fmt: skip
    quick = RoundTripOptions(precision="bfloat16", silence_s=10)
    signed = signed_config(small_recipe.model_copy(update={"round_trip": quick}), identity, [])["round_trip"]
    assert (signed["precision"], signed["silence_s"]) == ("bfloat16", 10)
