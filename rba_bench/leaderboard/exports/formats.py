"""Names of the export formats, apart from their code so that the command line starts fast."""

from typing import Literal

Format = Literal["eval-results", "every-eval-ever", "model-index", "latex", "markdown"]
Relationship = Literal["first_party", "third_party", "collaborative", "other"]  # the words of Every Eval Ever
