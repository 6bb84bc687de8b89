"""Detector and peers on labelled data, and the cost of a tick.

python benchmarks/bench_detection.py --data DIR [--no-peers] [--json docs/detection.json] [--series 1000000]
"""
import argparse
import json
import resource
import time

import numpy as np
import pandas as pd

from smartcloudops.detection.evaluate import evaluate_dir
from smartcloudops.detection.stream import STATE, StreamDetector

def tick(series: int) -> dict:
    "Seconds of a warm tick of so many series, and the most memory this process ever held."
    detector, rng = StreamDetector(), np.random.default_rng(0)
    took = []
    for k in range(4):
        values, began = rng.normal(50, 5, series), time.perf_counter()
        detector.update(pd.Timestamp('2026-01-01', tz='UTC') + pd.Timedelta(minutes=k), values)
        took.append(time.perf_counter() - began)
    return dict(
        series=series,
        seconds=round(min(took[1:]), 2),
        gigabytes=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        state_bytes=STATE.itemsize,
    )


def long_frame(rows: int) -> dict:
    "Seconds to score one series of so many rows."
    frame = pd.DataFrame(
        {'value': np.random.default_rng(0).normal(50, 5, rows)},
        index=pd.date_range('2024-01-01', periods=rows, freq='min', tz='UTC'),
    )
    began = time.perf_counter()
    StreamDetector().score(frame)
    return dict(rows=rows, seconds=round(time.perf_counter() - began, 2))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', help='folder of labelled series')
    parser.add_argument('--no-peers', action='store_true')
    parser.add_argument('--json', help='write the record there')
    parser.add_argument('--series', type=int, default=1_000_000)
    args = parser.parse_args()
    StreamDetector().score(pd.DataFrame({'a': [1., 2]}, index=pd.date_range('2026', periods=2, freq='min')))
    record = dict(tick=tick(args.series), long=long_frame(1_000_000))
    print(record)
    if args.data:
        table = evaluate_dir(args.data, peers=not args.no_peers)
        print(table.round(3).T.to_string())
        record['quality'] = json.loads(table.reset_index().to_json(orient='records', double_precision=5))
    if args.json:
        with open(args.json, 'w') as file: json.dump(record, file, indent=1)
