"""Results as numbers (results.json) and as the tables that a page includes (results.md): what the examples share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def rounded(value: Any) -> Any:
    """Numbers with as many digits as a page could show, in any nesting of dictionaries and lists."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 1 if abs(value) >= 1000.0 else 4)
    return value


def save(results: dict, tables: str, folder: Path) -> None:
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    (folder / "results.md").write_text(tables, encoding="utf-8")


def between_comments(parts: Mapping[str, str]) -> str:
    """Every text between two comments with its name, for pages that include one at a time."""
    return "\n".join(f"<!-- {name}: start -->\n{text}\n<!-- {name}: end -->\n" for name, text in parts.items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(bounds: Sequence[float], digits: int = 2) -> str:
    lower, middle, upper = (number(bound, digits) for bound in bounds)
    return f"{middle} [{lower}, {upper}]"


def number(value: float, digits: int = 2) -> str:
    """With a proper minus sign, and none for zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
