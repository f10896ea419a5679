"""The frozen models that a step is compared with: the reference policy and the text teacher. Without gradient.

The reference's log-probabilities may be kept (`ReferenceCache`): an answer that comes back (a given pair in later
epochs, an equal sample) then needs no second forward pass. Where all pairs are known before training, the policy itself
scores them while it still equals the reference, and the run holds no second model.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.files import sha256_json
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.clips import ClipStore
from rba_bench.training.data.pairs import PreferencePair
from rba_bench.training.model.checkpoints import write_tensors
from rba_bench.training.model.policy import Scores, SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync, assign_full, full_tensor, reshard
from rba_bench.training.teachers.text_teacher import TextTeacher

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
        responses = [batch.responses[place] for place in places]
        keys = [
            self.key(*batch.prompts[response.clip], response.tokens, response.temperature)
            for response in responses
        ]
        logprobs = {key: self._kept.get(key) for key in keys}
        missing = [i for i, key in enumerate(keys) if logprobs[key] is None]
        device = torch.device("cpu")
        if missing:
            values, mask = score(batch, [places[i] for i in missing])
            device = values.device
            for row, present, i in zip(values.detach(), mask, missing, strict=True):
                logprobs[keys[i]] = row[present].cpu()
                self._kept.put(keys[i], row[present])
        self.computed += len(missing)
        self.found += len(keys) - len(missing)
        rows = [value for key in keys if (value := logprobs[key]) is not None]
        values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return values.to(device), (torch.arange(values.shape[1]) < lengths[:, None]).to(device)

    def fill(self, pairs: Sequence[PreferencePair], score: Score, batch_size: int = 16) -> None:
        """Score both sides of many pairs, `batch_size` pairs at a time; pairs on one clip share its prompt.

        A bound on memory that is too small for all of them is an error only where `scores` then has nobody to ask.
        """
        for start in range(0, len(pairs), batch_size):
            batch = StepBatch()
            for pair in pairs[start : start + batch_size]:
                batch.add(pair.chosen)
                batch.add(pair.rejected)
            self.scores(batch, range(len(batch.responses)), score)

    @staticmethod
    def key(row: AlignmentRow, as_text: bool, tokens: Sequence[int], temperature: float = 1.0) -> str:
        """Name of an answer's entry."""
        prompt = ["text", row.last_user_text] if as_text else ["audio", row.audio.sha256, row.prompt]
        prompt += [text for turn in row.turns for text in (turn.instruction, turn.response)]
        return sha256_json([prompt, list(tokens), *([temperature] if temperature != 1 else [])])


REFERENCE = "reference.safetensors"


class FrozenModels:
    """The reference policy and the text teacher of a run, as its method sees them.

    Args:
        store: clips.
        reference: frozen policy, for the methods with a reference.
        teacher: text teacher, for distillation.
        trained: names of the policy's parameters that train: what a renewed reference takes over.
        kept: log-probabilities that the reference has computed, where answers come back.
        sync: of the processes, where they share weights out.

    Attributes:
        changed: whether the reference is no longer the base.
    """

    def __init__(
        self,
        store: ClipStore,
        reference: SpeechPolicy | None = None,
        teacher: TextTeacher | None = None,
        trained: Sequence[str] = (),
        kept: ReferenceCache | None = None,
        sync: CollectiveSync | None = None,
    ) -> None:
        self.store = store
        self.reference_policy = reference
        self._teacher = teacher
        self.kept = kept
        self.trained = trained
        self.sync = sync or CollectiveSync()
        self.changed = False

    @torch.no_grad()
    def reference(self, batch: StepBatch, places: Sequence[int], extra_outputs: Sequence[str] = ()) -> Scores:
        """The reference's scores of the responses at `places`, in their order."""
        if self.kept is None or extra_outputs:
            return self._score(batch, places, extra_outputs)
        values, mask = (tensor.to(self.device) for tensor in self.kept.scores(batch, places, self.score))
        none = values.new_zeros(0)
        return Scores(values, mask, *[none] * 5)

    def score(self, batch: StepBatch, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and mask [n, L] under the reference, without the cache."""
        scores = self._score(batch, places)
        return scores.logprobs, scores.mask

    @torch.no_grad()
    def _score(self, batch: StepBatch, places: Sequence[int], extra_outputs: Sequence[str] = ()) -> Scores:
        used = [batch.responses[place] for place in places]
        clips = sorted({response.clip for response in used})
        responses = [replace(response, clip=clips.index(response.clip)) for response in used]
        inputs = self.store.inputs([batch.prompts[clip] for clip in clips])
        self.sync.enter()
        return self._reference()(inputs, responses, extra_outputs=extra_outputs)

    @torch.no_grad()
    def run_dummy_forwards(self, batch: StepBatch) -> None:
        """Dummy forward passes, over any answer of `batch`, until no process asks reference or teacher any more."""
        row, tokens = batch.prompts[batch.responses[0].clip][0], batch.responses[0].tokens

        def forward() -> None:
            if self.reference_policy is not None:
                self._score(batch, [0])
            elif self._teacher is not None:
                self._teacher.states([row.user_text], [tokens])

        self.sync.leave(forward)

    @property
    def reference_head(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The reference's head."""
        return self._reference().family.head

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return next(self.store.family.model.parameters()).device

    @property
    def teacher(self) -> TextTeacher:
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
