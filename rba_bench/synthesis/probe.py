"""A probe of a synthesis: what a few candidates cost with the real teacher, filters, voices and recogniser.

The stages run one after the other in a temporary folder, so that each can be timed; nothing of it becomes part of a
set. Where a candidate is one of the set's first, it is the same text. What is loaded or compiled at the first use is
counted as the start.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rba_bench.audio.speech_engines import SpeechEngine
from rba_bench.errors import RbaError, UserError
from rba_bench.progress import say
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.asking import Asker, InstructionAsker, ask_shard
from rba_bench.synthesis.corpora import Utterance, read_utterances
from rba_bench.synthesis.filtering import FilteredShard, InstructionFilter, ShardFilter, filter_shard
from rba_bench.synthesis.pipeline import TestSets, prepare_stages
from rba_bench.synthesis.quality import RewardLoader
from rba_bench.synthesis.shards import clips_name
from rba_bench.synthesis.speaking import RowMaker, SpeakJob, speak_shard
from rba_bench.synthesis.speech import SpokenClips
from rba_bench.synthesis.stopwatch import Stopwatch
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import Labeller, Labels
from rba_bench.synthesis.teacher import find_query, load_teacher
from rba_bench.synthesis.texts.near_duplicates import sketch_texts
from rba_bench.textlm.judging import Message
from rba_bench.textlm.text_model import Decoding, Generation, TextLM

ITEMS = 20  # candidates
MOST_ROUNDS = 5  # of so many candidates, until something is usable
WITHOUT_LIMIT = 10**9
QUESTION = "Which kind of tree grows best beside a river?"
INSTRUCTIONS, ANSWERS, RULES, FILTER, LABELS = "instructions", "answers", "rules", "filter", "labels"
SPEECH, CLIPS, ROUND_TRIP, FILES = "speech", "clips", "round trip", "files"
STEPS = {  # step: its stage
    INSTRUCTIONS: "ask", ANSWERS: "ask", RULES: "ask", FILTER: "filter", LABELS: "filter",
    SPEECH: "speak", CLIPS: "speak", ROUND_TRIP: "speak", FILES: "speak",
}  # fmt: skip


@dataclass
class Probe:
    """What was measured.

    Attributes:
        candidates: How many were asked for, or utterances translated.
        utterances: All of the recipe's source; 0 without one.
        instructions, answers: Candidates by reason.
        kinds: Usable instructions by kind.
        clips: Clips that were made.
        dropped_clips: Of these, by reason.
        speech: Mean seconds of the kept clips of each instruction.
        seconds, cpu_s: Of each key of STEPS that was taken, for all candidates; on the wall, and of the processor.
        start_s: Seconds until the first candidate, and the first clip, could be made.
        prompt_tokens: Of the teacher; None where nobody counts them.
        completion_tokens: Of the teacher, without the tokens that end an answer where it does not count them.
        stage_bytes: Of the files of `ask` and `filter`, and all markers.
        set_bytes: Of the clips' shard.
    """

    candidates: int = 0
    utterances: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    clips: int = 0
    dropped_clips: Counter[str] = field(default_factory=Counter)
    speech: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    start_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    stage_bytes: int = 0
    set_bytes: int = 0

    @property
    def usable(self) -> int:
        """Instructions that would be spoken."""
        return self.kinds.total()


def probe_synthesis(
    recipe: SynthesisRecipe,
    items: int = ITEMS,
    *,
    teacher: TextLM | None = None,
    engine: SpeechEngine | None = None,
    test_sets: TestSets | None = None,
    load_reward: RewardLoader | None = None,
) -> Probe:
    """Measure a few candidates. Arguments and errors as of `pipeline.synthesize`.

    Args:
        recipe: What is to be made.
        items: Candidates, or utterances of the recipe's source; where none of them is usable, or a kind that the
            recipe needs does not occur, so many more, at most MOST_ROUNDS times.
        teacher: A loaded text model instead of `recipe.teacher`.
        engine: A speech engine instead of the one that has `recipe.voice_bank`.
        test_sets: Reads what `text_filters.decontaminate` compares with.
        load_reward: Reads the reward model of `text_filters.quality`.

    Raises:
        RbaError: nothing usable came.
    """
    if items < 1:
        raise UserError(f"--probe-items is {items}: use 1 or more")
    watch, probe = Stopwatch(), Probe()
    utterances = read_utterances(recipe.source) if recipe.source is not None else []
    probe.utterances = len(utterances)
    with TemporaryDirectory(prefix="rba-bench-probe-") as folder:
        with watch.timing("start"):
            loaded = teacher or load_teacher(recipe)
            measured = MeasuredTeacher(loaded, watch)
            query = find_query(recipe) if recipe.samples_turns and teacher is None else None
            some = _sample(utterances, items * MOST_ROUNDS, recipe.seed)
            wide = _without_limits(recipe, items)
            stages = prepare_stages(
                wide,
                measured,
                query,
                some,
                engine,
                scorer=loaded,
                test_sets=test_sets,
                load_reward=load_reward,
            )
            _load_filters(*stages[:2])
        say(f"probe: {items} {'utterances' if utterances else 'candidates'}")
        units = _ask_and_filter(probe, recipe, Path(folder), stages, measured)
        probe.prompt_tokens, probe.completion_tokens = measured.tokens_read(), measured.tokens_written
        probe.stage_bytes = _bytes(Path(folder))
        say(f"probe: {len(units)} usable; they are spoken")
        _speak(probe, Path(folder), stages[2], units, watch)
    probe.start_s = watch.seconds.pop("start")
    probe.seconds, probe.cpu_s = ({name: times.get(name, 0.0) for name in STEPS if name in times}
                                  for times in (watch.seconds, watch.cpu_s))  # fmt: skip
    return probe


def _load_filters(asker: Asker, shards: ShardFilter) -> None:
    """Load what the filters load at their first text: a second of 20 candidates would be hours of a million."""
    if isinstance(asker, InstructionAsker) and asker.rules is not None:
        asker.rules.judge_instruction(QUESTION)
    options = shards.recipe.text_filters.near_duplicates if isinstance(shards, InstructionFilter) else None
    if options is not None:
        sketch_texts([QUESTION], options)


def _without_limits(recipe: SynthesisRecipe, items: int) -> SynthesisRecipe:
    """The recipe in rounds of so many candidates, of which none is too many."""
    free = {"round_size": items, "n_instructions": WITHOUT_LIMIT, "kinds": None, "max_candidates": None}
    return recipe.model_copy(update=free)


def _sample(utterances: list[Utterance], n: int, seed: int) -> list[Utterance]:
    """Some utterances from everywhere, in the order of a hash: corpora are sorted by language and speaker."""
    return sorted(utterances, key=lambda one: stable_seed("probe", seed, one.id))[:n]


def _ask_and_filter(
    probe: Probe,
    recipe: SynthesisRecipe,
    out: Path,
    stages: tuple[Asker, ShardFilter, RowMaker],
    teacher: "MeasuredTeacher",
) -> list[Any]:
    """Usable units of as many rounds as it takes."""
    (asker, shards, _), watch = stages, teacher.watch
    if isinstance(shards, InstructionFilter) and shards.labeller is not None:
        shards.labeller = _TimedLabeller(shards.labeller, watch)
    before: FilteredShard | None = None
    units: list[Any] = []
    for number in range(min(MOST_ROUNDS, asker.shards)):
        teacher.calls = 0 if recipe.source is None else 1  # transcripts are answered at once
        with watch.timing("ask"):
            asked = ask_shard(out, asker, number)
        with watch.timing("filter and labels"):
            before = filter_shard(out, shards, None, before, number, lambda _, asked=asked: asked)  # type: ignore[misc]
        probe.candidates += len(asked[0])
        probe.instructions.update(before.instructions)
        probe.answers.update(before.answers)
        units += shards.units(out, number)
        if units and not missing_kinds(recipe, shards.kinds):
            break
    probe.kinds = Counter(shards.kinds)
    for whole, rest, parts in (
        ("ask", RULES, (INSTRUCTIONS, ANSWERS)),
        ("filter and labels", FILTER, (LABELS,)),
    ):
        for times in (watch.seconds, watch.cpu_s):
            times[rest] = max(0.0, times[whole] - sum(times.get(part, 0.0) for part in parts))
    if not units:
        raise RbaError(f"none of the probe's {probe.candidates} candidates is usable: {_told(probe)}")
    return units


def missing_kinds(recipe: SynthesisRecipe, found: Mapping[str, int]) -> list[str]:
    """Kinds that the recipe needs and the probe did not find; none where the others are enough."""
    if recipe.kinds is None or recipe.source is not None:
        return []
    absent = [kind for kind in recipe.kinds if not found.get(kind)]
    possible = sum(n for kind, n in recipe.kinds.items() if kind not in absent)
    return [] if possible >= recipe.n_instructions else list(absent)


def _told(probe: Probe) -> str:
    reasons = [f"{name} {n}" for name, n in probe.instructions.most_common()]
    return ", ".join([*reasons, *(f"answer {name} {n}" for name, n in probe.answers.most_common())])


def _speak(probe: Probe, out: Path, maker: RowMaker, units: Sequence[Any], watch: Stopwatch) -> None:
    """Speak the units, one of them once more: voices, recogniser and parquet are loaded at the first use."""
    import pyarrow.parquet as pq

    with watch.timing("start"):
        speak_shard(SpeakJob(out, clips_name(1), "", tuple(units[:1]), 0), maker)
    if isinstance(maker, SpokenClips):
        maker.watch = Stopwatch()
    name = clips_name(0)
    with watch.timing(FILES):
        marker = speak_shard(SpeakJob(out, name, "", tuple(units), 0), maker)
    if isinstance(maker, SpokenClips):
        for times, own in ((watch.seconds, maker.watch.seconds), (watch.cpu_s, maker.watch.cpu_s)):
            times |= own
            times[FILES] = max(0.0, times[FILES] - sum(own.values()))
        if maker.recipe.round_trip is None:
            watch.seconds.pop(ROUND_TRIP), watch.cpu_s.pop(ROUND_TRIP)
    probe.dropped_clips = Counter(clip["reason"] for clip in marker["dropped"])
    probe.clips = marker["rows"] + len(marker["dropped"])
    probe.set_bytes = (out / name).stat().st_size if marker["rows"] else 0
    seconds: dict[str, list[float]] = {}
    for row in pq.read_table(out / name, columns=["group_id", "duration"]).to_pylist():
        seconds.setdefault(row["group_id"], []).append(row["duration"])
    earlier = marker.get("earlier_seconds", 0.0) / max(
        1, marker["rows"]
    )  # turns of dialogues before the last
    probe.speech = [sum(found) / len(found) + earlier for found in seconds.values()]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class MeasuredTeacher(TextLM):
    """A teacher whose time and tokens are counted: what it is asked first in a round are instructions.

    Args:
        teacher: Who is asked.
        watch: Takes the times.

    Attributes:
        calls: Of this round.
        tokens_written: In all answers.
    """

    def __init__(self, teacher: TextLM, watch: Stopwatch) -> None:
        self.teacher, self.watch = teacher, watch
        self.streams = teacher.streams
        self.calls = self.tokens_written = 0

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.chat`."""
        self.calls += 1
        with self.watch.timing(INSTRUCTIONS if self.calls == 1 else ANSWERS):
            return self._counted(self.teacher.chat(user_texts, decoding, seeds))

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """See `TextLM.converse`."""
        with self.watch.timing(ANSWERS):
            return self._counted(self.teacher.converse(conversations, decoding, seeds))

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.complete`."""
        self.calls += 1
        with self.watch.timing(INSTRUCTIONS):
            return self._counted(self.teacher.complete(prompts, decoding, seeds))

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `TextLM.logprobs`."""
        return self.teacher.logprobs(user_texts, responses)

    def pre_query_template(self) -> str:
        """See `TextLM.pre_query_template`."""
        return self.teacher.pre_query_template()

    def identity(self) -> dict[str, Any]:
        """See `TextLM.identity`."""
        return self.teacher.identity()

    def tokens_read(self) -> int | None:
        """See `TextLM.tokens_read`."""
        return self.teacher.tokens_read()

    def _counted(self, found: list[Generation]) -> list[Generation]:
        self.tokens_written += sum(one.n_tokens for one in found)
        return found


class _TimedLabeller:
    """A labeller whose time is taken."""

    def __init__(self, labeller: Labeller, watch: Stopwatch) -> None:
        self.labeller, self.watch = labeller, watch

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """See `Labeller`."""
        with self.watch.timing(LABELS):
            return self.labeller.label(texts)

    def identity(self) -> dict[str, Any]:
        """See `Labeller`."""
        return self.labeller.identity()
