"""Figures and clips beside the card of an alignment set, and the sections of the card that show them.

    DIR/card/durations.png, ...      distributions, where matplotlib is installed
    DIR/card/clips/01.flac, ...      up to ten clips, as they are stored

The folder holds no parquet file, so neither `load_dataset` nor the checksums of the set take notice of it.
"""

import re
from pathlib import Path
from typing import Any

from rba_bench import cards
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_clips import choose_clips, playable, read_clips
from rba_bench.audio.set_figures import can_draw, figure_files, set_figures
from rba_bench.audio.set_labels import SOURCE, is_labelled, paper_shares
from rba_bench.audio.set_statistics import SetStatistics
from rba_bench.files import write_atomic
from rba_bench.seeding import stable_seed
from rba_bench.untrusted import plain

FOLDER, CLIPS = "card", "clips"
_OWN = re.compile(r"(durations|topics|difficulty|voices|wer|filters)\.png|clips/\d\d\.(flac|wav)")
N_CLIPS = 10
LONGEST_TEXT = 300  # characters of a text in the table of clips
MOST_LABELS = 32


def media_files(folder: Path) -> list[str]:
    """Names of the files of a card, relative to the folder of its set, in order."""
    found = (path.relative_to(folder / FOLDER).as_posix() for path in (folder / FOLDER).rglob("*.*"))
    return sorted(f"{FOLDER}/{name}" for name in found if _OWN.fullmatch(name))


def write_media(alignment: AlignmentSet, statistics: SetStatistics) -> list[str]:
    """Write figures and clips of a set beside its card; those of an earlier card are removed.

    Returns:
        Sections of the card.

    Raises:
        UserError: a shard cannot be read.
    """
    folder = alignment.path / FOLDER
    files: dict[str, bytes] = {}
    shown = []
    if can_draw():
        figures = set_figures(statistics)
        files |= dict(figure_files(figures, dark=False))
        shown = [
            f"**{plain(figure.title)}.** {plain(figure.summary, LONGEST_TEXT)}\n\n"
            f"![{_alternative(figure.title)}]({FOLDER}/{figure.name}.png)"
            for figure in figures
        ]
    sections = ["\n\n".join(["## Distributions", *_label_tables(statistics), *shown])]
    rows = []
    numbers = choose_clips(statistics, N_CLIPS, stable_seed("card", alignment.sha256))
    for number, (record, data, problem) in enumerate(read_clips(alignment, statistics, numbers), 1):
        content, ending, problem = playable(data, problem)
        name = f"{CLIPS}/{number:02d}.{ending}"
        if not problem:
            files[name] = content
        rows.append(_clip_row(record, f"{FOLDER}/{name}", problem))
    if rows:
        sections.append("\n".join([f"## {len(rows)} clips", "", *_CLIP_HEAD, *rows, "", DRAWN]))
    for name, content in files.items():
        write_atomic(folder / name, content)
    for name in set(media_files(alignment.path)) - {f"{FOLDER}/{name}" for name in files}:
        (alignment.path / name).unlink()
    return sections


DRAWN = "Drawn by the hash of the set: all voices equally often, and of each voice all topics."
_CLIP_HEAD = ("| clip | what is said | recogniser | answer |", "| --- | --- | --- | --- |")


def _label_tables(statistics: SetStatistics) -> list[str]:
    """Topics and difficulty, beside the paper's where they are the same labels."""
    tables = []
    for column in ("topic", "difficulty"):
        found = statistics.labels[column]
        if not is_labelled(found):
            continue
        rows = [
            (label or "none", f"{n:,}", f"{100 * n / statistics.clips:.1f}", "" if share is None else share)
            for label, n, share in paper_shares(column, found)
        ]
        head = (column, "clips", "per cent", f"per cent in the {SOURCE}")
        compared = any(row[3] for row in rows)
        cells = [row if compared else row[:3] for row in rows[:MOST_LABELS]]
        tables.append(cards.markdown_table(head if compared else head[:3], cells))
    return tables


def _clip_row(record: dict[str, Any], address: str, problem: str) -> str:
    """A row of the table of clips; the player is the only markup in it."""
    player = f'<audio controls preload="none" src="{address}"></audio><br>[{Path(address).name}]({address})'
    said = f"{_cell(record['prompt'])} " if record.get("prompt") else ""
    facts = [record.get(name) or "" for name in ("voice", "topic", "difficulty")]
    about = ", ".join(_cell(fact) for fact in facts if fact)
    wer = record.get("asr_wer")
    transcript = _cell(record.get("asr_text") or "") + (
        f" (WER {100 * wer:.0f} %)" if isinstance(wer, float) else ""
    )
    cells = (
        (_cell(problem) if problem else player) + (f"<br>{about}" if about else ""),
        said + _cell(record.get("instruction") or ""),
        transcript,
        _cell(record.get("response") or ""),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return plain(text, LONGEST_TEXT).replace("|", "\\|")


def _alternative(title: str) -> str:
    return plain(title).translate(str.maketrans("[]", "()"))
