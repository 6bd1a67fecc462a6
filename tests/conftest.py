"""For the package's tests."""

import hypothesis
import pytest
import torch

# The same examples on every run and on every machine, and no limit on the time of a first call.
hypothesis.settings.register_profile(
    "book", derandomize=True, max_examples=25, deadline=None, database=None
)
hypothesis.settings.load_profile("book")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
