"""What the tests of tuning wait with."""

from tests.tuning.conftest import until

__all__ = ["until"]
