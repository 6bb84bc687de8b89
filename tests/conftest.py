"What all tests share: a free port, sample or full count, a data folder, a clock that can be turned."
import itertools
import os
import socket
import time

import pytest
from hypothesis import settings as hypothesis_settings

from smartcloudops.core.clock import FakeClock, use_clock

# No example has to be quick: other tests and other programs run beside it
hypothesis_settings.register_profile('unhurried', deadline=None)
hypothesis_settings.load_profile('unhurried')


def soak(sample: int, full: int) -> int:
    "How often a long campaign runs: `sample` in `make test`, `full` in `make soak`."
    return full if os.environ.get('SOAK') else sample


PORTS = itertools.count(15_000 + os.getpid() % 4000 * 4)      # below those that the system gives to clients


def free_port() -> int:
    "A port on loopback that nothing listens on right now; tests side by side look in places of their own."
    for port in PORTS:
        with socket.socket() as s:
            try: s.bind(('127.0.0.1', port))
            except OSError: continue
            return port
    raise OSError('no free port')


def wait_for(probe, seconds: float = 30, every: float = .2):
    "The first true answer of `probe`; the test fails when it does not come in time."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := probe(): return answer
        time.sleep(every)
    pytest.fail(f'{probe} did not come true within {seconds} s')


def pytest_collection_modifyitems(config, items):
    for item in items:
        if 'aws_live' in item.keywords and os.environ.get('AWS_LIVE') != '1':
            item.add_marker(pytest.mark.skip(reason='needs a real AWS account: AWS_LIVE=1'))
        if 'soak' in item.keywords and not os.environ.get('SOAK'):
            item.add_marker(pytest.mark.skip(reason='full count: make soak'))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    "No setting or credential of the machine reaches a test."
    for name in list(os.environ):
        if name.startswith(('SMARTCLOUDOPS_', 'AWS_')) and name != 'AWS_LIVE' and os.environ.get('AWS_LIVE') != '1':
            monkeypatch.delenv(name)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    if os.environ.get('AWS_LIVE') != '1':
        monkeypatch.setenv('AWS_CONFIG_FILE', os.devnull)
        monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', os.devnull)


@pytest.fixture
def fake_clock():
    with use_clock(FakeClock()) as clock: yield clock
