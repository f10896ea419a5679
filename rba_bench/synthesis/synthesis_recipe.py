"""The recipe of an alignment set: all settings that decide its content."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rba_bench.audio.augmentation import Augmentation
from rba_bench.audio.clip_checks import ClipLimits
from rba_bench.audio.perturbations import COLOURS
from rba_bench.audio.speech_engines import VOICE_BANKS
from rba_bench.errors import UserError
from rba_bench.metrics.languages import TRANSLATE, short
from rba_bench.recipes import Recipe, suggest
from rba_bench.synthesis.quality import QualityOptions
from rba_bench.synthesis.texts.near_duplicates import NearDuplicateOptions
from rba_bench.synthesis.texts.text_rules import TextRuleSettings
from rba_bench.textlm.chat import TemplateVariables

Kind = Literal["instruct", "qa", "s2tt"]
Range = tuple[float, float]
DATASET_KEYS = ("config", "audio_column", "text_column", "source_lang", "target_lang")


class SourceOptions(Recipe):
    """Existing speech with transcripts, which the teacher translates: a manifest, any data set, or a corpus."""

    manifest: str | None = Field(
        None, description="a .jsonl or .csv file, one utterance per line; see rba_bench/synthesis/corpora.py"
    )
    corpus: Literal["covost2", "fleurs", "mustc"] | None = None
    path: str | None = Field(None, description="folder of the corpus")
    dataset: tuple[str, ...] = Field(
        (),
        description="any data set with audio and text: .parquet files, a folder (parquet, save_to_disk, or what "
        "load_dataset reads), or OWNER/NAME[@REVISION] of the Hub",
    )
    config: str | None = Field(None, description="of the data set; of a local folder also a folder in it")
    audio_column: str | None = Field(None, description="of the data set; null: by type and usual names")
    text_column: str | None = Field(
        None, description="what is said, in the data set; null: by type and usual names"
    )
    source_lang: str | None = Field(None, description="language of the data set, such as en")
    target_lang: str | None = Field(None, description="language to translate the data set into, such as de")
    pairs: tuple[str, ...] = Field((), description="directions, such as en_de")
    split: str = Field("train", description="part of the data to use; its test part is for evaluation")
    limit: int | None = Field(None, ge=1, description="use only the first so many utterances")
    max_seconds: float = Field(30.0, gt=0, description="longer utterances are left out")
    prompt: str = Field(
        TRANSLATE,
        description="text beside the speech; {source} and {language} become the names of the languages",
    )
    teacher_prompt: str = Field(
        "Translate the following {source} text into {language}. Write only the translation.\n\n{text}",
        description="prompt of the teacher; {text} becomes the transcript",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "SourceOptions":
        if [self.manifest is not None, self.corpus is not None, bool(self.dataset)].count(True) != 1:
            raise ValueError("source needs either `manifest` or `corpus` or `dataset`")
        if self.corpus is not None and (self.path is None or not self.pairs):
            raise ValueError(f"source.corpus {self.corpus} needs `path` and `pairs`, such as [en_de]")
        if any(len(pair.split("_")) != 2 for pair in self.pairs):
            raise ValueError("source.pairs are two language codes each, such as en_de")
        if "{text}" not in self.teacher_prompt:
            raise ValueError("source.teacher_prompt must say where the {text} goes")
        return self

    @model_validator(mode="after")
    def _of_a_dataset(self) -> "SourceOptions":
        given = [key for key in DATASET_KEYS if getattr(self, key) is not None]
        if given and not self.dataset:
            raise ValueError(f"source.{given[0]} belongs to source.dataset")
        one_way = (self.source_lang is None) == (self.target_lang is None) == bool(self.pairs)
        if self.dataset and (not one_way or len({source for source, _ in self.directions()}) != 1):
            raise ValueError(
                "source.dataset needs `source_lang` and `target_lang`, or `pairs` of one source language, such as "
                "[en_de, en_fr]"
            )
        for code in [code for direction in self.directions() for code in direction]:
            try:
                short(code)
            except UserError as error:
                raise ValueError(f"source: {error}") from error
        return self

    def directions(self) -> list[tuple[str, str]]:
        """Source and target language of each direction, as they are written."""
        if self.source_lang is not None and self.target_lang is not None:
            return [(self.source_lang, self.target_lang)]
        return [(pair.split("_")[0], pair.split("_")[1]) for pair in self.pairs]


class RoundTripOptions(Recipe):
    """A recogniser transcribes every clip; clips that it does not understand are left out."""

    recognizer: str = Field(
        "asset:whisper-tiny.en", description="any recogniser that `rba-bench eval --model cascade:` takes"
    )
    max_wer: float = Field(0.3, ge=0, description="clips with a higher word error rate are left out")
    batch_size: int = Field(16, ge=1, description="clips transcribed at once")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the recogniser; bfloat16 is twice as fast on processors that have it (AVX512-BF16, AMX), and "
        "much slower on others",
    )
    silence_s: float | None = Field(
        None,
        ge=0,
        description="seconds of silence that Whisper gets behind each clip, instead of what fills its 30 s: "
        "with 10 it is twice as fast; what is not understood then is transcribed again in a whole window",
    )
    device: str = "cpu"


class LabelOptions(Recipe):
    """An LLM labels topic and difficulty of what is kept; see `rba_bench.synthesis.tagging`."""

    model: str = Field(
        description="a local model, by the likelihood of each label, or openai:<base_url>#<model>"
    )
    device: str = "cpu"
    batch_size: int = Field(64, ge=1)


class TextFilterOptions(Recipe):
    """Filters for real teachers, beside those that every set has."""

    rules: TextRuleSettings | None = Field(
        None, description="language, refusals, what is no instruction, what must not be learnt"
    )
    near_duplicates: NearDuplicateOptions | None = Field(
        None, description="drop texts with nearly the words of an earlier one"
    )
    decontaminate: bool = Field(
        False,
        description="drop what repeats an item of a test set of the shipped tasks that can be read here",
    )
    against: tuple[str, ...] = Field(
        (), description="files of texts that must not be repeated: FILE or FILE:COLUMN"
    )
    quality: QualityOptions | None = Field(
        None, description="a score of each answer, and the least that it must reach"
    )


class SynthesisRecipe(Recipe):
    """Keys of a synthesis recipe; the defaults are the micro world's.

    `n_instructions` counts usable ones: sampling goes on until so many passed every filter and were answered.
    """

    teacher: str = Field(
        "micro",
        description="'micro', asset:NAME, a folder, a GGUF file, a Hub id, or openai:<base_url>#<model> of a server",
    )
    teacher_tokenizer: str | None = Field(
        None,
        description="folder or Hub id whose chat template opens the user turns of a server's model; null: the model's",
    )
    query_template: str = Field(
        "template",
        description="what makes the teacher ask: `template` (with the system turn that its chat template adds), `bare` "
        "(the opening of the user turn alone), or the text itself",
    )
    query_stops: tuple[str, ...] = Field(
        (), description="strings that end a user turn, where query_template is a text"
    )
    requests: int = Field(
        1024, ge=1, description="most requests at once to a server; their number adapts to it"
    )
    template: TemplateVariables = Field(
        {}, description="variables of the teacher's chat template; enable_thinking is false unless set here"
    )
    device: str = "cpu"
    batch_size: int = Field(64, ge=1, description="sequences that the teacher generates at once")
    seed: int = 0
    n_instructions: int = Field(400, ge=1)
    kinds: dict[Kind, int] | None = Field(
        None, description="the most instructions of each kind; null: no limit"
    )
    round_size: int = Field(64, ge=1, description="candidates that are sampled together")
    max_candidates: int | None = Field(
        None, ge=1, description="stop with an error after so many candidates; null: 50 per instruction"
    )

    instruction_temperature: float = Field(1.0, gt=0)
    instruction_top_p: float = Field(1.0, gt=0, le=1)
    instruction_max_new_tokens: int = Field(64, ge=1)
    response_temperature: float = Field(1.0, ge=0)
    response_top_p: float = Field(1.0, gt=0, le=1)
    response_max_new_tokens: int = Field(64, ge=1)

    instruction_prompt: str | None = Field(
        None, description="prompt for an instruction, {topic} is taken from `topics`; null: Magpie sampling"
    )
    topics: tuple[str, ...] = Field(
        (), description="values of {topic} in `instruction_prompt`, drawn by the candidate's seed"
    )
    answer_prompt: str | None = Field(
        None, description="text after each instruction that the teacher answers"
    )
    turns: int = Field(
        1,
        ge=1,
        le=8,
        description="exchanges of each dialogue: the teacher also writes what the user says next",
    )
    turns_prompt: str | None = Field(
        None,
        description="system turn under which the teacher writes the user's later turns; null: as it writes the first",
    )
    strip_markdown: bool = Field(
        False, description="take the marks of Markdown out of the answers: bold, headings, code, links"
    )
    max_answer_words: int | None = Field(None, ge=1, description="longer answers are dropped")
    source: SourceOptions | None = Field(
        None, description="existing speech to translate, instead of sampled instructions"
    )

    tagger: Literal["micro"] | None = Field(
        "micro", description="labels kind, topic and languages; null: every text is spoken and of `kind`"
    )
    kind: Kind = Field("instruct", description="kind of every instruction without a tagger")
    language: str = Field("en", description="language of the speech without a tagger")
    max_words: int = Field(20, ge=1, description="instructions with more spoken words are dropped")
    drop_unspeakable: bool = Field(
        True, description="drop texts that cannot be said: formulas, code, URLs, tables"
    )
    drop_maths: bool = Field(True, description="drop sums and advanced maths that are asked for in words")
    exclude_test: bool = Field(
        True, description="drop instructions of the held-out test split of the micro world"
    )

    text_filters: TextFilterOptions = TextFilterOptions.model_validate({})
    labels: LabelOptions | None = Field(
        None, description="topic and difficulty by an LLM; null: none, or the tagger's"
    )

    voice_bank: str = "train"
    voices: tuple[str, ...] = Field(
        (), description="voices by name, as `rba-bench speak --voices` takes them; they speak equally often"
    )
    spoken_form: bool = Field(
        False,
        description="say numbers, dates, money and abbreviations as words; the text stays as it is written",
    )
    clip_limits: ClipLimits | None = Field(
        None, description="leave out clips that are clipped, silent, too fast or too slow"
    )
    max_seconds: float | None = Field(None, gt=0, description="longer clips are left out")
    augmentation: Augmentation | None = Field(
        None, description="rooms, recorded noise, telephone, codecs, by chance; beside snr_db and speed"
    )
    round_trip: RoundTripOptions | None = Field(None, description="word error rate of each clip; null: none")
    voices_per_instruction: int = Field(4, ge=1)
    snr_db: Range | None = Field(
        (15.0, 40.0), description="signal-to-noise ratio in dB, drawn from this range; null: no noise"
    )
    noise_colours: tuple[str, ...] = Field(("white", "brown"), min_length=1)
    speed: Range = Field((0.9, 1.1), description="playing speed, drawn from this range")
    shard_size: int = Field(50, ge=1, description="instructions per shard")
    validation_fraction: float = Field(0.05, ge=0, lt=1)

    @property
    def most_candidates(self) -> int:
        """Candidates after which the run gives up."""
        return self.max_candidates or 50 * self.n_instructions

    @property
    def samples_turns(self) -> bool:
        """Whether the teacher writes turns of the user from the opening of a turn (Magpie), the first or later ones."""
        return self.source is None and (self.instruction_prompt is None or self.turns > 1)

    @field_validator("voice_bank")
    @classmethod
    def _known_bank(cls, name: str) -> str:
        if name not in VOICE_BANKS:
            raise ValueError(f"unknown voice bank{suggest(name, VOICE_BANKS)}")
        return name

    @field_validator("noise_colours")
    @classmethod
    def _known_colours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in COLOURS:
                raise ValueError(f"unknown noise colour {name!r}{suggest(name, COLOURS)}")
        return names

    @field_validator("snr_db", "speed")
    @classmethod
    def _valid_range(cls, limits: Range | None, field: ValidationInfo) -> Range | None:
        if limits is not None and limits[0] > limits[1]:
            raise ValueError("the range must be [low, high]")
        if field.field_name == "speed" and limits is not None and (limits[0] < 0.25 or limits[1] > 4):
            raise ValueError("a playing speed lies between 0.25 and 4")
        return limits

    @model_validator(mode="after")
    def _consistent(self) -> "SynthesisRecipe":
        voices = len(VOICE_BANKS[self.voice_bank])
        if not self.voices and self.voices_per_instruction > voices:
            raise ValueError(f"voices_per_instruction: bank '{self.voice_bank}' has only {voices} voices")
        if self.kinds is not None and sum(self.kinds.values()) < self.n_instructions:
            raise ValueError(
                f"kinds: the numbers must add up to {self.n_instructions} (n_instructions) or more"
            )
        asks = self.instruction_prompt is not None and "{topic}" in self.instruction_prompt
        if asks != bool(self.topics):
            raise ValueError("topics and {topic} in instruction_prompt belong together")
        if self.source is not None and self.text_filters.quality is not None:
            raise ValueError(
                "text_filters.quality scores answers to instructions, not translations of a source"
            )
        if self.turns > 1:
            self._check_dialogues()
        elif self.turns_prompt is not None:
            raise ValueError("turns_prompt is for later turns: set turns to 2 or more, or leave it out")
        return self

    def _check_dialogues(self) -> None:
        """Raise ValueError where what is asked for has no further turns."""
        if self.source is not None:
            raise ValueError(
                "turns: recorded speech is translated one utterance at a time; leave out `source` or `turns`"
            )
        if self.text_filters.quality is not None:
            raise ValueError(
                "turns: text_filters.quality scores an answer to one instruction; leave it out, or set turns to 1"
            )
        if self.tagger is not None:
            raise ValueError(
                "turns: the micro world has no dialogues; set tagger to null and name a real teacher, as "
                "`--recipe small/synth` does"
            )
        if self.kind != "instruct" or set(self.kinds or ()) - {"instruct"}:
            raise ValueError(
                "turns: dialogues are of the kind instruct; qa and s2tt have one turn (turns: 1)"
            )
