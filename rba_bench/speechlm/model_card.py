"""The card of a checkpoint: what every card has, and the cards of models that were composed and not yet trained.

`rba_bench.training.model_card` writes those of training runs, `rba_bench.leaderboard.model_card` puts scores into them.
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
COMPOSITE = "rba_composite"  # model type of our own architecture; transformers learns it from this package
ABOUT = "about"  # the section about the model itself
PAPER = "2509.03526"


def write_model_card(folder: Path | str) -> bool:
    """Write or renew the card of a composite that no training run has made.

    Args:
        folder: what `save_pretrained` wrote.

    Returns:
        Whether the folder has a card of ours now; a README without our marks stays as it is.
    """
    return renew_card(Path(folder), *_content(Path(folder)))


def drop_bare_card(folder: Path) -> None:
    """Remove the card that `save_pretrained` wrote, if nobody has changed it, before a better one is written."""
    path = folder / cards.CARD
    front, text = _content(folder)
    if path.is_file() and path.read_text(encoding="utf-8") == cards.new_card(front, {ABOUT: text}):
        path.unlink()


def _content(folder: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text of the card of a model that was composed."""
    made_of = read_json(folder / PROVENANCE) if (folder / PROVENANCE).is_file() else None
    parts = [INTRODUCTION, _parts(made_of) if made_of else UNKNOWN, loading(folder), UNTRAINED, CITATION]
    sources = (made_of["encoder"], made_of["llm"]) if made_of else ()
    bases = [str(part["id"]).partition("@")[0] for part in sources if part["revision"]]
    title = "# A speech encoder and a language model, joined"
    return metadata(bases), "\n\n".join([title, *parts])


def renew_card(folder: Path, front: Mapping[str, Any], text: str) -> bool:
    """Write or renew the section about the model; what is in the way of it is one line, never the end of a run.

    Returns:
        Whether the folder has a card of ours now.
    """
    try:
        return cards.write_card(folder, front, {ABOUT: text}, renewed=("base_model",))
    except UserError as error:
        say(f"the card is not renewed: {error}")
        return False


def metadata(bases: Sequence[str], license_: str | None = None, tags: Sequence[str] = ()) -> dict[str, Any]:
    """Front matter of a checkpoint's card.

    Args:
        bases: ids on the Hub of the models it was made from.
        license_: of the base, where it is known.
        tags: beside those that every card has.
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


def licence_of(base: Path) -> str | None:
    """The licence that the card of a base model states; None where it has no card, or says nothing."""
    try:
        stated = cards.front_matter(base / cards.CARD).get("license")
    except (UserError, OSError):
        return None
    return stated if isinstance(stated, str) else None


def loading(folder: Path) -> str:
    """How to load the checkpoint in `folder`."""
    ours = read_json(folder / "config.json").get("model_type") == COMPOSITE
    return LOADING.format(register=REGISTER if ours else "")


def _parts(made_of: Mapping[str, Any]) -> str:
    rows = []
    for name in ("encoder", "llm"):
        part = cards.without_paths(made_of[name])
        rows.append((name, part["id"], part["revision"] or "not from the Hub", part["weights_sha256"]))
    table = cards.table(("part", "model", "revision", "weights, SHA-256"), rows)
    options = cards.table(("option", "value"), made_of["options"].items())
    return f"## Parts\n\n{table}\n\n{options}"


INTRODUCTION = f"""\
A speech language model: speech and text in, text out. Made by rba-bench {__version__} of a Whisper-type encoder, a
projector, and a causal language model."""

UNKNOWN = """\
## Parts

Not recorded: this checkpoint was saved by hand."""

REGISTER = """\
import rba_bench  # tells transformers of the architecture

"""

LOADING = """\
## How to use it

```python
from transformers import AutoModelForMultimodalLM, AutoProcessor

{register}model = AutoModelForMultimodalLM.from_pretrained("DIR")
processor = AutoProcessor.from_pretrained("DIR")
```

`rba-bench eval --model DIR` measures it; `rba-bench train --set base=DIR` trains it further."""

UNTRAINED = """\
## Limits

The projector is new unless a training run says otherwise: such a model does not understand speech yet. Its parts keep
their own licences and limits."""

CITATION = f"""\
## Citation

Cite the models above, and rba-bench where you use its method or its numbers (`CITATION.cff` of the package). The method
Reinforced Behavior Alignment: [arXiv {PAPER}](https://arxiv.org/abs/{PAPER})."""
