"""Failures a user can act on.

    RbaError                    exit 1   the run failed; the message says what to do
    |- UserError                exit 2   an option, recipe or file is wrong
    |- MissingPrerequisite      exit 3   data, weights, a key or an extra must be provided
    |- AudioError               exit 1   one clip holds no usable sound; a run with other clips goes on without it

The command line prints these as one line. Anything else is a bug and keeps its traceback.
"""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, the name of its class where there is none: for messages of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class RbaError(Exception):
    """Base of all expected failures."""

    exit_code = 1


class UserError(RbaError):
    """The user asked for something impossible; the message names the fix."""

    exit_code = 2


class MissingPrerequisite(RbaError):
    """Something only the user can provide is absent (data, key, weights, extra)."""

    exit_code = 3


class AudioError(RbaError):
    """The bytes of one clip hold no usable sound; the run can go on without it."""
