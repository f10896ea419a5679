"""From recipe keys to a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rba_bench.errors import UserError
from rba_bench.files import cache_dir, sha256_json
from rba_bench.speechlm.audiolm.families.base import AudioFamily
from rba_bench.textlm.endpoint_address import parse_endpoint
from rba_bench.training.data.packing import Mode, Response
from rba_bench.training.data.targets import Targets
from rba_bench.training.options.teacher_options import TeacherOptions
from rba_bench.training.teachers.readers import OtherReader, OwnReader, Reader, Shell, frozen_copy
from rba_bench.training.teachers.store import MIB, Store
from rba_bench.training.teachers.topk import CachedTeacher
from rba_bench.training.teachers.twin import Precision, TextTwin
from rba_bench.training.teachers.vocabulary import shared_vocabulary


class Teacher(Protocol):
    """What gives distributions: `TextTwin` over the whole vocabulary, `CachedTeacher` over the likeliest tokens."""

    def identity(self) -> dict[str, Any]:
        """What decides the distributions, for the record."""
        ...

    def targets(
        self, texts: Sequence[str], branches: Sequence[Response], places: Sequence[int] | None = None
    ) -> Targets:
        """Distributions at all positions of the branches at `places`; see `TextTwin.targets`."""
        ...


def make_twin(
    options: TeacherOptions,
    family: AudioFamily,
    *,
    weights: str,
    shared: bool,
    layout: Mode = "pad",
    precision: Precision = "float32",
    device: str = "cpu",
    whole: bool = False,
    shell: Shell | None = None,
) -> TextTwin:
    """The text twin of a student, before its first step.

    Args:
        options: of the recipe.
        family: the student, with the weights of the base model (and adapters that have not trained).
        weights: hash of the base model.
        shared: the LLM's own weights do not train (it is frozen, or adapters train in its place), so that the twin can
            use them in place; else it gets a copy.
        layout: of the student, see `data.packing`; answers to another model, or to one whose rows cannot be shared,
            are padded.
        precision: of the student.
        device: where another model is put.
        whole: everything in one forward pass; needed where processes share the LLM's weights.
        shell: what the LLM is called through where processes share weights out; the student's own, or that of the copy.

    Raises:
        MissingPrerequisite: no such model.
        UserError: it cannot be learnt from token by token.
    """
    reader: Reader
    if options.model == "self":
        layout = layout if family.shares_rows else "pad"
        if shell is not None:
            reader = OwnReader(shell.family, weights, shell=shell)
        else:
            reader = OwnReader(family if shared else frozen_copy(family), weights)
    else:
        layout = "pad"
        reader = OtherReader(_found(options.model), device, options.template)
    vocabulary = shared_vocabulary(
        family.tokenizer,
        reader.tokenizer,
        student_rows=family.model.get_output_embeddings().weight.shape[0],
        teacher_rows=reader.vocabulary,
        end_ids=family.stops,
        audio_token_id=family.audio_token_id,
        name=options.model,
    )
    return TextTwin(reader, vocabulary, layout, None if whole else options.batch_tokens, precision)


def make_cached(options: TeacherOptions, twin: TextTwin) -> CachedTeacher:
    """The same teacher asked once, for answers that do not change in training; needs `top_k` above 0."""
    folder = cache_dir() / "teachers" if options.folder is None else Path(options.folder)
    name = sha256_json({key: value for key, value in twin.identity().items() if key != "path"})[:16]
    store = Store(folder / f"{name}.sqlite", int(options.memory_mb * MIB))
    return CachedTeacher(twin, store, options.top_k, options.temperature, options.kept_as)


def _found(model: str) -> str:
    if model == "micro":
        from rba_bench.micro.paths import part

        return str(part("teacher"))
    if parse_endpoint(model) is not None:
        raise UserError(
            f"teacher.model {model}: a served model shows no distributions over its vocabulary; use a local one, or "
            "learn from its text (method sft)"
        )
    return model
