"The loop end to end: real processes, killed, starved and shared."
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pandas as pd
import psutil
import pytest

import smartcloudops.loop.fit
import smartcloudops.loop.tick
from smartcloudops.core.clock import FakeClock, clock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import AwsError, ConfigError, SourceError
from smartcloudops.core.frames import empty_frame
from smartcloudops.core.inventory import own_host
from smartcloudops.core.kv import last_heartbeat
from smartcloudops.core.settings import load_settings
from smartcloudops.ingestion import Source
from smartcloudops.main import DataDirLock, DetectorCheckpoint, Loop, WebProcess, check_port, run_pipeline
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.latest import freshness
from tests.conftest import free_port, soak, wait_for

pytestmark = pytest.mark.phase7
PROGRAM = [sys.executable, '-m', 'smartcloudops.cli']


def settings(tmp_path, **more):
    return load_settings('/dev/null', data_dir=tmp_path/'data', **{'source': 'synthetic', **more})


def get(port: int, path: str, accept: str = 'application/json'):
    with urllib.request.urlopen(
        urllib.request.Request(f'http://127.0.0.1:{port}{path}', headers={'Accept': accept}), timeout=5
    ) as r:
        return r.read().decode()


def answers(port: int, path: str = '/health'):
    def probe():
        try: return get(port, path)
        except OSError: return None
    return probe


@pytest.fixture
def program(tmp_path):
    "Starts `smartcloudops run …` in a folder of its own and stops it at the end."
    children = []
    def start(*options, **env):
        child = subprocess.Popen(
            [*PROGRAM, 'run', '--data-dir', str(tmp_path / 'data'), *options],
            cwd=tmp_path,
            env={**os.environ, **env},
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / 'log').open('a'),
        )
        children.append(child)
        return child
    yield start
    for child in children:
        if child.poll() is None: child.send_signal(signal.SIGTERM)
        try: child.wait(20)
        except subprocess.TimeoutExpired: child.kill()


def test_this_host_is_on_the_page_within_five_seconds_of_its_start(program, tmp_path):
    port = free_port()
    program('--port', str(port), '--interval', '1')
    wait_for(answers(port))
    began = time.monotonic()
    state = wait_for(lambda: json.loads(get(port, '/')) if json.loads(get(port, '/'))['metrics'] else None, 5)
    assert time.monotonic() - began < 5
    with History(tmp_path/'data'/'history.db', readonly=True) as history:
        latest = history.latest().set_index('series')['value']
    host = own_host()
    assert abs(latest[f'memory_used_percent{{host="{host}"}}'] - psutil.virtual_memory().percent) < 10
    assert abs(latest[f'disk_used_percent{{host="{host}",mount="/"}}'] - psutil.disk_usage('/').percent) < 5
    assert 0 <= latest[f'cpu_utilization_percent{{host="{host}"}}'] <= 100
    assert any(name.startswith('network_receive_bytes_total') for name in latest.index)
    assert {'metrics', 'anomaly'} <= set(state)


def test_a_child_that_dies_comes_back_and_a_stop_is_clean(program, tmp_path):
    port = free_port()
    loop = program('--port', str(port), '--interval', '1')
    wait_for(answers(port))
    killed = {child.pid for child in psutil.Process(loop.pid).children()}
    for child in psutil.Process(loop.pid).children(): child.kill()
    wait_for(lambda: [c for c in psutil.Process(loop.pid).children() if c.pid not in killed], 30)
    wait_for(answers(port), 30)
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(20) == 0
    assert answers(port)() is None
    assert list((tmp_path/'data'/'learned').glob('stream-host-*.npz'))


def test_loop_and_page_stay_small(program):
    port = free_port()
    loop = program('--port', str(port), '--interval', '1')
    wait_for(answers(port))
    time.sleep(5)
    family = [psutil.Process(loop.pid), *psutil.Process(loop.pid).children(recursive=True)]
    megabytes = sum(p.memory_full_info().pss for p in family) / 2**20      # memory that both share counts once
    assert megabytes <= 400, f'{megabytes:.0f} MB in {len(family)} processes'


def test_kill_9_at_any_moment_loses_nothing_stored(program, tmp_path):
    data, rows = tmp_path/'data', 0
    rng = np.random.default_rng(7)
    for n in range(soak(3, 20)):
        loop = program('--no-dashboard', '--interval', '0.2')
        count = lambda: _count(data) if (data/'history.db').exists() else 0
        wait_for(lambda count=count, rows=rows: count() > rows, 40)
        if n:
            wait_for(
                lambda: list((data / 'learned').glob('*.npz')), 40
            )  # the first kill may come before anything was learned
        time.sleep(float(rng.uniform(0, .6)))
        before = count()
        loop.kill(); loop.wait()
        after = count()
        assert after >= before, 'acknowledged samples are gone'
        with sqlite3.connect(data/'history.db') as db: assert db.execute('pragma integrity_check').fetchone() == ('ok',)
        rows = after
    detector, watermark = DetectorCheckpoint(data, 'host').load()
    assert watermark is not None, 'the learned state did not survive'


def _count(data) -> int:
    with History(data/'history.db', readonly=True) as history: return int(history.info()['samples'])


def test_what_was_learned_goes_on_after_a_kill(tmp_path):
    "A run cut by a kill gives the same scores as one that was never cut."
    def scores(cut):
        folder = tmp_path/str(cut)
        with use_clock(FakeClock('2026-01-05 00:00')):
            loop = Loop(settings(folder))
            for n in range(60):
                if n == cut:                        # killed: nothing is saved or closed
                    loop.history.close(); loop.engine.dispose()
                    loop = Loop(settings(folder))
                loop.tick(); clock().advance(60)
            loop.close()
        with History(folder/'data'/'history.db', readonly=True) as history:
            name = sorted(history.series())[0]
            return history.read_scores(name)
    whole, cut = scores(None), scores(30)
    common = whole.index.intersection(cut.index)
    assert len(common) >= 59
    pd.testing.assert_frame_equal(whole.loc[common, ['score', 'expected']], cut.loc[common, ['score', 'expected']])


def test_what_began_right_before_a_kill_is_told_as_if_there_had_been_none(tmp_path):
    "Memory jumps, and the loop is killed before it has saved what it saw of that: perhaps for want of memory."
    def told(folder, killed):
        level, opened = np.random.default_rng(1).normal(40, 2, 340), []
        level[301:] += 30
        source = Flaky()
        source.read = lambda now: pd.DataFrame(
            {'memory_used_percent{host="a"}': [level[n]]}, index=pd.DatetimeIndex([now], name='time')
        )
        with use_clock(FakeClock('2026-01-05 00:00')):
            loop = Loop(own := settings(folder, detection=dict(joint=False)), source)
            for n in range(340):
                opened += [(n, i.title) for i in loop.tick().opened]
                clock().advance(60)
                if n == killed: loop = Loop(own, source)
            loop.close()
        return opened
    [(at, title)] = told(tmp_path/'whole', None)
    assert told(tmp_path/'killed', 304) == [(at, title)] and at > 304


def test_a_new_detector_learns_from_the_stored_past(tmp_path):
    """As after `ingest --since 14d`, or when what was learned is of another version; not from what another source
    stored."""
    from smartcloudops.detection import StreamDetector
    from smartcloudops.ingestion import SyntheticSource, synthetic_frame
    frame = synthetic_frame(2, '2026-01-05', 30, 60)
    with History(tmp_path/'history.db') as history: history.append(frame)
    expected = StreamDetector()
    expected.score(frame[sorted(frame)])
    settings = load_settings('/dev/null', data_dir=tmp_path, source='synthetic')
    with use_clock(FakeClock(str(frame.index[-1] + pd.Timedelta('1min')))):
        def started():
            loop = Loop(settings, SyntheticSource(hosts=2, interval=60))
            known = {name: loop.models.detector.state[row].tobytes() for name, row in loop.models.detector.rows.items()}
            return loop, known == {name: expected.state[row].tobytes() for name, row in expected.rows.items()}
        loop, same = started()
        assert (
            same and loop.models.watermark == frame.index[-1] and len(loop.history.read_scores(frame.columns[0])) > 1400
        )
        clock().advance(60)
        assert loop.tick().rows >= 1 and loop.models.detector.state['n'].min() > 1800
        loop.close()
        for file in (tmp_path/'learned').iterdir(): file.write_bytes(b'of another version')
        assert Loop(settings, SyntheticSource(hosts=2, interval=60)).models.detector.state['n'].min() > 1800
        (tmp_path/'learned'/'stream-host-1.npz').write_bytes(b'')
        assert not Loop(settings, SyntheticSource(hosts=2, interval=60)).models.detector.rows


def test_a_second_process_reads_while_the_loop_writes(program, tmp_path):
    program('--no-dashboard', '--interval', '0.2')
    wait_for((tmp_path/'data'/'history.db').exists)
    wait_for(lambda: _count(tmp_path/'data') > 0)
    code = f"""
import time
from smartcloudops.monitoring.history import History
seen = []
for _ in range(15):
    with History({str(tmp_path/'data'/'history.db')!r}, readonly=True) as h:
        seen.append(len(h.read(metric='cpu_utilization_percent')))
    time.sleep(.2)
assert seen == sorted(seen) and seen[-1] > seen[0], seen
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_loops_on_one_folder_are_refused(tmp_path):
    with DataDirLock(tmp_path):
        with pytest.raises(ConfigError, match=f'another loop is running.*{os.getpid()}'):
            DataDirLock(tmp_path).__enter__()
    with DataDirLock(tmp_path): pass


def test_a_port_in_use_is_said_before_anything_starts(tmp_path):
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        port = s.getsockname()[1]
        with pytest.raises(ConfigError, match=f'port {port}.*--port'): check_port('127.0.0.1', port)
        done = subprocess.run([*PROGRAM, 'run', '--port', str(port)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and f'port {port}' in done.stderr and 'Traceback' not in done.stderr


class Flaky(Source):
    "A source that fails in the middle."
    name, interval, done, calls, error = 'synthetic', 60, False, 0, SourceError
    def read(self, now):
        self.calls += 1
        if 3 <= self.calls <= 5: raise self.error('10.0.0.9 does not answer')
        return pd.DataFrame(
            {'cpu_utilization_percent{host="a"}': [10.0 + self.calls]}, index=pd.DatetimeIndex([now], name='time')
        )
    def close(self): pass


@pytest.mark.parametrize('error', (SourceError, AwsError, ConfigError))
def test_a_source_that_fails_is_said_once_and_survived(tmp_path, monkeypatch, error):
    "Whatever its reason: the network, what AWS says, a targets file that was just spoiled."
    said = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(smartcloudops.loop.tick.log, level, lambda text, *values: said.append(text % values))
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path), source := Flaky())
        source.error = error
        for _ in range(8):
            loop.tick()
            assert last_heartbeat(loop.engine, 'loop').at == clock().now()
            clock().advance(60)
        assert last_heartbeat(loop.engine, 'loop').detail['problem'] == ''
        rows = len(loop.history.read())
        loop.close()
    assert rows == 5
    assert sum('does not answer' in text for text in said) == 1
    assert sum('answers again' in text for text in said) == 1


def test_late_rows_are_stored_and_not_scored_again(tmp_path):
    class Late(Flaky):
        def read(self, now):
            self.calls += 1
            at = now if self.calls != 5 else now - pd.Timedelta('150s')
            return pd.DataFrame(
                {'cpu_utilization_percent{host="a"}': [10.0 + self.calls]}, index=pd.DatetimeIndex([at], name='time')
            )
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path), Late())
        ticks = []
        for _ in range(6): ticks.append(loop.tick()); clock().advance(60)
        assert [t.rewritten for t in ticks] == [0, 0, 0, 0, 1, 0]
        assert len(loop.history.read()) == 6
        assert len(loop.history.read_scores('cpu_utilization_percent{host="a"}')) == 5
        assert loop.history.rewritten().time.tolist() == [ticks[4].at - pd.Timedelta('150s')]
        loop.close()


def test_a_long_sleep_is_caught_up_in_one_tick(tmp_path):
    "The machine slept for an hour inside a wait: the missed ticks are skipped, not made up."
    class Sleepy(FakeClock):
        waits = 0
        def wait(self, seconds, stop=None):
            self.waits += 1
            return super().wait(seconds + (3600 if self.waits == 3 else 0), stop)
    with use_clock(Sleepy('2026-01-05 00:00')) as sleepy:
        source = Flaky(); source.read = lambda now: empty_frame()
        loop = Loop(settings(tmp_path), source)
        assert loop.run(ticks=10) == 10
        assert sleepy.monotonic() < 3600 + 11 * 60
        loop.close()


def test_a_tick_that_fails_does_not_end_the_loop(tmp_path, monkeypatch):
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path))
        calls = []
        def full_disk(*what):
            calls.append(1)
            if len(calls) == 2: raise OSError(28, 'No space left on device')
            return 0
        monkeypatch.setattr(loop.history, 'append', full_disk)
        assert loop.run(ticks=4) == 4
        loop.close()
    assert len(calls) == 4


def test_a_history_that_cannot_be_written_does_not_blind_the_detector(tmp_path, monkeypatch):
    """The disk fills up: what comes is judged, an incident opens all the same, what was stored stays, and the page is
    told."""
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path), source := Flaky())
        source.read = lambda now: pd.DataFrame(
            {'memory_used_percent{host="a"}': [99.0 if len(ticks) >= 100 else 40.0 + len(ticks) % 3]},
            index=pd.DatetimeIndex([now], name='time'),
        )
        ticks = []
        for _ in range(90): ticks.append(loop.tick()); clock().advance(60)
        stored = len(loop.history.read())
        with loop.history.file.reading() as db: pages = db.execute('pragma page_count').fetchone()[0]
        loop.history.file.connection().execute(f'pragma max_page_count={pages}')
        for _ in range(90): ticks.append(loop.tick()); clock().advance(60)
        assert any(t.opened for t in ticks[90:])
        assert (
            'the disk is full' in ticks[-1].problem
            and 'the disk is full' in last_heartbeat(loop.engine, 'loop').detail['problem']
        )
        loop.history.file.connection().execute('pragma max_page_count=1000000')
        assert loop.tick().problem == '' and len(loop.history.read()) > stored
        loop.close()


@pytest.mark.parametrize('company', [True, False])
def test_what_was_taken_down_is_wrong_no_longer(tmp_path, company):
    """A host leaves while its memory is where it should not be, alone or among others: its incident closes after a day,
    and no other opens."""
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop, memory = (
            Loop(settings(tmp_path, detection=dict(joint=False)), source := Flaky()),
            'memory_used_percent{{host="{}"}}'.format,
        )
        def rows(now, n):
            values = {memory('a'): 40. + n % 3 + 30 * (n >= 100)} if n < 130 else {}
            return pd.DataFrame(
                values | ({memory('b'): 40.0 + n % 3} if company else {}),
                index=pd.DatetimeIndex([now] * bool(values or company), name='time', tz='UTC'),
            )
        ticks = []
        for n in range(180):
            source.read = lambda now, n=n: rows(now, n)
            ticks.append(loop.tick()); clock().advance(300 if n < 130 else 3600)
        opened, closed = {i.id for t in ticks for i in t.opened}, {i.id for t in ticks for i in t.closed}
        assert len(opened) == 1 and closed == opened and loop.open_incidents == () and not loop.models.stretches.all()
        loop.close()


def test_what_was_learned_and_cannot_be_written_is_said_and_ends_nothing(tmp_path):
    "The page hears of it instead of taking the loop for silent, and a stop still lets go of everything."
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop, folder = Loop(settings(tmp_path)), tmp_path/'data'/'learned'
        folder.write_text('in the way')
        for _ in range(3): tick = loop.tick(); clock().advance(60)
        assert 'learned' in tick.problem and last_heartbeat(loop.engine, 'loop').at == tick.at
        folder.unlink()
        assert loop.tick().problem == '' and loop.parts.checkpoint.files()
        for file in folder.iterdir(): file.unlink()
        folder.rmdir(); folder.write_text('in the way again')
        loop.close()
        assert loop.closed


def test_only_a_host_that_is_heard_gets_a_new_joint_model(tmp_path, monkeypatch):
    "Hosts that were taken down would be tried every hour, and those that are there would never have their turn."
    fitted = []
    class Fit:
        returncode = 0
        def __init__(self, command): fitted.append(command[4])
        def poll(self): return 0
        def wait(self): pass
    monkeypatch.setattr(smartcloudops.loop.fit.subprocess, 'Popen', Fit)
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path), source := Flaky())
        for n in range(20):
            source.read = lambda now, n=n: pd.DataFrame(
                {f'load1{{host="{h}"}}': [1.0] for h in ('abcde' if n < 5 else 'e')},
                index=pd.DatetimeIndex([now], name='time'),
            )
            loop.tick(); clock().advance(3600)
        loop.close()
    assert set(fitted[:5]) == set('abcde') and fitted[5:] == ['e'] * 15


def test_a_history_that_was_moved_away_leaves_what_was_learned(tmp_path):
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path))
        for _ in range(5): loop.tick(); clock().advance(60)
        loop.close()
        for file in tmp_path.rglob('history.db*'): file.unlink()
        again = Loop(settings(tmp_path))
        assert again.models.detector.rows and again.tick().samples
        again.close()


def test_a_replay_ends_nothing_that_goes_on_live(tmp_path):
    "By its own time an open incident was over, months before it began; people were told so, and then paged again."
    frame = pd.DataFrame(
        {'cpu_utilization_percent{host="web-1"}': [97.0]},
        index=pd.DatetimeIndex(['2026-03-02T12:00Z'], name='time').as_unit('us'),
    )
    path = tmp_path/'january.csv'
    path.write_text('timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:05:00Z,1\n')
    replay = lambda: Loop(settings(tmp_path, source=f'replay:{path}'))
    class Steady(Source):
        name, interval = 'host', 60.
        def read(self, now): return frame.set_axis(pd.DatetimeIndex([now], name='time').as_unit('us'))
        def close(self): pass
    with use_clock(FakeClock('2026-03-02T12:00:00Z')) as time:
        loop = Loop(settings(tmp_path), Steady())
        for _ in range(5): loop.tick(); time.advance(60)
        assert len(loop.open_incidents) == 1
        loop.close()
        with pytest.raises(ConfigError, match='incidents or actions of source host are open here'): replay()
        frame[:] = 20.
        loop = Loop(settings(tmp_path), Steady())
        for _ in range(5): loop.tick(); time.advance(60)
        assert not loop.open_incidents
        loop.close()
        for _ in range(2):                      # now nothing goes on, and a replay may follow another
            loop = replay()
            loop.tick()
            loop.close()


@pytest.mark.parametrize('replaced', [False, True], ids=['moved', 'replaced'])
def test_a_loop_whose_folder_was_taken_away_ends(program, tmp_path, replaced):
    "It went on in files that nobody would find again, called itself well, and heard no silence and no denial any more."
    child, data = program('--no-dashboard', '--interval', '.5'), tmp_path/'data'
    wait_for(lambda: list(data.glob('learned/*.npz')))
    data.rename(tmp_path/'elsewhere')
    if replaced:
        data.mkdir()
        open_state(data/'smartcloudops.db').dispose()
    assert child.wait(30) == 1
    assert 'smartcloudops.db: was moved, removed or replaced' in (tmp_path/'log').read_text()


def test_days_replayed_at_once_open_and_close_in_their_own_time(tmp_path):
    times = pd.date_range('2026-03-01', periods=900, freq='5min', tz='UTC')
    rng = np.random.default_rng(0)
    values = 30 + rng.normal(0, 2, 900); values[600:630] = 98
    path = tmp_path/'cpu.csv'
    pd.DataFrame({'time': times, 'host': 'web-1', 'metric': 'cpu_utilization_percent', 'value': values}).to_csv(
        path, index=False
    )
    loop = Loop(settings(tmp_path, source=f'replay:{path}'))
    tick = loop.tick()
    loop.close()
    opened = [i for i in tick.opened if 'cpu' in i.title]
    assert opened and abs((opened[0].opened - times[600]).total_seconds()) < 1800
    assert any(i.id == opened[0].id and i.closed < times[700] for i in tick.closed)


# ---- clocks that are set

FAULT = dict(
    kind='level_shift', host='web-2', metric='cpu_utilization_percent', at='2026-01-05T01:00:00Z', minutes=30, size=70
)

def ticked(loop, minutes):
    "So many ticks a minute apart."
    ticks = []
    for _ in range(minutes): ticks.append(loop.tick()); clock().advance(60)
    return ticks


@pytest.mark.parametrize(
    'ahead, restarted',
    soak(
        [('5min', True), ('400D', False)],
        [(ahead, restarted) for ahead in ('5min', '3h', '1D', '400D') for restarted in (False, True)],
    ),
)
def test_a_clock_that_is_put_back_silences_nothing(tmp_path, ahead, restarted, caplog):
    "Some minutes under a wrong time; then the true one, and a fault that has to be seen, told and over."
    own = settings(tmp_path, synthetic=dict(faults=[FAULT]))
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(own)
        ticked(loop, 20)
        before = loop.history.read()
        clock().advance(60); clock().set(clock().now() + pd.Timedelta(ahead))
        ticked(loop, 10)
        if restarted: loop.close()
        clock().set(pd.Timestamp('2026-01-05 00:31', tz='UTC'))
        if restarted: loop = Loop(own)
        ticks = ticked(loop, 100)
        assert sum('put back' in r.message for r in caplog.records) == 1
        assert [t.rows for t in ticks] == [1] * 100 and not any(t.rewritten for t in ticks[1:])
        opened, closed = [i for t in ticks for i in t.opened], [i for t in ticks for i in t.closed]
        told = [i for i in opened if 'web-2: cpu' in i.title]
        assert (
            len(told) == 1
            and abs((told[0].opened - pd.Timestamp(FAULT['at'])).total_seconds()) < 900
            and any(i.id == told[0].id for i in closed)
        )
        fresh = freshness(loop.history, clock().now())
        assert not fresh.late.any() and (fresh.last == ticks[-1].at).all() and loop.history.last_time() == ticks[-1].at
        pd.testing.assert_frame_equal(
            loop.history.read(end=before.index[-1]), before, check_freq=False
        )  # nothing stored is lost
        loop.close()
        assert [
            f
            for f in loop.parts.checkpoint.files()
            if pd.Timestamp(int(f.stem.rpartition('-')[2]), unit='us', tz='UTC') > clock().now()
        ] == []


def test_a_machine_that_starts_in_1970_goes_on_when_it_knows_the_time(tmp_path):
    own = settings(tmp_path, synthetic=dict(faults=[FAULT]))
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(own); ticked(loop, 30); before = loop.history.read(); loop.close()
        clock().set(pd.Timestamp('1970-01-02', tz='UTC'))
        loop = Loop(own)
        assert [t.rows for t in ticked(loop, 5)] == [1] * 5
        clock().set(pd.Timestamp('2026-01-05 00:40', tz='UTC'))
        ticks = ticked(loop, 60)
        assert all(t.rows for t in ticks) and [i.title for t in ticks for i in t.opened if 'web-2: cpu' in i.title]
        stored = loop.history.read(end=before.index[-1])
        assert before.index.isin(stored.index).all() and stored.index[0].year == 1970
        loop.close()


@pytest.mark.parametrize('days', [20, 400])
def test_a_clock_far_ahead_throws_nothing_away(tmp_path, days):
    "Retention goes by the clock; a clock that leapt by months is not believed at once, one that stays is."
    own = settings(tmp_path, history=dict(retention_days=30))
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(own); ticked(loop, 10); before = loop.history.read()
        clock().set(clock().now() + pd.Timedelta(days=days))
        ticked(loop, 20)
        loop.close()
        loop = Loop(own); ticked(loop, 10); loop.close()
        with History(own.history_path, readonly=True) as history: assert before.index.isin(history.read().index).all()
        loop = Loop(own)
        clock().advance(90_000)                                    # a day later it still says so
        ticked(loop, 2); clock().advance(90_000); ticked(loop, 2); loop.close()
        with History(own.history_path, readonly=True) as history:
            assert before.index.isin(history.read().index).all() == (days == 20)


class Scaling(Source):
    "A fleet of one steady host and some that live for a day, as in a group that scales."
    name, interval, done = 'scaling', 10800., False
    def read(self, at):
        hosts = ['steady', *(f'day-{at:%m%d}-{n}' for n in range(3))]
        row = {
            f'{metric}{{host="{host}"}}': 40.0 + 9 * np.sin(at.timestamp() / 3e4 + i) + len(host)
            for host in hosts
            for i, metric in enumerate(('cpu_utilization_percent', 'memory_used_percent'))
        }
        row |= {f'http_requests_total{{host="{host}"}}': at.timestamp() % 86400 for host in hosts}
        return pd.DataFrame([row], index=pd.DatetimeIndex([at], name='time'))
    def close(self): pass


def test_hosts_that_are_gone_are_forgotten(tmp_path):
    """Weeks of new names every day: what is kept stays small; the steady host's state is that of one who was always
    alone."""
    from smartcloudops.core.frames import Rates
    from smartcloudops.detection import StreamDetector
    source, alone, rates, sizes = Scaling(), StreamDetector(), Rates(), []
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path, detection=dict(joint=False)), source)
        (tmp_path/'data/joint').mkdir()
        (tmp_path/'data/joint/day-0106-1.v000001.npz').write_bytes(b'')
        (tmp_path/'data/joint/steady.v000001.npz').write_bytes(b'')
        for _ in range(8 * 20):
            loop.tick()
            row = source.read(clock().now())
            alone.score(rates.update(row[[c for c in row if '"steady"' in c]]))
            sizes.append(len(loop.models.detector.rows))
            clock().advance(10800)
        assert (
            max(sizes) <= 3 * (1 + 3 * 10)
            and len(loop.models.rates.known()) <= 1 + 3 * 10
            and all(len(records) <= 3 * (1 + 3 * 10) for records in loop.models.rules.state.values())
        )
        assert (
            len(loop.models.fleet.hosts) <= 1 + 3 * 10
            and set(loop.models.host_scores.highest) <= loop.models.fleet.hosts
            and 'steady' in loop.models.host_scores.highest
        )
        assert [f.name for f in (tmp_path/'data/joint').iterdir()] == ['steady.v000001.npz']
        for name, row in alone.rows.items():
            if alone.state['n'][row]:
                assert (
                    loop.models.detector.state[loop.models.detector.rows[name]].tobytes() == alone.state[row].tobytes()
                ), name
        loop.close()
        again = Loop(settings(tmp_path, detection=dict(joint=False)), source)
        assert set(again.models.detector.rows) == set(loop.models.detector.rows)
        again.close()


@pytest.mark.parametrize('knows', ['taken away', 'still there', 'no answer'])
def test_a_host_that_was_taken_away_is_no_incident(tmp_path, knows, caplog):
    class Inventory(Scaling):
        interval, asked = 60., []
        def read(self, at):
            frame = super().read(at)
            return (
                frame[[c for c in frame if '-2"' not in c]]
                if at >= pd.Timestamp('2026-01-05 01:00', tz='UTC')
                else frame
            )
        def terminated_hosts(self, hosts):
            self.asked.append(set(hosts))
            if knows == 'no answer': raise SourceError('the inventory is away')
            return set(hosts) if knows == 'taken away' else set()
    source = Inventory()
    with use_clock(FakeClock('2026-01-05 00:00')):
        loop = Loop(settings(tmp_path), source)
        opened = [i for t in ticked(loop, 100) for i in t.opened]
        loop.close()
    assert [i.host for i in opened] == ([] if knows == 'taken away' else ['day-0105-2'])
    assert source.asked[0] == {'day-0105-2'} and (len(source.asked) == 1) == (knows == 'taken away')
    assert sum('the inventory is away' in r.message for r in caplog.records) == (knows == 'no answer')


def test_only_its_own_states_are_a_source_s(tmp_path):
    "Neither those of a source whose name goes on, nor what somebody laid beside them."
    from smartcloudops.detection import StreamDetector
    at = pd.Timestamp('2026-01-05', tz='UTC')
    detector = StreamDetector(); detector.update(at, pd.Series({'load1{host="a"}': 1.}))
    DetectorCheckpoint(tmp_path, 'replay:cpu-2').save(detector, at)
    (tmp_path/'learned/stream-replay-cpu-backup.npz').write_bytes(b'')
    assert (
        DetectorCheckpoint(tmp_path, 'replay:cpu').files() == []
        and DetectorCheckpoint(tmp_path, 'replay:cpu').load()[1] is None
        and len(DetectorCheckpoint(tmp_path, 'replay:cpu-2').files()) == 1
    )


def test_the_page_is_restarted(tmp_path):
    with WebProcess([sys.executable, '-c', 'import time; time.sleep(60)']) as page:
        first = page.process.pid
        page.process.kill()
        wait_for(lambda: page.process.pid != first and page.process.poll() is None, 10)


def test_a_page_that_cannot_be_started_is_tried_again_and_none_is_left_behind(tmp_path):
    script = tmp_path/'page.sh'
    script.write_text('#!/bin/sh\nexec sleep 60\n'); script.chmod(0o755)
    with WebProcess([str(script)]) as page:
        first = page.process.pid
        script.rename(tmp_path/'away')
        page.process.kill()
        wait_for(lambda: page.restarts == 1, 10)
        (tmp_path/'away').rename(script)
        wait_for(lambda: page.process.pid != first and page.process.poll() is None, 20)
    assert page.process.poll() is not None and not page._watcher.is_alive()


def test_the_pipeline_in_one_call(tmp_path):
    result = run_pipeline(tmp_path/'metrics.json')
    assert list(result) == ['written_metrics', 'latest_metrics', 'anomaly', 'remediation_action', 'remediation_s3_key']
    assert result['written_metrics'] == result['latest_metrics'] == json.loads((tmp_path/'metrics.json').read_text())
    assert (result['anomaly'], result['remediation_action'], result['remediation_s3_key']) == (False, None, None)
    done = subprocess.run([sys.executable, '-m', 'smartcloudops.main'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)['anomaly'] is False


def test_the_pipeline_answers_an_anomaly(tmp_path, monkeypatch):
    import smartcloudops.ingestion.registry as sources
    snapshot = sources._snapshot
    monkeypatch.setattr(sources, '_snapshot', lambda *a, **k: {**snapshot(*a, **k), 'cpu': 97.})
    class Bucket:
        put = []
        def put_object(self, **what): self.put.append(what)
    result = run_pipeline(tmp_path/'metrics.json', Bucket(), 'audit')
    assert result['anomaly'] and result['remediation_action'].startswith('Action taken for high cpu')
    assert [w['Key'].split('/')[0] for w in Bucket.put] == ['anomalies', 'remediations']
    assert result['remediation_s3_key'] == Bucket.put[1]['Key']


@pytest.mark.skipif(not os.environ.get('SOAK'), reason='four minutes of real load and ten of idleness: make soak')
def test_a_busy_process_a_core_is_an_incident_that_closes_again(program, tmp_path):
    from smartcloudops.detection.incidents import list_incidents
    program('--no-dashboard')
    wait_for(lambda: (tmp_path/'data'/'history.db').exists() and _count(tmp_path/'data') > 0)
    engine = open_state(tmp_path/'data'/'smartcloudops.db')
    time.sleep(600)
    assert list_incidents(engine) == [], 'an incident on an idle machine'
    hogs = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(os.cpu_count())]
    try:
        found = wait_for(
            lambda: [i for i in list_incidents(engine, state='open') if 'cpu' in i.title and own_host() in i.title], 60
        )
    finally:
        for hog in hogs: hog.kill(); hog.wait()
    assert found
    wait_for(lambda: not list_incidents(engine, state='open'), 120)
