"""A made-up night of a made-up fleet, stored as the loop would store it: for browser tests and the docs' screenshots.

web-7's cpu went up and a restart waits for approval; worker-12's memory is being judged after one; two hosts are late,
three silenced, and the week before left a few closed incidents. Everything goes through the real history, incidents
and ledger.
"""
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from smartcloudops.core.clock import now, to_us
from smartcloudops.core.database import open_state
from smartcloudops.core.files import write_atomically
from smartcloudops.core.kv import put_value, write_heartbeat
from smartcloudops.detection import incidents as cases
from smartcloudops.detection.anomalies import Anomaly, sentence
from smartcloudops.monitoring.history import History
from smartcloudops.remediation.gates import Plan, Refusal, Verdict, action_key
from smartcloudops.remediation.ledger import Ledger
from smartcloudops.remediation.policy import load_policies

ROLES = {
    'web': 24,
    'api': 16,
    'worker': 20,
    'db': 6,
    'cache': 8,
    'queue': 5,
    'batch': 12,
    'search': 9,
    'edge': 12,
    'ci': 10,
    'mon': 2,
}
LATE, SILENT = {'search-2': 200, 'edge-4': 320}, ('ci-3', 'ci-4', 'batch-9')
POLICIES = """
opt_in: [web-7, worker-12]
policies:
  - name: web-cpu-worker
    match: {metric: cpu_utilization_percent, host: web-*, for: 1 min}
    mode: approve
    ladder:
      - {do: service_restart, with: {unit: worker.service}}
      - {do: ec2_reboot}
    runbook: https://wiki.example.org/web-cpu
  - name: worker-memory
    match: {metric: memory_used_percent, host: worker-*}
    mode: approve
    ladder: [{do: service_restart, with: {unit: report-gen.service}}, {do: ec2_reboot}]
  - name: api-latency
    match: {metric: http_request_duration_p95_seconds, host: api-*, for: 5 min}
    mode: auto
    ladder: [{do: service_restart, with: {unit: api.service}}]
  - name: cache-memory
    match: {metric: memory_used_percent, host: cache-*}
    mode: observe
    ladder: [{do: service_restart, with: {unit: redis.service}}]
  - name: host-silent
    match: {kind: absent, for: 10 min}
    mode: observe
    ladder: [{do: ec2_reboot}]
"""
BANDS = {
    'cpu_utilization_percent': (32, 4.5, 12),
    'memory_used_percent': (58, 1.6, 5),
    'disk_used_percent': (57, 0.2, 0.9),
    'network_receive_bytes_per_second': (4e6, 4e5, 1.3e6),
    'network_transmit_bytes_per_second': (2.6e6, 3e5, 9e5),
    'http_request_duration_p95_seconds': (0.21, 0.03, 0.08),
    'pressure_cpu_some_percent': (4, 0.9, 3.2),
    'process_cpu_percent': (11, 1.5, 5),
}


def series(host: str, metric: str) -> str:
    "A series of the made-up fleet."
    extra = {'disk_used_percent': ',mount="/"', 'process_cpu_percent': ',process="worker"'}.get(metric, '')
    return f'{metric}{{host="{host}"{extra}}}'


@dataclass
class Told:
    "Scores as the detector would give them."
    score: np.ndarray
    expected: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    anomaly: np.ndarray


def wave(metric: str, t: np.ndarray, rng, lift: np.ndarray | float = 0.) -> tuple[np.ndarray, ...]:
    "Values and what was expected: a daily cycle, noise, and what went wrong on top."
    middle, noise, half = BANDS[metric]
    expected = middle * (1 + .06 * np.sin(2 * np.pi * t / 86400))
    values = expected + rng.normal(0, noise, len(t)) + lift
    if metric.endswith('percent'): values = np.clip(values, .2, 99)
    values = np.maximum(values, middle * .02)
    lower, upper = np.maximum(expected - half, 0), expected + half
    beyond = np.maximum(values - upper, 0) / half
    return values, Told(np.clip(beyond / (beyond + .4), 0, 1), expected, lower, upper, beyond > .6)


def ramp(
    times: pd.DatetimeIndex, start: pd.Timestamp, size: float, seconds: float = 45.0, end: pd.Timestamp | None = None
) -> np.ndarray:
    "Nothing before `start`, `size` after it, slower or faster on the way; nothing again after `end`."
    since = np.clip((times - start).total_seconds().to_numpy() / seconds, 0, 1) * size
    return np.where(times >= end, 0, since) if end is not None else since


def store(folder: Path, at: pd.Timestamp, hosts: dict[str, int], hours: float = 6.) -> None:
    "Six hours of the two troubled hosts, twenty minutes of all others."
    rng = np.random.default_rng(7)
    deep = {
        'web-7': [
            'cpu_utilization_percent',
            'process_cpu_percent',
            'memory_used_percent',
            'pressure_cpu_some_percent',
            'http_request_duration_p95_seconds',
            'network_receive_bytes_per_second',
            'disk_used_percent',
        ],
        'worker-12': [
            'cpu_utilization_percent',
            'memory_used_percent',
            'disk_used_percent',
            'network_receive_bytes_per_second',
        ],
    }
    lifts = {
        ('web-7', 'cpu_utilization_percent'): ('6min', 64),
        ('web-7', 'process_cpu_percent'): ('6min50s', 78),
        ('web-7', 'pressure_cpu_some_percent'): ('5min50s', 57),
        ('web-7', 'http_request_duration_p95_seconds'): ('5min40s', 1.44),
        ('worker-12', 'memory_used_percent'): ('27min', 34),
    }
    with History(folder/'history.db') as history:
        for host, metrics in deep.items():
            times = pd.date_range(at - pd.Timedelta(hours=hours), at - pd.Timedelta(seconds=8), freq='15s', name='time')
            t = times.as_unit('us').asi8 / 1e6
            for metric in metrics:
                ago, size = lifts.get((host, metric), ('0s', 0))
                lift = (
                    ramp(
                        times,
                        at - pd.Timedelta(ago),
                        size,
                        30 if host == 'web-7' else 1200,
                        at - pd.Timedelta('90s') if host == 'worker-12' else None,
                    )
                    if size
                    else 0.0
                )
                values, told = wave(metric, t, rng, lift)
                frame = pd.DataFrame({series(host, metric): values}, index=times)
                frame[(times > at - pd.Timedelta('3h40min')) & (times < at - pd.Timedelta('3h31min'))] = np.nan
                history.append(frame)
                if (host, metric) == ('web-7', 'cpu_utilization_percent'):
                    history.append(frame.iloc[-100:-97] + 3.)
                    history.append(frame.iloc[-60:-59] - 2.)      # the source corrected itself
                history.append_scores(
                    frame,
                    Told(*(x[:, None] for x in (told.score, told.expected, told.lower, told.upper, told.anomaly))),
                )
        _api(history, at, rng)
        names = [h for role, n in hosts.items() for h in (f'{role}-{i}' for i in range(1, n + 1)) if h not in deep]
        for offset, group in enumerate(np.array_split(names, 5)):
            if not len(group): continue
            times = pd.date_range(end=at - pd.Timedelta(seconds=5 + 2 * offset), periods=80, freq='15s', name='time')
            t = times.as_unit('us').asi8 / 1e6
            frame = pd.DataFrame(
                {series(h, m): wave(m, t, rng)[0] for h in group for m in list(BANDS)[:4]}, index=times
            )
            for host, late in LATE.items():
                for name in frame.columns[frame.columns.str.contains(f'"{host}"', regex=False)]:
                    frame.loc[times > at - pd.Timedelta(seconds=late), name] = np.nan
            history.append(frame)


def _api(history, at, rng) -> None:
    "The hours around api-3's slow requests, more than a day ago."
    times = pd.date_range(at - pd.Timedelta('31h'), at - pd.Timedelta('27h'), freq='15s', name='time')
    name, lift = series('api-3', 'http_request_duration_p95_seconds'), ramp(
        times, at - pd.Timedelta('1D5h'), 2.1, 40, at - pd.Timedelta('1D4h54min')
    )
    values, told = wave('http_request_duration_p95_seconds', times.as_unit('us').asi8 / 1e6, rng, lift)
    frame = pd.DataFrame({name: values}, index=times)
    history.append(frame)
    history.append_scores(
        frame, Told(*(x[:, None] for x in (told.score, told.expected, told.lower, told.upper, told.anomaly)))
    )


def anomaly(
    host: str, metric: str, start, at, observed: float, score: float = 0.97, end=None, kind: str = 'level shift'
) -> Anomaly:
    "A stretch of one series, with its sentence."
    middle, _, half = BANDS[metric]
    made = Anomaly(
        series(host, metric),
        host,
        start,
        end,
        score,
        observed,
        middle,
        middle - half,
        middle + half,
        kind,
        '',
        'stream',
        end is None,
        at,
    )
    return replace(made, reason=sentence(made, end or at, host=False))


def case(engine, anomalies: list[Anomaly], opened, at, closed=None, cause='', suspects=()) -> cases.Incident:
    "One incident, stored."
    lead = anomalies[0]
    made = cases.Incident(
        '',
        cases.fingerprint(lead),
        1,
        'closed' if closed is not None else 'open',
        cases.incident_kind(lead),
        'page',
        opened,
        closed or at,
        closed,
        lead.host,
        (lead.host,),
        sentence(lead, closed or at),
        cause,
        tuple(anomalies),
        tuple(suspects),
        None,
        False,
        min(a.start for a in anomalies),
    )
    return cases.IncidentStore(engine).write(made, closed or at, True)


def verdicts(host: str, at: pd.Timestamp, waits: bool, **other: str) -> tuple[Verdict, ...]:
    "What the gates said, with their numbers."
    said = {
        'approval': f'Mode approve: one operator has to say yes until {at + pd.Timedelta("10min"):%H:%M} UTC.',
        'switch': 'On: since 12 Nov 08:30 UTC, set by mara.',
        'lease': f'Held by this loop until {at + pd.Timedelta("30s"):%H:%M:%S} UTC.',
        'fresh data': 'Newest sample is 8 s old, limit 45 s.',
        'silence': f'None matches {host}.',
        'opt-in': f'{host} carries the tag smartcloudops=act.',
        'dedup': 'This key was never sent.',
        'cooldown': f'Last action on {host} was 9 d ago, 15 min needed.',
        'rate': 'Would be 2 of 3 this hour.',
        'blast radius': 'Would be 2 of 2 in flight and 2 of 124 hosts (2 %, limit 10 %).',
        'precondition': 'worker.service is active; 23 of 24 web hosts are as expected.',
        **other,
    }
    return tuple(
        Verdict(g, 'waits' if g == 'approval' and waits else 'no' if g in other else 'yes', lambda w=w: w)
        for g, w in said.items()
    )


def plan(incident, policy, host: str, step: int, at, observed: float, waits: bool = True) -> Plan:
    "A plan as decide() would make it."
    lead, us = incident.anomalies[0], lambda ts: ts.value // 1000
    return Plan(
        action_key(incident.fingerprint, incident.episode, policy.name, step, host, 1),
        incident.id,
        incident.fingerprint,
        incident.episode,
        policy,
        step,
        host,
        1,
        policy.mode if policy.mode != 'auto' else 'approve',
        lead.series,
        observed,
        lead.lower,
        lead.upper,
        us(at),
        us(at + pd.Timedelta('15min')),
        verdicts(host, at, waits),
    )


def acted(
    ledger: Ledger, incident, policy, host, made, what, who='mara', verdict='', state='recovered', took='4min'
) -> None:
    "An action through all its states."
    a = ledger.record(plan(incident, policy, host, 0, made, 97.), what, at=made)
    ledger.change(a.id, 'awaiting_approval', at=made)
    at = made + pd.Timedelta('2min')
    if state == 'denied': return ledger.deny(a.id, who, verdict, at=at)
    if state == 'expired': return ledger.change(a.id, 'expired', verdict, at=made + pd.Timedelta('15min'))
    ledger.approve(a.id, who, at=at)
    ledger.intend(
        a.id,
        ledger.take_lease('loop', 60, at=at),
        at,
        judge_from=at + pd.Timedelta('30s'),
        judge_until=at + pd.Timedelta(took),
    )
    ledger.change(a.id, 'verifying', 'Sent; judged by fresh samples.', at=at + pd.Timedelta('3s'))
    if state != 'verifying': ledger.change(a.id, state, verdict, at=at + pd.Timedelta(took))


def build(folder: str | Path,                      # an empty data folder
          at: pd.Timestamp | None = None,          # when it is
          hosts: dict[str, int] = ROLES,
          quiet: bool = False,                     # nothing open
         ) -> Path:
    "The whole night, stored in `folder`; returns it."
    folder, at = Path(folder), at or now()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder/'policies.yaml', POLICIES)
    write_atomically(folder/'switch', 'on\n')
    policies = load_policies(folder/'policies.yaml')
    store(folder, at, hosts)
    engine = open_state(folder/'smartcloudops.db')
    ledger, ago = Ledger(engine), lambda text: at - pd.Timedelta(text)
    ledger.turn_switch(True, 'mara', 'drill passed', at=ago('9D17h'))
    _week(engine, ledger, policies, at, ago)
    if not quiet: _night(engine, ledger, policies, at, ago)
    for host in SILENT:
        ledger.add_silence(host, '*', ago('2h'), at + pd.Timedelta('3h'), 'jon', 'rebuild of the runners', at=ago('2h'))
    _backtests(engine, policies, ago('1D3h'))
    write_heartbeat(
        engine,
        'loop',
        dict(
            interval=15.0,
            tick_seconds=0.21,
            lag_seconds=9.0,
            series=4 * sum(hosts.values()),
            source='cloudwatch',
            version='0.1.0',
            aws_cost=14.2,
            scores={'web-7': 0.92, 'web-1': 0.12},
            ticks=dict(bounds=[0.1, 0.25, 0.5, 1.0], within=[3, 5680, 5755, 5760], count=5760, sum=1210.4),
            status=dict(usd=2.1, usd_per_month=19.6, budget_usd=25.0, asked=210_000, calls={'GetMetricData': 420}),
        ),
        at - pd.Timedelta('4s'),
    )
    return folder


def _backtests(engine, policies, at) -> None:
    "Three policies were tried on history; one of them was edited afterwards, two were never tried."
    base = dict(at=to_us(at), data='history', weeks=4., incidents=31, real=0, real_covered=0)
    told = {
        'web-cpu-worker': dict(covered=6, acted=4, recovered=3, false_actions=0, refused={'cooldown': 2}),
        'worker-memory': dict(covered=3, acted=3, recovered=3, false_actions=1, refused={}),
        'api-latency': dict(
            covered=9, acted=7, recovered=7, false_actions=0, refused={'blast radius': 1, 'quiet hours': 1}
        ),
    }
    hashes = {name: policies.named(name).hash if name != 'worker-memory' else 'as it was before' for name in told}
    put_value(
        engine, 'backtests', {name: {**base, **found, 'policy_hash': hashes[name]} for name, found in told.items()}
    )


def _week(engine, ledger, policies, at, ago) -> None:
    api, cache, batch = policies.named('api-latency'), policies.named('cache-memory'), policies.named('web-cpu-worker')
    one = case(
        engine,
        [
            anomaly(
                'api-3', 'http_request_duration_p95_seconds', ago('1D5h'), ago('1D4h51min'), 2.4, end=ago('1D4h51min')
            )
        ],
        ago('1D4h59min'),
        at,
        ago('1D4h51min'),
    )
    acted(
        ledger,
        one,
        api,
        'api-3',
        ago('1D4h57min'),
        'Restart api.service on api-3',
        verdict='request p95 215\u202fms, expected 130–290\u202fms, for 3\u202fmin.',
    )
    two = case(
        engine,
        [anomaly('cache-2', 'memory_used_percent', ago('3D'), ago('2D23h54min'), 88, end=ago('2D23h54min'))],
        ago('2D23h59min'),
        at,
        ago('2D23h54min'),
    )
    no = Verdict('precondition', 'no', lambda: 'cache-2 is the primary.')
    ledger.record(
        Refusal(
            'precondition',
            no,
            cache.name,
            'cache-2',
            0,
            two.id,
            two.fingerprint,
            1,
            'observe',
            verdicts('cache-2', ago('3D'), False, precondition='cache-2 is the primary.'),
            two.anomalies[0].series,
        ),
        'Restart redis.service on cache-2',
        cache,
        at=ago('2D23h58min'),
    )
    three = case(
        engine,
        [anomaly('batch-4', 'cpu_utilization_percent', ago('5D1h'), ago('5D20min'), 99, end=ago('5D20min'))],
        ago('5D59min'),
        at,
        ago('5D20min'),
    )
    acted(
        ledger,
        three,
        batch,
        'batch-4',
        ago('5D58min'),
        'Restart cron.service on batch-4',
        'jon',
        'month-end run, this is normal',
        'denied',
    )
    cases.record_feedback(engine, three.id, 'normal', ago('5D50min'), 'jon')
    four = case(
        engine,
        [anomaly('search-5', 'cpu_utilization_percent', ago('6D3h'), ago('6D2h40min'), 96, end=ago('6D2h40min'))],
        ago('6D2h59min'),
        at,
        ago('6D2h40min'),
    )
    acted(
        ledger,
        four,
        policies.named('web-cpu-worker'),
        'search-5',
        ago('6D2h58min'),
        'Restart worker.service on search-5',
        verdict='Nobody answered in 15\u202fmin.',
        state='expired',
    )


def _night(engine, ledger, policies, at, ago) -> None:
    worker, web = policies.named('worker-memory'), policies.named('web-cpu-worker')
    memory = case(
        engine,
        [anomaly('worker-12', 'memory_used_percent', ago('25min'), ago('90s'), 91, 0.88)],
        ago('20min'),
        at,
        cause='Likely cause: process report-gen on worker-12, grew by 5.2\u202fGB in 25\u202fmin.',
    )
    acted(
        ledger,
        memory,
        worker,
        'worker-12',
        ago('4min'),
        'Restart report-gen.service on worker-12',
        state='verifying',
        took='3min',
    )
    cpu = [
        anomaly('web-7', 'cpu_utilization_percent', ago('6min'), at, 97),
        anomaly('web-7', 'process_cpu_percent', ago('6min50s'), at, 89, 0.95),
        anomaly('web-7', 'pressure_cpu_some_percent', ago('5min50s'), at, 61, 0.9),
        anomaly('web-7', 'http_request_duration_p95_seconds', ago('5min40s'), at, 1.66, 0.86),
    ]
    named = [
        (
            'process_cpu_percent',
            0.91,
            '89\u202f%, expected 6–16\u202f%; rose 50\u202fs before cpu and explains 94\u202f% of it',
        ),
        ('pressure_cpu_some_percent', 0.44, '61\u202f%, expected 0.8–7.2\u202f%; rose after cpu: likely an effect'),
        (
            'http_request_duration_p95_seconds',
            0.38,
            '1.66\u202fs, expected 130–290\u202fms; rose 20\u202fs after cpu: likely an effect',
        ),
        ('network_receive_bytes_per_second', 0.07, '4.0\u202fMB/s, as expected; more traffic is not the cause'),
    ]
    hot = case(
        engine,
        cpu,
        ago('5min'),
        at,
        cause='Likely cause: process worker on web-7, 89\u202f%, rose 50\u202fs before cpu.',
        suspects=[dict(series=series('web-7', m), host='web-7', score=s, reason=r) for m, s, r in named],
    )
    a = ledger.record(
        plan(hot, web, 'web-7', 0, ago('4min40s'), 97.0), 'Restart worker.service on web-7', at=ago('4min40s')
    )
    ledger.change(a.id, 'awaiting_approval', at=ago('4min40s'))
