"""The two pictures of the README, made from the program itself: `.venv/bin/python docs/images/make.py`.

The dashboard is photographed in Chromium (Debian's) over a made-up fleet in which one thing goes wrong.
"""
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
PORT = 5077


def chart() -> None:
    "Two weeks of an EC2 instance, as `smartcloudops detect --plot` draws them."
    data = ROOT/'nbs'/'data'/'ec2_cpu_utilization_825cc2.csv'
    subprocess.run(
        [BIN / 'smartcloudops', 'detect', data, '--plot', HERE / 'detect.png'],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=tempfile.mkdtemp(),
    )


SETTINGS = """
source = "synthetic"
interval = 5
[synthetic]
hosts = 6
every = 5
history_hours = 3
faults = [{kind = "level_shift", host = "web-3", metric = "cpu", size = 1.4, minutes = 60}]
[dashboard]
port = %d
"""


def wait_for_incident(seconds: float) -> None:
    "Until the page knows of an open incident."
    for _ in range(int(seconds)):
        time.sleep(1)
        try:
            request = urllib.request.Request(f'http://127.0.0.1:{PORT}/', headers=dict(Accept='application/json'))
            if json.load(urllib.request.urlopen(request, timeout=5)).get('anomaly'): return time.sleep(12)
        except OSError: pass


def page(seconds: float = 90) -> None:
    "The first screen while an incident is open."
    import pandas as pd
    from playwright.sync_api import sync_playwright
    folder = Path(tempfile.mkdtemp())
    at = (pd.Timestamp.now(tz='UTC') - pd.Timedelta('6min')).isoformat()
    (folder/'settings.toml').write_text((SETTINGS % PORT).replace('size = 1.4', f'size = 1.4, at = "{at}"'))
    loop = subprocess.Popen(
        [BIN / 'smartcloudops', '--config', folder / 'settings.toml', 'run'], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_incident(seconds)
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox'])
            tab = browser.new_page(viewport=dict(width=1280, height=760), color_scheme='light')
            tab.goto(f'http://127.0.0.1:{PORT}/')
            tab.wait_for_timeout(3000)
            tab.screenshot(path=HERE/'dashboard.png')
            browser.close()
    finally:
        loop.terminate()
        loop.wait(20)


if __name__ == '__main__':
    for name in sys.argv[1:] or ('chart', 'page'): dict(chart=chart, page=page)[name]()
