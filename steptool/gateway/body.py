"""What both APIs have in common in the body of a request: its tools, its texts, and what is refused by name.

A request is read strictly where it means something, and what is unknown is left alone: clients send ever new fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from steptool.core.messages import tool_of
from steptool.core.types import Tool
from steptool.gateway.base import Refused

MOST_MESSAGES = 10_000
MOST_TOOLS = 128
"""As in OpenAI's API."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Tokens = Annotated[int, Field(ge=1, le=2**31)]
Body = TypeVar("Body", bound=BaseModel)


class Part(BaseModel):
    """A field that is not listed in a class is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TextPart(Part):
    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str = ""
    refusal: str = ""


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _choice(value: Any) -> Any:
    """The name of a tool from an object that chooses it; Responses has the name in it, chat within `function`."""
    if isinstance(value, dict) and value.get("type") == "function":
        inner = value.get("function", value)
        return inner.get("name") if isinstance(inner, dict) else inner
    return value


Content = Annotated[list[TextPart] | None, BeforeValidator(_parts)]
Choice = Annotated[Name | None, BeforeValidator(_choice)]
"""`auto`, `none`, `required`, or a tool's name."""


class Function(Part):
    """A tool. The Responses API has these fields beside `type`, chat completions within `function`."""

    type: Literal["function"] = "function"
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def tool(self) -> Tool:
        return tool_of(self.model_dump())


@dataclass(frozen=True)
class Stamp:
    """What a response carries beside the reply."""

    id: str
    model: str
    """As the agent calls it."""
    created: int
    """Seconds since 1970."""


def read_body(raw: bytes, kind: type[Body]) -> Body:
    """Raises Refused with the first thing that is wrong, and where."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        said = f"{place}: {first['msg']}" if place else str(first["msg"])
        raise Refused(f"cannot be read: {said}"[:500], code="invalid_request", param=place[:200] or None) from None


def text_of(content: Content) -> str:
    """The parts of a text, joined by line breaks as a chat template joins them."""
    return "\n".join(part.text or part.refusal for part in content or ())


def refuse_fields(body: BaseModel, fields: dict[str, tuple[Any, ...]]) -> None:
    """Raise Refused where one of `fields` is neither left out nor null nor one of the values that change nothing."""
    for name, harmless in fields.items():
        value = getattr(body, name)
        if value is not None and value not in harmless:
            raise Refused(
                f"{name} is not supported by this server, as a policy that is trained has no such reply; leave it out",
                code="unsupported_parameter",
                param=name,
            )


def offered(functions: Sequence[Function], choice: str) -> tuple[Tool, ...]:
    """The tools that a policy is shown: none where none shall be called.

    Raises Refused where two have one name, or `choice` names another.
    """
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise Refused(f"two tools are called {double}", code="invalid_request", param="tools")
    if choice not in ("auto", "none", "required", *names):
        raise Refused(f"tool_choice names {choice}, which is not offered", code="invalid_request", param="tool_choice")
    return () if choice == "none" else tuple(function.tool() for function in functions)
