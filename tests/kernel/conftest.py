"""One small network for all kernel programs of a run.
It is made when the first of them asks, and only where that is permitted.
"""

import os
from collections.abc import Iterator

import pytest
from netns import Net


@pytest.fixture(scope="session")
def net() -> Iterator[Net]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Net() as made:
        yield made
