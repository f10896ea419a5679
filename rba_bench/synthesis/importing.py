"""From a published set of spoken instructions to an alignment set (`rba-bench synth import`). Running it again resumes.

    OUT/shards/part-00000.parquet   DIALOGUES entries of the source each, with a marker in OUT/done
    OUT/dropped.jsonl               what was left out, with the reason
    OUT/manifest.json               as of a sealed set, with `imported`; written last

Each exchange with a usable clip is a row: 16 kHz mono FLAC, tidied words, and the exchanges before it as `turns`. A
missing or broken clip costs its row, not the run. Ids and split follow from the source alone, wherever it lies. All
exchanges of a dialogue share a split, and so do equal first instructions.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet, shard_schema
from rba_bench.audio.samples import is_silent
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.set_card import write_set_card
from rba_bench.errors import AudioError, MissingPrerequisite, RbaError, UserError, first_line
from rba_bench.files import read_json, sha256_json, sweep, write_atomic, write_json
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.recipes import suggest
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import KEPT, judge_answer, tidy, tidy_lines
from rba_bench.synthesis.import_layouts import LAYOUTS, Dialogue, Exchange, Layout, source_files
from rba_bench.synthesis.shards import SHARDS, finished_shard, parquet_bytes, write_shard
from rba_bench.synthesis.speaking import THREADS
from rba_bench.synthesis.texts.speakable import is_malformed
from rba_bench.synthesis.units import text_id

MAKER = 1  # raised where other rows are made of the same source: a folder that was begun before is made anew
DIALOGUES = 256  # entries in a shard
SEALED_CLIPS = 1000  # clips that are decoded again at the end; all were, when they were written
DROPPED, IMPORTED = "dropped.jsonl", "imported"
REASONS = {
    "layout": "the entry is not of the layout",
    "no_instruction": "no words of the user, or template marks or control characters in them",
    "no_answer": "no answer, or template marks or control characters in it",
    "no_history": "an earlier turn lacks its words or its answer",
    "no_clip": "the entry names no recording, or a place outside the folder of the audio",
    "missing_clip": "the recording is not there (--audio names the folder in which its path begins)",
    "broken_clip": "no sound can be read from the recording",
    "silent": "the recording is silent",
    "too_long": "the recording is longer than --max-seconds",
}


@dataclass(frozen=True)
class ImportOptions:
    """How a set is read.

    Attributes:
        layout: A key of LAYOUTS.
        audio: Folder that the set's audio paths begin in; by default that of the source.
        language: Code of the language of the set.
        max_seconds: Longer clips are left out; 30 s is the window of a Whisper encoder.
        validation: Share of instructions that is held out.
        limit: Only the first exchanges of the source.
    """

    layout: str
    audio: Path | None = None
    language: str = "en"
    max_seconds: float = 30.0
    validation: float = 0.02
    limit: int | None = None


def import_set(source: Path, out: Path, options: ImportOptions) -> AlignmentSet:
    """Make an alignment set of a published one, or finish what an earlier call began.

    Args:
        source: File or folder of the set.
        out: Folder for the alignment set.
        options: How it is read.

    Raises:
        MissingPrerequisite: The source is not there.
        UserError: An option is wrong, the source is of another layout, or `out` holds something else.
        RbaError: No row can be used.
    """
    if options.layout not in LAYOUTS:
        raise UserError(f"unknown --layout {options.layout!r}{suggest(options.layout, LAYOUTS)}")
    if not 0 <= options.validation < 1:
        raise UserError(f"a validation share of {options.validation:g}: use 0 or more, and less than 1")
    layout = LAYOUTS[options.layout]
    root = source if source.is_dir() else source.parent
    if out.resolve() == root.resolve():
        raise UserError(f"{out} is the folder of the source: choose another --out")
    files = source_files(source, layout, out)
    if options.audio is not None and not options.audio.is_dir():
        raise MissingPrerequisite(f"no folder {options.audio}: --audio names where the audio paths begin")
    named = [(file.relative_to(root).as_posix(), file) for file in files]
    config = {
        **asdict(options),
        "maker": MAKER,
        "files": [[name, path.stat().st_size] for name, path in named],
    }
    del config["audio"]  # the same clips may lie elsewhere
    claim(out, "import", config)
    try:
        manifest = read_json(out / MANIFEST) if (out / MANIFEST).is_file() else {}
        if IMPORTED in manifest:
            say(f"{out} is complete already")
            return AlignmentSet.open(out)
        dialogues = chain.from_iterable(
            layout.read(path, name, options.audio or root) for name, path in named
        )
        return _Import(out, options, layout).make(islice(dialogues, options.limit))
    finally:
        release(out)


@dataclass(frozen=True)
class _Import:
    out: Path
    options: ImportOptions
    layout: Layout

    def make(self, dialogues: Iterator[Dialogue]) -> AlignmentSet:
        """Write shards, what was dropped, and the manifest."""
        sweep(self.out / SHARDS)
        dropped, kept, number = Counter[str](), 0, 0
        with ThreadPoolExecutor(THREADS) as pool:
            while part := list(islice(dialogues, DIALOGUES)):
                done = self._shard(number, part, pool)
                kept += done["rows"]
                dropped.update(one["reason"] for one in done["dropped"])
                number += 1
                say(f"import: {kept:,} clips kept, {dropped.total():,} left out")
        write_atomic(self.out / DROPPED, self._dropped_lines(number))
        if not kept:
            reasons = ", ".join(f"{reason} {n}" for reason, n in dropped.most_common()) or "no entries"
            raise RbaError(f"no clip of the set can be used: {reasons} (see {self.out / DROPPED})")
        return self._seal(dropped)

    def _shard(self, number: int, part: Sequence[Dialogue], pool: ThreadPoolExecutor) -> dict[str, Any]:
        name = f"{SHARDS}/part-{number:05d}.parquet"
        rules = [MAKER, self.options.language, self.options.max_seconds, self.options.validation]
        # a recording that has come since an unfinished run is worth another try
        present = [_is_there(one) for dialogue in part for one in dialogue.exchanges]
        contents = [_content(dialogue) for dialogue in part]
        plan = sha256_json([self.options.layout, rules, contents, present])
        done = finished_shard(self.out, name, plan)
        if done is None:
            rows, dropped = [], []
            for dialogue, (row, reason, detail) in zip(part, pool.map(self._row, part), strict=True):
                if row is not None:
                    rows.append(row)
                else:
                    place = {"file": dialogue.place[0], "entry": dialogue.place[1], "id": dialogue.name}
                    dropped.append(
                        {**place, "turn": len(dialogue.exchanges), "reason": reason, "detail": detail}
                    )
            data = parquet_bytes(rows, shard_schema(turns=self.layout.has_turns))
            done = write_shard(self.out, name, plan, data, rows=len(rows), dropped=dropped)
        return done

    def _row(self, dialogue: Dialogue) -> tuple[dict[str, Any] | None, str, str]:
        """The row of a dialogue's last exchange; or None, why, and details of that."""
        if dialogue.fault:
            return None, "layout", dialogue.fault
        *earlier, last = [
            Exchange(tidy(one.instruction), tidy_lines(one.response), one.clip) for one in dialogue.exchanges
        ]
        if reason := _text_fault(last, dialogue.prompt):
            return None, reason, ""
        if any(_text_fault(one) for one in earlier):
            return None, "no_history", ""
        key = sha256_json([self.options.layout, *_content(dialogue)])[:16]
        sound, reason, detail = self._sound(last, f"{key}-0")
        if sound is None:
            return None, reason, detail
        language = self.options.language
        row = {
            **{"id": f"{key}-0", "group_id": key, "kind": "instruct", "prompt": tidy(dialogue.prompt)},
            **{"instruction": last.instruction, "response": last.response},
            **{"source_lang": language, "target_lang": language, "topic": dialogue.topic, "difficulty": ""},
            **{"voice": "", "split": self._split(dialogue)},
            **sound,
        }
        if earlier:
            row["turns"] = [self._turn(one, f"{key}-turn{number}") for number, one in enumerate(earlier)]
        return row, KEPT, ""

    def _turn(self, exchange: Exchange, name: str) -> dict[str, Any]:
        """An earlier turn; its clip is null where it cannot be used, as its words are what the model reads."""
        sound = self._sound(exchange, name)[0]
        audio = None if sound is None else sound["audio"]
        return {"instruction": exchange.instruction, "response": exchange.response, "audio": audio}

    def _sound(self, exchange: Exchange, name: str) -> tuple[dict[str, Any] | None, str, str]:
        """The columns of a clip; or None, why, and details of that."""
        if exchange.clip is None:
            return None, "no_clip", ""
        if not _is_there(exchange):
            return None, "missing_clip", Path(exchange.clip.path).name
        try:
            wave = clips.decode_clip(clips.read_clip_bytes(exchange.clip))
        except AudioError as error:
            return None, "broken_clip", first_line(error)
        if is_silent(wave):
            return None, "silent", ""
        columns = clips.clip_columns(wave, name)
        seconds = float(columns["duration"])
        if seconds > self.options.max_seconds:
            return None, "too_long", f"{seconds:.1f} s"
        return columns, KEPT, ""

    def _split(self, dialogue: Dialogue) -> str:
        draw = stable_seed("split", text_id(dialogue.exchanges[0].instruction)) / 2**63
        return "validation" if draw < self.options.validation else "train"

    def _seal(self, dropped: Counter[str]) -> AlignmentSet:
        """The checks of sealing, and the manifest with where the set comes from."""
        sealed = seal_alignment_set(self.out, SEALED_CLIPS)
        counts = {reason: {"n": dropped[reason], "meaning": text} for reason, text in REASONS.items()}
        imported = {"layout": self.options.layout, "dropped": counts, "max_seconds": self.options.max_seconds}
        write_json(self.out / MANIFEST, {**sealed.manifest, IMPORTED: imported})
        made = AlignmentSet.open(self.out, verify=False)
        write_set_card(made)
        return made

    def _dropped_lines(self, shards: int) -> Iterator[str]:
        for number in range(shards):
            marker = read_json(self.out / "done" / f"part-{number:05d}.json")
            for record in marker["dropped"]:
                yield json.dumps(record, ensure_ascii=False) + "\n"


def _text_fault(exchange: Exchange, prompt: str = "") -> str:
    """Why the tidied words of an exchange cannot be used: a key of REASONS, "" if they can."""
    if (
        not exchange.instruction
        or is_malformed(exchange.instruction)
        or (prompt.strip() and is_malformed(prompt))
    ):
        return "no_instruction"
    return "" if judge_answer(exchange.response, "ok") == KEPT else "no_answer"


def _is_there(exchange: Exchange) -> bool:
    return exchange.clip is not None and Path(exchange.clip.path).is_file()


def _content(dialogue: Dialogue) -> list[Any]:
    """What identifies an entry wherever its set lies, as JSON values."""
    said = [
        [
            one.instruction,
            one.response,
            None if one.clip is None else [Path(one.clip.path).name, one.clip.row],
        ]
        for one in dialogue.exchanges
    ]
    return [*dialogue.place, dialogue.prompt, dialogue.topic, dialogue.fault, said]
