"""The real workflow on the smoke configuration, run once for all tests of this folder."""

import pytest

from tests.checkout import SMOKE, Checkout


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A finished smoke run; tests of it must leave it finished."""
    run = Checkout(tmp_path_factory.mktemp("smoke"))
    run.snakemake(*SMOKE)
    return run
