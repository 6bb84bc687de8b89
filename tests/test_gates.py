"decide() is pure, every gate can say no, and what is unreadable, stale or too much never becomes a plan."
import math

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from smartcloudops.core.clock import to_us
from smartcloudops.remediation.gates import (
    GATES,
    SECOND,
    ActionIndex,
    Lease,
    PastAction,
    Plan,
    Reading,
    Refusal,
    Silence,
    Switch,
    action_key,
    decide,
)
from smartcloudops.remediation.policy import Limits, Policy
from tests.conftest import soak
from tests.remediation_fleet import START, anomaly, cpu, good_state, incident

pytestmark = pytest.mark.phase4
NOW = to_us(START)
quick = settings(max_examples=soak(60, 2000))


def policy(mode='auto', **more):
    return Policy(**{**dict(name='web-cpu', match={'metric': 'cpu_utilization_percent'}, mode=mode,
                            ladder=[{'do': 'service_restart', 'with': {'unit': 'a.service'}}, {'do': 'ec2_reboot'}]),
                            **more})


def past(state='recovered', sent=-7200, target='web-2', id=1, fingerprint='other', step=0, attempt=1, name='web-cpu',
         episode=1):
    key = action_key(fingerprint, episode, name, step, target, attempt)
    return PastAction(id, key, fingerprint, episode, name, step, target, attempt, state,
                      None if sent is None else NOW + sent * SECOND, NOW + (sent or -60) * SECOND)


def gate_of(decision): return decision.gate if isinstance(decision, Refusal) else None


def test_a_good_incident_is_planned():
    plan = decide(incident(), good_state(), policy(), START)
    assert isinstance(plan, Plan) and (plan.mode, plan.step, plan.attempt, plan.target) == ('auto', 0, 1, 'web-1')
    assert len(plan.verdicts) == len(GATES) and all(v.says == 'yes' and v.sentence for v in plan.verdicts)


def mark(**more): return dict(fingerprint='cpu|web-1', target='web-1', **more)

@pytest.mark.parametrize('gate, state, more', [
    ('switch', dict(switch=Switch(False)), {}), ('switch', dict(unreadable={'switch': 'x'}), {}),
    ('lease', dict(lease=None), {}), ('lease', dict(me='other'), {}),
    ('lease', dict(lease=Lease('me', 1, NOW - 1)), {}),
    ('clock', dict(unreadable={'clock': 'jumped'}), {}),
    ('target', dict(fleet={'web-2': 'ok'}), {}), ('target', dict(own_host='web-1'), {}),
    ('fresh data', dict(newest={}), {}), ('fresh data', dict(unreadable={'history': 'locked'}), {}),
    ('fresh data', dict(newest={cpu('web-1'): Reading(NOW - 300 * SECOND, 97., 15.)}), {}),
    ('fresh data', dict(newest={cpu('web-1'): Reading(NOW, math.nan, 15.)}), {}),
    ('fresh data', dict(newest={cpu('web-1'): Reading(NOW + 3600 * SECOND, 97., 15.)}), {}),
    ('silence', dict(silences=(Silence(1, 'web-*', '*', NOW - 1, NOW + 1),)), {}),
    ('silence', dict(unreadable={'silences': 'x'}), {}),
    ('opt-in', dict(tags={}), {}), ('opt-in', dict(tags={'web-1': None}), {}),
    ('opt-in', dict(tags={'web-1': {'smartcloudops': 'Act'}}), {}),
    ('dedup', dict(book=ActionIndex.of([past('verifying', -60, 'web-1')])), {}),
    ('dedup', dict(book=ActionIndex.of([past('cancelled', None, **mark())])), {}),
    ('dedup', dict(book=ActionIndex.of([past('awaiting_approval', None, **mark(attempt=2))])), dict(mode='approve')),
    ('partial', dict(book=ActionIndex.of([past('not_recovered', -80000, fingerprint='cpu|web-1', target='web-2')])),
     {}),
    ('attempts', dict(book=ActionIndex.of([past(sent=-40000, target='web-1'),
                                           past(sent=-30000, target='web-1', id=2, episode=2)])), {}),
    ('cooldown', dict(book=ActionIndex.of([past(sent=-300, target='web-1')])), {}),
    ('rate', dict(book=ActionIndex.of([past(sent=-60 * i, target=f'db-{i}', id=i) for i in (1, 2, 3)])), {}),
    ('blast radius', dict(book=ActionIndex.of([past('sent', -60)])), {}),
    ('blast radius', dict(fleet={'web-1': 'abnormal', 'web-2': 'abnormal', 'web-3': 'late'}), {}),
    ('quiet hours', {}, dict(limits={'quiet_hours': '09:00-11:00'})),
    ('quiet hours', {}, dict(limits={'quiet_hours': '23:00-10:30'})),
    ('breaker', dict(book=ActionIndex.of([past('failed', -80000 + i, target=f'db-{i}', id=i + 1) for i in range(3)])),
     {}),
    ('precondition', {}, dict(when=[{'metric': 'load1', 'above': 1}])),
    ('precondition', {}, dict(when=[{'metric': 'cpu_utilization_percent', 'below': 50}])),
    ('precondition', dict(fleet={'web-1': 'ok', 'web-2': 'abnormal', 'web-3': 'ok'}),
     dict(when=[{'peers_healthy': '60 %'}])),
    ('ladder', dict(book=ActionIndex.of([past('not_recovered', -80000, **mark(step=1))])), {}),
])
def test_each_gate_can_say_no(gate, state, more):
    decision = decide(incident(), good_state(**state), policy(**more), START)
    assert gate_of(decision) == gate, decision if isinstance(decision, Plan) else decision.sentence
    assert decision.sentence.startswith(f'{gate}: ')


@pytest.mark.parametrize('change, gate', [(dict(state='closed'), 'incident'), (dict(feedback='normal'), 'incident'),
                                          (dict(anomalies=()), 'match'),
                                          (dict(anomalies=(anomaly(ongoing=False),)), 'match'),
                                          (dict(anomalies=(anomaly(host=''),)), 'match')])
def test_incidents_that_nothing_is_done_about(change, gate):
    assert gate_of(decide(incident(**change), good_state(), policy(), START)) == gate


def test_a_silent_host_is_acted_on_only_while_others_are_heard():
    silent = incident(anomalies=(anomaly(kind='absent', origin='absent', observed=math.nan, lower=math.nan,
                                         upper=math.nan),))
    p = policy(match={'kind': 'absent'})
    assert isinstance(decide(silent, good_state(newest={}, fleet={'web-1': 'late', 'web-2': 'ok', 'web-3': 'ok'}), p,
                             START), Plan)
    assert gate_of(decide(silent, good_state(newest={}, fleet={'web-1': 'late', 'web-2': 'late', 'web-3': 'late'}), p,
                          START)) == 'fresh data'
    assert gate_of(decide(silent, good_state(newest={}, fleet={'web-1': 'late'}), p, START)) == 'fresh data'


@quick
@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(-10**7, 10**7), st.floats(1, 600))
def test_invariant_2_only_fresh_samples_authorise(value, age, interval):
    "NaN, infinite age, the future: a plan only for a real value within three samples."
    decision = decide(incident(), good_state(newest={cpu('web-1'): Reading(NOW - age * SECOND, value, interval)}),
                      policy(), START)
    assert isinstance(decision, Plan) == (not math.isnan(value) and abs(age) <= 3 * interval)


@quick
@given(st.integers(-86400 * 3, 86400 * 3), st.integers(0, 7200))
def test_invariant_9_backwards_time_only_extends_a_cooldown(jump, cooldown):
    "Whatever the clock does, a cooldown is over only when it shows at least so much later than the send."
    p, book = policy(limits={'cooldown': cooldown}), ActionIndex.of([past(sent=0, target='web-1')])
    limits = Limits(cooldown=0)
    now = NOW + jump * SECOND
    state = good_state(pd.Timestamp(now, unit='us', tz='UTC'), book=book, limits=limits)
    decision = decide(incident(anomalies=(anomaly(start=START - pd.Timedelta('4 D')),)), state, p, now)
    assert (gate_of(decision) == 'cooldown') == (max(0, jump) < cooldown)


@quick
@given(st.sampled_from(['i-0123456789abcdef0', 'web-1', 'x']),
       st.sampled_from(['command', 'service_restart', 'ec2_reboot', 'ec2_stop_start', 'asg_set_desired', 'webhook']),
       st.booleans(), st.booleans(), st.one_of(st.none(), st.dictionaries(st.sampled_from(['smartcloudops',
           'SmartCloudOps']), st.sampled_from(['act', 'Act', '', 'yes']))))
def test_invariant_18_tag_and_own_host(host, operation, own, allowed, tags):
    "No tag, no action; never a host-level operation at home; local ones there only where the policy says so."
    with_ = {'command': {'run': ['/bin/true']}, 'service_restart': {'unit': 'a.service'},
             'asg_set_desired': {'group': 'g'}, 'webhook': {'url': 'http://x'}}
    p = policy(ladder=[{'do': operation, 'with': with_.get(operation, {})}], allow_own_host=allowed)
    decision = decide(incident(host), good_state(hosts=(host, 'a', 'b'), tags={host: tags},
                                                 own_host=host if own else 'elsewhere'), p, START)
    fine = (tags or {}).get('smartcloudops') == 'act' and not (
        own and (operation.startswith(('ec2', 'asg')) or (operation in ('command', 'service_restart') and not allowed))
    )
    assert isinstance(decision, Plan) == fine


@quick
@given(st.sampled_from(['on', 'off']), st.sampled_from(['me', 'you']), st.booleans(),
       st.lists(st.sampled_from([-60, -1000, -4000, -90000]), max_size=4), st.sampled_from(['ok', 'abnormal', 'late']))
def test_invariant_14_dry_run_decides_as_live_does(switch, holder, tagged, sends, health):
    """In every mode the same gates give the same verdicts, in the same words; only what follows differs. The arguments
    stay as they were."""
    book = ActionIndex.of([past(sent=s, id=i, target=f'db-{i}') for i, s in enumerate(sends)])
    state = good_state(switch=Switch(switch == 'on'), lease=Lease(holder, 1, NOW + 60 * SECOND),
                       tags={'web-1': {'smartcloudops': 'act'} if tagged else {}}, book=book,
                       fleet={'web-1': 'ok', 'web-2': health, 'web-3': health})
    before = repr(state)
    said = {}
    for mode in ('observe', 'approve', 'auto'):
        decision = decide(incident(), state, policy(mode), START)
        said[mode] = [(v.gate, v.says, v.sentence) for v in decision.verdicts if v.gate not in ('approval', 'dedup')]
        assert (decision.verdicts[-1].gate, isinstance(decision, Plan)) == (
            'approval',
            not any(
                v.says == 'no'
                and not (mode == 'observe' and v.gate in ('switch', 'lease', 'clock', 'opt-in', 'approval'))
                for v in decision.verdicts
            ),
        )
    assert said['observe'] == said['approve'] == said['auto'] and repr(state) == before


class Fleet(RuleBasedStateMachine):
    "Any order of incidents, sends, verdicts, hours and illnesses: no limit is ever passed (invariants 7 and 8)."
    hosts = [f'h-{i}' for i in range(12)]

    @initialize(in_flight=st.integers(1, 4), per_hour=st.integers(4, 6), attempts=st.integers(1, 3),
                share=st.sampled_from(['5 %', '20 %', '50 %']))
    def begin(self, in_flight, per_hour, attempts, share):
        self.policy = policy(limits={'in_flight': in_flight, 'per_hour': per_hour, 'attempts': attempts,
                                     'share_of_fleet': share, 'cooldown': 60, 'failures': 100},
                                     ladder=[{'do': 'service_restart', 'with': {'unit': 'a.service'}}] )
        self.fleet_limits = Limits(in_flight=3, per_hour=5, attempts=2, cooldown=0, failures=100)
        self.now, self.actions, self.ill, self.known = NOW, [], set(), self.hosts[:]

    @rule(host=st.sampled_from(hosts), episode=st.integers(1, 50))
    def an_incident(self, host, episode):
        state = good_state(pd.Timestamp(self.now, unit='us', tz='UTC'), hosts=self.known,
                           book=ActionIndex.of(self.actions), limits=self.fleet_limits,
                           fleet={h: 'abnormal' if h in self.ill else 'ok' for h in self.known})
        decision = decide(incident(host, episode=episode, anomalies=(anomaly(host, start=START - pd.Timedelta('9 D')),
                                                                     )), state, self.policy, self.now)
        if isinstance(decision, Plan):
            assert host in self.known and len(self.ill & set(self.known)) <= max(1, .5 * len(self.known))
            self.actions.append(PastAction(len(self.actions), decision.key, decision.fingerprint, episode, 'web-cpu',
                                           decision.step, host, decision.attempt, 'verifying', self.now, self.now))

    @rule(which=st.integers(0, 50), state=st.sampled_from(['recovered', 'not_recovered', 'failed']))
    def a_verdict(self, which, state):
        flying = [i for i, a in enumerate(self.actions) if a.state == 'verifying']
        if flying:
            self.actions[flying[which % len(flying)]] = self.actions[flying[which % len(flying)]]._replace(state=state)

    @rule(minutes=st.sampled_from([-120, -5, 0, 1, 5, 30, 61, 600]))
    def time_passes(self, minutes): self.now += minutes * 60 * SECOND

    @rule(host=st.sampled_from(hosts))
    def illness(self, host): self.ill ^= {host}

    @rule(n=st.integers(1, 12))
    def the_fleet_changes(self, n): self.known = self.hosts[:n]

    @invariant()
    def limits_hold(self):
        if not hasattr(self, 'actions'): return
        sends = sorted(a.sent for a in self.actions)
        assert all(len([s for s in sends if t - 3600 * SECOND < s <= t]) <= 5
                   for t in sends) and len({a.key for a in self.actions}) == len(self.actions)
        assert sum(a.state == 'verifying' for a in self.actions) <= min(3, self.policy.limits.in_flight)
        for host in self.hosts: assert all(len([s for s in (a.sent for a in self.actions if a.target == host)
                                                if t - 86400 * SECOND < s <= t]) <= min(2, self.policy.limits.attempts)
                                                for t in sends)


Fleet.TestCase.settings = settings(max_examples=soak(40, 1500), stateful_step_count=soak(30, 80))
test_invariants_7_and_8_limits = pytest.mark.phase4(Fleet.TestCase)


def test_small_fleets_heal_and_large_ones_do_not_all_go_at_once():
    "max(1, floor(share × fleet)): karpenter#2321."
    p = policy(limits={'share_of_fleet': '10 %', 'in_flight': 100, 'per_hour': 100})
    wide = Limits(in_flight=100, per_hour=100)
    for n, most in ((1, 1), (5, 1), (29, 2), (100, 10)):
        hosts, flying = tuple(f'h-{i}' for i in range(n)), []
        for h in hosts:
            decision = decide(incident(h), good_state(hosts=hosts, book=ActionIndex.of(flying), limits=wide), p, START)
            if isinstance(decision, Plan): flying.append(PastAction(len(flying), decision.key, decision.fingerprint, 1,
                                                                    'web-cpu', 0, h, 1, 'verifying', NOW - 1, NOW))
        assert len(flying) == most


def test_the_ladder_goes_on_only_after_a_failure_and_ends_with_a_person():
    p, sent = policy(limits={'cooldown': 60, 'attempts': 9}), []
    quiet = dict(limits=Limits(cooldown=0, attempts=9))
    for step in (0, 1):
        plan = decide(incident(), good_state(book=ActionIndex.of(sent), **quiet), p, START)
        assert (plan.step, plan.attempt) == (step, 1)
        sent.append(PastAction(step + 1, plan.key, plan.fingerprint, 1, p.name, step, 'web-1', 1, 'not_recovered',
                               NOW - 3000 * SECOND, NOW))
    assert gate_of(decide(incident(), good_state(book=ActionIndex.of(sent), **quiet), p, START)) == 'ladder'
    again = decide(incident(episode=2), good_state(book=ActionIndex.of(sent), **quiet), p, START)
    assert again.step == 0                                                # a new episode starts at the first step
    expired = sent[:0] + [PastAction(1, plan.key, plan.fingerprint, 1, p.name, 0, 'web-1', 1, 'expired', None, NOW)]
    # a cancelled key is used up
    assert decide(incident(), good_state(book=ActionIndex.of(expired), **quiet), p, START).attempt == 2


def test_settings_ceiling_step_mode_and_lowering_all_count():
    p = policy('auto', ladder=[{'do': 'ec2_reboot', 'mode': 'approve'}])
    assert decide(incident(), good_state(), p, START).mode == 'approve'
    assert decide(incident(), good_state(mode='observe'), p, START).mode == 'observe'
    assert decide(incident(), good_state(modes={'web-cpu': 'observe'}), p, START).mode == 'observe'
