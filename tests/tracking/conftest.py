from tests.registry.conftest import _own_environment, empty_database, evaluation_of, register_as, serve, tracking  # noqa: F401  fixtures
