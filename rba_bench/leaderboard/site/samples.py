"""The pages of samples: every answer of every model beside the clip, the reference and the scores.

    samples/<section>/index.html      controls, and the scores of the models
    samples/<section>/summary.js      what filters and keys need of every item: group, status and score of each model
    samples/<section>/items-0000.js   the texts of a hundred items, fetched when one of them is looked at

Texts of records are JSON in these scripts and become text of the page, never markup (`samples.js` sets `textContent`).
All bytes follow from the records, and from the names of the clips that lie beside the pages.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import label_text
from rba_bench.leaderboard.site.again import item_option
from rba_bench.leaderboard.site.clips import clip_file, clip_note
from rba_bench.leaderboard.site.sample_sections import (
    ModelAnswers,
    SampleSection,
    board_section,
    clip_name,
    items_shown,
)
from rba_bench.leaderboard.site.shell import call_script, render_page, site_assets
from rba_bench.leaderboard.tables import rounded
from rba_bench.leaderboard.worker_processes import Mapped
from rba_bench.metrics.word_differences import (
    DELETED,
    INSERTED,
    SAME,
    SUBSTITUTED,
    Difference,
    error_rate,
    word_differences,
)
from rba_bench.untrusted import visible_text

FOLDER = "samples"
SCRIPTS = ("parts.js", "votes.js", "item.js", "address.js", "samples.js")
ASSETS = ("samples.css", *SCRIPTS)
PAGE, SUMMARY = "index.html", "summary.js"
PIECE = 100  # items of one file
LONGEST = 20_000  # characters of a text: what is longer shows its beginning
DEEPEST = 8  # of what a judge says
WORDED = ("asr", "s2tt")  # kinds of items whose answers are compared with the reference word by word
FACT_SIGN = " · "
SIGNS = {SAME: "=", SUBSTITUTED: "~", INSERTED: "+", DELETED: "-"}


def sample_files(
    sections: Mapping[str, BoardGroup], clips: Collection[str] = (), mapped: Mapped = map
) -> dict[str, bytes]:
    """All pages of samples of a board, by their names in its folder.

    Args:
        sections: Groups by the name of their section, which is the folder of their page.
        clips: Names of the clips that lie in `clips/`, without `.flac`; see `site.clips.choose_clips`.
        mapped: Maps a function to jobs, perhaps in several processes.
    """
    files = site_assets(*ASSETS)
    limit = items_shown(list(sections.values()))
    for made in mapped(_pages, [(name, group, limit, clips) for name, group in sections.items()]):
        files |= made
    return files


def _pages(job: tuple[str, BoardGroup, int, Collection[str]]) -> dict[str, bytes]:
    """The pages of one group; of its answers nothing is kept."""
    name, group, limit, clips = job
    files = section_files(board_section(name, group, limit=limit), clips)
    group.release()
    return files


def section_files(section: SampleSection, clips: Collection[str]) -> dict[str, bytes]:
    """The pages of one section, by their names in the folder of the site."""
    folder = f"{FOLDER}/{section.name}"
    pieces = range(0, len(section.numbers), PIECE)
    return {
        f"{folder}/{PAGE}": sample_page(section, note=clip_note(section, clips)),
        f"{folder}/{SUMMARY}": summary_script(section, clips),
        **{
            f"{folder}/items-{place:04d}.js": items_script(section, place, clips)
            for place in range(len(pieces))
        },
    }


def sample_page(section: SampleSection, live: bool = False, note: str = "") -> bytes:
    """The page of a section.

    Args:
        section: What it shows.
        live: Whether it asks for `live.js` again and again, and shows what has come.
        note: Where its clips come from, and under which licence.
    """
    page = render_page(
        "samples.html.jinja",
        title=f"Samples of {section.name}",
        root="../../",
        styles=["../../site/samples.css"],
        scripts=[*(f"../../site/{name}" for name in SCRIPTS), SUMMARY],
        section=section.name,
        facts=section.facts,
        left_out=section.left_out,
        items=len(section.numbers),
        metrics=section.metrics,
        # without their samples: what a template is given is held until garbage is collected
        models=[
            {
                "label": model.label,
                "kind": model.kind,
                "state": model.state,
                "scores": model.scores,
                "answers": len(model.samples),
                "base": model.base,
            }
            for model in section.models
        ],
        label_text=label_text,
        note=note,
        live=live,
        served=live,
    )
    return page.encode()


def summary_script(
    section: SampleSection, clips: Collection[str], version: str = "", notes: Sequence[str] = ()
) -> bytes:
    """What filters and keys need: of each item its group, and of each model's answer status and score.

    Args:
        section: What the page shows.
        clips: Names of the clips that can be had.
        version: Of the runs, where these may change; pieces of another version are not shown with this summary.
        notes: What could not be read, where the runs may change.
    """
    samples = section.first_samples
    groups = sorted({samples[number].group for number in section.numbers})
    statuses = sorted({s.status for model in section.models for s in model.samples.values()} - {"ok"})
    codes = {status: place for place, status in enumerate(["ok", *statuses])}
    group_place = {group: place for place, group in enumerate(groups)}
    metric = section.metric
    summary = {
        "version": version,
        "piece": PIECE,
        "metrics": [{"name": visible_text(m.name), "binary": m.scale == 1} for m in section.metrics],
        "primary": visible_text(section.primary),
        "higher": metric is None or metric.higher_is_better,
        "limit": section.failure_limit,
        "models": [_model_entry(section, model) for model in section.models],
        "place": section.place,
        "numbers": section.numbers,
        "ids": [_text(samples[number].id) for number in section.numbers],
        "groups": [_text(group) for group in groups],
        "group": [group_place[samples[number].group] for number in section.numbers],
        "statuses": list(codes),
        "status": [
            [
                codes[found.status] if (found := model.samples.get(number)) else -1
                for number in section.numbers
            ]
            for model in section.models
        ],
        "scores": [[scores.get(number) for number in section.numbers] for scores in section.scores],
        "clips": [
            place for place, number in enumerate(section.numbers) if clip_name(section, number) in clips
        ],
    }
    if version:
        summary["changing"] = _changing(section, notes)
    return call_script("rbaSummary", summary)


def items_script(section: SampleSection, place: int, clips: Collection[str], version: str = "") -> bytes:
    """The texts of the items of one piece; arguments as of `summary_script`."""
    numbers = section.numbers[place * PIECE : (place + 1) * PIECE]
    return call_script("rbaItems", place, version, [_item(section, number, clips) for number in numbers])


def _changing(section: SampleSection, notes: Sequence[str]) -> dict[str, Any]:
    """The texts of the page itself, for a page that is open while the runs change."""
    rows = [
        {
            "name": visible_text(label_text(model.label, model.kind)),
            "state": visible_text(model.state),
            "cells": [
                *(model.scores.get(metric.name, "-") for metric in section.metrics),
                str(len(model.samples)),
                visible_text(model.base) or "-",
            ],
        }
        for model in section.models
    ]
    headings = [
        "model",
        *(visible_text(metric.heading) for metric in section.metrics),
        "items",
        "aligned from",
    ]
    return {
        "facts": visible_text(FACT_SIGN.join(section.facts)),
        "headings": headings,
        "rows": rows,
        "notes": list(notes),
    }


def _model_entry(section: SampleSection, model: ModelAnswers) -> dict[str, Any]:
    labels = [each.label for each in section.models]
    return {
        "label": visible_text(model.label),
        "kind": model.kind,
        "state": visible_text(model.state),
        "base": labels.index(model.base) if model.base else -1,
        "score": model.scores.get(section.primary, ""),
        "command": model.command,
    }


def _item(section: SampleSection, number: int, clips: Collection[str]) -> dict[str, Any]:
    """One item with the answers of all models; what is empty is left out."""
    sample, name = section.first_samples[number], clip_name(section, number)
    item = {
        "clip": clip_file(name) if name in clips else "",
        "seconds": rounded(sample.duration),
        "audio": sample.audio_sha256,
        "played": sample.played_sha256,
        "languages": _text(" → ".join(dict.fromkeys((sample.source_lang, sample.target_lang)))),
        "instruction": _text(sample.instruction),
        "prompt": _text(sample.prompt),
        "references": [_text(each) for each in sample.references],
        "baseline": _text(sample.baseline),
        "extra": _text(sample.extra),
        "option": item_option(sample),
    }
    answers = [_answer(section, model, number) for model in section.models]
    return {key: value for key, value in item.items() if value} | {"answers": answers}


def _answer(section: SampleSection, model: ModelAnswers, number: int) -> dict[str, Any] | None:
    """What one model answered; None where it has not."""
    sample = model.samples.get(number)
    if sample is None:
        return None
    answer = {
        "response": _text(sample.response),
        "reasoning": _text(sample.reasoning),
        "heard": _text(sample.heard),
        "heardWords": _heard_words(sample),
        "words": _reference_words(sample),
        "error": _text(sample.error),
        "scores": [metric.item_score(sample) for metric in section.metrics],
        "judge": _visible(rounded(sample.judge)) if sample.judge else None,
    }
    # the seed as text: it has more digits than numbers of a script
    kept = {key: value for key, value in answer.items() if value}
    extracted = {"extracted": _text(sample.extracted)} if sample.extracted != sample.response else {}
    return kept | extracted | {"tokens": sample.n_tokens, "seed": str(sample.seed)}


def _heard_words(sample: Sample) -> list[list[str]]:
    """Word differences of the transcript of a cascade from what is spoken."""
    if not sample.heard:
        return []
    spoken, heard = sample.instruction[:LONGEST], sample.heard[:LONGEST]
    return _signed(word_differences(spoken, heard, sample.source_lang or "en"))


def _reference_words(sample: Sample) -> list[list[str]]:
    """Word differences from the nearest reference, where the answer should be the reference."""
    if sample.kind not in WORDED:
        return []
    found = [
        word_differences(reference[:LONGEST], sample.extracted[:LONGEST], sample.target_lang or "en")
        for reference in sample.references
    ]
    return _signed(min(found, key=_errors)) if found else []


def _errors(differences: list[Difference]) -> float:
    """Error rate; without a word in the reference, whether anything was given."""
    rate = error_rate(differences)
    return float(len(differences)) if rate is None else rate


def _signed(differences: list[Difference]) -> list[list[str]]:
    """Runs of words: sign, words of the expected text, words of the given one where they are others."""
    return [
        [SIGNS[kind], _text(said), *([] if kind == SAME else [_text(recognised)])]
        for kind, said, recognised in differences
    ]


def _text(text: str) -> str:
    """A text as it may be shown, or its beginning."""
    cut = len(text) - LONGEST
    return visible_text(text) if cut <= 0 else f"{visible_text(text[:LONGEST])} … ({cut} more characters)"


def _visible(value: Any, depth: int = 0) -> Any:
    """JSON values of a judge whose texts may be shown."""
    if isinstance(value, str):
        return _text(value)
    if depth == DEEPEST and isinstance(value, Mapping | list | tuple):
        return "…"
    if isinstance(value, Mapping):
        return {_text(str(key)): _visible(each, depth + 1) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_visible(each, depth + 1) for each in value]
    return value
