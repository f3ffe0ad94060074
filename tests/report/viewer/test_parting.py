"""What the page computes of attempts, asked of its own script in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.report.browser import Page, browser
from tests.report.viewer import project
from tests.report.viewer.serve import served


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    root = project.write(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch, browser(tmp_path_factory.mktemp("profile")) as opened:
        patch.chdir(root)
        with served(root) as address:
            opened.open(address)
            opened.wait("document.querySelector('.step')")
            yield opened


LOGIC = """import(new URL("attempts.js", location)).then((m) => {{
    const returned = {{finish: false, answer: null, error: null}};
    const call = (name, args, reply = "ok") => ({{...returned, name, arguments: Object.entries(args), reply}});
    const end = {{...returned, name: "Finish", finish: true, arguments: [["answer", "7"]], answer: "7"}};
    const up = {{...returned, name: "Finish", finish: true, arguments: [["give_up", "true"]]}};
    const rest = {{unreadable: null, thought: "", reply: null}};
    const step = (path, calls, message = null) => ({{...rest, path, calls, message}});
    const a = step("a", [call("find", {{x: 1}})]);
    const sides = (...all) => all.map((steps) => ({{steps}}));
    return {};
}})"""


@pytest.mark.parametrize(
    ("second", "common", "why"),
    [
        ("[a]", 1, "one ends, another goes on"),
        ("[a, step('b', [call('find', {x: 2})])]", 2, ""),
        ("[a, step('c', [call('find', {x: 3})])]", 1, "other arguments"),
        ("[a, step('c', [call('book', {x: 2})])]", 1, "another tool"),
        ("[a, step('c', [call('find', {x: 2}, 'no')])]", 1, "the same action, another reply"),
        ("[a, step('c', [end])]", 1, "a call against an answer"),
        ("[a, step('c', [up])]", 1, "a call against giving up"),
        ("[a, step('c', [], 'Which?')]", 1, "a call against a message"),
        ("[step('c', [call('find', {x: 1})])]", 0, "another thought, the same action"),
        ("[]", 0, "one ends, another goes on"),
    ],
)
def test_attempts_part_at_the_first_step_that_differs_and_it_says_in_what(
    page: Page, second: str, common: int, why: str
) -> None:
    """Against two steps, find(x=1) and find(x=2)."""
    found = page.run(LOGIC.format(f"m.parting(sides([a, step('b', [call('find', {{x: 2}})])], {second}))"))
    assert (found["common"], found["why"]) == (common, why)


@pytest.mark.parametrize(
    ("first", "second", "cell"),
    [
        *(("1", "0", "won"), ("0", "1", "lost"), ("1", "1", "both"), ("0", "0", "neither"), ("0.5", "0.5", "both")),
        *(("2/3", "1/3", "won"), ("null", "1", "unknown"), ("undefined", "1", "apart"), ("0", "undefined", "apart")),
    ],
)
def test_a_task_is_won_by_the_part_that_solves_it_more_often(page: Page, first: str, second: str, cell: str) -> None:
    assert page.run(LOGIC.format(f"m.cellOf({first}, {second})")) == cell


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('{"a": 1}', ['{"a": 1}']),
        ("no JSON, " * 20, ["no JSON, " * 20]),
        (
            '{"id":12345678901234567890,"of":[],"in":{"text":"a, {b}: \\"c\\"' + "x" * 60 + '"},"n":[1.0,2]}',
            [
                *("{", ' "id": 12345678901234567890,', ' "of": [],', ' "in": {'),
                '  "text": "a, {b}: \\"c\\"' + "x" * 60 + '"',
                *(" },", ' "n": [', "  1.0,", "  2", " ]", "}"),
            ],
        ),
    ],
)
def test_a_long_reply_in_json_gets_lines_and_nothing_else_changes(page: Page, text: str, lines: list[str]) -> None:
    script = f'import(new URL("steps.js", location)).then((m) => m.spaced({json.dumps(text)}))'
    assert page.run(script).split("\n") == lines
