"""`rba-bench view`: a page on which the clips of some runs can be heard, with the answers of all models beside each.

    OUT/index.html     one file without scripts: it opens from a disk as from a server, and cannot reach the network
    OUT/clips/*.flac   the clips as the models got them

Texts of data and models are somebody else's: all of them are escaped, and the page's own policy allows nothing but its
style (by hash) and sound from its own folder.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench import __version__
from rba_bench.audio.clips import encode_flac
from rba_bench.audio.perturbations import parse_perturbation
from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation.audio_control import AudioControl, exchanged_audio, recorded_control
from rba_bench.evaluation.documents import Document, changed
from rba_bench.evaluation.model_input import clip_key, load_wave, spoken_text
from rba_bench.evaluation.records import Sample
from rba_bench.files import write_atomic
from rba_bench.html_pages import page_part, render_template, source_hash
from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.columns import label_text, metric_heading, score_texts
from rba_bench.leaderboard.loaded_runs import (
    KINDS,
    LoadedRun,
    find_runs,
    kind_of_run,
    load_checked_run,
    summable_rows,
    without_copies,
)
from rba_bench.leaderboard.tables import NOTHING, SHORT
from rba_bench.leaderboard.test_sets import load_clips, shipped_task
from rba_bench.metrics.aggregate import score_function

PAGE, CLIPS = "index.html", "clips"
LIMIT = 200  # items of a task: a page of thousands of players is slow to open


@dataclass(frozen=True)
class ListeningPage:
    """A page as it was written.

    Attributes:
        page: The file to open.
        items: Number of items on it, over all tasks.
        clips: Number of different clips beside it.
        notes: What it does not show, and why.
    """

    page: Path
    items: int
    clips: int
    notes: tuple[str, ...]


def build_listening_page(
    records: Sequence[Path], out: Path, limit: int = LIMIT, data_dir: Path | None = None
) -> ListeningPage:
    """Write the page of some runs. Runs of one task and protocol stand side by side.

    Args:
        records: `run.json` files, run folders, or folders searched for them.
        out: Folder to write.
        limit: Show only the first items of each task.
        data_dir: Folder with local copies of public data sets, where their clips are.

    Raises:
        UserError: no finished runs, a damaged one, or a folder that cannot be written.
    """
    runs = without_copies([load_checked_run(folder) for folder in find_runs(records, out)])
    clips = _ClipFolder(out)
    sections = [
        _section(group, clips, limit, data_dir) for group in group_runs(runs, "", controls_apart=True)
    ]
    page = out / PAGE
    try:
        write_atomic(page, _render(sections))
    except OSError as error:
        raise UserError(f"cannot write {page}: {error.strerror or error}") from error
    notes = [f"{section['task']}: {note}" for section in sections for note in section["notes"]]
    return ListeningPage(page, sum(len(each["shown"]) for each in sections), len(clips.names), tuple(notes))


class _ClipFolder:
    """Writes clips beside the page, each once, under the hash of what is heard.

    Attributes:
        names: Files as seen from the page.
        unread: Why clips could not be read.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.names: set[str] = set()
        self.unread: list[str] = []

    def add(self, audio: Mapping[str, Any], perturbation: str, control: AudioControl | None) -> str:
        """Address of a clip as seen from the page, "" where it cannot be read."""
        key = clip_key(audio)
        suffix = control.key_suffix() if control else ""
        name = f"{CLIPS}/{hashlib.sha256(f'{key}|{perturbation}{suffix}'.encode()).hexdigest()[:20]}.flac"
        if name in self.names:
            return name
        try:
            wave = load_wave(audio)
            if perturbation:
                wave = parse_perturbation(perturbation).apply(wave, key)
            wave = control.apply(wave) if control else wave
            data = encode_flac(wave)
        except RbaError as error:
            self.unread.append(str(error))
            return ""
        (self.out / CLIPS).mkdir(parents=True, exist_ok=True)
        write_atomic(self.out / name, data)
        self.names.add(name)
        return name


def _documents(group: BoardGroup, data_dir: Path | None) -> tuple[Mapping[int, Document], str]:
    """Documents by position where this machine has the test set with its clips, and why it has not.

    Where clips were exchanged, the audio of each is the one that was played.
    """
    spec = shipped_task(group.task)
    if spec is None:
        return {}, "the task is not one of this version of rba-bench"
    test_set, problem = load_clips(spec, data_dir)
    if test_set is None or not test_set.has_audio:
        return {}, problem
    documents = dict(enumerate(test_set.documents))
    try:
        control = recorded_control(group.record.protocol_spec)
        if control is not None and control.exchanges:
            played = exchanged_audio(test_set.documents, group.task)
            documents = {place: changed(doc, audio=played[place]) for place, doc in documents.items()}
    except UserError as error:
        return {}, str(error)
    return documents, ""


def _section(group: BoardGroup, clips: _ClipFolder, limit: int, data_dir: Path | None) -> dict[str, Any]:
    """One task for the template."""
    documents, problem = _documents(group, data_dir)
    sign = 1 if group.record.metrics[group.primary].higher_is_better else -1
    labelled = [
        (label_text(label, kind_of_run(run)), run)
        for label, run in zip(group.labels, group.runs, strict=True)
    ]
    labelled.sort(
        key=lambda pair: (
            KINDS.index(kind_of_run(pair[1])),
            -sign * pair[1].record.metrics[group.primary].value,
            pair[0],
        )
    )
    by_item: dict[int, list[tuple[str, LoadedRun, Sample]]] = {}
    for label, run in labelled:
        for sample in run.samples:
            by_item.setdefault(sample.doc_id, []).append((label, run, sample))
    numbers = sorted(by_item)[:limit]
    record, unread = group.record, len(clips.unread)
    shown = [_item(group, number, by_item[number], documents.get(number), clips) for number in numbers]
    notes = [f"no clips, as {problem}"] if problem else []
    if left_out := len(by_item) - len(numbers):
        notes.append(f"the first {len(numbers)} items; {left_out} more are left out")
    if unread := len(clips.unread) - unread:
        notes.append(f"{unread} clips cannot be read ({clips.unread[-1]})")
    return {
        "task": group.task,
        "facts": [
            record.protocol,
            f"protocol {group.protocol_hash[:SHORT]}",
            record.created[:10],
            *([f"clips with {group.perturbation}"] if group.perturbation else []),
            *([f"control without the speech: {group.control}"] if group.control else []),
        ],
        "notes": notes,
        "headings": [
            metric_heading(name, value.scale, value.higher_is_better)
            for name, value in record.metrics.items()
        ],
        "rows": [_summary(label, run) for label, run in labelled],
        "shown": shown,
    }


def _summary(label: str, run: LoadedRun) -> dict[str, Any]:
    """One model's scores over all of its items."""
    cells = []
    for metric, value in run.record.metrics.items():
        score, low, high = score_texts(metric, value)
        cells.append(f"{score} [{low}, {high}]")
    partial = f" of {run.record.data['n_items']}" if run.record.partial else ""
    return {"label": label, "cells": cells, "n": f"{run.record.n}{partial}"}


def _item(
    group: BoardGroup,
    number: int,
    answers: Sequence[tuple[str, LoadedRun, Sample]],
    document: Document | None,
    clips: _ClipFolder,
) -> dict[str, Any]:
    """One item with the answers of all runs."""
    sample, control = answers[0][2], recorded_control(group.record.protocol_spec) if document else None
    played = sample.played_sha256 or sample.audio_sha256
    heard = document if document is not None and document["audio"]["sha256"] == played else None
    scores = {
        each.scores[group.primary] for _, _, each in answers if _is_number(each.scores.get(group.primary))
    }
    return {
        "number": number + 1,
        "id": sample.id,
        "group": sample.group,
        "voice": heard["voice"] if heard and not sample.played_sha256 else "",
        "seconds": f"{sample.duration:.1f} s",
        "clip": clips.add(heard["audio"], group.perturbation, control) if heard else "",
        "played": spoken_text(heard["audio"]) if heard and sample.played_sha256 else "",
        "instruction": sample.instruction,
        "prompt": sample.prompt,
        "references": sample.references if sample.references != [sample.instruction] else [],
        "differs": len(scores) > 1,
        "answers": [_answer(label, run, each) for label, run, each in answers],
    }


def _answer(label: str, run: LoadedRun, sample: Sample) -> dict[str, Any]:
    """What one model answered."""
    return {
        "label": label,
        "text": sample.extracted,
        "raw": sample.response if sample.response.strip() != sample.extracted.strip() else "",
        "heard": sample.heard,
        "status": "" if sample.status == "ok" else sample.status,
        "error": sample.error,
        "scores": [
            {"metric": metric, **_score(sample.scores.get(metric), value.aggregation, value.scale)}
            for metric, value in run.record.metrics.items()
        ],
    }


def _score(score: float | Sequence[int] | None, aggregation: str, scale: float) -> dict[str, str]:
    """Text and class of an item's score: a sign for right and wrong, else a number on a scale of 100."""
    if score is None:
        return {"text": NOTHING, "kind": ""}
    if _is_number(score) and scale == 1 and score in (0, 1):
        return {"text": "✓", "kind": "good"} if score else {"text": "✗", "kind": "bad"}
    value = score_function(aggregation)(summable_rows([score], aggregation)[0].tolist())
    return {"text": f"{100 * value / scale:.0f}", "kind": ""}


def _is_number(score: Any) -> bool:
    return isinstance(score, int | float)


def _render(sections: Sequence[Mapping[str, Any]]) -> str:
    style = page_part("rba_bench.leaderboard", "listening.css")
    return render_template(
        page_part("rba_bench.leaderboard", "listening.html.jinja"),
        sections=sections,
        style=style,
        # `file:` because from a disk not every browser takes files beside the page for 'self'
        policy=f"default-src 'none'; style-src {source_hash(style)}; img-src data:; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'",
        made=f"rba-bench {__version__}",
    )
