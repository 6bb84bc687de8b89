"Suspects: the right one first, nobody when nothing is wrong, and no surprise from odd input."
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smartcloudops.core.errors import DataError
from smartcloudops.core.series import Series
from smartcloudops.detection import rank_suspects
from smartcloudops.detection.fault_cases import petshop_cases, petshop_quiet, read_graph, read_petshop
from smartcloudops.detection.suspects import judge_suspects, summarise_suspects
from tests.conftest import soak

pytestmark = pytest.mark.phase3
PETSHOP = Path(__file__).parent.parent / 'nbs/data/petshop'
TIMES = pd.date_range('2026-01-01', periods=205, freq='5min', tz='UTC')
AT = TIMES[-5]
GRAPH = {'page': ['shop', 'ads'], 'shop': ['db'], 'ads': []}


def latency(host): return str(Series('latency_seconds', {'host': host, 'stat': 'Average'}))

def services(seed=0, fault=None, size=.3, requests=True, rows=205):
    "page calls shop and ads, shop calls db; times add up along the calls."
    rng = np.random.default_rng(seed)
    own = {h: np.abs(rng.normal(m, .05 * m, rows)) for h, m in (('db', .02), ('shop', .05), ('ads', .03), ('page', .1))}
    if fault: own[fault][-4:-1] += size
    spent = {'db': own['db'], 'shop': own['shop'] + own['db'], 'ads': own['ads']}
    spent['page'] = own['page'] + spent['shop'] + spent['ads']
    data = {latency(h): v for h, v in spent.items()}
    if requests:
        data |= {
            str(Series('requests_per_period', {'host': h, 'stat': 'Sum'})): rng.poisson(100, rows).astype(float)
            for h in spent
        }
    return pd.DataFrame(data, index=TIMES[-rows:])


@pytest.mark.parametrize('fault', ['db', 'shop', 'ads', 'page'])
@pytest.mark.parametrize('requests', [True, False])
def test_the_deepest_on_the_path_is_first(fault, requests):
    right = [
        rank_suspects(services(seed, fault, requests=requests), latency('page'), AT, GRAPH)['host'].tolist()[:1]
        == [fault]
        for seed in range(soak(10, 100))
    ]
    assert np.mean(right) >= .9


def test_nobody_is_accused_when_nothing_is_wrong():
    empty = [rank_suspects(services(seed), latency('page'), AT, GRAPH).empty for seed in range(soak(30, 300))]
    assert np.mean(empty) >= .9


def test_a_trouble_elsewhere_is_not_the_cause():
    data = services(1, 'ads')
    data[latency('unrelated')] = data[latency('ads')] * 3
    assert 'unrelated' not in set(rank_suspects(data, latency('page'), AT, GRAPH)['host'])


def test_result_is_a_ranking():
    found = rank_suspects(services(2, 'db'), Series.parse(latency('page')), AT, GRAPH)
    assert (
        list(found.columns) == ['series', 'host', 'score']
        and found['score'].is_monotonic_decreasing
        and found['score'].between(0, 1).all()
    )
    assert all(Series.parse(s).host == h for s, h in zip(found['series'], found['host']))
    none = rank_suspects(services(2), latency('page'), AT, GRAPH)
    assert list(none.columns) == ['series', 'host', 'score'] and none['score'].dtype == float


def test_a_naive_time_is_utc_and_an_unknown_target_is_an_error():
    data = services(2, 'db')
    assert rank_suspects(data, latency('page'), AT.tz_localize(None), GRAPH).equals(
        rank_suspects(data, latency('page'), AT, GRAPH)
    )
    with pytest.raises(DataError, match='nowhere'): rank_suspects(data, latency('nowhere'), AT, GRAPH)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda f: f * np.nan,
        lambda f: f * 0,
        lambda f: f.iloc[:0],
        lambda f: f.iloc[-5:],
        lambda f: f.iloc[:-5],
        lambda f: f.iloc[-12:],
        lambda f: f.replace(f.iloc[3, 0], np.inf),
        lambda f: f * 1e300,
        lambda f: f * 1e-300,
        lambda f: f.assign(**{latency('new'): np.r_[np.full(len(f) - 5, np.nan), np.ones(5)]}),
        lambda f: f[[latency('page')]],
    ],
)
def test_odd_frames_neither_crash_nor_warn(spoil):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for graph in (GRAPH, None, {}, {'page': ['page', 'shop'], 'shop': ['page']}):
            rank_suspects(spoil(services(3, 'db')), latency('page'), AT, graph)


def test_fine_steps_on_plain_hosts_injected_host_first():
    "A busy disk on one host, then load on a hundred that call it."
    right = 0
    for seed in range(n := soak(5, 50)):
        rng, times = np.random.default_rng(seed), pd.date_range('2026-01-01', periods=720, freq='5s', tz='UTC')
        step = lambda start, size, rng=rng: np.where(np.arange(720) >= start, size, 0.) + rng.normal(0, 1, 720)
        data = {'pressure_io_some_percent{host="db-1"}': 5 + step(660, 40)}
        for k in range(100):
            for m in range(5):
                data[f'metric_{m}{{host="web-{k}"}}'] = 20 + step(664 + int(rng.integers(8)), rng.uniform(8, 30))
        found = rank_suspects(
            pd.DataFrame(data, index=times),
            'metric_0{host="web-7"}',
            times[660],
            {f'web-{k}': ['db-1'] for k in range(100)},
        )
        right += found['host'][0] == 'db-1'
    assert right / n >= .9


def test_petshop_example():
    told, graph = json.loads((PETSHOP / 'target.json').read_text()), read_graph(PETSHOP / 'graph.csv')
    quiet = pd.read_csv(PETSHOP / 'quiet.csv', index_col=0)
    quiet.index = pd.to_datetime(quiet.index, utc=True)
    abnormal = read_petshop(PETSHOP / 'metrics.csv')[quiet.columns]
    quiet.index = abnormal.index[0] - pd.Timedelta('5min') * np.arange(len(quiet), 0, -1)
    assert (
        rank_suspects(pd.concat([quiet, abnormal]), latency('PetSite'), abnormal.index[0], graph)['host'][0]
        == told['root_cause']['node']
    )


def test_petshop_folder_is_read(tmp_path):
    with pytest.raises(DataError, match='noissue'): list(petshop_cases(tmp_path))
    (tmp_path / 'low/noissue').mkdir(parents=True), (tmp_path / 'low/train/issue_2').mkdir(parents=True)
    for name, to in (('metrics.csv', 'train/issue_2'), ('target.json', 'train/issue_2'), ('graph.csv', '')):
        (tmp_path / 'low' / to / name).write_text((PETSHOP / name).read_text())
    raw = pd.read_csv(PETSHOP / 'metrics.csv', header=[0, 1, 2], index_col=0)
    quiet = pd.concat([raw.iloc[:1]] * 200).set_axis(raw.index[0] + 300 * np.arange(200))
    quiet.to_csv(tmp_path / 'low/noissue/metrics.csv')
    summary = summarise_suspects(judge_suspects([*petshop_cases(tmp_path), *petshop_quiet(tmp_path, every=60)]))
    assert summary == dict(top1=1., top3=1., specificity=1., issues=1, quiet=8)
