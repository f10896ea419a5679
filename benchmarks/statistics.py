"""Do the intervals and rank bands keep their promise? Simulations with known truth, as Markdown tables.

    python benchmarks/statistics.py            # about 6 idle minutes; --only coverage, --only retained, --only boards
    python benchmarks/statistics.py --quick    # seconds, coarse

Coverage is the share of data sets whose interval holds the true value: 95 % is promised. "before" is the percentile
interval of the bootstrap, which all of this replaced; "now" is what the package computes. Both see the same data.
Coverage above 95 % is shown too: an exact test on few items cannot reach 5 % from below.
"""

import argparse
import importlib.util
import sys
import sysconfig
from pathlib import Path


def main() -> None:
    """Print the tables."""
    from retained import shares
    from simulations import FULL, QUICK, boards, coverages

    parts = {"coverage": coverages, "retained": shares, "boards": boards}
    parser = argparse.ArgumentParser(
        description="Coverage of intervals, rank bands and studies in simulation."
    )
    parser.add_argument("--quick", action="store_true", help="coarse, in seconds")
    parser.add_argument("--only", choices=parts, help="one part of the tables")
    chosen = parser.parse_args()
    for name, part in parts.items():
        if chosen.only in (None, name):
            part(QUICK if chosen.quick else FULL)


if __name__ == "__main__":
    main()
else:  # a script of this folder, or a library it uses, means the standard library's module of this name
    _source = Path(sysconfig.get_path("stdlib")) / "statistics.py"
    _spec = importlib.util.spec_from_file_location(__name__, _source)
    assert _spec is not None and _spec.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
