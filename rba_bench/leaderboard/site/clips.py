"""Which clips lie beside the pages of a board, and the clips themselves.

A site holds some clips of each test set whose licence allows it; every other clip is named by its hash. The choice is
drawn from a seed and favours items on which models disagree or fail. Clips are the one part of a site that does not
follow from the records, as other machines may be unable to make them: `records.json` lists their hashes, and a build
takes over those that it finds in its folder.
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rba_bench.audio.clips import encode_flac
from rba_bench.audio.perturbations import parse_perturbation
from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation.audio_control import AudioControl, exchanged_audio, parse_audio_control
from rba_bench.evaluation.documents import Document
from rba_bench.evaluation.model_input import clip_key, load_wave
from rba_bench.evaluation.records import Sample
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.site.sample_sections import SampleSection, board_section, clip_name, items_shown
from rba_bench.leaderboard.test_sets import load_clips, shipped_task
from rba_bench.seeding import stable_seed
from rba_bench.untrusted import read_untrusted_file

CLIPS = "clips"  # folder beside the pages
PER_TASK = 20
MOST_BYTES = 20 * 10**6  # of all clips of a site
CLIP_NAME = re.compile(r"[0-9a-f]{20}")
_HASH = re.compile(r"[0-9a-f]{64}")
# Weights of an item in the draw, beside 1: by the shares of models that fail, and whether models disagree.
_FAILURES, _DISAGREEMENT = 2.0, 4.0
# By where clips come from (see docs/assets.md, docs/voices.md and the READMEs of the tasks). Clips of other sets are
# never copied.
_WORLDS = {
    "micro": "texts of rba-bench (Apache-2.0), spoken by espeak-ng",
    "small": "texts of rba-bench (Apache-2.0), spoken by Piper (voice en_US-joe-medium, CC0) and by espeak-ng",
}
_CORPORA = {
    "fleurs": "FLEURS (Conneau et al. 2022, arXiv 2205.12446), CC BY 4.0",
    "covost2": "Common Voice, CC0, by way of CoVoST 2 (Wang, Wu, Pino 2020, arXiv 2007.10310)",
}


@dataclass(frozen=True)
class ChosenClips:
    """The clips of a site.

    Attributes:
        files: FLAC by name, without ending.
        notes: What is left out, and why, in sentences.
    """

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each clip by its name, for `records.json`."""
        return {name: sha256_bytes(data) for name, data in sorted(self.files.items())}


class ClipMaker:
    """Makes clips as the models got them, of test sets that this machine has.

    Args:
        data_dir: Folder with local copies of public data sets.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self._data_dir = data_dir
        self._documents: dict[str, tuple[Sequence[Document], str]] = {}
        self._exchanged: dict[str, dict[int, Any]] = {}

    def documents(self, task: str) -> tuple[Sequence[Document], str]:
        """The items of a task with their clips, and why there are none. Some test sets are spoken now."""
        if task not in self._documents:
            spec = shipped_task(task)
            found, problem = load_clips(spec, self._data_dir) if spec else (None, "the task is unknown here")
            has_clips = found is not None and found.has_audio
            self._documents[task] = (found.documents, "") if found and has_clips else ((), problem)
        return self._documents[task]

    def make(self, task: str, sample: Sample, perturbation: str, control: str = "") -> bytes:
        """The clip of an item as FLAC, changed and replaced as `eval --perturb` and `--audio` do.

        Raises:
            UserError: this machine does not have it.
            RbaError: it cannot be read.
        """
        away = parse_audio_control(control) if control else None
        audio, problem = self._audio(task, sample.doc_id, away)
        if audio is None or audio["sha256"] != (sample.played_sha256 or sample.audio_sha256):
            raise UserError(
                f"the clip of {task}, item {sample.doc_id}, is not here: {problem or 'another one is'}"
            )
        wave = load_wave(audio)
        if perturbation:
            wave = parse_perturbation(perturbation).apply(wave, clip_key(audio))
        return encode_flac(away.apply(wave) if away else wave)

    def _audio(
        self, task: str, number: int, control: AudioControl | None
    ) -> tuple[Mapping[str, Any] | None, str]:
        """The clip that is played for an item, and why there is none."""
        documents, problem = self.documents(task)
        if not 0 <= number < len(documents):
            return None, problem
        if control is None or not control.exchanges:
            return documents[number]["audio"], problem
        if task not in self._exchanged:
            self._exchanged[task] = exchanged_audio(documents, task)
        return self._exchanged[task][number], problem


def choose_clips(
    groups: Sequence[BoardGroup],
    per_task: int = PER_TASK,
    board: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> ChosenClips:
    """The clips of a site: `per_task` of each test set whose licence allows it, at most 20 MB in all.

    Args:
        groups: The runs of a board.
        per_task: Clips of each test set; its protocols share them. 0 for none.
        board: Folder of an earlier build, whose clips are taken over.
        hashes: Of that build's clips, see `published_hashes`.
        data_dir: Folder with local copies of public data sets.
    """
    maker = ClipMaker(data_dir)
    drawn = [each.draw(per_task) for each in _candidates(groups)] if per_task else []
    files: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    size = 0
    for turn in zip_longest(*drawn):  # in turns, so that no test set takes all the room
        for clip in filter(None, turn):
            data = _published_clip(board, clip.name, hashes or {})
            try:
                data = data or maker.make(clip.task, clip.sample, clip.perturbation)
            except RbaError as error:
                problems.setdefault(clip.task, str(error))
                continue
            if size + len(data) > MOST_BYTES:
                return ChosenClips(files, (*problems.values(), f"clips end at {MOST_BYTES // 10**6} MB"))
            files[clip.name] = data
            size += len(data)
    return ChosenClips(files, tuple(problems.values()))


def published_hashes(listed: object) -> dict[str, str]:
    """What a `records.json` lists as its clips.

    Raises:
        ValueError: not names of clips with hashes.
    """
    if not isinstance(listed, Mapping):
        raise ValueError("clips are no mapping")
    for name, digest in listed.items():
        if not (CLIP_NAME.fullmatch(str(name)) and _HASH.fullmatch(str(digest))):
            raise ValueError("a clip has no hash as its name")
    return dict(listed)


def clip_file(name: str) -> str:
    """Where a clip lies below the top of a site."""
    return f"{CLIPS}/{name}.flac"


def clip_faults(board: Path, hashes: Mapping[str, str]) -> list[str]:
    """Clips that a board lists and does not hold as they were."""
    return [f"{clip_file(name)} is not the clip that was published" for name in sorted(hashes)
            if _published_clip(board, name, hashes) is None]  # fmt: skip


def licence_of(task: str) -> str:
    """Where the clips of a task come from and under which licence they may be copied; "" where they may not."""
    spec = shipped_task(task)
    kwargs = dict(spec.config.get("dataset_kwargs") or {}) if spec else {}
    if "testset" in kwargs:
        return _WORLDS["micro"]
    source = str(kwargs.get("source", ""))
    return _WORLDS.get(source) or _CORPORA.get(
        str(kwargs.get("corpus", source)) if source == "asr" else source, ""
    )


def clip_note(section: SampleSection, clips: Collection[str]) -> str:
    """How many clips lie beside a page, under which licence, and what stands for the others."""
    here = sum(clip_name(section, number) in clips for number in section.numbers)
    if not here:
        return "No clips lie beside this page; each item has the SHA-256 of its clip in the test set."
    text = f"Clips: {here} of {len(section.numbers)} lie beside this page"
    text += f" ({licence})" if (licence := licence_of(section.task)) else ""
    rest = (
        " The other items have the SHA-256 of their clip in the test set."
        if here < len(section.numbers)
        else ""
    )
    return f"{text}.{rest}"


@dataclass(frozen=True)
class _Clip:
    """A clip that may be chosen."""

    name: str
    task: str
    sample: Sample
    perturbation: str


@dataclass
class _Candidates:
    """The clips of a test set, with weights that its protocols add to."""

    test_set: str
    clips: dict[int, _Clip] = field(default_factory=dict)
    weights: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, section: SampleSection) -> None:
        """The items of one protocol."""
        models = [place for place, model in enumerate(section.models) if model.kind == MODEL]
        for number in section.numbers:
            verdicts = [section.verdict(place, number) for place in models or range(len(section.models))]
            known = [verdict for verdict in verdicts if verdict is not None]
            self.weights[number] += _FAILURES * sum(known) / len(known) if known else 0
            self.weights[number] += _DISAGREEMENT if len(set(known)) == 2 else 0
            if number not in self.clips:
                name, sample = clip_name(section, number), section.first_samples[number]
                self.clips[number] = _Clip(name, section.task, sample, section.perturbation)

    def draw(self, n: int) -> list[_Clip]:
        """Clips drawn without replacement by their weights.

        After Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003.
        """

        def key(number: int) -> tuple[float, int]:
            drawn = random.Random(stable_seed("clips", self.test_set, number)).random()
            return -math.log(1 - drawn) / (1 + self.weights[number]), number

        return [self.clips[number] for number in sorted(self.clips, key=key)[:n]]


def _candidates(groups: Sequence[BoardGroup]) -> Iterable[_Candidates]:
    """The clips of a board that may be copied, by test set; of each section no more than them is kept in memory."""
    found: dict[tuple[str, str], _Candidates] = {}
    for group in groups:
        if licence_of(group.task):
            key = group.data_hash, group.perturbation
            section = board_section(group.task, group, limit=items_shown(groups))
            found.setdefault(key, _Candidates(group.data_hash)).add(section)
            group.release()
    return found.values()


def _published_clip(board: Path | None, name: str, hashes: Mapping[str, str]) -> bytes | None:
    """A clip of an earlier build, if it is the one that was published."""
    if board is None or name not in hashes:
        return None
    try:
        data = read_untrusted_file(board / clip_file(name))
    except (FileNotFoundError, UserError):
        return None
    return data if sha256_bytes(data) == hashes[name] else None
