"The install scripts and units, for real as far as a machine without systemd running allows; the rest by lint."
import json, os, shutil, subprocess, sys
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
    for unit in [*DEPLOY.glob('*.service'), *DEPLOY.glob('*.timer')]: (tmp_path/unit.name).write_text(unit.read_text().replace('/opt/smartcloudops/bin/smartcloudops', '/bin/true'))
    checked = subprocess.run(['systemd-analyze', 'verify', '--man=no', *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    rated = subprocess.run(['systemd-analyze', 'security', '--offline=true', '--threshold=45', tmp_path/'smartcloudops.service'], capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout[-600:] + rated.stderr


def test_the_monitoring_host_gets_a_configuration_that_prometheus_takes(tmp_path):
    (tmp_path/'targets.json').write_text(json.dumps({'app': ['10.0.0.5:5000'], 'node_exporter': ['10.0.0.5:9100']}))
    def install(*more): return subprocess.run([DEPLOY/'install-monitoring.sh', *more, tmp_path/'targets.json'], env=dict(os.environ, ROOT=str(tmp_path/'root'), PYTHON=sys.executable), capture_output=True, text=True)
    planned = install('--dry-run')
    assert planned.returncode == 0 and not (tmp_path/'root').exists() and '+ install' in planned.stdout
    done = install()
    assert done.returncode == 0, done.stderr
    groups = json.loads((tmp_path/'root'/'etc'/'prometheus'/'file_sd'/'app-and-node.json').read_text())
    assert [g['targets'] for g in groups] == [['10.0.0.5:5000'], ['10.0.0.5:9100']]
    if shutil.which('promtool'):
        assert subprocess.run(['promtool', 'check', 'config', '--syntax-only', tmp_path/'root'/'etc'/'prometheus'/'prometheus.yml'], capture_output=True).returncode == 0
        assert subprocess.run(['promtool', 'check', 'rules', tmp_path/'root'/'etc'/'prometheus'/'rules'/'smartcloudops.yml'], capture_output=True).returncode == 0
    assert '+ install' not in install().stdout, 'a second run changes nothing'
