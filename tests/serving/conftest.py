from tests.policies.test_canary import policy  # noqa: F401  fixture
