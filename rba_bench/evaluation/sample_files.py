"""The samples of a finished run on disk: as lines, or packed as they are published."""

import gzip
from collections.abc import Iterator
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RUN_FILE, SAMPLES_FILE, Sample, first_line
from rba_bench.untrusted import MAX_TEXT, parse_json, read_file, unpack

PACKED_FILE = SAMPLES_FILE + ".gz"  # as published: text compresses tenfold


def pack(data: bytes) -> bytes:
    """Samples as published; the same bytes in, the same bytes out."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def sample_bytes(folder: Path) -> bytes:
    """Lines of the samples in a run folder, unpacked. Raises UserError where they are missing or damaged."""
    packed = folder / PACKED_FILE
    try:
        return read_file(folder / SAMPLES_FILE, MAX_TEXT)
    except FileNotFoundError:
        pass
    try:
        return unpack(read_file(packed, MAX_TEXT), packed)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has a {RUN_FILE} but no {SAMPLES_FILE}; both are needed") from error


def parse(data: bytes, folder: Path) -> Iterator[Sample]:
    """The samples in those lines, in their order. Raises UserError for a line that is none."""
    try:
        for line in data.split(b"\n"):
            if line.strip():
                yield Sample.model_validate(parse_json(line), strict=True)
    except ValueError as error:
        raise UserError(f"{folder}: {SAMPLES_FILE} is damaged: {first_line(error)}") from error
