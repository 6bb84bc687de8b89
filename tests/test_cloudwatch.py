"CloudWatch over real HTTP: moto's server where it tells the truth, an own small endpoint for the rest."
import json
import re
from pathlib import Path

import httpx
import pandas as pd
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from smartcloudops.core import aws as core_aws
from smartcloudops.core.aws import TokenBucket, aws_clients, explain
from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.errors import AwsError, ConfigError
from smartcloudops.core.frames import validate
from smartcloudops.core.settings import Settings, load_settings
from smartcloudops.ingestion import fetch_metrics, make_source
from smartcloudops.ingestion.cloudwatch import CloudWatchSource
from smartcloudops.ingestion.cloudwatch_data import Lags, Rows
from smartcloudops.ingestion.cloudwatch_queries import Query, instances
from smartcloudops.ingestion.cloudwatch_settings import PRESETS, Watched, affordable_interval, cost_per_month
from tests.conftest import free_port
from tests.fake_cloudwatch import FakeCloudWatch, metric, refusal, serving

pytestmark = pytest.mark.phase6
T0 = pd.Timestamp('2026-03-02 12:00:00Z')


@pytest.fixture
def credentials(monkeypatch):
    core_aws._buckets.clear()
    for name, value in dict(AWS_ACCESS_KEY_ID='testing', AWS_SECRET_ACCESS_KEY='testing',
                            AWS_DEFAULT_REGION='eu-west-1').items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def one_attempt(monkeypatch): monkeypatch.setattr(core_aws, 'READ_RETRIES', core_aws.WRITE_RETRIES)


@pytest.fixture(scope='module')
def moto_server():
    import logging

    from moto.server import ThreadedMotoServer
    logging.getLogger('werkzeug').setLevel('ERROR')
    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()
    yield 'http://{}:{}'.format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def moto(credentials, monkeypatch, moto_server):
    httpx.post(moto_server + '/moto-api/reset')
    monkeypatch.setenv('AWS_ENDPOINT_URL', moto_server)
    return aws_clients()


def source_for(url, regions=('eu-west-1',), **cloudwatch):
    cloudwatch = dict(presets=[], period=60) | cloudwatch
    return CloudWatchSource(Settings(aws=dict(endpoint_url=url, regions=list(regions), cloudwatch=cloudwatch)))


QUEUE = dict(namespace='AWS/SQS', metric='Depth', host='QueueName', name='queue_messages')
def queues(n, name='Depth'): return [metric('AWS/SQS', name, QueueName=f'q{i:04}') for i in range(n)]


def run(source, start, minutes, each=lambda now: None):
    "Read once a minute; the frames put together as history would, the last word wins."
    frames = []
    with use_clock(FakeClock(start)) as fake:
        for _ in range(minutes):
            each(fake.now())
            try: frames.append(source.read(fake.now()))
            except AwsError: pass
            fake.advance(60)
    for f in frames: validate(f)
    tidy = pd.concat([f.stack().dropna() for f in frames if len(f)])
    return frames, tidy[~tidy.index.duplicated(keep='last')].unstack().sort_index()


# ---- size, pages, limits

def test_5000_metrics_in_ten_calls(credentials):
    fake = FakeCloudWatch(queues(5000), value=lambda m, t: float(t % 3600))
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE], reread_minutes=5)
        frame = source.read(T0)
    assert len(source.queries) == 5000 and fake.calls['GetMetricData'] == 10
    assert frame.shape == (5, 5000) and not frame.isna().any().any()
    assert source.meter.asked['eu-west-1'] == 5000 and source.clients.calls['cloudwatch.GetMetricData'] == 10
    assert source.meter.usd == pytest.approx(.05)


@pytest.mark.parametrize('page', [1, 7, 100])
def test_pages_are_followed(credentials, page):
    fake = FakeCloudWatch(queues(3), value=lambda m, t: float(t), page=page)
    with serving(fake) as url: frame = source_for(url, metrics=[QUEUE], reread_minutes=10).read(T0)
    assert frame.shape == (10, 3) and fake.calls['GetMetricData'] == -(-30 // page)
    assert (frame.to_numpy() == (frame.index.as_unit('s').asi8[:, None])).all()


def test_windows_are_aligned_and_in_limits(credentials):
    fake = FakeCloudWatch(queues(60))
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE], period=300)
        with use_clock(FakeClock(T0 + pd.Timedelta('137s'))) as clock:
            source.read(clock.now())
            list(source.backfill(T0 - pd.Timedelta('3D'), chunk='2D'))
    for r in fake.requests:
        assert r['StartTime'] % 300 == 0 and r['EndTime'] % 300 == 0 and r['EndTime'] <= T0.timestamp()


def test_a_clock_that_is_put_back_is_followed(credentials):
    "Reads under a time two hours ahead, then under the true one: rows come again at once, and the true ones are whole."
    fake = FakeCloudWatch(queues(3), value=lambda m, t: float(t) if t < T0.timestamp() + 1200 else None)
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE], reread_minutes=5)
        with use_clock(FakeClock(T0 + pd.Timedelta('2h'))) as clock:
            for _ in range(3): source.read(clock.now()); clock.advance(60)
        _, got = run(source, T0, 15)
    inside = got.loc[T0:T0 + pd.Timedelta('10min')]
    assert len(inside) >= 10 and not inside.isna().any().any()


# ---- throttling, errors

def test_no_gap_after_throttling(credentials, one_attempt):
    fake = FakeCloudWatch(queues(600), value=lambda m, t: float(t),
                          fail=lambda op, n, region: refusal('ThrottlingException') if op == 'GetMetricData' and n % 2
                          else None)
    with serving(fake) as url: _, got = run(source_for(url, metrics=[QUEUE], reread_minutes=0), T0, 12)
    values = got.to_numpy()
    assert values.shape[1] == 600
    inside = got.loc[T0:T0 + pd.Timedelta('8min')]
    assert not inside.isna().any().any() and (inside.to_numpy() == inside.index.as_unit('s').asi8[:, None]).all()


def test_retries_hide_a_hiccup(credentials):
    fake = FakeCloudWatch(queues(2),
                          fail=lambda op, n, region: (503, b'') if op == 'GetMetricData' and n == 1 else None)
    with serving(fake) as url: assert source_for(url, metrics=[QUEUE]).read(T0).shape == (30, 2)
    assert fake.calls['GetMetricData'] == 2


@pytest.mark.parametrize('broken',
                         [(200, b'{"MetricDataResults": [{"Id": '), (200, b'<html>'), (500, b''),
                          refusal('InternalServiceFault', 500)])
def test_a_broken_reply_is_a_note_not_a_crash(credentials, one_attempt, broken):
    fake = FakeCloudWatch(queues(2), fail=lambda op, n, region: broken if op == 'GetMetricData' and n == 1 else None)
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE])
        with pytest.raises(AwsError): source.read(T0)
        assert 'eu-west-1 AWS/SQS' in source.problems
        assert len(source.read(T0 + pd.Timedelta('1min'))) and not source.problems


def test_one_region_down_leaves_the_other(credentials, one_attempt, caplog):
    fake = FakeCloudWatch(queues(2),
                          fail=lambda op, n, region: refusal('AccessDeniedException') if region == 'us-east-1'
                          else None)
    with serving(fake) as url:
        source = source_for(url, regions=['eu-west-1', 'us-east-1'], metrics=[QUEUE])
        frame = source.read(T0)
    assert (list(frame)
            == ['queue_messages{host="q0000",region="eu-west-1"}', 'queue_messages{host="q0001",region="eu-west-1"}'])
    assert any('us-east-1' in where and 'infra/deploy/iam' in what for where, what in source.problems.items())
    assert not any('eu-west-1' in where for where in source.problems)
    assert source.status()['problems'] == source.problems


def test_one_namespace_refused_leaves_the_other(credentials, one_attempt):
    rds = metric('AWS/RDS', 'CPUUtilization', DBInstanceIdentifier='db-1')
    fake = FakeCloudWatch(queues(1) + [rds])
    with serving(fake) as url:
        fake.ListMetrics, real = ((lambda body: real(body) if body['Namespace'] == 'AWS/RDS' else _refuse()),
                                  fake.ListMetrics)
        source = source_for(url, metrics=[QUEUE], presets=['rds'])
        frame = source.read(T0)
    assert list(frame) == ['cpu_utilization_percent{host="db-1"}'] and list(source.problems) == ['eu-west-1 AWS/SQS']


def _refuse():
    from tests.fake_cloudwatch import Refused
    raise Refused('AccessDenied')


def test_all_regions_down_is_an_error(credentials, one_attempt):
    fake = FakeCloudWatch(fail=lambda *_: refusal('ExpiredTokenException'))
    with serving(fake) as url, pytest.raises(AwsError, match='log in again'): source_for(url, metrics=[QUEUE]).read(T0)


def test_an_invalid_query_is_isolated(credentials):
    fake = FakeCloudWatch(queues(40) + queues(1, 'Odd'), invalid={'Odd'})
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE, dict(QUEUE, metric='Odd', name='odd')])
        frame = source.read(T0)
    assert frame.shape[1] == 40 and list(source.problems) == ['eu-west-1 odd{host="q0000"}']


# ---- late, changed, missing

def test_late_and_changed_values_arrive(credentials):
    clock = {}
    special, changing = int(T0.timestamp()) + 600, int(T0.timestamp()) + 900
    def value(m, t):
        age = clock['now'] - t - 60
        if t == special: return 42. if age >= 900 else None                   # 15 minutes late
        if t == changing: return 1. if age < 300 else 2.                      # corrected after 5 minutes
        return float(t) if age >= 0 else None
    with serving(FakeCloudWatch(queues(2), value=value)) as url:
        frames, got = run(source_for(url, metrics=[QUEUE]), T0, 40, lambda now: clock.update(now=now.timestamp()))
    assert got.loc[pd.Timestamp(special, unit='s', tz='UTC')].eq(42.).all()
    assert got.loc[pd.Timestamp(changing, unit='s', tz='UTC')].eq(2.).all()
    # nothing is handed on twice but the correction
    assert sum(f.notna().sum().sum() for f in frames) == got.notna().sum().sum() + 2


def test_zero_only_for_event_counts(credentials):
    fake = FakeCloudWatch(queues(1) + queues(1, 'Errors') + queues(1, 'Sent'),
                          value=lambda m, t: 30. if t % 600 == 0 else None)
    with serving(fake) as url:
        source = source_for(url,
                            metrics=[QUEUE,
                                     dict(QUEUE, metric='Errors', stat='Sum', name='errors_per_second', count=True),
                                     dict(QUEUE, metric='Sent', stat='Sum', name='sent_per_period')])
        frame = source.read(T0)
    by = {c.split('{')[0]: frame[c] for c in frame}
    assert by['queue_messages'].dropna().eq(30).all() and by['queue_messages'].isna().any()
    assert by['sent_per_period'].dropna().eq(30).all() and by['sent_per_period'].isna().any()
    settled = by['errors_per_second'].loc[:T0 - pd.Timedelta('6min')]
    assert not settled.isna().any() and set(settled) == {0., .5}


def test_a_fresh_row_waits_for_its_neighbours_but_not_for_ever(credentials):
    clock = {}
    def value(m, t):
        slow = m['Dimensions'][0]['Value'] == 'q0001'
        return float(t) if clock['now'] >= t + 60 + 180*slow else None
    with serving(FakeCloudWatch(queues(2), value=value)) as url:
        frames, _ = run(source_for(url, metrics=[QUEUE]), T0, 15, lambda now: clock.update(now=now.timestamp()))
    steady = [f for f in frames[5:] if len(f)]
    assert steady and all(f.notna().all().all() for f in steady)              # whole rows
    with serving(FakeCloudWatch(queues(2),
                                value=lambda m, t: value(m, t) if t < T0.timestamp() + 600
                                or m['Dimensions'][0]['Value'] == 'q0000' else None)) as url:
        frames, got = run(source_for(url, metrics=[QUEUE]), T0, 25, lambda now: clock.update(now=now.timestamp()))
    # the one that died holds nobody up
    assert got['queue_messages{host="q0000"}'].index.max() >= T0 + pd.Timedelta('22min')


@given(delays=st.lists(st.integers(0, 20), min_size=20, max_size=60), reads=st.integers(1, 4))
@hypothesis_settings(max_examples=15)
def test_rows_lose_nothing_and_keep_order(delays, reads):
    w = Watched(namespace='N', metric='M', host='H', period=60)
    qs = [Query('r', w, (), f'm{{host="{h}"}}') for h in 'ab']
    samples = sorted((t*60 + 60*d, qs[(t + d) % 2], t*60, float(t)) for t, d in enumerate(delays))
    rows, handed = Rows(Lags(before=120)), []
    for now in range(0, 60*(len(delays) + 22), 60*reads):
        rows.add([(q, t, v) for at, q, t, v in samples if now - 60*reads < at <= now])
        handed.append(rows.ready(now))
    handed.append(rows.ready(0, everything=True))
    together = pd.concat([f.stack().dropna() for f in handed if len(f)])
    assert ({(int(t.timestamp()), s): v for (t, s), v in together.items()}
            == {(t, q.series): v for _, q, t, v in samples})
    assert len(together) == len(samples)
    for f in handed: assert f.index.is_monotonic_increasing


# ---- cost

@given(n=st.integers(1, 10**6), interval=st.floats(60, 3600), budget=st.floats(.01, 1e5))
def test_the_budget_is_kept(n, interval, budget):
    stretched = affordable_interval(n, interval, budget)
    assert stretched >= interval and cost_per_month(n, stretched) <= budget*(1 + 1e-9)


def test_budget_stretches_and_everything_is_counted(credentials):
    fake = FakeCloudWatch(queues(100))
    with serving(fake) as url:
        source = source_for(url, metrics=[QUEUE], budget_usd=10)
        _, got = run(source, T0, 60)
    assert source.interval == 300 and cost_per_month(100, 60) == pytest.approx(43.2)
    assert len(fake.requests) == 12
    assert source.meter.asked['eu-west-1'] == sum(len(r['MetricDataQueries']) for r in fake.requests) == 1200
    assert len(got) >= 80 and not got.isna().any().any()                         # a slower read loses no minute
    assert source.status()['usd_per_month'] <= 10


def test_token_bucket_is_one_for_account_and_region(credentials):
    clients = aws_clients()
    assert core_aws.bucket(clients, 'eu-west-1') is core_aws.bucket(aws_clients(),
                                                                    'eu-west-1') is not core_aws.bucket(clients,
                                                                                                        'us-east-1')
    with use_clock(FakeClock()) as clock:
        few, start = TokenBucket(10, 10), clock.monotonic()
        for _ in range(110): few.take()
        assert clock.monotonic() - start == pytest.approx(10)


# ---- backfill

def test_backfill_and_resume(credentials):
    fake = FakeCloudWatch(queues(3), value=lambda m, t: float(t))
    with serving(fake) as url, use_clock(FakeClock(T0)):
        first = list(source_for(url, metrics=[QUEUE]).backfill(T0 - pd.Timedelta('30h'), chunk='10h'))
        again = source_for(url, metrics=[QUEUE])
        rest = list(again.backfill(first[0].end, chunk='10h'))
        asked = sum(again.meter.asked.values())
    whole, resumed = pd.concat([c.frame for c in first]), pd.concat([first[0].frame, *(c.frame for c in rest)])
    pd.testing.assert_frame_equal(whole, resumed)
    assert len(whole) == 30*60 and first[-1].done == 1 and asked == 2*3


def test_backfill_beyond_15_days_is_coarser(credentials):
    fake = FakeCloudWatch(queues(1), value=lambda m, t: 1.)
    with serving(fake) as url, use_clock(FakeClock(T0)):
        list(source_for(url, metrics=[QUEUE]).backfill(T0 - pd.Timedelta('16D'), chunk='2D'))
    assert {r['MetricDataQueries'][0]['MetricStat']['Period'] for r in fake.requests} == {60, 300}


# ---- settings

@pytest.mark.parametrize('table,message', [
    (dict(presets=['ec3']), "unknown preset 'ec3'; did you mean 'ec2'"), (dict(period=90), 'period'),
    (dict(budget=3), 'aws.cloudwatch.budget'),
    (dict(metrics=[dict(QUEUE, stat='Sum', name='sent_total')]), '_per_second or …_per_period'),
    (dict(metrics=[dict(QUEUE, period=61)]), 'multiples of 60'),
])
def test_settings_are_checked(credentials, table, message):
    with pytest.raises(ConfigError, match=message): make_source('cloudwatch', Settings(aws=dict(cloudwatch=table)))


def test_credentials_and_region_are_asked_for_at_once(monkeypatch):
    with pytest.raises(AwsError, match='no AWS credentials found; set'): make_source('cloudwatch', Settings())
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'x'); monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'x')
    with pytest.raises(AwsError, match='no AWS region'): make_source('cloudwatch', Settings())


def test_no_preset_sums_into_a_counter():
    for w in (w for ws in PRESETS.values() for w in ws):
        assert not w.name.endswith('_total') and (w.stat != 'Sum' or w.name.endswith(('_per_second', '_per_period')))


# ---- moto

def test_moto_end_to_end(moto, tmp_path):
    ec2, cloudwatch = moto.write('ec2'), moto.write('cloudwatch')
    image = 'ami-12c6146b'
    ids = [i['InstanceId'] for i in ec2.run_instances(ImageId=image, MinCount=3, MaxCount=3)['Instances']]
    ec2.create_tags(Resources=ids[:2], Tags=[dict(Key='env', Value='prod'), dict(Key='Name', Value='web')])
    now = pd.Timestamp.now(tz='UTC').floor('5min')
    def put(namespace, name, id, value, **extra):
        cloudwatch.put_metric_data(Namespace=namespace,
                                   MetricData=[dict(MetricName=name,
                                                    Timestamp=(now - pd.Timedelta(minutes=5*n)).to_pydatetime(),
                                                    Value=value,
            Dimensions=[dict(Name=k, Value=v) for k, v in dict(extra, InstanceId=id).items()]) for n in (1, 2, 3)])
    for n, id in enumerate(ids):
        put('AWS/EC2', 'CPUUtilization', id, 10. + n); put('CWAgent', 'mem_used_percent', id, 50. + n, ImageId=image)
    put('CWAgent', 'disk_used_percent', ids[0], 70., path='/', device='xvda1', fstype='ext4')
    put('CWAgent', 'disk_used_percent', ids[0], 1., path='/run', device='tmpfs', fstype='tmpfs')
    put('AWS/EC2', 'NetworkIn', ids[0], 3000.)

    everyone = CloudWatchSource(Settings()).read(now)
    # the untagged one too
    assert {f'cpu_utilization_percent{{host="{i}"}}' for i in ids} <= set(everyone)
    assert everyone[f'network_receive_bytes_per_second{{host="{ids[0]}"}}'].dropna().eq(10.).all()    # a Sum over 300 s
    assert list(everyone.filter(like='disk_used')) == [f'disk_used_percent{{host="{ids[0]}",mount="/"}}']

    prod = CloudWatchSource(Settings(aws=dict(cloudwatch=dict(tags={'env': 'prod'}))))
    assert {c.split('host="')[1].split('"')[0] for c in prod.read(now)} == set(ids[:2])
    assert {i.name for i in prod.discovery.instances} == {'web'} and not prod.problems

    (tmp_path / 'targets.json').write_text(
        json.dumps({'app': [], 'node_exporter': [f'{prod.discovery.instances[0].private_ip}:9100']})
    )
    some = CloudWatchSource(
        Settings(
            targets_file=tmp_path / 'targets.json',
            hosts={prod.discovery.instances[0].id: 'web-1'},
            aws=dict(cloudwatch=dict(from_targets=True)),
        )
    )
    assert {c.split('host="')[1].split('"')[0] for c in some.read(now)} == {'web-1'}

    snapshot = fetch_metrics(tmp_path/'m.json', live=True)
    assert (snapshot['cpu'], snapshot['memory'], snapshot['disk'], snapshot['source']) == (12., 52., 70., 'cloudwatch')
    assert json.loads((tmp_path/'m.json').read_text()) == snapshot


def test_moto_tells_a_terminated_instance_from_one_that_is_silent(moto, monkeypatch):
    ec2 = moto.write('ec2')
    ids = [i['InstanceId'] for i in ec2.run_instances(ImageId='ami-12c6146b', MinCount=4, MaxCount=4)['Instances']]
    source = CloudWatchSource(Settings(hosts={ids[3]: 'web-4'}))
    ec2.terminate_instances(InstanceIds=[ids[0], ids[3]]); ec2.stop_instances(InstanceIds=[ids[1]])
    assert (source.terminated_hosts({*ids[:3], 'web-4', 'queue-of-letters', 'i-00000000000000000'})
            == {ids[0], 'web-4', 'i-00000000000000000'})
    assert source.terminated_hosts(set()) == source.terminated_hosts({'queue-of-letters'}) == set()
    monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://127.0.0.1:{free_port()}')
    with pytest.raises(AwsError): CloudWatchSource(Settings(aws=dict(regions=['eu-west-1']))).terminated_hosts(set(ids))


def test_moto_new_instance_is_asked_for_before_it_is_listed(moto):
    ec2 = moto.write('ec2')
    id = ec2.run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1)['Instances'][0]['InstanceId']
    source = CloudWatchSource(Settings(aws=dict(cloudwatch=dict(presets=['ec2']))))
    assert len(source.read(T0)) == 0 and f'cpu_utilization_percent{{host="{id}"}}' in {q.series for q in source.queries}
    assert [i.id for i in instances(moto, 'eu-west-1')] == [id]


def test_moto_lists_in_pages(moto):
    for part in range(0, 1100, 100):
        moto.write('cloudwatch').put_metric_data(Namespace='AWS/SQS',
                                                 MetricData=[dict(MetricName='Depth', Value=1.,
                                                                  Timestamp=T0.to_pydatetime(),
                                                                  Dimensions=[dict(Name='QueueName', Value=f'q{i}')])
                                                             for i in range(part, part + 100)])
    source = CloudWatchSource(Settings(aws=dict(cloudwatch=dict(presets=[], metrics=[QUEUE]))))
    source.discovery.refresh(pd.Timestamp.now(tz='UTC'))
    assert len(source.queries) == 1100 and source.clients.calls['cloudwatch.ListMetrics'] == 3


# ---- clients

def test_a_write_is_sent_once(credentials):
    fake = FakeCloudWatch(fail=lambda *_: (503, b''))
    with serving(fake) as url:
        client = aws_clients(Settings(aws=dict(endpoint_url=url))).write('ec2')
        with pytest.raises(AwsError), explain('rebooting'): client.reboot_instances(InstanceIds=['i-1'])
    assert fake.calls.total() == 1


def test_live_overrides_the_endpoint(credentials, monkeypatch):
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:1')
    assert aws_clients().read('ec2').meta.endpoint_url == 'http://127.0.0.1:1'
    monkeypatch.setenv('AWS_LIVE', '1')
    assert (
        'amazonaws.com' in aws_clients(Settings(aws=dict(endpoint_url='http://127.0.0.1:2'))).read(
            'ec2'
        ).meta.endpoint_url
    )


ROOT = Path(__file__).parent.parent

def allowed(policy):
    statements = json.loads((ROOT/f'infra/deploy/iam/{policy}.json').read_text())['Statement']
    return {action: s for s in statements for action in s['Action']}


def called(*folders):
    "The AWS operations that the code calls, as IAM names them."
    text = '\n'.join(p.read_text() for f in folders for p in sorted((ROOT/'smartcloudops').glob(f)))
    direct = re.findall(r"(?:aws_client|\.read|\.write)\('(\w+)'[^()]*(?:\([^()]*\))?[^()]*\)\.(\w+)\(", text)
    paged = re.findall(r"\.read\('(\w+)', region\)\.get_paginator\('(\w+)'\)", text)
    named = re.findall(r"client = aws_client\('(\w+)'.*\n\s*(?:try: |\w+ = )client\.(\w+)\(", text)
    pairs = ([(s, o) for s, o in direct + paged + named if o != 'get_paginator']
             + [('cloudwatch', 'get_metric_data')]*('client.get_metric_data(' in text))
    return {f"{service}:{''.join(w.capitalize() for w in op.split('_'))}" for service, op in pairs}


def test_iam_policies_allow_what_the_code_calls_and_no_more():
    assert (set(allowed('ingest')) == called('ingestion/*.py')
            == {'cloudwatch:ListMetrics', 'cloudwatch:GetMetricData', 'ec2:DescribeInstances'})
    assert set(allowed('remediate')) == called('remediation/*.py')
    assert set(allowed('audit')) == {'s3:PutObject'}
    changing = {a: s for a, s in allowed('remediate').items() if ':Describe' not in a}
    assert all(s['Condition']['StringEquals'] == {'aws:ResourceTag/smartcloudops': 'act'} and s['Resource'] != '*'
               for s in changing.values())


@pytest.mark.aws_live
def test_the_real_thing():
    source = CloudWatchSource(load_settings())
    source.read(pd.Timestamp.now(tz='UTC'))
    assert not source.problems
