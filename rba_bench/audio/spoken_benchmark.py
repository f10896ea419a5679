"""A spoken benchmark on disk: what `rba-bench speak` writes, what evaluation reads.

    DIR/manifest.json                        origin, voices, recogniser, counts, checksums; written last
    DIR/data/test-00000-of-00004.parquet     one row per clip, columns of `benchmark_schema()`
    DIR/baselines/NAME.json                  answers of each reference system, in the form of AlpacaEval
    DIR/dropped.jsonl                        what was left out, with the reason
    DIR/README.md                            the card

A row holds all columns of a test set of rba-bench (`evaluation.documents.COLUMNS`), and what a recogniser made of the
clip: `asr_text`, and `asr_wer`, its word errors over the words of the text.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import is_below, read_json, sha256_file, sha256_json
from rba_bench.untrusted import plain

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST, DROPPED, BASELINES, DATA = "manifest.json", "dropped.jsonl", "baselines", "data"
FORMAT, SCHEMA_VERSION = "spoken-benchmark", 1
QUESTIONS, INSTRUCTIONS = "qa", "chat"  # kinds: answers are matched with references, or judged
TASKS = {
    QUESTIONS: "spoken_questions",
    INSTRUCTIONS: "spoken_instructions",
}  # that evaluate a set of each kind


def benchmark_schema() -> "pa.Schema":
    """Columns of the parquet files."""
    import pyarrow as pa

    before = ("id", "group_id", "kind", "topic", "instruction", "prompt")
    after = ("source_lang", "target_lang", "baseline", "voice")
    return pa.schema([
        *((name, pa.string()) for name in before),
        ("references", pa.list_(pa.string())),
        *((name, pa.string()) for name in after),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("sampling_rate", pa.int32()),
        ("duration", pa.float64()),
        ("audio_sha256", pa.string()),
        ("asr_text", pa.string()),
        ("asr_wer", pa.float64()),
    ])  # fmt: skip


@dataclass(frozen=True)
class SpokenBenchmark:
    """A finished spoken benchmark; open it with `SpokenBenchmark.open`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> "SpokenBenchmark":
        """Read the manifest and check every parquet file against its checksum.

        Raises:
            MissingPrerequisite: no finished benchmark there.
            UserError: something else, a damaged one, or one of a newer format.
        """
        folder = Path(path)
        file, again = folder / MANIFEST, "run the same `rba-bench speak` again to repair it"
        if not file.is_file():
            raise MissingPrerequisite(
                f"no finished spoken benchmark in {folder}: make it with `rba-bench speak --out {folder}`"
            )
        try:
            manifest = read_json(file)
            if manifest.get("format") != FORMAT:
                raise UserError(f"{folder} holds no spoken benchmark: make one with `rba-bench speak`")
            version, checksums = manifest["schema_version"], dict(manifest["checksums"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged ({error}): {again}") from error
        if version != SCHEMA_VERSION:
            raise UserError(f"{file} has format {version}, this rba-bench reads {SCHEMA_VERSION}")
        for name, checksum in checksums.items():
            if not is_below(name):
                raise UserError(f"{file} lists {plain(name)!r}, which is no file below {folder}: refused")
            if not (folder / name).is_file() or sha256_file(folder / name) != checksum:
                raise UserError(f"{folder / name} is missing or damaged: {again}")
        return cls(folder, manifest)

    @property
    def sha256(self) -> str:
        """Identity of the content: hash of the checksums of the parquet files."""
        return sha256_json(self.manifest["checksums"])

    @property
    def kind(self) -> str:
        """QUESTIONS or INSTRUCTIONS."""
        return str(self.manifest["kind"])

    @cached_property
    def files(self) -> list[Path]:
        """The parquet files in order."""
        return [self.path / name for name in sorted(self.manifest["checksums"])]
