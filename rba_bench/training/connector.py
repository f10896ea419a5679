"""Training of a CTC compressor on clips and their transcripts, from cached encoder states: no pass of the LLM.

The encoder never changes, so each clip is encoded once, into one file of float16 numbers. What is learnt is to point at
the word pieces of the transcript among the LLM's own input embeddings (`ctc_compressor`). A batch is scored against the
pieces of its transcripts and a sample of the others, whose share in the softmax is scaled up to that of all: with
thousands of pieces that is several times faster, and unbiased to first order (Jean et al. 2015, "On using very large
target vocabulary for neural machine translation"). Spans of states are blanked as SpecAugment blanks spectra (Park et
al. 2019). A killed run goes on from its last checkpoint; the order of batches and all masks follow from seed and step.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rba_bench import files
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.composite.ctc_compressor import BLANK, LETTERS, CTCCompressor
from rba_bench.training.step_trainer import StepTrainer

STATES, INDEX = "states.f16", "states.jsonl"


@dataclass(frozen=True)
class ConnectorRecipe:
    """How a compressor is trained.

    Attributes:
        epochs: passes over the clips.
        lr: peak of the learning rate, after a linear warm-up and before a cosine down to a hundredth of it.
        warmup: steps of the warm-up.
        batch_seconds: seconds of speech in a batch, padding included.
        negatives: word pieces that a batch is scored against beside its own.
        letters: weight of the loss of the letters that a middle layer reads, if the compressor has one.
        dropout: in the layers.
        weight_decay: of matrices.
        mask_every: seconds of speech for one blanked span.
        mask_seconds: longest blanked span.
        mask_width: largest band of blanked features, in half of the clips.
        seed: of order, masks and samples.
        save_every: steps between checkpoints.
    """

    epochs: int = 8
    lr: float = 1.5e-3
    warmup: int = 200
    batch_seconds: float = 96.0
    negatives: int = 1200
    letters: float = 1.0
    dropout: float = 0.05
    weight_decay: float = 0.01
    mask_every: float = 1.2
    mask_seconds: float = 0.16
    mask_width: int = 40
    seed: int = 0
    save_every: int = 500


@dataclass(frozen=True)
class EncodedClip:
    """One clip: its states [S, D] (float16, 20 ms each), the transcript and its token ids."""

    states: np.ndarray
    text: str
    tokens: tuple[int, ...]


class StatesFile:
    """Encoder states of clips in one file, and an index with a line for each clip.

    Args:
        folder: holds both files.
        width: D.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.lines = list(files.read_jsonl(folder / INDEX)) if (folder / INDEX).exists() else []

    def __len__(self) -> int:
        return len(self.lines)

    def append(self, clips: Iterator[tuple[np.ndarray, dict[str, Any]]]) -> None:
        """Write clips behind those that are there: states [S, D], and what the index says of them beside (`text`).

        What a killed run left behind the last line of the index is overwritten.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        begin = sum(line["length"] for line in self.lines)
        path = self.folder / STATES
        path.touch()
        with open(path, "r+b") as numbers, files.JsonlAppender(self.folder / INDEX) as index:
            numbers.seek(2 * begin * self.width)
            for states, about in clips:
                numbers.write(states.astype("<f2").tobytes())
                numbers.flush()
                line = {**about, "length": len(states)}
                index.write(line)
                self.lines.append(line)

    def read(self, tokenize: Callable[[str], Sequence[int]]) -> list[EncodedClip]:
        """All clips, their states mapped into memory.

        Raises:
            MissingPrerequisite: there are none, or states are missing.
        """
        total = sum(line["length"] for line in self.lines)
        path = self.folder / STATES
        if not total or path.stat().st_size < 2 * total * self.width:
            raise MissingPrerequisite(f"no complete encoder states in {self.folder}: encode the clips again")
        table = np.memmap(path, dtype="<f2", mode="r", shape=(total, self.width))
        clips, begin = [], 0
        for line in self.lines:
            states = table[begin : begin + line["length"]]
            clips.append(EncodedClip(states, line["text"], tuple(tokenize(line["text"]))))
            begin += line["length"]
        return clips


def ctc_loss(
    compressor: CTCCompressor,
    states: torch.Tensor,
    lengths: torch.Tensor,
    targets: Sequence[Sequence[int]],
    negatives: torch.Tensor,
    dropout: float = 0.0,
    spelled: Sequence[Sequence[int]] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over clips of the CTC loss per word piece; a transcript too long for its clip counts zero.

    Args:
        compressor: the model.
        states: [B, T', D].
        lengths: [B].
        targets: B rows of the pieces' numbers in the compressor's table.
        negatives: [N] distinct numbers of other pieces, drawn at random from the table.
        dropout: in the layers.
        spelled: B rows of the classes of letters (see `spell`), for a compressor that reads letters.

    Returns:
        the loss of the word pieces, and that of the letters (zero without).
    """
    own = torch.tensor(sorted({piece for row in targets for piece in row}), dtype=torch.long)
    others = negatives[~torch.isin(negatives, own)]
    chosen = torch.cat([own, others])
    hidden, n_frames, letters = compressor.frames(states, lengths, dropout)
    scores = compressor.scores(hidden, compressor.pieces[chosen])
    n_all = len(compressor.pieces) - len(own)
    # each of the sample stands for several pieces that were not drawn
    weight = math.log(max(n_all, 1) / max(len(others), 1)) if len(others) else 0.0
    offsets = torch.zeros(1 + len(chosen), device=scores.device)
    offsets[1 + len(own) :] = max(weight, 0.0)
    place = {piece: number + 1 for number, piece in enumerate(own.tolist())}
    rows = [[place[piece] for piece in row] for row in targets]
    loss = _mean_ctc(scores + offsets, n_frames, rows)
    return loss, loss.new_zeros(()) if letters is None else _mean_ctc(letters, n_frames, spelled)


def _mean_ctc(scores: torch.Tensor, lengths: torch.Tensor, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean over clips of the CTC loss per label, of logits [B, F, C] and rows of labels; empty rows count zero."""
    labels = torch.tensor([label for row in rows for label in row], dtype=torch.long, device=scores.device)
    sizes = torch.tensor([len(row) for row in rows], device=scores.device)
    losses = nn.functional.ctc_loss(
        scores.float().log_softmax(-1).transpose(0, 1),
        labels,
        lengths,
        sizes,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return (losses / sizes.clamp(min=1).to(losses) * (sizes > 0)).mean()


def spell(text: str) -> list[int]:
    """Classes of a transcript's letters; none where it has digits, which are not said as they are written."""
    if any(char.isdigit() for char in text):
        return []
    known = "".join(char if char in LETTERS else " " for char in text.lower())
    return [LETTERS.index(char) + 1 for char in " ".join(known.split())]


class CompressorTrainer(StepTrainer):
    """Trains a compressor on encoded clips, and goes on where an earlier call in the same folder stopped.

    Args:
        compressor: trains in place; in float32.
        clips: of training; transcripts whose pieces the compressor cannot say are refused.
        recipe: see `ConnectorRecipe`.
        out: folder of checkpoints and log, claimed by the caller.
        half: compute matrix products in bfloat16, where the processor is faster at that.

    Raises:
        UserError: a transcript has a word piece that the compressor does not have.
    """

    def __init__(
        self,
        compressor: CTCCompressor,
        clips: Sequence[EncodedClip],
        recipe: ConnectorRecipe,
        out: Path,
        half: bool = False,
    ) -> None:
        self.compressor, self.clips, self.recipe, self.half = compressor, clips, recipe, half
        numbers = {token: number for number, token in enumerate(compressor.piece_ids.tolist())}
        try:
            self.targets = [[numbers[token] for token in clip.tokens] for clip in clips]
        except KeyError as error:
            raise UserError(
                f"the compressor lacks word piece {error}: make it with those of the texts"
            ) from error
        self.spelled = [spell(clip.text) for clip in clips]
        self.batches = make_batches([len(clip.states) for clip in clips], recipe.batch_seconds)
        total = len(self.batches) * recipe.epochs
        rates = (recipe.lr, recipe.warmup, recipe.weight_decay)
        super().__init__(dict(compressor.named_parameters()), total, *rates, out, recipe.save_every)

    def run(self, note: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """See `StepTrainer.run`."""
        self.compressor.train()
        super().run(note)
        self.compressor.eval()

    def loss(self) -> tuple[torch.Tensor, float]:
        """See `StepTrainer.loss`; the number is the loss of the word pieces."""
        epoch, position = divmod(self.step, len(self.batches))
        order = list(range(len(self.batches)))
        random.Random(stable_seed("connector order", self.recipe.seed, epoch)).shuffle(order)
        numbers = self.batches[order[position]]
        rng = np.random.default_rng(stable_seed("connector step", self.recipe.seed, self.step))
        states, lengths = collate([self.clips[i].states for i in numbers])
        self._mask(states, lengths, rng)
        n_pieces = len(self.compressor.pieces)
        drawn = rng.choice(n_pieces, min(self.recipe.negatives, n_pieces), replace=False)
        targets = [self.targets[i] for i in numbers]
        torch.manual_seed(stable_seed("connector dropout", self.recipe.seed, self.step))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            spelled = [self.spelled[i] for i in numbers]
            loss, letters = ctc_loss(
                self.compressor,
                states,
                lengths,
                targets,
                torch.from_numpy(drawn),
                self.recipe.dropout,
                spelled,
            )
        return loss + self.recipe.letters * letters, loss.item()

    def _mask(self, states: torch.Tensor, lengths: torch.Tensor, rng: np.random.Generator) -> None:
        """Blank spans of time in every clip and a band of features in every second one."""
        recipe, width = self.recipe, states.shape[2]
        for row, length in zip(states, lengths.tolist(), strict=True):
            for _ in range(max(1, round(length / 50 / recipe.mask_every))):
                span = int(rng.integers(1, max(2, round(50 * recipe.mask_seconds) + 1)))
                start = int(rng.integers(0, max(1, length - span)))
                row[start : start + span] = 0.0
            if rng.random() < 0.5 and recipe.mask_width:
                band = int(rng.integers(0, min(recipe.mask_width, width - 1) + 1))
                start = int(rng.integers(0, width - band))
                row[:, start : start + band] = 0.0


def make_batches(lengths: Sequence[int], seconds: float) -> list[list[int]]:
    """Numbers of clips by batch: of like length, and at most `seconds` of speech (20 ms a state), padding included."""
    batches: list[list[int]] = []
    current: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if current and lengths[number] * (len(current) + 1) > 50 * seconds:
            batches.append(current)
            current = []
        current.append(number)
    return [*batches, current] if current else batches


def collate(clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """States [B, T', D] in float32, zeros behind each clip's end, and their numbers [B]."""
    lengths = torch.tensor([len(states) for states in clips])
    batch = torch.zeros(len(clips), int(lengths.max()), clips[0].shape[1])
    for row, states in zip(batch, clips, strict=True):
        row[: len(states)] = torch.from_numpy(np.asarray(states, dtype=np.float32))
    return batch, lengths


@torch.no_grad()
def transcripts(compressor: CTCCompressor, clips: Sequence[EncodedClip], batch: int = 16) -> list[list[int]]:
    """Token ids that the compressor reads from clips, in order."""
    rows: list[list[int]] = []
    for start in range(0, len(clips), batch):
        rows += compressor.transcribe(*collate([clip.states for clip in clips[start : start + batch]]))
    return rows
