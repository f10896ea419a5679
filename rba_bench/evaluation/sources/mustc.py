"""MuST-C: English TED talks and their translations, from a local copy (it is not on the Hub).

    en-de/data/tst-COMMON/txt/tst-COMMON.yaml   - {duration: 3.5, offset: 16.08, rW: 9, uW: 0, speaker_id: spk.767,
                                                   wav: ted_767.wav}, a line a segment
    en-de/data/tst-COMMON/txt/tst-COMMON.en     the transcript of the segment in the same line
    en-de/data/tst-COMMON/txt/tst-COMMON.de     its translation
    en-de/data/tst-COMMON/wav/ted_767.wav       a whole talk

Segments are cut once and kept as FLAC under the cache, named by the content of the talk, so that all languages share
them. Segments of one talk are drawn together by the bootstrap, and so are equal ones of several talks.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rba_bench.audio import decoding
from rba_bench.audio.clips import AudioError, encode_flac
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import hub, language_pairs, tables
from rba_bench.evaluation.sources.language_pairs import MUSTC_TARGETS
from rba_bench.evaluation.sources.source import DATA_DIR_VARIABLE, LoadedSet, Place
from rba_bench.files import cache_dir, sha256_bytes, sha256_file, write_atomic

SPLITS = ("tst-COMMON", "tst-HE", "dev")
STOCK_WORDS = 4  # longest sentence that several speakers say by themselves
FOLDERS = ("mustc", "must-c", "MUSTC", "MuST-C", ".")  # under --data-dir


def load_mustc(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Speech translation from English.

    Args:
        options: `direction`, such as `en_de`; `split`, by default tst-COMMON; `prompt` (optional), with `{language}`.
        place: Folder with the unpacked archives.

    Raises:
        UserError: no such direction, or files that do not fit together.
        MissingPrerequisite: the data is not there.
    """
    source, _, target = str(options.get("direction", "")).partition("_")
    if source != "en" or target not in MUSTC_TARGETS:
        raise UserError(f"MuST-C has en_ to {', '.join(MUSTC_TARGETS)}; not {options.get('direction')!r}")
    split = str(options.get("split", SPLITS[0]))
    if split not in SPLITS:
        raise UserError(f"no test split {split!r} of MuST-C; known: {', '.join(SPLITS)}")
    folder = _folder(place, target, split)
    segments = _segments(folder, split, target)
    prompt = language_pairs.task_prompt(language_pairs.TRANSLATE, target, options)
    numbers: Counter[str] = Counter()
    docs = []
    for segment in segments:
        talk = Path(segment["wav"]).stem
        docs.append(
            documents.make_document(
                id=f"{talk}_{numbers[talk]}",
                kind="s2tt",
                clip=_clip(folder / "wav" / segment["wav"], segment),
                instruction=segment["en"],
                prompt=prompt,
                references=[segment[target]],
                source_lang="en",
                target_lang=language_pairs.short(target),
                voice=segment.get("speaker_id", ""),
                cluster=talk,
            )
        )
        numbers[talk] += 1
    lengths = [float(segment["duration"]) for segment in segments]
    cut_short = sum(doc["duration"] < seconds - 0.001 for doc, seconds in zip(docs, lengths, strict=True))
    scorable, left_out = documents.with_references(docs, f"MuST-C en_{target}")
    origin = {
        "repo": "MuST-C",
        "revision": hub.LOCAL,
        "direction": f"en_{target}",
        "split": split,
        "rows": len(docs),
        "talks": len(numbers),
        "segments_longer_than_talk": cut_short,
        **({"without_reference": left_out} if left_out else {}),
    }
    return LoadedSet(_clustered(scorable), origin)


def _clustered(docs: list[documents.Document]) -> list[documents.Document]:
    """Documents with equal sentences in one cluster, whatever talk they are from.

    Talks that share a long sentence are one cluster: one is a part of the other. A short one ("Thank you.") is said by
    all speakers; joining their talks would leave a single cluster, so it gets a cluster of its own.
    """
    talks: dict[str, set[str]] = {}
    for doc in docs:
        talks.setdefault(documents.same_words(doc["instruction"]), set()).add(doc["cluster"])
    separated = []
    for doc in docs:
        words = documents.same_words(doc["instruction"])
        stock = words and len(talks[words]) > 1 and len(doc["instruction"].split()) <= STOCK_WORDS
        cluster = f"text-{sha256_bytes(words.encode())[:12]}"
        separated.append(documents.changed(doc, cluster=cluster) if stock else doc)
    return documents.joined_by_text(separated)


def _folder(place: Place, target: str, split: str) -> Path:
    below = Path(f"en-{target}") / "data" / split
    if place.data_dir is not None:
        for name in FOLDERS:
            if (place.data_dir / name / below / "txt").is_dir():
                return (place.data_dir / name / below).resolve()
    where = f"under {place.data_dir}" if place.data_dir else "without --data-dir"
    raise MissingPrerequisite(
        f"no {below} of MuST-C {where}: it is not on the Hub, and FBK (mt.fbk.eu) no longer offers it to all; unpack "
        f"your copy of the archive and name the folder that holds en-{target} with --data-dir (or {DATA_DIR_VARIABLE})"
    )


def _segments(folder: Path, split: str, target: str) -> list[dict[str, str]]:
    """Rows of the YAML with the lines of both languages. Raises UserError if the three do not fit together."""
    import yaml

    file = folder / "txt" / f"{split}.yaml"
    try:
        listed = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - strings only
        texts = {}
        for code in ("en", target):  # split at line feeds alone: U+2028 and its like occur inside sentences
            text = (folder / "txt" / f"{split}.{code}").read_text(encoding="utf-8")
            texts[code] = [line.strip() for line in text.removesuffix("\n").split("\n")]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read MuST-C in {folder}: {' '.join(str(error).split())}") from error
    needed = {"offset", "duration", "wav"}
    if not isinstance(listed, list) or any(
        not isinstance(row, dict) or needed - row.keys() for row in listed
    ):
        raise UserError(f"{file} is not a list of segments with {', '.join(sorted(needed))}")
    sizes = {"yaml": len(listed), **{code: len(lines) for code, lines in texts.items()}}
    if len(set(sizes.values())) != 1:
        raise UserError(
            f"{file.with_suffix('')}.* do not fit together: "
            + ", ".join(f"{n} in {k}" for k, n in sizes.items())
        )
    lines = zip(listed, texts["en"], texts[target], strict=True)
    return [{**row, "en": en, target: other} for row, en, other in lines]


def _clip(wav: Path, segment: Mapping[str, str]) -> tables.Clip:
    """The clip of a segment, cut on first use; one without sound is an empty file, whose item is an error."""
    try:
        offset, seconds = float(segment["offset"]), float(segment["duration"])
    except ValueError as error:
        raise UserError(f"a segment of {wav.name} has no numbers for offset and duration") from error
    rate, talk = _talk(wav)
    start, frames = round(offset * rate), round(seconds * rate)
    path = cache_dir() / "mustc" / talk / f"{start}-{frames}.flac"
    if not path.is_file():
        try:
            write_atomic(path, encode_flac(*decoding.load_segment(wav, offset, seconds)))
        except AudioError:
            write_atomic(path, b"")
    return tables.file_clip(path)


@lru_cache(maxsize=256)
def _talk(wav: Path) -> tuple[int, str]:
    """Sampling rate in Hz and content hash of a talk. Raises MissingPrerequisite or UserError."""
    if not wav.is_file():
        raise MissingPrerequisite(f"no {wav}: the archive of MuST-C was not unpacked whole")
    try:
        return decoding.load_recording(wav)[1], sha256_file(wav)[:16]
    except AudioError as error:
        raise UserError(f"{wav} is damaged ({error}): unpack it again") from error
