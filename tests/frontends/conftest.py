"""Every test counts automatic names from the start."""

import pytest

from graphc import utils


@pytest.fixture(autouse=True)
def fresh_session() -> None:
    utils.clear_session()
