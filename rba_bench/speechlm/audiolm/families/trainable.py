"""What training and saving need to know of an architecture: its parts, what never trains, how a row may be shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from rba_bench.speechlm.audiolm.families.rows import shares_rows

PARTS = ("encoder", "projector", "llm")


class Trainable:
    """The half of `AudioFamily` that training uses.

    Attributes:
        model: the `...ForConditionalGeneration`.
        processor: what goes with it.
    """

    model: Any
    processor: Any

    @property
    def has_adapter(self) -> bool:
        """Whether the model carries a LoRA adapter for speech of its own.

        Of its decoder that adapter is then what trains: turns of text alone are read without it, by weights that must
        stay as they are.
        """
        return False

    @property
    def encoder(self) -> Any:
        """The audio encoder as a model of its own."""
        return self.model.model.audio_tower

    @property
    def decoder(self) -> Any:
        """The text backbone, without head."""
        return self.model.get_decoder()

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules by part: `encoder`, `projector` (between encoder and decoder) and `llm` (decoder and head).

        Every parameter of the model is in exactly one part or in `unused()`.
        """
        inner = self.model.model
        return {
            "encoder": [self.encoder],
            "projector": [inner.multi_modal_projector],
            "llm": [self.decoder, self.model.get_output_embeddings()],
        }

    def unused(self) -> list[nn.Module]:
        """Modules that no turn of speech and text passes through (eyes, voices): they never train."""
        return []

    def fixed(self) -> list[nn.Parameter]:
        """Parameters that stay as they are even where their part trains: the encoder's table of positions."""
        positions = getattr(self.encoder, "embed_positions", None)
        return [] if positions is None else list(positions.parameters())

    def part_of(self) -> dict[int, str]:
        """Part by `id` of a parameter; those in `unused()` and tied heads' second names left out."""
        found: dict[int, str] = {}
        for name, modules in self.parts().items():
            for module in modules:
                found.update({id(parameter): name for parameter in module.parameters()})
        return found

    @cached_property
    def shares_rows(self) -> bool:
        """Whether several answers may stand behind one prompt in a row: the decoder obeys our mask and positions.

        See `rows.shares_rows`; asked of the decoder as it is when first needed, so ask before it is wrapped.
        """
        return shares_rows(self.decoder)

    @contextmanager
    def reading_text(self) -> Iterator[None]:
        """What a turn of text alone must run in: models with an adapter for speech read text without it."""
        yield

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """What a turn with speech must run in, whatever ran before."""
        yield

    def save(self, folder: Path) -> None:
        """Write model, processor, template and generation config, for `load_family` and for stock transformers.

        Args:
            folder: made if absent; files of the same names are replaced.

        Raises:
            ValueError: there are adapters of a training run in it, which have to be merged first.
        """
        if hasattr(self.model, "peft_config") and not self.has_adapter:
            raise ValueError("merge the adapters before saving the model")
        folder.mkdir(parents=True, exist_ok=True)
        repair_generation_config(self.model)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def repair_generation_config(model: Any) -> None:
    """Make the generation config one that can be saved.

    Published checkpoints set a temperature without sampling; transformers reads that and refuses to write it.
    """
    config = model.generation_config
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True
