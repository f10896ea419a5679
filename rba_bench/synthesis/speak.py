"""From a text benchmark to a spoken one (`rba-bench speak`). Running it again resumes.

Every parquet file is made in one piece with a marker beside it (`rba_bench.synthesis.shards`), so a killed run loses
the clips of one file at most. Equal settings give equal bytes, on processors of one kind.
"""

import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import rba_bench
from rba_bench.audio.alignment_set import ROW_GROUP_SIZE
from rba_bench.audio.speech_engines import Speaker, find_speakers
from rba_bench.audio.spoken_benchmark import (
    BASELINES,
    DATA,
    DROPPED,
    FORMAT,
    MANIFEST,
    SCHEMA_VERSION,
    SpokenBenchmark,
    benchmark_schema,
)
from rba_bench.cards import last_path_part
from rba_bench.errors import RbaError, UserError
from rba_bench.files import folder_name, is_name, sha256_file, sha256_json, sweep, write_atomic, write_json
from rba_bench.machine import package_versions
from rba_bench.outputs import claim, release
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.recognizers import Recognizer, load_recognizer, recognizer_facts
from rba_bench.synthesis.benchmark_card import write_benchmark_card
from rba_bench.synthesis.benchmark_layouts import TextBenchmark, TextItem, default_name, read_benchmark
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.round_trip import ClipRules, Clock, RoundTrip, Verdict, count_verdicts, judge_text
from rba_bench.synthesis.shards import finished_shard, parquet_bytes, write_shard

RECOGNIZER, NO_RECOGNIZER = "asset:whisper-tiny.en", "none"
CLIPS_PER_SHARD = ROW_GROUP_SIZE
_PACKAGES = ("espeakng-loader", "piper-tts", "numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers")


@dataclass(frozen=True)
class SpeakOptions:
    """How a text benchmark is spoken.

    Attributes:
        layout: Of the file, a key of `benchmark_layouts.LAYOUTS`.
        voices: See `rba_bench.audio.speech_engines.find_speakers`.
        name: Of the benchmark; by default that of the file.
        per_text: Voices in which each text is spoken; with 1 the voices come in turn.
        limit: Only the first texts of the file.
        language: Code of the language of the texts.
        recognizer: Transcribes every clip, see `rba_bench.speechlm.recognizers.load_recognizer`; `none` for
            no round trip.
        max_wer: Clips with a higher word error rate are dropped.
        max_seconds: Longer clips are dropped; 30 s is the window of a Whisper encoder.
        seed: Of the draw that gives the texts their voices.
        batch_size: Clips that the recogniser transcribes at once.
        device: Torch device of the recogniser.
    """

    layout: str
    voices: tuple[str, ...]
    name: str = ""
    per_text: int = 1
    limit: int | None = None
    language: str = "en"
    recognizer: str = RECOGNIZER
    max_wer: float = 0.5
    max_seconds: float = 30.0
    seed: int = 0
    batch_size: int = 16
    device: str = "cpu"


NOT_CONTENT = ("voices", "limit", "batch_size", "device")  # the speakers and texts themselves are signed


def speak_benchmark(source: Path, out: Path, options: SpeakOptions) -> SpokenBenchmark:
    """Speak the benchmark in a file, or finish what an earlier run began.

    Args:
        source: The file.
        out: Folder for the spoken benchmark.
        options: How.

    Raises:
        MissingPrerequisite: No such file, engine, voice or recogniser.
        UserError: The file is of another layout, an option is wrong, or `out` belongs to another run.
        RbaError: No clip is kept.
    """
    work = _Work.of(source, out, options)
    resumes = claim(out, "speak", work.config())
    try:
        if resumes:
            with suppress(RbaError):  # unfinished, or damaged: repaired file by file
                finished = SpokenBenchmark.open(out)
                say(f"{out} is complete already")
                write_benchmark_card(finished)
                return finished
        work.make()
        made = SpokenBenchmark.open(out)
        write_benchmark_card(made)
        return made
    finally:
        release(out)


@dataclass(frozen=True)
class _Work:
    """One benchmark on its way to `out`."""

    source: Path
    out: Path
    options: SpeakOptions
    name: str
    texts: TextBenchmark
    speakers: list[Speaker]

    @classmethod
    def of(cls, source: Path, out: Path, options: SpeakOptions) -> "_Work":
        """All that can be wrong with the options is found here, before anything is written."""
        name = options.name or default_name(source)
        if not is_name(name):
            raise UserError(f"--name {name!r} must consist of letters, digits and . _ + = -")
        speakers = find_speakers(options.voices)
        if options.per_text > len(speakers):
            raise UserError(
                f"--per-text {options.per_text} needs as many voices; --voices has {len(speakers)}"
            )
        if options.recognizer == RECOGNIZER and options.language != "en":
            raise UserError(
                f"{RECOGNIZER} transcribes English only: name a recogniser of {options.language!r} with --recognizer, "
                f"or `--recognizer {NO_RECOGNIZER}`"
            )
        texts = read_benchmark(source, options.layout, name, options.limit)
        return cls(source, Path(out), options, name, texts, speakers)

    def config(self) -> dict[str, Any]:
        """Everything that decides the content of the folder."""
        chosen = {key: value for key, value in asdict(self.options).items() if key not in NOT_CONTENT}
        speakers = [speaker.facts() for speaker in self.speakers]
        recognizer = last_path_part(self.options.recognizer)
        own = {
            "name": self.name,
            "recognizer": recognizer,
            "speakers": speakers,
            "texts_sha256": self.texts.sha256,
        }
        return chosen | own

    def make(self) -> None:
        """Speak what is not there yet; the manifest is written last."""
        rules = ClipRules(self.options.language, self.options.max_seconds, self.options.max_wer)
        judged = [(item, *judge_text(item, rules)) for item in self.texts.items]
        unspoken = [
            Verdict("", item.id, reason=why, detail=kind) for item, why, kind in judged if why != KEPT
        ]
        spoken = self._with_voices([item for item, reason, _ in judged if reason == KEPT])
        recognizer = self._recognizer()
        trip = RoundTrip(rules, recognizer, self.options.batch_size)
        checksums, verdicts = self._write_shards(spoken, trip)
        if not any(verdict.reason == KEPT for verdict in verdicts):
            reasons = sorted({verdict.reason for verdict in [*unspoken, *verdicts]})
            raise RbaError(f"no clip of {len(self.texts.items)} texts is kept: {', '.join(reasons)}")
        self._write_baselines()
        dropped = [verdict for verdict in [*unspoken, *verdicts] if verdict.reason != KEPT]
        lines = [json.dumps(_facts(verdict), ensure_ascii=False) for verdict in dropped]
        write_atomic(self.out / DROPPED, "".join(f"{line}\n" for line in lines))
        self._write_manifest(checksums, unspoken, verdicts, recognizer)
        _say_times(trip.clock)

    def _with_voices(self, items: Sequence[TextItem]) -> list[tuple[TextItem, list[Speaker]]]:
        """Each text with its voices. They come in turn, but over the texts in an order that the seed draws.

        So all voices say as many texts, and a file that is sorted in some way does not give one voice all of a kind.
        """
        per_text, seed, n = self.options.per_text, self.options.seed, len(self.speakers)
        drawn = sorted(items, key=lambda item: stable_seed("speak", seed, item.id))
        turn = {item.id: number * per_text for number, item in enumerate(drawn)}
        return [(item, [self.speakers[(turn[item.id] + k) % n] for k in range(per_text)]) for item in items]

    def _recognizer(self) -> Recognizer | None:
        options = self.options
        if options.recognizer == NO_RECOGNIZER:
            return None
        settings: dict[str, Any] = {"device": options.device, "batch_size": options.batch_size}
        return load_recognizer(
            options.recognizer, language=options.language, strict_language=False, **settings
        )

    def _write_shards(
        self, spoken: Sequence[tuple[TextItem, list[Speaker]]], trip: RoundTrip
    ) -> tuple[dict[str, str], list[Verdict]]:
        sweep(self.out / DATA)  # half-written files of a killed run
        size = max(1, CLIPS_PER_SHARD // self.options.per_text)
        parts = [spoken[start : start + size] for start in range(0, len(spoken), size)]
        checksums: dict[str, str] = {}
        verdicts: list[Verdict] = []
        total = len(spoken) * self.options.per_text
        with bar(f"speaking {self.name}", total, unit="clips") as advance:
            for number, part in enumerate(parts):
                name = f"{DATA}/test-{number:05d}-of-{len(parts):05d}.parquet"
                plan = self._plan(part, trip)
                done = finished_shard(self.out, name, plan)
                if done is None:
                    rows, made = trip.rows(part, advance)
                    facts = [asdict(verdict) for verdict in made]
                    data = parquet_bytes(rows, benchmark_schema())
                    done = write_shard(self.out, name, plan, data, verdicts=facts)
                else:
                    advance(len(done["verdicts"]))
                checksums[name] = str(done["sha256"])
                verdicts += [Verdict(**verdict) for verdict in done["verdicts"]]
        return checksums, verdicts

    def _plan(self, part: Sequence[tuple[TextItem, list[Speaker]]], trip: RoundTrip) -> str:
        """Hash of everything that decides the rows of these texts."""
        return sha256_json([
            rba_bench.__version__,
            asdict(trip.rules),
            self._recognizer_facts(trip.recognizer),
            self._engines,
            [[item.content(), [speaker.facts() for speaker in speakers]] for item, speakers in part],
        ])  # fmt: skip

    @cached_property
    def _engines(self) -> dict[str, str]:
        return {speaker.engine.name: speaker.engine.version() for speaker in self.speakers}

    def _recognizer_facts(self, recognizer: Recognizer | None) -> dict[str, Any] | None:
        """The recogniser, without paths of this machine."""
        if recognizer is None:
            return None
        return recognizer_facts(self.options.recognizer, recognizer)

    def _write_baselines(self) -> None:
        """Answers of each reference system, for `rba-bench eval --baseline`."""
        for system in self.texts.systems:
            answers = [
                {"instruction": item.text, "output": item.outputs[system], "generator": system, "id": item.id}
                for item in self.texts.items
                if system in item.outputs
            ]
            write_json(self.out / BASELINES / f"{folder_name(system)}.json", answers)

    def _write_manifest(
        self,
        checksums: dict[str, str],
        unspoken: Sequence[Verdict],
        verdicts: Sequence[Verdict],
        recognizer: Recognizer | None,
    ) -> None:
        options = self.options
        used = {verdict.voice for verdict in verdicts}
        file = {"name": self.source.name, "sha256": sha256_file(self.source), "items": self.texts.in_file}
        speech = {
            "engines": self._engines,
            "voices": [speaker.facts() for speaker in self.speakers if speaker.name in used],
            "per_text": options.per_text,
            "seed": options.seed,
        }
        manifest = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "kind": self.texts.kind,
            "language": options.language,
            "file": {**file, "layout": options.layout},
            "systems": list(self.texts.systems),
            "speech": speech,
            "round_trip": {"recognizer": self._recognizer_facts(recognizer), "max_wer": options.max_wer},
            "max_seconds": options.max_seconds,
            "counts": count_verdicts(unspoken, verdicts, options.per_text),
            "versions": {
                "rba_bench": rba_bench.__version__,
                "python": platform.python_version(),
                **package_versions(_PACKAGES),
            },
            "checksums": checksums,
        }
        write_json(self.out / MANIFEST, manifest)


def _facts(verdict: Verdict) -> dict[str, Any]:
    """A verdict without what it does not know."""
    empty = {field.name: field.default for field in fields(Verdict)}
    return {name: value for name, value in asdict(verdict).items() if value != empty[name]}


def _say_times(clock: Clock) -> None:
    if clock.speaking:
        say(f"seconds: speaking {clock.speaking:.0f}, recognising {clock.recognising:.0f}")
