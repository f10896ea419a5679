"""Published sets of spoken instructions, read in the layouts of their authors for `rba-bench synth import`.

To add a layout: a function from a file to `Dialogue`s, and its entry in LAYOUTS. No set was at hand when this was
written: the layouts are those of the sources named here, and what these leave open is an assumption that is named too.

`voiceassistant-400k` (gpt-omni/VoiceAssistant-400K on the Hub; its columns as in the data card and in the readers of
SLAM-LLM, `examples/s2s`): parquet files with `split_name`, `index`, `round`, `question`, `answer`, `answer_snac` and
`question_audio {bytes, path}`. One row is one exchange. Assumed: rows that follow one another with one `split_name` and
`index` and with `round` 1, 2, 3 (or 0, 1, 2) are a dialogue.

`instructs2s-200k` (ICTNLP/InstructS2S-200K on the Hub; fields as LLaMA-Omni's users read them): a JSON list, or JSON
lines, of `{"id", "conversation": [{"from": "human", "text", "speech"}, {"from": "gpt", "text", "speech", "unit"}]}`
with exchanges in turn. `speech` begins with folders of the authors' machine (`data/multiturn_instruction/en/`), so
leading folders that are not there are left away. The key `conversations` is read as well. Spoken answers and units are
not used.

`desta-aqa5m` (DeSTA-ntu/DeSTA-AQA5M-FROM-Llama3.1-8B-Instruct on the Hub; `docs/dataset.md`, `docs/train.md` and
`simple_dataset.py` of https://github.com/kehanlu/DeSTA2.5-Audio): JSON lines of `id`, `dataset`, `seed_description`,
`prompt`, `response` and `messages`, whose user turn has `<|AUDIO|>` in its content and `audios: [{"audio", "text"}]`.
The audio has to be fetched from the corpora that it comes from; where a file is not there, `.wav` in the place of its
ending is tried. The user's words without the placeholder become the text beside the clip. The transcript (`text`) is
the instruction; a clip without words (music, noise) gets `seed_description`, which is what the teacher read of it.
Assumed: system turns ask for attention to the audio, and need not be kept.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rba_bench.audio.clips import AudioRef
from rba_bench.errors import MissingPrerequisite, UserError, first_line

CHUNK = 2**20  # characters of a JSON list that are read at a time
LONGEST = 2**26  # characters of one entry


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a user says and what is answered.

    Attributes:
        instruction: What is said.
        response: The answer.
        clip: Where the recording should be; None where the set names none.
    """

    instruction: str
    response: str
    clip: AudioRef | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One entry of a set.

    Attributes:
        place: File (relative to the source) and number of the entry in it: what the ids of its rows are made of.
        exchanges: In order, at least one unless there is a fault.
        name: What the set itself calls the entry.
        prompt: Text beside the clip of the last exchange.
        topic: Label of the set.
        fault: Why the entry is not of the layout, "" if it is.
    """

    place: tuple[str, int]
    exchanges: tuple[Exchange, ...] = ()
    name: str = ""
    prompt: str = ""
    topic: str = ""
    fault: str = ""


Reader = Callable[[Path, str, Path], Iterator[Dialogue]]  # file, its name in `place`, folder of the audio


@dataclass(frozen=True)
class Layout:
    """How a set is read.

    Attributes:
        read: From one file to dialogues.
        endings: Of its files.
        has_turns: Whether a dialogue may have several exchanges.
    """

    read: Reader
    endings: tuple[str, ...]
    has_turns: bool


def source_files(source: Path, layout: Layout, out: Path) -> list[Path]:
    """The files of a set, sorted: `source` itself, or those with the layout's endings below it and not below `out`.

    Raises:
        MissingPrerequisite: There is no such file or folder.
        UserError: No file has an ending of the layout.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise MissingPrerequisite(f"no file or folder {source}: download the set first")
    made = out.resolve()  # an output folder may lie in that of the source
    listed = (path for path in source.rglob("*") if path.suffix in layout.endings and path.is_file())
    found = sorted(path for path in listed if not path.resolve().is_relative_to(made))
    if not found:
        raise UserError(f"no {' or '.join(layout.endings)} files below {source}: name the folder of the set")
    return found


def _read_voiceassistant(file: Path, name: str, audio: Path) -> Iterator[Dialogue]:
    del audio  # the clips lie in the files
    said: list[Exchange] = []
    last: tuple[Any, int] | None = None
    for number, row in enumerate(
        _parquet_rows(file, ("question", "answer"), ("split_name", "index", "round"))
    ):
        label, index = _clean(row.get("split_name")), row.get("index")
        turn = _round(row.get("round"))
        clip = AudioRef("", 0, 0.0, str(file), number, "question_audio")
        exchange = Exchange(_clean(row["question"]), _clean(row["answer"]), clip)
        follows = last is not None and last == ((label, index), turn - 1) and turn > 0
        said = [*said, exchange] if follows and index is not None else [exchange]
        last = ((label, index), turn)
        fault = f"round {turn} without the rounds before it" if turn > 1 and len(said) == 1 else ""
        # each row as a dialogue of its own, which ends with it
        yield Dialogue((name, number), tuple(said), str(index or ""), topic=label, fault=fault)


def _round(value: Any) -> int:
    """Number of a turn; 0 where none is stated."""
    text = str(value if value is not None else "").strip()
    return int(text) if text.isdecimal() else 0


def _parquet_rows(file: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if missing := sorted({*needed, "question_audio"} - set(names)):
                raise UserError(f"{file} lacks the columns {', '.join(missing)}: it is of another layout")
            columns = [*needed, *(name for name in optional if name in names)]
            for batch in table.iter_batches(columns=columns, use_threads=False):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): get it again") from error


def _read_instructs2s(file: Path, name: str, audio: Path) -> Iterator[Dialogue]:
    for number, entry in enumerate(json_entries(file)):
        given = Dialogue((name, number), name=_clean(str(entry.get("id", ""))))
        turns = entry.get("conversation", entry.get("conversations"))
        if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
            yield replace(given, fault="no list `conversation`")
        elif not turns or [turn.get("from") for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
            yield replace(given, fault="the conversation is not `human` and `gpt` in turn")
        else:
            pairs = zip(turns[::2], turns[1::2], strict=True)
            said = tuple(
                Exchange(
                    _clean(human.get("text")), _clean(gpt.get("text")), _file_clip(audio, human.get("speech"))
                )
                for human, gpt in pairs
            )
            for last in range(1, len(said) + 1):
                yield replace(given, exchanges=said[:last])


def _clean(value: Any) -> str:
    """A text of the set, "" for anything else; halves of a surrogate pair, which no file can hold, become U+FFFD."""
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else ""


_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACEHOLDER = re.compile(r"<start_audio>\s*<\|AUDIO\|>\s*<end_audio>|<\|AUDIO\|>")


def _read_desta(file: Path, name: str, audio: Path) -> Iterator[Dialogue]:
    for number, entry in enumerate(json_entries(file)):
        given = Dialogue(
            (name, number), name=_clean(str(entry.get("id", ""))), topic=_clean(entry.get("dataset"))
        )
        try:
            [user] = [turn for turn in entry["messages"] if turn["role"] != "system"]
            content = _clean(user["content"])
            [found] = user.get("audios") or []
            words = _clean(found.get("text")).strip() or _clean(entry.get("seed_description"))
            if user["role"] != "user":
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            yield replace(given, fault="not one user turn with one clip in `messages`")
            continue
        if len(_PLACEHOLDER.findall(content)) != 1:
            yield replace(given, fault="not one <|AUDIO|> in the user turn")
            continue
        clip = _file_clip(audio, found.get("audio"), ".wav")
        exchange = Exchange(words, _clean(entry.get("response")), clip)
        yield replace(given, exchanges=(exchange,), prompt=_PLACEHOLDER.sub(" ", content))


def _file_clip(audio: Path, path: Any, other_ending: str = "") -> AudioRef | None:
    """The file that a set names, below the folder of its audio; leading folders that are not there are left away."""
    parts = [part for part in PurePosixPath(_clean(path).replace("\\", "/")).parts if part not in ("/", ".")]
    if not parts or ".." in parts:
        return None
    try:
        for first in range(len(parts)):
            place = audio.joinpath(*parts[first:])
            for candidate in (place, place.with_suffix(other_ending)) if other_ending else (place,):
                if candidate.is_file():
                    return AudioRef("", 0, 0.0, str(candidate))
        audio.joinpath(*parts).stat()
    except (FileNotFoundError, NotADirectoryError):
        return AudioRef("", 0, 0.0, str(audio.joinpath(*parts)))
    except (OSError, ValueError):  # a name that no file can have
        pass
    return None


def json_entries(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list or of JSON lines, one in memory at a time.

    Raises:
        UserError: The file cannot be read or is neither of them; the number of the entry is named.
    """
    try:
        with open(file, encoding="utf-8") as handle:
            start = handle.read(1)
            while start.isspace():
                start = handle.read(1)
            handle.seek(0)
            for number, value in enumerate(_list_items(handle) if start == "[" else _lines(handle), 1):
                if not isinstance(value, dict):
                    raise UserError(f"{file}: entry {number} is not a JSON object")
                yield value
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {first_line(error)}") from error


def _lines(handle: Any) -> Iterator[Any]:
    for line in handle:
        if line.strip():
            yield json.loads(line)


def _list_items(handle: Any) -> Iterator[Any]:
    """Items of a JSON list, decoded as soon as they are read whole."""
    decoder = json.JSONDecoder()
    text, place, ended = handle.read(CHUNK), 0, False
    place = text.index("[") + 1
    while True:
        while place < len(text) and (text[place].isspace() or text[place] == ","):
            place += 1
        if text[place : place + 1] == "]":
            return
        try:
            value, place = decoder.raw_decode(text, place)
            yield value
            continue
        except ValueError:
            if ended or len(text) - place > LONGEST:
                raise
        more = handle.read(max(CHUNK, len(text) - place))  # doubled: a long item is not decoded many times
        text, place, ended = text[place:] + more, 0, not more


LAYOUTS = {
    "desta-aqa5m": Layout(_read_desta, (".jsonl", ".json"), False),
    "voiceassistant-400k": Layout(_read_voiceassistant, (".parquet",), True),
    "instructs2s-200k": Layout(_read_instructs2s, (".json", ".jsonl"), True),
}
