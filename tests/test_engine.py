"""The engine: at most one send a key whatever is killed, paused or doubled; verdicts on fresh samples only; everything
rechecked at the send."""
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from smartcloudops import remediation
from smartcloudops.core.clock import FakeClock, SystemClock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import SmartCloudOpsError, StateError
from smartcloudops.core.inventory import own_host
from smartcloudops.remediation.engine import Remediator, fleet_of, judge, switch_path, turn_switch
from smartcloudops.remediation.ledger import ENDED, Ledger
from smartcloudops.remediation.notify import outcome_message
from smartcloudops.remediation.operations import Report
from smartcloudops.remediation.operators import figures, ledger_verify, proposals
from smartcloudops.remediation.policy import read_policies
from tests import remediation_fleet
from tests.conftest import soak
from tests.remediation_fleet import (
    POLICY,
    START,
    Always,
    Effect,
    Table,
    anomaly,
    cpu,
    effects,
    executor,
    freshness,
    incident,
    settings_in,
    states,
)

pytestmark = pytest.mark.phase4
HOSTS = ['web-1', 'web-2', 'web-3', 'web-4', 'web-5', 'db-1', 'db-2']
APPROVE, OBSERVE = POLICY.replace('mode: auto', 'mode: approve'), POLICY.replace('mode: auto', 'mode: observe')


@pytest.fixture(autouse=True)
def effect(tmp_path, monkeypatch):
    monkeypatch.setattr(Effect, 'path', tmp_path/'effects')
    return tmp_path/'effects'


@pytest.fixture
def clock():
    with use_clock(FakeClock(START)) as c: yield c


def tick(r, clock, incidents=None, history=None, hosts=HOSTS, **more):
    now = clock.now()
    return r.step(
        now,
        [incident(now=now)] if incidents is None else incidents,
        freshness(hosts, now, **more),
        history or Always(97),
    )


def test_observe_says_once_what_it_would_do_and_sends_nothing(tmp_path, clock, effect):
    r = executor(tmp_path, OBSERVE, switch=False)
    first = tick(r, clock)
    assert [(o.state, o.mode) for o in first] == [('observed', 'observe')]
    assert first[0].sentence.startswith('Proposed (not sent): ')
    for _ in range(5): clock.advance(15); assert tick(r, clock) == []
    again = executor(tmp_path, OBSERVE, switch=False)
    clock.advance(60); assert tick(again, clock) == []                               # nor after a restart
    clock.advance(60); assert [o.state for o in tick(again, clock, [incident(episode=2)])] == ['observed']
    assert effects(effect) == [] and states(r.ledger) == ['observed', 'observed']


def test_hosts_that_were_switched_off_hold_nothing_up(tmp_path, clock, effect):
    "Ten hosts of last week, as a group that scales leaves behind, are no storm; ten that fell silent today are."
    def table(behind):
        fresh = freshness([*HOSTS, *(f'old-{i}' for i in range(10))], clock.now(), late=[f'old-{i}' for i in range(10)])
        fresh.loc[fresh.host.str.startswith('old'), 'last'] = clock.now() - pd.Timedelta(behind)
        return fresh
    assert set(fleet_of(table('2D'), [])) == set(HOSTS)
    r = executor(tmp_path)
    assert [(o.state, o.gate) for o in r.step(clock.now(), [incident(now=clock.now())], table('3h'), Always(97))] == [
        ('refused', 'blast radius')
    ]
    clock.advance(60)
    assert [o.state for o in r.step(clock.now(), [incident(now=clock.now())], table('2D'), Always(97))] == [
        'sent',
        'verifying',
    ]
    assert len(effects(effect)) == 1


def test_auto_from_plan_to_recovered(tmp_path, clock, effect):
    r = executor(tmp_path)
    assert [o.state for o in tick(r, clock)] == ['sent', 'verifying']
    seen = []
    for _ in range(8): clock.advance(15); seen += [o.state for o in tick(r, clock, [], Always(31))]
    assert seen == ['recovered'] and len(effects(effect)) == 1
    assert '31\u202f%' in r.ledger.action(1).verdict and r.ledger.verify().ok
    table = figures(r.ledger.engine)
    assert table.loc[0, 'recovered'] == 1 and table.loc[0, 'success'] == 1


def test_approve_waits_and_sends_only_what_was_approved(tmp_path, clock, effect):
    r = executor(tmp_path, APPROVE)
    assert [o.state for o in tick(r, clock)] == ['awaiting_approval']
    clock.advance(15); assert tick(r, clock) == [] and effects(effect) == []
    r.ledger.approve(1, 'oncall')
    clock.advance(15); assert [o.state for o in tick(r, clock)] == ['sent', 'verifying'] and len(effects(effect)) == 1


def test_denied_is_not_asked_again_in_this_episode(tmp_path, clock):
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.deny(1, 'oncall', 'month-end run')
    for _ in range(4): clock.advance(600); assert tick(r, clock) == []
    assert states(r.ledger) == ['cancelled']


def test_the_ladder_climbs_on_not_recovered_then_a_person(tmp_path, clock, effect):
    r = executor(
        tmp_path,
        POLICY.replace('mode: auto', 'mode: auto\n    limits: {attempts: 9, failures: 9}'),
        attempts=9,
        breaker_failures=9,
        cooldown_seconds=60,
    )
    seen = []
    for _ in range(110):
        seen += [(o.state, o.gate) for o in tick(r, clock)]
        waiting = r.ledger.actions(['awaiting_approval'])
        if waiting: r.ledger.approve(waiting[0].id, 'oncall')  # the failure has lowered auto to approve
        clock.advance(45)
    verdicts = [s for s, _ in seen if s in ('recovered', 'not_recovered', 'awaiting_approval')]
    assert verdicts == ['not_recovered', 'awaiting_approval', 'not_recovered'] and ('refused', 'ladder') in seen
    assert [a.step for a in reversed(r.ledger.actions()) if a.sent] == [0, 1] and len(effects(effect)) == 2


def test_trust_is_lost_at_once_and_proposed_back_only_on_a_record(tmp_path, clock):
    r = executor(tmp_path)
    tick(r, clock); clock.advance(301); tick(r, clock)
    assert r.ledger.action(1).state == 'not_recovered' and r.ledger.modes(r.policies.policies) == {'web-cpu': 'approve'}
    assert proposals(r.ledger.engine, r.policies) == []


def test_failed_sends_open_the_breaker_until_a_person_closes_it(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(Effect, 'answer', Report(False, 'refused'))
    r = executor(tmp_path, attempts=9, per_hour=9, cooldown_seconds=1)
    for n in range(6):
        tick(r, clock, [incident(f'web-{n % 5 + 1}', id=n, episode=n, anomalies=(anomaly(f'web-{n % 5 + 1}'),))])
        for a in r.ledger.actions(['awaiting_approval']): r.ledger.approve(a.id, 'x')
        clock.advance(10)
        tick(r, clock, [incident(f'web-{n % 5 + 1}', id=n, episode=n, anomalies=(anomaly(f'web-{n % 5 + 1}'),))])
        clock.advance(4000)
    assert len(r.ledger.actions(['failed'])) == 3
    assert any(a.plan.get('gate') == 'breaker' for a in r.ledger.actions(['refused']))
    r.ledger.reset_breaker('web-cpu', 'oncall')
    assert [o.state for o in tick(r, clock, [incident('web-3', id=99, episode=99)])] == ['awaiting_approval']


@pytest.mark.parametrize(
    'happens, gate',
    [
        (lambda r, c: switch_path(r.settings).unlink(), 'switch'),
        (lambda r, c: turn_switch(r.ledger, switch_path(r.settings), False, 'x'), 'switch'),
        (lambda r, c: (switch_path(r.settings).unlink(), switch_path(r.settings).mkdir()), 'switch'),
        (lambda r, c: switch_path(r.settings).write_bytes(b'\xff\xfe'), 'switch'),
        (lambda r, c: switch_path(r.settings).write_text('on?'), 'switch'),
        (lambda r, c: r.ledger.turn_switch(False, 'x'), 'switch'),
        (lambda r, c: r.ledger.add_silence('web-*', '', c.now(), c.now() + pd.Timedelta('1h'), 'x', ''), 'silence'),
        (
            lambda r, c: setattr(
                r.stages.policy_file, 'current', read_policies(APPROVE.replace('back_for: 60 s', 'back_for: 61 s'))
            ),
            'approval',
        ),
        (
            lambda r, c: setattr(r.stages.policy_file, 'current', read_policies(APPROVE.replace('web-1, ', ''))),
            'opt-in',
        ),
        (lambda r, c: r.ledger.set_mode(r.policies.policies[0], 'observe', 'x'), 'approval'),
    ],
)
def test_invariants_10_and_12_everything_is_asked_again_at_the_send(tmp_path, clock, effect, happens, gate):
    "Approved, and then the world changes before the send: nothing is sent, and the gate is named."
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.approve(1, 'oncall'); happens(r, clock)
    clock.advance(15); out = tick(r, clock)
    assert effects(effect) == [] and [(o.state, o.gate) for o in out][:1] == [('refused', gate)], [
        (o.state, o.sentence) for o in out
    ]


def test_invariant_10_stale_samples_at_the_send(tmp_path, clock, effect):
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.approve(1, 'oncall')
    clock.advance(15); out = tick(r, clock, late=['web-1'])
    assert effects(effect) == [] and out[0].gate == 'fresh data'


@pytest.mark.parametrize('text, first', [(APPROVE, 'awaiting_approval'), (POLICY, 'sent')])
def test_a_plan_that_was_stopped_at_the_send_is_made_anew_once_its_time_is_over(
    tmp_path, clock, effect, monkeypatch, text, first
):
    "AWS was busy just when it was to be sent: neither the incident nor the word of a person is lost."
    r, by_person = executor(tmp_path, text), text == APPROVE
    if by_person: tick(r, clock); r.ledger.approve(1, 'oncall')
    with monkeypatch.context() as m:
        m.setattr(Effect, 'check', lambda self: Report(False, 'AWS is busy'))
        stopped = [o for o in tick(r, clock) if o.attempt]
    assert [(o.state, o.gate) for o in stopped] == [('refused', 'check')]
    assert (outcome_message(stopped[0]) is not None) == by_person  # who said yes is told that it was not sent
    seen = []
    for _ in range(61): clock.advance(15); seen += [o.state for o in tick(r, clock)]
    assert seen[0] == first
    assert r.ledger.action(2).attempt == 2
    assert 'refused' not in seen
    assert len(effects(effect)) == (not by_person)


def test_invariant_10_a_plan_older_than_its_time_dies(tmp_path, clock, effect):
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.approve(1, 'oncall'); clock.advance(901)
    assert tick(r, clock)[0].state == 'expired' and effects(effect) == []


def test_a_plan_whose_incident_ended_dies(tmp_path, clock, effect):
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.approve(1, 'oncall'); clock.advance(15)
    out = tick(r, clock, [])
    assert (out[0].state, 'ended by itself' in out[0].sentence) == ('expired', True) and effects(effect) == []


def test_invariant_12_the_loop_never_switches_on_by_itself(tmp_path, clock, effect):
    r = executor(tmp_path, switch=False)
    for _ in range(5): tick(r, clock); clock.advance(60)
    turn_switch(r.ledger, switch_path(r.settings), True, 'x')
    turn_switch(r.ledger, switch_path(r.settings), False, 'x')
    for n in range(5): tick(r, clock, [incident(episode=n + 2)]); clock.advance(60)
    assert effects(effect) == [] and switch_path(r.settings).read_text() == 'off\n'


def test_switching_off_does_not_need_the_file(tmp_path, clock, effect):
    "It lies where this person may not write, or the disk is full: the word counts all the same."
    r = executor(tmp_path)
    r.settings.remediation.switch_file = tmp_path/'switch'/'below-a-file'
    assert not turn_switch(r.ledger, switch_path(r.settings), False, 'oncall').on and not r.ledger.switch().on
    with pytest.raises(SmartCloudOpsError): turn_switch(r.ledger, switch_path(r.settings), True, 'oncall')


def test_invariant_9_limits_survive_restart_and_jumps_of_the_clock(tmp_path, clock, effect):
    r = executor(tmp_path, attempts=9)
    for jump in (0, 30, -3600, -7200, 0):
        if jump: clock.set(clock.now() + pd.Timedelta(seconds=jump))
        r.stop(); r = executor(tmp_path, attempts=9, name=f'after {jump}')                 # each time another process
        clock.advance(31)
        tick(
            r,
            clock,
            [incident(episode=abs(jump) + 2, anomalies=(anomaly(start=START - pd.Timedelta('1 D')),))],
            Always(31),
        )
    assert len(effects(effect)) == 1  # cooldown 15 min, whatever the clock says


def test_invariant_9_after_a_jump_ahead_limits_cannot_be_judged(tmp_path, clock, effect):
    r = executor(tmp_path)
    tick(r, clock, [incident('db-9')])
    clock.set(START + pd.Timedelta('5 h'))
    out = tick(r, clock)
    assert out[0].gate == 'clock' and effects(effect) == []
    clock.advance(3601)
    assert [o.state for o in tick(r, clock, [incident(episode=2)])] == ['sent', 'verifying']


@pytest.mark.parametrize(
    'killed, seen', [(False, ['not_recovered']), (True, ['unknown', 'verifying', 'not_recovered'])]
)
def test_a_clock_put_back_leaves_nothing_in_flight_until_the_wrong_time_comes(
    tmp_path, clock, effect, monkeypatch, killed, seen
):
    "The machine had started a month ahead and sent; then its clock was set right. One in flight is all there is."
    clock.set(START + pd.Timedelta('30D'))
    r = executor(tmp_path)
    if killed: monkeypatch.setattr(r.stages.runner, 'start', lambda *a: [])
    tick(r, clock); r.stop()
    clock.set(START)
    r, found = executor(tmp_path, name='restarted'), []
    for _ in range(3): found += tick(r, clock, [], Always(31)); clock.advance(15)
    assert [o.state for o in found] == seen and 'The clock was put back' in found[-1].sentence
    assert r.ledger.book(clock.now()).open == () and len(effects(effect)) == (not killed) and r.ledger.verify().ok


def test_replayed_samples_are_never_acted_on(tmp_path, effect):
    r = executor(tmp_path)
    with use_clock(SystemClock()):
        out = r.step(START, [incident()], freshness(HOSTS, START), Always(97))
    assert out[0].gate == 'clock' and effects(effect) == []


@settings(max_examples=soak(60, 2000))
@given(
    st.lists(st.tuples(st.integers(-600, 900), st.one_of(st.just(float('nan')), st.floats(0, 100))), max_size=60),
    st.integers(0, 900),
)
def test_invariant_13_recovered_only_on_fresh_samples_after_the_action(samples, at):
    """Whatever arrives in whatever order: recovered needs two or more samples inside the band, all after the start,
    over the whole time, without a gap."""
    series = pd.Series({START + pd.Timedelta(seconds=s): v for s, v in samples}, dtype=float).sort_index()
    if not len(series): series.index = pd.DatetimeIndex([], tz='UTC')
    now, begin = START + pd.Timedelta(seconds=at), START + pd.Timedelta('30 s')
    state, _ = judge(series, (20, 45), begin, START + pd.Timedelta('600 s'), now, 60, 15)
    if state == 'recovered':
        good = series[(series.index >= begin) & (series.index <= now)].dropna()
        tail = good[good.index >= good.index[-1] - pd.Timedelta('60 s')]
        assert tail.between(20, 45).all()
        assert (now - good.index[-1]).total_seconds() <= 45
        assert (good.index[-1] - begin).total_seconds() >= 60
        assert (
            good.index[good.index >= good.index[-1] - pd.Timedelta('60 s')]
            .to_series()
            .diff()
            .dt.total_seconds()
            .dropna()
            <= 45
        ).all()
    if state is None: assert at < 600


def test_invariant_13_samples_from_before_or_none_at_all(tmp_path, clock):
    r = executor(tmp_path)
    tick(r, clock)
    old = pd.DataFrame({cpu('web-1'): 31.}, pd.date_range(START - pd.Timedelta('1 h'), START, freq='15s'))
    for _ in range(25): clock.advance(15); tick(r, clock, [], Table(old))
    assert r.ledger.action(1).state == 'not_recovered' and 'No fresh sample' in r.ledger.action(1).verdict


def test_untouched_peers_that_come_back_too_are_said(tmp_path, clock):
    r = executor(tmp_path)
    ill = [incident(), incident('db-1', id=2, anomalies=(anomaly('db-1'),))]
    tick(r, clock, ill)
    for _ in range(8): clock.advance(15); tick(r, clock, [], Always(31))
    assert 'it may have recovered anyway' in r.ledger.action(1).verdict


@pytest.mark.parametrize('do', ['command, with: {run: [/bin/echo]}', 'ec2_reboot'])
@pytest.mark.parametrize('known_as', ['alias', 'instance'])
def test_invariant_18_home_is_home_under_any_name(tmp_path, clock, monkeypatch, do, known_as):
    "Its series carry the name that [hosts] gives it, or CloudWatch's: the instance id."
    home = 'i-0123456789abcdef0'
    r = executor(tmp_path, POLICY.replace('web-1', home).replace('do: test_effect', f'do: {do}', 1))
    if known_as == 'alias': r.settings.hosts = {own_host(): home}
    else: monkeypatch.setattr('smartcloudops.remediation.state_reader.own_instance', lambda: home)
    out = tick(r, clock, [incident(home, now=clock.now())], hosts=[*HOSTS, home])
    assert [(o.state, o.gate) for o in out] == [('refused', 'target')] and 'loop' in r.ledger.action(1).verdict


def test_invariant_17_the_first_failure_stops_the_rest(tmp_path, clock, effect, monkeypatch):
    """One incident on three hosts, acted on one after the other: after the first that fails, the others are left
    alone, and each has its own row."""
    monkeypatch.setattr(Effect, 'before', staticmethod(lambda key: None))
    answers = iter([Report(True, 'done'), Report(False, 'no')])
    monkeypatch.setattr(
        Effect, 'send', lambda self: (open(Effect.path, 'a').write(self.target + '\n'), next(answers))[1]
    )
    wide = POLICY.replace(
        'mode: auto', 'mode: auto\n    limits: {in_flight: 3, share_of_fleet: 100 %, per_hour: 9, unhealthy: 100 %}'
    )
    r = executor(tmp_path, wide, in_flight=3, per_hour=9)
    many = incident(hosts=('web-1', 'web-2', 'web-3'))
    out = tick(r, clock, [many])
    assert [(o.target, o.state) for o in out] == [
        ('web-1', 'sent'),
        ('web-1', 'verifying'),
        ('web-2', 'sent'),
        ('web-2', 'failed'),
        ('web-3', 'refused'),
    ]
    assert out[-1].gate == 'partial' and effects(effect) == ['web-1', 'web-2']


def test_invariant_14_observe_never_reaches_an_operation(tmp_path, clock, monkeypatch):
    for name in ('send', 'undo', 'check', 'observe'):
        monkeypatch.setattr(Effect, name, lambda self: pytest.fail('called'))
    r = executor(tmp_path, OBSERVE)
    for n in range(6): tick(r, clock, [incident(episode=n)]); clock.advance(1000)
    assert set(states(r.ledger)) == {'observed'}


def test_an_operation_that_breaks_off_is_unknown_then_observed_never_sent_again(tmp_path, clock, effect, monkeypatch):
    monkeypatch.setattr(
        Effect,
        'before',
        staticmethod(lambda key: (_ for _ in ()).throw(RuntimeError('connection dropped, password=hunter2'))),
    )
    r = executor(tmp_path)
    assert [o.state for o in tick(r, clock)] == ['sent', 'unknown']
    clock.advance(15); assert [o.state for o in tick(r, clock)] == ['verifying']
    for _ in range(8): clock.advance(15); tick(r, clock, [], Always(31))
    assert states(r.ledger) == ['recovered'] and 'hunter2' not in str(r.ledger.audit())


def test_what_is_seen_not_to_have_happened_goes_to_a_person(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(Effect, 'answer', Report(None, 'no answer'))
    monkeypatch.setattr(Effect, 'seen', Report(False, 'web-1 is stopped'))
    r = executor(tmp_path)
    tick(r, clock); clock.advance(15)
    assert [(o.state, o.gate) for o in tick(r, clock)] == [('escalated', ''), ('refused', 'ladder')]
    assert 'A person is needed' in r.ledger.action(1).verdict


def test_a_slow_send_does_not_stop_the_loop(tmp_path, clock, effect, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(Effect, 'before', staticmethod(lambda key: go.wait(10)))
    r = executor(tmp_path); r.stages.runner.settle = .05
    assert [o.state for o in tick(r, clock)] == ['sent']
    clock.advance(20); assert tick(r, clock) == []
    go.set(); time.sleep(.2); clock.advance(20)
    assert [o.state for o in tick(r, clock)] == ['verifying'] and r.ledger.action(1).judge_from > clock.now()


def test_a_send_that_never_ends_does_not_hold_its_place_for_ever(tmp_path, clock, effect, monkeypatch):
    "One in flight is all there is: after its time it counts as unknown, is judged by samples, and the next one may go."
    go = threading.Event()
    monkeypatch.setattr(Effect, 'before', staticmethod(lambda key: go.wait(60)))
    r = executor(tmp_path); r.stages.runner.settle = .05
    seen = [o.state for o in tick(r, clock)]
    for _ in range(30): clock.advance(15); seen += [o.state for o in tick(r, clock, [])]
    assert seen == ['sent', 'unknown', 'verifying', 'not_recovered']
    assert 'No answer came in time' in str(r.ledger.audit('actions:1'))
    go.set(); r.stop()
    assert states(r.ledger) == ['not_recovered'] and len(effects(effect)) == 1


def test_a_ledger_that_cannot_be_written_means_no_action(tmp_path, clock, effect):
    "Invariant 16: disk full at the moment of the intent."
    r = executor(tmp_path)
    real = r.ledger.intend
    def full(*a, **k):
        from smartcloudops.core.errors import StateError
        raise StateError('the ledger cannot be written (database or disk is full)')
    r.ledger.intend = full
    assert effects(effect) == [] and [o.state for o in tick(r, clock)] == [] and effects(effect) == []
    assert states(r.ledger) == ['approved']
    r.ledger.intend = real
    clock.advance(15); assert [o.state for o in tick(r, clock)] == ['sent', 'verifying'] and len(effects(effect)) == 1


def fails_once(real, when=lambda *a: True):
    "`real`, whose first call of that kind finds the database locked."
    failed = []
    def call(*a, **k):
        if not failed and when(*a):
            failed.append(1)
            raise StateError('the ledger cannot be written (database is locked)')
        return real(*a, **k)
    return call


@pytest.mark.parametrize('late, then', [([], ['sent', 'verifying']), (['web-1'], ['refused'])])
def test_what_could_not_be_written_down_is_decided_again(tmp_path, clock, effect, monkeypatch, late, then):
    "The database is locked at the moment of the plan, or of the refusal: the next step makes it anew."
    r = executor(tmp_path)
    monkeypatch.setattr(r.ledger, 'record', fails_once(r.ledger.record))
    assert tick(r, clock, late=late) == []
    clock.advance(15); assert [o.state for o in tick(r, clock, late=late)] == then


def test_what_was_done_before_the_database_was_locked_is_told(tmp_path, clock, effect, monkeypatch):
    "The first of two hosts was acted on when the second one's plan could not be written: nothing is sent unseen."
    two = read_policies(POLICY.replace('mode: auto', 'mode: auto\n    limits: {in_flight: 2, share_of_fleet: 100 %}'))
    r = executor(tmp_path, in_flight=2); r.stages.policy_file.current = two
    monkeypatch.setattr(r.ledger, 'record', fails_once(r.ledger.record, lambda plan, *_: plan.target == 'web-2'))
    both = [incident('web-1', id=1), incident('web-2', id=2)]
    assert [(o.target, o.state) for o in tick(r, clock, both)] == [('web-1', 'sent'), ('web-1', 'verifying')]
    clock.advance(15)
    assert [(o.target, o.state) for o in tick(r, clock, both)] == [('web-2', 'sent'), ('web-2', 'verifying')]
    monkeypatch.setattr(r.ledger, 'change', fails_once(r.ledger.change, lambda id, *_: id == 2))
    clock.advance(301); seen = [(o.target, o.state) for o in tick(r, clock, [])]
    clock.advance(15)
    assert sorted(seen + [(o.target, o.state) for o in tick(r, clock, [])]) == [
        ('web-1', 'not_recovered'),
        ('web-2', 'not_recovered'),
    ]


def test_an_answer_that_could_not_be_written_down_is_not_forgotten(tmp_path, clock, effect, monkeypatch):
    "The database is locked when a send has failed: it is told as failed a step later, not as unknown."
    monkeypatch.setattr(Effect, 'answer', Report(False, 'refused'))
    r = executor(tmp_path)
    monkeypatch.setattr(r.ledger, 'change', fails_once(r.ledger.change, lambda id, to, *_: to == 'failed'))
    assert [o.state for o in tick(r, clock)] == ['sent'] == states(r.ledger)
    clock.advance(15); assert [o.state for o in tick(r, clock, [])] == ['failed'] and len(effects(effect)) == 1


@pytest.mark.parametrize('answer', [Report(False, 'refused'), Report(True, 'done')], ids=['failed', 'not recovered'])
@pytest.mark.parametrize('locked', ['set_mode', 'change'])
def test_trust_is_lost_also_when_the_database_is_locked_beside_the_verdict(
    tmp_path, clock, effect, monkeypatch, answer, locked
):
    monkeypatch.setattr(Effect, 'answer', answer)
    r = executor(tmp_path)
    monkeypatch.setattr(
        r.ledger,
        locked,
        fails_once(
            getattr(r.ledger, locked), lambda a, b, *_: locked == 'set_mode' or b in ('failed', 'not_recovered')
        ),
    )
    tick(r, clock)
    for _ in range(3): clock.advance(301); tick(r, clock, [])
    assert states(r.ledger) == [{False: 'failed', True: 'not_recovered'}[answer.ok]]
    assert r.ledger.modes(r.policies.policies) == {'web-cpu': 'approve'}
    assert len(effects(effect)) == 1


def test_a_broken_policy_file_means_no_action_until_it_is_mended(tmp_path, clock, effect):
    path = tmp_path/'p.yaml'
    path.write_text('policies: [')
    r = Remediator(open_state(tmp_path/'s.db'), settings_in(tmp_path), path)
    turn_switch(r.ledger, switch_path(r.settings), True, 'x')
    assert tick(r, clock) == []
    path.write_text(POLICY); clock.advance(15)
    assert [o.state for o in tick(r, clock)] == ['sent', 'verifying']


def test_trust_is_lost_also_while_the_policy_file_is_being_mended(tmp_path, clock, effect):
    path = tmp_path/'p.yaml'
    path.write_text(POLICY)
    r = Remediator(open_state(tmp_path/'s.db'), settings_in(tmp_path), path)
    turn_switch(r.ledger, switch_path(r.settings), True, 'x')
    tick(r, clock)
    path.write_text('policies: ['); clock.advance(301)
    assert [o.state for o in tick(r, clock)] == ['not_recovered']
    path.write_text(POLICY); clock.advance(15); tick(r, clock)
    assert r.ledger.modes(r.policies.policies) == {'web-cpu': 'approve'}


@pytest.mark.parametrize('own, fleet, after', [(900, 60, 60), (120, 900, 120)])
def test_a_plan_lives_no_longer_than_the_policy_and_the_settings_allow(tmp_path, clock, effect, own, fleet, after):
    r = executor(
        tmp_path, APPROVE.replace('mode: approve', f'mode: approve\n    limits: {{ttl: {own}}}'), plan_ttl_seconds=fleet
    )
    tick(r, clock)
    clock.advance(after - 1); assert tick(r, clock) == []
    clock.advance(1); assert tick(r, clock)[0].state == 'expired'


def test_the_policy_and_incident_that_are_refused_stand_there_once(tmp_path, clock):
    r = executor(tmp_path, switch=False)
    for _ in range(5): tick(r, clock); clock.advance(15)
    r = executor(tmp_path, switch=False, name='restarted'); clock.advance(60)
    for _ in range(3): tick(r, clock); clock.advance(15)
    assert [(a.state, a.plan['gate']) for a in r.ledger.actions()] == [('refused', 'switch')]
    assert len(r.ledger.action(1).gates) > 15


# Invariants 3, 4, 5: killed at any line ------------------------------------------------------------

def life(folder, clock, name):
    "One action from plan to verdict, as the loop walks it; 31 % from one minute on."
    r = executor(folder, name=name)
    for _ in range(40):
        tick(
            r,
            clock,
            [incident(now=clock.now())] if not effects(Effect.path) else [incident(now=clock.now())],
            Always(31),
        )
        clock.advance(10)
        if any(a.state in ('recovered', 'not_recovered', 'escalated') for a in r.ledger.actions()): break
    return r


PURE = {'policy', 'gates', 'operations', 'notify', 'operators', 'verdict', 'outcome'}  # they write nothing on this way


def killed_at(folder, line):
    """Run a life in a child that is killed with SIGKILL before it executes its `line`th line of the engine, the ledger
    or the operation; returns lines executed when it lived."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0
        files = {str(f) for f in Path(remediation.__file__).parent.glob('*.py') if f.stem not in PURE} | {
            remediation_fleet.__file__
        }
        def trace(frame, event, arg):
            nonlocal count
            if frame.f_code.co_filename not in files: return None
            if event == 'line':
                count += 1
                if count == line: os.kill(os.getpid(), signal.SIGKILL)
            return trace
        try:
            with use_clock(FakeClock(START)) as clock:
                threading.settrace(trace); sys.settrace(trace)
                life(folder, clock, 'first')
                sys.settrace(None)
                os.write(write, str(count).encode())
        finally: os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as f: return int(f.read() or 0)


def test_invariants_3_4_5_killed_at_any_line(tmp_path, monkeypatch):
    """kill -9 before a line of the way from plan to verdict, then another process takes over: one send at most, always
    an intent before it, never a resend."""
    (tmp_path/'whole').mkdir(); monkeypatch.setattr(Effect, 'path', tmp_path/'whole'/'effects')
    total = killed_at(tmp_path/'whole', -1)
    assert total > 200 and len(effects(Effect.path)) == 1
    seen = set()
    chosen = random.Random(4)
    points = sorted(chosen.sample(range(1, total + 1), soak(10, min(400, total))))
    for line in points:
        folder = tmp_path/f'line-{line}'
        folder.mkdir(); monkeypatch.setattr(Effect, 'path', folder/'effects')
        killed_at(folder, line)
        sent_before = len(effects(Effect.path))
        stored = {a.state for a in Ledger(open_state(folder/'smartcloudops.db')).actions()}
        if sent_before:
            assert stored & {'sent', 'verifying', 'recovered'}, f'line {line}: an effect without a durable intent'
        seen |= stored
        assert ledger_verify(folder).ok, line
        with use_clock(FakeClock(START + pd.Timedelta('90 s'))) as clock:
            r = life(folder, clock, 'second')
            done = effects(Effect.path)
            keys = [d.split()[0] for d in done]
            assert len(keys) == len(set(keys)) and len(done) <= 1, f'line {line}: {done}'
            assert all(a.state in ENDED for a in r.ledger.actions() if a.attempt == 1), (line, states(r.ledger))
            assert r.ledger.verify().ok and ledger_verify(folder).ok
            if 'sent' in stored: assert any(e['after'] == 'unknown' for e in r.ledger.audit()), line
            r.ledger.engine.dispose()
    assert seen


def test_invariant_5_killed_between_commit_and_send(tmp_path, clock, effect, monkeypatch):
    "The intent is there, the effect is not: it is looked at and judged, and never sent."
    r = executor(tmp_path, name='first')
    monkeypatch.setattr(r.stages.runner, 'start', lambda *a: [])
    assert [o.state for o in tick(r, clock)] == ['sent']
    clock.advance(31)
    other = executor(tmp_path, name='second')
    assert tick(other, clock) == []  # lease and send time-out are not over: left alone
    clock.advance(60)
    assert [o.state for o in tick(other, clock)] == ['unknown', 'verifying']
    for _ in range(30): clock.advance(15); tick(other, clock)
    assert other.ledger.action(1).state == 'not_recovered'
    assert len([a for a in other.ledger.actions() if a.sent]) == 1
    assert effects(effect) == []


# Invariant 6: two executors ------------------------------------------------------------------------

def test_invariant_6_a_holder_paused_before_the_commit_sends_nothing(tmp_path, clock, effect):
    first, second = executor(tmp_path, name='first'), executor(tmp_path, name='second')
    real = first.ledger.intend
    def paused(*a, **k):
        clock.advance(31)  # the process slept here, and the other took over
        out = tick(second, clock)
        assert [o.state for o in out] == ['sent', 'verifying']  # the approved action is sent by the new holder
        return real(*a, **k)
    first.ledger.intend = paused
    tick(first, clock)
    assert len(effects(effect)) == 1


def test_invariant_6_a_holder_paused_after_the_commit_and_its_successor(tmp_path, clock, effect, monkeypatch):
    """The late send goes out at most once; until lease and time-out have passed the successor leaves the target alone,
    then only observes."""
    go = threading.Event()
    monkeypatch.setattr(Effect, 'before', staticmethod(lambda key: go.wait(20)))
    first, second = executor(tmp_path, name='first'), executor(tmp_path, name='second')
    first.stages.runner.settle = .05
    assert [o.state for o in tick(first, clock)] == ['sent']
    clock.advance(31)
    for _ in range(3): assert tick(second, clock) == []; clock.advance(10)
    go.set(); time.sleep(.2)
    clock.advance(60)
    assert [o.state for o in tick(second, clock)] == ['unknown', 'verifying']
    for _ in range(40): clock.advance(15); tick(second, clock, [], Always(31))
    assert len(effects(effect)) == 1 and second.ledger.action(1).state == 'recovered'


def _run(folder, name, seconds, pause):
    settings = settings_in(folder, in_flight=9, per_hour=99, attempts=9, cooldown_seconds=1, lease_seconds=1)
    text = POLICY.replace('mode: auto', 'mode: auto\n    limits: {in_flight: 5, share_of_fleet: 100 %, per_hour: 99, '
                        'attempts: 9, cooldown: 0, unhealthy: 100 %}')
    r = Remediator(open_state(folder/'smartcloudops.db'), settings, read_policies(text), name=name)
    end, chosen = time.monotonic() + seconds, random.Random(name)
    while time.monotonic() < end and not (folder/'enough').exists():
        now = pd.Timestamp.now(tz='UTC')
        many = [
            incident(
                f'web-{h}',
                id=h,
                episode=int(time.monotonic() * 2) // 3,
                anomalies=(anomaly(f'web-{h}', start=now - pd.Timedelta('1 min')),),
            )
            for h in range(1, 6)
        ]
        r.step(now, many, freshness(HOSTS, now), Always(97))
        time.sleep(pause if chosen.random() < .1 else .02)
    os._exit(0)


def until(happened, at_least, at_most=90):
    "Wait until something has happened, however busy the machine is."
    begin = time.monotonic()
    while time.monotonic() < begin + at_least or not (happened() or time.monotonic() > begin + at_most): time.sleep(.1)


def holders(folder):
    engine = open_state(folder/'smartcloudops.db')
    found = {e['who'] for e in Ledger(engine).audit() if e['event'] == 'lease taken'}
    engine.dispose()
    return found


def test_invariant_6_two_processes_on_one_ledger(tmp_path, effect):
    "Both walk the same incidents; now and then one sleeps past its lease, and one is killed. No key has two effects."
    executor(tmp_path)
    children = []
    for name in 'ab':
        pid = os.fork()
        if pid == 0: _run(tmp_path, name, 240, 1.5)
        children.append(pid)
    until(lambda: 'a' in holders(tmp_path) and effects(effect), soak(2, 30))
    os.kill(children[0], signal.SIGKILL)
    until(lambda: holders(tmp_path) == {'a', 'b'} and len(effects(effect)) >= 3, soak(2, 30))
    (tmp_path/'enough').touch()
    for pid in children: os.waitpid(pid, 0)
    keys = [e.split()[0] for e in effects(effect)]
    assert len(keys) >= 3 and len(keys) == len(set(keys))
    assert ledger_verify(tmp_path).ok
    ledger = Ledger(open_state(tmp_path/'smartcloudops.db'))
    sent = {a.key: a for a in ledger.actions() if a.sent is not None}
    assert set(keys) <= set(sent)  # never an effect without its intent
    assert len({e['who'] for e in ledger.audit() if e['event'] == 'lease taken'}) == 2


def test_a_plan_left_behind_by_a_killed_process_goes_on(tmp_path, clock, effect, monkeypatch):
    "Killed between `planned` and what follows: the next process does not wait for the plan to expire."
    r = executor(tmp_path, name='first')
    monkeypatch.setattr(r.stages.waiting, 'approve_by_policy', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): tick(r, clock)
    assert states(r.ledger) == ['planned']
    clock.advance(31)
    assert [o.state for o in tick(executor(tmp_path, name='second'), clock)] == ['sent', 'verifying']
    assert len(effects(effect)) == 1


def test_what_can_be_taken_back_is_when_it_did_not_help(tmp_path, clock, effect, monkeypatch):
    "Once, with its intent in the audit before it; a failed undo is said as failed (chaostoolkit-lib#94)."
    for answer, event in ((Report(True, 'back at 2'), 'undone'), (Report(False, 'refused'), 'undo failed')):
        folder = tmp_path/event.replace(' ', '-')
        folder.mkdir()
        monkeypatch.setattr(Effect, 'can_undo', True); monkeypatch.setattr(Effect, 'undo_when_failed', True)
        calls = []
        monkeypatch.setattr(Effect, 'undo', lambda self, calls=calls, answer=answer: (calls.append(1), answer)[1])
        r = executor(folder)
        tick(r, clock); clock.advance(301); tick(r, clock, []); clock.advance(60); tick(r, clock, [])
        events = [e['event'] for e in r.ledger.audit('actions:1')]
        assert events[-3:] == ['not_recovered', 'undo intended', event] and calls == [1] and r.ledger.verify().ok


def test_invariant_12_switched_off_nothing_is_taken_back_either(tmp_path, clock, effect, monkeypatch):
    "An undo changes something too; that it was left out stands in the story."
    monkeypatch.setattr(Effect, 'can_undo', True); monkeypatch.setattr(Effect, 'undo_when_failed', True)
    monkeypatch.setattr(Effect, 'undo', lambda self: pytest.fail('taken back, though switched off'))
    r = executor(tmp_path)
    tick(r, clock); turn_switch(r.ledger, switch_path(r.settings), False, 'oncall', 'hands off')
    clock.advance(301); assert [o.state for o in tick(r, clock, [])] == ['not_recovered']
    last = r.ledger.audit('actions:1')[-1]
    assert last['event'] == 'not undone' and 'hands off' in last['detail']


def test_a_plan_that_slept_past_its_time_dies_at_the_send(tmp_path, clock, effect, monkeypatch):
    "The step began in time, then the process slept: the clock at the send counts."
    r = executor(tmp_path, APPROVE)
    tick(r, clock); r.ledger.approve(1, 'oncall')
    real = r.stages.sender.send
    monkeypatch.setattr(r.stages.sender, 'send', lambda *a: (clock.advance(1000), real(*a))[1])
    assert [o.state for o in tick(r, clock)][:1] == ['expired'] and effects(effect) == []


def test_a_send_that_slept_during_its_last_look_is_asked_again(tmp_path, clock, effect, monkeypatch):
    "A host that was suspended between the gates and the intent: after hours, nothing is sent on what was true before."
    r = executor(tmp_path)
    monkeypatch.setattr(Effect, 'check', lambda self: (clock.advance(8 * 3600), Report(True, 'nothing to check'))[1])
    assert tick(r, clock) == [] and effects(effect) == [] and states(r.ledger) == ['approved']
    assert [o.state for o in tick(r, clock, [])] == ['expired'] and effects(effect) == []


def test_invariant_16_the_disk_fills_up_while_the_engine_works(tmp_path, clock, effect):
    """SQLite may not grow any more, at some point of many episodes: whatever was done has its intent on disk, and from
    then on nothing is done."""
    import sqlalchemy as sa
    r = executor(tmp_path, attempts=99, per_hour=99, cooldown_seconds=1, breaker_failures=99)
    def small(connection, *_):
        connection.execute(f"pragma max_page_count={connection.execute('pragma page_count').fetchone()[0] + 6}")
    r.ledger.engine.dispose(); sa.event.listen(r.ledger.engine, 'connect', small)
    with r.ledger.engine.connect() as c: assert c.exec_driver_sql('pragma max_page_count').scalar() < 1000
    done = []
    for n in range(60):
        tick(
            r,
            clock,
            [incident(f'web-{n % 5 + 1}', id=n, episode=n, anomalies=(anomaly(f'web-{n % 5 + 1}'),))],
            Always(31),
        )
        clock.advance(400)
        done.append(len(effects(effect)))
    assert done[-1] == done[-20] < 60  # it ended long before, and nothing came after
    sent = {a.key for a in Ledger(open_state(tmp_path/'smartcloudops.db')).actions() if a.sent is not None}
    assert {e.split()[0] for e in effects(effect)} <= sent and ledger_verify(tmp_path).ok


@pytest.mark.parametrize('what', ['none', 'empty', 'raises', 'silences'])
def test_invariant_2_what_cannot_be_read_authorises_nothing(tmp_path, clock, effect, monkeypatch, what):
    "No table of freshness, an empty one, a history that raises, silences that cannot be read: no effect."
    r = executor(tmp_path)
    if what == 'silences':
        monkeypatch.setattr(r.ledger, 'silences', lambda *a, **k: (_ for _ in ()).throw(OSError('locked')))
    asked = {
        'none': None,
        'empty': freshness([], clock.now()),
        'silences': freshness(HOSTS, clock.now()),
        'raises': lambda: (_ for _ in ()).throw(OSError('history is locked')),
    }[what]
    for _ in range(3): r.step(clock.now(), [incident(now=clock.now())], asked, Always(97)); clock.advance(5)
    assert effects(effect) == [] and not any(a.sent for a in r.ledger.actions())


def test_autonomy_is_earned_granted_and_lost(tmp_path, monkeypatch, effect):
    """The whole path, by the command line: observed → proposed → granted → approved ten times → proposed → granted
    auto → acts alone → one failure → asks again; the audit names who."""
    import json

    from click.testing import CliRunner

    from smartcloudops.cli import main
    (tmp_path/'config').mkdir(); (tmp_path/'config/policies.yaml').write_text(OBSERVE); monkeypatch.chdir(tmp_path)
    (tmp_path/'config/smartcloudops.toml').write_text('[remediation]\nmode = "auto"\n')
    monkeypatch.setattr(Effect, 'path', tmp_path/'effects')
    with use_clock(FakeClock(START)) as clock:
        def cli(*words):
            done = CliRunner().invoke(main, list(words))
            assert done.exit_code == 0, done.output
            return done.stdout
        standing = lambda: json.loads(cli('policy', 'status', '--json'))[0]
        (tmp_path/'data').mkdir()
        r = executor(tmp_path/'data', OBSERVE, attempts=99, per_hour=99, cooldown_seconds=1)
        n = 0
        def case(back=31):
            nonlocal n; n += 1
            host = f'web-{n % 5 + 1}'
            out = tick(r, clock, [incident(host, id=n, episode=n, anomalies=(anomaly(host),))], Always(back))
            for a in r.ledger.actions(['awaiting_approval']):
                cli('actions', 'approve', str(a.id), '--comment', 'looked at it')
                clock.advance(5)
                tick(r, clock, [incident(host, id=n, episode=n, anomalies=(anomaly(host),))], Always(back))
            for _ in range(25): clock.advance(15); tick(r, clock, [], Always(back))
            clock.advance(86400); return out
        for _ in range(4): case()
        assert standing()['proposed'] == '' and effects(tmp_path/'effects') == []
        case()
        assert (
            standing()['proposed'].startswith('observe → approve') and standing()['mode'] == 'observe'
        )  # proposed, not taken
        cli('policy', 'grant', 'web-cpu', 'approve', '--reason', 'five good days')
        for _ in range(10): case()
        assert len(effects(tmp_path/'effects')) == 10
        assert standing()['proposed'].startswith('approve → auto')
        assert standing()['mode'] == 'approve'
        cli('policy', 'grant', 'web-cpu', 'auto', '--reason', 'ten recoveries')
        assert [o.state for o in case()][:2] == ['sent', 'verifying']
        assert standing()['mode'] == 'auto'
        assert len(effects(tmp_path/'effects')) == 11
        case(back=97)
        assert r.ledger.actions(limit=1)[0].state == 'not_recovered'
        assert (standing()['mode'], standing()['proposed'], standing()['failed in a row']) == ('approve', '', 1)
        audit = r.ledger.audit()
        assert [(e['event'], e['who'] == 'loop') for e in audit if e['event'].startswith('mode ')] == [
            ('mode approve', False),
            ('mode auto', False),
            ('mode approve', True),
        ]
        assert 'looked at it' in cli('actions', 'show', '6') and 'chain intact' in cli('ledger', 'verify')
