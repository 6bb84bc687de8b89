"""A data folder of version 0.1.0, killed in mid-course, is opened and gone on with: nothing lost or judged otherwise.

How it was made: data/folder-0.1.0/README.md.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

# All that these tests know of the code. What a newer version names otherwise is changed here, and nowhere below.
from click.testing import CliRunner

from smartcloudops.cli import main
from smartcloudops.core.clock import FakeClock, clock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.kv import get_value, last_heartbeat
from smartcloudops.core.settings import load_settings
from smartcloudops.dashboard import create_app
from smartcloudops.detection import JointModels, StreamDetector, get_incident, list_incidents, open_incidents
from smartcloudops.monitoring import History
from smartcloudops.remediation import Ledger, ledger_verify, list_actions, list_silences, load_policies, switch_status

pytestmark = pytest.mark.phase7
FOLDER = Path(__file__).parent / 'data/folder-0.1.0'
END = pd.Timestamp('2026-03-03 05:00', tz='UTC')  # the last tick was a minute before
EVERY = pd.Timedelta('1min')
FAULTS = [
    dict(kind='level_shift', host='web-1', metric='cpu', at='2026-03-03T04:48Z', minutes=120, size=1.8),
    dict(kind='level_shift', host='web-2', metric='memory', at='2026-03-03T04:52Z', minutes=120, size=1.2),
]
WEB_1_CPU, WEB_2_MEMORY = 'cpu_utilization_percent{host="web-1"}', 'memory_used_percent{host="web-2"}'
LAST = {
    'cpu_utilization_percent{host="web-1"}': 98.333,
    'cpu_utilization_percent{host="web-2"}': 16.361,
    'cpu_utilization_percent{host="web-3"}': 15.398,
    'disk_used_percent{host="web-1",mount="/"}': 56.109,
    'disk_used_percent{host="web-2",mount="/"}': 51.382,
    'disk_used_percent{host="web-3",mount="/"}': 52.336,
    'memory_used_percent{host="web-1"}': 49.352,
    'memory_used_percent{host="web-2"}': 96.853,
    'memory_used_percent{host="web-3"}': 46.797,
    'http_requests_per_second{host="web-1"}': 54.383,
    'http_requests_per_second{host="web-2"}': 61.907,
    'http_requests_per_second{host="web-3"}': 61.802,
}
INCIDENTS = [  # id, state, kind, severity, host, opened, closed, feedback, anomalies, title
    ('9', 'open', 'memory', 'page', 'web-2', '04:52', None, None, 2,
     'web-2: memory 97 %, expected up to 90 %, for 7 min'),
    ('8', 'open', 'cpu', 'page', 'web-1', '04:48', None, None, 1, 'web-1: cpu 98 %, expected up to 90 %, for 11 min'),
    ('7', 'open', 'external', 'warn', 'web-1', '04:45', None, None, 1, 'web-1: certificate ends in 9 days'),
    ('6', 'closed', 'absent', 'page', 'web-3', '04:23', '04:30', None, 1,
     'web-3: no samples for 10 min, expected every 1 min'),
    ('5', 'closed', 'disk', 'page', 'web-2', '03:50', '04:12', None, 2,
     'web-2: disk / 97 %, expected up to 95 %, for 20 min'),
    ('4', 'closed', 'latency', 'warn', 'web-1', '03:05', '03:27', None, 1,
     'web-1: request p95 1.03 s, expected 99–133 ms at this hour; level shift 25 min ago'),
    ('3', 'closed', 'memory', 'page', 'web-3', '02:00', '02:42', 'real', 2,
     'web-3: memory 95 %, expected up to 90 %, for 40 min'),
    ('2', 'closed', 'cpu', 'page', 'web-2', '01:00', '01:42', 'normal', 2,
     'web-2: cpu 95 %, expected up to 90 %, for 40 min'),
    ('1', 'closed', 'cpu', 'page', 'web-1', '00:30', '00:40', None, 2,
     'web-1: cpu 95 %, expected up to 90 %, for 8 min'),
]
ACTIONS = [  # id, state, policy, target, incident, mode, made
    (13, 'refused', 'web-memory', 'web-2', '9', 'approve', '04:52'),
    (12, 'awaiting_approval', 'web-cpu', 'web-1', '8', 'approve', '04:48'),
    (11, 'refused', 'web-cpu', 'web-3', '6', 'approve', '04:23'),
    (10, 'refused', 'web-disk', 'web-2', '5', 'approve', '03:51'),
    (9, 'failed', 'web-disk', 'web-2', '5', 'auto', '03:50'),
    (8, 'expired', 'web-latency', 'web-1', '4', 'approve', '03:21'),
    (7, 'observed', 'web-latency', 'web-1', '4', 'observe', '03:05'),
    (6, 'recovered', 'web-memory', 'web-3', '3', 'approve', '02:30'),
    (5, 'expired', 'web-memory', 'web-3', '3', 'approve', '02:15'),
    (4, 'expired', 'web-memory', 'web-3', '3', 'approve', '02:00'),
    (3, 'cancelled', 'web-cpu', 'web-2', '2', 'approve', '01:10'),
    (2, 'not_recovered', 'web-cpu', 'web-2', '2', 'auto', '01:00'),
    (1, 'recovered', 'web-cpu', 'web-1', '1', 'auto', '00:30'),
]
HEAD = 'f76bce8e827cec0e3de31a0448ee4e23bff2f5fce276a7814204aa04a6137ce2'  # hash of the last audit row
# Scores of 04:56 to 05:00: the last takes what was learned until 04:56, and the three minutes after it.
SCORED_ON = {
    WEB_1_CPU: [0.48398828725781523, 0.48393293291091116, 0.4837617020715473, 0.4836327897868888, 0.4817568737029969],
    WEB_2_MEMORY: [0.8982941857944832, 0.8982030965895123, 0.8981143133113039, 0.8979872375709256, 0.8977728901819331],
}


def settings_of(folder):
    return load_settings(
        '/dev/null',
        data_dir=folder,
        source='synthetic',
        interval=60,
        policy_file=folder / 'policies.yaml',
        targets_file=folder / 'none.json',
    )


def environment(folder) -> dict:
    "The settings with which the folder was made, as a person would hand them to the command line."
    told = dict(
        data_dir=folder,
        source='synthetic',
        interval=60,
        policy_file=folder / 'policies.yaml',
        targets_file=folder / 'none.json',
        synthetic__hosts=3,
        synthetic__seed=7,
        synthetic__history_hours=0,
        synthetic__faults=json.dumps(FAULTS),
        detection__joint='false',
        incidents__pages_per_week=200,
        history__scores_days=0.02,
        remediation__commands='["/bin/true", "/bin/false"]',
        remediation__in_flight=2,
        remediation__per_hour=10,
        remediation__attempts=5,
        remediation__cooldown_seconds=60,
    )
    return {f'SMARTCLOUDOPS_{name.upper()}': str(value) for name, value in told.items()}


def hour(time) -> str | None:
    return None if time is None else f'{time:%H:%M}'


@pytest.fixture
def folder(tmp_path):
    "A copy to write into, right after the loop on it was killed."
    shutil.copytree(FOLDER, tmp_path / 'data')
    with use_clock(FakeClock(END)):
        yield tmp_path / 'data'


@pytest.fixture
def cli(folder, monkeypatch):
    "Runs a command on the folder; its JSON where there is some."
    monkeypatch.chdir(folder)

    def run(*args):
        done = CliRunner().invoke(main, [str(a) for a in args], env=environment(folder))
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout) if '--json' in args else done.stdout

    return run


@pytest.fixture
def engine(folder):
    opened = open_state(folder / 'smartcloudops.db')
    yield opened
    opened.dispose()


def test_every_sample_is_there(folder, cli):
    told = cli('history', 'info', '--json')
    assert (
        told['series'],
        told['samples'],
        told['hot_samples'],
        told['sealed_samples'],
        told['sealed_files'],
        told['scores'],
    ) == (21, 8015, 1190, 6825, 3, 658)
    with History(folder / 'history.db', readonly=True) as history:
        frame, latest = history.read(), history.latest().set_index('series')
        assert (
            frame.shape == (385, 21)
            and frame.count().sum() == 8015
            and (frame.index[0], frame.index[-1]) == (END - 385 * EVERY, END - EVERY)
        )
        assert {name: latest['value'][name] for name in LAST} == LAST and frame.iloc[-1][list(LAST)].to_dict() == LAST
        assert frame.sum().round(3).sum() == 1637935231.242
        assert (latest['interval_seconds'] == 60).all() and latest['rewritten'].to_dict() == {
            name: 3 if name == 'http_requests_per_second{host="web-2"}' else 0 for name in latest.index
        }
        assert len(history.rewritten()) == 3
        scores = history.read_scores(WEB_1_CPU)
        assert scores.index[-1] == END - EVERY and scores.iloc[-1][
            ['score', 'expected', 'lower', 'upper']
        ].tolist() == pytest.approx(
            [0.4836327897868888, 41.571288578695295, 27.18385038766351, 55.95872676972708], rel=1e-6
        )


def test_every_incident_is_there(engine, cli):
    told = [
        (
            i.id,
            i.state,
            i.kind,
            i.severity,
            i.host,
            hour(i.opened),
            hour(i.closed),
            i.feedback,
            len(i.anomalies),
            i.title.replace('\u202f', ' '),
        )
        for i in list_incidents(engine)
    ]
    assert told == INCIDENTS and [i.id for i in open_incidents(engine)] == ['9', '8', '7']
    assert [(i['id'], i['state'], i['severity'], i['host']) for i in cli('incidents', 'list', '--json')] == [
        (i[0], i[1], i[3], i[4]) for i in INCIDENTS
    ]
    one = get_incident(engine, 3)
    assert [(a.series, a.kind, a.origin, a.rows) for a in one.anomalies] == [
        ('memory_used_percent{host="web-3"}', 'threshold', 'rule:memory', 40),
        ('memory_used_percent{host="web-3"}', 'level shift', 'stream', 43),
    ]
    assert (
        one.fingerprint == '84d336de41ce6d67'
        and one.suspects[0]['series'] == 'memory_used_percent{host="web-3"}'
        and get_incident(engine, 7).external
    )


def test_the_ledger_verifies_and_every_action_is_there(folder, engine, cli):
    assert ledger_verify(folder).ok and ledger_verify(folder).rows == 47
    assert (told := cli('ledger', 'verify', '--json'))['ok'] and told['rows'] == 47
    lines = cli('ledger', 'export').splitlines()
    assert len(lines) == 47 and json.loads(lines[-1])['hash'] == HEAD
    assert [
        (a['id'], a['state'], a['policy'], a['target'], a['incident'], a['mode'])
        for a in cli('actions', 'list', '--json')
    ] == [a[:6] for a in ACTIONS]
    assert [hour(t) for t in list_actions(engine)['made']] == [a[6] for a in ACTIONS]
    shown = cli('actions', 'show', 12, '--json')
    assert shown['action']['plan_hash'] == '8673bfb4552212c0e67da03afbee2f5910d26574d02bc99c387c165e52abba75' and [
        r['event'] for r in shown['audit']
    ] == ['planned', 'awaiting_approval']
    assert len(shown['action']['gates']) == 18
    assert [r['event'] for r in cli('actions', 'show', 6, '--json')['audit']] == [
        'planned',
        'awaiting_approval',
        'approved',
        'sent',
        'verifying',
        'recovered',
    ]


def test_what_people_said_holds(folder, engine, cli):
    "Silences, the switch, modes that were lowered or granted, what is remembered, the last sign of life."
    assert [(s['id'], s['host'], s['metric'], s['who'], s['reason']) for s in cli('silence', 'list', '--json')] == [
        (1, 'web-3', '*', 'mara', 'rebuild'),
        (2, '*', 'disk_used_percent', 'jon', 'new disks are on their way'),
    ]
    assert len(list_silences(engine)) == 2
    assert switch_status(engine, settings_of(folder)).on and cli('switch', 'status').startswith('on')
    assert Ledger(engine).modes(load_policies(folder / 'policies.yaml').policies) == {
        'web-cpu': 'approve',
        'web-memory': 'approve',
        'web-disk': 'approve',
        'web-latency': 'approve',
    }
    beat = last_heartbeat(engine, 'loop')
    assert beat.at == END - EVERY and (beat.detail['source'], beat.detail['series'], beat.detail['version']) == (
        'synthetic',
        21,
        '0.1.0',
    )
    assert get_value(engine, 'backtests')['web-cpu']['recovered'] == 3 and len(get_value(engine, 'told')) == 29


def test_what_was_learned_is_read(folder):
    [saved] = (folder / 'learned').glob('*.npz')
    assert saved.name == f'stream-synthetic-{(END - 4 * EVERY).value // 1000}.npz'
    scores = StreamDetector.load(saved).update(END - 3 * EVERY, pd.Series({WEB_1_CPU: 98.0, WEB_2_MEMORY: 96.0}))
    assert scores.score.tolist() == pytest.approx(
        [0.48392008010933824, 0.8981733821490695], rel=1e-6
    ) and scores.expected.tolist() == pytest.approx([40.193707558053895, 52.79013085379314], rel=1e-6)
    [model] = JointModels(folder / 'joint').models.values()
    assert (model.host, model.version, model.rows, len(model.scaler.names)) == ('web-1', 1, 302, 7)


def test_the_loop_goes_on_where_it_was_killed(folder, cli, engine):
    "The minutes since its last save come from the history; the waiting action is approved, sent and judged."
    tick = lambda: cli('run', '--once', '--json')
    states = lambda: {
        id: state for id, state in list_actions(engine).set_index('id')['state'].sort_index().items() if id >= 12
    }
    told = tick()
    assert (
        told['source'],
        told['rows'],
        told['samples'],
        told['series'],
        told['opened'],
        told['closed'],
        told['notes'],
    ) == ('synthetic', 1, 21, 21, [], [], []) and len(told['anomalies']) == 3
    assert [i.id for i in open_incidents(engine)] == ['9', '8', '7']
    with History(folder / 'history.db', readonly=True) as history:
        assert history.info()['samples'] == 8036
        for series, known in SCORED_ON.items():
            assert history.read_scores(series)['score'].iloc[-5:].tolist() == pytest.approx(known, rel=1e-6)
    assert f'stream-synthetic-{END.value // 1000}.npz' in {f.name for f in (folder / 'learned').iterdir()}
    cli('feedback', 9, 'normal')  # else two of three hosts count as abnormal, and nothing may be sent
    cli('actions', 'approve', 12, '--comment', 'after the upgrade')
    clock().advance(60)
    assert tick()['opened'] == [] and states() == {12: 'verifying', 13: 'refused'}
    closed = 0
    for _ in range(11):
        clock().advance(60)
        told = tick()
        closed += len(told['closed'])
        assert told['rows'] == 1 and told['opened'] == []
    assert (
        states() == {12: 'not_recovered', 13: 'refused', 14: 'awaiting_approval'}
        and closed == 1
        and get_incident(engine, 9).state == 'closed'
        and get_incident(engine, 9).feedback == 'normal'
    )
    assert [i.id for i in list_incidents(engine)] == [i[0] for i in INCIDENTS] and [
        i.id for i in open_incidents(engine)
    ] == ['8', '7']
    assert ledger_verify(folder).ok and ledger_verify(folder).rows == 68


def test_the_loop_takes_up_what_was_learned(folder, cli):
    "Its history moved away, nothing can be learned again: a detector that began anew would score .22 here."
    shutil.rmtree(folder / 'history')
    (folder / 'history.db').unlink()
    assert cli('run', '--once', '--json')['rows'] == 1
    with History(folder / 'history.db', readonly=True) as history:
        scores = [history.read_scores(name)['score'].tolist() for name in (WEB_1_CPU, WEB_2_MEMORY)]
    assert scores == [pytest.approx([0.4839200406218897], rel=1e-6), pytest.approx([0.8982620368096528], rel=1e-6)]


def test_the_page_shows_the_folder(folder):
    client = create_app(folder, settings_of(folder)).test_client()
    told = client.get('/', headers={'Accept': 'application/json'}).get_json()
    assert (
        told['anomaly'] is True
        and told['hosts_total'] == 3
        and [(h['host'], h['state']) for h in told['hosts']]
        == [('web-1', 'abnormal'), ('web-2', 'abnormal'), ('web-3', 'silenced')]
    )
    assert (told['metrics']['cpu'], told['metrics']['memory']) == (98.333, 49.352)
    shown = client.get('/', headers={'Accept': 'text/html'})
    assert (
        shown.status_code == 200
        and shown.mimetype == 'text/html'
        and all(f'"/incidents/{i[0]}"' in shown.text for i in INCIDENTS)
        and '"/hosts/web-1"' in shown.text
    )
    listed = client.get('/api/v1/incidents').get_json()
    assert listed['total'] == 9 and [(i['id'], i['host'], i['state']) for i in listed['items']] == [
        ('9', 'web-2', 'abnormal'),
        ('8', 'web-1', 'waits'),
        ('7', 'web-1', 'abnormal'),
        ('6', 'web-3', 'ended'),
        ('5', 'web-2', 'ended'),
        ('4', 'web-1', 'ended'),
        ('3', 'web-3', 'recovered'),
        ('2', 'web-2', 'normal'),
        ('1', 'web-1', 'recovered'),
    ]
    assert client.get('/api/v1/status').get_json()['open'] == 3 and [
        a['id'] for a in client.get('/api/v1/actions').get_json()['items']
    ] == [str(a[0]) for a in ACTIONS]
    for path in ('/health', '/ready', '/metrics', '/api/v1/incidents/3', '/api/v1/hosts', '/api/v1/silences'):
        assert client.get(path).status_code == 200, path
