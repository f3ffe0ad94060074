"""What is planted is gone, its stand-in is the same wherever it stood, and what is none of it stays.

found in    {"email": "anna@shop.example"}      query "I am Anna@shop.example"     the same person-… in both
known       --drop name, {"name": "Anna Lund"}  answer "Anna Lund has paid."       redacted-… has paid.
no phone    {"income": 13658000000}             "-78.69614336"                     stay
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steptool.core.errors import DataError, StorageError
from steptool.core.messages import Message, MessageCall
from steptool.core.types import AnswerCheck, Tool
from steptool.traces.conversation import Conversation
from steptool.traces.scrub import DROPPED, EMAILS, PHONES, SECRETS, Scrubber, project_key

KEY = b"0123456789abcdef" * 2
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PERSON = r"person-[b-z]{8}@redacted\.invalid"
HIDDEN = r"redacted-key-[b-z]{8}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def scrubbed(text: str, **options: Any) -> str:
    return Scrubber(KEY, **options).text(text)


def of(query: str, arguments: str, reply: str, answer: str, **more: Any) -> Conversation:
    messages = (
        Message(role="user", text=query),
        Message(role="assistant", calls=(MessageCall(id="a", name="find", arguments=arguments),)),
        Message(role="tool", text=reply, call_id="a"),
        Message(role="assistant", text=answer),
    )
    return Conversation(where="log.jsonl:1", messages=messages, **more)


@pytest.mark.parametrize(
    "text",
    [
        "Write to anna.lund+shop@mail.example.co.uk.",
        "https://shop.example/?to=anna%40shop.example&x=1",
        '{"text": "\\nanna@shop.example", cut off',  # the n belongs to the escape
        "Jürgen: jürgen@müller.de",
        "<anna@shop.example>",
    ],
)
def test_an_address_has_a_stand_in_of_the_same_shape(text: str) -> None:
    found = scrubbed(text)
    assert len(re.findall(r"person-[b-z]{8}(?:@|%40)redacted\.invalid", found)) == 1
    assert not re.search(r"anna|lund|jürgen@|müller", found)


def test_json_stays_json_and_what_is_not_touched_stays_as_it_was_written() -> None:
    assert scrubbed('{ "a":1.50,  "b" : "x" }') == '{ "a":1.50,  "b" : "x" }'
    found = json.loads(scrubbed('{"text": "\\nanna@shop.example", "in": "{\\"to\\": \\"anna@shop.example\\"}"}'))
    assert re.fullmatch(rf"\n{PERSON}", found["text"])
    assert json.loads(found["in"])["to"] == found["text"].strip()


@pytest.mark.parametrize("written", ["+1 415 555 2671", "(415) 555-2671", "415.555.2671", "+44 20 7946 0958"])
def test_a_phone_number_keeps_its_shape_and_is_of_no_country(written: str) -> None:
    found = scrubbed(f"Call {written} now.").removeprefix("Call ").removesuffix(" now.")
    assert re.sub(r"\d", "0", found) == re.sub(r"\d", "0", written)
    assert found != written
    assert not any(phonenumbers.PhoneNumberMatcher(f"Call {found} now.", "US"))


@pytest.mark.parametrize(
    "text",
    ["my phone is 4155552671", '{"phone": "4155552671"}', '{"phoneNumber": 4155552671}', "4155552671"],
)
def test_digits_in_a_row_are_a_phone_number_where_something_says_so(text: str) -> None:
    assert "4155552671" not in scrubbed(text)
    assert "999" in scrubbed(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"income": 4155552671}',
        "The revenue was 4155552671 USD.",
        "at -78.69614336 degrees",
        '{"longitude": "-78.69614336"}',
        "2026-11-27T03:40:00",
        "order 1764212795",
        "ISBN 978-3-16-148410-0",
    ],
)
def test_an_amount_a_place_and_a_date_are_no_phone_numbers(text: str) -> None:
    assert scrubbed(text) == text


def test_numbers_are_those_of_a_country() -> None:
    assert scrubbed("Ruf 030 901820 an") == "Ruf 030 901820 an"
    assert scrubbed("Ruf 030 901820 an", region="DE") != "Ruf 030 901820 an"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF0123456789abcDEF0123456789",
        "sk-ant-api03-abcDEF0123456789abcDEF",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "github_pat_0123456789abcdefghij_0123456789",
        "hf_abcdefghij0123456789abcdefghij",
        "xoxb-123456789012-abcdefghijkl0",
        "AIzaSyA0123456789abcdefghijklmnopqrstu",
        JWT,
        PEM,
    ],
)
def test_a_key_is_hidden(secret: str) -> None:
    found = scrubbed(f"It is {secret} and no other.")
    assert re.fullmatch(rf"It is {HIDDEN} and no other\.", found)


@pytest.mark.parametrize(
    ("text", "secret", "stays"),
    [
        ("password: hunter22!", "hunter22", "password: "),
        ('{"api_key": "short"}', "short", "api_key"),
        ("Authorization: Bearer abc.def-123456789", "abc.def", "Authorization: Bearer "),
        ("curl -H 'X-API-Key: 9f8e7d6c'", "9f8e7d6c", "X-API-Key: "),
        ("postgres://anna:hunter22@db.example/shop", "hunter22", "@db.example/shop"),
        ("DB_PASSWORD=hunter22", "hunter22", "DB_PASSWORD="),
        ('{"log": "client_secret=\\"s3cr3t-value\\""}', "s3cr3t", "client_secret="),
    ],
)
def test_a_secret_is_known_by_what_stands_around_it(text: str, secret: str, stays: str) -> None:
    found = scrubbed(text)
    assert secret not in found and stays in found
    assert re.search(HIDDEN, found)


@pytest.mark.parametrize("text", ["Basic understanding of tokens", "sk-learn-is-a-library", "the secret is out", "a@b"])
def test_words_are_no_secrets(text: str) -> None:
    assert scrubbed(text) == text


def test_a_value_has_the_same_stand_in_everywhere_in_a_project() -> None:
    one, other = Scrubber(KEY), Scrubber(KEY)
    assert one.text("anna@shop.example") == other.text("ANNA@shop.example") != one.text("bert@shop.example")
    assert one.text("anna@shop.example") != Scrubber(KEY[::-1]).text("anna@shop.example")


def test_scrubbing_twice_changes_nothing_more() -> None:
    text = f"anna@shop.example, +1 415 555 2671, (415) 555-2671, password=hunter22, {JWT}"
    once = scrubbed(text)
    again = Scrubber(KEY)
    assert again.text(once) == once
    assert not again.counts


@given(st.text(), st.text())
def test_any_text_is_scrubbed_and_an_address_in_it_is_gone(before: str, after: str) -> None:
    found = scrubbed(f"{before} anna.lund@shop.example {after}")
    assert "anna.lund" not in found
    assert scrubbed(found) == found


@given(JSON)
def test_dropped_fields_keep_the_types_of_their_values(value: Any) -> None:
    text = json.dumps({"x": value})
    assert shape(json.loads(scrubbed(text, drop=["X"]))) == shape({"x": value})


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


def test_a_dropped_value_is_gone_from_the_whole_conversation() -> None:
    scrubber = Scrubber(KEY, drop=["customer-name", "customerId"])
    reply = '{"customerName": "Anna Lund", "customer_id": 48213, "due": 12}'
    found = scrubber.conversation(
        of("What does Anna Lund owe? She is 48213.", '{"id": 48213}', reply, "anna lund owes 12.")
    )
    text = found.model_dump_json()
    assert "48213" not in text and "lund" not in text.casefold()
    query, call, answer = found.messages[0].text, found.messages[1].calls[0].arguments, found.messages[3].text
    stand_in = re.search(r"redacted-[b-z]{8}", query)
    assert stand_in and answer == f"{stand_in[0]} owes 12."
    assert json.loads(call)["id"] == json.loads(found.messages[2].text)["customer_id"]
    assert len(str(json.loads(call)["id"])) == 5
    assert scrubber.counts == {DROPPED: 6}


@pytest.mark.parametrize("name", ["Jürgen Weiß", "İpek", "ſmith", "O'Neill (Jr.)", "李小龙"])
def test_a_dropped_value_is_found_as_it_was_written_in_any_script(name: str) -> None:
    scrubber = Scrubber(KEY, drop=["name"])
    found = scrubber.conversation(of(f"I am {name}.", "{}", json.dumps({"name": name}), f"{name.upper()}, welcome."))
    assert name not in found.model_dump_json() and name.upper() not in found.messages[3].text


def test_a_value_that_was_dropped_in_one_conversation_stays_in_the_next() -> None:
    scrubber = Scrubber(KEY, drop=["name"])
    scrubber.conversation(of("q", "{}", '{"name": "Dune"}', "a"))
    assert (
        scrubber.conversation(of("What does Dune cost?", "{}", "9.5", "a")).messages[0].text == "What does Dune cost?"
    )


def test_everything_of_a_conversation_is_scrubbed() -> None:
    planted = "anna@shop.example"
    found = Scrubber(KEY).conversation(
        Conversation(
            where=f"{planted}.jsonl:1",
            messages=(
                Message(role="system", text=planted),
                Message(role="user", text=planted),
                Message(
                    role="assistant",
                    text=planted,
                    thought=planted,
                    calls=(MessageCall(name="f", arguments=f'{{"{planted}": 1'),),
                ),
                Message(role="tool", text=planted),
            ),
            tools=(Tool(name="f", description=planted, parameters={"properties": {"a": {"default": planted}}}),),
            model=planted,
            group=planted,
            answer=planted,
            evidence=planted,
            check=AnswerCheck(kind="set", expected=[planted]),
        )
    )
    assert planted not in found.model_dump_json()
    assert found.model_dump_json().count("redacted.invalid") == 14


def test_a_parameter_named_like_a_secret_keeps_its_schema() -> None:
    schema = {"type": "object", "properties": {"password": {"type": "string", "description": "hunter"}}}
    tool = Tool(name="log_in", description="", parameters=schema)
    found = Scrubber(KEY, drop=["password"]).conversation(of("q", "{}", "r", "a", tools=(tool,)))
    assert found.tools == (tool,)


def test_what_was_found_is_counted() -> None:
    scrubber = Scrubber(KEY)
    scrubber.text("anna@shop.example and bert@shop.example, +1 415 555 2671, password=hunter22")
    assert scrubber.counts == {EMAILS: 2, PHONES: 1, SECRETS: 1}


def test_the_key_of_a_project_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / ".steptool" / "scrub.key"
    key = project_key(path)
    assert project_key(path) == key and len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert project_key(tmp_path / "other.key") != key


@pytest.mark.parametrize("content", ["", "abc", "z" * 64])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scrub.key"
    path.write_text(content)
    with pytest.raises(DataError, match="holds no key"):
        project_key(path)


def test_a_key_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        project_key(tmp_path / "file" / "scrub.key")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "reply",
    [
        '{"customer": "Zelda \\"Z\\" Quux", "cut": [1,',
        '{"customer": "Zelda Quux"}\n{"customer": "Quux"}',
        'Found: {"Customer": "Zelda Quux"}, of 12',
        "{'customer': 'Zelda Quux', 'of': None}",
        '"{\\"customer\\": \\"Zelda Quux\\"} and more',
        '{"a": {"customer": "Zelda Quux"}, "a": 1}',
    ],
)
def test_a_dropped_field_is_found_in_text_that_is_no_json(reply: str) -> None:
    done = scrubbed(reply, drop=["customer"])
    assert "Zelda" not in done and "Quux" not in done
    assert re.search(r"redacted-[b-z]{8}", done)


def test_a_dropped_number_in_text_that_is_no_json_stays_one() -> None:
    done = scrubbed('total {"customer_no": 123456, "n": 7}', drop=["customerNo"])
    assert re.fullmatch(r'total \{"customer_no": \d{6}, "n": 7\}', done) and "123456" not in done


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "anna@shop.example", "a": "x"}',
        '{"a": {"password": "hunter2hunter2"}, "a": 1}',
    ],
)
def test_what_stands_under_a_name_that_is_given_twice_is_scrubbed(text: str) -> None:
    done = scrubbed(text)
    assert "anna" not in done and "hunter2" not in done
    assert done.count('"a"') == 2


def test_a_field_called_like_a_secret_hides_numbers_and_lists() -> None:
    done = json.loads(scrubbed('{"password": 123456, "api_key": ["abc", "def", null], "secret": [{"id": "abcd"}]}'))
    assert done["password"] != 123456 and len(str(done["password"])) == 6
    assert all(re.fullmatch(HIDDEN, key) for key in done["api_key"][:2]) and done["api_key"][2] is None
    assert done["secret"] == [{"id": "abcd"}]


def test_what_is_nested_too_deeply_is_scrubbed_as_text() -> None:
    done = scrubbed(f'{{"a": {"[" * 600}"anna@shop.example"{"]" * 600}}}')
    assert re.search(PERSON, done) and "anna" not in done


def test_the_folder_of_a_new_key_is_kept_out_of_git(tmp_path: Path) -> None:
    project_key(tmp_path / "new" / "scrub.key")
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    (tmp_path / ".gitignore").write_text("own\n")
    project_key(tmp_path / "scrub.key")
    assert (tmp_path / ".gitignore").read_text() == "own\n"
