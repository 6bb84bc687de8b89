"The stream detector's promises: exact, indifferent to order, unit and company, calm on nonsense, right about kinds."
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from smartcloudops.core.errors import DataError, StateError
from smartcloudops.detection.evaluate import pages
from smartcloudops.detection.models.state import KINDS
from smartcloudops.detection.stream import Scores, StreamDetector
from smartcloudops.ingestion import Fault, synthetic_frame
from tests.conftest import soak

pytestmark = pytest.mark.phase3
FIELDS = ('score', 'expected', 'lower', 'upper', 'anomaly', 'evidence', 'confidence')


def noisy(rows=240, seed=0, columns='abcd', gaps=.05):
    """Different characters side by side: noise, a cycle, a counter's rate, a constant that ticks once; with gaps and a
    spike."""
    rng, at = np.random.default_rng(seed), np.arange(rows)
    values = np.c_[
        rng.normal(10, 1, rows),
        50 + 20 * np.sin(at / 20) + rng.normal(0, 0.5, rows),
        rng.poisson(3, rows),
        np.where(at == rows // 2, 1.0, 0),
    ]
    values[rows*2//3:rows*2//3 + 5, 0] += 30
    values[rng.random(values.shape) < gaps] = np.nan
    times = pd.Timestamp('2026-01-01', tz='UTC') + pd.to_timedelta(np.cumsum(rng.integers(30, 90, rows)), unit='s')
    return pd.DataFrame(values[:, :len(columns)], index=times, columns=list(columns))


def same(a: Scores, b: Scores):
    for name in FIELDS:
        assert np.array_equal(
            np.asarray(getattr(a, name)), np.asarray(getattr(b, name)), equal_nan=name not in ('anomaly', 'evidence')
        ), name


def looped(frame, detector=None, cut=None, folder=None):
    detector, rows = detector or StreamDetector(), []
    for k, (at, row) in enumerate(frame.iterrows()):
        if k == cut:
            detector.save(folder/'detector.npz')
            detector = StreamDetector.load(folder/'detector.npz')
        rows.append(detector.update(at, row))
    return Scores(*(np.array([np.asarray(getattr(r, name)) for r in rows]) for name in FIELDS))


@pytest.mark.parametrize('seed', range(soak(3, 30)))
def test_a_frame_equals_a_loop_of_updates_cut_anywhere_by_save_and_load(seed, tmp_path):
    frame = noisy(seed=seed)
    whole = StreamDetector().score(frame)
    same(whole, looped(frame, cut=37 + 61*seed % 190, folder=tmp_path))
    detector = StreamDetector()
    parts = [detector.score(part) for part in (frame[:1], frame[1:1], frame[1:150], frame[150:])]
    assert np.array_equal(whole.score.to_numpy(), np.concatenate([p.score.to_numpy() for p in parts]), equal_nan=True)


@settings(max_examples=soak(15, 200))
@given(st.permutations(list('abcd')), st.integers(1, 4), st.integers(0, 50))
def test_order_and_company_change_nothing(order, many, seed):
    frame = noisy(200, seed)
    whole, some = StreamDetector().score(frame), StreamDetector().score(frame[order[:many]])
    for name in FIELDS:
        pd.testing.assert_frame_equal(getattr(whole, name)[order[:many]], getattr(some, name), check_exact=True)


@settings(max_examples=soak(25, 300))
@given(st.floats(1e-9, 1e9), st.integers(0, 50))
def test_the_unit_changes_no_score(factor, seed):
    frame = noisy(250, seed)
    plain, scaled = StreamDetector().score(frame), StreamDetector().score(frame*factor)
    np.testing.assert_allclose(plain.score, scaled.score, rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain.upper.to_numpy()*factor, scaled.upper.to_numpy(), rtol=1e-6, atol=1e-6*factor)


EXTREMES = [0., -0., 1., np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 1e-300, 1e15, -7.5]

@settings(max_examples=soak(60, 1000))
@given(
    st.lists(st.sampled_from(EXTREMES), min_size=0, max_size=120),
    st.lists(st.sampled_from([0.0, 1.0, 60.0, -3600.0, 86400.0, 3.2e8]), min_size=120, max_size=120),
)
def test_nonsense_is_defined_without_a_warning(values, steps):
    detector, at = StreamDetector(), pd.Timestamp('2026-01-01')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for value, step in zip(values, steps):
            at = max(min(at + pd.Timedelta(seconds=step), pd.Timestamp('2200-01-01')), pd.Timestamp('1971-01-01'))
            scores = detector.update(at, np.array([value]))
            if np.isnan(value): assert np.isnan(scores.score[0]) and not scores.anomaly[0]
            else:
                assert (
                    0 <= scores.score[0] <= 1
                    and 0 <= scores.confidence[0] <= 1
                    and 0 <= scores.evidence[0] < len(KINDS)
                )
                assert not np.isnan([scores.expected[0], scores.lower[0], scores.upper[0]]).any()


def test_shapes_types_and_empty_input():
    frame, detector = noisy(50), StreamDetector()
    scores = detector.score(frame)
    for name in FIELDS: assert getattr(scores, name).shape == frame.shape
    assert (scores.anomaly.dtypes == bool).all() and (scores.score.dtypes == 'float64').all()
    assert list(detector.update(frame.index[-1], frame.iloc[-1]).score.index) == list(frame.columns)
    assert StreamDetector().score(frame[:0]).score.shape == (0, 4) and StreamDetector().score(
        frame[[]]
    ).score.shape == (50, 0)
    assert StreamDetector().update('2026-01-01', np.zeros(0)).score.shape == (0,)


def test_an_array_keeps_its_length_and_series_come_and_go(tmp_path):
    array = StreamDetector()
    array.update('2026-01-01', np.zeros(3))
    array.save(tmp_path/'array.npz')
    with pytest.raises(DataError, match='order and length'):
        StreamDetector.load(tmp_path/'array.npz').update('2026-01-02', np.zeros(4))
    named = StreamDetector()
    named.update('2026-01-01', pd.Series({'a': 1.}))
    named.update('2026-01-02', pd.Series({'b': 1., 'a': 2.}))
    assert set(named.rows) == {'a', 'b'}
    with pytest.raises(DataError, match='twice'): named.update('2026-01-03', pd.Series([1., 2.], index=['a', 'a']))


def test_a_broken_or_missing_file_says_so(tmp_path):
    with pytest.raises(StateError, match='no detector'): StreamDetector.load(tmp_path/'none.npz')
    (tmp_path/'broken.npz').write_bytes(b'PK nothing')
    with pytest.raises(StateError, match='delete it'): StreamDetector.load(tmp_path/'broken.npz')


def test_starts_where_no_cache_folder_is_writable(tmp_path):
    code = (
        'import numpy as np; from smartcloudops.detection.stream import StreamDetector as S;'
        ' print(S().update("2026-01-01", np.array([1.])).score.shape)'
    )
    root = Path(__file__).parent.parent
    target = tmp_path/'smartcloudops'
    target.symlink_to(root/'smartcloudops')
    env = {**os.environ, 'NUMBA_CACHE_DIR': '/proc/nowhere', 'PYTHONPATH': str(root)}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert '(1,)' in done.stdout, done.stderr


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(5, 1, (170, 300)), index=pd.date_range('2026', periods=170, freq='min', tz='UTC'))
    assert np.array_equal(
        StreamDetector().score(frame).score.iloc[:, :50],
        np.column_stack([StreamDetector().score(frame[[c]]).score for c in frame.columns[:50]]),
    )


def test_useful_after_a_few_points_and_says_how_sure_it_is():
    found, false = [], []
    for seed in range(10):
        values = np.r_[np.random.default_rng(seed).normal(10, .2, 60), 30, 30, 30]
        scores = StreamDetector().score(
            pd.DataFrame({'a': values}, index=pd.date_range('2026', periods=63, freq='h', tz='UTC'))
        )
        found.append(scores.anomaly['a'].iloc[60:].any())
        false.append(scores.anomaly['a'].iloc[:60].any())
    assert all(found) and sum(false) <= 2
    assert scores.confidence['a'].iloc[19] == .5 and scores.confidence['a'].is_monotonic_increasing


def test_a_new_regime_is_accepted_after_a_while():
    rng = np.random.default_rng(2)
    values = np.r_[rng.normal(20, 1, 1500), rng.normal(60, 1, 1500)]
    scores = StreamDetector().score(
        pd.DataFrame({'a': values}, index=pd.date_range('2026', periods=3000, freq='5min', tz='UTC'))
    )
    assert scores.anomaly['a'].iloc[1500:1520].any() and not scores.anomaly['a'].iloc[-1000:].any()
    assert 55 < scores.lower['a'].iloc[-100:].median() < 60 < scores.upper['a'].iloc[-100:].median() < 65


RIGHT = dict(
    spike='spike', level_shift='level shift', slow_leak='drift', flatline='flatline', variance_burst='variance'
)
METRICS = [
    'cpu_utilization_percent',
    'memory_used_percent',
    'network_receive_bytes_per_second',
    'http_requests_per_second',
]

def found_with_right_kind(kind, seed, every, days):
    at = pd.Timestamp('2026-01-05', tz='UTC') + pd.Timedelta(days=days, minutes=seed*7 % 300)
    metric = METRICS[seed % len(METRICS)]
    fault = Fault(kind, 'web-1', metric, at, minutes=every/20 if kind == 'spike' else None)
    frame = synthetic_frame(1, '2026-01-05', 24*days + 6, every, seed, [fault])
    frame = frame[[c for c in frame.columns if c.startswith(metric + '{')]]
    scores = StreamDetector().score(frame)
    during = (
        (frame.index >= at)
        & (frame.index <= at + pd.Timedelta(minutes=fault.minutes + 1))
        & scores.anomaly.iloc[:, 0].to_numpy()
    )
    return RIGHT[kind] in {KINDS[k] for k in scores.evidence.iloc[during, 0]}


@pytest.mark.parametrize('every,days', [(60, 1.5), (300, 3.5)])
@pytest.mark.parametrize('kind', RIGHT)
def test_each_fault_is_found_with_its_right_kind(kind, every, days):
    runs = soak(12, 200)
    assert sum(found_with_right_kind(kind, seed, every, days) for seed in range(runs)) >= .95*runs - (runs < 50)


@pytest.mark.parametrize('every', [15, 60, 300])
def test_a_leak_inside_the_daily_rhythm_is_found_at_any_hour(every):
    found, hours = [], range(0, 24, soak(6, 1))
    for hour in hours:
        at = pd.Timestamp('2026-01-08', tz='UTC') + pd.Timedelta(hours=hour)
        frame = synthetic_frame(
            1, '2026-01-05', 72 + hour + 4, every, hour, [Fault('slow_leak', 'web-1', 'cpu', at)]
        ).filter(like='cpu')
        found.append(StreamDetector().score(frame).anomaly.iloc[:, 0][at:at + pd.Timedelta('3h')].any())
    assert sum(found) >= .75*len(hours), [h for h, ok in zip(hours, found) if not ok]


def test_what_grows_steadily_or_wanders_has_no_rhythm_to_drift_from():
    rng, rows = np.random.default_rng(4), 12*24*6
    values = np.c_[
        np.linspace(10, 90, rows)[:, None] + rng.normal(0, 0.2, (rows, 4)),
        50 + np.cumsum(rng.normal(0, 0.3, (rows, 12)), axis=0),
    ]
    scores = StreamDetector().score(
        pd.DataFrame(values, index=pd.date_range('2026-01-05', periods=rows, freq='5min', tz='UTC'))
    )
    flags = scores.anomaly.to_numpy()
    assert sum(len(pages(flags[:, k], 12)) for k in range(16)) <= 16*1.5*6/7


def test_the_first_quiet_weekends_are_no_news_but_a_missing_weekday_is():
    at = pd.date_range('2026-01-05', periods=23*288, freq='5min', tz='UTC')
    busy = np.where(
        (at.day_of_week < 5) & (at.strftime('%d') != '14'), 1.0, 0.1
    )  # the second Wednesday does not happen
    values = (
        20
        + 60 * busy[:, None] * np.sin(np.pi * (at.hour + at.minute / 60) / 24).to_numpy()[:, None] ** 2
        + np.random.default_rng(1).normal(0, 2, (len(at), 8))
    )
    alarms = pd.DataFrame(StreamDetector().score(pd.DataFrame(values, index=at)).anomaly.to_numpy(), index=at)
    assert alarms['2026-01-14 06:00':'2026-01-14 20:00'].any().all()
    assert not alarms[at.day_of_week >= 5].any().any()


@pytest.mark.parametrize('every', [60, 300])
@pytest.mark.parametrize('noise', ['normal', 'uniform', 'poisson', 'wandering'])
def test_plain_noise_keeps_the_budget_of_one_alarm_a_series_week(noise, every):
    rng, rows, count = np.random.default_rng(1), int(14*86400/every), soak(8, 64)
    values = dict(
        normal=lambda: rng.normal(50, 5, (rows, count)),
        uniform=lambda: rng.random((rows, count)),
        poisson=lambda: rng.poisson(5.0, (rows, count)),
        wandering=lambda: pd.DataFrame(rng.normal(0, 1, (rows, count))).ewm(alpha=0.1).mean().to_numpy() * 4 + 50,
    )[noise]()
    alarms = (
        StreamDetector()
        .score(pd.DataFrame(values, index=pd.date_range('2026-01-05', periods=rows, freq=f'{every}s', tz='UTC')))
        .anomaly.to_numpy()
    )
    assert sum(len(pages(alarms[:, k], 12)) for k in range(count)) <= 2*count


def test_the_band_stays_narrow_while_a_new_level_lasts():
    values = np.random.default_rng(3).normal(20, 1, 1000)
    values[864:900] += 40                                       # three hours, every five minutes
    scores = StreamDetector().score(
        pd.DataFrame({'a': values}, index=pd.date_range('2026-01-05', periods=1000, freq='5min', tz='UTC'))
    )
    width = (scores.upper - scores.lower)['a']
    assert (
        width.iloc[864:940].max() < 12 * width.iloc[700:860].median()
        and width.iloc[-10:].median() < 5 * width.iloc[700:860].median()
    )


def test_quiet_on_a_healthy_fleet():
    days, hosts = soak(3, 14), 2
    scores = StreamDetector().score(synthetic_frame(hosts, '2026-01-05', 24*days, 60, 11))
    flags = scores.anomaly.to_numpy()
    begins = (flags & ~np.vstack([np.zeros((1, flags.shape[1]), bool), flags[:-1]])).sum()
    assert begins <= max(1., flags.shape[1]*days/7)          # at most one a series-week


def test_a_zero_that_ticks_once_is_no_alarm():
    values = np.zeros((3000, 30))
    values[np.arange(30)*50 + 500, np.arange(30)] = 1
    scores = StreamDetector().score(
        pd.DataFrame(values, index=pd.date_range('2026', periods=3000, freq='15s', tz='UTC'))
    )
    assert not scores.anomaly.to_numpy().any()
    stays = pd.DataFrame(
        {'a': np.r_[np.zeros(1500), np.ones(100)]}, index=pd.date_range('2026', periods=1600, freq='5min', tz='UTC')
    )
    assert StreamDetector().score(stays).anomaly['a'].iloc[1500:1515].any()
