"""Options behind a voice's name, `?voice=a,b&format=wav`."""

from collections.abc import Collection, Iterable
from urllib.parse import unquote

from rba_bench.errors import UserError
from rba_bench.recipes import suggest


def parse_options(text: str, spec: str) -> dict[str, str]:
    """The options in what stands behind `?`; %20 and the like are read as in addresses.

    Args:
        text: Such as `voice=a,b&format=wav`.
        spec: The whole name, for messages.

    Raises:
        UserError: An option without a value, or one given twice.
    """
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if not name or not value:
            raise UserError(f"--voices {spec}: write options as ?NAME=VALUE&NAME=VALUE, not {part!r}")
        if name in options:
            raise UserError(f"--voices {spec}: {name} is given twice; join values by commas")
        options[name] = unquote(value)
    return options


def refuse_unknown(options: Iterable[str], known: Collection[str], spec: str) -> None:
    """Raise UserError for an option that is not known."""
    for name in options:
        if name not in known:
            raise UserError(f"--voices {spec}: unknown option {name!r}{suggest(name, known)}")


def split_values(text: str) -> list[str]:
    """The values of an option that takes several."""
    return [part.strip() for part in text.split(",") if part.strip()]
