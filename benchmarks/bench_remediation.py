"""Remediation in figures, side by side in one run: decisions a second, a year backtested, durable ledger
transitions beside what this disk syncs.

python benchmarks/bench_remediation.py [--hosts 100] [--hours 8760] [--every 1]     # hours between a host's incidents
"""
import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from smartcloudops.core.clock import now, to_us
from smartcloudops.core.database import open_state
from smartcloudops.core.settings import Settings
from smartcloudops.detection.anomalies import Anomaly
from smartcloudops.detection.incidents import Incident
from smartcloudops.remediation.backtest import backtest
from smartcloudops.remediation.gates import SECOND, ActionIndex, Lease, PastAction, Plan, Reading, State, Switch, decide
from smartcloudops.remediation.ledger import Ledger
from smartcloudops.remediation.policy import Policies, Policy

START = pd.Timestamp('2026-01-01', tz='UTC')
POLICY = Policy(
    name='web-cpu',
    match={'metric': 'cpu_utilization_percent', 'host': 'h-*'},
    mode='auto',
    ladder=[{'do': 'service_restart', 'with': {'unit': 'a.service'}}, {'do': 'ec2_reboot'}],
    when=[{'peers_healthy': '50 %'}],
    limits={'quiet_hours': '22:00-06:00'},
)


def an_incident(host: str, number: int, opened: pd.Timestamp, minutes: float) -> Incident:
    closed = opened + pd.Timedelta(minutes=minutes)
    a = Anomaly(
        f'cpu_utilization_percent{{host="{host}"}}', host, opened, closed, 0.97, 97.0, 30.0, 20.0, 45.0, ongoing=False
    )
    return Incident(
        str(number),
        f'cpu|{host}',
        number,
        'closed',
        'cpu',
        'page',
        opened,
        closed,
        closed,
        host,
        (host,),
        f'{host}: cpu 97 %',
        '',
        (a,),
    )


def bench_decide(seconds: float = 3) -> float:
    hosts = [f'h-{i}' for i in range(100)]
    at = to_us(START + pd.Timedelta('12 h'))
    past = [
        PastAction(i, f'k{i}', f'x{i}', 1, 'other', 0, f'h-{i + 1}', 1, 'recovered', at - (5000 + i) * SECOND, at)
        for i in range(50)
    ]
    state = State(
        book=ActionIndex.of(past),
        switch=Switch(True),
        me='a',
        lease=Lease('a', 1, at * 2),
        fleet=dict.fromkeys(hosts, 'ok'),
        tags={h: {'smartcloudops': 'act'} for h in hosts},
        newest={f'cpu_utilization_percent{{host="{h}"}}': Reading(at, 97.0, 60.0) for h in hosts},
    )
    found = [an_incident(h, n, START, 60 * 24) for n, h in enumerate(hosts)]
    found = [
        Incident(
            **{
                **vars(i),
                'state': 'open',
                'anomalies': tuple(Anomaly(**{**vars(a), 'ongoing': True}) for a in i.anomalies),
            }
        )
        for i in found
    ]
    assert isinstance(decide(found[0], state, POLICY, at), Plan)
    n, begin = 0, time.process_time()                 # seconds of one core, whatever else the machine does
    while time.process_time() - begin < seconds:
        for i in found: decide(i, state, POLICY, at)
        n += len(found)
    return n / (time.process_time() - begin)


def bench_backtest(hosts: int, hours: int, every: float) -> tuple[int, float, float, int]:
    rng = np.random.default_rng(0)
    times = np.arange(0, hours, every)
    found = [
        an_incident(
            f'h-{h}',
            n * hosts + h,
            START + pd.Timedelta(hours=float(t), minutes=float(rng.uniform(0, 30))),
            float(rng.uniform(2, 20)),
        )
        for n, t in enumerate(times)
        for h in range(hosts)
    ]
    begin, cpu = time.perf_counter(), time.process_time()
    result = backtest(Policies(policies=(POLICY,)), found, None, Settings())
    return len(found), time.perf_counter() - begin, time.process_time() - cpu, len(result.rows)


def bench_ledger(folder: Path, n: int = 200) -> float:
    ledger = Ledger(open_state(folder/'smartcloudops.db'), folder/'ledger.anchor')
    at = to_us(now())
    begin = time.perf_counter()
    for i in range(n):
        a = ledger.record(
            Plan(
                f'k{i}',
                i,
                f'f{i}',
                1,
                POLICY,
                0,
                f'h-{i}',
                1,
                'auto',
                'cpu_utilization_percent{host="h"}',
                97.0,
                20.0,
                45.0,
                at,
                at + 900 * SECOND,
            ),
            'Restart',
        )
        ledger.change(a.id, 'approved')
        ledger.change(a.id, 'cancelled')
    return 3 * n / (time.perf_counter() - begin)


def bench_fsync(folder: Path, n: int = 600) -> float:
    with open(folder/'raw', 'wb') as f:
        begin = time.perf_counter()
        for _ in range(n): f.write(b'x' * 4096); f.flush(); os.fsync(f.fileno())
    return n / (time.perf_counter() - begin)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--hosts', type=int, default=100)
    parser.add_argument('--hours', type=int, default=8760)
    parser.add_argument('--every', type=float, default=1)
    given = parser.parse_args()
    print(f'decide, 18 gates: {bench_decide():,.0f} incidents/s on one core (goal 5,000)')
    with tempfile.TemporaryDirectory() as folder:
        ledger, raw = bench_ledger(Path(folder)), bench_fsync(Path(folder))
        print(
            f'ledger: {ledger:,.0f} durable transitions/s beside {raw:,.0f} raw fsync/s of this disk,'
            f' {ledger / raw:.0%} (goal 300/s, or as many as the disk syncs)'
        )
    count, took, cpu, rows = bench_backtest(given.hosts, given.hours, given.every)
    print(
        f'backtest: {count:,} incidents ({given.hosts} hosts, {given.hours / 24:.0f} d, one each {given.every:g} h) in'
        f' {took:.0f} s ({cpu:.0f} s of one core), {rows:,} decisions told (goal: a year of 100 hosts in 120 s)'
    )
