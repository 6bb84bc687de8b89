"""Scores, incidents and rankings of the sample data, bit for bit as version 0.1.0 gave them.

The code may be built anew, what it computes may not change.

To record anew, when a change is meant to change them:  .venv/bin/python -m tests.test_stream_identical
"""

import hashlib
import json
import math
import platform
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smartcloudops.cli import main
from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.files import write_atomically
from smartcloudops.detection import JointModels, StreamDetector, list_incidents, rank_suspects
from smartcloudops.detection.fault_cases import read_graph, read_petshop
from smartcloudops.ingestion import Fault, synthetic_frame

pytestmark = pytest.mark.phase3
DATA, RECORD = Path(__file__).parent.parent / 'nbs/data', Path(__file__).parent / 'data/scores-0.1.0.json'
FIELDS = 'score', 'expected', 'lower', 'upper', 'anomaly'


def read(path, time, values):
    "Columns of a CSV of the sample data, indexed by UTC time."
    table = pd.read_csv(DATA / path)
    return table[values].set_axis(pd.to_datetime(table[time], utc=True).rename('time')).astype(float)


def faulty(hours=8.0, hosts=3):
    "A made-up fleet in which six things go wrong, one after the other; one more trouble begins right before the end."
    faults = [
        ('level_shift', 'web-1', 'cpu', '04:00', 10, 1.8),
        ('level_shift', 'web-2', 'http_request_duration_p95_seconds', '04:30', 20, 1.0),
        ('dropout', 'web-3', '*', '05:10', 8, 1.0),
        ('slow_leak', 'web-1', 'memory', '05:30', 60, 1.3),
        ('variance_burst', 'web-2', 'network_receive_bytes_per_second', '06:00', 30, 1.0),
        ('flatline', 'web-3', 'http_requests_per_second', '06:40', 40, 1.0),
        ('level_shift', '*', 'disk', '07:50', 60, 1.2),
    ]
    return synthetic_frame(
        hosts,
        '2026-01-05',
        hours,
        60,
        11,
        [
            Fault(kind, host, metric, f'2026-01-05T{at}Z', minutes, size)
            for kind, host, metric, at, minutes, size in faults
        ],
    )


FRAMES = {
    'nab/ec2_cpu_utilization_825cc2': lambda: read('ec2_cpu_utilization_825cc2.csv', 'timestamp', ['value']),
    'ms_cloud/outbound-04': lambda: read('ms_cloud/outbound-04.csv', 'TimeStamp', ['Value']),
    'host/idle': lambda: pd.read_csv(DATA / 'host/idle.csv.gz', index_col=0, parse_dates=True).astype(float),
    'petshop/quiet': lambda: pd.read_csv(DATA / 'petshop/quiet.csv', index_col=0, parse_dates=True).astype(float),
    'synthetic': faulty,
}


def sha(values) -> str:
    "Hash of the bytes; one missing number is like another, whatever bits stand for it."
    values = np.array(values, order='C')
    if values.dtype.kind == 'f':
        values[np.isnan(values)] = np.nan
    return hashlib.sha256(values.tobytes()).hexdigest()


def hashed(scores) -> dict:
    return {name: sha(np.asarray(getattr(scores, name), bool if name == 'anomaly' else float)) for name in FIELDS}


def streamed(name) -> dict:
    "Hashes of a frame's scores, and of the frame: a changed sample is told from a changed detector."
    frame = FRAMES[name]()
    scores = StreamDetector().score(frame)
    return dict(
        input=sha(frame.to_numpy(float)),
        shape=list(frame.shape),
        abnormal=int(np.asarray(scores.anomaly).sum()),
        highest=float(np.nanmax(scores.score)).hex(),
        **hashed(scores),
    )


def updated() -> dict:
    "The same, row by row through `update`, with the state saved and read back in the middle."
    frame, detector, rows = faulty(2.0), StreamDetector(), []
    with tempfile.TemporaryDirectory() as folder:
        for n, (at, row) in enumerate(frame.iterrows()):
            if n == len(frame) // 2:
                detector.save(Path(folder) / 'detector.npz')
                detector = StreamDetector.load(Path(folder) / 'detector.npz')
            rows.append(detector.update(at, row))
    return {
        name: sha(np.array([np.asarray(getattr(r, name), bool if name == 'anomaly' else float) for r in rows]))
        for name in FIELDS
    }


def jointly() -> dict:
    "One host's joint model, fitted on six quiet hours and asked about eight with faults."
    quiet, frame = (
        synthetic_frame(1, '2026-01-04', 6, 60, 11),
        faulty(hosts=['web-1', 'web-2', 'web-3']).filter(like='"web-1"'),
    )
    with tempfile.TemporaryDirectory() as folder:
        JointModels(folder).fit('web-1', quiet, quiet.index[-1])
        scores = JointModels(folder).score(frame)
    return dict(
        abnormal=int(np.asarray(scores.anomaly).sum()),
        highest=round(float(np.nanmax(scores.score)), 6),
        **hashed(scores),
    )


def replayed() -> list[dict]:
    "The fleet with faults through the whole loop: when each incident began, opened, closed, and its evidence."
    frame = faulty()
    row = lambda time: None if time is None else int(frame.index.get_indexer([time])[0])
    with tempfile.TemporaryDirectory() as folder, use_clock(FakeClock('2026-01-05T08:00Z')):
        frame.to_csv(Path(folder) / 'fleet.csv')
        env = dict(
            SMARTCLOUDOPS_DATA_DIR=f'{folder}/data',
            SMARTCLOUDOPS_INCIDENTS__PAGES_PER_WEEK='200',
            SMARTCLOUDOPS_TARGETS_FILE=f'{folder}/none.json',
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            done = CliRunner().invoke(
                main, ['run', '--once', '--source', f'replay:{folder}/fleet.csv', '--json'], env=env
            )
        assert done.exit_code == 0, done.output
        engine = open_state(Path(folder) / 'data/smartcloudops.db')
        found = list_incidents(engine, limit=None)[::-1]
        engine.dispose()
    return [
        dict(
            kind=i.kind,
            severity=i.severity,
            host=i.host,
            hosts=list(i.hosts),
            began=row(i.started),
            opened=row(i.opened),
            closed=row(i.closed),
            flaps=i.flaps,
            title=i.title,
            cause=i.cause,
            anomalies=[
                dict(series=a.series, kind=a.kind, origin=a.origin, rows=a.rows, score=float(a.score).hex())
                for a in i.anomalies
            ],
            suspects=[[s['series'], s['score']] for s in i.suspects],
        )
        for i in found
    ]


def ranked() -> list[list]:
    "PetShop's example: who is suspected of the slow page."
    told, quiet = json.loads((DATA / 'petshop/target.json').read_text()), FRAMES['petshop/quiet']()
    abnormal = read_petshop(DATA / 'petshop/metrics.csv')[quiet.columns]
    frame = pd.concat(
        [quiet.set_axis(abnormal.index[0] - pd.Timedelta('5min') * np.arange(len(quiet), 0, -1)), abnormal]
    )
    found = rank_suspects(
        frame,
        f'latency_seconds{{host="{told["target"]["node"]}",stat="Average"}}',
        abnormal.index[0],
        read_graph(DATA / 'petshop/graph.csv'),
    )
    return found.values.tolist()


def machine() -> str:
    "How this machine rounds, without any code of ours: libm, numpy and BLAS choose their kernels by the processor."
    x = np.linspace(0.01, 9, 4001)
    square = np.cos(np.outer(x[:60], x[:60])) + 60 * np.eye(60)
    parts = (
        [f(x) for f in (np.exp, np.log, np.sqrt, np.sin, np.tanh, np.cumsum)]
        + [np.array([f(v) for v in x]) for f in (math.exp, math.log, math.sin, math.tanh, math.erf)]
        + [np.linalg.inv(square), square @ square, x @ x]
    )
    return f'{platform.machine()} {sha(np.concatenate([np.ravel(p) for p in parts]))[:16]}'


@pytest.fixture(scope='module')
def record():
    known = json.loads(RECORD.read_text())
    if known['machine'].split()[0] != platform.machine():
        pytest.skip(f'recorded on {known["machine"].split()[0]}, this is {platform.machine()}: last bits differ')
    if known['machine'] != machine():
        pytest.skip('this processor, libm or BLAS rounds otherwise than the one on which the scores were recorded')
    return known


@pytest.mark.parametrize('name', FRAMES)
def test_scores_of_the_sample_data_are_bit_identical(record, name):
    assert streamed(name) == record['streamed'][name]


def test_scores_row_by_row_are_bit_identical(record):
    assert updated() == record['updated']


def test_scores_of_the_joint_model_are_bit_identical(record):
    assert jointly() == record['jointly']


WORDS = 'title', 'cause'


def test_a_replayed_fleet_has_the_same_incidents(record):
    "What opened when, on which evidence; and in the same words."
    found, known = replayed(), record['replayed']
    assert [{k: v for k, v in i.items() if k not in WORDS} for i in found] == [
        {k: v for k, v in i.items() if k not in WORDS} for i in known
    ]
    assert [[i[w] for w in WORDS] for i in found] == [[i[w] for w in WORDS] for i in known]


def test_suspects_of_the_petshop_example_are_the_same(record):
    assert ranked() == record['ranked']


if __name__ == '__main__':
    made = dict(
        version='0.1.0',
        machine=machine(),
        streamed={name: streamed(name) for name in FRAMES},
        updated=updated(),
        jointly=jointly(),
        replayed=replayed(),
        ranked=ranked(),
    )
    write_atomically(RECORD, json.dumps(made, indent=1, ensure_ascii=False) + '\n')
