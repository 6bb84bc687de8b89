"""One tick of the loop at 1k, 10k, 50k, 200k and 1M series: seconds a stage, peak memory, and how both grow.

    python benchmarks/bench_loop.py [--series 1000 10000 ...] [--ticks 8] [--json]

The source costs nothing: one frame of hosts with 50 metrics each (five of them counters), made once, whose time
index and values move on. Each size runs in a process of its own on one core, so that its peak memory is its own.
`copies` is how often numpy could copy one row of all series (8 bytes each) in the time of a tick: the machine's
own limit, for comparing machines. Stages are those of `loop.runner.Pipeline`.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

SIZES = (1_000, 10_000, 50_000, 200_000, 1_000_000)
METRICS = 50                              # a host
GOALS = {200_000: 1., 1_000_000: 6.}      # seconds a tick
MOST_GB, MOST_EXPONENT = 4., 1.05
COLUMNS = dict(Read='read', Store='store', Score='score', StoreBands='bands', Judge='judge', Group='group',
               Tell='tell', Decide='decide', Save='save')


def names(series: int) -> list[str]:
    "Canonical names: 45 gauges and five counters for each host."
    metrics = [f'gauge_{k:02}_percent' for k in range(METRICS - 5)] + [f'requests_{k}_total' for k in range(5)]
    return [f'{metric}{{host="host-{h:05}"}}' for h in range(-(-series // METRICS)) for metric in metrics][:series]


def moving_source(series: int):
    "A source whose read costs a random permutation of a few thousand numbers and nothing else."
    import numpy as np
    import pandas as pd

    from smartcloudops.ingestion import Source

    class Moving(Source):
        name, interval, live, done = 'bench', 60., True, False
        def __init__(self):
            rng = np.random.default_rng(0)
            self.frame = pd.DataFrame(rng.normal(40, 2, (1, series)), columns=pd.Index(names(series), dtype=object))
            self.counters = np.array([name.startswith('requests') for name in self.frame.columns])
            self.noise, self.n = rng.normal(40, 2, series + 4096), 0

        def read(self, now):
            self.n += 1
            values = self.noise[self.n % 4096:][:series].copy()
            values[self.counters] += 60. * self.n
            frame = pd.DataFrame(values[None], index=pd.DatetimeIndex([now], name='time'), columns=self.frame.columns)
            return frame

    return Moving()


def copies_in(seconds: float, series: int) -> float:
    "How often one row of all series could be copied meanwhile."
    import numpy as np
    row = np.ones(series)
    out = np.empty_like(row)
    times = max(10, 20_000_000 // series)
    began = time.perf_counter()
    for _ in range(times): np.copyto(out, row)
    return seconds / ((time.perf_counter() - began) / times)


def measure(series: int, ticks: int) -> dict:
    "The median of some ticks after the first two, which make columns known and compile."
    import statistics

    from smartcloudops.core.clock import FakeClock, clock, use_clock
    from smartcloudops.core.settings import load_settings
    from smartcloudops.loop.runner import Loop

    class Running(FakeClock):
        "Wall time that is turned by hand, and real seconds for measuring."
        def monotonic(self): return time.perf_counter()

    with tempfile.TemporaryDirectory() as folder, use_clock(Running('2026-01-05 09:00')):
        loop = Loop(load_settings('/dev/null', data_dir=folder, detection=dict(joint=False)), moving_source(series))
        if loop.guard is not None:
            loop.guard.check_clock = lambda *_: None      # the wall is turned faster than time passes
        seen = []
        for _ in range(ticks + 2):
            seen.append(loop.tick())
            clock().advance(60)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        measured = seen[2:]
        stages = {
            name: statistics.median(t.stage_seconds.get(stage, 0.0) for t in measured)
            for stage, name in COLUMNS.items()
        }
        stages['save'] = seen[0].stage_seconds['Save']                            # the first tick saves
        tick = statistics.median(t.seconds for t in measured)
        problems = {t.problem for t in seen if t.problem}
        loop.close()
    return dict(series=series, tick=tick, gb=peak, copies=copies_in(tick, series), problems=sorted(problems), **stages)


def exponent(rows: list[dict], key: str) -> float:
    "Slope of log(seconds) over log(series), from 10k on; 1 is linear."
    import numpy as np
    rows = [r for r in rows if r['series'] >= 10_000 and r[key] > 0]
    if len(rows) < 2: return float('nan')
    x, y = np.log([r['series'] for r in rows]), np.log([r[key] for r in rows])
    return float(np.polyfit(x, y, 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--series', type=int, nargs='+', default=SIZES)
    parser.add_argument('--ticks', type=int, default=6)
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.ticks)))
        return 0
    rows = []
    for series in given.series:
        command = [sys.executable, __file__, '--one', str(series), '--ticks', str(given.ticks)]
        env = dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', NUMBA_NUM_THREADS='1')
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True,
                              preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        if done.returncode: print(f'{series} series: exit code {done.returncode}', file=sys.stderr)
        else: rows.append(json.loads(done.stdout.splitlines()[-1]))
    shown = ['tick', *COLUMNS.values()]
    growth = {key: exponent(rows, key) for key in shown}
    if given.json:
        print(json.dumps(dict(rows=rows, exponents=growth), indent=2))
        return 0
    print(f"{'series':>9} " + ' '.join(f'{key:>8}' for key in shown) + f"{'GB':>7} {'copies':>8}")
    for r in rows:
        print(
            f"{r['series']:>9,} "
            + ' '.join(f'{r[key]:>8.4f}' for key in shown)
            + f"{r['gb']:>7.2f} {r['copies']:>8,.0f}"
        )
    print(f"{'exponent':>9} " + ' '.join(f'{growth[key]:>8.2f}' for key in shown))
    for r in rows:
        for problem in r['problems']: print(f"{r['series']:,} series: {problem}")
        if r['tick'] > GOALS.get(r['series'], float('inf')):
            print(f"{r['series']:,} series: {r['tick']:.2f} s, goal {GOALS[r['series']]:g} s")
        if r['gb'] > MOST_GB: print(f"{r['series']:,} series: {r['gb']:.2f} GB, goal {MOST_GB:g} GB")
    if growth['tick'] > MOST_EXPONENT:
        print(f"a tick grows with the power {growth['tick']:.2f}, goal {MOST_EXPONENT:g}")
    return 0


if __name__ == '__main__': sys.exit(main())
