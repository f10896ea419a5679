"""What a hosted judge costs, for `--dry-run`.

List prices in US dollars per million tokens (prompt, completion) of the standard tier, without caching or batch
discounts, of models whose name pins a version. Source: https://openai.com/api/pricing and the model pages under
https://platform.openai.com/docs/models, as published by 2025-04-14; prices change, so an estimate is a guide and
`price: [prompt, completion]` in a task's `finish` entry overrides it.
"""

from collections.abc import Mapping
from typing import Any

AS_OF = "2025-04-14"
PRICES: dict[str, tuple[float, float]] = {
    "gpt-4o-mini-2024-07-18": (0.15, 0.60),
    "gpt-4o-2024-08-06": (2.50, 10.00),
    "gpt-4o-2024-11-20": (2.50, 10.00),
    "gpt-4.1-2025-04-14": (2.00, 8.00),
    "gpt-4.1-mini-2025-04-14": (0.40, 1.60),
    "gpt-4.1-nano-2025-04-14": (0.10, 0.40),
}
BYTES_PER_TOKEN = 4  # of UTF-8: about right for English and, with three bytes a character, for Chinese
TOKENS_PER_MESSAGE = 4  # role and separators
MILLION = 1_000_000


def tokens(texts: list[str]) -> int:
    """Estimated tokens of a conversation: a quarter of its UTF-8 bytes and four a message; no tokenizer is loaded."""
    size = sum(len(text.encode()) for text in texts)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(texts)


def dollars(
    identity: Mapping[str, Any],
    prompt_tokens: int,
    completion_tokens: int,
    price: tuple[float, float] | None = None,
) -> float | None:
    """Estimated dollars; 0.0 for a model run here, None if the price is not known.

    Args:
        identity: What the judge says of itself.
        prompt_tokens: Of all calls.
        completion_tokens: Of all calls.
        price: Dollars per million tokens (prompt, completion), instead of the list.
    """
    known = price or PRICES.get(str(identity.get("model")))
    if known is not None:
        return (prompt_tokens * known[0] + completion_tokens * known[1]) / MILLION
    return None if identity.get("kind") == "endpoint" else 0.0
