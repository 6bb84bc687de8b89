"""Operations against real programs, a real receiver, and AWS by moto's server over real HTTP: sent once, and honest
about what is not known."""
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smartcloudops.core.aws import AwsClients
from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.settings import Settings
from smartcloudops.remediation.engine import Remediator, Tags, switch_path, turn_switch
from smartcloudops.remediation.operations import (
    AsgSetDesired,
    Command,
    Context,
    Ec2Reboot,
    Ec2StopStart,
    Operation,
    Report,
    ServiceRestart,
    Webhook,
    check_parameters,
    operations,
    register,
    sign,
)
from smartcloudops.remediation.policy import Policies, Step, read_policies
from tests.conftest import free_port
from tests.remediation_fleet import START, Always, anomaly, freshness, incident

pytestmark = pytest.mark.phase4
ALLOWED = Context(commands=('/bin/sh', '/bin/echo', '/bin/sleep', '/usr/bin/env', sys.executable))


def command(script, **more): return Command({'run': ['/bin/sh', '-c', script], **more}, 'web-1', ALLOWED)


@pytest.mark.parametrize('script, ok, says', [('exit 0', True, 'ended with exit code 0'),
                                              ('echo no room >&2; exit 3', False, 'ended with exit code 3: no room'),
                                              ('kill -9 $$', False, 'killed by signal 9'),
                                              ('kill -TERM $$', False, 'signal 15')])
def test_what_an_exit_means(script, ok, says):
    report = command(script).send()
    assert report.ok is ok and says in report.text


def test_a_hanging_command_and_its_children_are_killed_and_the_outcome_is_unknown(tmp_path):
    begin = time.monotonic()
    report = command(f'sleep 300 & echo $! > {tmp_path}/child; sleep 300', timeout='500ms').send()
    assert report.ok is None and 'not known' in report.text and time.monotonic() - begin < 10
    child = int((tmp_path/'child').read_text())
    time.sleep(.1)
    with pytest.raises(ProcessLookupError): os.kill(child, 0) if not _zombie(child) else (_
        for _ in ()).throw(ProcessLookupError)


def _zombie(pid):
    try: return open(f'/proc/{pid}/stat').read().split(')')[-1].split()[0] == 'Z'
    except FileNotFoundError: return False


def test_a_flood_of_output_is_cut_and_does_not_block():
    report = command('yes x | head -c 20000000; echo end').send()
    assert report.ok is True and len(report.detail['output']) == 65_536


def test_output_is_masked_and_the_environment_is_bare(monkeypatch):
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'geheim')
    report = Command({'run': ['/usr/bin/env']}, 'web-1', ALLOWED).send()
    assert 'geheim' not in report.detail['output'] and 'AWS' not in report.detail['output']
    assert 'hunter2' not in command('echo password=hunter2').send().detail['output']


@pytest.mark.parametrize('target', ['-rf', 'a b', 'a;b', '$(x)', '../x', '', 'a\nb', 'x' * 300])
def test_host_names_are_no_way_in(target):
    assert Command({'run': ['/bin/echo', '{target}']}, target, ALLOWED).check().ok is False
    assert ServiceRestart({'unit': 'a.service'}, target, ALLOWED).check().ok is False
    assert Webhook({'url': 'http://localhost/{target}'}, target).check().ok is False


def test_only_listed_programs_by_full_path():
    assert Command({'run': ['/bin/ls']}, 'web-1', ALLOWED).check().ok is False
    assert Command({'run': ['/bin/echo']}, 'web-1', Context()).check().ok is False
    assert [p for p, _ in check_parameters(Step(do='command', parameters={'run': ['sh', '-c', 'x']}))] == [('run',)]


@pytest.mark.parametrize('unit', ['-x', 'a b', 'a;reboot', '', '$(x)', 'a/b'])
def test_unit_names_are_checked(unit): assert check_parameters(Step(do='service_restart', parameters={'unit': unit}))


def test_service_restart_knows_whether_the_unit_exists():
    assert ServiceRestart({'unit': 'no-such-thing.service'}, 'vm', Context(own_host='vm')).check().ok is False
    assert '--host' in ServiceRestart({'unit': 'a.service'}, 'web-1', Context(own_host='vm')).argv(
        'restart'
    ) and '--host' not in ServiceRestart({'unit': 'a.service'}, 'vm', Context(own_host='vm')).argv('restart')


# webhook ----------------------------------------------------------------------------------------------------

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.server.got.append((self.path, dict(self.headers), body))
        if self.path == '/drop': self.connection.shutdown(socket.SHUT_RDWR); return
        if self.path == '/slow': time.sleep(2)
        if self.path.startswith('/endless'): return self.go_on(*{'/endless/drops': (b'.', .2),
                                                                 '/endless/flood': (b'x' * 65_536, 0)}[self.path])
        if self.path == '/elsewhere': self.send_response(307); self.send_header('Location', '/ok')
        else: self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
        self.send_header('Content-Length', '0'); self.end_headers()
    def go_on(self, part, pause):
        self.send_response(200); self.end_headers()
        try:
            while True: self.wfile.write(part); time.sleep(pause)
        except OSError: self.server.given_up.set()
    def log_message(self, *_): pass


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Receiver)
    server.got, server.given_up, server.url = [], threading.Event(), f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown(); server.server_close()


@pytest.mark.parametrize('path, ok', [('/ok', True), ('/204', True), ('/404', False), ('/500', None), ('/drop', None),
                                      ('/slow', None), ('/elsewhere', False)])
def test_webhook_is_sent_once_whatever_comes_back(receiver, path, ok):
    report = Webhook({'url': receiver.url + path, 'timeout': 1}, 'web-1', Context(key='k1')).send()
    time.sleep(.05)
    assert report.ok is ok and len(receiver.got) == 1 and receiver.got[0][1]['Idempotency-Key'] == 'k1'


@pytest.mark.parametrize('path', ['/endless/drops', '/endless/flood'])
def test_an_answer_without_an_end_is_neither_awaited_nor_kept(receiver, path):
    report = Webhook({'url': receiver.url + path, 'timeout': 1}, 'web-1').send()
    assert (report.ok and report.text == 'answered 200' and len(report.detail['output']) <= 2000
            and receiver.given_up.wait(10))


def test_webhook_signature(receiver, monkeypatch):
    hook = Webhook({'url': receiver.url + '/ok', 'secret_env': 'HOOK', 'body': {'a': 1}}, 'web-1', Context(key='k'))
    assert hook.check().ok is False
    monkeypatch.setenv('HOOK', 'sesame')
    assert hook.check().ok and hook.send().ok
    _, headers, body = receiver.got[0]
    assert headers['X-Smartcloudops-Signature'] == 'sha256=' + sign(
        body, 'sesame', headers['X-Smartcloudops-Time']
    ) and json.loads(body) == {'a': 1, 'key': 'k', 'target': 'web-1'}


def test_webhook_to_nobody_is_known_not_to_have_arrived():
    assert Webhook({'url': f'http://127.0.0.1:{free_port()}/'}, 'web-1').send().ok is False


def test_an_operation_of_ones_own_is_one_small_class():
    @register
    class Page(Operation):
        "Writes a line."
        name = 'write_line'
        def send(self): return Report(True, 'written')
    assert ('write_line' in operations()
            and read_policies('policies: [{name: a, match: {metric: m}, ladder: [{do: write_line}]}]').policies)


def test_an_installed_package_brings_its_operation(tmp_path):
    """A package with an entry point, on the path as pip puts it there, in a process of its own: policies may name it,
    the command line checks its fields, and a broken one is named."""
    site = tmp_path/'site'
    (site/'purge-1.0.dist-info').mkdir(parents=True)
    (site/'purge-1.0.dist-info/METADATA').write_text('Metadata-Version: 2.1\nName: purge\nVersion: 1.0\n')
    (site/'purge-1.0.dist-info/entry_points.txt').write_text('[smartcloudops.operations]\npurge_cache = purge:Purge\n')
    (site/'purge.py').write_text("""from smartcloudops.remediation import Operation, Report
from smartcloudops.remediation.policy import Strict

class Purge(Operation):
    "Empties a cache."
    name = 'purge_cache'
    class Parameters(Strict):
        path: str
    def send(self): return Report(True, f'{self.parameters.path} purged for {self.target}')
""")
    policy = (
        'policies: [{name: cache, match: {metric: disk_used_percent}, ladder: [{do: purge_cache, with: {path:'
        ' /tmp/x}}]}]'
    )
    (tmp_path/'good.yaml').write_text(policy); (tmp_path/'bad.yaml').write_text(policy.replace('path:', 'paht:'))
    run = lambda *a: subprocess.run([sys.executable, *a], env={**os.environ, 'PYTHONPATH': f'{site}:{os.getcwd()}'},
                                    cwd=tmp_path, capture_output=True, text=True)
    sent = run(
        '-c',
        "from smartcloudops.remediation import make_operation; from smartcloudops.remediation.policy import Step;"
        " print(make_operation(Step(do='purge_cache', parameters={'path': '/tmp/x'}), 'web-1').send().text)",
    )
    assert sent.stdout.strip() == '/tmp/x purged for web-1', sent.stderr
    good, bad = (run('-m', 'smartcloudops.cli', 'policy', 'check', name) for name in ('good.yaml', 'bad.yaml'))
    assert good.returncode == 0 and bad.returncode == 1 and "did you mean 'path'" in bad.stderr, (good.stderr,
        bad.stderr)
    drill = run('-m', 'smartcloudops.cli', 'backtest', '--policy', 'good.yaml', '--data', 'none.csv')
    assert drill.returncode == 1 and 'none.csv' in drill.stderr and 'Traceback' not in drill.stderr


# AWS --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def moto():
    pytest.importorskip('boto3')
    port = free_port()
    process = subprocess.Popen([sys.executable, '-m', 'moto.server', '-p', str(port)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    for _ in range(150):
        try: socket.create_connection(('127.0.0.1', port), .2).close(); break
        except OSError: time.sleep(.1)
    yield f'http://127.0.0.1:{port}'
    process.terminate(); process.wait()


@pytest.fixture
def aws(moto, monkeypatch):
    import httpx
    for k, v in dict(AWS_ACCESS_KEY_ID='test', AWS_SECRET_ACCESS_KEY='test',
                     AWS_DEFAULT_REGION='eu-west-1').items(): monkeypatch.setenv(k, v)
    httpx.post(moto + '/moto-api/reset')
    return AwsClients(Settings(aws={'endpoint_url': moto, 'regions': ['eu-west-1']}))


def an_instance(aws):
    "An instance that is opted in."
    ec2 = aws.write('ec2')
    image = ec2.describe_images()['Images'][0]['ImageId']
    tags = [{'ResourceType': 'instance', 'Tags': [{'Key': 'smartcloudops', 'Value': 'act'}]}]
    made = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    return made['Instances'][0]['InstanceId']


def context(aws, **more): return Context(clients=lambda: aws, **more)


def test_reboot_stop_start_and_desired(aws):
    id = an_instance(aws)
    reboot = Ec2Reboot({}, id, context(aws))
    assert reboot.check().ok and reboot.tags() == {'smartcloudops': 'act'} and reboot.send().ok
    cycle = Ec2StopStart({'poll': '50ms', 'timeout': 5}, id, context(aws))
    assert cycle.check().ok and cycle.send().ok and cycle.observe().ok
    assert aws.calls['ec2.RebootInstances'] == aws.calls['ec2.StopInstances'] == aws.calls['ec2.StartInstances'] == 1
    aws.write('ec2').stop_instances(InstanceIds=[id])
    assert reboot.check().ok is False and cycle.observe() == Report(False, f'{id} is stopped; a person has to start it')


def a_group(aws, size=1):
    asg = aws.write('autoscaling')
    asg.create_launch_configuration(LaunchConfigurationName='l',
                                    ImageId=aws.write('ec2').describe_images()['Images'][0]['ImageId'],
                                    InstanceType='t2.micro')
    asg.create_auto_scaling_group(AutoScalingGroupName='g', LaunchConfigurationName='l', MinSize=1, MaxSize=2,
                                  DesiredCapacity=size, AvailabilityZones=['eu-west-1a'],
                                  Tags=[{'Key': 'smartcloudops', 'Value': 'act', 'ResourceId': 'g',
                                         'ResourceType': 'auto-scaling-group', 'PropagateAtLaunch': False}])
    return asg


def test_group_members_are_not_stopped_and_sizes_stay_within_bounds(aws):
    asg = a_group(aws)
    member = asg.describe_auto_scaling_groups()['AutoScalingGroups'][0]['Instances'][0]['InstanceId']
    report = Ec2StopStart({}, member, context(aws)).check()
    assert report.ok is False and 'Auto Scaling group g' in report.text
    grow = AsgSetDesired({'group': 'g', 'add': 1}, member, context(aws))
    assert grow.tags() == {'smartcloudops': 'act'}
    report = grow.send()
    assert report.ok and report.detail == {'before': 1, 'wanted': 2}
    # 3 is above the maximum: refused here, moto would take it
    assert AsgSetDesired({'group': 'g', 'add': 1}, member, context(aws)).send().ok is False
    again = AsgSetDesired({'group': 'g'}, member, context(aws, extra=report.detail))
    assert (again.observe().ok and again.undo().ok
            and asg.describe_auto_scaling_groups()['AutoScalingGroups'][0]['DesiredCapacity'] == 1)
    assert AsgSetDesired({'group': 'none'}, member, context(aws)).check().ok is False


def test_a_size_that_somebody_else_has_set_meanwhile_is_left_as_it_is(aws):
    "The group's own scaling, or a person: taking ours back would end the instances that they added."
    asg = a_group(aws)
    asg.update_auto_scaling_group(AutoScalingGroupName='g', MaxSize=9)
    sent = AsgSetDesired({'group': 'g', 'add': 1}, 'web-1', context(aws)).send()
    asg.set_desired_capacity(AutoScalingGroupName='g', DesiredCapacity=6)
    report = AsgSetDesired({'group': 'g'}, 'web-1', context(aws, extra=sent.detail)).undo()
    assert report == Report(False, 'g is set to 6, wanted 2: left as it is')
    assert asg.describe_auto_scaling_groups()['AutoScalingGroups'][0]['DesiredCapacity'] == 6


def test_a_group_that_the_loop_runs_in_does_not_get_smaller(aws):
    "AWS chooses which instance ends: it might be the loop's own."
    asg = a_group(aws)
    sent = AsgSetDesired({'group': 'g', 'add': 1}, 'web-1', context(aws)).send()
    member = asg.describe_auto_scaling_groups()['AutoScalingGroups'][0]['Instances'][0]['InstanceId']
    shrink = lambda instance: AsgSetDesired({'group': 'g', 'add': -1}, 'web-1',
                                            context(aws, own_instance=instance, extra=sent.detail))
    for report in (shrink(member).check(), shrink(member).send(), shrink(member).undo()): assert report == Report(False,
        f'the loop runs on {member} of g, which AWS might end')
    assert asg.describe_auto_scaling_groups()['AutoScalingGroups'][0]['DesiredCapacity'] == 2
    assert shrink('i-0123456789abcdef0').check().ok and shrink('').undo().ok and AsgSetDesired({'group': 'g'}, 'web-1',
        context(aws, own_instance=member)).check().ok


def test_unknown_and_foreign_instances(aws):
    assert 'InvalidInstanceID' in Ec2Reboot({}, 'i-0123456789abcdef0', context(aws)).check().text
    assert 'not an EC2 instance id' in Ec2Reboot({}, 'web-1', context(aws)).check().text
    assert Ec2Reboot({}, 'i-0123456789abcdef0', context(aws)).tags() is None


def test_observe_calls_nothing_of_aws_that_changes_anything(aws, moto, tmp_path):
    "Invariant 14, at the wire: the same incident in mode observe, step after step; the server sees questions only."
    id = an_instance(aws)
    settings = Settings(data_dir=tmp_path, targets_file=tmp_path/'none',
                        aws={'endpoint_url': moto, 'regions': ['eu-west-1']})
    from smartcloudops.remediation.context import shared_aws_clients as _aws
    before = dict(_aws(settings).calls)
    with use_clock(FakeClock(START)) as clock:
        r = Remediator(open_state(tmp_path/'s.db'), settings,
                       read_policies(POLICY.replace('mode: auto', 'mode: observe')))
        turn_switch(r.ledger, switch_path(settings), True, 'x')
        for episode in range(3): r.step(clock.now(), [incident(id, episode=episode, anomalies=(anomaly(id),))],
                                        freshness([id, 'b', 'c'], clock.now()), Always(97)); clock.advance(1000)
        asked = _aws(settings).calls
    assert {a.state for a in r.ledger.actions()} == {'observed'} and all(call.split('.')[1].startswith('Describe')
                                                                         for call in asked
                                                                         if asked[call] > before.get(call, 0)), asked
    assert (
        aws.read('ec2').describe_instances(InstanceIds=[id])['Reservations'][0]['Instances'][0]['State']['Name']
        == 'running'
    )


def test_no_credentials_is_a_refusal(monkeypatch, moto):
    found = Ec2Reboot({}, 'i-0123456789abcdef0', context(AwsClients(Settings(aws={'endpoint_url': moto,
        'regions': ['eu-west-1']}))))
    assert found.check().ok is False and 'credentials' in found.check().text


class Broken(BaseHTTPRequestHandler):
    "Something like EC2 that counts and misbehaves."
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0))).decode()
        action = dict(p.split('=', 1) for p in body.split('&'))['Action']
        self.server.calls.append(action)
        how = self.server.how
        if how == 'drop': self.connection.shutdown(socket.SHUT_RDWR); return
        if how == 'slow': time.sleep(3); self.close_connection = True; return
        status, code = {'denied': (403, 'UnauthorizedOperation'), 'throttle': (503, 'RequestLimitExceeded'),
                        'throttle400': (400, 'Throttling'), '500': (500, 'InternalError'),
                        '503': (503, 'Unavailable')}[how]
        text = (
            f'<Response><Errors><Error><Code>{code}</Code><Message>no'
            ' password=hunter2</Message></Error></Errors><RequestID>1</RequestID></Response>'.encode()
        )
        self.send_response(status); self.send_header('Content-Length',
                                                     str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass


@pytest.mark.parametrize('how, ok, says', [('drop', None, 'may have happened'), ('slow', None, 'may have happened'),
                                           ('denied', False, 'needs the permission ec2:RebootInstances'),
                                           ('throttle', False, 'throttled'), ('throttle400', False, 'throttled'),
                                           ('500', None, 'InternalError'), ('503', None, 'Unavailable')])
def test_at_most_one_reboot_arrives_whatever_the_network_does(monkeypatch, how, ok, says):
    for k, v in dict(AWS_ACCESS_KEY_ID='test', AWS_SECRET_ACCESS_KEY='test').items(): monkeypatch.setenv(k, v)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Broken)
    server.calls, server.how = [], how
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        clients = AwsClients(Settings(aws={'endpoint_url': f'http://127.0.0.1:{server.server_port}',
                                           'regions': ['eu-west-1']}))
        client = clients.write('ec2')
        client.meta.config.__dict__['read_timeout'] = 1
        client._endpoint.http_session._timeout = __import__('urllib3').Timeout(connect=1, read=1)
        report = Ec2Reboot({}, 'i-0123456789abcdef0', context(clients)).send()
        time.sleep(.2)
        assert (server.calls == ['RebootInstances'] and report.ok is ok and says in report.text
                and 'hunter2' not in report.text)
    finally: server.shutdown(); server.server_close()


def test_an_unreachable_endpoint_is_known_not_to_have_happened(monkeypatch):
    for k, v in dict(AWS_ACCESS_KEY_ID='test', AWS_SECRET_ACCESS_KEY='test').items(): monkeypatch.setenv(k, v)
    clients = AwsClients(Settings(aws={'endpoint_url': f'http://127.0.0.1:{free_port()}', 'regions': ['eu-west-1']}))
    assert Ec2Reboot({}, 'i-0123456789abcdef0', context(clients)).send().ok is False


POLICY = (
    'policies: [{name: web, match: {metric: cpu_utilization_percent}, mode: auto, ladder: [{do: ec2_reboot}], verify:'
    ' {back_for: 60 s, within: 5 min}}]'
)


def test_the_whole_way_on_aws_with_the_tag_read_live(aws, moto, tmp_path):
    "A tagged instance is rebooted once; when the tag is gone at the moment of the send, it is not."
    id = an_instance(aws)
    settings = Settings(data_dir=tmp_path, targets_file=tmp_path/'none',
                        aws={'endpoint_url': moto, 'regions': ['eu-west-1']}, remediation={'cooldown_seconds': 1})
    with use_clock(FakeClock(START)) as clock:
        r = Remediator(open_state(tmp_path/'s.db'), settings,
                       read_policies(POLICY.replace('mode: auto', 'mode: approve')))
        turn_switch(r.ledger, switch_path(settings), True, 'x')
        def step(episode): return r.step(clock.now(), [incident(id, episode=episode, anomalies=(anomaly(id),))],
                                         freshness([id, 'b', 'c'], clock.now()), Always(97))
        assert [o.state for o in step(1)] == ['awaiting_approval']
        aws.write('ec2').create_tags(Resources=[id], Tags=[{'Key': 'smartcloudops', 'Value': 'no'}])
        r.ledger.approve(1, 'oncall'); clock.advance(15)
        out = step(1)
        assert (out[0].state, out[0].gate) == ('refused', 'opt-in')
        aws.write('ec2').create_tags(Resources=[id], Tags=[{'Key': 'smartcloudops', 'Value': 'act'}])
        clock.advance(120); step(2)
        r.ledger.approve(r.ledger.actions(['awaiting_approval'])[0].id, 'oncall'); clock.advance(15)
        assert [o.state for o in step(2)] == ['sent', 'verifying']


def test_inventory_labels_carry_the_tag_too(tmp_path):
    (tmp_path/'t.json').write_text(json.dumps({'node_exporter': [{'target': 'web-1:9100',
                                                                  'labels': {'smartcloudops': 'act'}}, 'web-2:9100']}))
    tags = Tags(Settings(targets_file=tmp_path/'t.json'))
    assert (
        tags.of('web-1', Policies()) == {'smartcloudops': 'act'}
        and tags.of('web-2', Policies()) == {}
        and tags.of('web-2', Policies(opt_in=['web-2'])) == {'smartcloudops': 'act'}
    )
