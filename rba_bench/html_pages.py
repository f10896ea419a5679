"""Pages that are written for a browser: texts of others in them stay texts, and nothing runs that is not named.

Templates escape what they print, and make invisible characters visible. Data for a script is JSON that HTML reads as
text. A page's own policy allows its scripts and styles by their hashes
(https://www.w3.org/TR/CSP3/#grammardef-hash-source).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from rba_bench.untrusted import visible_text

if TYPE_CHECKING:
    from jinja2 import Template


def page_part(package: str, name: str) -> str:
    """A file of a package, with line ends whose hash is the same in every checkout."""
    return files(package).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def render_template(template: str, **values: Any) -> str:
    """A page of a jinja2 template; a name that the template uses and `values` lacks is an error."""
    return str(_compiled(template).render(**values))


@lru_cache(maxsize=16)  # a board has a page for each of its tables
def _compiled(template: str) -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible_text(value) if type(value) is str else value,
    )
    return environment.from_string(template)


def source_hash(text: str) -> str:
    """A script or a style as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def script_json(value: Any) -> str:
    """JSON that HTML reads as text: no `<`, no `&`, no line separators of JavaScript; what is not finite is null."""
    try:
        text = _strict_json(value)
    except ValueError:
        text = _strict_json(_finite(value))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _strict_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value
