"""The filters of real teachers in a run: rules, near duplicates, test sets, labels."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_teacher import FakeTeacher
from stages_of import decisions

from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_file
from rba_bench.synthesis.filtering import InstructionFilter
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import (
    LEVEL_PROMPT,
    LEVELS,
    TOPIC_PROMPT,
    TOPICS,
    Labels,
    LikelihoodLabeller,
)
from rba_bench.textlm.text_model import Decoding, Generation

pytest.importorskip("datasketch")
pytest.importorskip("lingua")
ASKED = (
    ("Hello! How can I help you today?", "Hi."),
    (
        "Why do the leaves of most trees turn yellow and red in autumn?",
        "The green dye breaks down and yellow ones stay.",
    ),
    ("So why do the leaves of most trees turn yellow and red in autumn?", "Because the days are short."),
    ("Wie wird das Wetter morgen in Hamburg sein?", "Es wird regnen."),
    ("Which river runs through the city of Vienna?", "The Danube."),
    ("What should I pack for a week in the mountains?", "I'm sorry, but I can't help with that."),
    ("Tell me a short story about a lighthouse keeper.", "He lit the lamp, and the ships came home."),
    ("How do bees find their way back to the hive?", "They look at the sun and remember the land."),
    ("What can I cook with two eggs and some spinach?", "Make an omelette, and fold the spinach in."),
    ("Name a good book about the history of bread.", "Try one about the bakers of your own town."),
)


class Scripted(FakeTeacher):
    """Writes ASKED in turn."""

    rounds = 0

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        first, self.rounds = self.rounds * len(prompts), self.rounds + 1
        texts = [ASKED[(first + i) % len(ASKED)][0] for i in range(len(prompts))]
        return [Generation(text, 9, "ok") for text in texts]

    def _answer(self, text: str, seed: int) -> Generation:
        return Generation(dict(ASKED)[text], 9, "ok")


def recipe_with(**filters: Any) -> SynthesisRecipe:
    return SynthesisRecipe.model_validate(
        {
            **{"tagger": None, "n_instructions": 5, "max_words": 30, "round_size": 5, "shard_size": 2},
            **{"voices_per_instruction": 1, "text_filters": filters},
        }
    )


def reasons_by_text(out: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in decisions(out):
        reason = record["reason"] if record["reason"] != KEPT else record["answer"]
        found.setdefault(ASKED[record["index"] % len(ASKED)][0], reason)
    return found


def test_rules_and_near_duplicates_drop_what_they_should(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    recipe = recipe_with(rules={}, near_duplicates={})
    data = AlignmentSet.open(synthesize(recipe, tmp_path / "set", teacher=Scripted()))
    assert reasons_by_text(tmp_path / "set") == {
        ASKED[0][0]: "no_instruction",
        ASKED[1][0]: KEPT,
        ASKED[2][0]: "near_duplicate",
        ASKED[3][0]: "language",
        ASKED[4][0]: KEPT,
        ASKED[5][0]: "refusal",
        ASKED[6][0]: KEPT,
        ASKED[7][0]: KEPT,
        # two have no place until it is known that one before them was not answered; then they come again
        ASKED[8][0]: "surplus",
        ASKED[9][0]: "surplus",
    }
    assert ASKED[8][0] in {row.instruction for row in data.rows()}
    dropped = data.manifest["filters"]["instructions"]["dropped"]
    assert dropped["near_duplicate"]["n"] >= 1
    assert dropped["near_duplicate"]["meaning"] == "nearly the same words as an earlier one"
    assert data.manifest["filters"]["answers"]["dropped"]["refusal"]["n"] >= 1
    plain = recipe_with()
    synthesize(plain, tmp_path / "plain", teacher=Scripted())
    assert (
        Counter(reasons_by_text(tmp_path / "plain").values())[KEPT] == 5
    )  # the first five, whatever they are


def test_near_duplicates_are_found_after_a_restart(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    recipe, out = recipe_with(rules={}, near_duplicates={}), tmp_path / "set"
    whole = AlignmentSet.open(synthesize(recipe, out, teacher=Scripted()))
    shutil.copytree(out, tmp_path / "torn")
    last = max((out / "filter").glob("filter-*")).name.partition(".")[0]
    assert last > "filter-00000"
    for name in (f"done/{last}.json", MANIFEST, "shards/part-00001.parquet"):
        (tmp_path / "torn" / name).unlink()
    again = AlignmentSet.open(synthesize(recipe, tmp_path / "torn", teacher=Scripted()))
    assert again.sha256 == whole.sha256
    for name in (f"filter/{last}.jsonl.gz", f"filter/{last.replace('filter', 'state')}.npz"):
        assert sha256_file(out / name) == sha256_file(tmp_path / "torn" / name)


def test_nothing_repeats_a_file_or_a_shipped_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tests.txt").write_text("which river runs through the city of vienna\n")
    recipe = recipe_with(against=[str(tmp_path / "tests.txt")])
    manifest = AlignmentSet.open(synthesize(recipe, tmp_path / "set", teacher=Scripted())).manifest
    assert reasons_by_text(tmp_path / "set")[ASKED[4][0]] == "contaminated"
    assert manifest["test_sets"]["checked"] == {"tests.txt": 1} and str(tmp_path) not in str(
        manifest["test_sets"]
    )
    with pytest.raises(MissingPrerequisite, match=r"--against .*no file"):
        synthesize(recipe_with(against=["nowhere.txt"]), tmp_path / "other", teacher=Scripted())


def test_an_llm_labels_what_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")

    class Says:
        def label(self, texts: Sequence[str]) -> list[Labels]:
            return [
                Labels("advice", "hard") if "cook" in text else Labels("others", "easy") for text in texts
            ]

        def identity(self) -> dict[str, Any]:
            return {"method": "by hand"}

    recipe = recipe_with()
    filters = InstructionFilter(recipe, Says())
    labels = [{"kind": "instruct", "prompt": "", "instruction": text} for text, _ in ASKED[6:9]]
    same = {"source_lang": "en", "target_lang": "en", "topic": "", "difficulty": "", "reason": KEPT}
    asked = [
        {"index": i, "text": one["instruction"], **one, **same, "answer": {"reason": KEPT, "response": "yes"}}
        for i, one in enumerate(labels)
    ]
    found, _ = filters.decide(asked)
    assert [(one["topic"], one["difficulty"]) for one in found] == [
        ("others", "easy"),
        ("others", "easy"),
        ("advice", "hard"),
    ]
    assert filters.facts() == {"labels": {"method": "by hand"}}


def test_a_local_model_gives_known_labels_that_depend_on_the_text_alone(tiny_textlm_dir: Path) -> None:
    from rba_bench.textlm.local import LocalTextLM

    lm = LocalTextLM.from_pretrained(tiny_textlm_dir, batch_size=5)
    labeller = LikelihoodLabeller(lm)
    texts = [text for text, _ in ASKED]
    found = labeller.label(texts)
    assert found[3:5] == labeller.label(texts[3:5])
    for prompt, labels, said in (
        (TOPIC_PROMPT, list(TOPICS), [one.topic for one in found]),
        (LEVEL_PROMPT, list(LEVELS), [one.difficulty for one in found]),
    ):
        for text, label in zip(texts, said, strict=True):
            values = lm.logprobs([prompt.replace("{text}", text)] * len(labels), labels)
            assert label == labels[values.index(max(values))]
    assert labeller.label(["word " * 600, texts[3]]) == [Labels(), found[3]]  # no room for the first
    assert labeller.identity()["method"] == "likelihood"


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"rules": {"languag": "en"}}, {"near_duplicates": {"threshold": 2}}):
        with pytest.raises((ValueError, UserError)):
            recipe_with(**wrong)
