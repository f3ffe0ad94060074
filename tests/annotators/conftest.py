from tests.rewards.conftest import task, trajectory  # noqa: F401  fixtures
