"Core: series and frames keep what they are given; settings, targets and state say what is wrong, and where."
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from smartcloudops.core.clock import FakeClock, from_us, now, to_us, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import ConfigError, DataError, StateError
from smartcloudops.core.files import read_text, write_atomically
from smartcloudops.core.frames import Rates, from_tidy, normalise, per_second, resample, to_tidy, validate
from smartcloudops.core.inventory import canonical_host, read_targets
from smartcloudops.core.kv import get_value, put_value, write_heartbeat
from smartcloudops.core.logs import mask_secrets
from smartcloudops.core.series import Series, format_duration, format_range, format_value
from smartcloudops.core.settings import load_settings, show_settings

pytestmark = pytest.mark.phase0

names = st.from_regex(r'[a-zA-Z_][a-zA-Z0-9_]{0,10}', fullmatch=True)
labels = st.dictionaries(names, st.text(max_size=12), max_size=4)


@given(st.from_regex(r'[a-zA-Z_:][a-zA-Z0-9_:]{0,20}', fullmatch=True), labels)
def test_what_a_series_prints_it_reads_back(metric, labels):
    series = Series(metric, labels)
    assert Series.parse(str(series)) == series
    assert Series.parse(str(series)).labels == labels
    assert hash(Series.parse(str(series))) == hash(series)


@given(st.text(max_size=40))
def test_any_text_is_a_series_or_a_clear_error(text):
    try: assert str(Series.parse(str(Series.parse(text)))) == str(Series.parse(text))
    except DataError as e: assert len(str(e)) > 20


@given(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(['percent', 'bytes', 'seconds', 'bytes_per_second', 'count', 'ratio', 'timestamp']),
)
def test_every_number_can_be_shown(value, unit):
    assert format_value(value, unit)
    assert format_range(value, value, unit)
    assert len(format_value(value, unit)) < 20


@given(st.floats(0, 1e9))
def test_durations_show_at_most_two_units(seconds):
    assert len(format_duration(seconds).split(' ')) <= 2


floats = st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.just(float('nan')))

@st.composite
def frames(draw):
    rows, columns = draw(st.integers(1, 8)), draw(st.lists(names, min_size=1, max_size=4, unique=True))
    seconds = draw(st.lists(st.integers(0, 10**9), min_size=rows, max_size=rows, unique=True))
    index = pd.to_datetime(sorted(seconds), unit='s', utc=True).rename('time')
    return pd.DataFrame(
        {c: draw(st.lists(floats, min_size=rows, max_size=rows)) for c in columns}, index=index, dtype=float
    )


@given(frames())
def test_tidy_and_wide_hold_the_same_samples(frame):
    back = from_tidy(to_tidy(frame))
    kept = frame.dropna(how='all').dropna(axis=1, how='all')
    pd.testing.assert_frame_equal(
        back[sorted(back)] if len(back) else kept,
        kept[sorted(kept)],
        check_freq=False,
        check_column_type=False,
        check_index_type=False,
    )


@given(frames(), st.randoms())
def test_normalise_repairs_any_order_and_repeats(frame, random):
    order = list(range(len(frame))) + [random.randrange(len(frame)) for _ in range(3)]
    random.shuffle(order)
    messy = frame.iloc[order]
    tidy, notes = normalise(messy)
    validate(tidy)
    pd.testing.assert_frame_equal(tidy, frame, check_freq=False)
    assert any('repeated' in n for n in notes)


@pytest.mark.parametrize('spoil, says', [
    (lambda f: f.tz_localize(None) if False else f.set_axis(f.index.tz_localize(None)), 'UTC'),
    (lambda f: f.iloc[::-1], 'not in order'),
    (lambda f: pd.concat([f, f.iloc[[-1]]]), 'twice'),
    (lambda f: f.astype('int64'), 'float64'),
    (lambda f: f.rename(columns={f.columns[0]: 'cpu{host=x}'}), 'cannot read a label'),
    (lambda f: f.reset_index(drop=True), 'has to be time'),
])
def test_validate_names_what_is_wrong(spoil, says):
    frame = pd.DataFrame(
        {'cpu{host="a"}': [1.0, 2.0]}, index=pd.date_range('2026-01-01', periods=2, freq='min', tz='UTC')
    )
    with pytest.raises(DataError, match=says): validate(spoil(frame))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20), st.integers(1, 19))
def test_rates_are_never_negative_and_pieces_equal_the_whole(raw, cut):
    frame = pd.DataFrame(
        {'sent_bytes_total{host="a"}': raw}, index=pd.date_range('2026-01-01', periods=len(raw), freq='min', tz='UTC')
    )
    whole = per_second(frame)
    assert not (whole.to_numpy() < 0).any()
    pieces = Rates()
    joined = pd.concat([pieces.update(frame.iloc[:cut]), pieces.update(frame.iloc[cut:])])
    pd.testing.assert_frame_equal(joined, whole, check_freq=False)


def test_resample_leaves_empty_bins_missing():
    frame = pd.DataFrame({'m': [1., 3.]}, index=pd.to_datetime(['2026-01-01 00:00', '2026-01-01 00:10'], utc=True))
    assert resample(frame, '5min')['m'].isna().tolist() == [False, True, False]
    assert resample(frame, '5min', 'sum')['m'].isna().tolist() == [False, True, False]


def test_write_atomically_survives_a_kill_between_any_two_lines(tmp_path):
    path = tmp_path/'snapshot.json'
    path.write_text(json.dumps({'n': 0}))
    code = (
        "from smartcloudops.core.files import write_atomically\nn = 0\nwhile True:\n    n += 1;"
        f" write_atomically({str(path)!r}, '{{\"n\": %d, \"pad\": \"%s\"}}' % (n, 'x' * 200_000))"
    )
    for pause in (.05, .15, .25):
        child = subprocess.Popen([sys.executable, '-c', code])
        threading.Event().wait(.4 + pause)
        child.kill(); child.wait()
        assert 'n' in json.loads(path.read_text())


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(DataError, match='cannot be written'): write_atomically(tmp_path/'x', 'y')


def test_writing_below_a_file_is_a_clear_error(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'): write_atomically(tmp_path/'file'/'x', 'y')


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path/'latin.toml').write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ConfigError, match='latin.toml: not UTF-8 text .byte 11.'):
        read_text(tmp_path/'latin.toml', 'settings file', ConfigError)


@pytest.mark.parametrize('secret', ['hunter2', 'AKIAABCDEFGHIJKLMNOP', 'eyJhbGciOi'])
def test_secrets_are_masked(secret):
    for text in (
        f'password={secret}',
        f'https://bob:{secret}@host/',
        f'token: {secret}',
        f'Authorization: Bearer {secret}',
        f'{{"api_key": "{secret}"}}',
    ):
        assert secret not in mask_secrets(text)
        told = mask_secrets(json.dumps({'message': text, 'after': 'kept'}))  # a line of a JSON log, a row of the audit
        assert secret not in told and json.loads(told)['after'] == 'kept'


@given(
    st.lists(
        st.sampled_from(['token', 'password', '=', ': ', '"', "'", '\\', '}', ']', ',', 'abc', '\n', ' ', 'é'])
    ).map(''.join)
)
def test_masking_leaves_json_json(text):
    for value in ({'m': text}, [text, {'token': text}]): json.loads(mask_secrets(json.dumps(value)))


@pytest.mark.parametrize('text, says', [
    ('[dashboard]\nport = "x"', r'smartcloudops.toml, line 2: dashboard.port'),
    ('sourcee = "host"', "did you mean 'source'"),
    ('[detection]\n\n\ncpu_threshold = 900', 'line 4'),
    ('[detekction]\n', "did you mean 'detection'"),
    ('a = [1,', 'not valid TOML'),
    ('data_dir = "a"\ndata_dir = "b"', 'not valid TOML'),
    ('[hosts]\nx = 1', r'line 2: hosts.x'),
])
def test_a_broken_settings_file_names_line_and_field(tmp_path, text, says):
    path = tmp_path/'smartcloudops.toml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=says): load_settings(path)


def test_environment_beats_file_and_options_beat_both(tmp_path, monkeypatch):
    path = tmp_path/'s.toml'
    path.write_text('source = "synthetic"\ninterval = 1\n[dashboard]\nport = 1111')
    monkeypatch.setenv('SMARTCLOUDOPS_DASHBOARD__PORT', '2222')
    monkeypatch.setenv('SMARTCLOUDOPS_INTERVAL', '2')
    cfg = load_settings(path, interval=3)
    assert (cfg.source, cfg.interval, cfg.dashboard.port) == ('synthetic', 3, 2222)
    monkeypatch.setenv('SMARTCLOUDOPS_DASHBOARD__PORT', 'many')
    with pytest.raises(ConfigError, match='SMARTCLOUDOPS_DASHBOARD__PORT'): load_settings(path)


def test_shown_settings_are_settings_again(tmp_path):
    (tmp_path/'again.toml').write_text(show_settings(load_settings('/dev/null')))
    assert load_settings(tmp_path/'again.toml') == load_settings('/dev/null')


@pytest.mark.parametrize(
    'text, says',
    [
        ('{"app": ["10.0.0.1:99999"]}', 'port 99999'),
        ('{"app": "x:1"}', 'has to be a list'),
        ('[]', 'expected an object'),
        ('{"app": [{"target": "a:1", "label": {}}]}', "did you mean 'labels'"),
        ('{"app": [{"target": "a:1", "labels": {"9": "x"}}]}', 'not a label name'),
        ('{"app": [\n\n5]}', r'app\[0\]'),
        ('{"app": ["[::1:80"]}', 'not an address'),
        ('{"app": ["a:1",]}', 'line 1, column'),
        ('', 'not valid JSON'),
        ('{"node_exporter": [{"target": "a:1", "labels": {"x": 5}}]}', 'has to be text'),
        ('{"app": ["http://a:1"]}', 'not an address'),
    ],
)
def test_a_broken_targets_file_names_the_entry(tmp_path, text, says):
    path = tmp_path/'aws_targets.json'
    path.write_text(text)
    with pytest.raises(ConfigError, match=says): read_targets(path)


def test_targets_keep_their_order_and_labels(tmp_path):
    path = tmp_path/'aws_targets.json'
    path.write_text(
        '{"node_exporter": ["b:1", "a:2"], "app": [{"target": "[2001:db8::1]:80", "labels": {"host": "web-1"}}]}'
    )
    found = read_targets(path)
    assert [(t.job, t.host, t.port) for t in found.targets] == [
        ('app', '2001:db8::1', 80),
        ('node', 'b', 1),
        ('node', 'a', 2),
    ]
    assert found.hosts == ['web-1', 'b', 'a']


@given(st.datetimes(pd.Timestamp('1970-01-01'), pd.Timestamp('2200-01-01')))
def test_microseconds_keep_a_time(time):
    assert from_us(to_us(time)) == pd.Timestamp(time, tz='UTC')


def test_state_is_shared_between_processes(tmp_path):
    path = tmp_path/'smartcloudops.db'
    engine = open_state(path)
    at = pd.Timestamp('2026-01-01', tz='UTC')
    write_heartbeat(engine, 'loop', {'interval': 5}, at)
    code = (
        "from smartcloudops.core.database import open_state; from smartcloudops.core.kv import last_heartbeat; e ="
        f" open_state({str(path)!r}, readonly=True); print(last_heartbeat(e, 'loop').detail['interval'])"
    )
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '5'
    )
    put_value(engine, 'k', {'a': 1}); put_value(engine, 'k', {'a': 2})
    assert get_value(engine, 'k') == {'a': 2} and get_value(engine, 'x', 7) == 7


@pytest.mark.parametrize('opened', [1, 2, 3])
def test_a_process_that_comes_and_goes_takes_no_rows_with_it(tmp_path, opened):
    """However often this process has opened the file, its locks hold: the last of another process does not fold up the
    log."""
    path = tmp_path/'smartcloudops.db'
    engines = [open_state(path, readonly=bool(i)) for i in range(opened)]
    code = (
        "from smartcloudops.core.database import open_state; from smartcloudops.core.kv import get_value; e ="
        f" open_state({str(path)!r}); print(get_value(e, 'round')); e.dispose()"
    )
    for i in range(3):
        put_value(engines[0], 'round', i)
        assert [get_value(e, 'round') for e in engines] == [i] * opened
        assert subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True, check=True
        ).stdout.strip() == str(i)


def test_a_folder_may_have_any_name(tmp_path):
    path = tmp_path/'50 % of it? #1'/'smartcloudops.db'
    put_value(open_state(path), 'k', 1)
    assert get_value(open_state(path, readonly=True), 'k') == 1 and path.exists()


@pytest.mark.parametrize('content', [b'hello, I am a diary', b'\0' * 5000])
def test_a_file_that_is_no_database_is_left_alone(tmp_path, content):
    path = tmp_path/'smartcloudops.db'
    path.write_bytes(content)
    with pytest.raises(StateError, match='not a database'): open_state(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path/'smartcloudops.db'
    with sqlite3.connect(path) as db: db.execute('create table recipes(x)')
    before = path.read_bytes()
    with pytest.raises(StateError, match='another program'): open_state(path)
    assert path.read_bytes() == before


def test_a_replaced_clock_is_replaced_back():
    with use_clock(FakeClock('2026-05-01')):
        assert now() == pd.Timestamp('2026-05-01', tz='UTC')
    assert now().year >= 2026 and now() != pd.Timestamp('2026-05-01', tz='UTC')


def test_a_host_without_a_name_is_nobody():
    assert canonical_host({}) == '' and canonical_host({'instance': ''}) == ''
    assert canonical_host({'host': 'old'}, {'old': 'new'}) == 'new'


def test_rates_of_many_counters_are_those_of_each_alone():
    "Counters that skip rows, reset, or stand beside their own rate; handed over whole or in pieces."
    from smartcloudops.core.frames import Rates, per_second
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(
        rng.integers(0, 50, (60, 8)).cumsum(0).astype(float),
        index=pd.date_range('2026-01-01', periods=60, freq='min', tz='UTC', name='time'),
        columns=[f'requests_total{{host="h{i}"}}' for i in range(7)] + ['requests_per_second{host="h0"}'],
    )
    raw = raw.mask(rng.random(raw.shape) < .3)
    raw.iloc[30:, 2] -= 200
    whole, pieces = per_second(raw), Rates()
    assert (
        list(whole.columns) == [f'requests_per_second{{host="h{i}"}}' for i in [1, 2, 3, 4, 5, 6, 0]]
        and (whole.min() >= 0).all()
    )
    for name in raw.columns[:7]:
        if name != 'requests_total{host="h0"}':
            assert whole[per_second(raw[[name]]).columns[0]].equals(per_second(raw[[name]]).iloc[:, 0])
    parts = [pieces.update(raw.iloc[i:j]) for i, j in ((0, 1), (1, 17), (17, 18), (18, 60))]
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_freq=False)
