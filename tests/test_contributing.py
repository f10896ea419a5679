"""The ten changes of CONTRIBUTING.md, made in a copy of the project, each in the files that its row names.

Every change is real: the copy is imported by a fresh process, which finds the new thing by its name and uses it.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import Program

ROOT = Path(__file__).resolve().parents[1]
PATH = re.compile(r"`([\w./]+\.\w+)`")


class Edit(NamedTuple):
    """`text` behind (or before) the only `anchor` of a file, or a new file where there is no anchor."""

    text: str
    anchor: str = ""
    before: bool = False


class Change(NamedTuple):
    """Edits by file, and a program that asserts that the new thing is there and works."""

    edits: dict[str, Edit | tuple[Edit, ...]]
    probe: str


CHANGES = {
    "metric": Change(
        {
            "rba_bench/metrics/brevity.py": Edit(
                '"""Brevity."""\n\n\ndef brevity(answer: str) -> float:\n    return 1 / (1 + len(answer.split()))\n'
            ),
            "rba_bench/evaluation/metric.py": (
                Edit(
                    "from rba_bench.metrics.brevity import brevity\n",
                    "from rba_bench.metrics.bleu import corpus_metric\n",
                ),
                Edit(
                    '    Metric("brevity", scorer="qa", score=lambda item, answer: brevity(answer),'
                    ' description="Few words."),\n',
                    "METRICS: tuple[Metric, ...] = (\n",
                ),
            ),
            "tasks/triviaqa/micro_brevity.yaml": Edit(
                "include: ../_micro.yaml\ntask: micro_brevity\ndataset_kwargs:\n  testset: micro_triviaqa\n"
                "metric_list:\n  - metric: brevity\n    aggregation: !function rba_bench.evaluation.hooks.mean\n"
                "    higher_is_better: true\nmetadata:\n  version: 1\n  benchmark: triviaqa\n  track: micro\n"
            ),
        },
        """
from rba_bench.evaluation import scoring, task_registry
item = {"id": "a", "kind": "qa", "references": ["paris"], "target_lang": "en"}
assert scoring.score_item(item, "it is paris").scores["brevity"] == 0.25
assert "micro_brevity" in {spec.name for spec in task_registry.list_tasks()}
""",
    ),
    "judge": Change(
        {
            "rba_bench/evaluation/scorers/kindness.py": Edit('''"""Whether an answer is kind."""

from rba_bench.evaluation.metric import ItemScore, metrics_of
from rba_bench.evaluation.scorers.rating import RatingJudge
from rba_bench.textlm.judging import Message


class KindnessJudge(RatingJudge):
    """A rating of kindness."""

    name = "kindness"

    def __init__(self, judge_model, settings, cache_folder, votes=1):
        super().__init__(judge_model, settings, cache_folder, votes)
        self.metrics = metrics_of(self.name)

    def questions(self, sample):
        return (self.settings.question((Message("user", "How kind, 1 to 5? " + sample.extracted),)),)

    def verdict(self, values, facts):
        return ItemScore({"kindness": sum(values) / len(values)})
'''),
            "rba_bench/evaluation/scorers/registry.py": (
                Edit(
                    "from rba_bench.evaluation.scorers.kindness import KindnessJudge\n",
                    "from rba_bench.evaluation.scorers.judge import Judge\n",
                ),
                Edit("KindnessJudge, ", "for scorer in ("),
            ),
            "rba_bench/evaluation/metric.py": Edit(
                '    Metric("kindness", scorer="kindness", description="Mean kindness by a judge."),\n',
                "METRICS: tuple[Metric, ...] = (\n",
            ),
        },
        """
from pathlib import Path
from rba_bench.evaluation.scorers.judge import JudgeSettings
from rba_bench.evaluation.scorers.registry import JUDGES, scorer_class
from rba_bench.textlm.judging import JudgeModel, Reply
from rba_bench.evaluation.records import Sample

class Friend(JudgeModel):
    name = "friend"

    def identity(self):
        return {"kind": "text", "path": "somewhere", "weights_sha256": "00"}

    def ask(self, questions):
        return ((place, Reply("4")) for place in range(len(questions)))

assert "kindness" in JUDGES
judge = scorer_class({"name": "kindness"})(
    Friend(), JudgeSettings(max_tokens=8, temperature=0.0), Path("votes")
)
sample = Sample(doc_id=0, id="a", kind="chat", group="all", cluster="a", audio_sha256="0" * 64, duration=1.0, prompt="",
                instruction="hello", source_lang="en", target_lang="en", response="hello you", extracted="hello you",
                references=[], scores={}, status="ok", n_tokens=2, seed=0)
assert judge.score([sample])[0].scores == {"kindness": 4.0}
""",
    ),
    "reward": Change(
        {
            "rba_bench/training/rewards/brevity.py": Edit('''"""Few words are good."""

from rba_bench.training.rewards.reward import Reward


class Brevity(Reward):
    """Minus the number of words."""

    def __call__(self, rows, responses):
        return [-float(len(response.split())) for response in responses]
'''),
            "rba_bench/training/rewards/combined.py": (
                Edit(
                    "from rba_bench.training.rewards.brevity import Brevity\n",
                    "from rba_bench.training.rewards.classifier import",
                    before=True,
                ),
                Edit(
                    '    "brevity": lambda context: Brevity(),\n',
                    "REWARDS: dict[str, Callable[[RewardContext], Reward]] = {\n",
                ),
            ),
            "rba_bench/training/options/nested_options.py": Edit(
                '    "brevity",\n', "RewardName = Literal[\n"
            ),
        },
        """
from rba_bench.training.options.nested_options import RewardOptions
from rba_bench.training.rewards import build_reward
from types import SimpleNamespace
row = SimpleNamespace(
    kind="qa", user_text="", last_user_text="", turns=(), response="", target_lang="en", references=(), constraints=""
)
reward = build_reward(RewardOptions(qa="brevity"), ["qa"])
assert reward([row], ["two words"]) == [-2.0]
""",
    ),
    "model family": Change(
        {
            "rba_bench/speechlm/audiolm/families/echo.py": Edit('''"""Echo."""

from rba_bench.speechlm.audiolm.families.generic import Generic


class Echo(Generic):
    """A model of type `echo`."""
'''),
            "rba_bench/speechlm/audiolm/families/__init__.py": Edit(
                '    "echo": Entry("echo", "Echo", "me/echo"),\n', "FAMILIES: dict[str, Entry] = {\n"
            ),
        },
        """
from rba_bench.speechlm.audiolm.families import family_class
assert family_class("echo").__name__ == "Echo"
""",
    ),
    "loss": Change(
        {
            "rba_bench/training/losses/preference.py": Edit(
                '''


def hinge(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta * (chosen - rejected)), [P]."""
    return (1 - beta * (chosen - rejected)).clamp(min=0)
''',
                "\nfrom rba_bench.training.losses.likelihood import sequence_logprobs\n",
            ),
            "rba_bench/training/methods/preference.py": (
                Edit("hinge, ", "from rba_bench.training.losses.preference import "),
                Edit(
                    '        if method == "hinge":\n            return hinge(*self.ratios(step), beta)\n',
                    "        chosen, rejected = self.ratios(step)\n        if method",
                    before=True,
                ),
            ),
            "rba_bench/training/options/presets.py": (
                Edit('"hinge", ', '"rba-single", "rba-group", "dpo", '),
                Edit(
                    '    "hinge": _preference_preset("a hinge on pairs", "single", "none", "token"),\n',
                    "PRESETS: dict[str, Preset] = {\n",
                ),
            ),
        },
        """
from rba_bench.training.methods import METHOD_CLASSES
from rba_bench.training.training_recipe import TrainingRecipe
import torch
from rba_bench.training.losses.preference import hinge
assert METHOD_CLASSES["hinge"].__name__ == "Preference"
assert TrainingRecipe.model_validate({"method": "hinge"}).method == "hinge"
assert hinge(torch.tensor([1.0]), torch.tensor([0.0]), 0.5).item() == 0.5
""",
    ),
    "speech engine": Change(
        {
            "rba_bench/audio/beep.py": Edit('''"""An engine that beeps."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Beep:
    name: str


BANKS = {"beeps": (Beep("low"), Beep("high"))}


def version() -> str:
    return "1"


def speak(text, language, voice):
    return np.full(1600 * len(text.split()), 0.1, dtype=np.float32)
'''),
            "rba_bench/audio/speech_engines.py": (
                Edit(", beep", "from rba_bench.audio import espeak"),
                Edit(
                    '\n    SpeechEngine("beep", beep.version, beep.speak, beep.BANKS),\n    ',
                    "ENGINES = (",
                ),
            ),
            "pyproject.toml": Edit('beep = ["numpy"]\n', "[project.optional-dependencies]\n"),
        },
        """
from rba_bench.audio.speech_engines import VOICE_BANKS, engine_of_bank
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
assert [voice.name for voice in VOICE_BANKS["beeps"]] == ["low", "high"]
assert len(engine_of_bank("beeps").speak("two words", "en", VOICE_BANKS["beeps"][0])) == 3200
assert SynthesisRecipe.model_validate({"voice_bank": "beeps", "voices_per_instruction": 2}).voice_bank == "beeps"
""",
    ),
    "task": Change(
        {
            "tasks/colours/colours.yaml": Edit(
                "include: ../_qa.yaml\ntask: colours\ndataset_kwargs:\n  source: colours\nmetric_list:\n"
                "  - metric: exact_match\n    aggregation: !function rba_bench.evaluation.hooks.mean\n"
                "    higher_is_better: true\nmetadata:\n  version: 1\n  benchmark: colours\n  track: full\n"
            ),
            "rba_bench/evaluation/sources/colours.py": Edit('''"""Colours."""

from rba_bench.evaluation import documents
from rba_bench.evaluation.sources.source import LoadedSet, check_options
from rba_bench.evaluation.sources.tables import Clip


def load_colours(options, place):
    check_options(options)
    clip = Clip("0" * 64, 16_000, 1.0, "/snow.wav")
    item = documents.make_document(id="a", kind="qa", clip=clip, instruction="the colour of snow", references=["white"])
    return LoadedSet([item], {"repo": "colours", "revision": "1"})
'''),
            "rba_bench/evaluation/sources/source.py": Edit(
                '    "colours": "colours",\n', "SOURCES = {  # name -> module of this package\n"
            ),
        },
        """
from rba_bench.evaluation import task_registry
from rba_bench.evaluation.sources.source import Place, load_source
assert "colours" in {spec.name for spec in task_registry.list_tasks()}
assert load_source("colours", {}, Place()).documents[0]["references"] == ["white"]
""",
    ),
    "column of the leaderboard": Change(
        {
            "rba_bench/leaderboard/columns.py": Edit(
                '    Column("seed", lambda group, row, metric: str(min(row.run.record.seeds.values()))),\n',
                "SECTION_COLUMNS = (\n",
            ),
        },
        """
from pathlib import Path
from rba_bench.leaderboard import board_groups, loaded_runs, pages
records = Path(ROOT) / "leaderboards" / "micro" / "records"
folders = [f for f in loaded_runs.find_runs([records / "sft", records / "base"]) if "micro_covost2" in str(f)]
runs = [loaded_runs.load_checked_run(folder) for folder in folders[:2]]
groups = board_groups.group_runs(runs, "sft")
assert "| seed |" in pages.index_page({"covost2": groups[0]}, runs, [], [])
""",
    ),
    "resume rule": Change(
        {
            "rba_bench/speechlm/compose.py": Edit(
                ", resume_rule=lambda signed, wanted: ()",
                'claim(out, "compose", identity',
            ),
        },
        """
import inspect
from rba_bench.outputs import claim, release
from rba_bench.speechlm import compose
assert "resume_rule=" in inspect.getsource(compose)
claim("folder", "compose", {"encoder": 1, "seed": 1})
release("folder")
assert claim("folder", "compose", {"encoder": 1, "seed": 2}, resume_rule=lambda old, new: ())
""",
    ),
    "perturbation": Change(
        {
            "rba_bench/audio/perturbations.py": Edit(
                '    "mute": PerturbationKind("mute", lambda wave, value, choice, rng: wave * 0),\n',
                "PERTURBATIONS = {\n",
            ),
        },
        """
import numpy as np
from rba_bench.audio.perturbations import parse_perturbation
assert not parse_perturbation("gain=-6dB,mute").apply(np.ones(800, dtype=np.float32), "clip").any()
""",
    ),
}


def files_of_rows() -> dict[str, list[str]]:
    """The files that each row of the table in CONTRIBUTING.md names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Ten changes", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| an? ([\w ]+) \|(.*)\|$", table, re.MULTILINE)
    return {name: PATH.findall(files) for name, files in rows}


def is_named(path: str, named: list[str]) -> bool:
    """Whether a row names a path; words in capitals stand for a name that the contributor chooses."""
    patterns = [re.sub(r"[A-Z]{3,}", r"[\\w-]+", re.escape(name).replace(r"\.", r"[.]")) for name in named]
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def test_the_table_has_the_ten_changes_with_three_files_at_most():
    rows = files_of_rows()
    assert set(rows) == set(CHANGES) and len(rows) == 10
    for name, change in CHANGES.items():
        assert len(rows[name]) <= 3, name
        for path in change.edits:
            assert is_named(path, rows[name]), f"a {name} needs {path}, which CONTRIBUTING.md does not name"


@pytest.fixture(scope="module")
def changed_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all ten changes made."""
    copy = tmp_path_factory.mktemp("stranger") / "project"
    skipped = shutil.ignore_patterns("*.safetensors")
    for folder in ("rba_bench", "tasks", "recipes"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for change in CHANGES.values():
        for path, edits in change.edits.items():
            for edit in (edits,) if isinstance(edits, Edit) else edits:
                apply(copy / path, edit)
    return copy


def apply(path: Path, edit: Edit) -> None:
    """Make one edit."""
    if not edit.anchor:
        assert not path.exists(), path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edit.text, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    assert text.count(edit.anchor) == 1, f"{path}: {edit.anchor!r}"
    new = edit.text + edit.anchor if edit.before else edit.anchor + edit.text
    path.write_text(text.replace(edit.anchor, new), encoding="utf-8")


def test_each_change_works_in_the_files_that_are_named(
    changed_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    probes = "".join(
        f"def probe_{number}():\n"
        + "".join(f"    {line}\n" for line in change.probe.strip().splitlines())
        + f"probe_{number}()\nprint({name!r})\n"
        for number, (name, change) in enumerate(CHANGES.items())
    )
    monkeypatch.chdir(tmp_path)
    changed = {"PYTHONPATH": str(changed_copy), "RBA_CACHE": str(tmp_path / "cache")}
    said = Program("-c", f"ROOT = {str(ROOT)!r}\n{probes}", **changed).output()
    assert said.splitlines() == list(CHANGES)
