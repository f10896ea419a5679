r"""What can be written but not said: formulas, code, markup, tables, addresses, paths, long numbers, bare symbols.

An instruction goes through a synthesiser and is then heard, so what only the eye can read makes a clip that nobody can
answer. Signs that people do say stay: "$5", "50%", "C#", "and/or", "9/11", "3 x 4 metres", "<3", booking.com, Node.js.
Rules look at signs of ASCII and mathematics alone: words of any script pass, accents, Arabic and CJK included.

Texts may have been put on one line before, so no rule needs a line break. `tests/synthesis/speakable.tsv` holds
sentences with labels, by which the rules are measured.
"""

import re

KINDS = {
    "formula": "formulas, equations, LaTeX",
    "code": "program code, shell commands, queries, structured data",
    "markup": "HTML, XML, Markdown, placeholders",
    "table": "tables",
    "address": "URLs, e-mail and network addresses",
    "path": "file paths",
    "number": "long digit strings, hashes, keys",
    "symbols": "no letter or digit",
}

_NAME = r"[A-Za-z_]\w*"
_FORMULA = (
    r"\\(?:[a-zA-Z]{2,}|[()\[\]])",  # LaTeX; paths are asked about before
    # $...$ as pandoc reads it, with a sign of mathematics or a lone variable in it
    r"(?<![\w$])\$(?=\S)(?:[^$\n]*[\\^_=+*<>{}][^$\n]*|[A-Za-z]\d?)(?<=\S)\$(?!\w)",
    # signs of mathematics, without those that prose uses: minus, infinity, tilde, ratio, slash, dots
    r"[\u2200-\u2211\u2213\u2214\u2216-\u2218\u221a-\u221d\u221f-\u2235\u2237-\u223b\u223d-\u22c4\u22c6-\u22ee\u22f0-\u22ff]",
    r"(?<![^\W\d_])[a-ln-zA-LN-Z\u03b1-\u03c9][\u00b2\u00b3\u2074-\u207f]",  # x squared; m squared is a unit
    r"[)\d][\u00b2\u00b3\u2074-\u207f]",
    r"(?<![\u0370-\u03ff])\u03c0\s?[a-z]\b",
    r"\d\s*[+*\u00f7]\s*\(?\d",  # 3 + 4; but 3 x 4, 3-4 and 3/4 are sizes, ranges and fractions
    r"(?<!\w)[a-zA-Z0-9]\s*=\s*(?:[-(]?\d|[a-zA-Z]{1,2}(?:\d|\b)|\()|[\d)]\s*=\s*[-(]?[\dxyz]|=\s*-?\d+(?:\.\d+)?(?!\w)",
    r"[A-Za-z0-9)]\s*\^\s*[-({A-Za-z0-9]",
    r"\b[fgh]\(\s*[a-z]\s*\)",
    r"\b\d*[xyz]\s*[+*/]\s*\d|\b\d+[xyz]\s*-\s*\d|\d\s*\+\s*\d*[xyz]\b",
    r"\b[xyznkp]\s*[<>]=?\s*-?\d|\d\s*[<>]=?\s*\d",
    r"\b(?:sqrt|sin|cos|tan|log|ln|lim|exp)\s*\(",
    r"\+[^.\n]{1,40}(?:\u2192|\u21cc|->)",  # reactions
    r"\$\$[^$\n]+\$\$|\b[a-z]\s*\u2192\s*[\d+\-\u221e]|\d!\s*[-+*/]\s*\d|\b[A-Za-z]{1,2}\s*\+\s*[A-Za-z]{1,2}\s*=",
)
_CODE = (
    r"```|~~~|`[^`\n]+`",
    rf"\b(?:def|function|func|fn)\s+{_NAME}\s*\(|\bclass\s+{_NAME}\s*(?:\([\w, .]*\)\s*:|\{{)",
    r"#\s?include\b|\bconsole\.log\b|\bSystem\.out\b|\bpublic static\b|\b(?:std|self|this)(?:::|->|\.\w+\s*[(=])",
    r"(?:^|[:;\n]\s*)from\s+[a-z_][\w.]*\s+import\s+[\w*]",
    r"(?:^|[:;\n]\s*)import\s+[a-z_][\w.]*(?:\s+as\s+\w|\s*;|\.\w)|\bimport\s+(?:numpy|pandas|torch|os|sys)\b",
    r"\bSELECT\b.+\bFROM\b|\bINSERT INTO\b|\bCREATE TABLE\b|\bDELETE FROM\b|\bUPDATE\s+\w+\s+SET\b|\bDROP TABLE\b",
    rf"\b{_NAME}\(\)|\b{_NAME}\.{_NAME}\(|\b[a-z]+_\w+\(|\b{_NAME}\((?:[\"'][^)]*|\w+\s*,[^)]*|-?\d+|\w+\[[^)]*)\)",
    r"\{[^{}\n]*[:;=][^{}\n]*\}|\{\s*\}",
    r"===?|!=|&&|\|\||[+*]=|(?<=\s)-=|\w::\w|\w->\w|=>|(?<=\w)\+\+;|\+\+\)",
    rf"\b(?:let|const|var|int|float|double|char|bool|String|string)\s+{_NAME}\s*(?:=|;)",
    rf"\b{_NAME}\s*=\s*(?:[\"'\[{{]|{_NAME}[.(\[])|\b{_NAME}\[\d+\]",
    r"(?<![@\w])[a-z]+(?:_[a-z0-9]+)+\b|\b__\w+__\b|\b[A-Z]+(?:_[A-Z0-9]+)+\b",
    r"\bsudo\s+\w|(?:^|\s)--[a-z][\w-]+|\b(?:rm|ls|chmod|tar|grep|curl|ssh|cp|mv|ps|docker|git|pip|find|sed|awk)\s+-[a-zA-Z]",
    r"\bchmod\s+[0-7]{3}|\b(?:pip|npm|apt|apt-get|brew)\s+install\s+[a-z]|\$\{|\$\(|\$(?:HOME|PATH)\b|\s\|\s*grep\b|2>&1",
    r"\\[ntr0](?![a-zA-Z])|(?<!\d)%[sd]\b|\blambda\s+\w+\s*:",
    r"\bfor\s+\w+\s+in\s+(?:range\(|\w+:)|\b(?:if|while|for)\s*\([^()\n]*[<>=;!][^()\n]*\)|\bwhile\s+True\b",
    r"\[\s*(?:-?\d+(?:\.\d+)?|\"[^\"]*\"|'[^']*')(?:\s*,\s*(?:-?\d+(?:\.\d+)?|\"[^\"]*\"|'[^']*'))+\s*\]",
    r";\s*(?:\}|//)|\w\([^()\s]*\);",
    r"(?<!\w)[.#][a-z][\w-]*\s*\{|\[\^?\w-\w[^\]\s]*\][+*?{$]|\\[dws][+*]",
)
_MARKUP = (
    r"</?[A-Za-z][\w:-]*(?:\s+[\w:@-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?)*\s*/?>",
    r"<!--|<!DOCTYPE|<\?(?:xml|php)|&(?:amp|lt|gt|nbsp|quot|apos|copy|#\d+|#x[0-9a-fA-F]+);",
    r"!?\[[^\]\n]+\]\([^)\s]+[^)]*\)",
    r"(?:^|\n)#{1,6}\s+\S|\s#{2,6}\s+\S|\*\*[^*\n]+\*\*|(?<!\w)__[^_\n]+__(?!\w)",
    r"\{\{?\s*\w+\s*\}?\}|\[/?(?:b|i|u|url|img|quote|code)(?:=[^\]]*)?\]",
)
_TABLE = (r"\|\s*:?-{3,}", r"\|[^|\n]+\|", r"\t[^\t\n]+\t", r"\+-{3,}\+")
_ADDRESS = (
    r"\b(?:https?|ftps?|file|sftp|wss?|s3|git)://\S|\bmailto:|\bwww\.\w",
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    r"\b(?:[\w-]+\.)+(?:[a-z]{2,}/\w|(?:com|org|net|io|edu|gov|de|uk|fr|eu|us|ca)\b:\d{2,5}\b)",
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-fA-F]{1,4}:){5,}[0-9a-fA-F]{1,4}\b|\blocalhost:\d",
    r"\b10\.\d{4,}/\S",
)
_PATH = (
    r"\b[A-Za-z]:\\|\\\\\w+\\\w|%\w+%\\",
    r"(?:^|[\s\"'(:=])(?:~|\.{1,2})?/[\w.@-]+/[\w./@-]*|(?:^|[\s\"'(])(?:~|\.{1,2})/[\w.]",
    r"(?:^|[\s\"'(])/(?:etc|usr|home|var|tmp|opt|bin|root|mnt|dev|proc|sys)\b",
    r"(?<![\w/.])[\w-]+(?:/[\w-]+)*/[\w-]+(?:\.[\w-]+)*\.(?:[a-z]{2,4}|[chrm])(?![\w/])",
    r"\b\w+\\\w+\\\w+",
)
_NUMBER = (
    r"(?<![\d.,])(?![1-9]\d{0,2}0{6,}(?!\d))\d{8,}(?!\d)",  # but round ones: 1000000000
    r"\d\.\d{6,}|(?:\d{4}[ -]){3}\d{4}|\b\d{1,5}(?:-\d{1,7}){4}\b|\d{4}-\d\d-\d\dT\d\d:\d\d",
    r"\b0[xX][0-9a-fA-F]+\b|(?<!\w)#(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6}\b|(?<!\w)#[A-F]{6}\b",
    r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b|\b(?=[0-9A-F]*\d)(?=[0-9A-F]*[A-F])[0-9A-F]{8,}\b",
    r"\b(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[A-Za-z0-9]{12,}\b|[A-Za-z0-9+/]{16,}={1,2}(?!\w)",
)
# in this order: what an address or a path holds is not asked about as a formula
_RULES = {
    kind: re.compile("|".join(f"(?:{one})" for one in patterns), re.ASCII | re.MULTILINE)
    for kind, patterns in (
        ("address", _ADDRESS),
        ("path", _PATH),
        ("markup", _MARKUP),
        ("code", _CODE),
        ("table", _TABLE),
        ("number", _NUMBER),
        ("formula", _FORMULA),
    )
}


def unspeakable(text: str) -> str | None:
    """What of a text cannot be said aloud: a key of KINDS, the first that applies; None where all of it can."""
    for kind, rule in _RULES.items():
        if rule.search(text):
            return kind
    return None if any(character.isalnum() for character in text) else "symbols"
