"""Topics and difficulty levels of the RBA paper's alignment set (its Table 1), with the paper's shares in per cent."""

SOURCE = "RBA paper, Table 1"
TOPICS = {
    "information seeking": 60.3,
    "advice": 18.5,
    "creative writing": 12.7,
    "planning": 4.2,
    "reasoning": 2.8,
    "brainstorming": 0.2,
    "role play": 0.1,
    "others": 1.2,
}
# Of the levels the paper prints 26.1, 39.2, 28.7, "52" (which must be 5.2) and 0.8.
LEVELS = {"very easy": 26.1, "easy": 39.2, "medium": 28.7, "hard": 5.2, "very hard": 0.8}
PAPER = {"topic": TOPICS, "difficulty": LEVELS}


def paper_shares(column: str, found: dict[str, int]) -> list[tuple[str, int, float | None]]:
    """Labels of a set beside those of the paper: label, number in the set, per cent in the paper.

    Args:
        column: `topic` or `difficulty`.
        found: How often each label occurs; "" stands for none.

    Returns:
        The paper's labels in its order, then labels of the set's own (with None) by number. The paper's are left out
        where the set has none of them.
    """
    paper = PAPER[column]
    shared = any(label in paper for label in found)
    own = sorted((label for label in found if label not in paper), key=lambda label: (-found[label], label))
    rows: list[tuple[str, int, float | None]] = []
    if shared:
        rows += [(label, found.get(label, 0), share) for label, share in paper.items()]
    return rows + [(label, found[label], None) for label in own]


def is_labelled(found: dict[str, int]) -> bool:
    """Whether somebody labelled a set's clips: without a tagger, all topics are "others"."""
    return any(label not in ("", "others") for label in found)
