"""What a row is (a model, or a reference and which), and which text ceiling a model is measured against."""

from collections.abc import Sequence

from rba_bench.leaderboard.load import Run

MODEL = "model"
CEILING = "ceiling"
REFERENCES = {"text": CEILING, "cascade": "cascade", "constant": "constant"}  # what was asked for: what it is
KINDS = (MODEL, *REFERENCES.values())
_WITH_PARTS = ("text", "cascade")  # also `text:<llm>`, `cascade:<whisper>+<llm>`


def kind_of(run: Run) -> str:
    """`model`, or the kind of reference the run is; by what was asked for, so no checkpoint can pose as one."""
    spec = str(run.record.model["spec"])
    head, _, rest = spec.partition(":")
    return REFERENCES[head] if rest and head in _WITH_PARTS else REFERENCES.get(spec, MODEL)


def names_of(run: Run) -> frozenset[str]:
    """What a reference may be called by: its name, its spec, and the LLM in it by id and by last part; lower case."""
    spec = str(run.record.model["spec"])
    llm = spec.partition(":")[2].split("+")[-1]
    return frozenset(name.casefold() for name in (run.name, spec, *_short(llm)) if name)


def ceilings_for(run: Run, ceilings: Sequence[Run], wanted: str | None = None) -> list[Run]:
    """The ceilings that fit a run: those called `wanted`; else the only one; else those of the run's own text LLM.

    Its own LLM is the one its training started from, or the second half of a cascade. Several are left where one model
    was run with several seeds; none where nothing tells which of several it should be.
    """
    if wanted is not None:
        return [ceiling for ceiling in ceilings if wanted.casefold() in names_of(ceiling)]
    if len({ceiling.name for ceiling in ceilings}) <= 1:
        return list(ceilings)
    own = _own_llm(run)
    return [ceiling for ceiling in ceilings if own & names_of(ceiling) or _same_weights(run, ceiling)]


def _own_llm(run: Run) -> frozenset[str]:
    base = str((run.record.model.get("training") or {}).get("base") or "")
    llm = str(run.record.model["spec"]).partition("+")[2] if kind_of(run) == "cascade" else ""
    return frozenset(name.casefold() for part in (base, llm) for name in _short(part) if name)


def _short(llm: str) -> tuple[str, str]:
    """`org/model`, a path or `openai:https://host/v1#model`, and its last part."""
    return llm, llm.rpartition("#")[2].rstrip("/").rpartition("/")[2]


def _same_weights(run: Run, ceiling: Run) -> bool:
    text = run.record.model.get("text")
    own = text.get("weights_sha256") if isinstance(text, dict) else None
    return own is not None and own == ceiling.record.model.get("weights_sha256")
