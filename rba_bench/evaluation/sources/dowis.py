"""DOWIS (`maikezu/dowis`): any task with its instruction spoken by a person instead of written.

    data/test-*.parquet   text_prompt, language, task, prompt_type,
                          audio_prompt_{female,male}_{1,2} {bytes, path} or null

1,320 rows: 12 languages x 11 tasks x 5 styles x 2 wordings, each recorded by one to four people. The prompts name no
language pair: those of `st` in German ask for a translation *into* German, so the target language chooses them. Prompts
of `sqa` end where the question is to follow; the recordings leave out the `<question>` of the text.

An item keeps its id, clip, references, cluster and scoring. Which wording and which voice it gets is drawn by hash of
seed and id, alike for the spoken and the written form, so the two differ in nothing but how the instruction comes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import model_input, task_registry
from rba_bench.evaluation.documents import Document, changed, load_documents
from rba_bench.evaluation.sources import hub, tables
from rba_bench.evaluation.sources import source as base
from rba_bench.evaluation.sources.source import LoadedSet, Place, check_options, compare_size
from rba_bench.files import sha256_bytes
from rba_bench.seeding import stable_seed

REPO = "maikezu/dowis"
PATTERN = "data/test-*.parquet"
ROWS = 1320
COLUMNS = ("text_prompt", "language", "task", "prompt_type")
VOICES = ("female_1", "female_2", "male_1", "male_2")
STYLES = ("basic", "formal", "informal", "detailed", "short")
LANGUAGES = ("cs", "de", "en", "es", "fr", "hu", "it", "nl", "pt", "ru", "sq", "sv")
PROMPTS = {"s2tt": "st", "asr": "asr", "qa": "sqa"}  # kind of item -> task of DOWIS
SPOKEN, WRITTEN = "spoken", "written"
SEED = 1234
_NOTHING = sha256_bytes(b"")


@dataclass(frozen=True)
class Prompt:
    """One wording with its recordings, by voice."""

    text: str
    style: str
    recordings: Mapping[str, tables.Clip]


def load_dowis(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The items of another task under prompts of DOWIS.

    Args:
        options: `task`: name of a shipped task of speech translation, transcription or spoken questions; `form`:
            `spoken` or `written`; `styles` (all five) and `voices` (all four) to draw from; `language` of the prompts
            (by default that of the answer); `seed`.
        place: Where DOWIS and the data of the task are.

    Raises:
        UserError: unknown options, a task without such prompts, or no prompt in the language.
        MissingPrerequisite: DOWIS or the task's data is not there.
    """
    values = check_options(
        options, task=..., form=SPOKEN, styles=STYLES, voices=VOICES, language="", seed=SEED
    )
    if values["form"] not in (SPOKEN, WRITTEN):
        raise UserError(f"dowis: form is {SPOKEN} or {WRITTEN}, not {values['form']!r}")
    inner = _wrapped(str(values["task"]), place)
    kind = inner.documents[0]["kind"]
    if kind not in PROMPTS:
        raise UserError(f"dowis has no prompts for {values['task']}: its items are of kind {kind}")
    files = hub.find_files(REPO, [PATTERN], place)
    prompts = _Prompts(files, PROMPTS[kind], values)
    items = [_document(doc, prompts, str(values["form"]), int(values["seed"])) for doc in inner.documents]
    facts = {"form": values["form"], "seed": int(values["seed"]), "prompts": prompts.counts}
    facts |= {**prompts.size, "task": str(values["task"]), "items": inner.origin}
    return LoadedSet(items, files.origin(**facts))


def _wrapped(name: str, place: Place) -> LoadedSet:
    files = list(task_registry.tasks_dir().glob(f"*/{name}.yaml")) if re.fullmatch(r"\w[\w-]*", name) else []
    if not files or name.startswith("_"):
        raise UserError(f"dowis: no task {name!r}; `rba-bench tasks list` shows all")
    options = dict(task_registry.read_spec(files[0]).config.get("dataset_kwargs") or {})
    source = options.pop("source", None)
    if source == "dowis":
        raise UserError(f"dowis: {name} has its instruction spoken already")
    if source is None:
        return LoadedSet(load_documents(options.get("testset"), options.get("data")), {"source": name})
    return base.load_source(str(source), options, place)


class _Prompts:
    """Prompts of one DOWIS task by language; only files that hold wanted rows are indexed."""

    def __init__(self, found: hub.HubFiles, task: str, chosen: Mapping[str, Any]) -> None:
        self.task, self.language = task, str(chosen["language"])
        self.styles = _subset("styles", chosen["styles"], STYLES)
        self.voices = _subset("voices", chosen["voices"], VOICES)
        self._found = found
        self._texts = {path: tables.read_columns(path, COLUMNS) for path in found.paths}
        self._known: dict[str, list[Prompt]] = {}
        self.size = compare_size("dowis", sum(map(len, self._texts.values())), ROWS)

    @property
    def counts(self) -> dict[str, int]:
        """Number of prompts by language."""
        return {language: len(prompts) for language, prompts in sorted(self._known.items())}

    def of(self, doc: Document) -> list[Prompt]:
        """Prompts that fit an item, in the order of the data set."""
        language = self.language or str(doc["target_lang"])
        if language not in self._known:
            prompts = [
                prompt
                for path, rows in self._texts.items()
                if any(self._wanted(row, language) for row in rows)
                for prompt in self._recorded(path, language)
            ]
            if not prompts:
                raise UserError(
                    f"dowis holds no recorded {self.task} prompt in {language!r} ({', '.join(self.styles)}; "
                    f"{', '.join(self.voices)}); its languages are {', '.join(LANGUAGES)}"
                )
            self._known[language] = prompts
        return self._known[language]

    def _recorded(self, path: Any, language: str) -> list[Prompt]:
        columns = {
            voice: [clip for _, clip in tables.parquet_rows([path], (), f"audio_prompt_{voice}")]
            for voice in self.voices
        }
        prompts = []
        for number, row in enumerate(self._texts[path]):
            here = {voice: clips[number] for voice, clips in columns.items()}
            recordings = {voice: clip for voice, clip in here.items() if clip.sha256 != _NOTHING}
            if recordings and self._wanted(row, language):
                text = _as_spoken(str(row["text_prompt"]))
                prompts.append(Prompt(text, str(row["prompt_type"]), recordings))
        return prompts

    def _wanted(self, row: Mapping[str, Any], language: str) -> bool:
        fits = row["language"] == language and str(row["task"]).lower() == self.task
        return fits and row["prompt_type"] in self.styles


def _subset(name: str, given: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) else tuple(given)
    if not listed or set(listed) - set(known):
        raise UserError(f"dowis: {name} are some of {', '.join(known)}, not {', '.join(listed) or 'none'}")
    return tuple(each for each in known if each in listed)


def _as_spoken(text: str) -> str:
    """The words of the recording: it stops where the question would be."""
    return text.replace("<question>", "").rstrip(" .:?") if "<question>" in text else text.strip()


def _document(doc: Document, prompts: _Prompts, form: str, seed: int) -> Document:
    fitting = prompts.of(doc)
    prompt = fitting[stable_seed("dowis", seed, doc["id"]) % len(fitting)]
    voices = sorted(prompt.recordings)
    voice = voices[stable_seed("dowis voice", seed, doc["id"]) % len(voices)]
    facts = {"text": prompt.text, "style": prompt.style, "voice": voice, "form": form}
    extra = {**json.loads(doc["extra"] or "{}"), "dowis": facts}
    doc = changed(doc, extra=json.dumps(extra, ensure_ascii=False, sort_keys=True))
    if form == WRITTEN:
        return changed(doc, prompt=prompt.text)
    audio = {**doc["audio"], "prefix": prompt.recordings[voice].reference(prompt.text)}
    return changed(doc, prompt="", audio=audio, duration=model_input.clip_duration(audio))
