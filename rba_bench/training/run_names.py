"""Names of the files that a training run writes for people; `callbacks/run_files.py` says what each holds."""

START = "rba_start.json"
VALIDATION = "validation.jsonl"
SAMPLES = "samples.jsonl"
REPORT = "report.html"
