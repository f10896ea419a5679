"""Speech-IFEval: a question about a clip, with a constraint on how the answer is written (kehanlu/Speech-IFEval).

    eval_data/closed_ended_questions.jsonl           933 items, one constraint each, checked by rule
    eval_data/creative_writing.jsonl                 400 items, one constraint each, checked by rule
    eval_data/chain-of-thought.jsonl                 200 items that ask for reasoning, checked by a judge
    eval_data/closed_ended_questions-woprompt.jsonl  the first file without its constraints
    audios.tar, or audios/<audio_filepath>           the clips (WAV, FLAC, MP3)

The questions lie in the authors' GitHub repository, the clips on the Hub. The question is text; the clip is what it is
about. `textual_audio` is the authors' account of the clip in words (times, transcript, gender, emotion), which their
text-only reference reads instead: it stands as what is spoken, so `text:<llm>` is that reference.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import hub, tables
from rba_bench.evaluation.sources.source import ItemNames, LoadedSet, Place, check_options, compare_size
from rba_bench.files import read_jsonl
from rba_bench.metrics.ifeval import CHECKS

REPO = "kehanlu/Speech-IFEval"
GITHUB = "https://github.com/kehanlu/Speech-IFEval"
FILES = {  # part -> file, number of items
    "closed_ended": ("closed_ended_questions", 933),
    "creative_writing": ("creative_writing", 400),
    "chain_of_thought": ("chain-of-thought", 200),
    "plain": ("closed_ended_questions-woprompt", 933),
}
PARTS = ("closed_ended", "creative_writing", "chain_of_thought")
FIELDS = ("audio_filepath", "textual_audio", "instruction", "dataset", "metric")
TRANSCRIBE = "wer"  # `metric` of items that ask for a transcript


def load_speech_ifeval(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Items of the wanted parts, in the order of the files.

    Args:
        options: `parts`, of FILES; by default the three that make up the published IF rate. `plain` stands alone: its
            items are of kind `qa`, without the 200 that ask for a transcript, and have no constraint.
        place: Data folder: a clone with `audios.tar` or `audios/` in `data/`, or that `data` folder.

    Raises:
        UserError: unknown part or constraint, or files of another layout.
        MissingPrerequisite: questions or clips are absent.
    """
    parts = check_options(options, parts=PARTS)["parts"]
    parts = [parts] if isinstance(parts, str) else list(parts)
    strange = [part for part in parts if part not in FILES]
    if strange or not parts or ("plain" in parts and len(parts) > 1):
        raise UserError(f"speech_ifeval: parts are some of {', '.join(PARTS)}, or `plain` alone; not {parts}")
    rows = [(part, row) for part in parts for row in _rows(part, place)]
    questions = _questions(place, FILES[parts[0]][0])
    folder = _audio_folder(place)
    files = {path: folder / path for path in sorted({row["audio_filepath"] for _, row in rows})}
    if missing := [path for path, file in files.items() if not file.is_file()]:
        raise MissingPrerequisite(
            f"{len(missing)} of {len(files)} clips of Speech-IFEval are missing, such as {missing[0]}: "
            "unpack audios.tar again"
        )
    clips = {path: tables.file_clip(file) for path, file in files.items()}
    names = ItemNames("cot")
    items = [_document(part, row, clips[row["audio_filepath"]], names) for part, row in rows]
    size = compare_size("speech_ifeval", len(rows), sum(FILES[part][1] for part in parts))
    left_out = {}
    if "plain" in parts:  # which stands alone
        scorable = [item for item, (_, row) in zip(items, rows, strict=True) if row["metric"] != TRANSCRIBE]
        left_out = {"transcripts_left_out": len(items) - len(scorable)}
        items = scorable
    return LoadedSet(items, questions.origin(parts=parts, **size, **left_out))


def _questions(place: Place, name: str) -> hub.HubFiles:
    patterns = [f"{folder}{name}.jsonl" for folder in ("eval_data/", "data/eval_data/", "")]
    try:
        return hub.find_files(REPO, patterns, place)
    except MissingPrerequisite as error:
        raise MissingPrerequisite(
            f"no {name}.jsonl of Speech-IFEval here: `git clone {GITHUB} DIR`, then `hf download {REPO} audios.tar "
            f"--repo-type dataset --local-dir DIR/data`, and name DIR with --data-dir"
        ) from error


def _rows(part: str, place: Place) -> Iterator[dict[str, Any]]:
    file = _questions(place, FILES[part][0]).paths[0]
    try:
        listed = list(read_jsonl(file))
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): get it again") from error
    ruled = part in ("closed_ended", "creative_writing")
    required = (*FIELDS, *(("instruction_id_list", "kwargs") if ruled else ()))
    for number, row in enumerate(listed, 1):
        if missing := [name for name in required if name not in row]:
            raise UserError(
                f"{file}, line {number}: no {', '.join(missing)}; is it another version of the set?"
            )
        if strange := sorted(set(row.get("instruction_id_list", ())) - CHECKS.keys()):
            raise UserError(f"{file}, line {number}: unknown instruction {', '.join(strange)}")
        yield row


def _document(part: str, row: Mapping[str, Any], clip: tables.Clip, names: ItemNames) -> documents.Document:
    path, question = str(row["audio_filepath"]), str(row["instruction"])
    constraints = [
        {"name": name, "arguments": arguments}
        for name, arguments in zip(row.get("instruction_id_list", ()), row.get("kwargs", ()), strict=True)
    ]
    number = row.get("id")
    return documents.make_document(
        id=names.of(f"{path} {question}") if number is None else f"{part}-{int(number):04d}",
        kind="qa" if part == "plain" else "ifeval",
        clip=clip,
        instruction=str(row["textual_audio"]),
        prompt=question,
        references=[str(row["label"])] if row.get("label") else [],
        topic=str(row["dataset"]),
        group=part,
        cluster=path,
        extra={"instructions": constraints, "constraint": constraints[0]["name"] if constraints else ""},
    )


def _audio_folder(place: Place) -> Path:
    if place.data_dir is not None:
        for root in (place.data_dir / REPO, place.data_dir / REPO.partition("/")[2], place.data_dir):
            for folder in (root / "audios", root / "data" / "audios"):
                if folder.is_dir():
                    return folder
    unpacked = tables.unpack_archive(hub.find_files(REPO, ["audios.tar", "data/audios.tar"], place).paths[0])
    return unpacked / "audios" if (unpacked / "audios").is_dir() else unpacked
