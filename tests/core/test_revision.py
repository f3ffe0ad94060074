"""The revision of code changes exactly when what a stage runs changes its meaning.

shop/stage.py  ── imports ──▶  shop/rules.py ──▶ shop/words.py
               └─ imports ──▶  shop/report.py            left out
shop/other.py                                            not reached
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steptool.core import revision
from steptool.core.errors import InputError
from steptool.core.revision import closure, code_revision, forget_sources, words_revision

SOURCES = {
    "__init__.py": '"""A shop."""\n\n__version__ = "1"\n',
    "stage.py": "import json\n\nfrom shop import report, rules\n\n\ndef main(x=1):\n    return rules.judge(x)\n",
    "rules.py": (
        "from shop.words import split\n\n\ndef judge(x):\n    if x < 0:\n"
        '        raise ValueError(f"{x} is negative")\n    return split(x)\n'
    ),
    "words.py": "LEAST = 3\n\n\ndef split(x):\n    return x - LEAST\n",
    "report.py": "def page():\n    return 1\n",
    "page.jinja": "{{ x }}",
    "other.py": "def method():\n    return 2\n",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_sources()
    return folder


def now() -> str:
    forget_sources()
    return code_revision(["shop.stage"], without=["shop.report"])


def test_the_closure_is_what_a_module_reaches_by_imports_and_nothing_else(shop: Path) -> None:
    found = closure(["shop.stage"], without=["shop.report"])
    assert sorted(found) == ["shop", "shop.rules", "shop.stage", "shop.words", "shop/page.jinja"]


SAME = {
    "a comment": ("rules.py", "    return split(x)", "    # the words\n    return split(x)"),
    "a docstring": ("words.py", "def split(x):\n", 'def split(x):\n    """Words."""\n'),
    "the docstring of a value": ("words.py", "LEAST = 3\n", 'LEAST = 3\n"""Of all."""\n'),
    "layout": ("words.py", "x - LEAST", "(x\n            - LEAST)"),
    "what an error says": ("rules.py", "is negative", "lies below zero"),
    "the order of imports": (
        "stage.py",
        "import json\n\nfrom shop import report, rules",
        "from shop import report, rules\nimport json",
    ),
    "an import for type checkers": (
        "words.py",
        "LEAST = 3",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import decimal\nLEAST = 3",
    ),
    "the version": ("__init__.py", '"1"', '"2"'),
    "what is left out": ("report.py", "return 1", "return 3"),
    "what is not reached": ("other.py", "return 2", "return 3"),
}


@pytest.mark.parametrize(("file", "old", "new"), SAME.values(), ids=SAME)
def test_what_means_the_same_has_the_same_revision(shop: Path, file: str, old: str, new: str) -> None:
    before = now()
    source = (shop / file).read_text()
    assert old in source
    (shop / file).write_text(source.replace(old, new))
    assert now() == before


OTHER = {
    "a value": ("words.py", "LEAST = 3", "LEAST = 4"),
    "an operator": ("words.py", "x - LEAST", "x + LEAST"),
    "a default": ("stage.py", "x=1", "x=2"),
    "a condition": ("rules.py", "x < 0", "x <= 0"),
    "which error": ("rules.py", "ValueError", "KeyError"),
    "another import": ("stage.py", "import json", "import re"),
    "a further module": ("stage.py", "import report, rules", "import other, report, rules"),
    "a template": ("page.jinja", "{{ x }}", "{{ y }}"),
    "text that is no docstring": ("rules.py", "return split(x)", 'return split(x) or "none"'),
}


@pytest.mark.parametrize(("file", "old", "new"), OTHER.values(), ids=OTHER)
def test_what_means_something_else_has_another_revision(shop: Path, file: str, old: str, new: str) -> None:
    before = now()
    source = (shop / file).read_text()
    assert old in source
    (shop / file).write_text(source.replace(old, new))
    assert now() != before


@pytest.mark.parametrize("case", ["a docstring", "what an error says"])
def test_the_words_are_a_revision_of_their_own(shop: Path, case: str) -> None:
    def words() -> str:
        forget_sources()
        return words_revision(["shop.stage"], without=["shop.report"])

    before, (file, old, new) = words(), SAME[case]
    (shop / "other.py").write_text('"""Not reached."""\n')
    (shop / file).write_text("# A comment.\n" + (shop / file).read_text())
    assert words() == before
    (shop / file).write_text((shop / file).read_text().replace(old, new))
    assert words() != before


def test_what_a_module_imports_from_the_folder_of_the_project_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tools.py ── imports ──▶ catalogue.py, and json, which no project owns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("tools.py").write_text("import json\nfrom catalogue import BOOKS\n")
    Path("catalogue.py").write_text("BOOKS = 3\n")
    forget_sources()
    before = code_revision(["tools"])
    assert set(closure(["tools"])) == {"tools", "catalogue"}
    Path("catalogue.py").write_text("BOOKS = 4\n")
    forget_sources()
    assert code_revision(["tools"]) != before


def test_a_module_that_does_not_exist_is_named(shop: Path) -> None:
    with pytest.raises(InputError, match=r"shop\.gone: no such module"):
        code_revision(["shop.gone"])


def test_a_broken_source_is_named(shop: Path) -> None:
    (shop / "words.py").write_text("def split(:\n")
    with pytest.raises(InputError, match=r"words\.py:1: cannot be read as Python: invalid syntax"):
        now()


def test_another_process_gives_the_same_revision(shop: Path) -> None:
    code = "from steptool.core.revision import code_revision as r; print(r(['shop.stage'], without=['shop.report']))"
    environment = {"PYTHONPATH": f"{shop.parent}:{Path(revision.__file__).parents[2]}", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == now()
