"""Synthesis from start to end: `ask`, `filter`, `speak`, manifest. Running it again resumes.

The stages overlap: while the teacher writes the next shard of candidates (threads), the one before is filtered (here),
and what was kept is spoken (worker processes). They hand on files (`shards`), so each goes on where it was.
"""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_card import write_set_card
from rba_bench.audio.speech_engines import SpeechEngine
from rba_bench.cards import CARD
from rba_bench.errors import RbaError, UserError
from rba_bench.files import sweep
from rba_bench.outputs import claim, release, unclaim
from rba_bench.progress import bar, say
from rba_bench.synthesis.asking import AskAhead, Asker, InstructionAsker
from rba_bench.synthesis.clip_shards import ClipShards
from rba_bench.synthesis.corpora import (
    Recordings,
    TranslationAsker,
    TranslationFilter,
    check_recordings,
    read_utterances,
)
from rba_bench.synthesis.dialogues import DialogueAsker
from rba_bench.synthesis.execution import execution
from rba_bench.synthesis.filtering import FilteredShard, InstructionFilter, ShardFilter, filter_shard
from rba_bench.synthesis.manifest import MoreFacts, write_manifest
from rba_bench.synthesis.quality import RewardLoader, load_scorer
from rba_bench.synthesis.ray_cluster import RayOptions
from rba_bench.synthesis.shards import DONE
from rba_bench.synthesis.signing import signed_config
from rba_bench.synthesis.speaking import RowMaker, SpeakJob
from rba_bench.synthesis.speech import SpokenClips
from rba_bench.synthesis.speech_datasets import dataset_facts
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import load_labeller
from rba_bench.synthesis.teacher import (
    find_dialogue_template,
    find_query,
    teacher_identity,
)
from rba_bench.synthesis.texts.against import read_against
from rba_bench.synthesis.texts.decontamination import BenchmarkIndex, NamedTexts, build_benchmark_index
from rba_bench.synthesis.texts.text_rules import TextRules, TextRuleSettings
from rba_bench.synthesis.utterances import Utterance
from rba_bench.synthesis.yields import check_clips, check_yield
from rba_bench.textlm.query_template import QueryTemplate
from rba_bench.textlm.text_model import TextLM

CLIPS_WORTH_WORKERS = 2000
TestSets = Callable[[], Iterable[NamedTexts]]
NO_RULES = {
    "check_language": False, "drop_unspeakable": False, "drop_maths": False, "drop_no_instruction": False,
    "drop_refusals": False, "drop_unsafe": False,
}  # fmt: skip


def synthesize(
    recipe: SynthesisRecipe,
    out: Path,
    *,
    teacher: TextLM | None = None,
    engine: SpeechEngine | None = None,
    workers: int | None = 0,
    test_sets: TestSets | None = None,
    load_reward: RewardLoader | None = None,
    ray: RayOptions | None = None,
) -> Path:
    """Make the alignment set of `recipe` in `out`, or finish what an earlier run began there.

    Args:
        recipe: what to make.
        out: folder for the stages' files, shards and manifest.
        teacher: a loaded text model to use instead of loading `recipe.teacher`.
        engine: a speech engine to use instead of the one that has `recipe.voice_bank`.
        workers: processes that speak; 0 speaks in this one, None takes as many as the set is worth. The bytes are the
            same. A script that asks for some needs `if __name__ == "__main__":`, as for all of multiprocessing.
        test_sets: reads what `text_filters.decontaminate` compares with.
        load_reward: reads the reward model of `text_filters.quality`.
        ray: ask and speak on a Ray cluster, with `workers` processes that speak (None: as many as there is room for);
            a `teacher` that is given answers in this process.

    Returns:
        `out`, holding a complete alignment set.

    Raises:
        UserError: `out` belongs to another recipe or teacher, or `recipe.source` is not what it should be.
        MissingPrerequisite: no teacher there, no speech synthesiser installed, no speech at `recipe.source`, or no Ray.
        RbaError: the teacher does not yield enough usable instructions.
    """
    out = Path(out)
    identity = teacher_identity(recipe) if teacher is None else teacher.identity()
    utterances = read_utterances(recipe.source) if recipe.source is not None else []
    config = signed_config(recipe, identity, utterances)
    new = not out.exists()
    if workers is None and ray is None:
        workers = worthwhile_workers(recipe, len(utterances))
    resumes = claim(out, "synth", config)
    try:
        finished = False
        if resumes:
            with suppress(UserError):  # a damaged set is repaired shard by shard
                AlignmentSet.open(out)
                finished = True
        if finished:
            say(f"{out} is complete already")
        else:
            run = _Synthesis(
                recipe, out, config, identity, utterances, teacher, engine, test_sets, load_reward
            )
            run.run(workers, ray)
        if not finished or not (out / CARD).is_file():
            write_set_card(AlignmentSet.open(out, verify=False))
    except RbaError:
        if not resumes:  # a mistake in the recipe, say: the corrected one may use the folder
            unclaim(out, remove=new)
        raise
    finally:
        release(out)
    return out


def worthwhile_workers(recipe: SynthesisRecipe, n_utterances: int) -> int:
    """Processes that speak: one a core, but none for a set that is spoken before they have started."""
    clips = n_utterances or recipe.n_instructions * recipe.voices_per_instruction * recipe.turns
    return (os.cpu_count() or 1) if clips >= CLIPS_WORTH_WORKERS or recipe.round_trip is not None else 0


def prepare_stages(
    recipe: SynthesisRecipe,
    teacher: TextLM,
    query: QueryTemplate | None,
    utterances: list[Utterance],
    engine: SpeechEngine | None = None,
    *,
    scorer: TextLM | None = None,
    test_sets: TestSets | None = None,
    load_reward: RewardLoader | None = None,
) -> tuple[Asker, ShardFilter, RowMaker]:
    """The parts of a run that ask, filter and speak, for whoever runs them one by one. Errors as of `synthesize`.

    Args:
        recipe: What to make.
        teacher: Who writes and answers.
        query: What makes it ask; by default the teacher's own.
        utterances: Those of `recipe.source` that are translated; none without one.
        engine: A speech engine to use instead of the one that has `recipe.voice_bank`.
        test_sets: Reads what `text_filters.decontaminate` compares with.
        scorer: Scores its answers where `text_filters.quality` asks for that; by default the teacher.
        load_reward: Reads the reward model of `text_filters.quality`.
    """
    config = signed_config(recipe, teacher.identity(), utterances)
    parts = _Synthesis(recipe, Path(), config, {}, utterances, teacher, engine, test_sets, load_reward)
    maker, shards = parts._maker(), parts._filter(scorer or teacher)
    return parts._asker(teacher, query), shards, maker


@dataclass
class _Synthesis:
    """One run in one folder."""

    recipe: SynthesisRecipe
    out: Path
    config: dict[str, Any]
    identity: dict[str, Any]
    utterances: list[Utterance]
    teacher: TextLM | None
    engine: SpeechEngine | None
    test_sets: TestSets | None
    load_reward: RewardLoader | None
    lanes: int = 1  # shards that are asked at once
    texts: list[FilteredShard] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)  # clips by reason
    earlier_seconds: float = 0.0  # of speech in earlier turns

    def run(self, workers: int | None, ray: RayOptions | None) -> None:
        """All stages, then the manifest; arguments as of `synthesize`."""
        sweep(self.out)  # half-written files of a killed run
        # before the long part: an engine that is not installed is found at once
        maker, given = self._maker(), self.teacher
        query = find_query(self.recipe) if self.recipe.samples_turns and given is None else None
        with execution(
            self.recipe, self.out, maker, self._note, teacher=given, query=query, workers=workers, ray=ray
        ) as run:
            teacher, self.lanes = run.teacher, run.lanes
            shards = self._filter(teacher)
            with closing(self._jobs(self._asker(teacher, query), shards, maker.settings())) as jobs:
                for job in jobs:
                    run.speaker.hand_in(job)
            run.speaker.finish()
        check_clips(len(self.checksums), self.dropped, finished=True)
        template = query.text if query else ""
        if query is None and self.recipe.samples_turns:
            template = teacher.pre_query_template()
        checksums = dict(sorted(self.checksums.items()))
        facts = MoreFacts(
            dropped_clips=self.dropped,
            benchmarks=self.benchmarks,
            models=shards.facts(),
            source=dataset_facts(self.recipe.source, self.utterances),
            earlier_seconds=self.earlier_seconds,
        )
        manifest = write_manifest(
            self.recipe, self.identity, template, maker, self.texts, checksums, self.out, facts
        )
        counts = manifest["counts"]
        groups, clips = counts["groups"], counts["clips"]
        minutes = (counts["hours"] + counts.get("hours_of_earlier_turns", 0.0)) * 60
        say(f"{self.out}: {groups} instructions, {clips} clips, {minutes:.1f} minutes of speech")

    def _maker(self) -> RowMaker:
        begun = (self.out / DONE).is_dir()
        if self.recipe.source is not None:
            if not begun:
                check_recordings(self.utterances)
            return Recordings(self.recipe.source)
        maker = SpokenClips(self.recipe, self.engine)
        if self.recipe.tagger is None and not begun:  # otherwise the languages are not known yet
            maker.try_engines()
        return maker

    def _filter(self, teacher: TextLM) -> ShardFilter:
        if self.recipe.source is not None:
            return TranslationFilter(self.recipe, self.recipe.source, self.utterances)
        _ = self.benchmark_folder  # files of `against` are read before anything is asked
        labels, quality = self.recipe.labels, self.recipe.text_filters.quality
        return InstructionFilter(
            self.recipe,
            None if labels is None else load_labeller(labels.model, labels.device, labels.batch_size),
            None if quality is None else load_scorer(quality, teacher, self.load_reward),
        )

    def _asker(self, teacher: TextLM, query: QueryTemplate | None) -> Asker:
        if self.recipe.source is not None:
            return TranslationAsker(self.recipe, self.recipe.source, self.utterances, teacher)
        settings = self.config
        if self.benchmarks is not None:
            settings = settings | {"benchmarks_sha256": self.benchmarks.content_sha256}
        asked = (self.recipe, teacher, settings, query, self._rules())
        if self.recipe.turns > 1:
            return DialogueAsker(*asked, template=find_dialogue_template(self.recipe))
        return InstructionAsker(*asked)

    def _rules(self) -> TextRules | None:
        """The rules of single texts, with the index of the test sets."""
        wanted, index = self.recipe.text_filters.rules, self.benchmark_folder
        if wanted is None and index is None:
            return None
        settings = wanted or TextRuleSettings.model_validate(NO_RULES)
        if index is not None:
            settings = settings.model_copy(update={"benchmark_index": str(index)})
        return TextRules(settings)

    @cached_property
    def benchmark_folder(self) -> Path | None:
        """The index of what must not be repeated; None where nothing is checked."""
        options = self.recipe.text_filters
        if not (options.decontaminate or options.against):
            return None
        given = [(Path(file).name, read_against(file), "") for file in options.against]
        if not options.decontaminate:
            return build_benchmark_index(given)
        if self.test_sets is None:
            raise UserError(
                "text_filters.decontaminate: `rba-bench synth` knows the test sets of the tasks; use it"
            )
        return build_benchmark_index([*self.test_sets(), *given])

    @cached_property
    def benchmarks(self) -> BenchmarkIndex | None:
        """The same, opened."""
        return None if self.benchmark_folder is None else BenchmarkIndex(self.benchmark_folder)

    def _note(self, name: str, marker: dict[str, Any]) -> None:
        self.dropped.update(clip["reason"] for clip in marker["dropped"])
        if marker["rows"]:
            self.checksums[name] = str(marker["sha256"])
            self.earlier_seconds += marker.get("earlier_seconds", 0.0)
        check_clips(len(self.checksums), self.dropped, finished=False)

    def _jobs(self, asker: Asker, shards: ShardFilter, settings: dict[str, Any]) -> Generator[SpeakJob]:
        """Shards of clips to be made, as soon as their instructions are known."""
        parts = ClipShards(self.out, shards, settings, self.recipe.shard_size, self._note)
        total = self.recipe.n_instructions if self.recipe.source is None else len(self.utterances)
        with ExitStack() as stack:
            advance = stack.enter_context(bar("instructions", total, unit="usable"))
            ahead: list[AskAhead] = []

            def take(number: int) -> tuple[list[dict[str, Any]], str]:
                if not ahead:  # from the first shard on that an earlier run did not finish
                    ahead.append(stack.enter_context(AskAhead(self.out, asker, number, self.lanes)))
                return ahead[0].take(number)

            deciding, before = shards.settings(self.config), None
            for number in count():
                if shards.enough:
                    break
                check_yield(self.recipe, number, shards.kinds.total(), self.texts)
                if number == asker.shards:
                    break
                before = filter_shard(self.out, shards, deciding, before, number, take)
                self.texts.append(before)
                advance(before.kept)
                yield from parts.add(before)
        if not any(shard.kept for shard in self.texts):
            raise RbaError(f"none of {len(self.utterances)} transcripts has a usable translation")
        yield from parts.rest()
