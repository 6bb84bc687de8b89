"The joint detector: what is odd only in combination; versions, exclusions, odd input."
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from smartcloudops.core.errors import DataError
from smartcloudops.detection.joint import JointModels, fit_joint, load_joint, save_joint
from smartcloudops.ingestion import synthetic_frame

pytestmark = pytest.mark.phase3
CPU = 'cpu_utilization_percent{host="web-1"}'


@pytest.fixture(scope='module')
def fleet(): return synthetic_frame(2, start='2026-01-05', hours=72, every=300, seed=5)

@pytest.fixture(scope='module')
def host(fleet): return fleet[[c for c in fleet.columns if 'web-1' in c]]

@pytest.fixture(scope='module')
def model(host): return fit_joint(host.iloc[:576], host.index[576])


def test_quiet_is_quiet_and_shapes_are_those_of_the_stream(host, model):
    scores = model.score(host.iloc[576:])
    assert scores.anomaly.to_numpy().sum() <= 1
    for part in (
        scores.score,
        scores.expected,
        scores.lower,
        scores.upper,
        scores.anomaly,
        scores.evidence,
        scores.confidence,
    ):
        assert part.shape == host.iloc[576:].shape
    assert scores.score.stack().between(0, 1).all() and (scores.lower <= scores.upper).to_numpy().all()
    assert scores.anomaly.dtypes.eq(bool).all()


@pytest.mark.parametrize(
    'metric', ['cpu_utilization_percent', 'http_requests_per_second', 'network_receive_bytes_per_second']
)
def test_an_ordinary_value_at_an_odd_moment(host, model, metric):
    name = f'{metric}{{host="web-1"}}'
    rows = host.iloc[576:].copy()
    low, high = host[name].quantile([.03, .97])
    odd = np.where(rows[name] > host[name].median(), low, high)
    rows.iloc[100:110, rows.columns.get_loc(name)] = odd[100:110]
    scores = model.score(rows)
    assert scores.score[name].iloc[100:110].median() >= .9 and scores.anomaly[name].iloc[100:110].sum() >= 3


def test_a_value_out_of_its_own_range_is_the_streams(host, model):
    rows = host.iloc[576:].copy()
    rows.iloc[50, rows.columns.get_loc(CPU)] = 100.
    assert not model.score(rows).anomaly[CPU].iloc[50]


def test_rows_are_judged_one_by_one(host, model):
    whole = model.score(host.iloc[576:600]).score
    single = pd.concat([model.score(host.iloc[n:n + 1]).score for n in range(576, 600)])
    pd.testing.assert_frame_equal(whole, single, check_exact=False, rtol=1e-9)


def test_incidents_are_not_learned(host):
    start, end = host.index[200], host.index[230]
    broken = host.copy()
    broken.loc[start:end, CPU] = 0.
    clean, taught = fit_joint(host.drop(host.loc[start:end].index), host.index[-1]), fit_joint(
        broken, host.index[-1], exclude=[(start, end)]
    )
    np.testing.assert_allclose(clean.precision, taught.precision)


def test_too_little_is_no_model(host):
    assert fit_joint(host.iloc[:100], host.index[0]) is None
    assert fit_joint(host[[CPU]], host.index[0]) is None
    assert fit_joint(host.iloc[:0], host.index[0]) is None
    assert fit_joint(host * 0 + 3, host.index[0]) is None


def test_odd_input_neither_crashes_nor_warns(host, model):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for rows in (
            host.iloc[:0],
            host.iloc[:3] * np.nan,
            host.iloc[:3] * 1e300,
            -host.iloc[:3],
            host[[CPU]].iloc[:5],
            host.iloc[:5].rename(columns={CPU: 'load1{host="web-1"}'}),
            host.iloc[:3].replace(host.iloc[0, 0], np.inf),
        ):
            assert model.score(rows).score.shape == rows.shape


def test_versions_are_kept_three_and_survive(tmp_path, fleet):
    models, now = JointModels(tmp_path), fleet.index[-1]
    own = fleet[[c for c in fleet.columns if 'web-2' in c]]
    for day in range(5): models.fit('web-2', own, now + pd.Timedelta(days=day))
    assert len(list(tmp_path.iterdir())) == 3 and JointModels(tmp_path).models['web-2'].version == 5
    both = models.score(fleet.iloc[:10])
    assert both.score.filter(like='web-1').isna().all().all() and both.score.filter(like='web-2').notna().any().any()
    assert JointModels(tmp_path / 'none').score(fleet.iloc[:10]) is None


def test_a_host_whose_name_begins_another_s_keeps_its_own_models(tmp_path, model):
    for version in (1, 2, 3):
        for host in ('db', 'db.vpc.internal'): save_joint(replace(model, host=host, version=version), tmp_path)
    assert set(JointModels(tmp_path).models) == {'db', 'db.vpc.internal'} and len(list(tmp_path.iterdir())) == 6


def test_a_broken_file_is_said_and_passed_over(tmp_path, model, caplog):
    path = save_joint(model, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match='no joint model'): load_joint(path)
    assert JointModels(tmp_path).models == {}


def test_who_is_due(tmp_path, host):
    models, now = JointModels(tmp_path), host.index[-1]
    assert models.due(['a', 'web-1'], now, troubled=['a']) == 'web-1'
    assert (
        models.fit('a', host.iloc[:5], now) is None
        and models.due(['a'], now) is None
        and models.due(['a'], now + pd.Timedelta('2h')) == 'a'
    )
    assert models.due([], now) is None
