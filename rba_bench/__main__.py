"""`python -m rba_bench` is `rba-bench`."""

from rba_bench.cli.main import main

main()
