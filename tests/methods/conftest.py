from tests.training.conftest import group, make_policy, make_scored, train_params  # noqa: F401  fixtures
