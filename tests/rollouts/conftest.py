from typing import Any

import pytest

from steptool import testing
from steptool.core.types import Sampling, Task
from steptool.formats.json_call import JsonCall
from steptool.policies import tiny_model

TOOLS = (
    testing.tool("find_order", "Finds an order.", needs={"id": "string"}, allows={"deep": "boolean"}),
    testing.tool("ping", parameters={"type": "object"}),
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_model.tokenizer()


@pytest.fixture(scope="session")
def chat(tokenizer: Any) -> JsonCall:
    return JsonCall(JsonCall.Config(), tokenizer)


@pytest.fixture
def task() -> Task:
    return testing.task("t1", "Where is order a-1?", *TOOLS)


@pytest.fixture
def sampling() -> Sampling:
    return Sampling(temperature=1.0, top_p=1.0, max_calls=4, max_step_tokens=64, max_tokens=2048)
