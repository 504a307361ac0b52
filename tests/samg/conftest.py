import pytest

from tests.support.fake_networks import FakeNetworks


@pytest.fixture
def fake_networks():
    return FakeNetworks()
