"""What an estimate rests on beside recipe and model; every value can be given with `--assume KEY=VALUE`."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rba_bench.errors import UserError
from rba_bench.recipes import Recipe, load_recipe

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Assumptions(Recipe):
    """Null: from the alignment set where it is there, else the value in brackets."""

    groups: Positive | None = (
        None  # instructions to train on (250,000: the paper's million clips in four voices)
    )
    voices: Positive | None = None  # clips of an instruction (voices_per_group)
    seconds: Rate | None = None  # length of a clip (5)
    answer_tokens: Positive | None = None  # of a teacher's answer (250)
    text_tokens: Positive = 30  # of a prompt beside the sound: template and system line
    mfu: Share = (
        0.35  # share of the peak rate that training reaches; from 0.3 to 0.5 is usual for 7B on 8 devices
    )
    decode_share: Share = 0.5  # share of the memory's bandwidth that sampling reaches
    redraws: Annotated[float, Field(ge=0)] = 0.5  # further groups drawn for each, where DAPO draws anew
    overhead_gb: Annotated[float, Field(ge=0)] = 2.0  # what framework and libraries hold on a device
    fragmentation: Annotated[float, Field(ge=0)] = 0.1  # more than is counted, for what the allocator wastes
    reward_parameters: Rate | None = None  # of the model that judges samples, where it is not known
    teacher_parameters: Rate | None = None  # of the text teacher, where it is not known


def read(overrides: Sequence[str]) -> Assumptions:
    """`--assume` strings, checked.

    Raises:
        UserError: an unknown key or a wrong value.
    """
    try:
        return load_recipe(Assumptions, None, overrides)
    except UserError as error:
        raise UserError(str(error).replace("--set", "--assume")) from error
