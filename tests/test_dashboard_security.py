"Who may look, who may act: every route by every role, forged requests, names full of HTML, paths that climb."

import re
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings as budget, strategies as st

from smartcloudops.core.clock import now
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard import create_app, hash_password
from smartcloudops.detection.anomalies import Anomaly
from smartcloudops.monitoring.history import History
from smartcloudops.remediation.ledger import Ledger
from tests.conftest import soak
from tests.fleet import build, case

pytestmark = pytest.mark.phase5
HTML = {'Accept': 'text/html'}
PASSWORD = 'correct horse battery'
HASH = hash_password(PASSWORD)


@pytest.fixture(scope='module')
def night(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp('night'), hosts={'web': 8, 'worker': 13})
    (folder / 'targets.json').write_text('{"app": [], "node_exporter": []}')
    (folder / 'reports').mkdir()
    (folder / 'reports' / 'daily.html').write_text(
        '<h1>daily</h1><script>alert(1)</script><script src="https://cdn.example.org/x.js"></script>'
    )
    (folder / 'secret.txt').write_text('not for you')
    return folder


def make(folder, **dashboard):
    return create_app(
        folder,
        Settings(
            data_dir=folder,
            policy_file=folder / 'policies.yaml',
            targets_file=folder / 'targets.json',
            reports_dir=folder / 'reports',
            dashboard=dashboard,
        ),
    )


@pytest.fixture(scope='module')
def guarded(night):
    return make(
        night,
        users={'mara': f'operator:{HASH}', 'kim': f'viewer:{HASH}'},
        tokens={'reader': 'viewer:tok-view', 'robot': 'operator:tok-op'},
        alerts_token='tok-alerts',
    )


@pytest.fixture(autouse=True)
def forgiven(guarded):
    guarded.extensions['failures'].window.storage.reset()


def csrf(client, path='/login') -> str:
    return re.search(r'name="csrf-token" content="([^"]+)"', client.get(path, headers=HTML).text)[1]


def logged_in(app, name, password=PASSWORD):
    client = app.test_client()
    answer = client.post('/login', data=dict(name=name, password=password, csrf_token=csrf(client)))
    assert answer.status_code == 303
    return client


def routes(app, methods):
    fill = dict(id='6', name='web-7', what='deny', kind='ipynb', filename='app.css')
    for rule in app.url_map.iter_rules():
        if rule.methods & methods:
            yield rule.endpoint, re.sub(r'<(?:\w+:)?(\w+)>', lambda m: fill[m[1]], rule.rule)


PUBLIC = {'static', 'health', 'ready', 'login', 'icon'}


def test_every_route_by_every_role(guarded):
    bearer = lambda token: {'Authorization': f'Bearer {token}', 'Accept': 'application/json'}
    client = guarded.test_client()
    for endpoint, path in routes(guarded, {'GET'}):
        assert (client.get(path).status_code == 401) == (endpoint not in PUBLIC), path
        if endpoint == 'incident_export':
            path = path.replace('ipynb', 'source')  # an executed one takes seconds
        for token in ('tok-view', 'tok-op'):
            answer = client.get(path, headers=bearer(token))
            assert answer.status_code in (200, 302, 400, 404), (path, token)
            answer.close()
    for endpoint, path in routes(guarded, {'POST'}):
        if endpoint in ('login', 'logout'):
            continue
        assert client.post(path).status_code == 401, path
        assert client.post(path, headers=bearer('tok-view')).status_code == 403, path
    assert client.get('/events').status_code == 401
    for method in ('GET', 'POST'):
        for endpoint, path in routes(guarded, {method}):
            for token in ('wrong', 'tok-alerts', ''):
                guarded.extensions['failures'].window.storage.reset()
                status = client.open(path, method=method, headers=bearer(token)).status_code
                assert status == (
                    400
                    if (endpoint, token, method) == ('api.alerts', 'tok-alerts', 'POST')
                    else status
                    if endpoint in PUBLIC - {'login'}
                    else 401
                ), (path, token)


def test_a_viewer_looks_and_an_operator_acts(guarded):
    viewer, operator = logged_in(guarded, 'kim'), logged_in(guarded, 'mara')
    page = viewer.get('/incidents/6', headers=HTML).text
    assert 'an operator decides' in page and 'Approve and send' not in page
    answer = viewer.post('/silences', data=dict(host='web-1', hours='1', csrf_token=csrf(viewer, '/')))
    assert answer.status_code == 403
    answer = operator.post(
        '/silences', data=dict(host='web-1', hours='1', reason='work', csrf_token=csrf(operator, '/'))
    )
    assert answer.status_code == 303
    assert (
        'web-1 is silenced' not in operator.get('/silences', headers={**HTML, 'HX-Request': 'true'}).text
    )  # a page that refreshes itself does not take away what another one is to say
    assert 'web-1 is silenced' in operator.get('/silences', headers=HTML).text
    found = operator.get('/api/v1/silences').get_json()['items'][0]
    assert (found['host'], found['who'], found['reason']) == ('web-1', 'mara', 'work')  # the audit names who
    audit = Ledger(guarded.extensions['smartcloudops'].stores.engine()).audit(f"silences:{found['id']}")
    assert audit[0]['who'] == 'mara'


def test_without_csrf_token_nothing_changes(guarded, night):
    operator = logged_in(guarded, 'mara')
    for endpoint, path in routes(guarded, {'POST'}):
        if endpoint in ('api.alerts',):
            continue
        assert operator.post(path, data=dict(hours='1', host='web-2', on='0', verdict='normal')).status_code == 403, (
            path
        )
        assert operator.post(path, json={}, headers={'X-CSRFToken': 'forged'}).status_code == 403, path
    local = make(night).test_client()  # also where nobody logs in
    for path in ('/silences', '/actions/1/approve', '/api/v1/silences', '/switch'):
        assert local.post(path, data={}).status_code == 403, path
    assert local.post('/silences', data=dict(host='web-3', hours='1', csrf_token=csrf(local, '/'))).status_code == 303


def test_brute_force_is_stopped(night):
    app = make(night, users={'mara': f'operator:{HASH}'}, tokens={'robot': 'operator:tok-op'})
    client = app.test_client()
    token = csrf(client)
    answers = [
        client.post('/login', data=dict(name='mara', password=f'guess {n}', csrf_token=token)).status_code
        for n in range(12)
    ]
    assert answers[:10] == [401] * 10 and answers[10:] == [429] * 2
    assert (
        client.post('/login', data=dict(name='mara', password=PASSWORD, csrf_token=token)).status_code == 429
    )  # also with the right one
    other = make(night, tokens={'robot': 'operator:tok-op'}).test_client()
    answers = [
        other.get('/api/v1/hosts', headers={'Authorization': f'Bearer guess-{n}'}).status_code for n in range(12)
    ]
    assert answers[0] == 401 and answers[-1] == 429


def test_brute_force_at_once_is_stopped_as_well(night):
    app = make(night, users={'mara': f'operator:{HASH}'})

    def guess(client, token):
        return client.post('/login', data=dict(name='mara', password='guess', csrf_token=token)).status_code

    clients = [app.test_client() for _ in range(24)]
    tokens = [csrf(client) for client in clients]
    with ThreadPoolExecutor(24) as together:
        assert sorted(together.map(guess, clients, tokens)) == [401] * 10 + [429] * 14


def test_login_leads_only_to_our_own_pages(guarded):
    for target, expected in (
        ('/hosts?state=late', '/hosts?state=late'),
        ('//evil.example.org', '/'),
        ('https://evil.example.org', '/'),
        ('/\\evil.example.org', '/'),
        ('/%0d%0aSet-Cookie:x=1\r\nX: y', '/'),
        ('javascript:alert(1)', '/'),
    ):
        client = guarded.test_client()
        answer = client.post('/login', data=dict(name='kim', password=PASSWORD, next=target, csrf_token=csrf(client)))
        assert answer.headers['Location'] in (expected, f'http://localhost{expected}'), target
    there = guarded.test_client().get('/hosts?state=late', headers=HTML)
    assert there.status_code == 302 and there.headers['Location'] == '/login?next=/hosts?state%3Dlate'


def test_a_removed_user_is_out_at_once(night):
    app = make(night, users={'mara': f'operator:{HASH}'})
    client = logged_in(app, 'mara')
    assert client.get('/hosts').status_code == 200
    app.extensions['smartcloudops'].access.users.clear()
    app.extensions['smartcloudops'].access.users['other'] = ('viewer', HASH)
    assert client.get('/hosts').status_code == 401


def test_a_changed_password_or_token_ends_its_sessions(night):
    app = make(night, users={'mara': f'operator:{HASH}'}, tokens={'robot': 'viewer:tok'})
    mara, robot = logged_in(app, 'mara'), logged_in(app, '', 'tok')
    assert mara.get('/hosts').status_code == robot.get('/hosts').status_code == 200
    access = app.extensions['smartcloudops'].access
    access.users['mara'] = ('viewer', HASH)
    assert mara.get('/hosts').status_code == 200  # another role is no reason to ask again
    access.users['mara'], access.tokens['robot'] = ('operator', hash_password('another')), ('viewer', 'another')
    assert mara.get('/hosts').status_code == robot.get('/hosts').status_code == 401


def test_the_open_page_answers_this_machine_only(night):
    client = make(night).test_client()
    assert client.get('/', environ_base={'REMOTE_ADDR': '10.0.0.9'}).status_code == 403
    assert client.get('/', headers={'X-Forwarded-For': '10.0.0.9'}).status_code == 403
    assert client.get('/', headers={'Host': 'rebound.example.org'}).status_code == 403
    assert client.get('/health', environ_base={'REMOTE_ADDR': '10.0.0.9'}).status_code in (200, 503)
    for host in ('localhost:5000', '127.0.0.1:5000', '[::1]:5000'):
        assert client.get('/', headers={'Host': host}).status_code == 200


def test_headers_on_everything(guarded, night):
    for client, path in (
        (guarded.test_client(), '/health'),
        (guarded.test_client(), '/login'),
        (guarded.test_client(), '/nothing'),
        (make(night).test_client(), '/'),
        (make(night).test_client(), '/static/app.js'),
    ):
        headers = client.get(path, headers=HTML).headers
        policy = headers['Content-Security-Policy']
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and 'unsafe' not in policy, path
        assert (
            headers['X-Content-Type-Options'] == 'nosniff'
            and headers['X-Frame-Options'] == 'DENY'
            and headers['Referrer-Policy']
        )
    cookie = guarded.test_client().get('/login', headers=HTML).headers['Set-Cookie']
    assert 'HttpOnly' in cookie and 'SameSite=Lax' in cookie


def test_pages_hold_no_inline_script_or_style(night):
    client = make(night).test_client()
    for path in (
        '/',
        '/hosts',
        '/hosts/web-7',
        '/incidents/6',
        '/actions',
        '/policies',
        '/silences',
        '/settings',
        '/aws-health',
    ):
        page = client.get(path, headers=HTML).text
        assert not re.search(r'<script(?![^>]*\bsrc=)', page) and not re.search(r'<[^>]+\s(style|on\w+)=', page), path
        assert not re.search(r'(?:src|href)="(?:https?:)?//(?!localhost|wiki\.example\.org)', page), path


def test_html_in_names_stays_text(tmp_path):
    nasty = '<img src=x onerror=alert(1)>"\'&'
    escaped = nasty.replace('\\', '\\\\').replace('"', '\\"')
    index = pd.date_range(end=now().floor('1s'), periods=5, freq='5s', name='time')
    with History(tmp_path / 'history.db') as history:
        history.append(
            pd.DataFrame(
                {f'cpu_utilization_percent{{host="{escaped}",mount="{escaped}"}}': [1.0, 2, 3, 4, 97]}, index=index
            )
        )
    (tmp_path / 'policies.yaml').write_text('policies: []\n')
    (tmp_path / 'targets.json').write_text('{}')
    app = make(tmp_path)
    engine = app.extensions['smartcloudops'].stores.engine_to_write()
    bad = Anomaly(
        f'cpu_utilization_percent{{host="{escaped}"}}',
        nasty,
        now(),
        None,
        0.9,
        97.0,
        30.0,
        20.0,
        45.0,
        'threshold',
        f'{nasty} is abnormal',
        'stream',
        True,
        now(),
    )
    made = case(
        engine,
        [bad],
        now(),
        now(),
        cause=nasty,
        suspects=[dict(series=bad.series, host=nasty, score=0.5, reason=nasty)],
    )
    client = app.test_client()
    for path in (
        '/',
        '/incidents',
        f'/incidents/{made.id}',
        '/hosts',
        f'/hosts/{nasty}',
        '/silences?host=' + nasty.replace('&', '%26'),
    ):
        page = client.get(path, headers=HTML)
        assert page.status_code == 200 and '<img' not in page.text and 'img src=x' in page.text, path
    for path in ('/hosts/<img src=x>', '/incidents/<img src=x>', '/series/<img>', '/reports/<img>'):
        assert '<img' not in client.get(path, headers=HTML).text


def test_reports_are_disarmed_and_paths_do_not_climb(night):
    client = make(night).test_client()
    report = client.get('/reports/daily.html')
    assert (
        report.status_code == 200
        and '<script' not in report.text
        and 'sandbox' in report.headers['Content-Security-Policy']
        and '<h1>daily' in report.text
    )
    for name in (
        '../secret.txt',
        '..%2Fsecret.txt',
        '%2e%2e/secret.txt',
        '....//secret.txt',
        '/etc/passwd',
        '%2Fetc%2Fpasswd',
        'daily.html/../../secret.txt',
        '../policies.ipynb',
        'daily.html%00.ipynb',
    ):
        answer = client.get(f'/reports/{name}')
        assert answer.status_code in (404, 308) and 'not for you' not in answer.text, name
    assert client.get('/static/../web.py').status_code == 404 and client.get('/static/..%2fweb.py').status_code == 404


def test_settings_show_no_secret(night):
    app = make(
        night,
        tokens={'robot': 'operator:tok-op'},
        alerts_token='tok-alerts',
        secret_key='tok-key',
        users={'mara': f'operator:{HASH}'},
    )
    for path, headers in (('/settings', HTML), ('/settings', {}), ('/api/v1/settings', {})):
        text = app.test_client().get(path, headers={**headers, 'Authorization': 'Bearer tok-op'}).text
        assert 'tok-' not in text and 'scrypt' not in text and '***' in text


def test_oversized_and_malformed_requests(guarded):
    client, robot = guarded.test_client(), {'Authorization': 'Bearer tok-op'}
    assert client.post(
        '/api/v1/silences', data=b'x' * (2 << 20), headers=robot, content_type='application/json'
    ).status_code in (400, 413)
    for body in (
        b'{',
        b'[]',
        b'"x"',
        b'null',
        b'\xff\xfe',
        b'{"seconds": 1e999, "host": "a"}',
        b'{"seconds": "1", "host": 5}',
        b'{"host": ["a"], "seconds": 60}',
        b'{"host": "web-\\ud800", "seconds": 60}',
        b'[' * 100000,
    ):
        assert (
            400
            <= client.post('/api/v1/silences', data=body, headers=robot, content_type='application/json').status_code
            < 500
        ), body
    for path in (
        '/api/v1/points?series=' + 'x' * 9000,
        '/hosts/' + '%ff%fe',
        '/?host=' + '%00',
        '/api/v1/hosts?offset=99999999999999999999',
        '/incidents/' + '9' * 400,
        '/api/v1/csv?series=cpu&start=1e99',
    ):
        assert client.get(path, headers={**robot, **HTML}).status_code < 500, path
    alert = b'{"alerts": [{"status": "firing", "labels": {"alertname": "Full", "host": "web-1"}, '
    alert += b'"annotations": {"summary": "\\udfff"}, "startsAt": "2026-01-01T00:00:00Z"}]}'
    assert client.post('/api/v1/alerts', data=alert, headers=robot, content_type='application/json').status_code == 400


def test_a_number_that_no_incident_has(guarded):
    operator = logged_in(guarded, 'mara')
    for id in ('9' * 20, '٣', '-1', '0'):
        assert (
            operator.post(
                f'/incidents/{id}/feedback', data=dict(verdict='normal', csrf_token=csrf(operator, '/'))
            ).status_code
            == 303
        )
        assert operator.get(f'/incidents/{id}', headers=HTML).status_code == 404


words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            '6',
            '-1',
            'web-7',
            'normal',
            'approve',
            '../..',
            '{}',
            'cpu_utilization_percent{host="web-7"}',
            '2026-01-01',
            'NaN',
            '1e308',
            '\x00',
        ]
    ),
)


@given(st.data())
@budget(max_examples=soak(80, 3000), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_random_request_breaks_the_api(guarded, data):
    rules = [r for r in guarded.url_map.iter_rules() if r.endpoint.startswith('api.')]
    rule = data.draw(st.sampled_from(rules))
    path = re.sub(r'<(?:\w+:)?(\w+)>', lambda m: re.sub(r'[\r\n?#]', '', data.draw(words)) or 'x', rule.rule)
    query = data.draw(
        st.dictionaries(
            st.sampled_from(
                ['limit', 'offset', 'state', 'series', 'start', 'end', 'hours', 'width', 'host', 'q', 'metric']
            ),
            words,
            max_size=4,
        )
    )
    method = data.draw(st.sampled_from(sorted(rule.methods - {'OPTIONS'})))
    body = data.draw(
        st.one_of(
            st.none(),
            st.dictionaries(
                words,
                st.one_of(words, st.floats(), st.integers(), st.booleans(), st.lists(words, max_size=2)),
                max_size=3,
            ),
            st.fixed_dictionaries(
                {
                    'host': words,
                    'metric': words,
                    'seconds': st.one_of(st.floats(), words),
                    'on': st.just('x'),
                    'verdict': words,
                    'mode': words,
                    'alerts': st.lists(st.dictionaries(words, words, max_size=3), max_size=2),
                }
            ),
        )
    )
    answer = guarded.test_client().open(
        path,
        method=method,
        query_string=query,
        json=body,
        headers={'Authorization': 'Bearer tok-alerts' if rule.endpoint == 'api.alerts' else 'Bearer tok-op'},
    )
    assert answer.status_code < 500, (method, path, query, body, answer.text[:300])
    if answer.status_code >= 400 and method != 'HEAD':
        assert answer.get_json()['error'].keys() == {'status', 'code', 'message'}


@given(st.data())
@budget(max_examples=soak(60, 2000), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_random_query_breaks_a_page(guarded, data):
    rules = [
        r
        for r in guarded.url_map.iter_rules()
        if 'GET' in r.methods
        and not r.endpoint.startswith('api.')
        and r.endpoint not in ('static', 'events', 'incident_export', 'health')
    ]  # health says 503 when the loop is silent
    rule = data.draw(st.sampled_from(rules))
    path = re.sub(r'<(?:\w+:)?(\w+)>', lambda m: re.sub(r'[\r\n?#]', '', data.draw(words)) or 'x', rule.rule)
    query = data.draw(
        st.dictionaries(
            st.sampled_from(
                ['limit', 'offset', 'state', 'start', 'end', 'range', 'all', 'q', 'host', 'part', 'fleet', 'next']
            ),
            words,
            max_size=4,
        )
    )
    answer = guarded.test_client().get(
        path,
        query_string=query,
        headers={
            'Authorization': 'Bearer tok-view',
            **data.draw(st.sampled_from([HTML, {'Accept': 'application/json'}, {**HTML, 'HX-Request': 'true'}])),
        },
    )
    assert answer.status_code < 500, (path, query, answer.text[:300])
