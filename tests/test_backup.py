"The commands of docs/operations.md, as they are written there: backup while the loop writes, restore, upgrade."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from smartcloudops.ingestion import synthetic_frame
from smartcloudops.monitoring.history import History
from tests.conftest import wait_for

pytestmark = [pytest.mark.phase7, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT/'docs'/'operations.md').read_text(encoding='utf-8')
BACKUP, RESTORE, UPGRADE = (
    re.findall(r'```bash\n(.*?)```', part, re.S)
    for part in re.search(r'## Backup and restore(.*?)(To restore.*?)## Upgrade(.*?)\n## ', TEXT, re.S).groups()
)
SYSTEMCTL = '''#!/usr/bin/env bash
# What systemd does for the loop: end it and wait, start it again.
echo "systemctl $*" >> said
[[ $1 == start ]] || { kill "$(cat pid)"; while kill -0 "$(cat pid)" 2>/dev/null; do sleep .1; done; }
[[ $1 == stop ]] || ./start
'''
START = '''#!/usr/bin/env bash
SMARTCLOUDOPS_SYNTHETIC__HISTORY_HOURS=.2 \\
smartcloudops --config /dev/null run --no-dashboard --source synthetic --interval 1 >> log 2>&1 &
echo $! > pid
'''


@pytest.fixture(scope='module')
def host(tmp_path_factory):
    """A folder with a data folder in which something happened, a loop that goes on writing, and stand-ins for what only
    an installed host has."""
    place = tmp_path_factory.mktemp('host')
    with History(place/'data'/'history.db') as history:
        history.append(synthetic_frame(hosts=2, start='2026-01-05', hours=30, every=60))
    (place/'bin').mkdir()
    for name, text in dict(systemctl=SYSTEMCTL, chown='#!/bin/sh\necho "chown $*" >> said\n').items():
        (place/'bin'/name).write_text(text)
    (place/'start').write_text(START)
    for script in (*(place/'bin').iterdir(), place/'start'): script.chmod(0o755)
    (place/'infra').symlink_to(ROOT/'infra')
    run(place, 'smartcloudops history compact; smartcloudops switch on; smartcloudops switch off; ./start')
    try:
        goes_on(place/'data')
        wait_for(
            lambda: (place / 'data' / 'ledger.anchor').exists() and (place / 'data' / 'learned').exists(), 60
        )  # as after its first tick
        yield place
    finally:
        try: os.kill(int((place/'pid').read_text()), signal.SIGTERM)
        except (OSError, ValueError): pass


def run(place, script, **env):
    "A script as a person would type it; its output. The first line that fails ends it."
    keep = {k: v for k, v in os.environ.items() if not k.startswith(('SMARTCLOUDOPS_', 'AWS_'))}
    found = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', script],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
        env=dict(
            keep,
            PATH=f'{place}/bin:{Path(sys.executable).parent}:{os.environ["PATH"]}',
            PYTHONPATH=str(ROOT),
            SMARTCLOUDOPS_HISTORY__RETENTION_DAYS='36500',
            **env,
        ),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def samples(folder):
    with History(folder/'history.db', readonly=True) as history: return history.info()['samples']


def goes_on(folder, seconds=90):
    "Wait until the loop has written something more."
    before = samples(folder)
    wait_for(lambda: samples(folder) > before, seconds)


needs_sqlite = pytest.mark.skipif(not shutil.which('sqlite3'), reason='no sqlite3 here')


@needs_sqlite
def test_a_backup_of_a_running_loop_is_restored_as_it_was(host):
    alive = samples(host/'data')
    for _ in range(5):                                  # some of them amid a tick
        shutil.rmtree(host/'backup', ignore_errors=True)
        run(host, BACKUP[0])
        goes_on(host/'data')
    kept = json.loads(run(host, 'smartcloudops ledger verify --json', SMARTCLOUDOPS_DATA_DIR='backup'))
    told = json.loads(run(host, 'smartcloudops history info --json', SMARTCLOUDOPS_DATA_DIR='backup'))
    assert kept['ok'] and kept['rows'] > 0 and told['samples'] >= alive and told['sealed_files'] > 0
    run(host, 'smartcloudops switch on')

    (host/'said').unlink(missing_ok=True)
    said = run(host, RESTORE[0].replace('systemctl start smartcloudops\n', ''))
    assert f'{kept["rows"]} entries, chain intact' in said and re.search(rf'^samples +{told["samples"]}$', said, re.M)
    with (
        History(host / 'data-before' / 'history.db', readonly=True) as before,
        History(host / 'data' / 'history.db', readonly=True) as after,
    ):
        restored = after.read()
        pd.testing.assert_frame_equal(restored, before.read(end=restored.index[-1] + pd.Timedelta('1us')))

    run(host, 'systemctl start smartcloudops')
    goes_on(host/'data')
    assert json.loads(run(host, 'smartcloudops ledger verify --json'))['ok']
    assert run(host, 'smartcloudops switch status').startswith('off'), 'what was switched on since is off again'
    assert (host / 'said').read_text().splitlines() == [
        'systemctl stop smartcloudops',
        'chown -R smartcloudops: data',
        'systemctl start smartcloudops',
    ]


@needs_sqlite
def test_without_the_anchor_a_restore_would_be_taken_for_a_cut_off_ledger(host, tmp_path):
    "Why the anchor is in the list: the old one beside a restored ledger knows rows that are not there."
    from smartcloudops.core.database import open_state
    from smartcloudops.remediation import Ledger
    Ledger(open_state(host / 'data-before' / 'smartcloudops.db'), host / 'data-before' / 'ledger.anchor').take_lease(
        'another loop', 60
    )  # it went on after the backup
    shutil.copytree(host/'backup', tmp_path/'data')
    shutil.copy(host/'data-before'/'ledger.anchor', tmp_path/'data')
    found = subprocess.run(
        [Path(sys.executable).parent / 'smartcloudops', 'ledger', 'verify', '--json'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1 and 'cut off' in json.loads(found.stdout)['text']


def test_the_commands_of_an_upgrade(host, tmp_path):
    """The wheel installed, settings left alone, the loop started again on the same data. Installed twice, and as root:
    tests/test_deploy.py."""
    subprocess.run(
        [sys.executable, '-m', 'build', '--wheel', '--outdir', host, ROOT], check=True, capture_output=True, timeout=200
    )
    where = dict(ROOT=str(tmp_path), PIP_NO_DEPS='1', PIP_NO_INDEX='1')
    settings = tmp_path/'etc'/'smartcloudops'/'smartcloudops.toml'
    settings.parent.mkdir(parents=True)
    settings.write_text('# mine\n')
    before = samples(host/'data')
    said = run(host, UPGRADE[0], **where)
    assert re.search(r'\d+\.\d+\.\d+', said) and settings.read_text() == '# mine\n'
    goes_on(host/'data')
    assert samples(host/'data') > before and json.loads(run(host, 'smartcloudops ledger verify --json'))['ok']
