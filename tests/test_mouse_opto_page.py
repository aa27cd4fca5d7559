"""The stored results of the example with a published recording, which the documentation shows."""

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "docs" / "examples" / "mouse_opto"
PAGE = ROOT / "docs" / "examples" / "mouse_opto.md"


def load_tables():
    path = ROOT / "examples" / "mouse_opto_parts" / "tables.py"
    specification = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_tables_of_the_page_are_those_of_the_stored_numbers():
    results = json.loads((STORED / "results.json").read_text(encoding="utf-8"))
    assert load_tables().as_markdown(results) == (STORED / "results.md").read_text(encoding="utf-8")


def test_all_that_the_page_includes_is_there():
    page, tables = PAGE.read_text(encoding="utf-8"), (STORED / "results.md").read_text(encoding="utf-8")
    for marker in re.findall(r'^:(?:start-after|end-before): "(<!--.*-->)"$', page, flags=re.MULTILINE):
        assert tables.count(marker) == 1
    figures = re.findall(r"\]\((mouse_opto/\w+\.png)\)", page)
    assert {Path(name).name for name in figures} == {path.name for path in STORED.glob("*.png")}


def test_the_page_states_no_result_beside_its_tables():
    """Numbers with decimals, percentages and nats come from the stored results alone."""
    prose = re.sub(r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"\d\.\d|\d%|\d nats", prose.replace("CC-BY-4.0", ""))
