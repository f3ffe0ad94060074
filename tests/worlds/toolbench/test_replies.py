"""Which reply a call gets.

recorded                    asked                        found
{"id": "A 1"}               {"id": "A 1"}                exact
                            {"id": " a  1", "q": ""}     canonical
{"id": "Berlin", "n": 1}    {"id": "Berlim", "n": 1}     nearest, where 5 of 6 letters are enough
                            {"id": "Berlim", "n": 2}     nothing: numbers are equal or not
"""

import json

import pytest

from steptool.worlds.toolbench.names import Api, category, function, standardize
from steptool.worlds.toolbench.replies import (
    Recorded,
    Replies,
    Reply,
    error_kind,
    mix,
    read_mix,
    shown,
    whole,
)

REPLIES = Replies([Recorded({"id": "A 1"}, "one", None), Recorded({"id": "Berlin", "n": 1}, "city", "soft")])


@pytest.mark.parametrize(
    ("arguments", "nearest", "found"),
    [
        ({"id": "A 1"}, 1.0, Reply("one", None, "exact")),
        ({"id": " a  1", "q": ""}, 1.0, Reply("one", None, "canonical")),
        ({"n": "1.0", "id": "berlin"}, 1.0, Reply("city", "soft", "canonical")),
        ({"id": "Berlim", "n": 1}, 0.8, Reply("city", "soft", "nearest")),
        ({"id": "Berlim", "n": 1}, 0.9, None),
        ({"id": "Berlim", "n": 1}, 1.0, None),
        ({"id": "Berlim", "n": 2}, 0.5, None),
        ({"id": "Berlim"}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_a_call_gets_the_reply_to_the_arguments_that_are_most_alike(
    arguments: dict[str, object], nearest: float, found: Reply | None
) -> None:
    assert REPLIES.find(arguments, nearest) == found
    assert REPLIES.find(arguments, nearest) == found, "and again"


def test_of_several_near_calls_the_nearest_counts() -> None:
    replies = Replies(Recorded({"id": text}, text, None) for text in ("abcdxx", "abcdex", "abcxxx"))
    assert replies.find({"id": "abcdef"}, 0.5) == Reply("abcdex", None, "nearest")


@pytest.mark.parametrize(
    "response", ["x" * 1100, {"a": "é" * 300}, [{"n": 12345678}] * 80, {"k" * 9: [True, None] * 90}]
)
def test_a_reply_of_which_the_beginning_was_recorded_is_cut_to_the_same_text_again(response: object) -> None:
    recorded = shown(json.dumps({"error": "", "response": response}))
    assert len(recorded) == 1027
    again = shown(json.dumps(json.loads(whole(recorded))))
    assert again[:1010] == recorded[:1010], "but for a letter that was cut in two"
    if isinstance(response, str):
        assert again == recorded
    assert Reply(recorded, None, "exact").observation().text == recorded


def test_what_is_no_json_at_all_becomes_the_response() -> None:
    assert json.loads(whole("Bad gateway")) == {"error": "", "response": "Bad gateway"}


@pytest.mark.parametrize(
    ("error", "response", "kind"),
    [
        ("", {"name": "one"}, None),
        ("Unauthorized error...", "x", "hard"),
        ("", "", "empty"),
        ("", [], "empty"),
        ("", "404 not found", "soft"),
        ("", {"message": "Invalid key"}, "soft"),
        ("", "The 404 errors of the year", None),
    ],
)
def test_a_failure_is_known_by_how_it_begins(error: str, response: object, kind: str | None) -> None:
    assert error_kind(error, response) == kind


def test_where_replies_came_from_is_written_and_read() -> None:
    said = mix(["exact", "simulated", "exact"])
    assert said == "3 replies: 2 exact, 1 simulated"
    assert read_mix(f"only a judge can tell; {said}") == {"exact": 2, "simulated": 1}
    assert read_mix(mix([])) == read_mix("12 replies: many") == {}


def test_names_are_spelled_as_toolbench_spells_them() -> None:
    assert standardize("👋 Demo -- Project!") == "demo_project"
    assert standardize("7 Timer") == "get_7_timer"
    assert (function("ID"), function("from"), function("Get It")) == ("is_id", "is_from", "get_it")
    assert category("Video, Images") == "Video_Images"
    api = Api("Video_Images", "my_tool", "find_it")
    assert Api.of("Video, Images", "My Tool", "Find It") == api
    assert Api.of("Video_Images", "my_tool_for_Video_Images", "find_it") == api
    assert Api.of("Video_Images", "my_tool", "find_it_for_my_tool") == api
    assert api.offered == "find_it_for_my_tool"
    assert len(Api("c", "t" * 80, "n").offered) == 64
