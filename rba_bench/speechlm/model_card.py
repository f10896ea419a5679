"""Model cards: what the cards of all checkpoints share, and the cards of composites that are not trained yet.

`rba_bench.training.model_card` writes the cards of training runs, `rba_bench.leaderboard.model_card` adds scores.
Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench import __version__, cards
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.progress import say

PROVENANCE = "compose.json"
CONNECTOR_RUN = "connector_run.json"  # record of `rba-bench train connector`
COMPOSITE = "rba_composite"  # the model type that transformers knows through this package
ABOUT = "about"  # the section about the model itself
PAPER = "2509.03526"


def write_model_card(folder: Path | str) -> bool:
    """Write or renew the card of a composite that is not trained yet.

    Args:
        folder: as `save_pretrained` wrote it.

    Returns:
        Whether the card is up to date now; a user's own README stays as it is.
    """
    return renew_card(Path(folder), *_composite_card(Path(folder)))


def remove_untrained_card(folder: Path) -> None:
    """Remove the card that `save_pretrained` wrote, unless it was edited, so that the card of a run replaces it."""
    path = folder / cards.CARD
    front, text = _composite_card(folder)
    if path.is_file() and path.read_text(encoding="utf-8") == cards.new_card(front, {ABOUT: text}):
        path.unlink()


def _composite_card(folder: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text for a composite that is not trained yet."""
    bases, parts = [], UNKNOWN_PARTS
    if (folder / PROVENANCE).is_file():
        provenance = read_json(folder / PROVENANCE)
        rows = []
        for name in ("encoder", "llm"):
            part = cards.without_paths(provenance[name])
            rows.append((name, part["id"], part["revision"] or "not from the Hub", part["weights_sha256"]))
            if part["revision"]:
                bases.append(str(part["id"]).partition("@")[0])
        table = cards.markdown_table(("part", "model", "revision", "weights, SHA-256"), rows)
        options = cards.markdown_table(("option", "value"), provenance["options"].items())
        parts = f"## Parts\n\n{table}\n\n{options}"
    compressor = read_json(folder / "config.json").get("compressor") or {}
    limits = WRITTEN if compressor.get("kind") == "decoder" else UNTRAINED
    if (folder / CONNECTOR_RUN).is_file():
        run = read_json(folder / CONNECTOR_RUN)
        rate = f"{100 * run['validation_wer']:.1f} %" if "validation_wer" in run else "not measured"
        limits = CONNECTED.format(clips=run["clips"], steps=run["steps"], rate=rate)
    text = "\n\n".join([INTRODUCTION, parts, loading_section(folder), limits, CITATION])
    return card_metadata(bases), text


def renew_card(folder: Path, front: Mapping[str, Any], text: str) -> bool:
    """Write or renew the section about the model; an error is reported in one line and does not end a run.

    Returns:
        Whether the card is up to date now.
    """
    try:
        return cards.write_card(folder, front, {ABOUT: text}, renewed=("base_model",))
    except UserError as error:
        say(f"the card is not renewed: {error}")
        return False


def card_metadata(
    bases: Sequence[str], license_: str | None = None, tags: Sequence[str] = ()
) -> dict[str, Any]:
    """Front matter of a checkpoint's card.

    Args:
        bases: Hub ids of the models that it was made from.
        license_: of the base, if it is known.
        tags: in addition to those of every card.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=license_,
        base_model=list(bases) if len(bases) > 1 else (bases[0] if bases else None),
        library_name="transformers",
        pipeline_tag="audio-text-to-text",
        tags=["speech", "speech-language-model", "rba-bench", *tags],
    )
    return dict(data.to_dict())


def loading_section(folder: Path) -> str:
    """The section that says how to load and use the checkpoint in `folder`."""
    is_composite = read_json(folder / "config.json").get("model_type") == COMPOSITE
    return LOADING.format(register=REGISTER if is_composite else "")


INTRODUCTION = f"""\
# A speech encoder joined to a language model

A speech language model: speech and text in, text out. Made by rba-bench {__version__} from a Whisper-type encoder, a
projector, and a causal language model."""

UNKNOWN_PARTS = """\
## Parts

Not recorded: this checkpoint was not made by `rba-bench compose`."""

REGISTER = """\
import rba_bench  # registers the architecture in transformers

"""

LOADING = """\
## How to use it

```python
from transformers import AutoModelForMultimodalLM, AutoProcessor

{register}model = AutoModelForMultimodalLM.from_pretrained("DIR")
processor = AutoProcessor.from_pretrained("DIR")
```

`rba-bench eval --model DIR` evaluates it; `rba-bench train --set base=DIR` trains it."""

UNTRAINED = """\
## Limits

The projector is not trained, unless a training run is documented here: the model does not understand speech yet. Its
parts keep their own licences and limits."""

WRITTEN = """\
## Limits

The model hears what Whisper's decoder writes: one audio token for each word piece. The projector changes nothing until
it is trained. The parts keep their own licences and limits."""

CONNECTED = """\
## Training and limits

The CTC compressor was trained by `rba-bench train connector` on {clips} clips, {steps} steps, without the language
model. Word error rate of its transcripts of the validation clips: {rate}. The projector behind it changes nothing until
it is trained, and the language model has not learnt to read such tokens. The parts keep their own licences and
limits."""

CITATION = f"""\
## Citation

Cite the models above, and rba-bench (its `CITATION.cff`) if you use its methods or its numbers. Reinforced Behavior
Alignment is described in [arXiv {PAPER}](https://arxiv.org/abs/{PAPER})."""
