"The install scripts and units, for real as far as a machine without systemd running allows; the rest by lint."
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.phase7
DEPLOY = Path(__file__).resolve().parent.parent/'infra'/'deploy'
SCRIPTS = sorted(DEPLOY.glob('*.sh'))


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_valid_executable_and_say_how_they_are_used(script):
    assert os.access(script, os.X_OK)
    assert subprocess.run(['bash', '-n', script], capture_output=True).returncode == 0
    if shutil.which('shellcheck'):
        found = subprocess.run(['shellcheck', script], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout
    for arguments in ([], ['--what']):
        used = subprocess.run([script, *arguments], capture_output=True, text=True)
        assert used.returncode == 2 and script.name in used.stderr
    assert subprocess.run([script, '/nowhere/x.whl'], capture_output=True, text=True).returncode == 1


@pytest.mark.skipif(not shutil.which('systemd-analyze'), reason='no systemd here')
def test_units_are_valid_and_hardened(tmp_path):
    for unit in [*DEPLOY.glob('*.service'), *DEPLOY.glob('*.timer')]:
        (tmp_path/unit.name).write_text(unit.read_text().replace('/opt/smartcloudops/bin/smartcloudops', '/bin/true'))
    checked = subprocess.run(
        ['systemd-analyze', 'verify', '--man=no', *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    rated = subprocess.run(
        ['systemd-analyze', 'security', '--offline=true', '--threshold=45', tmp_path / 'smartcloudops.service'],
        capture_output=True,
        text=True,
    )
    assert rated.returncode == 0, rated.stdout[-600:] + rated.stderr


def test_the_monitoring_host_gets_a_configuration_that_prometheus_takes(tmp_path):
    (tmp_path/'targets.json').write_text(json.dumps({'app': ['10.0.0.5:5000'], 'node_exporter': ['10.0.0.5:9100']}))
    def install(*more):
        return subprocess.run(
            [DEPLOY / 'install-monitoring.sh', *more, tmp_path / 'targets.json'],
            env=dict(os.environ, ROOT=str(tmp_path / 'root'), PYTHON=sys.executable),
            capture_output=True,
            text=True,
        )
    planned = install('--dry-run')
    assert planned.returncode == 0 and not (tmp_path/'root').exists() and '+ install' in planned.stdout
    done = install()
    assert done.returncode == 0, done.stderr
    groups = json.loads((tmp_path/'root'/'etc'/'prometheus'/'file_sd'/'app-and-node.json').read_text())
    assert [g['targets'] for g in groups] == [['10.0.0.5:5000'], ['10.0.0.5:9100']]
    if shutil.which('promtool'):
        assert (
            subprocess.run(
                [
                    'promtool',
                    'check',
                    'config',
                    '--syntax-only',
                    tmp_path / 'root' / 'etc' / 'prometheus' / 'prometheus.yml',
                ],
                capture_output=True,
            ).returncode
            == 0
        )
        assert (
            subprocess.run(
                [
                    'promtool',
                    'check',
                    'rules',
                    tmp_path / 'root' / 'etc' / 'prometheus' / 'rules' / 'smartcloudops.yml',
                ],
                capture_output=True,
            ).returncode
            == 0
        )
    assert '+ install' not in install().stdout, 'a second run changes nothing'


# For real, as root, on a copy of this machine that is thrown away: an overlay in a mount namespace of its own

OVERLAY = '''set -eu
mount -t tmpfs tmpfs "$1"; mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"; mount --rbind /dev "$1/root/dev"
for shared in "$2" "$3"; do mkdir -p "$1/root$shared"; mount --rbind "$shared" "$1/root$shared"; done
exec chroot "$1/root" bash -euc "$4"
'''


def on_a_copy(tmp_path, script: str) -> subprocess.CompletedProcess:
    "Run a script as root where nothing that it changes stays."
    (tmp_path/'machine').mkdir(exist_ok=True)
    return subprocess.run(
        [
            'unshare',
            '--mount',
            'bash',
            '-c',
            OVERLAY,
            'copy',
            tmp_path / 'machine',
            DEPLOY.parent.parent,
            tmp_path,
            script,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        env=dict(PATH='/usr/sbin:/usr/bin:/sbin:/bin', HOME='/tmp', LANG='C.UTF-8'),
    )


@pytest.fixture
def copy(tmp_path):
    if os.geteuid() or not shutil.which('unshare'): pytest.skip('installing for real needs root')
    tried = on_a_copy(tmp_path, 'test -w /etc')
    if tried.returncode: pytest.skip(f'no overlay can be mounted here: {tried.stderr.strip().splitlines()[-1:]}')
    return tmp_path


def test_the_application_host_is_installed_to_its_end(copy):
    """User, environment, settings, enabled unit; then what the unit starts runs as that user, and a second run changes
    nothing."""
    from tests.conftest import soak
    system = subprocess.run(
        ['/usr/bin/python3', '-c', 'import sys, venv, ensurepip; print(sys.version_info[:2])'],
        capture_output=True,
        text=True,
    )
    if system.returncode or system.stdout.strip() != str(tuple(sys.version_info[:2])):
        pytest.skip(
            f"needs a /usr/bin/python3 {sys.version_info[0]}.{sys.version_info[1]} with venv, to borrow these packages"
        )
    alone = [] if importlib.util.find_spec('hatchling') is None else ['--no-isolation']
    built = subprocess.run(
        [sys.executable, '-m', 'build', '--wheel', *alone, '--outdir', copy / 'dist', DEPLOY.parent.parent],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    wheel, full = next((copy/'dist').glob('*.whl')), soak(0, 1)
    site = next(p for p in sys.path if p.endswith('site-packages'))
    work, kept = (
        ('--log-format json run --once --source synthetic --json', 'history.db')
        if full
        else ('switch off --reason installing', 'smartcloudops.db')
    )  # the loop takes its time to compile
    borrow = (
        '' if full else f'echo {site} > $(echo /opt/smartcloudops/lib/python*/site-packages)/borrowed.pth'
    )  # its packages are here already
    done = on_a_copy(copy, f'''
export PYTHON=/usr/bin/python3 {'' if full else 'PIP_NO_DEPS=1'}
{DEPLOY}/install-app.sh {wheel}
{borrow}
echo "== again"; {DEPLOY}/install-app.sh {wheel} | grep -v 'pip install'
echo "== found"
id -un smartcloudops; readlink /etc/systemd/system/multi-user.target.wants/smartcloudops.service
systemd-analyze verify --man=no /etc/systemd/system/smartcloudops.service && echo verified
install -d -o smartcloudops -g smartcloudops -m 0700 /var/lib/smartcloudops        # systemd's StateDirectory
cd /var/lib/smartcloudops
env -i $(sed -n 's/^Environment=//p' /etc/systemd/system/smartcloudops.service) PATH=/usr/bin:/bin \\
    su -m -s /bin/sh smartcloudops -c "/opt/smartcloudops/bin/smartcloudops {work}"
stat -c '%U %n' data/{kept}
''')
    assert done.returncode == 0, done.stdout + done.stderr
    _, again, found = re.split('== again|== found', done.stdout)
    assert '+ install' not in again and '+ useradd' not in again
    lines = found.strip().splitlines()
    assert lines[:2] == ['smartcloudops', '/etc/systemd/system/smartcloudops.service'] and 'verified' in lines
    assert ('"series": 21' in found or not full) and lines[-1] == f'smartcloudops data/{kept}'
    assert not Path('/etc/systemd/system/smartcloudops.service').exists(), 'nothing stays'


def test_a_python_that_the_service_cannot_run_is_refused(copy):
    (copy/'x.whl').touch()
    done = on_a_copy(copy, f'''mkdir -m 0700 /root/own; cp -L /usr/bin/python3 /root/own/; chmod 700 /root
PYTHON=/root/own/python3 {DEPLOY}/install-app.sh {copy}/x.whl''')
    assert done.returncode == 1 and 'cannot run /root/own/python3' in done.stderr, done.stdout + done.stderr


def test_the_monitoring_host_is_configured_and_its_prometheus_asks_the_targets(copy):
    "As root in the system's own places; then Debian's Prometheus starts with what it finds there."
    if not shutil.which('prometheus'): pytest.skip('no prometheus here')
    from tests.conftest import free_port
    (copy/'targets.json').write_text(json.dumps({'app': ['127.0.0.1:5999'], 'node_exporter': ['127.0.0.1:9199']}))
    port = free_port()
    done = on_a_copy(
        copy,
        f'''
    PYTHON=/usr/bin/python3 {DEPLOY}/install-monitoring.sh --no-packages {copy}/targets.json
    echo "== found"; ls /etc/grafana/dashboards /etc/prometheus/rules
    promtool check rules /etc/prometheus/rules/*.yml >/dev/null && echo rules
    mkdir /tmp/tsdb
    prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/tmp/tsdb \\
      --web.listen-address=127.0.0.1:{port} >/tmp/log 2>&1 &
    ask="import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/api/v1/targets').read().decode())"
    for i in $(seq 100); do
      python3 -c "$ask" 2>/dev/null > /tmp/targets && grep -q 5999 /tmp/targets && break
      sleep .2
    done
    kill %1; cat /tmp/targets''',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = done.stdout.partition('== found')[2]
    assert 'fleet.json' in found and 'rules' in found.split()
    asked = {t['labels']['instance'] for t in json.loads(found.strip().splitlines()[-1])['data']['activeTargets']}
    assert {'127.0.0.1:5999', '127.0.0.1:9199'} <= asked
