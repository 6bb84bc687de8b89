"""A day of a host on which nothing is wrong: made up after an idle Linux machine, or from a recording of this one.

To record, while the machine is left alone for half an hour:  .venv/bin/python -m tests.idle_host 30
It writes nbs/data/host/idle.csv.gz (the source `host`, every 5 s, counters per second); test_idle.py then uses it, too.
"""
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

RECORDING = Path(__file__).parent.parent/'nbs/data/host/idle.csv.gz'
EVERY = 5


def record(path: Path, minutes: float) -> pd.DataFrame:
    "What the source `host` says of this machine, every five seconds, as detection sees it."
    from smartcloudops.core.frames import per_second
    from smartcloudops.core.settings import load_settings
    from smartcloudops.ingestion import make_source
    source, rows, began = make_source('host', load_settings('/dev/null', source='host')), [], time.monotonic()
    while time.monotonic() - began < 60*minutes:
        rows.append(source.read(pd.Timestamp.now(tz='UTC')))
        time.sleep(max(0., began + EVERY*len(rows) - time.monotonic()))
    frame = per_second(pd.concat(rows)).iloc[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(path)
    return frame


def bootstrapped(recording: pd.DataFrame, hours: float, seed: int, block: int = 60) -> pd.DataFrame:
    """Hours of an idle machine: blocks of five recorded minutes in random order, so that what happens within minutes
    stays as it was."""
    rng, count = np.random.default_rng(seed), int(hours*3600/EVERY)
    starts = rng.integers(0, len(recording) - block + 1, -(-count//block))
    rows = np.concatenate([np.arange(s, s + block) for s in starts])[:count]
    index = pd.date_range('2026-01-05', periods=count, freq=f'{EVERY}s', tz='UTC', name='time')
    return with_tasks(recording.iloc[rows].set_axis(index))


def made_up(hours: float, seed: int) -> pd.DataFrame:
    """The same without a recording: little load with bursts each minute, memory that creeps and is given back, a disk
    that fills by its log, connections that come and go."""
    rng, count = np.random.default_rng(seed), int(hours*3600/EVERY)
    index = pd.date_range('2026-01-05', periods=count, freq=f'{EVERY}s', tz='UTC', name='time')
    n, minute = np.arange(count), (np.arange(count)*EVERY) % 60 < EVERY
    wander = (
        lambda size, calm: size
        * pd.Series(rng.normal(0, 1, count)).ewm(alpha=1 / calm).mean().to_numpy()
        * np.sqrt(calm)
    )
    cpu = np.clip(
        1.5 + rng.gamma(1.2, 0.6, count) + minute * rng.gamma(2, 2, count) + 8 * (rng.random(count) < 0.002), 0, 100
    )
    load = pd.Series(cpu/50).ewm(alpha=EVERY/60).mean().to_numpy()
    bursts = lambda size, often: rng.exponential(size, count)*(rng.random(count) < often)
    made = {
        'cpu_utilization_percent': cpu,
        'load1': load,
        'load5': pd.Series(load).ewm(alpha=EVERY / 300).mean(),
        'load15': pd.Series(load).ewm(alpha=EVERY / 900).mean(),
        'memory_used_percent': 18 + ((n * EVERY / 3600) % 6) * 0.4 + wander(0.05, 50),
        'processes': 120 + np.round(wander(1.5, 20) + 3 * minute),
        'open_file_descriptors': 1500 + np.round(wander(8, 30)),
        'disk_used_percent': 41 + n * EVERY / 86400 * 0.3 + rng.normal(0, 0.001, count),
        'disk_written_bytes_per_second': 2e4 + bursts(3e5, 0.2),
        'disk_read_bytes_per_second': bursts(5e4, 0.02),
        'network_receive_bytes_per_second': 3e3 + bursts(4e3, 0.5),
        'network_transmit_bytes_per_second': 2e3 + bursts(3e3, 0.5),
        'tcp_connections': 12.0 + rng.poisson(2, count),
        'pressure_cpu_some_percent': np.round(bursts(0.4, 0.15), 2),
        'pressure_io_some_percent': np.round(bursts(0.3, 0.1), 2),
        'pressure_memory_some_percent': np.zeros(count),
        'oom_kills_per_second': np.zeros(count),
    }
    return with_tasks(
        pd.DataFrame(
            {f'{metric}{{host="idle-1"}}': np.asarray(values, float) for metric, values in made.items()}, index=index
        )
    )


def with_tasks(frame: pd.DataFrame) -> pd.DataFrame:
    """Its daily tasks on top: rotated logs every hour, a check of packages at 06:25 that takes four minutes, a backup
    at 02:00 of eight."""
    frame, at = frame.copy(), frame.index
    def busy(rows, **by):
        for metric, more in by.items():
            for c in [c for c in frame if c.split('{')[0] == metric]:
                values = frame.loc[rows, c] + more
                frame.loc[rows, c] = values.clip(upper=100) if metric.endswith('percent') else values
    busy((at.minute == 17) & (at.second < 20), cpu_utilization_percent=12., disk_written_bytes_per_second=2e6)
    busy(
        (at.hour == 6) & (at.minute >= 25) & (at.minute < 29),
        cpu_utilization_percent=35.0,
        disk_read_bytes_per_second=8e6,
        network_receive_bytes_per_second=4e5,
        load1=0.7,
    )
    busy(
        (at.hour == 2) & (at.minute < 8),
        cpu_utilization_percent=20.0,
        disk_read_bytes_per_second=2e7,
        network_transmit_bytes_per_second=3e6,
        load1=0.5,
    )
    return frame


if __name__ == '__main__': print(record(RECORDING, float(sys.argv[1])).describe().T.to_string())
