"""A small fleet for the tests of remediation: incidents, samples, policies and an executor, all on a clock that can be
turned."""
import os

import pandas as pd

from smartcloudops.core.clock import to_us
from smartcloudops.core.database import open_state
from smartcloudops.core.settings import Settings
from smartcloudops.detection.anomalies import Anomaly
from smartcloudops.detection.incidents import Incident
from smartcloudops.remediation.engine import Remediator, switch_path, turn_switch
from smartcloudops.remediation.gates import SECOND, Lease, Reading, State, Switch
from smartcloudops.remediation.operations import Operation, Report, register
from smartcloudops.remediation.policy import read_policies

START = pd.Timestamp('2026-03-02 10:00', tz='UTC')


def cpu(host): return f'cpu_utilization_percent{{host="{host}"}}'


def anomaly(host='web-1', start=START, score=.97, metric='cpu_utilization_percent', **more):
    return Anomaly(
        **{
            **dict(
                series=f'{metric}{{host="{host}"}}',
                host=host,
                start=start,
                score=score,
                observed=97.0,
                expected=30.0,
                lower=20.0,
                upper=45.0,
            ),
            **more,
        }
    )


def incident(host='web-1', id=1, episode=1, opened=START, now=START, hosts=None, **more):
    hosts = hosts or (host,)
    found = more.pop('anomalies', tuple(anomaly(h) for h in hosts))
    return Incident(
        **{
            **dict(
                id=str(id),
                fingerprint=f'cpu|{host}',
                episode=episode,
                state='open',
                kind='cpu',
                severity='page',
                opened=opened,
                updated=now,
                closed=None,
                host=host,
                hosts=tuple(hosts),
                title=f'{host}: cpu 97 %, expected 20–45 %',
                cause='',
                anomalies=found,
            ),
            **more,
        }
    )


def freshness(hosts, now, value=97., interval=15., late=()):
    rows = [
        {
            'series': cpu(h),
            'host': h,
            'last': now - pd.Timedelta(seconds=300 if h in late else 5),
            'value': value,
            'age_seconds': 300.0 if h in late else 5.0,
            'interval_seconds': interval,
            'late': h in late,
        }
        for h in hosts
    ]
    return pd.DataFrame(rows)


class Table:
    "Samples in memory, read as monitoring's history is."
    def __init__(self, frame=None):
        self.frame = frame if frame is not None else pd.DataFrame(index=pd.DatetimeIndex([], tz='UTC'))
    def read(self, series=None, start=None, end=None, **_):
        return self.frame.loc[start:end, [s for s in series if s in self.frame]]


class Always(Table):
    "Samples every 15 s with one value for every series, for ever."
    def __init__(self, value): self.value = value
    def read(self, series=None, start=None, end=None, **_):
        index = pd.date_range(start.ceil('15s'), end, freq='15s') if end >= start else pd.DatetimeIndex([], tz='UTC')
        return pd.DataFrame({s: float(self.value) for s in series}, index=index)


POLICY = '''
opt_in: [web-1, web-2, web-3, web-4, web-5]
policies:
  - name: web-cpu
    match: {metric: cpu_utilization_percent}
    mode: auto
    ladder: [{do: test_effect}, {do: test_effect, name: again}]
    verify: {back_for: 60 s, within: 5 min}
'''


def good_state(now=START, hosts=('web-1', 'web-2', 'web-3'), **more):
    us = to_us(now)
    return State(
        **{
            **dict(
                switch=Switch(True, 'test'),
                me='me',
                lease=Lease('me', 1, us + 60 * SECOND),
                fleet={h: 'ok' for h in hosts},
                tags={h: {'smartcloudops': 'act'} for h in hosts},
                newest={cpu(h): Reading(us - 5 * SECOND, 97.0, 15.0) for h in hosts},
            ),
            **more,
        }
    )


def settings_in(folder, **remediation):
    return Settings(
        data_dir=folder,
        targets_file=folder / 'none.json',
        remediation={**dict(commands=['/bin/echo', '/bin/sh', '/usr/bin/env'], lease_seconds=30), **remediation},
    )


def executor(folder, text=POLICY, switch=True, name=None, **remediation):
    settings = settings_in(folder, **remediation)
    made = Remediator(open_state(folder/'smartcloudops.db'), settings, read_policies(text), name=name)
    if switch: turn_switch(made.ledger, switch_path(settings), True, 'tester')
    return made


def states(ledger): return [a.state for a in reversed(ledger.actions())]


@register
class Effect(Operation):
    "The harmless effect of the tests: one line with the key, appended to a file."
    name = 'test_effect'
    path = None                # where to
    answer = Report(True, 'done')
    before = staticmethod(lambda key: None)
    seen = Report(None, 'only samples can tell')

    def send(self):
        type(self).before(self.context.key)
        fd = os.open(type(self).path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f'{self.context.key} {self.target}\n'.encode()); os.close(fd)
        return type(self).answer

    def observe(self): return type(self).seen


def effects(path): return path.read_text().splitlines() if path.exists() else []
