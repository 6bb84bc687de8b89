"""aws_targets.json becomes what Prometheus reads: by library and by the bare script, the same bytes, checked by
promtool and amtool."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from smartcloudops.core.errors import ConfigError
from smartcloudops.core.inventory import read_targets
from smartcloudops.core.settings import load_settings
from smartcloudops.monitoring import prometheus_config as config
from smartcloudops.monitoring.targets import check_targets, write_targets

pytestmark = pytest.mark.phase6
ROOT = Path(__file__).parent.parent
SCRIPT = ROOT/'infra/scripts/prometheus_config.py'
FLEET = {'app': ['web-1:5000', '10.0.0.5:80', {'target': 'web-2:5000', 'labels': {'tier': 'shop', 'host': 'web-2'}}],
         'node_exporter': ['[2001:db8::1]:9100', 'web-1.example.com:9100']}


def targets_file(folder: Path, data=FLEET) -> Path:
    path = folder/'aws_targets.json'
    path.write_text(data if isinstance(data, str) else json.dumps(data, indent=2), encoding='utf-8')
    return path


def script(*args, python=sys.executable, cwd=None):
    return subprocess.run([python, '-I', str(SCRIPT), *map(str, args)], capture_output=True, text=True, cwd=cwd)


def test_file_sd_has_one_group_a_job_then_the_labelled_ones(tmp_path):
    write_targets(load_settings(targets_file=targets_file(tmp_path)), tmp_path/'infra')
    groups = json.loads((tmp_path/'infra/prometheus/file_sd/app-and-node.json').read_text())
    assert groups == [{'targets': ['web-1:5000', '10.0.0.5:80'], 'labels': {'job': 'app'}},
                      {'targets': ['[2001:db8::1]:9100', 'web-1.example.com:9100'], 'labels': {'job': 'node'}},
                      {'targets': ['web-2:5000'], 'labels': {'job': 'app', 'host': 'web-2', 'tier': 'shop'}}]


def test_the_script_writes_the_same_bytes_with_the_standard_library_alone(tmp_path):
    path = targets_file(tmp_path)
    write_targets(load_settings(targets_file=path), tmp_path/'library')
    done = script('--targets', path, '--out', tmp_path/'script')
    assert done.returncode == 0, done.stderr
    written = {p.relative_to(tmp_path/'script'): p.read_bytes() for p in (tmp_path/'script').rglob('*') if p.is_file()}
    assert len(written) == 4
    assert written == {p: (tmp_path/'library'/p).read_bytes() for p in written}
    assert script('--targets', path, '--out', tmp_path/'script').stdout == ''
    assert script('--targets', path, '--out', tmp_path/'library', '--check').returncode == 0


def test_the_script_is_the_module(tmp_path):
    module = (ROOT/'smartcloudops/monitoring/prometheus_config.py').read_text()
    assert ([l for l in SCRIPT.read_text().splitlines() if not l.startswith('# %%')]
            == [l for l in module.splitlines() if not l.startswith('# %%')])


def test_what_is_committed_is_what_would_be_written():
    done = script('--check', cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unchanged_files_keep_their_date_and_check_shows_the_difference(tmp_path):
    path = targets_file(tmp_path)
    settings = load_settings(targets_file=path)
    assert all(write_targets(settings, tmp_path/'infra').values())
    file = tmp_path/'infra/prometheus/file_sd/app-and-node.json'
    os.utime(file, (1, 1))
    assert not any(write_targets(settings, tmp_path/'infra').values()) and file.stat().st_mtime == 1
    assert check_targets(settings, tmp_path/'infra') == {}
    targets_file(tmp_path, {'app': ['web-9:5000']})
    differing = check_targets(settings, tmp_path/'infra')
    assert list(differing) == [str(file)] and '+      "web-9:5000"' in differing[str(file)]


@pytest.mark.parametrize('data, said', [
    ('{"app": ["web-1:80",]}', 'line 1, column'), ('[]', 'expected an object'), ('{"apps": []}', "unknown key 'apps'"),
    ({'app': 'web-1:80'}, 'has to be a list'), ({'app': ['web-1']}, 'is not an address'),
    ({'app': ['web-1:0']}, 'outside 1–65535'),
    ({'app': ['10.0.0.256:80']}, 'neither an IP address nor a DNS name'), ({'app': ['[::g]:80']}, 'neither an IP'),
    ({'app': ['-x:80']}, 'neither an IP'),
    ({'app': [{'target': 'a:1', 'label': {}}]}, "unknown key 'label'"),
    ({'app': [{'target': 'a:1', 'labels': {'0x': 'y'}}]}, 'is not a label name'),
    ({'app': [{'target': 'a:1', 'labels': {'x': 1}}]}, 'has to be text'),
    ({'app': ['a:1', 'a:1']}, 'stands there twice'), ({'app': [5]}, 'is not an address'),
])
def test_wrong_targets_are_refused_by_both_with_file_and_entry(tmp_path, data, said):
    path = targets_file(tmp_path, data)
    with pytest.raises(ConfigError, match='aws_targets.json') as library:
        write_targets(load_settings(targets_file=path), tmp_path/'infra')
    alone = script('--targets', path, '--out', tmp_path/'infra')
    assert said in str(library.value) and said in alone.stderr and alone.returncode == 1
    assert 'Traceback' not in alone.stderr and not (tmp_path/'infra').exists()


def test_missing_and_non_utf8_targets(tmp_path):
    (tmp_path/'latin.json').write_bytes(b'{"app": ["\xe9:80"]}')
    for path in (tmp_path/'nowhere.json', tmp_path/'latin.json'):
        done = script('--targets', path, '--out', tmp_path/'infra')
        assert done.returncode == 1 and path.name in done.stderr and 'Traceback' not in done.stderr
        with pytest.raises(ConfigError, match=path.name):
            write_targets(load_settings(targets_file=path), tmp_path/'infra')


names = st.from_regex(r'[a-z][a-z0-9]{0,10}(\.[a-z]{2,5})?', fullmatch=True)
addresses = st.builds('{}:{}'.format,
                      st.one_of(names, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map('[{}]'.format)),
                      st.integers(1, 65535))


@hypothesis_settings(max_examples=50)
@given(st.lists(addresses, unique=True), st.lists(addresses, unique=True))
def test_every_plain_address_is_found_again_in_order(app, node):
    groups = json.loads(config.file_sd(config.parse_targets(json.dumps({'app': app, 'node_exporter': node}))))
    assert ({g['labels']['job']: g['targets'] for g in groups}
            == {job: t for job, t in (('app', app), ('node', node)) if t})


@pytest.mark.skipif(not shutil.which('promtool'), reason='Debian package prometheus')
def test_promtool_and_amtool_accept_all_of_it(tmp_path):
    settings = load_settings(targets_file=targets_file(tmp_path),
                             prometheus=dict(remote_write='http://127.0.0.1:8428/api/v1/write', scrape_interval='5s'))
    write_targets(settings, tmp_path)
    for command in (['promtool', 'check', 'config', 'prometheus.yml'],
                    ['promtool', 'check', 'rules', 'rules/smartcloudops.yml'],
                    ['amtool', 'check-config', 'alertmanager.yml']):
        done = subprocess.run(command, cwd=tmp_path/'prometheus', capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_discovery_keeps_what_people_wrote_and_refreshes_its_own(tmp_path, monkeypatch):
    import boto3
    from botocore.config import Config
    from moto import mock_aws

    from smartcloudops.core.errors import AwsError
    from smartcloudops.monitoring.targets import discover
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'): monkeypatch.setenv(name, 'testing')
    hand = {'_comment': 'kept', 'app': ['web-1:5000', {'target': 'web-2:5000', 'labels': {'tier': 'shop'}}],
            'node_exporter': []}
    path = targets_file(tmp_path, hand)
    with mock_aws():
        ec2 = boto3.client('ec2', region_name='eu-west-1')
        ids = [i['InstanceId'] for i in ec2.run_instances(ImageId='ami-12c6146b', MinCount=3, MaxCount=3)['Instances']]
        first = discover(path, ec2)
        data = json.loads(path.read_text())
        assert (len(first.added), first.removed, first.kept, first.changed) == (6, (), 2, True)
        assert data['_comment'] == 'kept' and data['app'][:2] == hand['app']
        assert {e['labels']['host'] for e in data['node_exporter']} == set(ids)
        assert not discover(path, ec2).changed
        ec2.terminate_instances(InstanceIds=ids[:1])
        second = discover(path, ec2, ports={'node_exporter': 9100})
        assert len(second.removed) == 1 and second.added == ()
        assert discover(tmp_path/'new.json', ec2).changed
        assert len(json.loads((tmp_path/'new.json').read_text())['app']) == 2
    before = path.read_bytes()
    unreachable = boto3.client('ec2', region_name='eu-west-1', endpoint_url='http://127.0.0.1:9',
                               config=Config(retries=dict(total_max_attempts=1)))
    with pytest.raises(AwsError, match='left as it is'): discover(path, unreachable)
    assert path.read_bytes() == before
    targets_file(tmp_path, '{"app": [')
    with pytest.raises(ConfigError, match='aws_targets.json'): discover(path, unreachable)


def test_addresses_follow_from_the_settings():
    from smartcloudops.monitoring.targets import options
    given = options(load_settings(dashboard=dict(host='::1', prefix='ops/'),
                                  prometheus=dict(url='https://me:secret@prom.example.com/sub')))
    assert ((given['metrics'], given['webhook'], given['prometheus'])
            == ('[::1]:5000', 'http://[::1]:5000/ops/api/v1/alerts', 'prom.example.com'))


class OneRegion:
    "EC2 as `discover` asks it."
    def __init__(self, *instances):
        self.instances = [dict(InstanceId=id, PrivateIpAddress=ip, Placement=dict(AvailabilityZone='eu-west-1a'))
                          for id, ip in instances]
    def get_paginator(self, _): return self
    def paginate(self, **_): return [dict(Reservations=[dict(Instances=self.instances)])]


def test_an_address_that_another_instance_got_carries_its_id(tmp_path):
    from smartcloudops.monitoring.targets import discover
    path = tmp_path/'targets.json'
    discover(path, OneRegion(('i-old', '10.0.0.5')))
    assert discover(path, OneRegion(('i-new', '10.0.0.5'))).changed
    assert {t.labels['host'] for t in read_targets(path).targets} == {'i-new'}
    with pytest.raises(ConfigError, match='10.0.0.5:5000 stands there twice'):
        discover(path, [OneRegion(('i-new', '10.0.0.5')), OneRegion(('i-other', '10.0.0.5'))])


def test_dashboards_are_deterministic_and_well_formed(tmp_path):
    write_targets(load_settings(targets_file=targets_file(tmp_path)), tmp_path)
    boards = {p.name: json.loads(p.read_text()) for p in (tmp_path/'grafana/dashboards').glob('*.json')}
    assert set(boards) == {'fleet.json', 'host.json', 'loop.json'} and len({b['uid'] for b in boards.values()}) == 3
    for board in boards.values():
        assert board['title'] and board['editable'] is False and board['schemaVersion'] >= 36
        places = [p['gridPos'] for p in board['panels']]
        assert all(0 <= g['x'] and g['x'] + g['w'] <= 24 for g in places)
        assert len({(g['x'], g['y']) for g in places}) == len(places)
        assert all(t['expr'] and t['datasource']['uid'] == 'smartcloudops-prometheus' for p in board['panels']
                   for t in p['targets'])
    assert {p: (ROOT/'infra'/p).read_text()
            for p in ('grafana/dashboards/fleet.json', 'grafana/dashboards/host.json',
                      'grafana/dashboards/loop.json')} == \
           {f'grafana/dashboards/{n}': (tmp_path/'grafana/dashboards'/n).read_text() for n in boards}
