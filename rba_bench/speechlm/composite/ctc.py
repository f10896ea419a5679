"""A speech recogniser on the composite's own encoder: one linear layer and greedy CTC.

The encoder was trained with it, and it is the recogniser of the micro cascade. Only the head is stored, apart from the
encoder.
Source: Graves et al. 2006, "Connectionist temporal classification".
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from rba_bench import files
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder, length_mask

_BLANK = 0
_WEIGHTS = "ctc.safetensors"
_CONFIG = "ctc.json"


class CTCRecognizer(nn.Module):
    """Characters from encoder states.

    Args:
        width: D of the encoder states.
        characters: the alphabet, without blank; character i has class i + 1, the blank is class 0.
    """

    def __init__(self, width: int, characters: str | Sequence[str]) -> None:
        super().__init__()
        self.characters = list(characters)
        if len(set(self.characters)) != len(self.characters):
            raise UserError("the recogniser's alphabet names a character twice")
        self._ids = {character: index + 1 for index, character in enumerate(self.characters)}
        self.linear = nn.Linear(width, len(self.characters) + 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [B, T', C + 1] (float32) of states [B, T', D]."""
        return self.linear(states.to(self.linear.weight.dtype)).float().log_softmax(-1)

    def encode(self, text: str) -> list[int]:
        """Classes of a text.

        Raises:
            UserError: a character is not in the alphabet.
        """
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise UserError(f"the recogniser's alphabet lacks {' '.join(map(repr, unknown))}")
        return [self._ids[character] for character in text]

    def loss(self, states: torch.Tensor, lengths: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Mean over the batch of the CTC loss per character; a text too long for its clip counts zero.

        Args:
            states: [B, T', D].
            lengths: [B] true numbers of states.
            texts: B transcripts.
        """
        targets = [self.encode(text) for text in texts]
        labels = [label for target in targets for label in target]
        return nn.functional.ctc_loss(
            self(states).transpose(0, 1),
            torch.tensor(labels, dtype=torch.long, device=states.device),
            lengths.to(states.device),
            torch.tensor([len(target) for target in targets], device=states.device),
            blank=_BLANK,
            zero_infinity=True,
        )

    @torch.no_grad()
    def decode(self, states: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """Greedy transcripts: best class per state, repeats collapsed, blanks dropped."""
        best = self.linear(states.to(self.linear.weight.dtype)).argmax(-1)
        best = best.masked_fill(~length_mask(lengths.to(best.device), best.shape[1]), _BLANK)
        fresh = best != torch.cat([torch.full_like(best[:, :1], _BLANK), best[:, :-1]], dim=1)
        emitted = fresh & (best != _BLANK)
        return [
            "".join(self.characters[label - 1] for label in row[keep].tolist())
            for row, keep in zip(best, emitted, strict=True)
        ]

    @torch.no_grad()
    def transcribe(
        self,
        encoder: TrueLengthWhisperEncoder,
        input_features: torch.Tensor,
        feature_lengths: torch.Tensor | None = None,
    ) -> list[str]:
        """Transcripts of log-mel features [B, M, T], encoded by `encoder`."""
        return self.decode(*encoder(input_features, feature_lengths))

    def save(self, folder: Path | str) -> None:
        """Write the head as safetensors and its alphabet as JSON; the encoder is saved elsewhere."""
        from safetensors.torch import save

        target = Path(folder)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        files.write_atomic(target / _WEIGHTS, save(state))
        files.write_json(target / _CONFIG, {"width": self.linear.in_features, "characters": self.characters})

    @classmethod
    def load(cls, folder: Path | str, dtype: torch.dtype = torch.float32) -> "CTCRecognizer":
        """Read what `save` wrote, ready for use.

        Raises:
            MissingPrerequisite: there is no recogniser in the folder.
        """
        from safetensors.torch import load_file

        source = Path(folder)
        if not (source / _CONFIG).is_file() or not (source / _WEIGHTS).is_file():
            raise MissingPrerequisite(f"no CTC recogniser in {source}: {_CONFIG} and {_WEIGHTS} are needed")
        config = files.read_json(source / _CONFIG)
        recognizer = cls(config["width"], config["characters"])
        recognizer.load_state_dict(load_file(source / _WEIGHTS))
        return recognizer.to(dtype).eval()
