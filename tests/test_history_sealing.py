"""Sealing, merging and retention: whatever the moment of a kill, each sample is there once; the writer does not wait;
readers see both tiers as one."""
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings as hypothesis_settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.errors import DataError, HistoryError
from smartcloudops.core.settings import HistorySettings
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.history_reader import HistoryReader
from smartcloudops.monitoring.sealing import Sealer, compact, hot_rows, seal, sealing_alone
from smartcloudops.monitoring.transfer import export_history, import_history
from tests.conftest import soak
from tests.test_history import NAMES, frame, same

pytestmark = pytest.mark.phase2
T0 = pd.Timestamp('2026-03-02', tz='UTC')
H = pd.Timedelta('1h')


def filled(path, hours=30, every='5min', **kw):
    h = History(path, **kw)
    data = frame(int(pd.Timedelta(hours=hours) / pd.Timedelta(every)), every=every)
    h.append(data, arrived=T0 + hours * H)
    return h, data


def test_a_day_and_windows_are_sealed_and_read_as_one(tmp_path):
    h, data = filled(tmp_path/'history.db')
    done = seal(h, T0 + 30.5 * H)
    assert [(r.end - r.start) / H for r in done] == [24, 2, 2, 2]
    same(h.read(), data)
    assert h.info()['hot_samples'] == 0 and h.info()['samples'] == int(data.notna().sum().sum())
    same(h.read(NAMES[2], start=T0 + 23 * H, end=T0 + 25 * H), data.loc[T0 + 23 * H:T0 + 25 * H, [NAMES[2]]])
    same(h.read(host='web-1', start=T0 + 29 * H), data.loc[T0 + 29 * H:, [NAMES[1], NAMES[4]]])
    assert list(h.read([NAMES[3], 'no{host="x"}']).columns) == [NAMES[3], 'no{host="x"}']
    assert seal(h, T0 + 31 * H) == []
    h.append(frame(3, start=T0 + 31 * H))
    merged = seal(h, T0 + 50 * H)
    same(h.read(start=T0 + 31 * H), frame(3, start=T0 + 31 * H)); same(h.read(end=T0 + 30.9 * H), data)
    assert [(r.end - r.start) / H for r in merged] == [24] and h.info()['sealed_files'] == 2
    h.close()


def test_what_is_open_or_has_not_settled_stays_hot(tmp_path):
    h, data = filled(tmp_path/'history.db', hours=5)
    assert [r.start for r in seal(h, T0 + 5.1 * H)] == []             # written to five minutes ago
    assert [r.start for r in seal(h, T0 + 5.5 * H)] == [T0, T0 + 2 * H]
    assert h.info()['hot_samples'] == int(data.loc[T0 + 4 * H:].notna().sum().sum())
    h.close()


def test_marks_of_what_was_rewritten_outlive_sealing_and_compaction(tmp_path):
    h, data = filled(tmp_path/'history.db')
    seal(h, T0 + 30.5 * H)
    h.append(data.iloc[40:42].fillna(1.) + 5, arrived=T0 + 31 * H)
    there = lambda: set(h.rewritten(NAMES[0]).time)
    before = there()
    assert before == {t for t in data.index[40:42] if data.loc[t, NAMES[0]] == data.loc[t, NAMES[0]]}
    seal(h, T0 + 50 * H); compact(h, T0 + 50 * H)
    assert there() == before and h.info()['hot_samples'] == 0
    h.close()


def test_late_samples_and_corrections_reach_sealed_hours(tmp_path):
    h, data = filled(tmp_path/'history.db')
    seal(h, T0 + 30.5 * H)
    late = frame(20, NAMES[:3], start=T0 + 3 * H, every='7min', seed=5, missing=0)
    h.append(late, arrived=T0 + 31 * H)
    expected = late.combine_first(data)
    same(h.read(), expected)
    seal(h, T0 + 31.5 * H)
    same(h.read(), expected)
    assert h.info()['hot_samples'] == 0 and h.info()['sealed_files'] == 4
    h.close()


def test_a_sample_that_arrives_during_the_seal_is_kept(tmp_path, monkeypatch):
    import smartcloudops.monitoring.sealing as module
    h, data = filled(tmp_path/'history.db', hours=4)
    loop, original = History(tmp_path/'history.db'), module._switch
    late, files = [frame(1, NAMES[:2], start=T0 + H, seed=9 + n, missing=0) for n in range(2)], []
    def interrupted(*a):
        if a[4] == T0.value // 1000 and late:
            loop.append(late[0], arrived=T0 + 4.2 * H); expected.append(late.pop(0).combine_first(expected[-1]))
        files.append(a[1].file)
        return original(*a)
    expected = [data]
    monkeypatch.setattr(module, '_switch', interrupted)
    done = seal(h, T0 + 4.5 * H)
    monkeypatch.undo()
    # what was written to waits, its files are gone
    assert [r.start for r in done] == [T0 + 2 * H] and len(files) == 3
    assert {f.name for f in h.folder.glob('*.parquet')} == {done[0].file}
    same(h.read(), expected[-1])
    assert [r.start for r in seal(h, T0 + 5 * H)] == [T0] and h.info()['hot_samples'] == 0
    same(h.read(), expected[-1])
    same(loop.read(), expected[-1])
    h.close(); loop.close()


def test_replaced_files_stay_ten_minutes_and_strays_go(tmp_path):
    h, data = filled(tmp_path/'history.db', hours=26)
    code = ("import os, sys\nimport pandas as pd\nfrom smartcloudops.monitoring import sealing as m\nm._switch = "
            "lambda *_: os.kill(os.getpid(), 9)\n"
            "m.seal(m.History(sys.argv[1]), pd.Timestamp(sys.argv[2]))")
    assert subprocess.run([sys.executable, '-c', code, h.path, str(T0 + 20 * H)]).returncode == -signal.SIGKILL
    stray, = h.folder.glob('*.parquet')
    seal(h, T0 + 20.5 * H)
    assert not stray.exists()
    names, unfinished = {f.name for f in h.folder.glob('*.parquet')}, h.folder/'.x.parquet.tmp'
    unfinished.write_bytes(b'x')
    seal(h, T0 + 26.5 * H)
    assert names and names <= {f.name for f in h.folder.glob('*.parquet')} and not unfinished.exists()
    seal(h, T0 + 26.7 * H)
    assert not names & {f.name for f in h.folder.glob('*.parquet')}
    same(h.read(), data)
    h.close()


def test_the_sealed_files_of_a_history_that_was_moved_away_stay(tmp_path):
    "What we say of a damaged history.db is followed: it is moved away, and the files beside it are read from there."
    h, data = filled(tmp_path/'history.db', hours=24)
    seal(h, T0 + 25 * H)
    h.close()
    file, = h.folder.glob('*.parquet')
    os.utime(file, (1, 1))
    (tmp_path/'history.db').rename(tmp_path/'damaged')
    with History(tmp_path/'history.db') as new:
        new.append(frame(60, start=T0 + 25 * H))
        assert seal(new, T0 + 30 * H)
        import_history(new, file)
        same(new.read(end=data.index[-1]), data)


def test_a_reader_that_was_slow_looks_again_and_a_lost_file_is_named(tmp_path, monkeypatch):
    h, data = filled(tmp_path/'history.db', hours=4)
    seal(h, T0 + 4.5 * H)
    r, snapshot, calls = History(tmp_path/'history.db', readonly=True), HistoryReader._snapshot, []
    def stale(self, *a):
        seen = snapshot(self, *a)
        calls.append(1)
        return replace(seen, files=['gone.parquet']) if len(calls) == 1 else seen
    monkeypatch.setattr(HistoryReader, '_snapshot', stale)
    same(r.read(), data)
    monkeypatch.undo()
    file = next(h.folder.glob('*.parquet'))
    file.rename(tmp_path/'elsewhere')
    with pytest.raises(HistoryError, match=file.name): r.read()
    compact(h, T0 + 5 * H)
    same(h.read(), data.loc[:T0 + 2 * H - pd.Timedelta('1us')] if '02-2h' in file.name else data.loc[T0 + 2 * H:])
    h.close()


def test_a_damaged_sealed_file_is_named(tmp_path):
    h, _ = filled(tmp_path/'history.db', hours=4)
    seal(h, T0 + 4.5 * H)
    file = next(h.folder.glob('*.parquet'))
    file.write_bytes(os.urandom(file.stat().st_size))
    with pytest.raises(HistoryError, match=f'{file.name}: is damaged'): h.read()
    h.close()


@pytest.mark.parametrize('spoil', (lambda file: file.write_bytes(b'x' * 100), Path.unlink), ids=('damaged', 'gone'))
def test_a_damaged_or_missing_file_keeps_only_its_own_stretch_from_being_sealed(tmp_path, spoil):
    h, data = filled(tmp_path/'history.db', hours=60, settings=HistorySettings(retention_days=30))
    seal(h, T0 + 23 * H)
    file = min(h.folder.glob('20260302T*'))
    spoil(file)
    h.append(frame(24 * 12, start=T0 + 60 * H), arrived=T0 + 84 * H)
    with use_clock(FakeClock(T0 + 100 * H)), Sealer(tmp_path/'history.db', every=.05) as sealer:
        deadline = time.time() + 10
        while file.name not in sealer.problem and time.time() < deadline: time.sleep(.02)
        assert file.name in sealer.problem and sealer._thread.is_alive()
    same(h.read(start=T0 + 24 * H, end=T0 + 59 * H), data.loc[T0 + 24 * H:T0 + 59 * H])
    with h.file.reading() as db: assert not hot_rows(db, int((T0 + 24 * H).timestamp() * 1e6), 2**62)
    h.close()


def test_samples_of_a_forgotten_series_do_not_keep_their_hour_from_being_sealed(tmp_path):
    "The clock was ahead by six days; a series ended before the right time came there, and was forgotten."
    with History(tmp_path/'history.db', settings=HistorySettings(retention_days=2)) as h:
        h.append(frame(60, start=T0 + 144 * H), arrived=T0 + 145 * H)
        h.rewind(T0)
        h.append(frame(60, NAMES[:1], start=T0 + 143 * H), arrived=T0 + 144 * H)
        h.retain(T0 + 144 * H)
        assert h.series() == NAMES[:1]
        before = h.read()
        assert seal(h, T0 + 170 * H)
        same(h.read(), before)


@pytest.mark.parametrize('line',
                         [b'2026-03-02T00:00:00Z,a_percent,much', b'never,a_percent,1', b'2026-03-02T00:00:00Z,"a_per',
                          b'2026-03-02T00:00:00Z,\xff,1'])
def test_a_broken_export_is_named(tmp_path, line):
    (tmp_path/'week.csv').write_bytes(b'time,series,value\n' + line)
    with History(tmp_path/'history.db') as h, pytest.raises(DataError, match='week.csv: cannot be read'):
        import_history(h, tmp_path/'week.csv')


def test_retention_by_age_and_by_size(tmp_path):
    h, data = filled(tmp_path/'history.db', hours=24 * 5, settings=HistorySettings(retention_days=3))
    seal(h, T0 + 121 * H)
    h.retain(T0 + 121 * H)
    assert h.read().index.min() == T0 + 48 * H
    h.settings = HistorySettings(retention_days=30, max_bytes=h.info()['sealed_bytes'] // 2)
    h.retain(T0 + 121 * H)
    left = h.read()
    assert T0 + 48 * H < left.index.min() and left.index.max() == data.index[-1] or left.empty
    seal(h, T0 + 122 * H)
    assert len(list(h.folder.glob('*.parquet'))) == h.info()['sealed_files'] < 3
    h.close()


def test_only_one_seals_at_a_time(tmp_path):
    h, _ = filled(tmp_path/'history.db', hours=4)
    with sealing_alone(h.folder) as mine:
        assert mine and seal(h, T0 + 5 * H) == []
    assert len(seal(h, T0 + 5 * H)) == 2
    h.close()


def test_the_thread_logs_what_went_wrong_and_goes_on(tmp_path):
    path = tmp_path/'history.db'
    path.write_text('not ours' * 50)
    with Sealer(path, every=.02) as sealer:
        deadline = time.time() + 5
        while not sealer.problem and time.time() < deadline: time.sleep(.02)
        assert 'not a history file' in sealer.problem
        path.unlink()
        h, _ = filled(path, hours=4)              # hours of March: long over by the clock, and settled
        h.file.db.execute('update windows set changed = 0')
        while h.info()['hot_samples'] and time.time() < deadline: time.sleep(.02)
        assert h.info()['hot_samples'] == 0 and sealer.problem == ''
    h.close()


def test_the_writer_goes_on_while_hours_are_sealed(tmp_path):
    names = [f'm_percent{{host="h{i:03}"}}' for i in range(400)]
    h = History(tmp_path/'history.db')
    h.append(frame(240, names, missing=0), arrived=T0 + 4 * H)
    own, done = History(tmp_path/'history.db'), threading.Event()
    thread = threading.Thread(target=lambda: (seal(own, T0 + 5 * H), done.set()))
    thread.start()
    n = 0
    while not done.is_set() or n < 5:
        h.append(frame(1, names, start=T0 + 6 * H + n * pd.Timedelta('1s'), missing=0)); n += 1
    thread.join()
    assert h.info()['samples'] == 400 * (240 + n) and h.info()['hot_samples'] == 400 * n
    h.close(); own.close()


@pytest.mark.parametrize('suffix', ['.parquet', '.csv'])
def test_export_and_import_round_trip(tmp_path, suffix):
    h, data = filled(tmp_path/'history.db')
    seal(h, T0 + 26 * H, settle=0)
    assert export_history(h, tmp_path/f'all{suffix}') == int(data.notna().sum().sum())
    export_history(h, tmp_path/f'part{suffix}', start=T0 + 20 * H, end=T0 + 25 * H)
    for name, expected in (('all', data), ('part', data.loc[T0 + 20 * H:T0 + 25 * H])):
        with History(tmp_path/name/'history.db') as other:
            import_history(other, tmp_path/f'{name}{suffix}')
            same(other.read(), expected)
    h.close()


def test_import_of_another_history_and_of_nonsense(tmp_path):
    h, data = filled(tmp_path/'a'/'history.db')
    seal(h, T0 + 31 * H)
    with History(tmp_path/'b'/'history.db') as other:
        assert import_history(other, tmp_path/'a'/'history.db') == int(data.notna().sum().sum())
        same(other.read(), data)
        (tmp_path/'x.parquet').write_bytes(b'nonsense')
        for bad in (tmp_path/'x.parquet', tmp_path/'nowhere.csv'):
            with pytest.raises(DataError, match=bad.name): import_history(other, bad)
        with pytest.raises(DataError, match='parquet or .csv'): export_history(other, tmp_path/'x.xlsx')
    h.close()


def test_compact_gives_space_back(tmp_path):
    h, data = filled(tmp_path/'history.db', hours=48, every='1min')
    before = h.info()['hot_bytes']
    compact(h, T0 + 49 * H)
    assert h.info()['hot_bytes'] < before / 5
    same(h.read(), data)
    h.close()


class Tiers(RuleBasedStateMachine):
    "Any sequence of appends, seals and late corrections reads like a plain DataFrame."
    def __init__(self):
        super().__init__()
        import tempfile
        self.dir = tempfile.TemporaryDirectory()
        self.h, self.expected, self.now = History(Path(self.dir.name)/'history.db'), pd.DataFrame(), T0

    @rule(hours=st.integers(-30, 3), rows=st.integers(1, 40), seed=st.integers(0, 99), some=st.integers(1, 7))
    def append(self, hours, rows, seed, some):
        new = frame(rows, NAMES[:some], start=max(T0, self.now + hours * H), every='10min', seed=seed)
        self.h.append(new, arrived=self.now)
        self.expected = new.combine_first(self.expected)

    @rule(hours=st.sampled_from([0, 1, 3, 13, 25]))
    def seal(self, hours):
        self.now += hours * H
        seal(self.h, self.now)

    @invariant()
    def reads_as_one(self):
        if len(self.expected): same(self.h.read(), self.expected)

    def teardown(self): self.h.close(); self.dir.cleanup()


TestTiers = Tiers.TestCase
TestTiers.settings = hypothesis_settings(max_examples=8, stateful_step_count=12)


MOVER = """
import sys, threading, numpy as np, pandas as pd
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.sealing import seal
from smartcloudops.core.settings import HistorySettings
path, first = sys.argv[1], int(sys.argv[2])
settings = HistorySettings(retention_days=2)
h, own = History(path, settings=settings), History(path, settings=settings)
names = pd.Index([f'm{i}_percent{{host="web-{i % 3}"}}' for i in range(7)], dtype=object)
T0 = pd.Timestamp('2026-03-02', tz='UTC')
at = [T0]
def sealing():
    while True: seal(own, at[0]); own.retain(at[0])
threading.Thread(target=sealing, daemon=True).start()
for n in range(first, 10**9):                            # a row a minute, a batch of 30; every third batch comes late
    rows = np.arange(n * 30, n * 30 + 30)
    times = pd.DatetimeIndex(T0 + pd.to_timedelta(rows, unit='min'), name='time')
    batch = pd.DataFrame((rows[:, None] * 10. + np.arange(7)), index=times, columns=names)
    if n % 3 == 0: held = batch.iloc[:10]; batch = batch.iloc[10:]
    at[0] = batch.index[-1] + pd.Timedelta('5min')
    h.append(batch, arrived=at[0])
    if n % 3 == 2: h.append(held, arrived=at[0])
    if n % 3 == 2: print(n, flush=True)
"""


def test_kill_9_during_append_seal_merge_and_retention(tmp_path):
    path, first, rng = tmp_path/'history.db', 0, np.random.default_rng(2)
    for turn in range(soak(3, 50)):
        child = subprocess.Popen([sys.executable, '-c', MOVER, str(path), str(first)], stdout=subprocess.PIPE,
                                 text=True)
        acknowledged = int(child.stdout.readline())
        time.sleep(rng.uniform(.05, .9))
        child.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(l) for l in child.stdout.read().split('\n')[:-1] if l)]); child.wait()
        with History(path) as h:
            stored, files = h.read(), h.info()['sealed_files']
            minutes = ((stored.index - T0).total_seconds() // 60).astype(int).to_numpy()
            assert (stored[NAMES].to_numpy() == minutes[:, None] * 10. + np.arange(7)).all(), turn
            newest = acknowledged * 30 + 29
            must = set(range(max(0, newest - 2 * 1440 + 31), newest + 1))
            assert must <= set(minutes.tolist()) and len(set(minutes.tolist())) == len(minutes), sorted(
                must - set(minutes.tolist())
            )[:5]
            listed = h.file.db.execute('select file from sealed where replaced is null').fetchall()
            assert all((h.folder/f).exists() for f, in listed)
        first = (acknowledged // 3 + 1) * 3
    assert files or turn < 2
