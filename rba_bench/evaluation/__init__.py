"""Tasks, models under test and run records: everything between a checkpoint and a scored, resumable run.

    registry  names of tasks -> TaskSpec           harness  the only module that touches lm-eval
    runner    EvalRequest -> list[RunRecord]       hooks    the functions that task YAMLs name
    scoring   answers -> scores with intervals     records  the files a run leaves behind

Import the sub-modules directly; this package imports none of them.
"""
