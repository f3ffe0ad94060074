from typing import Any

import pytest

from steptool.core.types import Sampling, Task, Tool
from steptool.formats.json_call import ChatFormat
from steptool.policies import tiny_model

TOOLS = (
    Tool(
        name="find_order",
        description="Finds an order.",
        parameters={
            "type": "object",
            "properties": {"id": {"type": "string"}, "deep": {"type": "boolean"}},
            "required": ["id"],
        },
    ),
    Tool(name="ping", description="", parameters={"type": "object"}),
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_model.tokenizer()


@pytest.fixture(scope="session")
def chat(tokenizer: Any) -> ChatFormat:
    return ChatFormat(tokenizer)


@pytest.fixture
def task() -> Task:
    return Task(id="t1", subset="G1_tool", query="Where is order a-1?", tools=TOOLS)


@pytest.fixture
def sampling() -> Sampling:
    return Sampling(temperature=1.0, top_p=1.0, max_calls=4, max_step_tokens=64, max_tokens=2048)
