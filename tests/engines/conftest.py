from tests.policies.test_canary import policy  # noqa: F401  fixture
from tests.rollouts.conftest import chat, sampling, task, tokenizer  # noqa: F401  fixtures
