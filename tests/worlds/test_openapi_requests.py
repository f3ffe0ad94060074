"""From arguments to a request: the styles of OpenAPI 3.1's table of parameters, with its own example.

array [blue, black]   object {R: 100, G: 200}
form, explode         color=blue&color=black     R=100&G=200
form                  color=blue,black           color=R,100,G,200
deepObject                                       color[R]=100&color[G]=200
"""

from __future__ import annotations

from typing import Any

import pytest

from steptool.core.types import Tool
from steptool.worlds.openapi.operations import Argument, Operation
from steptool.worlds.openapi.request import Parts, WrongRequest, request_of

LIST, OBJECT = ["blue", "black"], {"R": 100, "G": 200}


def request(*arguments: Argument, path: str = "/a", content_type: str | None = None, **values: Any) -> Parts:
    operation = Operation(
        tool=Tool(name="a", description="", parameters={}),
        method="POST",
        path=path,
        server="http://books.test/v1/",
        arguments=arguments,
        content_type=content_type,
        needs_body=content_type is not None,
        security=(),
    )
    return request_of(operation, values)


@pytest.mark.parametrize(
    ("style", "explode", "value", "written"),
    [
        ("form", True, "blue", "color=blue"),
        ("form", True, "", "color="),
        ("form", True, LIST, "color=blue&color=black"),
        ("form", True, OBJECT, "R=100&G=200"),
        ("form", False, LIST, "color=blue,black"),
        ("form", False, OBJECT, "color=R,100,G,200"),
        ("spaceDelimited", False, LIST, "color=blue%20black"),
        ("pipeDelimited", False, LIST, "color=blue%7Cblack"),
        ("deepObject", True, OBJECT, "color%5BR%5D=100&color%5BG%5D=200"),
        ("form", True, True, "color=true"),
        ("form", True, 1.5, "color=1.5"),
        ("form", True, "a&b=c d/é", "color=a%26b%3Dc%20d%2F%C3%A9"),
        ("form", True, None, ""),
        ("form", True, [], ""),
        ("form", True, "\ud800", "color=%3F"),
    ],
)
def test_styles_of_a_query(style: str, explode: bool, value: Any, written: str) -> None:
    parts = request(Argument("color", "query", "color", style, explode), color=value)
    assert "&".join(parts.query) == written
    assert parts.address == "http://books.test/v1/a" + (f"?{written}" if written else "")


@pytest.mark.parametrize(
    ("style", "explode", "value", "written"),
    [
        ("simple", False, "blue", "blue"),
        ("simple", False, 7, "7"),
        ("simple", False, LIST, "blue,black"),
        ("simple", False, OBJECT, "R,100,G,200"),
        ("simple", True, OBJECT, "R=100,G=200"),
        ("label", False, LIST, ".blue,black"),
        ("label", True, LIST, ".blue.black"),
        ("matrix", False, LIST, ";color=blue,black"),
        ("matrix", True, LIST, ";color=blue;color=black"),
        ("matrix", True, OBJECT, ";R=100;G=200"),
        ("simple", False, "../admin?x#y", "..%2Fadmin%3Fx%23y"),
        ("simple", False, "a b/é%", "a%20b%2F%C3%A9%25"),
    ],
)
def test_styles_of_a_path(style: str, explode: bool, value: Any, written: str) -> None:
    argument = Argument("color", "path", "color", style, explode)
    assert request(argument, path="/x/{color}/y", color=value).url == f"http://books.test/v1/x/{written}/y"


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/x/{a}", {"a": ".."}),
        ("/x/{a}", {"a": "."}),
        ("/x/{a}", {"a": ""}),
        ("/x/{a}", {"a": []}),
        ("/x/{a}{b}/y", {"a": ".", "b": "."}),
        ("/x/{a}{b}", {"a": "", "b": ""}),
    ],
)
def test_no_argument_leads_to_another_path(path: str, values: dict[str, Any]) -> None:
    with pytest.raises(WrongRequest, match="must not be empty"):
        request(Argument("a", "path", "a", "simple"), Argument("b", "path", "b", "simple"), path=path, **values)


def test_a_path_may_end_in_a_slash() -> None:
    assert request(Argument("a", "path", "a"), path="/x/{a}/", a="7").url == "http://books.test/v1/x/7/"
    assert request(path="/").url == "http://books.test/v1/"


def test_headers_and_cookies() -> None:
    parts = request(
        Argument("one", "header", "X-One", "simple"),
        Argument("many", "header", "X-Many", "simple"),
        Argument("pairs", "header", "X-Pairs", "simple", explode=True),
        Argument("visit", "cookie", "visit", "form", explode=True),
        Argument("left_out", "header", "X-None", "simple"),
        one=7,
        many=LIST,
        pairs=OBJECT,
        visit="a;b",
        left_out=None,
    )
    assert parts.all_headers == {
        "X-One": "7",
        "X-Many": "blue,black",
        "X-Pairs": "R=100,G=200",
        "Cookie": "visit=a%3Bb",
    }


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "\x00", "é"])
def test_no_argument_makes_another_header(value: str) -> None:
    with pytest.raises(WrongRequest, match="one: holds characters that no header can hold"):
        request(Argument("one", "header", "X-One", "simple"), one=value)


def test_a_parameter_of_json_is_written_as_json() -> None:
    parts = request(Argument("filter", "query", "filter", "form", True, is_json=True), filter={"a": [1]})
    assert parts.query == ["filter=%7B%22a%22%3A%20%5B1%5D%7D"]


FORM = "application/x-www-form-urlencoded"
FLAT = (Argument("title", "body", "title"), Argument("id_body", "body", "id"))


@pytest.mark.parametrize(
    ("content_type", "arguments", "values", "sent"),
    [
        ("application/json", FLAT, {"title": "é", "id_body": None}, '{"title": "é", "id": null}'.encode()),
        ("application/json", FLAT, {}, b"{}"),
        ("application/json", (Argument("body", "body", ""),), {"body": [1]}, b"[1]"),
        (FORM, FLAT, {"title": ["a b", "c&"], "id_body": 7}, b"title=a%20b&title=c%26&id=7"),
        ("text/plain", (Argument("body", "body", ""),), {"body": "plain"}, b"plain"),
        ("application/json", (Argument("body", "body", ""),), {"body": "text"}, b'"text"'),
    ],
)  # fmt: skip
def test_bodies(content_type: str, arguments: tuple[Argument, ...], values: dict[str, Any], sent: bytes) -> None:
    parts = request(*arguments, content_type=content_type, **values)
    assert parts.body == {"content": sent}
    assert parts.headers == {"Content-Type": content_type}


def test_a_form_of_parts_has_a_part_for_each_item() -> None:
    parts = request(*FLAT, content_type="multipart/form-data", title=["a", "b"], id_body=7)
    assert parts.body == {"files": [("title", (None, b"a")), ("title", (None, b"b")), ("id", (None, b"7"))]}
