"The real Prometheus, node_exporter and Alertmanager on loopback, configured by nothing but what `targets write` wrote."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from smartcloudops.core.inventory import read_targets
from smartcloudops.core.settings import load_settings
from smartcloudops.monitoring.grafana import expressions
from smartcloudops.monitoring.targets import render, write_targets
from tests.conftest import free_port

NEEDED = ['prometheus', 'prometheus-node-exporter', 'prometheus-alertmanager', 'promtool']
pytestmark = [
    pytest.mark.phase6,
    pytest.mark.skipif(
        not all(map(shutil.which, NEEDED)),
        reason='Debian packages prometheus, prometheus-node-exporter, prometheus-alertmanager',
    ),
]
TOKEN = 'token-of-the-webhook-0123456789'


def until(probe, seconds=60, what=''):
    "The first true answer of `probe`, asked again and again."
    deadline, answer = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if answer := probe(): return answer
        except httpx.HTTPError as e: answer = e
        time.sleep(.25)
    raise AssertionError(f'not within {seconds} s: {what} (last: {answer!r})')


class Stack:
    "The servers, their ports and their folder."
    def __init__(self, folder: Path):
        self.folder, self.children = folder, {}
        self.page, self.prometheus, self.alertmanager, self.node, self.second = (free_port() for _ in range(5))
        address = '127.0.0.1:{}'.format
        self.settings = load_settings(targets_file=folder/'aws_targets.json', dashboard=dict(port=self.page),
                                      prometheus=dict(
            url=f'http://{address(self.prometheus)}', alertmanager=address(self.alertmanager), scrape_interval='1s'))
        self.write([address(self.node)])
        config = folder/'infra/prometheus'
        for name, old, new in (('rules/smartcloudops.yml', 'for: 2m', 'for: 1s'),
                               ('alertmanager.yml', 'group_wait: 10s', 'group_wait: 0s'),
                               ('alertmanager.yml', 'group_interval: 1m', 'group_interval: 1s')):
            text = (config/name).read_text()
            assert old in text
            (config/name).write_text(text.replace(old, new))        # a test does not wait for minutes
        (config/'alerts.token').write_text(TOKEN)

    def write(self, nodes):
        "aws_targets.json, and all that follows from it."
        (self.folder/'aws_targets.json').write_text(json.dumps({'app': [f'127.0.0.1:{self.page}'],
                                                                'node_exporter': nodes}))
        if not (self.folder/'infra').exists(): write_targets(self.settings, self.folder/'infra')
        else:
            files = render(read_targets(self.folder/'aws_targets.json'), self.settings)
            target = self.folder/'infra/prometheus/file_sd/app-and-node.json'
            target.with_suffix('.new').write_text(files['prometheus/file_sd/app-and-node.json'])
            target.with_suffix('.new').replace(target)

    def start(self, name, *command, **env):
        log = open(self.folder/f'{name}.log', 'ab')
        self.children[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder,
                                               env={**os.environ, **env})
        log.close()

    def stop(self, name):
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        try: child.wait(15)
        except subprocess.TimeoutExpired: child.kill(); child.wait()

    def start_all(self):
        self.start_node('node', self.node)
        self.start('prometheus', 'prometheus', '--config.file=infra/prometheus/prometheus.yml',
                   '--storage.tsdb.path=tsdb', f'--web.listen-address=127.0.0.1:{self.prometheus}')
        self.start('alertmanager', 'prometheus-alertmanager', '--config.file=infra/prometheus/alertmanager.yml',
                   '--storage.path=am', f'--web.listen-address=127.0.0.1:{self.alertmanager}',
                   '--cluster.listen-address=')
        self.start('loop', sys.executable, '-m', 'smartcloudops.cli', 'run', '--source', 'host', '--interval', '1',
                   '--port', str(self.page),
                   SMARTCLOUDOPS_DASHBOARD__ALERTS_TOKEN=TOKEN, SMARTCLOUDOPS_DATA_DIR=str(self.folder/'data'),
                   PYTHONPATH=str(Path(__file__).parent.parent))

    def start_node(self, name, port):
        self.start(name, 'prometheus-node-exporter', f'--web.listen-address=127.0.0.1:{port}')

    def query(self, expr):
        answer = httpx.get(f'http://127.0.0.1:{self.prometheus}/api/v1/query', params=dict(query=expr), timeout=10)
        if answer.status_code == 503: return []          # still starting
        answer = answer.json()
        assert answer['status'] == 'success', (expr, answer)
        return answer['data']['result']

    def incidents(self, state):
        found = httpx.get(f'http://127.0.0.1:{self.page}/api/v1/incidents', params=dict(state=state),
                          headers={'Accept': 'application/json'}, timeout=10).json()
        return [i for i in (found if isinstance(found, list) else found.get('items', found.get('incidents', [])))
                if 'web-9' in json.dumps(i)]


@pytest.fixture(scope='module')
def stack(tmp_path_factory):
    s = Stack(tmp_path_factory.mktemp('stack'))
    try: s.start_all(); yield s
    finally:
        for name in list(s.children): s.stop(name)


def test_promtool_proves_each_rule(tmp_path):
    here = Path(__file__).parent
    shutil.copy(here.parent/'infra/prometheus/rules/smartcloudops.yml', tmp_path)
    shutil.copy(here/'prometheus_rules.test.yml', tmp_path)
    done = subprocess.run(['promtool', 'test', 'rules', 'prometheus_rules.test.yml'], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboards_is_sound(tmp_path):
    rules = ''.join(f"      - record: test:query{i}\n        expr: {json.dumps(expr.replace('$host', '.+'))}\n"
                    for i, expr in enumerate(expressions()))
    (tmp_path/'queries.yml').write_text('groups:\n  - name: queries\n    rules:\n' + rules)
    done = subprocess.run(['promtool', 'check', 'rules', 'queries.yml'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_jobs_are_scraped_and_nodes_carry_their_host(stack):
    until(lambda: {r['metric']['job'] for r in stack.query('up == 1')} >= {'app', 'node', 'smartcloudops', 'prometheus',
                                                                           'alertmanager'}, 90, 'all jobs up')
    assert {r['metric']['host'] for r in stack.query('up{job="node"}')} == {'127.0.0.1'}


def test_every_query_of_the_dashboards_returns_data(stack):
    rare = ('smartcloudops_actions_total',)         # nothing to show until something happened
    asked = [e.replace('$host', '.+') for e in expressions() if not any(r in e for r in rare)]
    asked = [e.replace('host=~".+"', 'host!=""') if 'smartcloudops_' in e else e for e in asked]
    if not Path('/proc/pressure/cpu').exists(): asked = [e for e in asked if 'pressure' not in e]
    if not any(not l.split()[2].startswith(('loop', 'ram')) for l in Path('/proc/diskstats').read_text().splitlines()):
        asked = [e for e in asked if 'node_disk' not in e]
    until(lambda: stack.query('rate(node_cpu_seconds_total[5m])') and stack.query('host:cpu_utilization_percent')
          and stack.query('smartcloudops_history_samples_total'), 60, 'two scrapes')
    left = list(asked)
    def answered():
        left[:] = [e for e in left if not stack.query(e)]
        return not left
    try: until(answered, 60)
    except AssertionError: raise AssertionError(f'without data: {left}') from None


def test_a_changed_target_is_scraped_without_restart_and_its_death_becomes_an_incident(stack):
    until(lambda: stack.query('up{job="smartcloudops"} == 1'), 90, 'our page')
    stack.start_node('second', stack.second)
    stack.write([f'127.0.0.1:{stack.node}', {'target': f'127.0.0.1:{stack.second}', 'labels': {'host': 'web-9'}}])
    until(lambda: stack.query('up{job="node",host="web-9"} == 1'), 40, 'the new target')
    stack.stop('second')
    opened = until(lambda: stack.incidents('open'), 60, 'rule, Alertmanager, webhook, incident')
    assert len(opened) == 1 and 'has not answered' in json.dumps(opened[0])
    stack.start_node('second', stack.second)
    until(lambda: not stack.incidents('open'), 60, 'resolved')
    assert len(stack.incidents('closed')) == 1


def test_the_webhook_wants_its_token(stack):
    until(lambda: stack.query('up{job="smartcloudops"} == 1'), 90, 'our page')
    url = f'http://127.0.0.1:{stack.page}/api/v1/alerts'
    assert httpx.post(url, json=dict(alerts=[]), timeout=10).status_code in (401, 403)
    assert httpx.post(url, json=dict(alerts=[]), headers=dict(Authorization='Bearer wrong'),
                      timeout=10).status_code in (401, 403)
    assert httpx.post(url, json=dict(alerts=[]), headers=dict(Authorization=f'Bearer {TOKEN}'), timeout=10).is_success
