"""History beside plain SQLite and DuckDB, in one run: what is stored, how fast, how heavy.

3,500 series at 60 s, a day of them (5 million samples) in batches of 14 rows; SMALL=1 takes a quarter of the series.
Plain SQLite is one table with the primary key (ts, sid), as hand-made stores have it; DuckDB is one table, appended
from Arrow. Neither does what History does beside: late samples, rhythm of a series, readers in other processes (DuckDB
locks them out).

Each figure is the CPU time of the thread that does the work, which other work on the machine hardly moves, with the
clock's in brackets, which is the same on an idle machine. Waiting has no CPU time: a tick beside the sealing is told by
the clock.
"""
import os
import resource
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd

from smartcloudops.core.clock import to_us
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.sealing import seal

SERIES, ROWS, BATCH = 875 if os.environ.get('SMALL') else 3500, 1440, 14
T0 = pd.Timestamp('2026-03-02', tz='UTC')
NAMES = [f'metric_{i % 50}_percent{{host="h{i // 50:03}"}}' for i in range(SERIES)]


def samples(seed=0):
    "[ROWS, SERIES]: half percentages with one decimal, a quarter bytes in pages, a quarter counters."
    rng = np.random.default_rng(seed)
    walk = rng.normal(0, 1, (ROWS, SERIES)).cumsum(0) + rng.normal(0, 2, (ROWS, SERIES))
    kind = np.arange(SERIES) % 4
    return np.where(
        kind < 2,
        np.round(np.clip(50 + walk, 0, 100), 1),
        np.where(kind == 2, np.round(4e9 + walk * 3e6) // 4096 * 4096, np.floor(np.abs(walk).cumsum(0) * 1e4)),
    )


class Took(float):
    "Seconds of CPU, with the clock's beside."
    def __new__(cls, cpu, clock): self = super().__new__(cls, cpu); self.clock = clock; return self
    def __add__(self, other): return Took(float(self) + other, self.clock + other.clock)
    def rate(self, count): return Took(count / float(self), count / self.clock)


def once(act):
    "How long one call takes."
    cpu, clock = time.thread_time(), time.perf_counter()
    act()
    return Took(time.thread_time() - cpu, time.perf_counter() - clock)


def timed(act, times=5):
    "How long a call takes: the best of some after one to warm up."
    act()
    took = [once(act) for _ in range(times)]
    return Took(min(took), min(t.clock for t in took))


def ours(folder, batches):
    h, took = History(folder/'history.db'), Took(0, 0)
    for frame in batches: took += once(lambda frame=frame: h.append(frame, arrived=frame.index[-1]))
    stored = h.info()['hot_samples']
    def state():
        start = T0 + pd.Timedelta('20h')
        span = dict(start=start, end=start + pd.Timedelta('1h') - pd.Timedelta('1s'))
        return (
            timed(lambda: h.read(NAMES[7])),
            timed(lambda: h.read(**span), 3),
            timed(lambda: h.read(host='h003', **span)),
        )
    result = dict(ingest=took.rate(stored), hot=h.info()['hot_bytes'] / stored, late=late(h))
    result['states'] = {'hot': state()}
    result['scores'] = scored(h, batches)
    result['wait'] = seal_beside(h, folder)
    result['states'][f"{h.info()['sealed_files']} files, two hours hot"] = state()
    seal(h, T0 + pd.Timedelta('49h'))
    result['states']['the day sealed'] = state()
    day = 'select sum(bytes), sum(rows) from sealed where replaced is null and "end" <= ?'
    with h.file.reading() as db: sealed, rows = db.execute(day, (to_us(T0 + pd.Timedelta('24h')),)).fetchone()
    result.update(
        one=max(s[0] for s in result['states'].values()),
        hour=max(s[1] for s in result['states'].values()),
        bytes=sealed / rows,
        latest=timed(h.latest),
    )
    h.close()
    return result


def late(h):
    "Samples a second that are appended again, unchanged: CloudWatch's last periods."
    again = h.read(start=T0 + pd.Timedelta('23h30min'))
    return timed(lambda: h.append(again, arrived=T0 + pd.Timedelta('24h')), 3).rate(again.size)


def scored(h, batches):
    "(scores stored a second, reading one series' band over 24 h)."
    took = Took(0, 0)
    for frame in batches:
        v = frame.to_numpy()
        scores = SimpleNamespace(score=np.full(v.shape, .1), expected=v, lower=v - 1, upper=v + 1,
                                 anomaly=np.zeros(v.shape, bool))
        took += once(lambda frame=frame, scores=scores: h.append_scores(frame, scores))
    return took.rate(ROWS * SERIES), timed(lambda: h.read_scores(NAMES[7]))


def tick(h, n):
    "How long it takes to append one tick of all series."
    frame = pd.DataFrame(
        [np.arange(float(SERIES))],
        index=pd.DatetimeIndex([T0 + pd.Timedelta('24h') + n * pd.Timedelta('1s')], name='time'),
        columns=pd.Index(NAMES, dtype=object),
    )
    took = once(lambda: h.append(frame, arrived=frame.index[0]))
    time.sleep(.05)
    return took


def seal_beside(h, folder):
    "Appends of one tick, alone, and while another thread seals the day."
    alone = [tick(h, n) for n in range(30)]
    own = History(folder/'history.db')
    thread = threading.Thread(target=lambda: seal(own, T0 + pd.Timedelta('23h59min'), settle=0))
    thread.start()
    took = []
    while thread.is_alive(): took.append(tick(h, 30 + len(took)))
    own.close()
    return alone, took


def plain_sqlite(folder, batches):
    db = sqlite3.connect(folder/'plain.db', isolation_level=None)
    db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=normal')
    db.execute('create table samples (ts integer, sid integer, value real, primary key (ts, sid)) without rowid')
    stored, took, sids = 0, Took(0, 0), np.arange(SERIES)
    def append(frame):
        ts, sid = np.repeat(frame.index.as_unit('us').asi8, SERIES), np.tile(sids, len(frame))
        db.execute('begin')
        db.executemany(
            'insert or replace into samples values (?, ?, ?)',
            zip(ts.tolist(), sid.tolist(), frame.to_numpy().ravel().tolist()),
        )
        db.execute('commit')
    for frame in batches: took += once(lambda frame=frame: append(frame)); stored += frame.size
    from_us = T0.value // 1000 + 23 * 3_600_000_000
    hour = lambda: pd.DataFrame(
        db.execute('select ts, sid, value from samples where ts >= ?', (from_us,)).fetchall(),
        columns=['ts', 'sid', 'v'],
    ).pivot(index='ts', columns='sid', values='v')
    one = lambda: pd.DataFrame(db.execute('select ts, value from samples where sid = 7').fetchall())
    result = dict(ingest=took.rate(stored), one=timed(one, 3), hour=timed(hour, 3))
    db.close()
    return dict(result, bytes=sum(f.stat().st_size for f in folder.glob('plain.db*')) / stored)


def plain_duckdb(folder, batches):
    db = duckdb.connect(str(folder/'plain.duckdb'))
    db.execute('pragma threads=1'); db.execute('create table samples (ts bigint, sid integer, value double)')
    stored, took, sids = 0, Took(0, 0), np.arange(SERIES, dtype=np.int32)
    def append(frame):
        batch = pd.DataFrame(dict(ts=np.repeat(frame.index.as_unit('us').asi8, SERIES), sid=np.tile(sids, len(frame)),
                                  value=frame.to_numpy().ravel()))
        db.register('batch', batch)
        db.execute('insert into samples select * from batch')
    for frame in batches: took += once(lambda frame=frame: append(frame)); stored += frame.size
    from_us = T0.value // 1000 + 23 * 3_600_000_000
    one = lambda: db.execute('select ts, value from samples where sid = 7 order by ts').df()
    hour = (
        lambda: db.execute(f'select ts, sid, value from samples where ts >= {from_us}')
        .df()
        .pivot(index='ts', columns='sid', values='value')
    )
    result = dict(ingest=took.rate(stored), one=timed(one), hour=timed(hour, 3))
    db.execute('checkpoint'); db.close()
    return dict(result, bytes=(folder/'plain.duckdb').stat().st_size / stored)


def main():
    values, columns = samples(), pd.Index(NAMES, dtype=object)
    index = pd.date_range(T0, periods=ROWS, freq='1min', name='time').as_unit('us')
    batches = [
        pd.DataFrame(values[i : i + BATCH], index=index[i : i + BATCH], columns=columns) for i in range(0, ROWS, BATCH)
    ]
    folder = Path(tempfile.mkdtemp(prefix='bench-history-'))
    try:
        found = {
            name: act(folder, batches)
            for name, act in (('History', ours), ('SQLite only', plain_sqlite), ('DuckDB', plain_duckdb))
        }
    finally: shutil.rmtree(folder)
    h = found['History']
    print(f'{values.size:,} samples of {SERIES:,} series, one core; CPU time, in brackets by the clock')
    print(f"{'':34}{'History':>16}{'SQLite only':>16}{'DuckDB':>16}   goal")
    for label, key, scale, form, goal in (
        ('ingest, thousand samples/s', 'ingest', 1e-3, '.0f', '>= 300'),
        ('one series over 24 h, ms', 'one', 1e3, '.1f', '<= 10, in every state'),
        ('all series over 1 h, ms', 'hour', 1e3, '.0f', '<= 250, in every state'),
        ('bytes a sample', 'bytes', 1, '.2f', '<= 4 sealed'),
    ):
        print(f'{label:34}' + ''.join(f'{shown(found[n][key], scale, form):>16}' for n in found) + f'   {goal}')
    print(f"{'History by state, ms':34}{'one, 24 h':>16}{'all, 1 h':>16}{'host, 1 h':>16}")
    for state, took in h['states'].items():
        print(f'  {state:32}' + ''.join(f'{shown(t, 1e3, ".1f"):>16}' for t in took))
    print(
        f"hot: {h['hot']:.1f} bytes a sample; the last half hour again, unchanged: {shown(h['late'], 1e-3, '.0f')}"
        f" thousand samples/s; latest of all series {shown(h['latest'], 1e3, '.1f')} ms"
    )
    print(
        f"scores: {shown(h['scores'][0], 1e-3, '.0f')} thousand/s, one series' band over 24 h"
        f" {shown(h['scores'][1], 1e3, '.1f')} ms"
    )
    for label, took in zip(('alone', 'while the day is sealed beside it'), h['wait']):
        print(
            f"a tick's append, {label}: CPU {statistics.median(took) * 1e3:.1f} ms, at most {max(took) * 1e3:.1f}; by"
            f" the clock {statistics.median(t.clock for t in took) * 1e3:.1f}, longest"
            f" {max(t.clock for t in took) * 1e3:.0f} (goal <= 100)"
        )
    print(
        f'memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB (of it'
        f' {values.nbytes / 1e6:.0f} for the samples themselves)'
    )


def shown(took, scale, form):
    return f'{took * scale:{form}}' + (f' ({took.clock * scale:{form}})' if isinstance(took, Took) else '')


if __name__ == '__main__': main()
