"""Objects as one argument of the command line: the words of plan files, a comma before a field, a dot within a table.

`dale,K.E=1.5,K.I=6.0,magnitudes=log-normal` is {kind = "dale", K = {E = 1.5, I = 6.0}, magnitudes = "log-normal"}, and
`E=0.1,I.median=0.05` is {E = 0.1, I = {median = 0.05}}.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from lrposterior.checks import argument_error
from lrposterior.options import KIND, KINDS

# Values that TOML wants in quotes: what begins as a word or a path does, ends the value, and is no constant of TOML.
BARE_VALUE = re.compile(
    r"""
    (?<=[=\[,]) \s*
    (?! (?:true|false|inf|nan) \s* (?:[,\]}]|$) )
    ( [A-Za-z_./~] [^,=\[\]{}"'\s]* )
    (?= \s* (?:[,\]}]|$) )
    """,
    re.VERBOSE,
)


def read_option(option: str, text: str, name: str) -> Any:
    """One option of a model or a fit in the words that `lrposterior.options.make_option` takes.

    Args:
        option: its name there, such as "priors".
        text: a kind, a kind and its fields, or what the option takes beside these.
        name: what the user calls it, for errors.

    Raises:
        ValueError: if fields are not of the form FIELD=VALUE, or one is given twice.
    """
    kind, comma, fields = text.partition(",")
    if not comma or kind.strip() not in KINDS[option]:
        return text
    expected, mend = f"{kind.strip()},FIELD=VALUE", "write a dot within a table, as in dale,K.E=1.5,K.I=6.0"
    return {KIND: kind.strip(), **_table(fields, text, name, expected, mend)}


def read_time_constant(text: str, inferred: bool, name: str) -> Any:
    """A time constant in these words.

    Args:
        text: a number of seconds, a=NUMBER, fields by cell type, or neuron and its field.
        inferred: whether its numbers are medians of priors.
        name: what the user calls it, for errors.

    Raises:
        ValueError: if it is none of these.
    """
    kind, comma, fields = text.partition(",")
    expected, mend = "a time in s, or TYPE=TIME,TYPE=TIME", f"write for instance {name} E=0.1,I=0.05"
    if "=" in kind:
        value: Any = _table(text, text, name, expected, mend)
    elif comma:
        value = {KIND: kind.strip(), **_table(fields, text, name, expected, mend)}
    else:
        try:
            value = float(text)
        except ValueError:
            raise argument_error(name, expected, repr(text), mend) from None
    return _as_median(value) if inferred else value


def _table(fields: str, text: str, name: str, expected: str, mend: str) -> dict[str, Any]:
    """FIELD=VALUE,FIELD=VALUE as an inline table of TOML."""
    quoted = BARE_VALUE.sub(r'"\1"', f",{fields}")[1:]
    try:
        return tomllib.loads(f"table = {{{quoted}}}")["table"]
    except tomllib.TOMLDecodeError as error:
        got = f"{text!r} ({str(error).partition(' (at ')[0]})"
        raise argument_error(name, expected, got, mend) from None


def _as_median(value: Any) -> Any:
    """Numbers as medians, within tables and lists as well; what is a prior already stays."""
    if isinstance(value, Mapping):
        if "median" in value:
            return value
        return {key: content if key == KIND else _as_median(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_as_median(entry) for entry in value]
    return {"median": value}
