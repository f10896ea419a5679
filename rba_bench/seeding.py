"""Seeds that depend on names, not on the order in which things happen.

Every random draw in rba-bench takes its seed from what it is for (`stable_seed("rollout", seed, step, clip_id)`), so a
resumed, re-batched or sharded run draws the same numbers as an uninterrupted one.
"""

import hashlib
import json


def stable_seed(*parts: str | int | float | bool | None) -> int:
    """A seed in [0, 2**63) that is the same on every machine and in every process for equal `parts`."""
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
