"""Log-probabilities of answers under a frozen reference, each computed once.

An answer that comes back (fixed pairs in later epochs, the teacher's answers of RBA-Single, equal samples) needs no
second pass of the reference. Where all pairs are known before training, `fill` asks the policy itself, which is still
the reference then: the run holds no second model and makes no reference pass at all. Entries are kept by content: clip
or transcript, prompt and answer tokens, under a tag that names the reference.

What a step is compared with: the reference policy, the text teacher, the clips. Nothing here has a gradient.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.files import sha256_json
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.clips import ClipInput, ClipStore
from rba_bench.training.data.pairs import Answer, PreferencePair
from rba_bench.training.model.checkpoints import write_tensors
from rba_bench.training.model.policy import Scores, SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync, assign_full, full_tensor, reshard
from rba_bench.training.teachers.readers import OwnReader

MEMORY = 256 * 2**20
Score = Callable[[StepBatch, Sequence[int]], tuple[Tensor, Tensor]]  # -> log-probabilities, mask, both [n, L]


class ReferenceCache:
    """Token log-probabilities by answer.

    A value is exactly what `score` said when the answer was first met; another batch around it could have changed its
    last bits.

    Args:
        tag: hash of everything that decides a value beside clip, prompt and answer: weights of the reference, processor
            files, padding, precision.
        max_bytes: bound of what is kept in memory.
        folder: entries are kept here too, for later runs; None keeps them in memory.

    Attributes:
        computed: answers that had to be scored.
        found: answers that had not.
    """

    def __init__(self, tag: str, max_bytes: int = MEMORY, folder: Path | None = None) -> None:
        self._kept = EncoderCache(tag, max_bytes, folder)
        self.computed = 0
        self.found = 0

    def scores(self, batch: StepBatch, places: Sequence[int], score: Score) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, L] of the responses at `places` and their mask, on the CPU where all are known.

        Args:
            batch: clips and answers.
            places: responses, in the order of the result.
            score: asked about the responses that are not known, at most once.
        """
        asked = [batch.responses[place] for place in places]
        keys = [self.key(*batch.prompts[one.clip], one.tokens, one.temperature) for one in asked]
        known = {key: self._kept.get(key) for key in keys}
        missing = [i for i, key in enumerate(keys) if known[key] is None]
        device = torch.device("cpu")
        if missing:
            values, mask = score(batch, [places[i] for i in missing])
            device = values.device
            for row, present, i in zip(values.detach(), mask, missing, strict=True):
                known[keys[i]] = row[present].cpu()
                self._kept.put(keys[i], row[present])
        self.computed += len(missing)
        self.found += len(keys) - len(missing)
        rows = [value for key in keys if (value := known[key]) is not None]
        values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return values.to(device), (torch.arange(values.shape[1]) < lengths[:, None]).to(device)

    def fill(self, pairs: Sequence[PreferencePair], score: Score, batch_size: int = 16) -> None:
        """Score both sides of many pairs, `batch_size` pairs at a time; pairs on one clip share its prompt.

        A bound on memory that is too small for all of them is an error only where `scores` then has nobody to ask.
        """
        for start in range(0, len(pairs), batch_size):
            sides = [
                side for pair in pairs[start : start + batch_size] for side in (pair.chosen, pair.rejected)
            ]
            batch = of_answers(sides)
            self.scores(batch, range(len(batch.responses)), score)

    @staticmethod
    def key(row: AlignmentRow, as_text: bool, tokens: Sequence[int], temperature: float = 1.0) -> str:
        """Name of an answer's entry."""
        heard = ["text", row.user_text] if as_text else ["audio", row.audio.sha256, row.prompt]
        return sha256_json([heard, list(tokens), *([temperature] if temperature != 1 else [])])


def of_answers(answers: Sequence[Answer]) -> StepBatch:
    """A batch of answers that play no role in a loss, each once."""
    from rba_bench.training.data.packing import Response

    batch = StepBatch()
    clips: dict[tuple[str, bool], int] = {}
    for answer in answers:
        clip = clips.setdefault((answer.row.id, answer.as_text), len(clips))
        if clip == len(batch.prompts):
            batch.prompts.append((answer.row, answer.as_text))
        response = Response(clip, answer.tokens, answer.temperature)
        if response not in batch.responses:
            batch.responses.append(response)
    return batch


REFERENCE = "reference.safetensors"


class FrozenModels:
    """The frozen models that a step is compared with: the reference policy and the text teacher.

    Args:
        store: clips.
        reference: frozen policy, for the methods with a reference.
        teacher: text teacher, for distillation.
        trained: names of the policy's parameters that train: what a new reference must take over.
        autocast: context of mixed precision.
        kept: what the reference has said already, where answers come back.
    """

    def __init__(
        self,
        store: ClipStore,
        reference: SpeechPolicy | None = None,
        teacher: Any = None,
        trained: Sequence[str] = (),
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        kept: ReferenceCache | None = None,
    ) -> None:
        self.store = store
        self.reference_policy = reference
        self._teacher = teacher
        self.autocast = autocast
        self.kept = kept
        self.trained = trained
        self.sync = CollectiveSync()  # of the processes, where they share weights out
        self.changed = False  # whether the reference is no longer the base

    def clips(self, batch: StepBatch) -> list[ClipInput]:
        """The batch's clips, heard or read."""
        heard = [row for row, as_text in batch.prompts if not as_text]
        read = [row for row, as_text in batch.prompts if as_text]
        spoken, written = iter(self.store.get(heard)), iter(self.store.text(read))
        return [next(written if as_text else spoken) for _, as_text in batch.prompts]

    @torch.no_grad()
    def reference(self, batch: StepBatch, places: Sequence[int], extra_outputs: Sequence[str] = ()) -> Scores:
        """The reference's scores of the responses at `places`, in their order."""
        if self.kept is None or extra_outputs:
            return self._score(batch, places, extra_outputs)

        values, mask = (tensor.to(self.device) for tensor in self.kept.scores(batch, places, self.score))
        none = values.new_zeros(0)
        return Scores(values, mask, *[none] * 5)

    def score(self, batch: StepBatch, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and mask [n, L] under the reference, past what is kept."""
        found = self._score(batch, places)
        return found.logprobs, found.mask

    @torch.no_grad()
    def _score(self, batch: StepBatch, places: Sequence[int], extra_outputs: Sequence[str] = ()) -> Scores:
        used = [batch.responses[place] for place in places]
        needed = sorted({response.clip for response in used})
        number = {clip: index for index, clip in enumerate(needed)}
        part = StepBatch(prompts=[batch.prompts[clip] for clip in needed])
        responses = [replace(response, clip=number[response.clip]) for response in used]
        clips = self.clips(part)
        self.sync.enter()
        with self.autocast():
            scores: Scores = self._reference()(clips, responses, extra_outputs=extra_outputs)
        return scores

    def join_collectives(self, sync: CollectiveSync) -> None:
        """From now on reference and teacher are called by all processes equally often."""
        self.sync = sync
        reader = getattr(getattr(self._teacher, "text_teacher", self._teacher), "reader", None)
        if isinstance(reader, OwnReader):
            reader.sync = sync

    @torch.no_grad()
    def run_dummy_forwards(self, batch: StepBatch) -> None:
        """Wait until no process asks reference or teacher any more; `batch` is what is asked meanwhile, any will do."""
        row, tokens = batch.prompts[batch.responses[0].clip][0], batch.responses[0].tokens

        def ask() -> None:
            if self.reference_policy is not None:
                self._score(StepBatch(prompts=batch.prompts, responses=batch.responses[:1]), [0])
            elif self._teacher is not None:
                getattr(self._teacher, "text_teacher", self._teacher).states([row.user_text], [tokens])

        self.sync.leave(ask)

    @property
    def reference_head(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The reference's head."""
        return self._reference().family.head

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return next(self.store.family.model.parameters()).device

    @property
    def teacher(self) -> Any:
        """The text teacher."""
        if self._teacher is None:
            raise RbaError("this method needs a text teacher, and none was made")
        return self._teacher

    def renew_reference(self, policy: SpeechPolicy) -> None:
        """The reference becomes the policy as it is now (SPIN's next opponent)."""
        self.changed = True
        reshard(policy)
        new, own = dict(policy.named_parameters()), self._own()
        for name in self.trained:
            own[name].data.copy_(new[name].detach())
        self._reference().openings.forget()

    def save_reference(self, folder: Path, write: bool = True) -> None:
        """Keep a reference that is no longer the base; see `checkpoints.save_weights` for `write`."""
        if self.changed:
            own = self._own()
            tensors = {name: full_tensor(own[name]) for name in self.trained}
            if write:
                write_tensors(folder / REFERENCE, tensors)

    def load_reference(self, folder: Path) -> None:
        """The inverse of `save_reference`."""
        if (folder / REFERENCE).is_file():
            saved, own = load_file(folder / REFERENCE), self._own()
            for name, value in saved.items():
                assign_full(own[name], value)
            self._reference().openings.forget()
            self.changed = True

    def forget_openings(self) -> None:
        """To be called when the reference has been given other weights."""
        self._reference().openings.forget()

    def reference_tensors(self) -> dict[str, torch.Tensor]:
        """What of the reference may change; nothing where there is none."""
        if self.reference_policy is None:
            return {}
        own = self._own()
        return {name: own[name].detach() for name in self.trained}

    def _own(self) -> dict[str, torch.nn.Parameter]:
        reshard(self._reference())
        return dict(self._reference().named_parameters())

    def _reference(self) -> SpeechPolicy:
        if self.reference_policy is None:
            raise RbaError("this method needs a reference, and none was made")
        return self.reference_policy
