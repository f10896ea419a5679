"""Failures a user can act on.

    RbaError                    exit 1   the run failed; the message says what to do
    |- UserError                exit 2   an option, recipe or file is wrong
    |- MissingPrerequisite      exit 3   data, weights, a key or an extra must be provided

The command line prints these as one line. Anything else is a bug and keeps its traceback.
"""


class RbaError(Exception):
    """Base of all expected failures."""

    exit_code = 1


class UserError(RbaError):
    """The user asked for something impossible; the message names the fix."""

    exit_code = 2


class MissingPrerequisite(RbaError):
    """Something only the user can provide is absent (data, key, weights, extra)."""

    exit_code = 3
