"""Log-probabilities of answers under a frozen reference, each computed once.

An answer that comes back (fixed pairs in later epochs, the teacher's answers of RBA-Single, equal samples) needs no
second pass of the reference. Where all pairs are known before training, `fill` asks the policy itself, which is still
the reference then: the run holds no second model and makes no reference pass at all. Entries are kept by content: clip
or transcript, prompt and answer tokens, under a tag that names the reference.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.files import sha256_json
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.pairs import Answer, Pair

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
        """Log-probabilities [n, L] of the branches at `places` and their mask, on the CPU where all are known.

        Args:
            batch: clips and answers.
            places: branches, in the order of the result.
            score: asked about the branches that are not known, at most once.
        """
        asked = [batch.branches[place] for place in places]
        keys = [self.key(*batch.heard[one.clip], one.tokens, one.temperature) for one in asked]
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

    def fill(self, pairs: Sequence[Pair], score: Score, batch_size: int = 16) -> None:
        """Score both sides of many pairs, `batch_size` pairs at a time; pairs on one clip share its prompt.

        A bound on memory that is too small for all of them is an error only where `scores` then has nobody to ask.
        """
        for start in range(0, len(pairs), batch_size):
            sides = [
                side for pair in pairs[start : start + batch_size] for side in (pair.chosen, pair.rejected)
            ]
            batch = of_answers(sides)
            self.scores(batch, range(len(batch.branches)), score)

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
        if clip == len(batch.heard):
            batch.heard.append((answer.row, answer.as_text))
        branch = Response(clip, answer.tokens, answer.temperature)
        if branch not in batch.branches:
            batch.branches.append(branch)
    return batch
