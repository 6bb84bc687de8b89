"""Every page of the dashboard as a small PNG, light, dark, on a phone: python -m tests.screenshots [FOLDER] [PAGE …]

The data is the made-up night of tests/fleet.py at a fixed moment, so the pictures change only when the pages do.
"""

import logging
import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from smartcloudops.core.clock import FakeClock, now, use_clock
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard import create_app
from smartcloudops.dashboard.targets import Answer, TargetReport
from tests.fleet import build

AT = pd.Timestamp('2026-11-22 02:12:40', tz='UTC')
CPU = 'cpu_utilization_percent%7Bhost%3D%22web-7%22%7D'
PAGES = {
    'now': '/',
    'incident': '/incidents/6',
    'incident-verifying': '/incidents/5',
    'incident-closed': '/incidents/1',
    'incidents': '/incidents',
    'hosts': '/hosts',
    'host': '/hosts/web-7',
    'series': f'/series/{CPU}?range=1h',
    'actions': '/actions',
    'policies': '/policies',
    'silences': '/silences',
    'reports': '/reports',
    'targets': '/aws-health',
    'settings': '/settings',
}
LOOKS = {
    'light': dict(viewport=dict(width=1440, height=900), color_scheme='light'),
    'dark': dict(viewport=dict(width=1440, height=900), color_scheme='dark'),
    'phone': dict(viewport=dict(width=390, height=844), color_scheme='light', has_touch=True),
}
CHROMIUM = dict(executable_path='/usr/bin/chromium', args=['--no-sandbox', '--disable-background-networking'])


@contextmanager
def serving(folder: Path, answers: list[Answer] = (), **settings):
    "The app over `folder` in this process; yields its address. `answers` stand for targets that were asked."
    (folder / 'reports').mkdir(exist_ok=True)
    (folder / 'targets.json').write_text('{"app": [], "node_exporter": []}')
    chosen = Settings(
        data_dir=folder,
        policy_file=folder / 'policies.yaml',
        targets_file=folder / 'targets.json',
        reports_dir=folder / 'reports',
        **settings,
    )
    app = create_app(folder, chosen)
    if answers:
        app.extensions['smartcloudops'].targets.report = lambda: TargetReport(tuple(answers), now())
    server = make_server('127.0.0.1', 0, app, threaded=True)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        app.extensions['smartcloudops'].broadcaster.stop()
        server.shutdown()


def answered() -> list[Answer]:
    "Five targets, one of which is down."
    up = [
        Answer(f'{host}:{port}', job, host, True, 200, took)
        for host, port, job, took in (
            ('web-1', 8000, 'app', 0.0031),
            ('web-7', 8000, 'app', 0.0412),
            ('web-1', 9100, 'node', 0.0044),
            ('db-1', 9100, 'node', 0.0037),
        )
    ]
    return [*up, Answer('edge-4:9100', 'node', 'edge-4', False, None, 1.5, 'no connection in time')]


def reported(folder: Path) -> None:
    "Three reports as `smartcloudops report` leaves them."
    (folder / 'reports').mkdir(exist_ok=True)
    for name, hours, size in (
        ('daily-20261121-060000', 20, 412),
        ('incident-20261120-224500', 28, 268),
        ('policy_backtest-20261120-220000', 29, 187),
    ):
        for suffix in ('html', 'ipynb'):
            file = folder / 'reports' / f'{name}.{suffix}'
            file.write_text('<h1>report</h1>'.ljust(size * 1000))
            os.utime(file, (AT.timestamp() - hours * 3600,) * 2)


def shoot(browser, address: str, out: Path, name: str, path: str, look: str) -> None:
    "One page, whole, as a PNG of 128 colours."
    context = browser.new_context(timezone_id='Europe/Berlin', locale='en-GB', reduced_motion='reduce', **LOOKS[look])
    context.clock.set_fixed_time(AT.to_pydatetime())
    page = context.new_page()
    page.goto(address + path)
    page.wait_for_selector('html[data-drawn="1"]', state='attached')
    page.wait_for_timeout(150)
    file = out / f'{name}-{look}.png'
    page.screenshot(path=file, full_page=True)
    context.close()
    with Image.open(file) as image:
        image.convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            file, optimize=True
        )


def main(out: str = 'docs/screenshots', *names: str) -> None:
    "Take them all, or the named ones."
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = Path(out).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, use_clock(FakeClock(AT)), sync_playwright() as p:
        os.chdir(temporary)  # so that no path of this machine is in a picture
        night, calm = build('data', AT), build('calm', AT, quiet=True)
        reported(night)
        browser = p.chromium.launch(**CHROMIUM)
        with serving(night, answered()) as busy, serving(calm) as quiet:
            wanted = [(n, busy, path) for n, path in PAGES.items()] + [('quiet', quiet, '/')]
            for name, address, path in wanted:
                for look in LOOKS:
                    if not names or name in names:
                        shoot(browser, address, folder, name, path, look)
        browser.close()
    print(
        f"{len(list(folder.glob('*.png')))} pictures, "
        f"{sum(f.stat().st_size for f in folder.glob('*.png')) / 1e3:.0f} kB, in {folder}"
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
