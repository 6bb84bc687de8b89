"People are told once, in every mode, never by a loop that then stops; and drills walk what they say."
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import PolicyError, RemediationError
from smartcloudops.core.settings import Settings
from smartcloudops.detection.incidents import Changes
from smartcloudops.remediation.drill import drill_real, run_drill
from smartcloudops.remediation.engine import Outcome
from smartcloudops.remediation.notify import Notifier, outcome_message
from smartcloudops.remediation.operators import ledger_verify, tell_action
from smartcloudops.remediation.policy import read_policies
from tests.remediation_fleet import START, anomaly, incident

pytestmark = pytest.mark.phase4


@pytest.fixture
def channel():
    "An apprise json:// channel: a real server that keeps what it gets, or answers 500."
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.got.append(self.rfile.read(int(self.headers['Content-Length'])).decode())
            self.send_response(self.server.status); self.send_header('Content-Length', '0'); self.end_headers()
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.got, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown(); server.server_close()


def notifier(folder, channel=None, **more):
    urls = [f'json://user:geheim@127.0.0.1:{channel.server_port}/'] if channel else []
    return Notifier(open_state(folder/'s.db'), Settings(data_dir=folder,
                                                        notify={'urls': urls, 'link': 'https://ops.example.org',
                                                                **more}))


def test_opening_and_closing_are_told_once_and_over_restarts(tmp_path, channel):
    n, one = notifier(tmp_path, channel), incident(cause='Likely cause: process worker.')
    # each notifier sends by itself
    assert len(n.notify_incidents(Changes(opened=(one,)))) == 1 and n.notify_incidents(Changes(opened=(one,
        ))) == [] and n.flush(20)
    n = notifier(tmp_path, channel)
    assert n.notify_incidents(Changes(opened=(one,))) == [] and len(n.notify_incidents(Changes(closed=(one,
        )))) == 1 and len(n.notify_incidents(Changes(opened=(incident(episode=2),)))) == 1
    assert n.flush(10)
    got = [json.loads(g) for g in channel.got]
    assert [g['title'] for g in got] == ['web-1: cpu 97 %, expected 20–45 %', 'web-1: over, cpu 97 %, expected 20–45 %',
                                         'web-1: cpu 97 %, expected 20–45 %']
    assert (got[0]['message'] == 'Likely cause: process worker.\nhttps://ops.example.org/incidents/1'
            and got[0]['type'] == 'warning')


def test_what_arrives_at_the_receiver(tmp_path, channel):
    """Over HTTP: link and runbook stand in it, secrets do not, the same is not said twice, a silenced one not at all,
    and what is above the hour's limit stays out."""
    n = notifier(tmp_path, channel, per_hour=3)
    out = lambda id, state, text='Restart worker.service on web-1.': Outcome(id, state, text, 'web', 'web-1', '7',
                                                                             'service_restart',
                                                                             runbook='https://wiki.example.org/web')
    n.ledger.add_silence('db-*', '', pd.Timestamp.now(tz='UTC') - pd.Timedelta('1 min'),
                         pd.Timestamp.now(tz='UTC') + pd.Timedelta('1 h'), 'oncall', 'upgrade')
    n.notify_incidents(Changes(opened=(incident('db-1', id=3),)))
    for _ in range(3): n.notify_actions([out(1, 'awaiting_approval')])
    n.notify_actions([out(2, 'failed',
                          'curl ended with exit code 7: password=hunter2 https://bob:geheim@intern.example.org')])
    for i in range(4, 12): n.notify_actions([out(i, 'recovered')])
    assert n.flush(20) and (n.sent, n.dropped, n.failed) == (3, 7, 0)
    got = [json.loads(g) for g in channel.got]
    assert [g['title'] for g in got] == ['web-1: service_restart awaiting approval', 'web-1: service_restart failed',
                                         'web-1: service_restart recovered']
    assert got[0]['message'].splitlines()[1:] == ['Runbook: https://wiki.example.org/web',
                                                  'https://ops.example.org/incidents/7']
    assert ('hunter2' not in channel.got[1] and 'geheim' not in ''.join(channel.got)
            and 'db-1' not in ''.join(channel.got))


def test_a_dead_or_wrong_channel_never_stops_the_loop(tmp_path, channel, caplog):
    channel.status = 500
    n = notifier(tmp_path, channel)
    for i in range(5): n.notify_incidents(Changes(opened=(incident(id=i),)))
    assert n.flush(20) and n.failed == 5
    wrong = Notifier(open_state(tmp_path/'w.db'), Settings(data_dir=tmp_path, notify={'urls': ['nonsense://geheim']}))
    wrong.notify_incidents(Changes(opened=(incident(),)))
    assert wrong.flush(10) and 'geheim' not in caplog.text
    n.engine.dispose(); (tmp_path/'s.db').write_bytes(b'broken' * 1000)
    assert n.notify_incidents(Changes(opened=(incident(id=9),))) != None


def test_a_flood_is_cut_and_the_limit_survives_a_restart(tmp_path, channel):
    for start in (0, 10):
        n = notifier(tmp_path, channel, per_hour=3)
        for i in range(start, start + 10): n.notify_incidents(Changes(opened=(incident(id=i),)))
        assert n.flush(20)
    assert len(channel.got) == 3


def test_what_waits_for_a_person_has_room_in_a_flood_and_is_told_late_rather_than_never(tmp_path, channel):
    out = lambda id, state: Outcome(id, state, 'Restart it.', 'web', f'web-{id}', '7', 'service_restart')
    with use_clock(FakeClock(START)) as clock:
        n = notifier(tmp_path, channel, per_hour=4)
        n.notify_actions([out(i, 'recovered') for i in range(10)])
        n.notify_actions([out(20, 'awaiting_approval'), out(21, 'awaiting_approval'), out(22, 'failed')])
        clock.advance(1800); n.notify_actions([])
        assert n.flush(20) and [json.loads(g)['title']
                                for g in channel.got[3:]] == ['web-20: service_restart awaiting approval']
        clock.advance(1801); n.notify_actions([]); n.notify_actions([])
        assert n.flush(20) and len(channel.got) == 5
        late = json.loads(channel.got[4])
        assert (late['title'].startswith('2 urgent messages held back')
                and late['message'].splitlines() == ['web-21: service_restart awaiting approval',
                                                     'web-22: service_restart failed'])


def test_silenced_warnings_and_normal_are_not_told(tmp_path):
    with use_clock(FakeClock(START)):
        n = notifier(tmp_path)
        assert n.notify_incidents(Changes(opened=(incident(severity='warn'), incident(id=2, feedback='normal')))) == []
        n.ledger.add_silence('web-*', 'cpu_*', START, START + pd.Timedelta('1h'), 'x', 'y')
        assert n.notify_incidents(Changes(opened=(incident(id=3),))) == []
        both = incident(id=4, anomalies=(anomaly(), anomaly('db-1')))
        assert len(n.notify_incidents(Changes(opened=(both,)))) == 1                    # only a part of it is silenced


def test_what_a_silence_hid_is_told_when_it_ends_and_still_goes_on(tmp_path):
    n, minutes = notifier(tmp_path), lambda m: START + pd.Timedelta(minutes=m)
    n.ledger.add_silence('*', '', START, minutes(30), 'oncall', 'upgrade', at=START)
    short, long = incident(), incident('web-2', id=2)
    assert n.notify_incidents(Changes(opened=(short, long), going=(long, short)), minutes(5)) == []
    # a restart forgets nothing
    n = notifier(tmp_path)
    assert n.notify_incidents(Changes(closed=(short,), going=(long,)), minutes(10)) == []
    assert [m.title for m in n.notify_incidents(Changes(going=(long,)),
                                                minutes(31))] == ['web-2: cpu 97 %, expected 20–45 %']
    assert n.notify_incidents(Changes(going=(long,)), minutes(32)) == []
    assert len(n.notify_incidents(Changes(closed=(long,)), minutes(40))) == 1


def test_nobody_hears_that_something_is_over_of_which_nobody_heard(tmp_path):
    n = notifier(tmp_path)
    n.ledger.add_silence('*', '', START, START + pd.Timedelta('30min'), 'oncall', 'upgrade', at=START)
    assert n.notify_incidents(Changes(opened=(incident(),), going=(incident(),)), START) == []
    # silence and trouble ended in the same tick
    assert n.notify_incidents(Changes(closed=(incident(),)), START + pd.Timedelta('31min')) == []


def test_actions_are_told_where_people_care_and_only_what_happened(tmp_path):
    n = notifier(tmp_path)
    out = lambda id, state, gate='': Outcome(id, state, 'Restart worker.service on web-1.', 'p', 'web-1', '7',
                                             'service_restart', gate, runbook='https://wiki/x')
    told = n.notify_actions([out(1, 'awaiting_approval'), out(2, 'observed'), out(3, 'refused', 'cooldown'),
                             out(4, 'refused', 'ladder'), out(5, 'recovered')])
    assert [m.key for m in told] == ['action 1 awaiting_approval', 'action 4 refused', 'action 5 recovered']
    assert ('Runbook: https://wiki/x' in told[0].body and told[0].urgent and not told[2].urgent
            and 'a person is needed' in told[1].title)
    assert 'hunter2' not in outcome_message(Outcome(9, 'failed', 'x password=hunter2', 'p', 'h', '1', 'o')).body


POLICY = '''policies:
  - name: web-cpu
    match: {metric: cpu_utilization_percent, host: web-*}
    ladder: [{do: service_restart, with: {unit: a.service}}, {do: ec2_reboot, mode: observe}]
    verify: {back_for: 1 min, within: 5 min}
'''


def test_a_dry_drill_walks_the_ladder_and_touches_nothing(tmp_path):
    settings = Settings(data_dir=tmp_path/'data')
    found = run_drill('web-cpu', settings, read_policies(POLICY))
    assert found.ok and found.walked == found.steps == 2 and not (tmp_path/'data').exists()
    assert {'sent', 'not recovered'} <= set(found.table().state)
    with pytest.raises(PolicyError, match="did you mean 'web-cpu'"): run_drill('web-cpo', settings,
                                                                               read_policies(POLICY))
    with pytest.raises(RemediationError, match='name the policy'): run_drill(None, settings)


@pytest.mark.parametrize('policy', ['host-cpu', 'host-memory', 'disk-full', 'host-silent'])
def test_every_shipped_policy_can_be_drilled(policy, tmp_path):
    found = run_drill(policy, Settings(data_dir=tmp_path))
    assert found.walked >= 1, found.text


def test_a_real_drill_detects_restarts_and_verifies(tmp_path, monkeypatch):
    """A process of our own eats a core; by itself: incident, plan, restart, verified recovery, in under three minutes.
    From a relative folder, as by default."""
    monkeypatch.chdir(tmp_path)
    found = drill_real(Settings(data_dir='.'))
    assert found.ok, found.text
    assert [o.state for _, o in found.story][:3] == ['sent', 'verifying', 'recovered']
    story = tell_action(open_state(tmp_path/'smartcloudops.db'), 1)
    assert 'restarted: was' in story and 'recovered' in story and ledger_verify(tmp_path).ok
    assert not (tmp_path/'drill-switch').exists()
