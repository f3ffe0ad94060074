from tests.rollouts.conftest import chat, sampling, task, tokenizer  # noqa: F401  fixtures
