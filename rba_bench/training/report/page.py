"""The report of a run as one HTML page, with the clips that it shows.

The page cannot reach the network or run a script that came with the data: every text of a model or a recipe is escaped,
figures are JSON in an element that is not executed, and the page's own policy allows two scripts by their hashes and no
address at all. Clips are data URIs: short, in a codec that every browser plays, within a budget for the whole page.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench import __version__
from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import SAMPLING_RATE, load_clip
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import write_atomic
from rba_bench.html_pages import page_part, render_template, script_json, source_hash
from rba_bench.installing import extra
from rba_bench.training.options.explain import explain_keys, flatten_keys, value_text
from rba_bench.training.report.content import RunContent, make_charts, read_run
from rba_bench.training.run_names import REPORT

SECONDS = 20  # of a clip
BYTES = 6 * 2**20  # of all clips of a page, encoded

Groups = Mapping[str, Sequence[AlignmentRow]]


class ClipPlayer:
    """Gives the clips of a page as data URIs, within a budget of bytes.

    Args:
        groups: rows by group id; None where the set cannot be read.

    Attributes:
        left_out: number of clips beyond the budget.
        unread: number of clips that could not be read.
    """

    def __init__(self, groups: Groups | None) -> None:
        self.groups = groups
        self.left_out = 0
        self.unread = 0
        self._uris: dict[str, str] = {}
        self._bytes = 0

    def __call__(self, group: str, clip: str) -> str:
        """A clip as a data URI; empty if the page has no clip for it."""
        if self.groups is None:
            return ""
        if clip not in self._uris:
            uri = ""
            try:
                (row,) = [row for row in self.groups[group] if row.id == clip]
                uri = data_uri(load_clip(row.audio))
            except (KeyError, ValueError, OSError, RbaError):  # another set by now, or a damaged one
                self.unread += 1
            if self._bytes + len(uri) > BYTES:
                self.left_out += 1
                uri = ""
            self._bytes += len(uri)
            self._uris[clip] = uri
        return self._uris[clip]


def data_uri(wave: np.ndarray) -> str:
    """The first seconds of a wave [n] at 16 kHz, as MP3, or as FLAC where this libsndfile cannot write MP3."""
    import soundfile

    mp3 = "MPEG_LAYER_III" in soundfile.available_subtypes("MP3")
    kind, subtype, mime = ("MP3", "MPEG_LAYER_III", "audio/mpeg") if mp3 else ("FLAC", "PCM_16", "audio/flac")
    buffer = io.BytesIO()
    clip = np.clip(wave[: SECONDS * SAMPLING_RATE], -1.0, 1.0)
    soundfile.write(buffer, clip, SAMPLING_RATE, format=kind, subtype=subtype)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_page(folder: Path, out: Path | None = None, groups: Groups | None = None) -> tuple[Path, list[str]]:
    """Write a run's report.

    Args:
        folder: of the run.
        out: the file; `report.html` in the run's folder by default.
        groups: rows of the run's set by group id, for the clips; by default the set is looked for where it was.

    Returns:
        The file, and what it could not show.

    Raises:
        UserError: the folder is no training run, or the file cannot be written.
        MissingPrerequisite: plotly is not installed.
    """
    if find_spec("plotly") is None:
        raise MissingPrerequisite(f"{REPORT} is drawn by plotly: {extra('train')}")
    source = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    # escaped for a script element
    library = source.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")
    content = read_run(folder)
    missing = content.missing
    if groups is None:
        groups, problem = _find_groups(content)
        missing += [problem] if problem else []
    path = out or folder / REPORT
    html = render_page(content, library, missing, groups)
    try:
        write_atomic(path, html)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path, missing


def render_page(
    content: RunContent, library: str, missing: Sequence[str], groups: Groups | None = None
) -> str:
    """The page as text.

    Args:
        content: of the run.
        library: JavaScript of plotly.
        missing: lines on what the page cannot show.
        groups: rows by group id, for the clips.
    """
    player = ClipPlayer(groups)
    style, code, template = (
        page_part("rba_bench.training.report", file) for file in ("page.css", "page.js", "page.html.jinja")
    )
    parts = {
        "content": content,
        "charts": make_charts(content),
        "items": _items(content, player),
        "means": _means(content),
        "groups": [_group(group, player) for group in content.groups],
        "keys": _keys(content.recipe),
        "facts": _facts(content),
    }
    notes = list(missing)
    if player.left_out:
        notes.append(f"{player.left_out} clips are left out: the page would be too large.")
    if player.unread:
        notes.append(f"{player.unread} clips could not be read from the alignment set.")
    return render_template(
        template,
        **parts,
        notes=notes,
        data=script_json(parts["charts"]),
        style=style,
        library=library,
        code=code,
        policy=_content_security_policy(library, code),
        made=f"rba-bench {__version__}, {datetime.now(UTC).isoformat(timespec='minutes')}",
    )


def _content_security_policy(*scripts: str) -> str:
    """A policy that allows these scripts by their hashes, inline styles, and no address."""
    hashes = " ".join(map(source_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _find_groups(content: RunContent) -> tuple[Groups | None, str]:
    """Rows by group id of the set that the run read, or None and a message (empty if the page needs no clips)."""
    from rba_bench.training.data.groups import TrainingData, choices

    source = content.recipe.get("alignment_set")
    if source is None:
        return None, "No clips: the run does not say where its set is." if content.groups else ""
    if not (content.groups or content.before):
        return None, ""
    try:
        data = TrainingData.open(choices(source), verify_bytes=0)
    except (RbaError, OSError) as error:
        return None, f"No clips: {error}"
    expected = content.run.get("alignment_set_sha256") or content.start.get("alignment_set_sha256")
    if data.sha256 != expected:
        return None, "No clips: the alignment set is not the one that the run read."
    return data.all, ""


def _group(group: dict[str, Any], player: ClipPlayer) -> dict[str, Any]:
    """A group for the page: its samples by clip, each with whether it was chosen or rejected."""
    chosen = {pair["chosen"]["sample"] for pair in group["pairs"]} - {None}
    rejected = {pair["rejected"]["sample"] for pair in group["pairs"]} - {None}
    clips = []
    for voice in group["voices"]:
        samples = [
            {**sample, "chosen": number in chosen, "rejected": number in rejected}
            for number, sample in enumerate(group["samples"])
            if sample["clip"] == voice["clip"]
        ]
        clips.append({**voice, "sound": player(group["group"], voice["clip"]), "samples": samples})
    # a side that is no sample: the teacher's answer, or a given one
    given_sides = [
        {"role": role, "voice": pair[role]["voice"], "text": pair[role]["text"]}
        for pair in group["pairs"]
        for role in ("chosen", "rejected")
        if pair[role]["sample"] is None and pair[role]["text"] != group["teacher"]
    ]
    teacher = any(
        pair["chosen"]["sample"] is None and pair["chosen"]["text"] == group["teacher"]
        for pair in group["pairs"]
    )
    return {**group, "clips": clips, "given": given_sides, "teacher_chosen": teacher}


def _items(content: RunContent, player: ClipPlayer) -> list[dict[str, Any]]:
    """Held-out items with the answers before and after."""
    if content.before is None:
        return []
    later = {item["clip"]: item for item in (content.after[1] if content.after else [])}
    return [
        {**item, "sound": player(item["group"], item["clip"]), "after": later.get(item["clip"])}
        for item in content.before[1]
    ]


def _means(content: RunContent) -> str:
    """Mean nats and reward of the held-out items, before and after training."""
    texts = []
    for name, shown in (("teacher_nats", "nats"), ("reward", "reward")):
        sides = [[answer[name] for answer in answers[1] if answer[name] is not None]
                 for answers in (content.before, content.after) if answers]  # fmt: skip
        means = [sum(values) / len(values) for values in sides if values]
        if means:
            texts.append(f"{shown} {' → '.join(f'{mean:.2f}' for mean in means)}")
    return ", ".join(texts)


def _keys(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipe by key, with the default and the reason where this version knows the key."""
    keys = {key.name: key for key in explain_keys()}
    rows = []
    for name, value in flatten_keys(recipe).items():
        key = keys.get(name)
        if isinstance(value, Mapping) and any(other.startswith(f"{name}.") for other in keys):
            continue
        default = None if key is None else key.by_method.get(recipe.get("method", ""), key.default)
        rows.append({
            "name": name, "value": value_text(value), "default": "" if key is None else value_text(default),
            "changed": key is not None and value != default, "reason": "" if key is None else key.reason,
        })  # fmt: skip
    return rows


def _facts(content: RunContent) -> list[tuple[str, str]]:
    """Name and value of hashes, base, data and cost."""
    record = {**content.start, **content.run}
    parts = (record.get("data") or {}).get("sets", [])
    sets = [f"{part['train_groups']} training groups, {part['clips']} clips" for part in parts]
    times = {
        name: f"{record[name]:.0f} s"
        for name in ("wall_time_s", "encoding_s")
        if isinstance(record.get(name), int | float)
    }
    facts: list[tuple[str, Any]] = [
        ("folder", str(content.folder)),
        ("base", record.get("base") or content.recipe.get("base")),
        ("base revision", record.get("base_revision")),
        ("base sha256", record.get("base_sha256")),
        ("alignment set sha256", record.get("alignment_set_sha256")),
        ("pairs sha256", record.get("pairs_sha256")),
        ("sets", ", ".join(sets)),
        ("steps", f"{content.step} of {content.steps}"),
        ("training time", times.get("wall_time_s")),
        ("encoding time", times.get("encoding_s")),
        ("clips/s", record.get("samples_per_s")),
        ("answers sampled", record.get("answers_sampled")),
        ("hardware", ", ".join(f"{name} {value}" for name, value in (record.get("hardware") or {}).items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in (record.get("versions") or {}).items())),
        ("started", content.start.get("created")),
        ("finished", content.run.get("created")),
        ("clips on this page", f"the first {SECONDS} s of each"),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]
