"""Hypothesis profiles and the folder of real data."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for name, options in {
    "dev": {"max_examples": 16},
    # The same examples on every run: more of them would find nothing that was not found the first time.
    "ci": {"max_examples": 50, "derandomize": True},
    "thorough": {"max_examples": 1000},
}.items():
    settings.register_profile(name, deadline=None, suppress_health_check=[HealthCheck.too_slow], **options)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


gc.disable()  # until all is imported and collected, none of which is garbage


def pytest_collection_finish() -> None:
    """Leave what was collected, some hundred thousand objects, out of every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(autouse=True)
def own_claims_only() -> Iterator[None]:
    """Forget the claims that a test declared: they would be measured with those of the package from then on."""
    yield
    registry = sys.modules.get("attnembed.evidence.registry")
    if registry is not None:
        for id in [id for id, entry in registry._registry.items() if entry.subject not in registry.SUBJECTS]:
            del registry._registry[id]


@pytest.fixture
def plain_layout(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are small, and not fitted to their labels, which takes half of their time; those of slow tests are."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:  # `monkeypatch` would be undone after later fixtures
        if not {"slow", "thorough"} & {mark.name for mark in request.node.iter_markers()}:
            save = Figure.savefig
            patch.setattr(Figure, "set_layout_engine", lambda self, *args, **options: None)
            patch.setattr(Figure, "savefig", lambda self, *args, **options: save(self, *args, **options | {"dpi": 60}))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data named by ATTNEMBED_DATA; the test is skipped where there is none."""
    folder = os.environ.get("ATTNEMBED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data: set ATTNEMBED_DATA to the folder that holds it")
    return Path(folder)
