"""Real brokers for tests: `broker` runs a test once with each, `mosquitto` where one special feature is needed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from shipped_broker import Premises, ShippedBroker

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


@pytest.fixture
def premises(tmp_path: Path) -> Premises:
    """The certificates of the broker that deploy/mosquitto describes."""
    (tmp_path / "certs").mkdir()
    return Premises(tmp_path / "certs")


@pytest.fixture
def shipped(mosquitto: type[MosquittoBroker], premises: Premises) -> Iterator[ShippedBroker]:
    """That broker itself."""
    del mosquitto
    with ShippedBroker(premises.folder) as broker:
        yield broker
