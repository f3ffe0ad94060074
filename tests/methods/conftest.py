from tests.training.conftest import config, group, make_policy, make_scored  # noqa: F401  fixtures
