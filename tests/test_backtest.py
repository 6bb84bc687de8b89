"The backtest walks the same gates as live, and what it says adds up."
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.errors import DataError
from smartcloudops.core.settings import Settings
from smartcloudops.remediation.backtest import backtest, read_labels, run_backtest
from smartcloudops.remediation.policy import read_policies
from smartcloudops.remediation.policy_file import Trust
from smartcloudops.remediation.sample_incidents import abnormal_runs, incidents_in, join, threshold_anomalies
from tests.conftest import soak
from tests.remediation_fleet import POLICY, START, Effect, anomaly, cpu, executor, freshness, incident

pytestmark = pytest.mark.phase4
WATCH = POLICY.replace('test_effect', 'webhook, with: {url: "http://localhost"}')


def past_incident(host, begin, minutes, id, **more):
    opened = START + pd.Timedelta(minutes=begin)
    closed = opened + pd.Timedelta(minutes=minutes)
    return incident(
        host,
        id=id,
        episode=id,
        opened=opened,
        state='closed',
        closed=closed,
        anomalies=(anomaly(host, start=opened, end=closed, ongoing=False),),
        **more,
    )


def fleet(n=6):
    return pd.DataFrame({cpu(f'web-{i}'): 30.0 for i in range(n)}, pd.date_range(START, periods=24 * 60, freq='1min'))


def test_by_hand():
    """Acted at once; two hours later again; a third within the cooldown is refused until that is over; the fourth ends
    before."""
    found = [past_incident('web-1', 0, 3, 1), past_incident('web-1', 120, 60, 2), past_incident('web-2', 180, 2, 3)]
    result = backtest(read_policies(WATCH), found, fleet(), Settings())
    rows = result.rows[['incident', 'target', 'step', 'did', 'gate', 'why']].values.tolist()
    assert rows[0] == ['1', 'web-1', 0, 'acted', '', 'recovered']
    assert rows[1] == ['2', 'web-1', 0, 'acted', '', 'not recovered']
    assert [r[:5] for r in rows if r[0] == '2'][1:] == [['2', 'web-1', 1, 'refused', 'attempts']]
    assert [r[:4] for r in rows if r[0] == '3'] == [['3', 'web-2', 0, 'acted']]
    assert result.incidents == result.covered == 3 and json.dumps(result.plain()) and 'cannot know' in result.text()


def test_false_actions_and_labels():
    found = [
        past_incident('web-1', 0, 3, 1),
        past_incident('web-2', 300, 3, 2, feedback='normal'),
        past_incident('web-3', 600, 3, 3, feedback='real'),
    ]
    result = backtest(read_policies(WATCH), found, fleet(), Settings(), labels={'1': 'normal', '3': 'real'})
    assert result.plain()['real_covered'] == 1
    assert result.summary()['false actions'][0] == 1
    assert 'incident' in set(result.rows.gate)


@pytest.mark.parametrize(
    'text', ['start,end,host\n{a},{b},\n', 'start;end;host\n{a};{b};web-1\n', 'start,end\n{a:.0f},{b:.0f}\n']
)
def test_labels_in_epochs_with_semicolons_or_of_any_host(tmp_path, text):
    found = [past_incident('web-1', 10, 3, 1), past_incident('web-1', 300, 3, 2)]
    spell = pd.Timestamp.timestamp if '.0f' in text else pd.Timestamp.isoformat
    (tmp_path/'labels.csv').write_text(text.format(a=spell(START), b=spell(START + pd.Timedelta('1h'))))
    assert read_labels(tmp_path/'labels.csv', found) == {'1': 'real', '2': 'normal'}
    (tmp_path/'labels.csv').write_text('start,end\n')
    assert set(read_labels(tmp_path/'labels.csv', found).values()) == {'normal'}
    (tmp_path/'labels.csv').write_text('start,end\nsoon,later\n')
    with pytest.raises(DataError, match="labels.csv: column 'start'"): read_labels(tmp_path/'labels.csv', found)


def test_hosts_that_report_at_different_seconds_are_judged_like_others():
    """Rows of a frame belong to any of them: an hour of 99 % is one incident of an hour, and a gap of a month prolongs
    nothing."""
    host = pd.Series(30., pd.date_range(START, periods=24 * 60, freq='1min'))
    host.iloc[600:660] = 99.
    host.iloc[-30:] = 99.
    later = pd.Series(30., pd.date_range(START + pd.Timedelta('30D'), periods=60, freq='1min'))
    series = {cpu(f'web-{n}'): pd.concat([host, later]).shift(freq=f'{7 * n}s') for n in range(8)}
    frame = pd.DataFrame(series)
    found = incidents_in(frame, Settings())
    assert {h: sum(i.host == h for i in found) for h in ('web-0', 'web-7')} == {'web-0': 2, 'web-7': 2}
    assert len(found) == 16
    assert all(i.closed - i.opened < pd.Timedelta('90min') for i in found)
    rows = backtest(read_policies(WATCH), [past_incident('web-3', 600, 3, 1)], frame, Settings()).rows
    assert rows[['target', 'did']].values.tolist() == [['web-3', 'acted']]


def test_nothing_to_do():
    empty = backtest(read_policies('policies: []'), [past_incident('web-1', 0, 3, 1)])
    assert (empty.covered, len(empty.rows)) == (0, 0) and 'Nothing would have been done' in empty.text()
    assert backtest(read_policies(WATCH), []).incidents == 0


@settings(max_examples=soak(25, 500))
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 24 * 60), st.integers(1, 200)), max_size=40))
def test_limits_hold_in_any_history(spans):
    found = [past_incident(f'web-{h}', b, m, n) for n, (h, b, m) in enumerate(spans, 1)]
    rows = backtest(read_policies(WATCH), found, None, Settings()).rows
    acted = rows[rows.did == 'acted'].sort_values('time')
    times = acted.time.astype('int64').to_numpy()
    assert all(((times > t - 3600 * 10**6) & (times <= t)).sum() <= 3 for t in times)
    for _, g in acted.groupby('target'): assert (g.time.diff().dropna() >= pd.Timedelta('15 min')).all()
    assert not acted.duplicated(['incident', 'target', 'step', 'time']).any()


def test_same_decisions_as_the_live_engine(tmp_path, monkeypatch):
    """The same incidents, once tick by tick through the engine with harmless effects, once as a backtest: the same
    sends, on the same targets, at the same time to a tick."""
    monkeypatch.setattr(Effect, 'path', tmp_path/'effects')
    text = POLICY.replace(
        'mode: auto', 'mode: auto\n    limits: {attempts: 9, failures: 9, per_hour: 9, cooldown: 15 min}'
    )
    found = [
        past_incident('web-1', 0, 3, 1),
        past_incident('web-1', 10, 30, 2),
        past_incident('web-2', 12, 4, 3),
        past_incident('web-3', 40, 2, 4),
        past_incident('web-4', 41, 3, 5),
    ]
    ended = lambda host, t: not any(i.host == host and i.opened <= t < i.closed for i in found)
    with use_clock(FakeClock(START)) as clock:
        r = executor(tmp_path, text, attempts=9, breaker_failures=9, per_hour=9)
        monkeypatch.setattr(Trust, 'lower', lambda *a: None)  # earned trust is not part of a backtest
        class Samples:
            def read(self, series, start, end):
                index = (
                    pd.date_range(start.ceil('15s'), end, freq='15s')
                    if end >= start
                    else pd.DatetimeIndex([], tz='UTC')
                )
                return pd.DataFrame(
                    {s: [31.0 if ended(s.split('"')[1], t) else 97.0 for t in index] for s in series}, index=index
                )
        for _ in range(4 * 60):
            now = clock.now()
            live = [
                past_incident(i.host, (i.opened - START).total_seconds() / 60, 1, int(i.id)).__class__(
                    **{
                        **vars(i),
                        'state': 'open',
                        'closed': None,
                        'anomalies': tuple(anomaly(i.host, start=i.opened) for _ in [0]),
                    }
                )
                for i in found
                if i.opened <= now < i.closed
            ]
            r.step(now, live, freshness([f'web-{n}' for n in range(6)], now), Samples()); clock.advance(15)
        sends = {(a.target, a.incident, a.step) for a in r.ledger.actions() if a.sent is not None}
        at = {(a.target, a.incident, a.step): a.sent for a in r.ledger.actions() if a.sent is not None}
    rows = backtest(
        read_policies(text), found, fleet(), Settings(remediation={'attempts': 9, 'breaker_failures': 9, 'per_hour': 9})
    ).rows
    acted = rows[rows.did == 'acted']
    assert {(t, i, s) for t, i, s in zip(acted.target, acted.incident, acted.step)} == sends
    for t, i, s, when in zip(acted.target, acted.incident, acted.step, acted.time):
        assert abs((at[t, i, s] - when).total_seconds()) <= 150


def test_stretches_and_join():
    flags = np.zeros(100, bool); flags[[3, 4, 6, 50, 51, 99]] = True
    assert abnormal_runs(flags, 3) == [(3, 6), (50, 51), (99, 99)]
    frame = pd.DataFrame(
        {cpu('a'): np.r_[np.full(30, 20.0), np.full(10, 95.0), np.full(60, 20.0)], cpu('b'): 20.0},
        pd.date_range(START, periods=100, freq='1min'),
    )
    found = join(threshold_anomalies(frame, {'cpu_utilization_percent': 90}))
    assert [(i.host, i.opened, i.closed - i.opened) for i in found] == [('a', frame.index[30], pd.Timedelta('11 min'))]


def test_from_files(tmp_path):
    minutes = pd.date_range(START, periods=600, freq='1min')
    value = np.where(
        (np.arange(600) > 300) & (np.arange(600) < 320), 97.0, 20.0 + np.random.default_rng(0).normal(0, 1, 600)
    )
    pd.DataFrame({'time': minutes, 'host': 'web-1', 'metric': 'cpu_utilization_percent', 'value': value}).to_csv(
        tmp_path / 'data.csv', index=False
    )
    (tmp_path/'p.yaml').write_text(WATCH)
    result = run_backtest(tmp_path/'p.yaml', tmp_path/'data.csv', Settings(data_dir=tmp_path))
    assert len(result.rows[result.rows.did == 'acted']) >= 1 and set(result.rows.target) == {'web-1'}
    with pytest.raises(DataError, match='no history of incidents'):
        run_backtest(tmp_path / 'p.yaml', 'history', Settings(data_dir=tmp_path / 'none'))
    with pytest.raises(DataError): run_backtest(tmp_path/'p.yaml', tmp_path/'nothing.csv', Settings(data_dir=tmp_path))
    seen = []
    run_backtest(tmp_path/'p.yaml', tmp_path/'data.csv', Settings(data_dir=tmp_path), progress=seen.append)
    assert seen[-1] == 1.


def test_the_policy_file_in_force_keeps_its_last_backtest(tmp_path, monkeypatch, caplog):
    """By the command line, as people do it: the page of policies reads it from the state; another file leaves no
    trace; where nothing can be written, it is still told."""
    from click.testing import CliRunner

    from smartcloudops.cli import main
    from smartcloudops.core.database import open_state
    from smartcloudops.remediation import last_backtests
    monkeypatch.chdir(tmp_path)
    minutes = pd.date_range(START, periods=600, freq='1min')
    value = np.where(
        (np.arange(600) > 300) & (np.arange(600) < 320), 97.0, 20.0 + np.random.default_rng(0).normal(0, 1, 600)
    )
    pd.DataFrame({'time': minutes, 'host': 'web-1', 'metric': 'cpu_utilization_percent', 'value': value}).to_csv(
        'data.csv', index=False
    )
    second = WATCH + WATCH.split('policies:\n')[1].replace('web-cpu', 'never').replace(
        'metric: cpu_utilization_percent', 'metric: memory_used_percent'
    )
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config/policies.yaml').write_text(second)
    (tmp_path / 'mine.yaml').write_text(WATCH)
    run = lambda *a: CliRunner().invoke(main, ['backtest', '--data', 'data.csv', *a])
    assert run('--policy', 'mine.yaml').exit_code == 0 and not (tmp_path/'data').exists()
    told = json.loads(run('--policy', str(tmp_path/'config/policies.yaml'), '--json').stdout)
    kept = last_backtests(open_state(tmp_path/'data/smartcloudops.db'))
    assert set(kept) == {'web-cpu', 'never'}
    assert kept['never']['covered'] == kept['never']['acted'] == 0
    assert kept['web-cpu']['data'] == 'data.csv'
    one = kept['web-cpu']
    assert (one['covered'], one['acted'], sum(one['refused'].values())) == (
        told['covered'],
        told['policies'][0]['acted'],
        told['policies'][0]['refused'],
    )
    assert one['acted'] >= 1
    assert one['policy_hash'] == read_policies(second).named('web-cpu').hash
    assert (pd.Timestamp.now(tz='UTC') - one['at']) < pd.Timedelta('1h')
    assert last_backtests(open_state(tmp_path/'new.db')) == {}
    for file in (tmp_path/'data').glob('smartcloudops.db*'): file.unlink()
    (tmp_path/'data/smartcloudops.db').write_bytes(b'something else, and long enough to be looked at')
    result = run('--policy', 'config/policies.yaml')
    assert result.exit_code == 0 and 'web-cpu: acted' in result.output and 'not kept' in result.output


def test_an_incident_that_ends_at_once_leaves_its_host_well():
    "Opened and closed in one moment, twenty times: the fleet is not taken for ill afterwards."
    found = [past_incident(f'web-{n % 5}', 60 + n, 0, n + 1) for n in range(20)] + [past_incident('web-5', 300, 30, 99)]
    rows = backtest(read_policies(WATCH), found, fleet(), Settings(remediation={'attempts': 9, 'per_hour': 9})).rows
    assert rows[rows.incident == '99'].did.tolist()[0] == 'acted'


@pytest.mark.parametrize('with_samples', [True, False])
def test_an_incident_that_is_open_still_is_asked_about_while_something_is_known(with_samples, monkeypatch):
    """A gate that says 'not yet' for ever (its samples have ended) is asked again every five minutes: up to the last
    sample, or the last time an incident was heard of, not to the end of time."""
    import smartcloudops.remediation.walk as walk
    asked, decide = [], walk.decide
    def counted(incident, state, policy, at, host, **more):
        asked.append(at)
        assert len(asked) < 1000, 'it never ends'
        return decide(incident, state, policy, at, host, **more)
    monkeypatch.setattr(walk, 'decide', counted)
    opened, heard = START + pd.Timedelta('1h'), START + pd.Timedelta('3h')
    still = incident('web-1', id=1, episode=1, opened=opened, updated=heard, state='open', closed=None,
                     anomalies=(anomaly('web-1', start=opened, end=None, ongoing=True),))
    frame = fleet()
    frame.loc[START + pd.Timedelta('30min'):, cpu('web-1')] = np.nan      # it is silent since before
    if not with_samples: monkeypatch.setattr(walk, 'taken_as_fresh', lambda incident, at: {})
    result = backtest(read_policies(WATCH), [still], frame if with_samples else None, Settings())
    assert set(result.rows.gate) == {'fresh data'} and len(result.rows) == 1
    last = frame.index[-1] if with_samples else heard
    end = last.value // 1000
    assert end - 300 * walk.SECOND < max(asked) <= end and len(asked) == (end - asked[0]) // (300 * walk.SECOND) + 1
