"""The prometheus source against the real servers: Prometheus with node_exporter, VictoriaMetrics; and a small server
for what those do not do."""
import base64
import json
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import httpx
import pandas as pd
import pytest

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.errors import ConfigError, SourceError
from smartcloudops.core.frames import validate
from smartcloudops.core.series import Series
from smartcloudops.core.settings import Settings
from smartcloudops.ingestion import make_source
from smartcloudops.ingestion.host import HostSource
from smartcloudops.ingestion.prometheus import PrometheusSource
from smartcloudops.ingestion.prometheus_queries import NODE
from tests.conftest import free_port, soak

pytestmark = pytest.mark.phase6
T0 = pd.Timestamp('2026-03-02 12:00:00Z')


def wait_for(url, seconds=15):
    for _ in range(int(seconds*20)):
        try:
            if httpx.get(url).status_code == 200: return
        except httpx.TransportError: pass
        time.sleep(.05)
    raise AssertionError(f'{url} did not come up')


def start(*command, ready):
    if not shutil.which(command[0]): pytest.skip(f'{command[0]} is not installed')
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(ready)
    return process


@pytest.fixture(scope='module')
def victoria(tmp_path_factory):
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    p = start('victoria-metrics', f'-httpListenAddr=127.0.0.1:{port}',
              f'-storageDataPath={tmp_path_factory.mktemp("vm")}', '-retentionPeriod=100y', '-search.latencyOffset=0s',
              '-search.maxUniqueTimeseries=1000000', '-search.maxSeries=1000000', ready=f'{url}/health')
    yield url
    p.terminate(); p.wait()


@pytest.fixture(scope='module')
def prometheus(tmp_path_factory):
    "Prometheus that scrapes a real node_exporter every second."
    folder, node_port, port = tmp_path_factory.mktemp('prom'), free_port(), free_port()
    node = start('prometheus-node-exporter', f'--web.listen-address=127.0.0.1:{node_port}',
                 ready=f'http://127.0.0.1:{node_port}/metrics')
    (folder/'p.yml').write_text(f'global: {{scrape_interval: 1s}}\nscrape_configs: '
                                f'[{{job_name: node, static_configs: [{{targets: ["127.0.0.1:{node_port}"]}}]}}]\n')
    server = start('prometheus', f'--config.file={folder}/p.yml', f'--storage.tsdb.path={folder}/data',
                   f'--web.listen-address=127.0.0.1:{port}', ready=f'http://127.0.0.1:{port}/-/ready')
    yield f'http://127.0.0.1:{port}', node
    for p in (server, node): p.terminate(); p.wait()


def source_for(url, hosts=None, **table):
    return PrometheusSource(Settings(hosts=hosts or {}, prometheus=dict(url=url, attempts=2) | table))


def put(url, lines):
    httpx.post(f'{url}/api/v1/import/prometheus', content='\n'.join(lines)).raise_for_status()
    httpx.get(f'{url}/internal/force_flush')


def ms(t): return pd.Timestamp(t).value // 10**6


# ---- Prometheus and node_exporter

def test_node_exporter_under_the_host_sources_names(prometheus):
    url, node = prometheus
    source = source_for(url, hosts={'127.0.0.1': 'me'}, step=1)
    deadline, frames = time.monotonic() + 40, []
    while time.monotonic() < deadline:
        frames.append(source.read(pd.Timestamp.now(tz='UTC')))
        if len(frames) > 2 and any('cpu_utilization' in c for c in frames[-1]): break
        time.sleep(1)
    frame = frames[-1]
    validate(frame)
    own = HostSource(host='me').read(pd.Timestamp.now(tz='UTC')).iloc[0]
    both = [c for c in own.index if c in frame]
    missing = {Series.parse(c).metric for c in own.index} - {Series.parse(c).metric for c in both}
    assert missing <= {'processes', 'cgroup_memory_limit_bytes', 'cgroup_memory_used_percent', 'cgroup_cpu_limit_cores',
                       'cgroup_cpu_throttled_seconds_total', 'conntrack_entries',
                       'conntrack_used_percent', 'swap_used_percent', 'network_receive_bytes_total',
                       'network_transmit_bytes_total', 'network_receive_errors_total',
                       'network_transmit_errors_total'}, missing
    last = frame.ffill().iloc[-1]
    for name, tolerance in {'memory_used_percent{host="me"}': 8, 'disk_used_percent{host="me",mount="/"}': 2,
                            'boot_time_seconds{host="me"}': 2, 'memory_total_bytes{host="me"}': 1}.items():
        assert abs(last[name] - own[name]) <= tolerance, name
    assert 0 <= last['cpu_utilization_percent{host="me"}'] <= 100
    assert not source.problems and list(source.read(frame.index[-1]).index) == []           # nothing twice


def test_a_dead_exporter_goes_missing_at_once(tmp_path):
    node_port, port = free_port(), free_port()
    node = start('prometheus-node-exporter', f'--web.listen-address=127.0.0.1:{node_port}',
                 ready=f'http://127.0.0.1:{node_port}/metrics')
    (tmp_path/'p.yml').write_text(f'global: {{scrape_interval: 1s}}\nscrape_configs: '
                                  f'[{{job_name: node, static_configs: [{{targets: ["127.0.0.1:{node_port}"]}}]}}]\n')
    server = start('prometheus', f'--config.file={tmp_path}/p.yml', f'--storage.tsdb.path={tmp_path}/data',
                   f'--web.listen-address=127.0.0.1:{port}', ready=f'http://127.0.0.1:{port}/-/ready')
    try:
        source = source_for(f'http://127.0.0.1:{port}', step=1, queries=[dict(query='node_load1'), dict(query='up')])
        for _ in range(30):
            time.sleep(.5)
            if any('node_load1' in c for c in source.read(pd.Timestamp.now(tz='UTC'))): break
        node.terminate(); node.wait(); gone = pd.Timestamp.now(tz='UTC')
        rows = []
        for _ in range(6): time.sleep(1); rows.append(source.read(pd.Timestamp.now(tz='UTC')))
        after = pd.concat(rows).sort_index()
        load = after.get('node_load1{host="127.0.0.1"}', pd.Series(dtype=float)).dropna()
        # the staleness marker is heeded
        assert not (load.index > gone + pd.Timedelta('3s')).any()
        assert after['up{host="127.0.0.1"}'].dropna().iloc[-1] == 0
    finally:
        for p in (server, node): p.terminate(); p.wait()


# ---- VictoriaMetrics

def test_nothing_lost_nothing_twice_late_samples_come(victoria):
    name = 'late_test'
    put(victoria,
        [f'{name}{{instance="a:1"}} {i} {ms(T0 + pd.Timedelta(seconds=15*i))}' for i in range(100) if i != 50])
    source = source_for(victoria, step=15, reread_seconds=600,
                        queries=[dict(query=f'last_over_time({name}[15s])', metric=name)])
    frames = [source.read(T0 + pd.Timedelta(seconds=15*i)) for i in range(0, 60, 4)]
    put(victoria, [f'{name}{{instance="a:1"}} 50 {ms(T0 + pd.Timedelta(seconds=750))}'])
    frames += [source.read(T0 + pd.Timedelta(seconds=15*i)) for i in range(60, 100, 3)]
    got = pd.concat(frames).iloc[:, 0]
    assert got.groupby(level=0).last().loc[T0:].tolist() == [float(i) for i in range(100)]


def test_a_clock_that_is_put_back_is_followed(victoria):
    name = 'back_test'
    put(victoria, [f'{name}{{instance="a:1"}} {i} {ms(T0 + pd.Timedelta(seconds=15*i))}' for i in range(100)])
    source = source_for(victoria, step=15, queries=[dict(query=f'last_over_time({name}[15s])', metric=name)])
    source.read(T0); source.read(T0 + pd.Timedelta('1h'))
    frames = [source.read(T0 + pd.Timedelta(seconds=15*i)) for i in range(20, 60, 4)]
    assert all(len(f) for f in frames) and frames[-1].iloc[-1, 0] >= 50


def test_a_target_that_was_taken_out_is_told_from_one_that_is_down(victoria):
    at = pd.Timestamp.now(tz='UTC').floor('s')
    every = lambda seconds: [at - pd.Timedelta(seconds=s) for s in range(7200, seconds, -15)]
    put(victoria, [(f'up{{job="node",instance="{host}:9100"}} '
                    f'{0 if host == "down-1" and t > at - pd.Timedelta("20min") else 1} {ms(t)}')
                   for host, until in (('here-1', 0), ('here-2', 0), ('down-1', 0), ('out-1', 1800))
                   for t in every(until)])
    source = source_for(victoria, hosts={'out-1': 'worker'})
    with use_clock(FakeClock(at)):               # the samples end here; a slow machine's own clock has gone on
        assert source.terminated_hosts({'here-1', 'down-1', 'worker', 'never-heard-of'}) == {'worker'}
        assert source.terminated_hosts({'here-1'}) == set()
    put(victoria, [f'up{{job="node",instance="mass-{n}:9100"}} 1 {ms(t)}' for n in range(9) for t in every(900)])
    # most are gone at once: the discovery is broken
    with use_clock(FakeClock(at)):
        assert source.terminated_hosts({'worker', *(f'mass-{n}' for n in range(9))}) == set()
    with pytest.raises(SourceError, match='does not answer'):
        source_for(f'http://127.0.0.1:{free_port()}', attempts=1).terminated_hosts({'here-1'})


def test_a_hundred_thousand_series(victoria):
    n = soak(20_000, 100_000)
    for part in range(0, n, 20_000):
        put(victoria,
            [f'big{{instance="h{i % 1000}:9100",device="d{i // 1000}"}} {i} {ms(T0)}'
             for i in range(part, min(n, part + 20_000))])
    source = source_for(victoria, queries=[dict(query='big')], timeout=60)
    frame = source.read(T0)
    assert frame.shape == (1, n) and frame['big{device="d3",host="h7"}'].item() == 3007
    assert len(source.read(T0 + pd.Timedelta(seconds=15)).columns) == n


def test_names_that_only_newer_servers_allow_are_spelled_with_underscores(victoria):
    t, source = T0 + pd.Timedelta('20D'), source_for(victoria, queries=[dict(query='{job="odd"}')])
    httpx.post(f'{victoria}/api/v1/import',
               content='\n'.join(json.dumps(dict(metric=dict(labels, job='odd', instance='a:1'), values=[1],
                                                 timestamps=[ms(t)])) for labels in
               ({'__name__': 'load', 'data-center': 'fra'}, {'__name__': 'http.größe', '1st': 'x'}))).raise_for_status()
    httpx.get(f'{victoria}/internal/force_flush')
    assert (set(validate(source.read(t)).columns)
            == {'load{data_center="fra",host="a"}', 'http_gr__e{_1st="x",host="a"}'})


def test_large_answers_are_asked_for_in_pieces(victoria):
    put(victoria, [f'pieces{{instance="a:1"}} {i} {ms(T0 + pd.Timedelta(seconds=15*i))}' for i in range(2000)])
    source = source_for(victoria, queries=[dict(query='pieces')], max_bytes=6000)
    source.read(T0)
    frame = source.read(T0 + pd.Timedelta(seconds=15*1999))
    assert frame.iloc[:, 0].tolist() == [float(i) for i in range(1, 2000)]
    tiny = source_for(victoria, queries=[dict(query='{__name__=~"big|pieces"}')], max_bytes=1000)
    with pytest.raises(SourceError, match='larger than'): tiny.read(T0)


def test_more_than_11000_points(victoria):
    put(victoria, [f'long{{instance="a:1"}} {i} {ms(T0 + pd.Timedelta(seconds=60*i))}' for i in range(300)])
    source = source_for(victoria, step=1, reread_seconds=0, queries=[dict(query='long')])
    source.read(T0)
    frame = source.read(T0 + pd.Timedelta(seconds=17_000))
    assert len(frame) == 17_000 and frame.index.is_unique


def test_backfill(victoria):
    put(victoria, [f'old{{instance="a:1"}} {i} {ms(T0 + pd.Timedelta(minutes=i))}' for i in range(180)])
    source = source_for(victoria, step=60, queries=[dict(query='old')])
    chunks = list(source.backfill(T0, T0 + pd.Timedelta('179min'), chunk='1h'))
    got = pd.concat([c.frame for c in chunks]).groupby(level=0).last().iloc[:, 0]
    assert got.tolist() == [float(i) for i in range(180)] and chunks[-1].done == 1
    resumed = list(source.backfill(chunks[0].end, T0 + pd.Timedelta('179min'), chunk='1h'))
    assert resumed[0].start == chunks[0].end and 'answers' in source.describe_source()


# ---- a server that misbehaves

class Crooked:
    "Answers what a list of (status, body) says, the last one for ever; checks credentials when given."
    def __init__(self, *answers, authorization=None):
        self.answers, self.authorization, self.calls, self.forms = list(answers), authorization, 0, []
    def __enter__(self):
        crooked = self
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                crooked.forms.append(parse_qs(self.rfile.read(int(self.headers['Content-Length'])).decode()))
                status, body = crooked.answers[min(crooked.calls, len(crooked.answers) - 1)]
                crooked.calls += 1
                if crooked.authorization and self.headers.get('Authorization') != crooked.authorization:
                    status, body = 401, 'who are you'
                body = (body if isinstance(body, bytes)
                        else (body if isinstance(body, str) else json.dumps(body)).encode())
                self.send_response(status)
                self.send_header('Content-Length', str(len(body) + (10 if status == 299 else 0)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *_): pass
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.block_on_close = False
        threading.Thread(target=self.server.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        return self
    def __exit__(self, *_): self.server.shutdown(); self.server.server_close()


def good(*values, start=T0, **more):
    return (200,
            dict(status='success',
                 data=dict(resultType='matrix',
                           result=[dict(metric=dict(__name__='m', instance='a:1'),
                                        values=[[start.timestamp() + 15*i, v] for i, v in enumerate(values)])]),
                 **more))
M = dict(queries=[dict(query='m')])


@pytest.mark.parametrize('first',
                         [(503, 'busy'), (429, 'slow down'), (500, ''), (200, '{"status": "succ'), (299, 'cut off')])
def test_hiccups_are_retried(first):
    with Crooked(first, good('1')) as server:
        assert source_for(server.url, **M).read(T0).iloc[0, 0] == 1 and server.calls == 2


@pytest.mark.parametrize('answer,message', [
    ((401, 'no'), 'refuses our credentials'), ((404, '<html>'), 'does not answer as Prometheus does'),
    ((422, dict(status='error', error='too many samples')), 'too many samples'),
    ((200, dict(status='success', data=dict(resultType='scalar', result=[0, '1']))), 'does not give series'),
    ((200, []), 'no object'), ((503, 'down'), 'busy or failing'),
])
def test_refusals_are_explained(answer, message):
    with Crooked(answer) as server, pytest.raises(SourceError, match=message): source_for(server.url, **M).read(T0)


def test_nobody_there():
    with pytest.raises(SourceError, match='check prometheus.url'):
        source_for(f'http://127.0.0.1:{free_port()}', **M).read(T0)


@pytest.mark.parametrize('result,message', [
    ([dict(metric={'__name__': 'm'}, histograms=[[1, {}]])], 'histograms'),
    ([dict(metric={'__name__': 'm'}, values=[[1, '1']]), dict(metric={'host': 'a'}, values=[[1, '1']])],
     'has no name')])
def test_a_query_that_gives_no_named_numbers_fails_alone(result, message):
    answer = 200, dict(status='success', data=dict(resultType='matrix', result=result))
    with Crooked(answer) as s, pytest.raises(SourceError, match=message):
        source_for(s.url, queries=[dict(query='m')]).read(T0)


def test_nan_and_infinity_are_missing():
    with Crooked(good('NaN'), good('1', 'NaN', '+Inf', '-Inf', '5')) as server:
        source = source_for(server.url, **M)
        assert len(source.read(T0)) == 0
        frame = source.read(T0 + pd.Timedelta('60s'))
        assert frame.iloc[:, 0].tolist() == [1., 5.] and list(frame.index) == [T0, T0 + pd.Timedelta('60s')]


def test_partial_answers_are_used_and_asked_for_again():
    with Crooked(good('1'), good('1', '2', isPartial=True), good('1', '2', '3', warnings=['one store is down']),
                 good('1', '2', '3', '4')) as server:
        source = source_for(server.url, **M)
        source.read(T0)
        assert len(source.read(T0 + pd.Timedelta('15s'))) == 1 and source.problems == {'m': 'the answer is partial'}
        source.read(T0 + pd.Timedelta('30s')); assert source.problems == {'m': 'one store is down'}
        source.read(T0 + pd.Timedelta('45s')); assert not source.problems
        # still from the last whole answer
        assert float(server.forms[-1]['start'][0]) <= T0.timestamp()


def test_a_server_that_hangs_is_not_asked_query_after_query():
    """Each of 38 queries would wait for four timeouts, and the loop for all of them: a quarter of an hour in which
    nothing is judged."""
    with socket.create_server(('127.0.0.1', 0), backlog=64) as deaf:
        source = source_for(f'http://127.0.0.1:{deaf.getsockname()[1]}',
                            queries=[dict(query=f'm{i}') for i in range(20)], timeout=.3)
        with pytest.raises(SourceError, match='does not answer'): source.read(T0)
        assert sum('not asked' in problem for problem in source.problems.values()) == 16
        with pytest.raises(SourceError, match='does not answer'): source.read(T0)


def test_answers_that_stay_partial_are_not_asked_for_ever_further_back():
    "A store of Thanos that is down for days is a warning for days; what was missing is asked for when it is back."
    with Crooked(good('1'), *[good('1', warnings=['one store is down'])] * 5, good('1')) as server:
        source = source_for(server.url, **M)
        for hours in range(8): source.read(T0 + pd.Timedelta(hours=hours))
        assert ([round((float(f['end'][0]) - float(f['start'][0])) / 3600) for f in server.forms]
                == [0, 1, 1, 1, 1, 1, 1, 7])
        source.read(T0 + pd.Timedelta(hours=8))
        assert float(server.forms[-1]['start'][0]) == (T0 + pd.Timedelta(hours=7, minutes=-2)).timestamp()


@pytest.mark.parametrize('table,header', [
    (dict(token='secret-token'), 'Bearer secret-token'),
    (dict(username='u', password='p'), 'Basic ' + base64.b64encode(b'u:p').decode())])
def test_credentials(table, header):
    with Crooked(good('1'), authorization=header) as server:
        assert len(source_for(server.url, **M, **table).read(T0)) == 1
        with pytest.raises(SourceError, match='refuses'): source_for(server.url, **M).read(T0)
        assert 'secret-token' not in repr(source_for(server.url, **M, **table).cfg)


def test_tls(tmp_path):
    import ssl
    import subprocess
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                    '-keyout', f'{tmp_path}/k.pem', '-out', f'{tmp_path}/c.pem', '-days', '1',
                    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'], check=True,
                   capture_output=True)
    with Crooked(good('1')) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(tmp_path/'c.pem', tmp_path/'k.pem')
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        url = server.url.replace('http', 'https')
        assert len(source_for(url, ca_file=tmp_path/'c.pem', **M).read(T0)) == 1
        with pytest.raises(SourceError, match='does not answer'): source_for(url, **M).read(T0)
    with pytest.raises(ConfigError, match='certificate'):
        source_for('https://127.0.0.1:1', ca_file=tmp_path/'none.pem', **M)


def test_steps_are_aligned():
    with Crooked(good('1')) as server:
        source = source_for(server.url, **M)
        for s in (3.2, 17.9, 40): source.read(T0 + pd.Timedelta(seconds=s))
    assert all(float(f[k][0]) % 15 == 0 for f in server.forms for k in ('start', 'end'))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match='prometheus.step'):
        make_source('prometheus', Settings(prometheus=dict(step=-1)))
    with pytest.raises(ConfigError, match='prometheus.queries.0.qery'):
        make_source('prometheus', Settings(prometheus=dict(queries=[dict(qery='up')])))
    assert make_source('prometheus').queries is NODE


def test_the_default_queries_are_promql(prometheus):
    url, _ = prometheus
    for q in NODE: assert httpx.get(f'{url}/api/v1/query', params=dict(query=q.query)).status_code == 200, q.query
