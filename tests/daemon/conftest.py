"""Fixtures of the tests of the vhost-user side."""

from tests.daemon.hanging import hanging

__all__ = ["hanging"]
