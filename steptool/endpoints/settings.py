"""How an endpoint is reached, what it costs, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from steptool.core.fields import Bound, Many, Name, Natural, Positive, Settings, Text, Weight
from steptool.core.secrets import Beginning, Variable

STORE = ".steptool/endpoint.db"


class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint, as an arm or as a teacher."""

    url: Beginning
    """Up to and without `/chat/completions`: https://api.openai.com/v1, http://gpu-box:8000/v1."""
    model: Name
    """As the endpoint calls it."""
    key: Variable | None = None
    """Environment variable with the API key; None where the endpoint wants none."""
    system: Annotated[str, Field(max_length=100_000)] = ""
    """What its conversations begin with; none where empty. A production model has one."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] | None = None
    """None: as our own policies have it; default: it is not sent, for models that take none."""
    max_completion_tokens: Positive = 2048
    """Of one answer, reasoning included. Tokens of the endpoint's own tokenizer."""
    parallel: bool = True
    """Whether it may call several tools at once. json_call and react cannot be trained on such a step."""
    max_observation: Positive = 1024
    """Characters of a tool's reply that it is shown, as in our formats."""
    price_in: Weight = 0.0
    """Of a million prompt tokens, in the currency of `ceiling`."""
    price_out: Weight = 0.0
    """Of a million sampled tokens."""
    ceiling: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Most money that the model behind this url may have cost in all, as the ledger in `store` has it."""
    ceiling_tokens: Annotated[int, Field(gt=0, le=10**12)] | None = None
    """The same in tokens, prompts and answers together."""
    requests_per_minute: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Requests are sent evenly, at most so many a minute, repeated ones included; None: as fast as `concurrency`."""
    concurrency: Many = 8
    """Attempts in flight."""
    max_retries: Annotated[Natural, Field(le=20)] = 4
    """How often a request is sent again, after 429, 5xx, a lost connection, a timeout, or an answer that is none."""
    timeout_s: Bound = 120.0
    """For one answer."""
    store: Annotated[Text, Field(min_length=1)] = STORE
    """The file that keeps every answer, and what it cost."""

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if self.ceiling is not None and not (self.price_in or self.price_out):
            raise ValueError("ceiling is money, so price_in and price_out are needed; or set ceiling_tokens")
        return self


DECIDING = ("url", "model", "system", "temperature", "max_completion_tokens", "parallel", "max_observation")
"""Settings that decide what it answers; the others are about money and speed."""


class PartSettings(EndpointSettings):
    """The endpoint of a model that plays a part in a world: a service, a user. What is about money and speed changes no
    revision."""

    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] | None = 0.0
    max_completion_tokens: Positive = 1024

    @model_serializer(mode="wrap")
    def _deciding(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in DECIDING}
