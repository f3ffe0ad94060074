"""README and docs say what is there: links lead somewhere, code is that of the examples, settings are accepted.

README.md    [docs/results.md](docs/results.md)        a file, and where there is a #part, a heading of it
extend.md    ```python … ```                            stands so in a file of examples/plugins
any page     ```yaml … ```                              laid over params.yaml, it is valid
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from steptool.config.settings import parse_params
from tests.project import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").glob("*/README.md"))
EXAMPLES = ROOT / "examples" / "plugins"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            found.append(link)
    return found


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def lines_of(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.strip()]


def is_part_of(code: str, whole: str) -> bool:
    wanted, given = lines_of(code), lines_of(whole)
    return any(given[start : start + len(wanted)] == wanted for start in range(len(given)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, "[a](no/such/file.md) [b](#no-such-heading)") == ["no/such/file.md", "#no-such-heading"]
    assert broken_links(page, page.read_text()) == []


def test_code_on_plugins_is_that_of_the_examples() -> None:
    examples = {file.name: file.read_text() for file in EXAMPLES.glob("*.py")}
    found = blocks(ROOT / "docs" / "extend.md", "python")
    assert found
    assert not is_part_of("class Other:\n", examples["verdict.py"])
    for code in found:
        assert any(is_part_of(code, example) for example in examples.values()), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_shows_are_accepted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yaml = YAML(typ="safe")
    for block in blocks(page, "yaml"):
        settings = yaml.load(block)
        whole = yaml.load((ROOT / "params.yaml").read_text())
        for key, value in settings.items():
            whole[key] = {**whole.get(key, {}), **value} if key in ("arms", "methods") else value
        assert parse_params(page, whole)


def test_every_example_is_in_the_list_of_examples() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    extended = (ROOT / "docs" / "extend.md").read_text()
    for file in EXAMPLES.glob("*.py"):
        assert f"`{file.name}`" in listed
        assert f"`{file.name}`" in extended
