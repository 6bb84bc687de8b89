"""The child that seals: what it says when it fails is kept and said once, it is ended with the loop, and one that hangs
is killed."""
import logging
import sqlite3
import time

import pandas as pd
import pytest

from smartcloudops import process
from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.monitoring.history import History
from smartcloudops.process import SealProcess
from tests.conftest import wait_for

pytestmark = pytest.mark.phase7
SLEEPS = 'import time; print("begun", flush=True); time.sleep(60)'


@pytest.fixture
def child(monkeypatch):
    "Something is always due; `child(code)` says what the sealing process does instead of sealing."
    monkeypatch.setattr(process, 'is_seal_due', lambda path: True)
    return lambda code: monkeypatch.setattr(process, '_SEAL', code)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ('code', 'problem'),
    [
        ('import sys; sys.exit("sealed: no space left")', 'sealed: no space left'),
        ('raise RuntimeError("broken")', 'RuntimeError: broken'),
        ('import sys; sys.exit(3)', 'exit code 3'),
        ('import os; os.kill(os.getpid(), 9)', 'exit code -9'),
    ],
    ids=['a reason', 'a traceback', 'no word', 'killed'],
)
def test_why_the_child_failed_is_kept(child, tmp_path, caplog, code, problem):
    child(code)
    sealer = SealProcess(tmp_path/'history.db')
    sealer._turn()
    assert sealer.problem == problem and problem in repr(sealer)
    assert warnings(caplog) == [f'sealing: {problem}']


def test_a_lasting_failure_is_said_once_and_one_that_comes_back_again(child, tmp_path, caplog):
    sealer = SealProcess(tmp_path/'history.db')
    for code in ['import sys; sys.exit("full")'] * 2 + [''] + ['import sys; sys.exit("full")']:
        child(code)
        sealer._turn()
        assert sealer.problem == ('full' if code else '')
    assert warnings(caplog) == ['sealing: full'] * 2


def test_what_the_child_did_is_in_the_log(child, tmp_path, caplog):
    child('import sys; print("sealed", sys.argv[1].rpartition("/")[2], sys.argv[2][0])')
    with caplog.at_level(logging.INFO, 'smartcloudops.process'): SealProcess(tmp_path/'history.db')._turn()
    assert [r.getMessage() for r in caplog.records] == ['sealed history.db {']


def test_a_child_that_hangs_is_killed(child, tmp_path, monkeypatch, caplog):
    child(SLEEPS)
    monkeypatch.setattr(process, 'SEAL_AT_MOST', .3)
    sealer = SealProcess(tmp_path/'history.db')
    sealer._turn()
    assert sealer.process.returncode == -9
    assert warnings(caplog) == [f'sealing: {sealer.problem}'] == ['sealing: took longer than 0.3 s']


def test_a_stop_ends_the_child_and_is_no_failure(child, tmp_path, caplog):
    child(SLEEPS)
    with SealProcess(tmp_path/'history.db', every=.01) as sealer:
        wait_for(lambda: sealer.process is not None, 10, .01)
        assert 'running' in repr(sealer)
        began = time.monotonic()
    assert time.monotonic() - began < 10 and sealer.process.returncode == -15
    assert not sealer._thread.is_alive() and 'not running' in repr(sealer)
    assert warnings(caplog) == []


def test_a_child_begun_while_the_stop_came_is_ended(child, tmp_path):
    child(SLEEPS)
    sealer = SealProcess(tmp_path/'history.db')
    sealer._stop.set()                       # after the look, before the start
    sealer._turn()
    assert sealer.process.returncode == -15


def test_after_a_failure_the_next_look_waits_longer(child, tmp_path, monkeypatch):
    monkeypatch.setattr(process, 'SEAL_AGAIN', 60)
    looks = []
    def look(path):
        looks.append(path)
        raise sqlite3.OperationalError('disk I/O error')
    monkeypatch.setattr(process, 'is_seal_due', look)
    with SealProcess(tmp_path/'history.db', every=.01) as sealer:
        wait_for(lambda: sealer.problem, 10, .01)
        time.sleep(.2)
        assert len(looks) == 1 and sealer._thread.is_alive() and 'disk I/O error' in sealer.problem


def test_looks_go_on_after_any_failure(child, tmp_path, monkeypatch):
    monkeypatch.setattr(process, 'SEAL_AGAIN', .01)
    answers = iter([ZeroDivisionError('unforeseen'), OSError('no process left'), False])
    def look(path):
        answer = next(answers, False)
        if isinstance(answer, Exception): raise answer
        return answer
    monkeypatch.setattr(process, 'is_seal_due', look)
    with SealProcess(tmp_path/'history.db', every=.01) as sealer:
        wait_for(lambda: next(answers, None) is None and not sealer.problem, 10, .01)
        assert sealer._thread.is_alive()
    assert sealer.process is None            # nothing was due


def test_a_real_child_says_why_it_cannot_seal_and_nothing_is_lost(tmp_path):
    path = tmp_path/'history.db'
    index = pd.date_range('2026-01-05', periods=12, freq='5min', tz='UTC', name='time')
    with use_clock(FakeClock('2026-01-05 01:00')), History(path) as history:
        history.append(pd.DataFrame({'load1{host="a"}': 1.}, index=index))
    in_the_way, sealer = tmp_path/'history', SealProcess(path)
    in_the_way.write_text('')
    sealer._turn()
    assert str(in_the_way) in sealer.problem
    with History(path, readonly=True) as history: assert history.info()['hot_samples'] == 12
    in_the_way.unlink()
    sealer._turn()
    assert sealer.problem == ''
    with History(path, readonly=True) as history:
        assert (history.info()['sealed_files'], history.info()['samples'], history.info()['hot_samples']) == (1, 12, 0)
