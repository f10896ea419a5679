"""The track `small`: texts for real models that fit a laptop. See `rba_bench.small.texts`."""
