"What the dashboard says over a data folder, asked through its routes: with a loop, without one, over odd folders."

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings as budget, strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from smartcloudops.core.clock import FakeClock, now, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import ConfigError
from smartcloudops.core.inventory import own_host
from smartcloudops.core.kv import write_heartbeat
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard import create_app, serve_command
from smartcloudops.dashboard.charts import decimate
from smartcloudops.dashboard.readings import AT_A_TIME
from smartcloudops.monitoring.history import History
from smartcloudops.remediation.ledger import actions as stored_actions
from tests.conftest import free_port, soak
from tests.fleet import build

pytestmark = pytest.mark.phase5
HTML = {'Accept': 'text/html,application/xhtml+xml,*/*;q=0.8'}
AT = pd.Timestamp('2026-03-01 02:12:40', tz='UTC')
PAGES = ['/', '/incidents', '/hosts', '/actions', '/policies', '/silences', '/reports', '/aws-health', '/settings']


@pytest.fixture(scope='module')
def night(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp('night'), AT)
    (folder / 'targets.json').write_text('{"app": [], "node_exporter": []}')
    return folder


def configured(folder, **dashboard) -> Settings:
    return Settings(
        data_dir=folder,
        policy_file=folder / 'policies.yaml',
        targets_file=folder / 'targets.json',
        reports_dir=folder / 'reports',
        dashboard=dashboard,
    )


@pytest.fixture
def client(night):
    "Asked at the moment for which the night was made, however long the tests before took."
    with use_clock(FakeClock(AT)):
        yield create_app(night, configured(night)).test_client()


def test_imported_app_without_anything_is_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from smartcloudops import dashboard
    from smartcloudops.dashboard import web

    vars(web).pop('app', None)
    answer = dashboard.app.test_client().get('/health')
    assert (answer.status_code, answer.get_json()) == (200, {'status': 'ok'})
    data = dashboard.app.test_client().get('/').get_json()
    assert data['metrics'] == {} and data['anomaly'] is False
    assert list(tmp_path.iterdir()) == []  # nothing is made because somebody looked
    vars(web).pop('app', None)


@pytest.mark.parametrize(
    'age, interval, status',
    [
        (1, 5, 200),
        (29, 5, 200),
        (31, 5, 503),
        (44, 15, 200),
        (46, 15, 503),
        (3600, 60, 503),
        (-29, 5, 200),
        (-3600, 60, 503),
    ],
)
def test_health_follows_the_heartbeat(tmp_path, age, interval, status):
    write_heartbeat(
        open_state(tmp_path / 'smartcloudops.db'), 'loop', {'interval': interval}, now() - pd.Timedelta(seconds=age)
    )
    answer = create_app(tmp_path, Settings()).test_client().get('/health')
    assert answer.status_code == status
    assert answer.get_json() == {'status': 'ok'} if status == 200 else 'last heard of' in answer.get_json()['reason']


def test_a_child_of_the_loop_expects_its_heartbeat(tmp_path):
    assert create_app(tmp_path, Settings(), loop=True).test_client().get('/health').status_code == 503
    assert create_app(tmp_path, Settings(), loop=False).test_client().get('/health').get_json() == {'status': 'ok'}


@pytest.mark.parametrize('path', PAGES)
def test_html_only_where_accept_names_it(client, path):
    for accept in ('', '*/*', 'application/json', 'text/plain'):
        assert client.get(path, headers={'Accept': accept}).mimetype == 'application/json', accept
    page = client.get(path, headers=HTML)
    assert (page.status_code, page.mimetype) == (200, 'text/html')
    assert '<h1' in page.text and 'Traceback' not in page.text


def test_the_first_screen_says_what_waits(client):
    page = client.get('/', headers=HTML).text
    assert '2 incidents open' in page and '1 waits for you' in page
    assert page.index('web-7</span>: cpu') < page.index(
        'worker-12</span>: memory'
    )  # what waits for a person comes first
    plain = page.replace('<span class="nb">', '').replace('</span>', '')  # names and ranges never break
    assert (
        'Proposed: restart worker.service on web-7.' in plain
        and '117 as expected' in page
        and '2 late' in page
        and '3 silenced' in page
    )
    data = client.get('/').get_json()
    assert data['anomaly'] is True and data['host'] == 'web-7' and data['metrics']['cpu'] > 80 and data['waits'] == 1


def test_a_quiet_fleet_says_so(tmp_path):
    folder = build(tmp_path, quiet=True, hosts={'web': 3})
    (folder / 'targets.json').write_text('{}')
    page = create_app(folder, configured(folder)).test_client().get('/', headers=HTML).text
    assert 'Nothing is abnormal' in page and 'checked' in page and 'incidents open' not in page


def test_values_of_this_host_stand_in_attributes(tmp_path):
    host, at = own_host(), now().floor('1s')
    index = pd.date_range(end=at, periods=3, freq='5s', name='time')
    frame = pd.DataFrame(
        {
            f'cpu_utilization_percent{{host="{host}"}}': [11.0, 12, 13.5],
            f'memory_used_percent{{host="{host}"}}': 40.0,
            f'disk_used_percent{{host="{host}",mount="/"}}': 60.0,
            f'network_receive_bytes_total{{host="{host}",interface="eth0"}}': [0.0, 5000, 15000],
        },
        index=index,
    )
    with History(tmp_path / 'history.db') as history:
        history.append(frame)
    client = create_app(tmp_path, Settings()).test_client()
    assert client.get('/').get_json()['metrics'] == {'cpu': 13.5, 'memory': 40, 'disk': 60, 'network_in': 2000}
    page = client.get('/', headers=HTML).text
    assert (
        'data-value="13.5"' in page
        and 'data-series="cpu_utilization_percent{' in page
        and '2 kB/s' in page.replace('\u202f', ' ').replace('2.0', '2')
    )


def test_points_keep_the_spike_and_the_gap(tmp_path):
    times = pd.date_range(end=now().floor('1s'), periods=30_000, freq='10s', name='time')
    values = np.full(len(times), 20.0)
    values[12_345] = 97
    values[20_000:20_500] = np.nan
    with History(tmp_path / 'history.db') as history:
        history.append(pd.DataFrame({'cpu_utilization_percent{host="a"}': values}, index=times))
    data = (
        create_app(tmp_path, Settings())
        .test_client()
        .get('/api/v1/points', query_string=dict(series='cpu_utilization_percent{host="a"}', hours=200, width=300))
        .get_json()
    )
    assert len(data['t']) < 1000 and max(v for v in data['v'] if v is not None) == 97 and data['samples'] == 29_500
    assert [b - a for a, b in data['gaps']] == [pytest.approx(5010)] and None in data['v']


def test_what_was_rewritten_is_marked_everywhere(client, night):
    "In the chart's points however few are drawn, in the page without JavaScript, in the data quality, in the CSV."
    name = 'cpu_utilization_percent{host="web-7"}'
    with History(night / 'history.db', readonly=True) as history:
        marks = history.rewritten(name)
    times = [t.timestamp() for t in marks.time]
    assert len(times) == 4
    for width in (10, 1000):
        data = client.get('/api/v1/points', query_string=dict(series=name, hours=6, width=width)).get_json()
        assert data['rewritten'] == times and set(times) < set(data['t'])
    assert (
        client.get('/api/v1/points', query_string=dict(series=name, start=times[0] + 1, end=times[-1])).get_json()[
            'rewritten'
        ]
        == times[1:]
    )
    for page in (client.get('/hosts/web-7', headers=HTML).text, client.get(f'/series/{name}', headers=HTML).text):
        assert (
            'rewritten <b>4</b>' in page
            and 'class="re in"' in page
            and '4 rewritten: came late or took the place of another value' in page
            and '4 points rewritten' in page
        )
    assert 'rewritten <b>0</b>' in client.get('/hosts/web-1', headers=HTML).text
    assert (
        client.get(f'/series/{name}?start={times[0] - 60}&end={times[-1] + 1}', headers=HTML).text.count(
            '</i> rewritten</span>'
        )
        >= 1
    )  # a word beside the number, in the table
    csv = client.get('/api/v1/csv', query_string=dict(series=name, hours=6)).text.splitlines()
    assert csv[0] == 'timestamp,value,rewritten' and [line.split(',')[0] for line in csv if line.endswith(',1')] == [
        t.strftime('%Y-%m-%dT%H:%M:%S.%fZ') for t in marks.time
    ]
    assert client.get('/api/v1/status').get_json()['corrected'] == 4


def test_a_csv_can_be_replayed(client, tmp_path):
    "What the page gives is what `detect` takes: one series as timestamp,value, a host as one row a sample."
    from smartcloudops.ingestion.replay import read_csv

    name = 'cpu_utilization_percent{host="web-7"}'
    (tmp_path / 'one.csv').write_text(client.get('/api/v1/csv', query_string=dict(series=name, hours=30)).text)
    (tmp_path / 'host.csv').write_text(client.get('/api/v1/csv', query_string=dict(host='web-7', hours=30)).text)
    one, host = read_csv(tmp_path / 'one.csv'), read_csv(tmp_path / 'host.csv')
    assert one.layout == 'value' and host.layout == 'long' and host.frame.shape[1] == 7
    assert one.frame.iloc[:, 0].tolist() == host.frame[name].dropna().tolist() and len(one.frame) > 1000
    for odd in ('host=nobody', 'series=nothing', 'series=%7B', ''):
        assert client.get(f'/api/v1/csv?{odd}').status_code in (400, 404), odd


def test_a_chart_s_page_shows_any_stretch(client):
    name = 'cpu_utilization_percent{host="web-7"}'
    start, end = AT - pd.Timedelta('3h'), AT - pd.Timedelta('2h')
    for path in ('/hosts/web-7', f'/series/{name}'):
        page = client.get(path, query_string=dict(start=start.isoformat(), end=end.isoformat()), headers=HTML).text
        assert (
            f'data-start="{start.timestamp()}"' in page
            and f'data-end="{end.timestamp()}"' in page
            and '1\u202fh, not live' in page
        )
        assert (
            'rel="prev"' in page
            and 'rel="next"' in page
            and re.search(rf'/csv\?\S*start={start:%Y-%m-%dT%H}:12:40Z', page)
        )  # the CSV is of the same stretch
        live = client.get(path, headers=HTML).text
        assert 'data-hours="6"' in live and 'data-end=' not in live and 'rel="next"' not in live
        for wrong in (
            dict(start=end.isoformat(), end=start.isoformat()),
            dict(start='yesterday'),
            dict(start=(AT + pd.Timedelta('1h')).isoformat()),
        ):
            assert client.get(path, query_string=wrong).status_code == 400, wrong


def test_a_month_of_every_series_is_never_in_memory_at_once(client, monkeypatch):
    asked, read = [], History.read
    monkeypatch.setattr(
        History, 'read', lambda self, series=None, **kw: asked.append(list(series)) or read(self, series=series, **kw)
    )
    page = client.get('/hosts/web-7?all=1&range=30d', headers=HTML).text
    assert page.count('class="chart"') == 7 and {len(names) for names in asked} <= set(range(1, AT_A_TIME + 1))


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float('nan'))), min_size=1, max_size=3000), st.integers(2, 200))
@budget(max_examples=soak(60, 1000))
def test_decimation_keeps_the_extremes_and_the_ends(values, width):
    v, t = np.array(values), np.arange(len(values), dtype=float)
    at = decimate(t, v, width)
    assert (
        (np.diff(at) > 0).all()
        and at[0] == 0
        and at[-1] == len(v) - 1
        and len(at) <= max(2 * width + 2, len(v) if len(v) <= 2 * width else 0)
    )
    if np.isfinite(v).any():
        assert np.nanmax(v[at]) == np.nanmax(v) and np.nanmin(v[at]) == np.nanmin(v)


def test_hosts_that_were_switched_off_are_counted_but_not_drawn(tmp_path):
    "A group that scales leaves names behind: the first screen is about those that are there."
    own, at = Settings(data_dir=tmp_path), pd.Timestamp.now(tz='UTC').floor('s')
    with History(own.history_path) as history:
        for name, last in (
            ('web-1', at),
            ('web-2', at),
            ('web-3', at - pd.Timedelta('2h')),
            ('web-8', at - pd.Timedelta('2D')),
            ('web-9', at - pd.Timedelta('9D')),
        ):
            times = pd.date_range(end=last, periods=30, freq='1min', name='time')
            history.append(
                pd.DataFrame(
                    {
                        f'{metric}{{host="{name}"}}': 30.0
                        for metric in ('cpu_utilization_percent', 'memory_used_percent')
                    },
                    index=times,
                )
            )
    client = create_app(tmp_path, own).test_client()
    page = client.get('/', headers=HTML).text
    assert 'data-host="web-3"' in page and 'data-host="web-8"' not in page and 'data-host="web-9"' not in page
    text = ' '.join(re.sub(r'<[^>]+>', ' ', page).split()).replace('\u202f', ' ')
    assert '3 hosts and 6 series' in text and '2 hosts are as expected, 1 is late, 2 are gone.' in text
    status = client.get('/api/v1/status').get_json()
    assert status['hosts'] == 3 and status['series'] == 6 and status['states'] == {'late': 1, 'ok': 2, 'gone': 2}
    assert [h['host'] for h in client.get('/api/v1/hosts?state=gone').get_json()['items']] == ['web-8', 'web-9']
    assert (
        client.get('/hosts?state=gone', headers=HTML).text.count('data-s="gone"') >= 2
        and client.get('/hosts/web-9', headers=HTML).status_code == 200
    )
    assert 'web-9' not in client.get('/metrics').text and 'host="web-3"' in client.get('/metrics').text


def test_metrics_in_both_formats(client, night):
    classic = client.get('/metrics')
    families = {f.name: f for f in text_string_to_metric_families(classic.text)}
    for name in (
        'loop_last_tick_timestamp_seconds',
        'loop_tick_duration_seconds',
        'series_age_seconds_max',
        'anomaly_score_max',
        'incidents_open',
        'incidents',
        'actions',
        'switch_on',
        'host_state',
        'history_samples',
        'history_bytes',
    ):
        assert f'smartcloudops_{name}' in families, name
    value = lambda name, **labels: next(
        s.value for s in families[name].samples if all(s.labels[k] == v for k, v in labels.items())
    )
    assert (
        value('smartcloudops_incidents_open', severity='page') == 2
        and value('smartcloudops_host_state', host='web-7', state='abnormal') == 1
    )
    assert (
        value('smartcloudops_actions', operation='service_restart', state='recovered') >= 1
        and value('smartcloudops_actions_open', state='awaiting_approval') == 1
        and value('smartcloudops_switch_on') == 1
    )
    assert (
        value('smartcloudops_history_samples') > 10_000
        and value('smartcloudops_history_corrected') == 4
        and value('smartcloudops_anomaly_score_max', host='web-7') > 0.8
    )
    assert (
        value('smartcloudops_anomaly_score_max', host='web-1') == 0.12
    )  # of the newest scores, though nothing is open there
    assert (
        value('smartcloudops_aws_cost_month_dollars') == 14.2
        and value('smartcloudops_aws_metrics_requested') == 210_000
        and value('smartcloudops_aws_requests', call='GetMetricData') == 420
    )
    assert value('smartcloudops_incidents') >= 3 and not {
        s.labels['state'] for s in families['smartcloudops_actions'].samples
    } & {'awaiting_approval', 'sent', 'verifying'}
    step = dict(policy='api-latency', step='1', operation='service_restart')
    assert (
        value('smartcloudops_remediation_sent', **step) == 1
        and value('smartcloudops_remediation_success_ratio', **step) == 1
        and value('smartcloudops_remediation_recovery_seconds', **step) == 240
        and value('smartcloudops_remediation_false', **step) == 0
    )
    buckets = {
        s.labels['le']: s.value for s in families['smartcloudops_tick_seconds'].samples if s.name.endswith('_bucket')
    }
    assert buckets == {'0.1': 3, '0.25': 5680, '0.5': 5755, '1': 5760, '+Inf': 5760}
    assert all(f.documentation.endswith('.') for name, f in families.items()), 'every family says what it is'
    open_text = client.get('/metrics', headers={'Accept': 'application/openmetrics-text; version=1.0.0'})
    assert open_text.mimetype == 'application/openmetrics-text' and list(parse_openmetrics(open_text.text))


def test_the_loop_s_heartbeat_holds_what_the_metrics_tell(tmp_path):
    from smartcloudops.main import Loop

    loop = Loop(Settings(data_dir=tmp_path, source='synthetic'))
    spent = iter((0.5, 0.75))
    loop.source.status = lambda: dict(usd=next(spent), usd_per_month=9.5, asked=50, calls={'GetMetricData': 2})
    loop.tick()
    loop.tick()
    loop.close()
    told = lambda: {
        f.name: f
        for f in text_string_to_metric_families(
            create_app(tmp_path, Settings(data_dir=tmp_path)).test_client().get('/metrics').text
        )
    }
    assert {s.labels['host'] for s in told()['smartcloudops_anomaly_score_max'].samples if s.value > 0} == {
        'web-1',
        'web-2',
        'web-3',
    }
    assert next(s.value for s in told()['smartcloudops_tick_seconds'].samples if s.name.endswith('_count')) == 2
    again = Loop(
        Settings(data_dir=tmp_path, source='synthetic')
    )  # a new process counts its dollars from zero, the month goes on
    again.source.status = lambda: dict(usd=0.25)
    again.tick()
    again.close()
    assert told()['smartcloudops_aws_cost_month_dollars'].samples[0].value == 1.0


def test_policies_say_what_they_would_have_done(client):
    page = client.get('/policies', headers=HTML).text.replace('\u202f', ' ')
    assert (
        '28 d of history: 6 of 31 incidents match, would have acted 4 times, 3 ended soon after, '
        '0 on what people called normal. Held back by cooldown 2.'
        in page.replace('<span class="nb">', '').replace('</span>', '')
    )
    assert (
        page.count('the policy was changed since') == 1
        and page.count('Not backtested yet') == 2
        and 'smartcloudops backtest --policy' in page
    )
    tested = {p['name']: p['backtest'] for p in client.get('/api/v1/policies').get_json()['items']}
    assert (
        tested['worker-memory']['changed']
        and not tested['web-cpu-worker']['changed']
        and tested['host-silent'] is None
        and tested['api-latency']['at'].endswith('Z')
    )


def test_nothing_is_forgotten_behind_a_thousand_refusals(night, client, tmp_path):
    folder = Path(shutil.copytree(night, tmp_path / 'night'))
    with open_state(folder / 'smartcloudops.db').begin() as c:
        row = {k: v for k, v in c.execute(stored_actions.select()).mappings().first().items() if k != 'id'}
        c.execute(
            stored_actions.insert(),
            [
                dict(row, incident='999', policy='another', state='refused', key=f'key {i}', sent=None)
                for i in range(1000)
            ],
        )
    later = create_app(folder, configured(folder)).test_client()
    for path in (
        '/',
        '/api/v1/incidents',
        '/api/v1/incidents/1',
        '/api/v1/actions?state=awaiting_approval',
        '/api/v1/policies',
    ):
        now_, then = client.get(path).get_json(), later.get(path).get_json()
        now_.pop('loop', None), then.pop('loop', None)
        assert now_ == then, path


def test_the_loop_in_one_line(client):
    page = client.get('/', headers=HTML).text
    line = ' '.join(re.sub(r'<[^>]+>', ' ', page.split('aria-label="Loop health"')[1].split('</section>')[0]).split())
    for part in (
        'switch on',
        'breaker closed',
        'in flight 1 of 1',
        'pages 6 of 7 this week',
        'AWS cost $14.20 this month',
    ):
        assert part in line, (part, line)


def test_an_open_page_is_sent_only_what_changed(client):
    page = client.get('/', headers=HTML).text
    version, mark = (
        re.search(r'data-version="(\w+)"', page)[1],
        re.search(r'id="now-fleet"[^>]*data-mark="(\w+)"', page)[1],
    )
    everything, ages = (
        client.get('/', query_string=dict(part='live', fleet=known), headers=HTML).text for known in ('', mark)
    )
    assert everything.count('data-host=') == 124 and ages.count('data-host=') == 0 and len(ages) < len(everything) / 2
    assert (
        len(re.search(r'data-seen="([\d ]+)"', ages)[1].split()) == 125
    )  # the newest time, and how far behind it each host is
    stream = client.get('/events')
    parts = stream.iter_encoded()
    next(parts)
    assert f'"version":"{version}"'.encode() in next(parts)  # so a page just opened does not fetch itself again
    stream.close()


def test_targets_are_asked_at_once_and_remembered(tmp_path):
    asked = []

    class Quiet(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    dead = [f'127.0.0.1:{free_port()}' for _ in range(30)]
    (tmp_path / 'targets.json').write_text(
        json.dumps(dict(app=[f'127.0.0.1:{server.server_port}'], node_exporter=dead))
    )
    client = create_app(tmp_path, configured(tmp_path)).test_client()
    report = client.get('/aws-health').get_json()
    assert (
        report['app'][0]['up']
        and not any(t['up'] for t in report['node_exporter'])
        and (report['up'], report['down']) == (1, 30)
    )
    client.get('/aws-health')
    client.get('/aws-health', headers=HTML)
    assert len(asked) == 1
    server.shutdown()


def test_a_broken_targets_file_is_explained(tmp_path):
    (tmp_path / 'targets.json').write_text('{"app": ["web-1:9x"]}')
    answer = create_app(tmp_path, configured(tmp_path)).test_client().get('/aws-health')
    assert answer.status_code == 503 and 'targets.json' in answer.get_json()['error']['message']


def test_unreadable_stores_are_said_and_take_nothing_down(tmp_path):
    (tmp_path / 'history.db').write_text('a diary, no database')
    write_heartbeat(open_state(tmp_path / 'smartcloudops.db'), 'loop', {'interval': 5}, now())
    client = create_app(tmp_path, Settings()).test_client()
    page = client.get('/', headers=HTML)
    assert page.status_code == 200 and 'the history cannot be read' in page.text
    assert (
        client.get('/health').status_code == 200
        and client.get('/ready').status_code == 503
        and client.get('/metrics').status_code == 200
    )


def test_a_state_that_cannot_be_read_is_no_quiet_night(night, tmp_path):
    folder = Path(shutil.copytree(night, tmp_path / 'night'))
    for log in folder.glob('smartcloudops.db-*'):
        log.unlink()
    (folder / 'smartcloudops.db').write_text('a diary, no database')
    with use_clock(FakeClock(AT)):
        page = create_app(folder, configured(folder)).test_client().get('/', headers=HTML)
    assert page.status_code == 200 and 'incidents cannot be read' in page.text
    assert 'What is abnormal cannot be read' in page.text and 'Nothing is abnormal' not in page.text


def test_a_broken_policy_file_hides_neither_switch_nor_breaker(night, tmp_path):
    folder = Path(shutil.copytree(night, tmp_path / 'night'))
    (folder / 'policies.yaml').write_text('policies: [{')
    with use_clock(FakeClock(AT)):
        client = create_app(folder, configured(folder)).test_client()
        page, told = client.get('/', headers=HTML).text, client.get('/metrics').text
    assert 'the policy file cannot be read' in page and '<dt>switch</dt>' in page and '<dt>breaker</dt>' in page
    assert 'smartcloudops_switch_on 1.0' in told


def test_lists_are_paged_and_errors_have_one_shape(client):
    first = client.get('/api/v1/hosts?limit=50').get_json()
    assert first['total'] == 124 and len(first['items']) == 50
    seen, page = [h['host'] for h in first['items']], first
    while page['next']:
        page = client.get(page['next']).get_json()
        seen += [h['host'] for h in page['items']]
    assert len(seen) == len(set(seen)) == 124
    page = client.get('/hosts?state=ok&limit=50').get_json()  # a page asked by a program is a list like the others
    assert (
        page.keys() == first.keys()
        and page['total'] == 117
        and client.get(page['next']).get_json()['offset'] == 50
        and 'state=ok' in page['next']
    )
    for path, status in (
        ('/api/v1/hosts/nobody', 404),
        ('/api/v1/hosts?limit=x', 400),
        ('/api/v1/points?series=%7B', 400),
        ('/api/v1/points?series=cpu&start=yesterday', 400),
        ('/api/v1/nothing', 404),
        ('/api/v1/incidents?state=odd', 400),
    ):
        answer = client.get(path)
        assert answer.status_code == status and answer.get_json()['error'].keys() == {'status', 'code', 'message'}, path
    assert {r['path'] for r in client.get('/api/v1/').get_json()['items']} >= {
        '/api/v1/hosts',
        '/api/v1/points',
        '/api/v1/actions',
        '/api/v1/alerts',
    }


def test_every_route_of_the_api_stands_in_the_docs(client):
    text = (
        (Path(__file__).parent.parent / 'docs' / 'dashboard.md').read_text(encoding='utf-8').split('below `/api/v1`')[1]
    )
    rules = {
        re.sub(r'<\w+:', '<', r['path'].removeprefix('/api/v1')) for r in client.get('/api/v1/').get_json()['items']
    }
    assert len(rules) > 15 and [r for r in rules if not re.search(rf'[ `]{re.escape(r)}`', text)] == []


def test_an_incident_tells_its_story_and_can_be_taken_along(client):
    page = client.get('/incidents/6', headers=HTML).text
    for part in (
        'first sign',
        'detected',
        'decided',
        'waits for approval',
        '10 of 11 gates say yes',
        'process cpu worker',
        'Approve and send',
    ):
        assert part in page, part
    story = client.get('/api/v1/incidents/6').get_json()
    assert (
        story['state'] == 'waits'
        and [s['step'] for s in story['timeline']][:3] == ['first sign', 'detected', 'decided']
        and len(story['suspects']) == 4
    )
    notebook = client.get('/incidents/6/export/source').get_json(force=True)
    import nbformat

    nbformat.validate(nbformat.from_dict(notebook))
    for kind in ('ipynb', 'source', 'alertmanager'):
        assert f'/incidents/6/export/{kind}"' in page, kind
    assert (
        'href="http://localhost/incidents/6" data-copy' in page
        and client.get('/incidents/6/export/pdf').status_code == 404
    )
    alert = client.get('/incidents/6/export/alertmanager').get_json()[0]
    assert alert['labels']['host'] == 'web-7' and alert['startsAt'].endswith('Z')
    closed = client.get('/incidents/1', headers=HTML).text
    assert 'Recovered, by fresh samples' in closed and 'Before and after' in closed
    assert client.get('/incidents/999').status_code == 404 and client.get('/incidents/..%2F6').status_code == 404


def test_an_incident_leaves_as_an_executed_notebook(night, tmp_path, monkeypatch):
    "By the report, in a program of its own; without papermill that is said, and how to get it."
    import importlib.util
    import shutil

    folder = tmp_path / 'copy'
    shutil.copytree(night, folder)
    client = create_app(folder, configured(folder)).test_client()
    answer = client.get('/incidents/6/export/ipynb')
    assert answer.status_code == 200 and 'incident-6.ipynb' in answer.headers['Content-Disposition'], answer.text[:500]
    cells = answer.get_json(force=True)['cells']
    assert 'web-7' in json.dumps(cells) and any('image/png' in json.dumps(c.get('outputs', ())) for c in cells)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'papermill' else found(name, *a))
    answer = client.get('/incidents/1/export/ipynb')
    assert answer.status_code == 501 and 'smartcloudops[reports]' in answer.get_json()['error']['message']


def test_alerts_of_an_alertmanager_become_incidents(tmp_path):
    client = create_app(tmp_path, Settings(dashboard=dict(alerts_token='ring'))).test_client()
    alert = dict(
        status='firing',
        labels=dict(alertname='HighLatency', host='web-3', severity='critical'),
        annotations=dict(summary='p99 over 2 s'),
        startsAt='2026-01-01T00:00:00Z',
    )
    send = lambda token, body: client.post('/api/v1/alerts', json=body, headers={'Authorization': f'Bearer {token}'})
    assert (
        send('wrong', dict(alerts=[alert])).status_code == 403 or send('wrong', dict(alerts=[alert])).status_code == 401
    )
    assert len(send('ring', dict(alerts=[alert])).get_json()['opened']) == 1
    assert send('ring', dict(alerts=[alert])).get_json()['opened'] == []  # told twice, opened once
    assert 'p99 over 2 s' in client.get('/', headers=HTML).text
    assert send('ring', dict(alerts=[dict(alert, status='resolved')])).get_json()['closed']
    assert send('ring', ['nonsense']).status_code == 400


def test_streams_come_back_where_they_were(tmp_path):
    engine = open_state(tmp_path / 'smartcloudops.db')
    write_heartbeat(engine, 'loop', {'interval': 5}, now())
    app = create_app(tmp_path, Settings(dashboard=dict(streams=2)))
    client, broadcaster = app.test_client(), app.extensions['smartcloudops'].broadcaster
    one = client.get('/events')
    parts = one.iter_encoded()
    assert b'event: hello' in next(parts)
    said = next(parts)
    assert b'event: change' in said and b'"open":0' in said
    last = said.split(b'\n')[0].removeprefix(b'id: ').decode()
    write_heartbeat(engine, 'loop', {'interval': 5}, now())
    back = client.get('/events', headers={'Last-Event-ID': last})
    more = back.iter_encoded()
    next(more)
    assert b'event: change' in next(more)
    assert client.get('/events').status_code == 503  # as many as there may be
    one.close()
    back.close()
    assert broadcaster.open == 0
    for _ in range(5):
        assert client.head('/events').status_code == 200  # takes no place that nobody would give back
    assert broadcaster.open == 0
    broadcaster.stop()


def test_the_web_process_stays_light():
    "The page never loads the detector or what it needs: a free-tier host has 1 GB for everything."
    heavy = ('numba', 'sklearn', 'scipy', 'matplotlib', 'boto3', 'duckdb', 'smartcloudops.detection.stream')
    code = (
        "import sys; from smartcloudops.dashboard import create_app; c = create_app('nowhere').test_client(); "
        f"c.get('/'); c.get('/metrics'); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_a_report_without_its_notebook_is_not_there(tmp_path):
    (tmp_path / 'reports').mkdir()
    (tmp_path / 'reports/week.html').write_text('<h1>Week</h1>')
    client = create_app(tmp_path, configured(tmp_path)).test_client()
    assert client.get('/reports/week.html').status_code == 200 and client.get('/reports/week.ipynb').status_code == 404


def test_gunicorn_serves_stops_cleanly_and_dies_with_its_parent(tmp_path):
    import httpx

    port = free_port()
    write_heartbeat(open_state(tmp_path / 'smartcloudops.db'), 'loop', {'interval': 600}, now())
    code = (
        "import subprocess, sys, time; from smartcloudops.core.settings import Settings; "
        "from smartcloudops.dashboard import serve_command; "
        f"subprocess.Popen(serve_command(Settings(), {str(tmp_path)!r}, {port})); "
        "print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        parent.stdout.readline()
        assert _answers(port, 120)
        with httpx.stream('GET', f'http://127.0.0.1:{port}/events', timeout=5) as stream:
            assert 'hello' in next(stream.iter_text())
            assert httpx.get(f'http://127.0.0.1:{port}/health', timeout=5).json() == {'status': 'ok'}
    finally:
        parent.kill()
        parent.wait()
    assert not _answers(port, 0) or _gone(port, 60)


@pytest.mark.parametrize(
    'begun',
    [
        b'GET /hea',
        b'POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n'
        b'Content-Length: 500\r\n\r\nname=',
    ],
    ids=['head', 'body'],
)
def test_clients_that_stop_in_the_middle_keep_nobody_out(tmp_path, begun):
    "More of them than there are threads, and nobody logged in."
    port = free_port()
    write_heartbeat(open_state(tmp_path / 'smartcloudops.db'), 'loop', {'interval': 600}, now())
    command = serve_command(Settings(dashboard=dict(threads=4, streams=2)), tmp_path, port)
    command[command.index('--timeout') + 1] = '5'
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        assert _answers(port, 120)
        stopped = [socket.create_connection(('127.0.0.1', port)) for _ in range(6)]
        for one in stopped:
            one.sendall(begun)
        time.sleep(1)
        assert _answers(port, 120)
        for one in stopped:
            one.close()
    finally:
        process.terminate()
        process.wait()


FORK = """
import os, sys
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard.server import fork_server
lock = open(sys.argv[1] + '/loop.lock', 'w')
page = fork_server(Settings(), sys.argv[1], int(sys.argv[2]), inherited=[lock.fileno()], env={'FOR_THE_PAGE': '1'})
print(page.pid, flush=True)
for command in sys.stdin:
    if command == 'end\\n': page.terminate()
    print(page.wait(60), page.poll(), flush=True)
"""


@pytest.fixture
def forked(tmp_path):
    "A program whose page is a fork of it: (the program, the page's process id, its port)."
    port = free_port()
    write_heartbeat(open_state(tmp_path / 'smartcloudops.db'), 'loop', {'interval': 600}, now())
    command = [sys.executable, '-c', FORK, str(tmp_path), str(port)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    page = int(program.stdout.readline())
    yield program, page, port
    program.kill()
    program.wait()
    try:
        os.killpg(page, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_a_forked_page_answers_and_ends_cleanly_when_it_is_told_to(forked):
    program, page, port = forked
    assert _answers(port, 120)
    assert os.getpgid(page) == page  # `end_group` reaches all of it
    program.stdin.write('end\n')
    program.stdin.flush()
    assert program.stdout.readline() == '0 0\n'
    assert _gone(port, 60)


def test_a_forked_page_holds_no_lock_of_its_parent_and_ends_soon_after_it_was_killed(forked):
    program, page, port = forked
    assert _answers(port, 120)
    if Path('/proc/self/fd').exists():
        assert not _holds(page, 'loop.lock') and _holds(program.pid, 'loop.lock')
    program.kill()
    program.wait()
    assert _gone(port, 60)
    assert _until(lambda: _has_ended(page), 60)


def test_importing_the_server_loads_no_heavy_package():
    code = (
        "import sys, smartcloudops.dashboard.server; "
        "print([m for m in ('numba', 'scipy', 'sklearn', 'matplotlib', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def _until(true, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _holds(pid: int, name: str) -> bool:
    "Whether a process has a file of that name open."
    return any(os.readlink(f).endswith(name) for f in Path(f'/proc/{pid}/fd').iterdir())


def _has_ended(pid: int) -> bool:
    "It is gone; or ended and nobody has asked how, as in a container whose first process never asks."
    try:
        os.kill(pid, 0)
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    except OSError:
        return True


def _answers(port: int, seconds: float) -> bool:
    import httpx

    end = time.monotonic() + seconds
    while True:
        try:
            return httpx.get(f'http://127.0.0.1:{port}/health', timeout=2).status_code == 200
        except httpx.HTTPError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)


def _gone(port: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not _answers(port, 0):
            return True
        time.sleep(0.2)
    return False


def test_an_unsafe_bind_or_proxy_is_refused():
    from smartcloudops.dashboard import hash_password

    with pytest.raises(ConfigError, match='would not ask who they are'):
        serve_command(Settings(dashboard=dict(host='0.0.0.0')), 'data')
    assert serve_command(Settings(dashboard=dict(host='0.0.0.0', tokens={'p': 'viewer:t'})), 'data')
    with pytest.raises(ConfigError, match='streams'):
        serve_command(Settings(dashboard=dict(streams=128, threads=128)), 'data')
    with pytest.raises(ConfigError, match='proxy'):
        create_app('data', Settings(dashboard=dict(proxy=1)))
    app = create_app(
        'data', Settings(dashboard=dict(proxy=1, prefix='/ops', users={'mara': 'operator:' + hash_password('x')}))
    )
    answer = app.test_client().get(
        '/ops/hosts',
        headers={
            **HTML,
            'X-Forwarded-For': '10.0.0.1',
            'X-Forwarded-Proto': 'https',
            'X-Forwarded-Host': 'ops.example.org',
        },
    )
    assert answer.status_code == 302 and answer.headers['Location'].startswith('/ops/login')
    client = app.test_client()
    proxied = {'X-Forwarded-For': '10.0.0.1', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'ops.example.org'}
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get('/ops/login', headers={**HTML, **proxied}).text)[
        1
    ]
    there = client.post(
        '/ops/login', data=dict(name='mara', password='x', next='/hosts?state=late', csrf_token=token), headers=proxied
    )
    assert there.status_code == 303 and there.headers['Location'].endswith(
        '/ops/hosts?state=late'
    )  # after the login one is still behind the proxy
    assert (
        client.get('/ops', headers=proxied).headers['Location'] == '/ops/'
    )  # or the page's own links would lead out of it


@pytest.mark.parametrize(
    'out, listed', [('{folder}/kept', 'there.html'), ('', 'here.html'), ('s3://bucket/kept', 'here.html')]
)
def test_reports_are_listed_where_the_schedule_puts_them(tmp_path, out, listed):
    for folder, name in (('kept', 'there'), ('reports', 'here')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f'{name}.html').write_text(f'<p>{name}</p>')
    reports = Settings(reports=dict(out=out.format(folder=tmp_path))).reports
    client = create_app(tmp_path, configured(tmp_path).model_copy(update=dict(reports=reports))).test_client()
    assert [r['name'] for r in client.get('/reports').get_json()['items']] == [listed]
    assert client.get(f'/reports/{listed}').status_code == 200
