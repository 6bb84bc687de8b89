"""History beside plain SQLite and DuckDB, in one run: what is stored, how fast, how heavy.

3,500 series at 60 s, a day of them (5 million samples) in batches of 14 rows; SMALL=1 takes a quarter of the series.
Plain SQLite is one table with the primary key (ts, sid), as hand-made stores have it; DuckDB is one table, appended from
Arrow. Neither does what History does beside: late samples, rhythm of a series, readers in other processes (DuckDB locks them out).
"""
import os, shutil, sqlite3, statistics, tempfile, threading, time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

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
    return np.where(kind < 2, np.round(np.clip(50 + walk, 0, 100), 1), np.where(kind == 2, np.round(4e9 + walk * 3e6) // 4096 * 4096, np.floor(np.abs(walk).cumsum(0) * 1e4)))


def timed(act, times=5):
    "Seconds of a call: the best of some after one to warm up, as other work on the machine only ever adds."
    act()
    took = []
    for _ in range(times):
        start = time.perf_counter(); act(); took.append(time.perf_counter() - start)
    return min(took)


def ours(folder, batches):
    h, stored, took, cpu = History(folder/'history.db'), 0, 0., time.thread_time()
    for frame in batches:
        start = time.perf_counter(); stored += h.append(frame, arrived=frame.index[-1]); took += time.perf_counter() - start
    cpu = time.thread_time() - cpu
    hot = h.info()['hot_bytes'] / stored
    hour = lambda: h.read(start=T0 + pd.Timedelta('23h'), end=T0 + pd.Timedelta('24h') - pd.Timedelta('1s'))
    result = dict(ingest=stored / took, ingest_cpu=stored / cpu, hour_hot=timed(hour, 3), one_hot=timed(lambda: h.read(NAMES[7])), hot=hot)
    result['wait'] = seal_beside(h, folder)
    seal(h, T0 + pd.Timedelta('24h5min'), settle=0)
    result.update(one_windows=timed(lambda: h.read(NAMES[7])), hour_sealed=timed(hour, 3))
    seal(h, T0 + pd.Timedelta('49h'))
    info = h.info()
    result.update(one=timed(lambda: h.read(NAMES[7])), hour=timed(hour, 3), bytes=info['sealed_bytes'] / info['sealed_samples'], latest=timed(h.latest))
    h.close()
    return result


def tick(h, n):
    "Seconds to append one tick of all series."
    frame = pd.DataFrame([np.arange(float(SERIES))], index=pd.DatetimeIndex([T0 + pd.Timedelta('24h') + n * pd.Timedelta('1s')], name='time'), columns=pd.Index(NAMES, dtype=object))
    start = time.perf_counter(); h.append(frame, arrived=frame.index[0])
    time.sleep(.05)
    return time.perf_counter() - start - .05


def seal_beside(h, folder):
    "(longest, median) append of one tick in ms while another thread seals the day's windows, and the median alone."
    alone = [tick(h, n) for n in range(15)]
    own = History(folder/'history.db')
    thread = threading.Thread(target=lambda: seal(own, T0 + pd.Timedelta('23h59min'), settle=0))
    thread.start()
    took = []
    while thread.is_alive(): took.append(tick(h, 15 + len(took)))
    own.close()
    return max(took) * 1e3, statistics.median(took) * 1e3, statistics.median(alone) * 1e3


def plain_sqlite(folder, batches):
    db = sqlite3.connect(folder/'plain.db', isolation_level=None)
    db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=normal')
    db.execute('create table samples (ts integer, sid integer, value real, primary key (ts, sid)) without rowid')
    stored, took, sids = 0, 0., np.arange(SERIES)
    for frame in batches:
        start = time.perf_counter()
        ts, sid = np.repeat(frame.index.as_unit('us').asi8, SERIES), np.tile(sids, len(frame))
        db.execute('begin'); db.executemany('insert or replace into samples values (?, ?, ?)', zip(ts.tolist(), sid.tolist(), frame.to_numpy().ravel().tolist())); db.execute('commit')
        took += time.perf_counter() - start; stored += len(ts)
    from_us = T0.value // 1000 + 23 * 3_600_000_000
    hour = lambda: pd.DataFrame(db.execute('select ts, sid, value from samples where ts >= ?', (from_us,)).fetchall(), columns=['ts', 'sid', 'v']).pivot(index='ts', columns='sid', values='v')
    one = lambda: pd.DataFrame(db.execute('select ts, value from samples where sid = 7').fetchall())
    result = dict(ingest=stored / took, one=timed(one, 3), hour=timed(hour, 3))
    db.close()
    return dict(result, bytes=sum(f.stat().st_size for f in folder.glob('plain.db*')) / stored)


def plain_duckdb(folder, batches):
    db = duckdb.connect(str(folder/'plain.duckdb'))
    db.execute('pragma threads=1'); db.execute('create table samples (ts bigint, sid integer, value double)')
    stored, took, sids = 0, 0., np.arange(SERIES, dtype=np.int32)
    for frame in batches:
        start = time.perf_counter()
        batch = pd.DataFrame(dict(ts=np.repeat(frame.index.as_unit('us').asi8, SERIES), sid=np.tile(sids, len(frame)), value=frame.to_numpy().ravel()))
        db.execute('insert into samples select * from batch'); took += time.perf_counter() - start; stored += len(batch)
    from_us = T0.value // 1000 + 23 * 3_600_000_000
    one = lambda: db.execute('select ts, value from samples where sid = 7 order by ts').df()
    hour = lambda: db.execute(f'select ts, sid, value from samples where ts >= {from_us}').df().pivot(index='ts', columns='sid', values='value')
    result = dict(ingest=stored / took, one=timed(one), hour=timed(hour, 3))
    db.execute('checkpoint'); db.close()
    return dict(result, bytes=(folder/'plain.duckdb').stat().st_size / stored)


def main():
    values, columns = samples(), pd.Index(NAMES, dtype=object)
    index = pd.date_range(T0, periods=ROWS, freq='1min', name='time').as_unit('us')
    batches = [pd.DataFrame(values[i:i + BATCH], index=index[i:i + BATCH], columns=columns) for i in range(0, ROWS, BATCH)]
    folder = Path(tempfile.mkdtemp(prefix='bench-history-'))
    try: found = {name: act(folder, batches) for name, act in (('History', ours), ('SQLite only', plain_sqlite), ('DuckDB', plain_duckdb))}
    finally: shutil.rmtree(folder)
    h = found['History']
    print(f'{values.size:,} samples of {SERIES:,} series, one core')
    print(f"{'':34}{'History':>12}{'SQLite only':>14}{'DuckDB':>10}   goal")
    for label, key, scale, form, goal in (('ingest, thousand samples/s', 'ingest', 1e-3, '.0f', '>= 300'), ('one series over 24 h, ms', 'one', 1e3, '.1f', '<= 10'),
                                          ('all series over 1 h, ms', 'hour', 1e3, '.0f', '<= 250'), ('bytes a sample', 'bytes', 1, '.2f', '<= 4 sealed')):
        a, b, c = (found[n][key] * scale for n in found)
        print(f'{label:34}{a:12{form}}{b:14{form}}{c:10{form}}   {goal}    x{a / b:.2f} of SQLite, x{a / c:.2f} of DuckDB')
    print(f"while hot: one series over 24 h {h['one_hot'] * 1e3:.1f} ms, all over 1 h {h['hour_hot'] * 1e3:.0f} ms, {h['hot']:.1f} bytes a sample")
    print(f"before the daily merge (12 files): one series over 24 h {h['one_windows'] * 1e3:.1f} ms, all over 1 h {h['hour_sealed'] * 1e3:.0f} ms")
    print(f"latest of all series {h['latest'] * 1e3:.1f} ms; ingest by the thread's own CPU time {h['ingest_cpu'] / 1e3:.0f} thousand samples/s (what the clock says less is other work on the machine)")
    print(f"a tick's append: median {h['wait'][2]:.0f} ms alone, {h['wait'][1]:.0f} ms while a day is sealed beside it, longest {h['wait'][0]:.0f} ms (goal <= 100)")


if __name__ == '__main__': main()
