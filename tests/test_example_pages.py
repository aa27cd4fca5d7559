"""Pages of examples with published recordings: tables, figures and prose against the stored results."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "examples"

# The module of every example that makes its tables.
TABLES = {"aplysia": "tables", "ei_session": "tables", "mouse_opto": "tables", "paradoxical_fall": "pages"}

pytestmark = pytest.mark.parametrize("name", TABLES)


@pytest.fixture
def as_markdown(name, monkeypatch):
    """What makes the tables of a page from the stored results."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield importlib.import_module(f"{name}_parts.{TABLES[name]}").as_markdown
    parts = (f"{name}_parts", "mouse_opto_parts", "page_parts")
    for module in [one for one in sys.modules if one.partition(".")[0] in parts]:
        del sys.modules[module]


def test_the_tables_of_the_page_are_those_of_the_stored_numbers(name, as_markdown):
    results = json.loads((PAGES / name / "results.json").read_text(encoding="utf-8"))
    assert as_markdown(results) == (PAGES / name / "results.md").read_text(encoding="utf-8")


def test_all_that_the_page_includes_is_there(name):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    tables = (PAGES / name / "results.md").read_text(encoding="utf-8")
    for marker in re.findall(r'^:(?:start-after|end-before): "(<!--.*-->)"$', page, flags=re.MULTILINE):
        assert tables.count(marker) == 1
    figures = re.findall(rf"\]\(({name}/\w+\.png)\)", page)
    assert {Path(figure).name for figure in figures} == {path.name for path in (PAGES / name).glob("*.png")}


def test_the_page_states_no_result_beside_its_tables(name):
    """Numbers with decimals, percentages, nats and bits come from the stored results alone."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"\d\.\d|\d%|\d nats|\d bits", prose.replace("CC-BY-4.0", ""))
