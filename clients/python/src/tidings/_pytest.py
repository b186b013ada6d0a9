"""The plugin of pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import Recorder, record


@pytest.fixture
def published() -> Iterator[Recorder]:
    """What the test publishes (``tidings.testing``)."""
    with record() as recorder:
        yield recorder
