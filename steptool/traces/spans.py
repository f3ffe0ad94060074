"""What the spans of one trace come to: each request to a model is a span, and an attempt takes several. Pure.

    request   question                                        reply   find(title: "Dune")
    request   question, find(…), its reply                    reply   book(id: "b1")
    request   question, find(…), its reply, book(…), …        reply   "9.5"             ← the last holds all of it

Where several agents spoke with models within one trace, or one rewrote its history, several conversations are the last
of theirs. The longest is the attempt that the trace is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from steptool.core.messages import Message
from steptool.formats.arguments import read_arguments
from steptool.traces.anthropic import Anthropic
from steptool.traces.conversation import Conversation, Skipped, Unusable
from steptool.traces.labels import Labels, RecordSettings, labels_of, solved_of
from steptool.traces.openai import OpenAi
from steptool.traces.records import ODD, Record
from steptool.traces.responses import Responses

NOTHING = "a trace without a request to a chat model"
ANOTHER = "another conversation within a trace, as of a second agent"


class Requests:
    """Reads the requests of one trace, in their order."""

    def __init__(self) -> None:
        self._anthropic = Anthropic(Anthropic.Config())
        self._openai = OpenAi(OpenAi.Config())
        self._responses = Responses(Responses.Config())

    def read(self, where: str, request: Mapping[str, Any], response: Any) -> list[Conversation]:
        """The request and its reply, in whichever of these forms it is; empty for one in none.

        Raises Unusable for one that is broken, or holds what text cannot.
        """
        record = Record(where, {"request": request, "response": response})
        for reader in (self._anthropic, self._responses, self._openai):
            if reader.recognises("", record.value):
                return list(reader.of_record(record))
        return []


Of = TypeVar("Of")


def attempt_of_spans(
    where: str, spans: Iterable[Of], request_of: Callable[[Of], tuple[Mapping[str, Any], Any]], labels: Labels, odd: str
) -> Iterator[Conversation | Skipped]:
    """The attempt that a trace is about, as `attempt_of_trace` says, of spans in their order.

    `request_of`: request and response of a span, empty where it is none to a chat model. A span that it or a reader
    stumbles over, which `odd` says, or refuses, is left out: a later one may hold all of it.
    """
    requests, problem = Requests(), ""
    conversations: list[Conversation] = []
    for span in spans:
        try:
            conversations += requests.read(where, *request_of(span))
        except Unusable as error:
            problem = problem or error.reason
        except ODD:
            problem = problem or odd
    if problem and not conversations:
        yield Skipped(where=where, reason=problem)
    else:
        yield from attempt_of_trace(where, conversations, labels)


def attempt_of_trace(where: str, requests: Sequence[Conversation], labels: Labels) -> Iterator[Conversation | Skipped]:
    """The longest of the conversations, with the labels of the trace; the others are skipped, and counted.

    `requests`: one for each request to a model, in their order.
    """
    if not requests:
        yield Skipped(where=where, reason=NOTHING)
        return
    by_key = {_key(each): each for each in requests}
    whole = [key for key in by_key if not any(key != other and other[: len(key)] == key for other in by_key)]
    longest = max(whole, key=len)  # the first, where several are as long
    offered = (each.tools for each in reversed(requests) if each.tools and longest[: len(_key(each))] == _key(each))
    yield by_key[longest].model_copy(update={"where": where, "tools": next(offered, ()), **labels._asdict()})
    for _ in range(len(whole) - 1):
        yield Skipped(where=where, reason=ANOTHER)


def labels_of_trace(record: Mapping[str, Any], settings: RecordSettings) -> Labels:
    """`record`: what was noted of the trace, by name. Where none has a usual name, and one alone says good or bad, that
    is the label."""
    found = labels_of(record, settings)
    judged = {name: value for name, value in record.items() if solved_of(value) is not None}
    if found.solved is None and not settings.label and len(judged) == 1:
        ((name, value),) = judged.items()
        return found._replace(solved=solved_of(value), evidence=f"label {name} of the source")
    return found


def _key(of: Conversation) -> tuple[Any, ...]:
    """What was said in turn, without the system's messages, which differ from agent to agent."""
    return tuple(_said(message) for message in of.messages if message.role != "system")


def _said(message: Message) -> tuple[str, str, str]:
    calls = [(call.name, read_arguments(call.arguments.strip() or "{}")) for call in message.calls]
    return message.role, message.text.strip(), repr(calls)
