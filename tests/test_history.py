"History keeps what it acknowledged: upserts, readers in other processes, kills, full disks, files of other programs."
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from smartcloudops.core.errors import DataError, HistoryError
from smartcloudops.core.settings import HistorySettings
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.history_file import APPLICATION_ID, SCHEMA
from smartcloudops.monitoring.latest import clock_skew, freshness, gaps, get_latest_metrics
from smartcloudops.monitoring.retention import RetentionPolicy
from tests.conftest import soak

pytestmark = pytest.mark.phase2
T0 = pd.Timestamp('2026-03-02', tz='UTC')
NAMES = [f'm{i}_percent{{host="web-{i % 3}"}}' for i in range(7)]


def frame(rows=10, names=NAMES, start=T0, every='1min', seed=0, missing=.2):
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 10, (rows, len(names)))
    values[rng.random(values.shape) < missing] = np.nan
    return pd.DataFrame(values, index=pd.date_range(start, periods=rows, freq=every, name='time').as_unit('us'),
                        columns=pd.Index(names, dtype=object))


def same(a, b):
    pd.testing.assert_frame_equal(a.dropna(how='all').dropna(axis=1, how='all').sort_index(axis=1),
                                  b.dropna(how='all').dropna(axis=1, how='all').sort_index(axis=1),
                                  check_freq=False, check_index_type=False, check_column_type=False)


@hypothesis_settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 5)), min_size=1, max_size=6))
def test_any_order_of_overlapping_appends_reads_as_the_last_word(tmp_path_factory, steps):
    expected = pd.DataFrame()
    with History(tmp_path_factory.mktemp('h')/'history.db') as h:
        for n, (offset, rows, seed) in enumerate(steps):
            new = frame(rows, start=T0 + pd.Timedelta(minutes=offset), seed=seed + 10 * n)
            expected = new.combine_first(expected)
            assert h.append(new) == int(new.notna().sum().sum())
            assert h.append(new) == int(new.notna().sum().sum())
        same(h.read(), expected)
        latest = h.latest().set_index('series')
        for name in NAMES:
            seen = expected[name].dropna()
            assert (name in latest.index) == bool(len(seen))
            if len(seen):
                assert latest.loc[name, 'time'] == seen.index[-1] and latest.loc[name, 'value'] == seen.iloc[-1]


def test_read_by_series_host_metric_and_time(tmp_path):
    h, data = History(tmp_path/'history.db'), frame(50, missing=0)
    h.append(data)
    assert list(h.read([NAMES[3], NAMES[0]]).columns) == [NAMES[3], NAMES[0]]
    assert list(h.read([NAMES[3], 'other{host="x"}']).columns) == [NAMES[3], 'other{host="x"}']
    assert set(h.read(host='web-0').columns) == {NAMES[0], NAMES[3], NAMES[6]}
    assert list(h.read(metric='m1_percent', host=['web-0', 'web-1']).columns) == [NAMES[1]]
    part = h.read(start=data.index[5], end=data.index[9])
    same(part, data.iloc[5:10])
    assert h.read(start=data.index[-1] + pd.Timedelta('1s')).empty and str(h.read(host='nobody').index.tz) == 'UTC'
    many = h.read(NAMES[2])
    assert many.index.name == 'time' and many.dtypes.iloc[0] == np.float64
    h.close()


def test_many_series_take_the_other_way_through_the_tree_with_the_same_result(tmp_path):
    names = [f'm_percent{{host="h{i:03}"}}' for i in range(200)]
    with History(tmp_path/'history.db') as h:
        data = frame(30, names)
        h.append(data)
        same(h.read(names[7]), data[[names[7]]])
        same(h.read(names[:10]), data[names[:10]])
        same(h.read(names[:150]), data[names[:150]])


def test_late_and_corrected_samples_are_stored_and_counted(tmp_path):
    name = NAMES[0]
    with History(tmp_path/'history.db') as h:
        data = frame(10, [name], missing=0)
        h.append(data.drop(data.index[4]))
        h.append(data.iloc[3:6].assign(**{name: [data.iloc[3, 0], 7., 8.]}))
        row = h.latest().iloc[0]
        assert (row.late, row.rewritten) == (1, 1) and row.time == data.index[-1]
        assert h.read(name)[name].iloc[3:6].tolist() == [data.iloc[3, 0], 7., 8.]
        assert row.interval_seconds == 60


def marked(history, **which):
    found = history.rewritten(**which)
    return set(zip(found.series, found.time))


@hypothesis_settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 2),
                          st.one_of(st.none(), st.integers(0, 40))), min_size=1, max_size=6))
def test_exactly_what_changed_or_came_below_the_watermark_is_marked(tmp_path_factory, steps):
    known, expected = {}, set()
    with History(tmp_path_factory.mktemp('h')/'history.db') as h:
        for offset, rows, seed, minute in steps:
            new, judged = (frame(rows, start=T0 + pd.Timedelta(minutes=offset), seed=seed),
                           None if minute is None else T0 + pd.Timedelta(minutes=minute))
            for (time, name), value in new.stack().dropna().items():
                before = known.get((name, time))
                if before is not None and before != value or before is None and judged is not None and time <= judged:
                    expected.add((name, time))
                known[name, time] = value
            h.append(new, judged=judged)
            assert marked(h) == expected
        half = T0 + pd.Timedelta('15min')
        assert marked(h, series=NAMES[:2], start=half) == {(n, t) for n, t in expected if n in NAMES[:2] and t >= half}
        assert marked(h, host='web-0', end=half) == {(n, t) for n, t in expected if '"web-0"' in n and t <= half}


def test_marks_of_what_was_rewritten_go_with_the_samples_and_never_take_too_much(tmp_path):
    with History(tmp_path/'history.db', settings=HistorySettings(retention_days=2)) as h:
        data = frame(100, missing=0, every='1h')
        h.append(data)
        h.append(data.iloc[[10, 90]] + 1)
        h.retain(data.index[-1])
        assert marked(h) == {(n, data.index[90]) for n in NAMES}
        h.append(data.iloc[60:] + 2)
        RetentionPolicy(h.file, h.settings)._thin(most=20 * (40 + 4 * len(NAMES)))
        assert marked(h) == {(n, t) for n in NAMES for t in data.index[80:]}                 # the newest stay


def test_the_layout_before_marks_is_read_as_it_is_and_brought_up_to_date_by_the_writer(tmp_path):
    path, data = tmp_path/'history.db', frame(20, missing=0)
    with History(path) as h: h.append(data)
    with sqlite3.connect(path) as db: db.execute('drop table rewritten'); db.execute('pragma user_version=3')
    db.close()
    with History(path, readonly=True) as r:
        same(r.read(), data); assert r.rewritten().empty and r.rewritten().columns.tolist() == ['series', 'time']
    with History(path) as h, History(path, readonly=True) as r:
        h.append(data.iloc[3:5] + 1)
        assert marked(h) == marked(r) == {(n, t) for n in NAMES for t in data.index[3:5]}


def test_infinities_stay_and_nan_is_no_sample(tmp_path):
    data = frame(3, NAMES[:2], missing=0)
    data.iloc[1] = [np.inf, np.nan]; data.iloc[2] = [-np.inf, np.nan]
    with History(tmp_path/'history.db') as h:
        assert h.append(data) == 4
        same(h.read(), data)
        assert h.append(data.iloc[:0]) == 0 and h.append(data[[]]) == 0


@pytest.mark.parametrize('bad',
                         [lambda f: f.tz_localize(None), lambda f: f.iloc[::-1], lambda f: f.astype('float32'),
                          lambda f: f.rename(columns={NAMES[0]: 'm{ host = "x"}'}), lambda f: [1]])
def test_what_is_no_frame_is_refused_before_and_after_its_series_are_known(tmp_path, bad):
    with History(tmp_path/'history.db') as h:
        for _ in range(2):
            with pytest.raises(DataError): h.append(bad(frame()))
            h.append(frame())


def test_a_reader_before_the_first_write_is_empty_and_creates_nothing(tmp_path):
    r = History(tmp_path/'data'/'history.db', readonly=True)
    assert r.read(NAMES[0]).shape == (0, 1) and r.latest().empty and r.series() == [] and r.last_time() is None
    assert r.info()['samples'] == 0
    assert r.read_scores(NAMES[0]).empty and r.rewritten().empty and freshness(r, T0).empty
    assert not (tmp_path/'data').exists()
    with History(tmp_path/'data'/'history.db') as w: w.append(frame())
    assert len(r.series()) == 7
    for act in (lambda: r.append(frame()), lambda: r.retain(T0)):
        with pytest.raises(HistoryError, match='reading only'): act()
    with pytest.raises(sqlite3.OperationalError): r.file.db.execute('delete from samples')


def test_a_reader_while_the_file_is_being_made_is_empty(tmp_path):
    db = sqlite3.connect(tmp_path/'history.db')
    db.execute(f'pragma application_id={APPLICATION_ID}')
    db.close()
    with History(tmp_path/'history.db', readonly=True) as r:
        assert r.read().empty and r.info()['samples'] == 0
        with History(tmp_path/'history.db') as w: w.append(frame())
        assert len(r.series()) == 7


def test_a_copy_in_a_folder_without_write_permission_can_be_read(tmp_path):
    with History(tmp_path/'history.db') as w: w.append(frame())
    code = (f"from smartcloudops.monitoring import History; print(len(History({str(tmp_path/'history.db')!r}, "
            f"readonly=True).series()))")
    os.chmod(tmp_path, 0o555)
    try:
        done = subprocess.run([sys.executable, '-c', 'import os; os.getuid() or os.access; ' + code],
                              capture_output=True, text=True)
    finally: os.chmod(tmp_path, 0o755)
    assert done.stdout.strip() == '7', done.stderr


WRITER = """
import sys, numpy as np, pandas as pd
from smartcloudops.monitoring.history import History
h = History(sys.argv[1]); first = int(sys.argv[2]); names = [f'm{i}_percent{{host="web-{i % 3}"}}' for i in range(7)]
for n in range(first, 10**9):
    t = pd.Timestamp('2026-03-02', tz='UTC') + pd.Timedelta(seconds=n)
    row = pd.DataFrame([[float(n * 10 + i) for i in range(7)]], index=pd.DatetimeIndex([t], name='time'),
                       columns=pd.Index(names, dtype=object))
    h.append(row, judged=t if n % 2 else None)      # every second one is too late to be judged
    print(n, flush=True)
"""


def test_kill_9_while_appending_loses_nothing_acknowledged(tmp_path):
    path, first, rng = tmp_path/'history.db', 0, np.random.default_rng(1)
    for _ in range(soak(3, 50)):
        child = subprocess.Popen([sys.executable, '-c', WRITER, str(path), str(first)], stdout=subprocess.PIPE,
                                 text=True)
        acknowledged = int(child.stdout.readline())
        reader = History(path, readonly=True)
        time.sleep(rng.uniform(.02, .4))
        assert len(reader.read()) > acknowledged     # a reader of another process, meanwhile
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split('\n'); child.wait()
        acknowledged = max([acknowledged, *(int(l) for l in rest[:-1] if l)])
        stored = History(path).read()
        n = ((stored.index - T0).total_seconds()).astype(int)
        assert n.is_unique and set(range(acknowledged + 1)) <= set(n) and n.max() <= acknowledged + 1
        assert (stored[NAMES].to_numpy() == (n.to_numpy()[:, None] * 10 + np.arange(7))).all()
        # with each sample its mark
        assert marked(History(path)) == {(name, t) for name in NAMES for t, k in zip(stored.index, n) if k % 2}
        first = n.max() + 1


def test_readers_in_other_processes_see_whole_rows_only(tmp_path):
    child = subprocess.Popen([sys.executable, '-c', WRITER, str(tmp_path/'history.db'), '0'], stdout=subprocess.PIPE,
                             text=True)
    try:
        child.stdout.readline()
        with History(tmp_path/'history.db', readonly=True) as r:
            for _ in range(30):
                seen = r.read()
                assert not seen.isna().any().any()
                assert len(r.latest().time.unique()) == 1
    finally: child.kill(); child.wait(); child.stdout.close()


def test_readers_follow_a_writer_that_comes_and_goes(tmp_path):
    "Several readers in this process keep their locks: a writer that ends does not take the log from under them."
    path, whole = tmp_path/'history.db', frame(4, missing=0)
    code = (f"import sys, pandas as pd; from smartcloudops.monitoring.history import History\nwith "
            f"History({str(path)!r}) as h: h.append(pd.read_pickle(sys.stdin.buffer))")
    write = lambda rows: subprocess.run([sys.executable, '-c', code], input=pickle.dumps(rows), check=True)
    write(whole.iloc[:1])
    with History(path, readonly=True) as first:
        for i in range(1, len(whole)):
            with History(path, readonly=True) as again: assert len(again.read()) == len(first.read()) == i
            write(whole.iloc[i:i + 1])
            same(first.read(), whole.iloc[:i + 1])


def test_a_clock_that_is_put_back_makes_the_newest_sample_now_the_newest(tmp_path):
    "A wide fleet, sparse samples; some series have samples of the time to come only. What is stored stays."
    names = [f'm{i % 40}_percent{{host="web-{i // 40}"}}' for i in range(1200)]
    whole = frame(40, names, missing=.9, seed=3)
    whole.iloc[:25, :5] = np.nan; whole.iloc[39] = 7.
    back = whole.index[20]
    with History(tmp_path/'history.db') as h:
        h.append(whole)
        before = h.read()
        assert h.rewind(back) > 1000 and h.rewind(back) == 0
        latest, past = h.latest().set_index('series'), whole.iloc[:21]
        for name in names:
            known = past[name].dropna()
            assert (latest.time[name],
                    latest.value[name]) == ((known.index[-1], known.iloc[-1]) if len(known)
                                            else (back, whole[name].dropna().iloc[-1])), name
        same(h.read(), before)
        h.append(frame(1, names, start=back + pd.Timedelta('1min'), missing=0))
        assert (h.latest().time == back + pd.Timedelta('1min')).all() and h.last_time() == back + pd.Timedelta('1min')
    with History(tmp_path/'history.db') as again: assert (again.latest().time == back + pd.Timedelta('1min')).all()


def test_another_programs_file_is_refused_and_left_alone(tmp_path):
    (tmp_path/'text.db').write_text('hello ' * 100)
    with sqlite3.connect(tmp_path/'other.db') as db: db.execute('create table t(x)')
    db.close()
    for name, said in (('text.db', 'not a history file'), ('other.db', 'another program')):
        before = (tmp_path/name).read_bytes()
        for readonly in (False, True):
            with pytest.raises(HistoryError, match=said) as e: History(tmp_path/name, readonly=readonly)
            assert name in str(e.value)
        assert (tmp_path/name).read_bytes() == before


def test_a_newer_layout_is_refused(tmp_path):
    with History(tmp_path/'history.db') as h: h.append(frame())
    with sqlite3.connect(tmp_path/'history.db') as db: db.execute(f'pragma user_version={SCHEMA + 1}')
    db.close()
    with pytest.raises(HistoryError, match='newer smartcloudops'): History(tmp_path/'history.db')


LAYOUT_1 = """
create table series  (sid integer primary key autoincrement, name text not null unique, host text not null,
                      metric text not null);
create table samples (ts integer not null, sid integer not null, value real not null,
                      primary key (ts, sid)) without rowid;
create table scores  (ts integer not null, sid integer not null, score real, expected real, lower real,
                      upper real, anomaly integer not null, primary key (ts, sid)) without rowid;
create table latest  (sid integer primary key, ts integer not null, value real not null, gap integer, interval integer,
                      arrived integer not null, samples integer not null, late integer not null,
                      rewritten integer not null);
pragma user_version=1;
"""
LAYOUT_2 = LAYOUT_1 + """
create table windows (start integer primary key, changes integer not null, changed integer not null);
create table sealed  (file text primary key, start integer not null, "end" integer not null, rows integer not null,
                      bytes integer not null, created integer not null, replaced integer);
insert into windows select ts / 7200000000 * 7200000000, count(*), max(ts) from samples group by 1;
pragma user_version=2;
"""


def older(path, layout, data):
    "A file of an earlier version that holds a frame, with a score for each sample."
    db = sqlite3.connect(path, isolation_level=None)
    db.execute('pragma journal_mode=wal')
    db.execute(f'pragma application_id={APPLICATION_ID}')
    db.executescript(layout)
    db.execute('begin')
    for sid, name in enumerate(data.columns, 1):
        seen = data[name].dropna()
        us = (seen.index.asi8).tolist()
        db.execute('insert into series values (?, ?, ?, ?)', (sid, name, name.split('"')[1], name.split('{')[0]))
        db.executemany('insert into samples values (?, ?, ?)', zip(us, [sid] * len(us), seen.tolist()))
        db.executemany('insert into scores values (?, ?, .5, ?, null, null, 1)',
                       zip(us, [sid] * len(us), seen.tolist()))
        if us:
            db.execute('insert into latest values (?, ?, ?, null, 60000000, ?, ?, 2, 1)',
                       (sid, us[-1], seen.iloc[-1], us[-1], len(us)))
    db.execute('commit')
    return db


@pytest.mark.parametrize('layout', [LAYOUT_1, LAYOUT_2])
@pytest.mark.parametrize('count', [7, 700])
def test_an_older_layout_is_brought_up_to_date(tmp_path, layout, count):
    path, names = tmp_path/'history.db', [f'm{i}_percent{{host="web-{i % 3}"}}' for i in range(count)]
    data = frame(200, names)
    older(path, layout, data).close()
    with pytest.raises(HistoryError, match='older layout'): History(path, readonly=True)
    with History(path) as h:
        same(h.read(), data)
        assert h.info()['scores'] == h.info()['samples'] == int(data.notna().sum().sum())
        row = h.latest().set_index('series').loc[names[5]]
        assert ((row.value, row.interval_seconds, row.samples, row.late, row.rewritten)
                == (data[names[5]].dropna().iloc[-1], 60, data[names[5]].notna().sum(), 2, 1))
        back = h.read_scores(names[3])
        assert back.expected.tolist() == data[names[3]].dropna().tolist() and back.lower.isna().all()
        assert back.anomaly.all()
        h.append(frame(start=T0 + pd.Timedelta('5h')))
        same(h.read(start=T0 + pd.Timedelta('5h')), frame(start=T0 + pd.Timedelta('5h')))
    with History(path, readonly=True) as r: assert r.info()['schema'] == SCHEMA and len(r.series()) == count


def test_a_kill_while_an_older_layout_is_converted_leaves_it_whole(tmp_path):
    path, data = tmp_path/'history.db', frame(400)
    older(path, LAYOUT_2, data).close()
    code = ("import os, sys\nfrom smartcloudops.monitoring import History, history_file as m\n"
            "m.save_facts = lambda *a: os.kill(os.getpid(), 9)\n"
            f"History({str(path)!r})")
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    with pytest.raises(HistoryError, match='older layout 2'): History(path, readonly=True)
    with History(path) as h: same(h.read(), data)


def test_a_damaged_file_says_so(tmp_path):
    with History(tmp_path/'history.db') as h: h.append(frame(2000))
    size = (tmp_path/'history.db').stat().st_size
    with open(tmp_path/'history.db', 'r+b') as f: f.seek(4096); f.write(os.urandom(size - 4096))
    with pytest.raises(HistoryError, match='damaged'):
        with History(tmp_path/'history.db') as h: h.read()


def test_a_full_disk_says_so_and_the_next_append_works(tmp_path):
    with History(tmp_path/'history.db') as h:
        h.append(frame(5))
        h.file.db.execute('pragma max_page_count=30')
        with pytest.raises(HistoryError, match='disk is full'): h.append(frame(5000, start=T0 + pd.Timedelta('1h')))
        h.file.db.execute('pragma max_page_count=1000000')
        h.append(frame(5000, [*NAMES, 'new{host="n"}'], start=T0 + pd.Timedelta('1h')))
        assert len(h.read()) > 5000


def test_a_commit_that_fails_leaves_no_number_of_a_series_behind(tmp_path):
    "Small appends meet the full disk only when they commit; the next new series would get the numbers given in vain."
    code = (
        "import resource, signal, sys\nfrom tests.test_history import *\nsignal.signal(signal.SIGXFSZ,"
        " signal.SIG_IGN)\nlog, limits = Path(sys.argv[1] + '-wal'), resource.getrlimit(resource.RLIMIT_FSIZE)\nwith"
        " History(sys.argv[1]) as h:\n    h.append(frame(5))\n    resource.setrlimit(resource.RLIMIT_FSIZE,"
        " (log.stat().st_size, limits[1]))\n    with pytest.raises(HistoryError): h.append(frame(5,"
        " ['first{host=\"n\"}', *NAMES], start=T0 + pd.Timedelta('1h')))\n    resource.setrlimit(resource.RLIMIT_FSIZE,"
        " limits)\n    data = frame(5, ['second{host=\"n\"}', 'first{host=\"n\"}'], start=T0 + pd.Timedelta('2h'),"
        " missing=0)\n    h.append(data.iloc[:, :1]); h.append(data)\n    same(h.read(start=data.index[0]), data)"
    )
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path/'history.db')], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_a_history_that_was_closed_knows_what_others_wrote_meanwhile(tmp_path):
    h, data = History(tmp_path/'history.db'), frame(5, missing=0)
    h.append(data.iloc[:, :1]); h.close()
    with History(tmp_path/'history.db') as other: other.append(data.iloc[:, 1:2])
    h.append(data.iloc[:, 1:])
    same(h.read(), data)
    h.close()


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(HistoryError, match='cannot be'): History(tmp_path/'file'/'history.db')


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists('/usr/bin/setpriv'), reason='root may write anywhere')
def test_a_read_only_folder_says_so(tmp_path):
    folder = tmp_path/'closed'; folder.mkdir(); folder.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]): parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    code = ("import os, sys\nimport smartcloudops.monitoring.history as m, smartcloudops.core.errors as errors\n"
            "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
            f"try: m.History({str(folder/'history.db')!r})\nexcept errors.HistoryError as e: print(e)\n")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent)
    assert 'write permission' in done.stdout, done.stderr


def test_retention_by_age_for_samples_scores_and_series(tmp_path):
    with History(tmp_path/'history.db', settings=HistorySettings(retention_days=2, scores_days=1)) as h:
        old, new = (frame(100, NAMES[:3], missing=0, every='1h'),
                    frame(24, NAMES[3:], start=T0 + pd.Timedelta('100h'), every='1h', missing=0))
        h.append(old); h.append(new)
        table = pd.DataFrame(dict(score=.5, expected=1., lower=0., upper=2., anomaly=False), index=NAMES[3:4])
        for t in new.index: h.append_scores(t, table)
        h.retain(T0 + pd.Timedelta('136h'))
        assert h.read().index.min() == T0 + pd.Timedelta('88h') and len(h.read_scores(NAMES[3])) == 12
        h.retain(T0 + pd.Timedelta('149h'))
        assert h.series() == NAMES[3:] and len(h.latest()) == 4
        h.append(frame(3, NAMES[:2], start=T0 + pd.Timedelta('150h')))
        assert len(h.series()) == 6


def test_scores_of_a_frame(tmp_path):
    from types import SimpleNamespace
    data = frame(20, missing=0)
    score = data.to_numpy() / 100; score[3, 2] = np.nan
    scores = SimpleNamespace(score=score, expected=score + 1, lower=score, upper=score + 2, anomaly=score > .5)
    with History(tmp_path/'history.db') as h:
        assert h.append_scores(data, scores) == 139
        back = h.read_scores(NAMES[2])
        assert len(back) == 19 and back.anomaly.dtype == bool
        assert (back.score.to_numpy() == np.delete(score[:, 2], 3)).all()
        assert len(h.read_scores(NAMES[0], data.index[3], data.index[5])) == 3


def test_two_objects_may_write_to_one_history(tmp_path):
    a, b = History(tmp_path/'history.db'), History(tmp_path/'history.db')
    data = frame(40, missing=0)
    for i in range(0, 40, 2):
        a.append(data.iloc[i:i + 1]); b.append(data.iloc[i + 1:i + 2])
    same(a.read(), data)
    assert a.latest().equals(b.latest()) and set(a.latest().samples) == {40}
    assert set(a.latest().interval_seconds) == {60}


def test_gaps_and_skew():
    data = frame(60, NAMES[:2], missing=0).drop(frame(60).index[20:30])
    found = gaps(data)
    assert found.seconds.tolist() == [660, 660] and found.start.tolist() == [data.index[19]] * 2
    assert gaps(data.iloc[:0]).empty and gaps(data.iloc[:1]).empty
    fresh = pd.DataFrame(dict(host=list('abc'), lag_seconds=[1, 2, 120.], interval_seconds=15., late=False))
    assert clock_skew(fresh).skewed.tolist() == [False, False, True]
    assert clock_skew(fresh.iloc[:0]).empty


def test_the_snapshot_is_read_as_written_or_not_at_all(tmp_path):
    from smartcloudops.ingestion import fetch_metrics
    path = tmp_path/'m'/'metrics.json'
    written = fetch_metrics(path)
    assert get_latest_metrics(path) == written and get_latest_metrics(str(path)) == written
    text = path.read_text()
    for broken in ('', text[:len(text) // 2], '[1, 2]', 'null', '\0' * 20):
        path.write_text(broken)
        with pytest.raises(DataError, match='metrics.json'): get_latest_metrics(path)
    path.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(DataError, match='metrics.json'): get_latest_metrics(path)
    with pytest.raises(DataError, match='nowhere.json'): get_latest_metrics(tmp_path/'nowhere.json')


def test_one_sample_of_cloudwatch_is_not_late_before_the_second_can_be_there(tmp_path):
    with History(tmp_path/'history.db') as h:
        h.append(frame(1, NAMES[:2], missing=0), arrived=T0 + pd.Timedelta('5min'))
        for minutes in range(5, 19): assert not freshness(h, T0 + pd.Timedelta(minutes=minutes)).late.any()
        assert freshness(h, T0 + pd.Timedelta('21min')).late.all()
        h.append(frame(3, NAMES[2:3], every='15s', start=T0 + pd.Timedelta('20min'), missing=0),
                 arrived=T0 + pd.Timedelta('21min'))
        # what is usual elsewhere says nothing of it
        assert freshness(h, T0 + pd.Timedelta('21min')).interval_seconds.tolist() == [300, 300, 15]


@pytest.mark.parametrize('readonly', [False, True], ids=['writer', 'reader'])
def test_a_history_that_was_moved_away_while_it_is_open_is_begun_anew(tmp_path, readonly):
    """As the error of a damaged one says to do; the old file was written to on, and its log was deleted by whoever
    opened the new one."""
    with History(tmp_path/'history.db') as mine, History(tmp_path/'history.db', readonly=readonly) as other:
        mine.append(frame(3))
        assert len(other.read()) == 3
        (tmp_path/'history.db').rename(tmp_path/'damaged.db')
        mine.append(frame(2, start=T0 + pd.Timedelta('1D')))
        assert len(other.read()) == len(mine.read()) == 2
    with History(tmp_path/'history.db', readonly=True) as later: assert len(later.read()) == 2
