"""Export of an alignment set to the data formats of other trainers: clips as files, and the chats that name them.

    OUT/clips/part-00000/ID.flac    the stored clips: FLAC and WAV as they are, anything else as FLAC
    OUT/train.jsonl                 one chat a line; `validation.jsonl` too, where the set has held-out rows
    OUT/dataset_info.json           for LLaMA-Factory: the data sets by name
    OUT/export.json                 what was written, and how many rows were left out; written last

A line is the form that both trainers document for audio. There is one `<audio>` in the messages for each of `audios`;
paths are relative to OUT.

    {"messages": [{"role": "user", "content": "<audio>"}, {"role": "assistant", "content": "..."}], "audios": ["..."]}

    ms-swift       "Custom dataset", https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html; relative
                   paths begin at the environment variable ROOT_IMAGE_DIR (read in version 4.6.0)
    LLaMA-Factory  data/README.md of https://github.com/hiyouga/LLaMA-Factory: `sharegpt` with the tags of OpenAI's
                   format; relative paths begin at `media_dir`, by default the folder of dataset_info.json (0.9.5)

Earlier turns of a dialogue are spoken where the set has their clips, and text where it has not. The export goes through
the set row group by row group, and continues after a kill: finished shards are not read again.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_index import SPLIT_NAMES
from rba_bench.audio.alignment_set import AlignmentSet, refuse_missing
from rba_bench.audio.clips import clip_file
from rba_bench.audio.parquet import stored_bytes
from rba_bench.audio.turns import TURNS
from rba_bench.errors import AudioError, RbaError, UserError, first_line
from rba_bench.files import folder_name, read_json, replacing, sha256_bytes, write_atomic, write_json
from rba_bench.outputs import claim, release
from rba_bench.progress import bar, say
from rba_bench.recipes import suggest

AUDIO = "<audio>"
CLIPS, SUMMARY, DATASETS = "clips", "export.json", "dataset_info.json"
PARTS = ".parts"  # lines of finished shards; removed at the end
_COLUMNS = ("id", "prompt", "instruction", "response", "split", "audio_sha256", "audio")
LEFT_OUT = {
    "no_answer": "no response",
    "tag": "its words hold a tag that the trainer would take for a clip or an image",
    "broken_clip": "the clip is neither FLAC nor WAV, and cannot be decoded",
}


@dataclass(frozen=True)
class Target:
    """A trainer whose format is written.

    Attributes:
        tags: What it reads as a placeholder wherever it stands in a text.
        datasets: Whether it wants a `dataset_info.json`.
        hint: How the export is used; `{out}` is the folder.
    """

    tags: tuple[str, ...]
    datasets: bool
    hint: str


_MEDIA = ("<audio>", "<image>", "<video>")
TARGETS = {
    "ms-swift": Target(
        (*_MEDIA, "<bbox>", "<ref-object>", "<cot-process>", "<start-image>"),
        False,
        "ROOT_IMAGE_DIR={out} swift sft --dataset {out}/train.jsonl ...",
    ),
    "llama-factory": Target(
        _MEDIA, True, "llamafactory-cli train ... dataset_dir={out} dataset=alignment_train"
    ),
}


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        path: The folder.
        summary: Content of `export.json`: `rows` by split, `left_out` by reason, `clips`, `set_sha256`.
    """

    path: Path
    summary: dict[str, Any]


def export_set(source: Path | str, target: str, out: Path) -> Exported:
    """Write an alignment set in the format of another trainer, or finish what an earlier call began.

    Args:
        source: The alignment set.
        target: A key of TARGETS.
        out: Folder for the files.

    Raises:
        UserError: No such target or set, a damaged set, or `out` holds something else.
        RbaError: No row can be exported.
    """
    if target not in TARGETS:
        raise UserError(f"unknown --to {target!r}{suggest(target, TARGETS)}")
    alignment = AlignmentSet.open(source)
    if out.resolve() == alignment.path.resolve():
        raise UserError(f"{out} is the alignment set itself: choose another --out")
    claim(out, "export", {"to": target, "set_sha256": alignment.sha256})
    try:
        if (out / SUMMARY).is_file():
            say(f"{out} is complete already")
            return Exported(out, read_json(out / SUMMARY))
        return _Export(alignment, target, out).make()
    finally:
        release(out)


@dataclass(frozen=True)
class _Export:
    alignment: AlignmentSet
    target: str
    out: Path

    def make(self) -> Exported:
        shards = self.alignment.shards
        with bar(f"export for {self.target}", len(shards), unit="shards") as advance:
            counts = []
            for number, shard in enumerate(shards):
                counts.append(self._part(number, shard))
                advance(1)
        rows = {split: sum(part["rows"].get(split, 0) for part in counts) for split in SPLIT_NAMES}
        left_out = Counter[str]()
        for part in counts:
            left_out.update(part["left_out"])
        if not any(rows.values()):
            raise RbaError(f"no row of {self.alignment.path} can be exported: {dict(left_out)}")
        rows = {split: n for split, n in rows.items() if n}
        for split in rows:
            write_atomic(self.out / f"{split}.jsonl", self._lines(split, len(shards)))
        if TARGETS[self.target].datasets:
            write_json(self.out / DATASETS, {f"alignment_{split}": _dataset(split) for split in rows})
        summary = {
            "to": self.target,
            "rows": rows,
            "clips": sum(part["clips"] for part in counts),
            "left_out": {reason: {"n": left_out[reason], "meaning": LEFT_OUT[reason]} for reason in LEFT_OUT},
            "set_sha256": self.alignment.sha256,
        }
        write_json(self.out / SUMMARY, summary)
        shutil.rmtree(self.out / PARTS, ignore_errors=True)
        return Exported(self.out, summary)

    def _lines(self, split: str, shards: int) -> Iterator[str]:
        for number in range(shards):
            path = self.out / PARTS / f"{number:05d}.{split}.jsonl"
            if path.is_file():
                with open(path, encoding="utf-8") as lines:
                    yield from lines

    def _part(self, number: int, shard: Path) -> dict[str, Any]:
        """Clips and lines of one shard; what they count is written last, so that a killed part is made again."""
        marker = self.out / PARTS / f"{number:05d}.json"
        if marker.is_file():
            part: dict[str, Any] = read_json(marker)
            return part
        rows, left_out, clips = Counter[str](), Counter[str](), 0
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for record in _records(shard):
                reason, line, sounds = self._line(shard, number, record)
                if reason:
                    left_out[reason] += 1
                    continue
                for name, data in sounds.items():
                    with replacing(self.out / name) as temporary:
                        temporary.write_bytes(data)
                split = str(record["split"])
                if split not in files:
                    temporary = stack.enter_context(
                        replacing(self.out / PARTS / f"{number:05d}.{split}.jsonl")
                    )
                    files[split] = stack.enter_context(open(temporary, "w", encoding="utf-8"))
                files[split].write(line)
                rows[split] += 1
                clips += len(sounds)
        facts = {"rows": dict(rows), "left_out": dict(left_out), "clips": clips}
        write_json(marker, facts)
        return facts

    def _line(self, shard: Path, number: int, record: Mapping[str, Any]) -> tuple[str, str, dict[str, bytes]]:
        """Why a row is left out ("" if it is not), its line, and its clips by file name."""
        turns = record.get(TURNS) or []
        texts = [record["prompt"] or "", record["response"] or ""]
        texts += [str(turn[name]) for turn in turns for name in ("instruction", "response")]
        if not texts[1].strip():
            return "no_answer", "", {}
        if any(tag in text for text in texts for tag in TARGETS[self.target].tags):
            return "tag", "", {}
        place = f"{CLIPS}/part-{number:05d}/{folder_name(str(record['id']))}"
        sounds: dict[str, bytes] = {}
        messages: list[dict[str, str]] = []
        try:
            for index, turn in enumerate(turns):
                data = stored_bytes(shard, turn.get("audio"))
                if data is not None:
                    _add(sounds, f"{place}.turn{index}", data)
                words = turn["instruction"] if data is None else AUDIO
                messages += [_message("user", words), _message("assistant", turn["response"])]
            data = stored_bytes(shard, record["audio"])
            if data is None or sha256_bytes(data) != record["audio_sha256"]:
                raise UserError(
                    f"the clip of {record['id']} in {shard} is not there or was replaced: restore it"
                )
            _add(sounds, place, data)
        except AudioError as error:
            say(f"{record['id']} is left out: {first_line(error)}")
            return "broken_clip", "", {}
        messages += [_message("user", AUDIO + texts[0]), _message("assistant", texts[1])]
        line = json.dumps({"messages": messages, "audios": list(sounds)}, ensure_ascii=False)
        return "", f"{line}\n", sounds


def _records(shard: Path) -> Iterator[dict[str, Any]]:
    """Rows of a shard with their clips, one row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            names = file.schema_arrow.names
            refuse_missing(shard, names)
            for group in range(file.metadata.num_row_groups):
                columns = [*_COLUMNS, *([TURNS] if TURNS in names else [])]
                yield from file.read_row_group(group, columns=columns, use_threads=False).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shard {shard} cannot be read ({first_line(error)})") from error


def _add(sounds: dict[str, bytes], place: str, data: bytes) -> None:
    """Add a clip under a name with the ending of its format. Raises AudioError if it has to be decoded and cannot."""
    content, ending = clip_file(data)
    sounds[f"{place}.{ending}"] = content


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _dataset(split: str) -> dict[str, Any]:
    """Entry of `dataset_info.json` for one file."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "audios": "audios"}
    return {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}
