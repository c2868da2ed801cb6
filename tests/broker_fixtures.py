"""Real brokers for tests: `broker` runs a test once with each, `mosquitto` where one special feature is needed."""

from collections.abc import Iterator

import pytest

from fleet.broker import Broker, IotcoreBroker, MosquittoBroker

NO_MOSQUITTO = "no mosquitto on the PATH or in /usr/sbin"


@pytest.fixture(params=[IotcoreBroker, MosquittoBroker], ids=lambda kind: kind.name)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    kind: type[Broker] = request.param
    if kind is MosquittoBroker and MosquittoBroker.find() is None:
        pytest.skip(NO_MOSQUITTO)
    with kind() as running:
        yield running


@pytest.fixture
def mosquitto() -> type[MosquittoBroker]:
    if MosquittoBroker.find() is None:
        pytest.skip(NO_MOSQUITTO)
    return MosquittoBroker


@pytest.fixture
def iotcore() -> Iterator[Broker]:
    """The embedded broker alone, where the broker is not what a test is about."""
    with IotcoreBroker() as running:
        yield running
