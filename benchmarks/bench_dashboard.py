"""The page at 1,000 hosts of 50 series: server time of `/`, first painted chart, 30 days of one series,
`/health` under 100 event streams.

One gunicorn as the loop starts it, the loop played by this script (a heartbeat every 2 s, so that the snapshot is made
anew all the time). SMALL=1 takes 100 hosts and 20 readers.
The bare WSGI line is the same server answering with two bytes: what the machine allows.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from smartcloudops.core.clock import now
from smartcloudops.core.database import open_state
from smartcloudops.core.kv import write_heartbeat
from smartcloudops.core.series import Series
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard import serve_command
from smartcloudops.monitoring.history import History
from smartcloudops.monitoring.sealing import compact, seal

HOSTS, READERS = (100, 20) if os.environ.get('SMALL') else (1000, 100)
METRICS = [
    'cpu_utilization_percent',
    'memory_used_percent',
    'disk_used_percent{mount="/"}',
    'network_receive_bytes_per_second',
    'network_transmit_bytes_per_second',
] + [f'queue_depth{{queue="q{i}"}}' for i in range(45)]
ONE = 'cpu_utilization_percent{host="web-1"}'


def fill(folder: Path) -> None:
    "Five minutes of the whole fleet, thirty days of one series."
    rng, at = np.random.default_rng(0), now().floor('15s')
    with History(folder / 'history.db') as history:
        month = pd.date_range(end=at - pd.Timedelta('10min'), periods=30 * 5760, freq='15s', name='time')
        for part in np.array_split(np.arange(len(month)), 30):
            history.append(
                pd.DataFrame({ONE: 40 + rng.normal(0, 4, len(part))}, index=month[part]), arrived=month[part][-1]
            )
        seal(history, at, settle=0)
        compact(history, at)
        names = [str(Series.parse(m).with_labels(host=f'web-{h}')) for h in range(1, HOSTS + 1) for m in METRICS]
        history.append(
            pd.DataFrame(
                rng.uniform(0, 100, (20, len(names))),
                index=pd.date_range(end=at, periods=20, freq='15s', name='time'),
                columns=names,
            )
        )
    write_heartbeat(open_state(folder / 'smartcloudops.db'), 'loop', {'interval': 15}, now())


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def times(client, path: str, count: int, **headers) -> list[float]:
    "Milliseconds of each request."
    took = []
    for _ in range(count):
        began = time.perf_counter()
        client.get(path, headers=headers).raise_for_status()
        took.append((time.perf_counter() - began) * 1e3)
    return took


def report(name: str, took: list[float], goal: float | None = None) -> None:
    high = np.percentile(took, 99) if len(took) >= 100 else max(took)
    print(
        f"{name:58} median {statistics.median(took):7.1f} ms   {'p99' if len(took) >= 100 else 'max'} {high:7.1f} ms"
        + (f'   goal {goal:g} ms' if goal else '')
    )


def painted(address: str) -> list[float]:
    "From the click to the first painted chart, in Chromium."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path='/usr/bin/chromium', args=['--no-sandbox', '--disable-background-networking']
        )
        took = []
        for _ in range(5):
            page = browser.new_page(viewport=dict(width=1440, height=900))
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector('html[data-drawn="1"]', state='attached')
            took.append((time.perf_counter() - began) * 1e3)
            page.close()
        browser.close()
    return took[1:]


def readers(address: str, count: int, stop: threading.Event) -> list:
    "As many open event streams; returns what each of them has heard."
    heard = [0] * count

    def listen(i):
        with httpx.stream('GET', f'{address}/events', timeout=30) as stream:
            for line in stream.iter_lines():
                heard[i] += line.startswith('event')
                if stop.is_set():
                    return

    for i in range(count):
        threading.Thread(target=listen, args=(i,), daemon=True).start()
    return heard


def bare(port: int) -> subprocess.Popen:
    "The same server with an app that answers 'ok'."
    code = "def app(environ, start): start('200 OK', [('Content-Length', '2')]); return [b'ok']"
    Path(tempfile.gettempdir(), 'bare_wsgi.py').write_text(code)
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'gunicorn',
            '--bind',
            f'127.0.0.1:{port}',
            '--worker-class',
            'gthread',
            '--threads',
            '128',
            '--log-level',
            'error',
            '--chdir',
            tempfile.gettempdir(),
            'bare_wsgi:app',
        ]
    )


def memory(pid: int) -> float:
    "Proportional memory of a process and its children, MB."
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(p.memory_full_info().pss for p in family) / 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder, port, other = Path(temporary), free_port(), free_port()
        fill(folder)
        engine, stop = open_state(folder / 'smartcloudops.db'), threading.Event()
        threading.Thread(
            target=lambda: [
                write_heartbeat(engine, 'loop', {'interval': 15}, now()) for _ in iter(lambda: stop.wait(2), True)
            ],
            daemon=True,
        ).start()
        server, plain, address = (
            subprocess.Popen(serve_command(Settings(), folder, port)),
            bare(other),
            f'http://127.0.0.1:{port}',
        )
        try:
            client = httpx.Client(base_url=address, timeout=30)
            for _ in range(100):
                try:
                    client.get('/health')
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            client.get('/', headers={'Accept': 'text/html'})
            print(f'{HOSTS} hosts of {len(METRICS)} series; memory of the server {memory(server.pid):.0f} MB')
            report(
                'bare WSGI answer on the same server',
                times(httpx.Client(base_url=f'http://127.0.0.1:{other}'), '/', 200),
            )
            report('/health', times(client, '/health', 200))
            report('/ as a page', times(client, '/', 40, Accept='text/html'), 150)
            report('/ as JSON', times(client, '/', 40))
            report('/metrics', times(client, '/metrics', 20))
            report(
                '30 days of one series, 172,800 samples, decimated',
                times(client, f'/api/v1/points?series={ONE}&hours=720&width=1000', 10),
                200,
            )
            report('/ to painted charts in Chromium', painted(address + '/'), 1000)
            heard = readers(address, READERS, stop)
            time.sleep(5)
            report(f'/health beside {sum(h > 0 for h in heard)} event streams', times(client, '/health', 500), 50)
            report(f'/ as a page beside {READERS} event streams', times(client, '/', 40, Accept='text/html'), 150)
            print(f'memory of the server now {memory(server.pid):.0f} MB')
        finally:
            stop.set()
            server.terminate()
            plain.terminate()
            server.wait(15)
            plain.wait(15)


if __name__ == '__main__':
    main()
