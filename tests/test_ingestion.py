"Sources: the same samples however they are read, and clear words about files that are wrong."
import json
import os

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from smartcloudops.core.errors import AwsError, DataError, SourceError
from smartcloudops.core.frames import per_second, validate
from smartcloudops.core.series import Series
from smartcloudops.core.settings import Settings
from smartcloudops.ingestion import fetch_metrics, host, make_source, read_samples, synthetic_frame
from smartcloudops.ingestion.host import COLLECTORS, HostSource
from smartcloudops.ingestion.replay import ReplaySource, read_csv
from smartcloudops.ingestion.source import Source
from smartcloudops.ingestion.synthetic import FAULTS, PROFILES, Fault, SyntheticSource, value_at
from smartcloudops.monitoring.history import History

pytestmark = pytest.mark.phase1
T0 = pd.Timestamp('2026-03-02 09:00:00Z')
HEAD = 'timestamp,value\n2026-03-02T09:00:00Z,1\n'


# ---- synthetic

@given(cuts=st.lists(st.integers(1, 599), max_size=8, unique=True), seed=st.integers(0, 2**31),
       kind=st.sampled_from(FAULTS))
@hypothesis_settings(max_examples=30)
def test_synthetic_does_not_depend_on_how_it_is_read(cuts, seed, kind):
    faults = [Fault(kind, '*', '*', at='2026-01-05 03:00', minutes=90, size=.7)]
    whole = synthetic_frame(2, hours=10, seed=seed, faults=faults)
    ms = np.arange(600)*60_000 + pd.Timestamp('2026-01-05', tz='UTC').value // 10**6
    edges = [0, *sorted(cuts), 600]
    for p in PROFILES[:3]:
        name = str(Series(p.metric, dict(p.labels, host='web-2')))
        pieces = np.concatenate([value_at(ms[a:b], p, 'web-2', seed, tuple(faults)) for a, b in zip(edges, edges[1:])])
        np.testing.assert_array_equal(pieces, whole[name].reindex(pd.to_datetime(ms, unit='ms', utc=True)).to_numpy())


@pytest.mark.parametrize('kind', FAULTS)
def test_fault_shows_in_its_window_only(kind):
    healthy, sick = (synthetic_frame(['web-1'], faults=f)
                     for f in ([], [Fault(kind, metric='memory', at='2026-01-05 10:00', minutes=30)]))
    differs = healthy.ne(sick).any(axis=1)
    assert differs.any() and differs[differs].index.min() >= pd.Timestamp('2026-01-05 10:00Z')
    assert differs[differs].index.max() < pd.Timestamp('2026-01-05 10:30Z')
    assert list(healthy.columns[healthy.ne(sick).any()]) == ['memory_used_percent{host="web-1"}']


def test_synthetic_source_has_no_gap_and_nothing_twice():
    source = SyntheticSource(2, interval=10)
    rows = pd.concat([source.read(T0 + pd.Timedelta(seconds=s)) for s in (0, 3, 9, 10, 31, 30, 95, 95, 200)])
    assert list(rows.index) == list(pd.date_range(T0, periods=21, freq='10s'))
    late = source.read(T0 + pd.Timedelta(days=30))
    assert len(late) <= 86400/10 + 1
    validate(rows)


def test_quiet_by_default():
    frame = synthetic_frame(3, hours=24*14, every='5min')
    for p in PROFILES:
        values = frame[str(Series(p.metric, dict(p.labels, host='web-1')))]
        week = values.iloc[:2016].to_numpy(), values.iloc[2016:].to_numpy()
        assert np.abs(week[0] - week[1]).max() < .5*p.step      # a week is like the week before, within half a fault
    assert frame.filter(like='percent').max().max() < 75


# ---- make_source and fetch_metrics

def test_make_source(tmp_path):
    (tmp_path/'a.csv').write_text(HEAD)
    for spec, name in (('synthetic', 'synthetic'), ('host', 'host'), (f'replay:{tmp_path}/a.csv', 'replay')):
        source = make_source(spec, Settings())
        assert isinstance(source, Source) and source.name == name
        source.close()
    assert make_source('synthetic', Settings(synthetic=dict(history_hours=0))).read(T0).shape == (1, 21)
    with pytest.raises(SourceError, match="unknown source 'sinthetic'; did you mean 'synthetic'"):
        make_source('sinthetic')
    with pytest.raises(SourceError, match="takes no 'x'"): make_source('host:x')
    with pytest.raises(DataError, match='no such file'): make_source('replay:nowhere.csv')


def test_faults_from_settings():
    source = make_source('synthetic',
                         Settings(synthetic=dict(hosts=1, every=30, history_hours=0,
                                                 faults=[dict(kind='dropout', metric='*', minutes=1)])))
    assert source.interval == 30
    times = source.read(T0).index.append(source.read(T0 + pd.Timedelta(minutes=8)).index)
    assert (set(pd.date_range(T0, periods=17, freq='30s')) - set(times)
            == {T0 + pd.Timedelta(minutes=5), T0 + pd.Timedelta(minutes=5.5)})
    with pytest.raises(SourceError, match='synthetic.faults'):
        make_source('synthetic', Settings(synthetic=dict(faults=[dict(kynd='spike')])))


def test_fetch_metrics(tmp_path, monkeypatch):
    path = tmp_path/'deep'/'metrics.json'
    got = fetch_metrics(path)
    assert json.loads(path.read_text()) == got
    assert 0 < got['cpu'] <= 90 and 0 < got['memory'] <= 90 and {'disk', 'host', 'time'} <= set(got)
    with pytest.raises(AwsError, match='credentials'): fetch_metrics(path, live=True)
    assert json.loads(path.read_text()) == got                   # the failure left the file alone


# ---- host

def test_a_name_that_is_not_utf8_keeps_no_sample_back(tmp_path):
    "A stick's or an interface's: one of them cost every tick all of its samples."
    odd = lambda: iter([('disk_used_percent', {'mount': os.fsdecode(b'/media/gr\xf6n')}, 97.),
                        ('disk_used_percent', {'mount': '/media/grün'}, 3.)])
    row = HostSource(host='me', collectors=(odd,)).read(pd.Timestamp('2026-01-01', tz='UTC'))
    with History(tmp_path/'history.db') as history:
        history.append(row)
        assert ({Series.parse(s).labels['mount'] for s in history.series() if s.startswith('disk')}
                == {'/media/gr\\xf6n', '/media/grün'})


def test_host_tells_what_psutil_tells():
    row = HostSource(host='me').read(T0).iloc[0]
    assert abs(row['memory_used_percent{host="me"}'] - psutil.virtual_memory().percent) < 5
    assert abs(row['disk_used_percent{host="me",mount="/"}'] - psutil.disk_usage('/').percent) < 2
    assert row['boot_time_seconds{host="me"}'] == psutil.boot_time()
    assert 0 <= row['cpu_utilization_percent{host="me"}'] <= 100
    names = {Series.parse(c).metric for c in row.index}
    assert names >= {'cpu_seconds_total', 'load1', 'memory_total_bytes', 'disk_free_bytes',
                     'network_receive_bytes_total',
                     'network_transmit_errors_total', 'open_file_descriptors', 'processes'}
    if os.path.exists('/proc/pressure/cpu'):
        assert names >= {'pressure_cpu_some_percent', 'pressure_io_full_percent', 'pressure_memory_some_seconds_total'}
    assert not any(Series.parse(c).labels.get('device', '').startswith(('loop', 'ram'))
                   or Series.parse(c).labels.get('interface') == 'lo' for c in row.index)
    validate(HostSource(host='me').read(T0))


def test_host_counters_never_become_negative_rates():
    source = HostSource(host='me')
    rows = pd.concat([source.read(T0 + pd.Timedelta(seconds=i)) for i in range(3)])
    rows.loc[rows.index[2], [c for c in rows if '_total' in c]] = 0.       # as after a reboot
    assert not (per_second(rows) < 0).any().any()


@pytest.mark.parametrize('deaf', COLLECTORS, ids=lambda c: c.__name__)
def test_a_forbidden_collector_leaves_the_others(deaf, monkeypatch):
    def forbidden(): raise PermissionError(13, 'Permission denied')
    forbidden.__name__ = f'forbidden_{deaf.__name__}'
    warned = []
    monkeypatch.setattr(host.log, 'warning', lambda text, *values: warned.append(text % values))
    monkeypatch.setattr(host, '_said', set())
    source = HostSource(host='me', collectors=[forbidden if c is deaf else c for c in COLLECTORS])
    first, second = source.read(T0), source.read(T0)
    assert first.shape[1] > 5 and list(first) == list(second)
    assert sum(forbidden.__name__ in text for text in warned) == 1


def test_host_alias():
    assert HostSource(host='laptop', aliases={'laptop': 'i-0abc'}).read(T0).columns[0].count('host="i-0abc"') == 1


# ---- replay: good files

@pytest.mark.parametrize('text,layout,series', [
    ('timestamp,value\n2014-02-14 14:30:00,1.5\n2014-02-14 14:35:00,2.5\n', 'value', ['value{host="f"}']),
    ('TimeStamp,Value,Label\n2014-02-14 14:30:00,1.5,0\n2014-02-14 14:35:00,2.5,yes\n', 'value', ['value{host="f"}']),
    ('"TimeStamp","Value","Label"\n"2014-02-14T14:30:00Z",1.5,0\n"2014-02-14T14:35:00Z",2.5,0\n', 'value',
     ['value{host="f"}']),
    ('\ufefftimestamp;value\r\n2014-02-14 14:30:00;1.5\r\n2014-02-14 14:35:00;2.5\r\n', 'value', ['value{host="f"}']),
    ('timestamp,value\n1392388200,1.5\n1392388500,2.5', 'value', ['value{host="f"}']),
    ('timestamp,value\n20140214143000,1.5\n20140214143500,2.5', 'value', ['value{host="f"}']),
    ('timestamp,value\n201402141430,1.5\n201402141435,2.5', 'value', ['value{host="f"}']),
    ('time,cpu,"memory_used_percent{host=""db-1""}"\n2014-02-14 14:30:00Z,1.5,\n2014-02-14 14:35:00Z,2.5,7\n', 'wide',
     ['cpu{host="f"}', 'memory_used_percent{host="db-1"}']),
    ('time,host,metric,value\n2014-02-14 14:30,a,cpu,1.5\n2014-02-14 14:30,b,cpu,1\n2014-02-14 14:35,a,cpu,2.5\n',
     'long', ['cpu{host="a"}', 'cpu{host="b"}']),
    ('time,series,value\n2014-02-14 14:30,"cpu{host=""a"",core=""0""}",1.5\n2014-02-14 '
     '14:35,"cpu{host=""a"",core=""0""}",2.5\n', 'long', ['cpu{core="0",host="a"}']),
    ('date,value\n02/14/2014 14:30,1.5\n02/14/2014 14:35,2.5\n', 'value', ['value{host="f"}']),
])
def test_layouts(tmp_path, text, layout, series):
    (tmp_path/'f.csv').write_text(text, newline='')
    result = read_csv(tmp_path/'f.csv')
    assert (result.layout, list(result.frame)) == (layout, series)
    assert list(result.frame.index) == [pd.Timestamp('2014-02-14 14:30Z'), pd.Timestamp('2014-02-14 14:35Z')]
    assert list(result.frame[series[0]]) == [1.5, 2.5]
    validate(result.frame)
    df = result.frame.rename_axis('time'); df.to_parquet(tmp_path/'f.parquet')
    pd.testing.assert_frame_equal(read_samples(tmp_path/'f.parquet').frame, result.frame, check_index_type=False,
                                  check_column_type=False)


def test_out_of_order_and_repeats_are_put_right_and_said(tmp_path):
    (tmp_path / 'f.csv').write_text(
        HEAD + '2026-03-02T10:05:00+01:00,2\n2026-03-02T08:55:00Z,3\n2026-03-02T09:00:00Z,4\n2026-03-02T09:10:00Z,\n'
    )
    result = read_csv(tmp_path/'f.csv')
    assert list(result.frame.iloc[:, 0].dropna()) == [3, 4, 2] and len(result.frame) == 4
    assert len(result.times) == 5 and result.stamps[1] == '2026-03-02T10:05:00+01:00'
    notes = '; '.join(result.notes)
    assert 'sorted' in notes and 'the last row was kept' in notes and '2 time zones' in notes


@pytest.mark.parametrize('text,message', [
    (None, 'no such file'), (b'', 'empty'), ('timestamp,value\n', 'only a header'),
    ('a,b\n1,2\n', 'no column of times'),
    ('timestamp\n2026-01-01\n', 'no column of values'), ('2026-03-02T09:00:00Z,1\n', 'line 1: starts with data'),
    (HEAD + '2026-03-02T09:01:00Z,abc\n', r"line 3: 'abc' in column 'value' is no number"),
    (HEAD + '2026-03-02T09:01:00Z,1_0\n', r"line 3: '1_0' in column 'value'"),
    (HEAD + '2026-03-02T09:0', r'line 3: 1 of 2 columns; is the file cut off'),
    (HEAD + '2026-03-02T09:01:00Z,2,3\n', r'line 3: 3 columns, the header has 2'),
    (HEAD + 'never,2\n', r"line 3: 'never' in column 'timestamp' is no time"),
    (HEAD + '2026-13-02T09:01:00Z,2\n', r"line 3: '2026-13-02T09:01:00Z'"),
    (HEAD + ',2\n', r"line 3: no time in column 'timestamp'"),
    (HEAD + '2026-03-02 09:01:00,2\n', r"line 3: time '2026-03-02 09:01:00' has no time zone"),
    ('timestamp,value\n2026-03-02 09:00:00 +0200,1\n2026-03-02 09:01:00,2\n',
     r"line 3: time '2026-03-02 09:01:00' has no time zone"),
    (HEAD.encode() + b'2026-03-02T09:01:00Z,\xe9\n', r'line 3: not UTF-8'),
    ('timestamp,value\n'.encode('utf-16'), r'not UTF-8'),
    ('time,host,metric,value\n2026-01-01,a,cpu,x\n', r"line 2: 'x' in column 'value'"),
    ('time,host,metric,value\n2026-01-01,a,,1\n', 'names no metric'),
    ('time,cpu,cpu\n2026-01-01,1,2\n', "column 'cpu' stands there twice"),
    ('time,内存,磁盘\n2026-01-01,1,2\n', "'内存' and '磁盘' would both be called '__'"),
    ('time,metric,value\n2026-01-01,größe,1\n2026-01-01,grüße,2\n', "'größe' and 'grüße' would both be called"),
])
def test_bad_files_are_explained(tmp_path, text, message):
    path = tmp_path/'bad.csv'
    if text is not None: path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as e: read_csv(path)
    assert str(path) in str(e.value)


def test_folder_and_broken_parquet(tmp_path):
    with pytest.raises(DataError, match='is a folder'): read_csv(tmp_path)
    (tmp_path/'x.parquet').write_bytes(b'PAR1nothing')
    with pytest.raises(DataError, match='not a whole Parquet file'): read_samples(tmp_path/'x.parquet')
    pd.DataFrame({'time': ['2026-01-01'], 'value': ['x']}).to_parquet(tmp_path/'y.parquet')
    with pytest.raises(DataError, match="column 'value': not numbers"): read_samples(tmp_path/'y.parquet')


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=False, allow_infinity=False, width=64)),
                min_size=1, max_size=40))
@hypothesis_settings(max_examples=40)
def test_any_values_survive_a_csv(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp('csv')/'f.csv'
    path.write_text('timestamp,value\n'
                    + ''.join(f'{pd.Timestamp(s, unit="s", tz="UTC").isoformat()},{v!r}\n' for s, v in rows))
    expected = dict(rows)
    frame = read_csv(path).frame
    assert {t.timestamp(): v for t, v in frame.iloc[:, 0].items()} == expected
    assert frame.index.is_monotonic_increasing and frame.index.is_unique


# ---- replay as a source

@pytest.mark.parametrize('speed', [None, 1, 60])
def test_replay_gives_each_row_once(tmp_path, speed):
    times = pd.date_range('2020-01-01', periods=100, freq='30s', tz='UTC')
    pd.DataFrame({'timestamp': times, 'value': range(100)}).to_csv(tmp_path/'f.csv', index=False)
    source, rows, now = ReplaySource(tmp_path/'f.csv', speed), [], T0
    for _ in range(4000):
        rows.append(source.read(now)); now += pd.Timedelta(seconds=7)
        if source.done: break
    assert list(pd.concat(rows).iloc[:, 0]) == list(range(100))
    assert source.interval == 30/(speed or 1)
    assert len(source.read(now)) == 0


def test_a_million_rows(tmp_path):
    times = pd.date_range('2020-01-01', periods=1_000_000, freq='s').strftime('%Y-%m-%d %H:%M:%S')
    pd.DataFrame({'timestamp': times, 'value': np.arange(1e6)}).to_csv(tmp_path/'f.csv', index=False)
    result = read_csv(tmp_path/'f.csv')
    assert len(result.frame) == 1_000_000 and result.frame.iloc[-1, 0] == 999_999
