"""One small network for all kernel programs of a run.
It is made when the first of them asks, and only where that is permitted.
"""

import os
from collections.abc import Iterator

import pytest
from netns import Net


def _net() -> Iterator[Net]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Net() as made:
        yield made


net = pytest.fixture(scope="session", name="net")(_net)
quiet_net = pytest.fixture(scope="module", name="quiet_net")(_net)
"""For one file alone: in the other one, an old connection's last packets may die on their way at any time."""
