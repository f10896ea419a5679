"""Question answering: is a response right, given the list of right answers?"""

from rba_bench.metrics.qa.matching import VERSION, alias_match, asserted_match, exact_match
from rba_bench.metrics.text import UNSPACED, normalize

__all__ = ["UNSPACED", "VERSION", "alias_match", "asserted_match", "exact_match", "normalize"]
