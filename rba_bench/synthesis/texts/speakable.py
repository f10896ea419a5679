"""Texts that cannot be said aloud, that ask for maths, or that are damaged.

An instruction goes through a speech synthesiser, so signs that only the eye can read (formulas, code, markup, tables,
addresses, paths, long numbers) make a clip that nobody can answer. Signs that people do say stay: "$5", "50%", "C#",
"and/or", "9/11", "3 x 4 metres", "<3", booking.com, Node.js. The rules look at signs of ASCII and mathematics alone, so
words of any script pass. They need no line break, because texts may have been put on one line before.
`tests/synthesis/speakable.tsv` holds labelled sentences by which the rules are measured.
"""

import re
import unicodedata

UNSPEAKABLE_KINDS = {
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
    r"\\(?:[a-zA-Z]{2,}|[()\[\]])",  # LaTeX; paths are recognised before
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
_LONG_NUMBER = (
    r"(?<![\d.,])(?![1-9]\d{0,2}0{6,}(?!\d))\d{8,}(?!\d)",  # but round ones: 1000000000
    r"\d\.\d{6,}|(?:\d{4}[ -]){3}\d{4}|\b\d{1,5}(?:-\d{1,7}){4}\b|\d{4}-\d\d-\d\dT\d\d:\d\d",
    r"\b0[xX][0-9a-fA-F]+\b|(?<!\w)#(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6}\b|(?<!\w)#[A-F]{6}\b",
    r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b|\b(?=[0-9A-F]*\d)(?=[0-9A-F]*[A-F])[0-9A-F]{8,}\b",
    r"\b(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[A-Za-z0-9]{12,}\b|[A-Za-z0-9+/]{16,}={1,2}(?!\w)",
)
# in this order: an address or a path is recognised first, so that its signs are not taken for a formula
_RULES = {
    kind: re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.ASCII | re.MULTILINE)
    for kind, patterns in (
        ("address", _ADDRESS),
        ("path", _PATH),
        ("markup", _MARKUP),
        ("code", _CODE),
        ("table", _TABLE),
        ("number", _LONG_NUMBER),
        ("formula", _FORMULA),
    )
}


def unspeakable(text: str) -> str | None:
    """Why a text cannot be said aloud: the first key of UNSPEAKABLE_KINDS that applies; None where all of it can."""
    for kind, rule in _RULES.items():
        if rule.search(text):
            return kind
    return None if any(character.isalnum() for character in text) else "symbols"


_BREAKS = "\n\t"  # what layout an answer may have
_MARKS = re.compile(r"<\|.*?\|>|</?s>|\[/?INST\]|\ufffd")
_NUMBER = r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|thousand)"
_SUM = rf"{_NUMBER} (?:plus|minus|times|multiplied by|divided by) {_NUMBER}\b"
_TERMS = re.compile(
    r"\b(integrals? of|integrate (the function|x\b|by parts)|(first|second|partial) derivatives?"
    r"|derivatives? of (an? |the )?(function|sine|cosine|tangent|logarithm|polynomial|square|[a-z]\b)"
    r"|differential equations?|polynomials?|quadratic|simultaneous equations|solve (the|this|an?) equation"
    r"|logarithms? of|eigenvalues?|eigenvectors?|determinant of (a|the|this) matrix|(invert|multiply) (a|the) matrix"
    r"|factorial of|(sine|cosine|tangent) of|trigonometr\w+ (function|identit|equation)\w*|(square|cube) root of"
    r"|solve for [a-z]\b|prove (that|the) [^.?!]*\b(theorem|prime|irrational|converges?|divisible|triangle)\w*"
    r"|(sum|product|quotient) of (the |these |those |all )?((first|two|three|four|five|\d+) )*"
    r"(digits|numbers|integers|primes)"
    rf"|(calculate|compute|what is|what's|how much is|work out|add up|sum of|product of)[^.?!]{{0,20}}\b{_SUM}"
    rf"|{_SUM} (is|equals|makes)\b)"
)


def needs_maths(text: str) -> bool:
    """True where the text asks in words for sums or for more maths than can be said aloud."""
    return bool(_TERMS.search(text.casefold()))


def is_malformed(text: str) -> bool:
    """True for template marks, control characters but for layout, or a text without a single letter or digit."""
    plain = text.translate(dict.fromkeys(map(ord, _BREAKS)))
    control = any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in plain)
    return control or bool(_MARKS.search(text)) or not any(character.isalnum() for character in text)
