"""The ledger: one audit row a change, a chain that shows tampering, approvals that fit once, and no act that can't be
written down."""
import multiprocessing
from dataclasses import replace

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smartcloudops.core.clock import FakeClock, to_us, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import RemediationError, StateError
from smartcloudops.remediation import log_remediation_to_s3, verification as module
from smartcloudops.remediation.gates import SECOND, Plan
from smartcloudops.remediation.ledger import (
    TRANSITIONS,
    Ledger,
    Superseded,
    approvals,
    copy_segments,
    export_lines,
    verify_lines,
)
from smartcloudops.remediation.operators import ledger_export, ledger_verify
from smartcloudops.remediation.policy import Policy
from tests.conftest import soak
from tests.remediation_fleet import START, cpu

pytestmark = pytest.mark.phase4
POLICY = Policy(name='web-cpu', match={'metric': 'cpu_utilization_percent'}, mode='approve',
                ladder=[{'do': 'service_restart', 'with': {'unit': 'a.service'}}])


def plan(n=1, mode='approve', at=START, **more):
    us = to_us(at)
    return replace(Plan(f'key-{n}', n, f'cpu|web-{n}', 1, POLICY, 0, f'web-{n}', 1, mode, cpu(f'web-{n}'), 97., 20.,
                        45., us, us + 900 * SECOND), **more)


@pytest.fixture
def ledger(tmp_path):
    with use_clock(FakeClock(START)): yield Ledger(open_state(tmp_path/'smartcloudops.db'), tmp_path/'ledger.anchor')


def lived(ledger, n=1):
    "An action with its whole life."
    a = ledger.record(plan(n), 'Restart')
    ledger.change(a.id, 'awaiting_approval')
    ledger.approve(a.id, 'oncall')
    ledger.intend(a.id, ledger.take_lease('me', 30), START)
    ledger.change(a.id, 'verifying')
    return ledger.change(a.id, 'recovered', 'cpu 31 %')


def damage(ledger, statement, *values):
    with ledger.engine.begin() as c: c.exec_driver_sql(statement, tuple(values))


def test_a_lease_that_ran_out_is_told_when_another_takes_it(ledger):
    "A source slower than the lease takes it anew at every tick; that the same loop goes on is no news."
    fences = [ledger.take_lease('a', 30, START + pd.Timedelta(minutes=5 * n)).fence for n in range(4)]
    assert (pd.Series(fences).diff().dropna() == 1).all()
    ledger.take_lease('b', 30, START + pd.Timedelta('1h'))
    assert [(e['who'], e['event']) for e in ledger.audit()] == [('a', 'lease taken'),
                                                                ('b', 'lease taken')] and ledger.verify().ok


def test_a_lease_of_a_time_to_come_holds_nobody_up(ledger):
    "It was given while the clock was a day ahead; whoever held it cannot act under it any more."
    old = ledger.take_lease('a', 30, START + pd.Timedelta('1D'))
    new = ledger.take_lease('b', 30, START)
    assert new.holder == 'b' and new.fence > old.fence and ledger.take_lease('c', 30,
                                                                             START + pd.Timedelta('10 s')).holder == 'b'


@pytest.mark.parametrize('statement, where', [
    ("update audit set who = 'x' where seq = 3", 'audit 3'), ("update audit set at = at + 1 where seq = 1", 'audit 1'),
    ("update audit set detail = '{\"a\": 1}' where seq = 5", 'audit 5'),
    ("delete from audit where seq = 4", 'audit 5'), ("delete from audit where seq = 1", 'audit 2'),
    ("delete from audit where seq = (select max(seq) from audit)", 'audit'), ("delete from audit", 'audit'),
    ("update audit set seq = -1 where seq = 3", 'audit -1'),
    ("update actions set state = 'not_recovered'", 'actions:1'),
    ("update actions set verdict = 'cpu 32 %'", 'actions:1'), ("update actions set sent = sent + 1", 'actions:1'),
    ("delete from actions", 'actions:1'),
    ("update approvals set who = 'boss'", 'approvals:1'), ("delete from approvals", 'approvals:1'),
    ("update audit_head set hash = 'x'", 'audit'),
    ("insert into silences (host, metric, starts, ends, who, reason, made) values ('*', '*', 0, 9, 'x', '', 0)",
     'silences:1'),
])
def test_tampering_is_found_and_named(ledger, statement, where):
    lived(ledger)
    assert ledger.verify().ok
    damage(ledger, statement)
    found = ledger.verify()
    assert not found.ok and where in found.where, found


def test_reordered_rows_are_found(ledger):
    lived(ledger)
    damage(ledger, 'update audit set seq = case seq when 3 then 4004 when 4 then 4003 else seq end')
    damage(ledger, 'update audit set seq = seq - 4000 where seq > 4000')
    assert ledger.verify().where in ('audit 3', 'audit 4')


def test_a_chain_that_was_cut_and_mended_is_found_by_the_anchor(ledger):
    """Invariant 15: rows removed from the end together with the head and the rows they speak of; only the file outside
    knows."""
    # by the command line or the page, which know the database only
    lived(ledger); Ledger(ledger.engine).turn_switch(True, 'oncall')
    damage(ledger, 'delete from audit where event = ?', 'switch on')
    damage(ledger, 'delete from switches')
    damage(
        ledger,
        'update audit_head set seq = (select max(seq) from audit), hash = (select hash from audit order by seq desc'
        ' limit 1)',
    )
    assert Ledger(ledger.engine, '').verify().ok                   # without the anchor all seems well
    found = ledger.verify()
    assert not found.ok and 'cut off' in found.text


@pytest.mark.parametrize('after', ['_read_anchor', '_walk', '_compare'])
def test_what_the_loop_writes_meanwhile_is_no_tampering(ledger, monkeypatch, after):
    "The loop and the page go on while somebody verifies."
    lived(ledger)
    real, loop = getattr(module, after), Ledger(open_state(ledger.anchor.with_name('smartcloudops.db')), ledger.anchor)
    def meanwhile(*a):
        found = real(*a)
        loop.turn_switch(True, 'oncall')
        return found
    monkeypatch.setattr(module, after, meanwhile)
    assert ledger.verify().ok
    assert len(loop.audit('switches:1')) == 1


def test_missing_and_empty_ledgers_verify_and_foreign_or_broken_files_do_not_crash(tmp_path):
    assert ledger_verify(tmp_path).ok and ledger_verify(tmp_path/'none').ok and not list(tmp_path.iterdir())
    (tmp_path/'smartcloudops.db').touch()
    assert ledger_verify(tmp_path).ok
    open_state(tmp_path/'smartcloudops.db').dispose()
    assert ledger_verify(tmp_path).ok and ledger_export(tmp_path) == ''
    (tmp_path/'smartcloudops.db').write_text('not a database at all, but long enough to look like something')
    assert not ledger_verify(tmp_path).ok


def test_one_changed_byte_of_the_file_is_found(tmp_path):
    "Flip bytes of the stored rows in the file itself; each time verify says no, or the row is untouched."
    with use_clock(FakeClock(START)):
        ledger = Ledger(open_state(tmp_path/'smartcloudops.db'), tmp_path/'ledger.anchor')
        lived(ledger)
    with ledger.engine.connect() as c: c.exec_driver_sql('pragma wal_checkpoint(truncate)')
    ledger.engine.dispose()
    data = (tmp_path/'smartcloudops.db').read_bytes()
    for word in (b'oncall', b'awaiting_approval', b'key-1', b'web-1', b'recovered', b'service_restart', b'cpu 31'):
        found, missed, at = [], 0, -1
        while (at := data.find(word, at + 1)) >= 0: found.append(at)
        for at in found:
            (tmp_path/'smartcloudops.db').write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
            missed += ledger_verify(tmp_path).ok
        (tmp_path/'smartcloudops.db').write_bytes(data)
        assert found and missed < len(found), word
        if word in (b'oncall', b'cpu 31'): assert missed == 0
    assert ledger_verify(tmp_path).ok


class Life(RuleBasedStateMachine):
    """Any order of changes: only those of the table happen, each leaves exactly one audit row of its own, and the chain
    holds (invariant 15)."""
    def __init__(self):
        super().__init__()
        import pathlib
        import tempfile
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock(START)
        self.context = use_clock(self.clock); self.context.__enter__()
        self.ledger = Ledger(open_state(pathlib.Path(self.folder.name)/'s.db'))
        self.known, self.n = {}, 0

    def teardown(self):
        self.context.__exit__(None, None, None); self.ledger.engine.dispose(); self.folder.cleanup()

    def rows(self, id): return len([e for e in self.ledger.audit(f'actions:{id}') if e['before'] != e['after']])

    @rule(mode=st.sampled_from(['approve', 'auto', 'observe']))
    def a_plan(self, mode):
        self.n += 1
        a = self.ledger.record(plan(self.n, mode, self.clock.now()), 'Restart')
        self.known[a.id] = a.state
        assert self.ledger.record(plan(self.n, mode), 'Restart') is None          # the same key again

    @rule(which=st.integers(0, 20), to=st.sampled_from(sorted({s for t in TRANSITIONS.values() for s in t} - {'sent'})))
    def a_change(self, which, to):
        if not self.known: return
        id = list(self.known)[which % len(self.known)]
        before, rows = self.known[id], self.rows(id)
        if to in TRANSITIONS.get(before, ()): self.ledger.change(id, to); self.known[id] = to
        else:
            with pytest.raises(Superseded): self.ledger.change(id, to)
        assert self.rows(id) == rows + (self.known[id] != before)

    @rule(which=st.integers(0, 20), late=st.booleans())
    def approve_and_send(self, which, late):
        if not self.known: return
        id = list(self.known)[which % len(self.known)]
        if self.known[id] == 'awaiting_approval' and self.ledger.action(id).expires > self.clock.now():
            self.ledger.approve(id, 'oncall'); self.known[id] = 'approved'
        if late: self.clock.advance(901)
        if self.known[id] != 'approved': return
        action, lease = self.ledger.action(id), self.ledger.take_lease('me', 30)
        valid = action.mode == 'auto' or any(True for _ in [0] if self.approval(id))
        try: self.ledger.intend(id, lease, self.clock.now()); self.known[id] = 'sent'; assert valid
        except RemediationError: assert not valid

    def approval(self, id):
        with self.ledger.engine.connect() as c:
            return c.execute(
                sa.select(approvals.c.id).where(
                    approvals.c.action == id, approvals.c.used.is_(None), approvals.c.expires > to_us(self.clock.now())
                )
            ).first()

    @invariant()
    def the_chain_holds(self):
        assert self.ledger.verify().ok
        assert {a.id: a.state for a in self.ledger.actions()} == self.known


Life.TestCase.settings = settings(max_examples=soak(12, 300), stateful_step_count=soak(15, 50))
test_invariant_15_every_change_is_audited = Life.TestCase


@settings(max_examples=soak(15, 300))
@given(seconds=st.integers(-10, 2000), other=st.booleans(), twice=st.booleans())
def test_invariant_11_approval_fits_one_plan_once_and_not_too_late(tmp_path_factory, seconds, other, twice):
    with use_clock(FakeClock(START)) as clock:
        ledger = Ledger(open_state(tmp_path_factory.mktemp('l')/'s.db'))
        a = ledger.record(plan(), 'Restart')
        ledger.change(a.id, 'awaiting_approval')
        if other:
            with pytest.raises(RemediationError, match='not the one you saw'): ledger.approve(a.id, 'oncall',
                plan_hash='0' * 64)
        ledger.approve(a.id, 'oncall', plan_hash=a.plan_hash)
        with pytest.raises(RemediationError): ledger.approve(a.id, 'second')
        if twice: damage(ledger, 'update approvals set used = 1')
        clock.set(START + pd.Timedelta(seconds=max(0, seconds)))
        lease = ledger.take_lease('me', 30)
        if twice or seconds >= 900:
            with pytest.raises(RemediationError, match='no approval'): ledger.intend(a.id, lease, clock.now())
            assert ledger.action(a.id).state == 'approved'
        else: assert ledger.intend(a.id, lease, clock.now()).state == 'sent'
        ledger.engine.dispose()


def test_approval_is_for_the_plan_that_was_shown(ledger):
    a = ledger.record(plan(), 'Restart'); ledger.change(a.id, 'awaiting_approval'); ledger.approve(a.id, 'oncall')
    damage(ledger, "update actions set plan_hash = 'another'")
    with pytest.raises(RemediationError, match='no approval for this plan'): ledger.intend(a.id,
        ledger.take_lease('me', 30), START)


def test_expired_plans_cannot_be_approved(ledger):
    a = ledger.record(plan(), 'Restart'); ledger.change(a.id, 'awaiting_approval')
    with pytest.raises(RemediationError, match='expired at'): ledger.approve(a.id, 'oncall',
                                                                             at=START + pd.Timedelta('16 min'))


def test_the_lease_fences(ledger):
    "Invariant 6: a superseded lease commits nothing; the fence only grows."
    first = ledger.take_lease('a', 30, START)
    assert ledger.take_lease('b', 30, START + pd.Timedelta('10 s')).holder == 'a'
    second = ledger.take_lease('b', 30, START + pd.Timedelta('31 s'))
    assert (second.holder, second.fence) == ('b', first.fence + 1)
    a = ledger.record(plan(mode='auto'), 'Restart'); ledger.change(a.id, 'approved')
    with pytest.raises(Superseded, match='lease was lost'): ledger.intend(a.id, first, START + pd.Timedelta('5 s'))
    with pytest.raises(Superseded): ledger.intend(a.id, second, START + pd.Timedelta('2 min'))        # ran out
    assert ledger.intend(a.id, second, START + pd.Timedelta('40 s')).fence == second.fence
    assert ledger.take_lease('a', 30, START + pd.Timedelta('5 min')).fence == second.fence + 1


def test_the_database_itself_refuses_a_second_send_under_one_key(ledger):
    a = ledger.record(plan(mode='auto'), 'Restart'); ledger.change(a.id, 'approved'); ledger.intend(a.id,
        ledger.take_lease('me', 30), START)
    with pytest.raises(sa.exc.IntegrityError):
        damage(
            ledger,
            'insert into actions select 99, key, incident, fingerprint, episode, policy, step, operation, target,'
            ' attempt, state, mode, plan, plan_hash, gates, sentence, verdict, made, updated, expires, sent,'
            ' judge_from, judge_until, ended, fence, report from actions where id = 1',
        )


def _approve_many(path, name, out):
    ledger, won = Ledger(open_state(path)), 0
    for id in range(1, 21):
        try: ledger.approve(id, name, at=START); won += 1
        except (RemediationError, Superseded): pass
    out.put((name, won))


def test_two_processes_write_one_chain(tmp_path):
    "Both approve the same twenty actions: each is approved once, and the chain is whole."
    ledger = Ledger(open_state(tmp_path/'s.db'))
    for n in range(20): a = ledger.record(plan(n), 'x', at=START); ledger.change(a.id, 'awaiting_approval', at=START)
    ledger.engine.dispose()
    context = multiprocessing.get_context('fork')
    out = context.Queue()
    both = [context.Process(target=_approve_many, args=(tmp_path/'s.db', name, out)) for name in 'ab']
    for p in both: p.start()
    for p in both: p.join()
    assert sum(out.get()[1] for _ in both) == 20
    assert Ledger(open_state(tmp_path/'s.db')).verify().ok


def test_invariant_16_a_full_disk_means_no_change(tmp_path, monkeypatch):
    "SQLite may not grow any more: the intent raises, and the action is still where it was."
    with use_clock(FakeClock(START)):
        ledger = Ledger(open_state(tmp_path/'s.db'))
        a = ledger.record(plan(mode='auto'), 'Restart'); ledger.change(a.id, 'approved')
        ledger.take_lease('me', 30)
        connections = [ledger.engine.raw_connection() for _ in range(1)]
        for c in connections:
            c.driver_connection.execute(
                f"pragma max_page_count={c.driver_connection.execute('pragma page_count').fetchone()[0]}"
            )
            c.close()
        with pytest.raises(StateError, match='full.*nothing is done'):
            for n in range(2, 500): ledger.record(plan(n), 'x' * 3000)
        verified = ledger.verify()
        assert verified.ok and ledger.action(a.id).state == 'approved'


class Bucket:
    "An S3 client that sometimes answers 500."
    def __init__(self): self.kept, self.down = {}, False
    def put_object(self, Bucket, Key, Body, IfNoneMatch=None):
        if self.down: raise RuntimeError('500 Internal Server Error')
        if IfNoneMatch == '*' and Key in self.kept:
            error = RuntimeError('412'); error.response = {'Error': {'Code': 'PreconditionFailed'}}
            raise error
        self.kept[Key] = Body


def test_invariant_16_segments_wait_while_s3_is_down(ledger):
    bucket = Bucket()
    lived(ledger)
    assert copy_segments(ledger, 'b', bucket) == len(ledger.audit())
    bucket.down = True
    lived(ledger, 2)
    assert copy_segments(ledger, 'b', bucket) == 0 and ledger.action(2).state == 'recovered'       # the work goes on
    bucket.down = False
    while copy_segments(ledger, 'b', bucket, most=3): pass
    text = b''.join(bucket.kept[k] for k in sorted(bucket.kept)).decode()
    assert text == export_lines(ledger.audit()) and verify_lines(text).ok
    # what other programs take for the end of a line
    ledger.turn_switch(False, 'mara', 'pasted from a mail:\u2028stop it\x85')
    assert verify_lines(export_lines(ledger.audit())).ok
    from smartcloudops.core.kv import put_value
    # the copy's place was forgotten: nothing is overwritten
    put_value(ledger.engine, 'ledger copied to b', 0)
    before = dict(bucket.kept)
    copy_segments(ledger, 'b', bucket, most=len(ledger.audit()))
    assert all(bucket.kept[k] == v for k, v in before.items())


def test_log_remediation_to_s3():
    bucket = Bucket()
    key = log_remediation_to_s3('Action taken for ü', 'b', bucket)
    assert (key.startswith('remediations/') and key.endswith('.txt')
            and bucket.kept[key] == 'Action taken for ü'.encode())


def test_secrets_never_reach_the_audit(ledger):
    a = ledger.record(plan(), 'Restart')
    ledger.change(a.id, 'cancelled', 'tried with password=hunter2', 'ops',
                  detail={'url': 'https://u:geheim@example.org'})
    assert ('hunter2' not in export_lines(ledger.audit()) + ledger.action(a.id).verdict
            and 'geheim' not in export_lines(ledger.audit()))


def test_only_people_with_a_name(ledger):
    for call in (lambda: ledger.turn_switch(True, ' '), lambda: ledger.add_silence('a', 'b', START,
        START + pd.Timedelta('1h'), '', ''), lambda: ledger.approve(1, '')):
        with pytest.raises(RemediationError, match='who you are'): call()


def test_a_grant_ends_when_the_policy_changes_and_a_lowering_stays(ledger):
    ledger.set_mode(POLICY, 'auto', 'boss')
    edited = POLICY.model_copy(update={'runbook': 'https://x'})
    assert ledger.modes([POLICY]) == {'web-cpu': 'auto'} and ledger.modes([edited]) == {'web-cpu': 'approve'}
    ledger.set_mode(POLICY, 'observe', 'loop', 'failed')
    assert ledger.modes([POLICY]) == ledger.modes([edited]) == {'web-cpu': 'observe'}


def test_invariant_16_segments_wait_while_s3_answers_500_over_http(ledger, monkeypatch):
    """A real client against a real server: 500, a dropped connection, then well again; each segment is stored once, and
    one that lies there already is not overwritten."""
    pytest.importorskip('boto3')
    import socket
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from smartcloudops.core.aws import AwsClients
    from smartcloudops.core.settings import Settings
    class S3(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            how, kept = self.server.how, self.server.kept
            self.server.calls += 1
            if how == 'drop': self.connection.shutdown(socket.SHUT_RDWR); return
            status = (
                500 if how == '500' else 412 if self.path in kept and self.headers.get('If-None-Match') == '*' else 200
            )
            if status == 200: kept[self.path] = body
            code = 'InternalError' if status == 500 else 'PreconditionFailed'
            text = b'' if status == 200 else f'<Error><Code>{code}</Code><Message>x</Message></Error>'.encode()
            self.send_response(status); self.send_header('Content-Length',
                                                         str(len(text))); self.end_headers(); self.wfile.write(text)
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), S3)
    server.kept, server.how, server.calls = {}, '500', 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for k, v in dict(AWS_ACCESS_KEY_ID='test', AWS_SECRET_ACCESS_KEY='test', AWS_DEFAULT_REGION='eu-west-1',
                     AWS_REQUEST_CHECKSUM_CALCULATION='when_required').items(): monkeypatch.setenv(k, v)
    try:
        client = AwsClients(Settings(aws={'endpoint_url': f'http://127.0.0.1:{server.server_port}',
                                          'regions': ['eu-west-1']})).write('s3')
        lived(ledger)
        for how in ('500', 'drop'):
            server.how = how
            assert copy_segments(ledger, 'audit', client) == 0 and server.kept == {}
        # asked once each: the loop is not held up
        assert server.calls == 2 and ledger.action(1).state == 'recovered'
        server.how = 'well'
        assert copy_segments(ledger, 'audit', client) == len(ledger.audit()) and copy_segments(ledger, 'audit',
            client) == 0
        assert verify_lines(b''.join(server.kept.values()).decode()).ok
        from smartcloudops.core.kv import put_value
        put_value(ledger.engine, 'ledger copied to audit', 0)
        before = dict(server.kept)
        assert copy_segments(ledger, 'audit', client) == len(ledger.audit()) and server.kept == before
    finally: server.shutdown(); server.server_close()
