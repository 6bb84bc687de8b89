"""A small CloudWatch on loopback, for what moto does not do: pages, throttling, late and changing values, limits,
broken replies."""
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class FakeCloudWatch:
    """`value(metric, timestamp)` says what a period holds now, None: nothing yet. `fail(operation, call, region)` may
    return (status, body)."""
    def __init__(self, metrics=(), value=lambda metric, ts: 1.0, page=10**9, fail=lambda operation, call, region: None,
                 invalid=()):
        self.metrics, self.value, self.page, self.fail, self.invalid = list(metrics), value, page, fail, set(invalid)
        self.calls, self.requests, self._tokens = Counter(), [], {}

    def answer(self, operation, body, region):
        self.calls[operation] += 1
        if failure := self.fail(operation, self.calls[operation], region): return failure
        if operation == 'DescribeInstances':
            return (
                200,
                (
                    b'<DescribeInstancesResponse '
                    b'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet/></DescribeInstancesResponse>'
                ),
            )
        return 200, json.dumps(getattr(self, operation)(body)).encode()

    def ListMetrics(self, body):
        here = [m for m in self.metrics if m['Namespace'] == body['Namespace']]
        start = int(body.get('NextToken', 0))
        more = {'NextToken': str(start + 500)} if start + 500 < len(here) else {}
        return {'Metrics': here[start:start + 500], **more}

    def GetMetricData(self, body):
        queries = body['MetricDataQueries']
        self.requests.append(body)
        if any(q['MetricStat']['Metric']['MetricName'] in self.invalid for q in queries):
            raise Refused('ValidationError')
        assert len(queries) <= 500
        points = [(q['Id'], t, v) for q in queries
                  for t in range(-int(-body['StartTime'] // q['MetricStat']['Period']) * q['MetricStat']['Period'],
                                 int(body['EndTime']), q['MetricStat']['Period'])
                  if (v := self.value(q['MetricStat']['Metric'], t)) is not None]
        assert sum((body['EndTime'] - body['StartTime']) // q['MetricStat']['Period'] for q in queries) <= 100_800
        start = int(body.get('NextToken', 0))
        results = {q['Id']: dict(Id=q['Id'], Label='', Timestamps=[], Values=[], StatusCode='Complete')
                   for q in queries}
        for id, t, v in points[start:start + self.page]:
            results[id]['Timestamps'].append(t); results[id]['Values'].append(v)
        return {'MetricDataResults': list(results.values()),
                **({'NextToken': str(start + self.page)} if start + self.page < len(points) else {})}


class Refused(Exception): pass


def refusal(code, status=400): return status, json.dumps({'__type': code, 'message': 'no'}).encode()


def metric(namespace, name, **dimensions):
    return dict(Namespace=namespace, MetricName=name, Dimensions=[dict(Name=k, Value=v) for k, v in dimensions.items()])


@contextmanager
def serving(fake):
    "The fake's address while the block runs."
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'
        def do_POST(self):
            raw = self.rfile.read(int(self.headers['Content-Length']))
            region = self.headers['Authorization'].split('/')[2]
            target = self.headers.get('X-Amz-Target', '').split('.')[-1]
            try: status, body = fake.answer(target or 'DescribeInstances', json.loads(raw) if target else {}, region)
            except Refused as e: status, body = refusal(str(e))
            except Exception as e: status, body = refusal('InternalFailure: ' + repr(e), 599)
            self.send_response(status)
            self.send_header('Content-Type', 'application/x-amz-json-1.0' if target else 'text/xml')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers(); self.wfile.write(body)
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown(); server.server_close()
