"""Public data sets as documents: one module a benchmark, each with `load(options, place) -> Loaded`.

    source  Place, Loaded, and which function a task's `source` names    hub     files of a data set, here or on the Hub
    tables  rows and clips of parquet files, audio files and archives

Import the sub-modules directly; this package imports none of them.
"""
