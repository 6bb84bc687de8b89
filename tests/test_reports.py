"""Reports: each is executed, leaves a notebook, a page and results; a failing check is exit 1; the page asks nobody for
anything."""
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import sqlalchemy as sa
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from smartcloudops.core.clock import now
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import MissingExtraError, UsageError
from smartcloudops.core.kv import last_heartbeat, write_heartbeat
from smartcloudops.monitoring.history import History
from smartcloudops.reporting import ReportError, list_reports, run_report

pytestmark = pytest.mark.phase7
SCRIPT = Path(sys.executable).parent/'smartcloudops'


def small(folder: Path, check: str = 'assert a < b', name: str = 'sums') -> Path:
    "A report of four cells."
    cells = [
        new_markdown_cell('# Sums\n> Adds what it is given'),
        new_code_cell('a = 1\nb = 2.5\nword = "x"\nloud = False', metadata=dict(tags=['parameters'])),
        new_code_cell('from smartcloudops.reporting import record\nrecord(total=a + b, word=word, loud=loud)'),
        new_code_cell(check),
    ]
    nbformat.write(new_notebook(cells=cells), folder/f'{name}.ipynb')
    return folder/f'{name}.ipynb'


def page_is_whole(page: Path, shot: Path | None = None) -> list[str]:
    "Open it in Chromium; what it asked of others, and what went wrong in it."
    from playwright.sync_api import sync_playwright
    asked = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox'])
        tab = browser.new_page()
        tab.on('request', lambda r: asked.append(r.url) if not r.url.startswith(('file:', 'data:')) else None)
        tab.on('pageerror', lambda e: asked.append(str(e)))
        tab.goto(page.absolute().as_uri())
        assert tab.title() and tab.locator('h1').count() == 1
        broken = tab.eval_on_selector_all('img', 'all => all.filter(i => !i.complete || !i.naturalWidth).length')
        wide = tab.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
        assert broken == 0 and wide <= 0
        if shot: tab.screenshot(path=shot, full_page=True)
        browser.close()
    return asked


def test_those_that_come_with_the_package_are_listed_with_their_parameters():
    found = {r.name: r for r in list_reports()}
    assert {'e2e_local', 'daily', 'incident', 'policy_backtest', 'detector_review'} <= set(found)
    assert set(found['e2e_local'].parameters) == {'source', 'hours', 'seed', 'fault'}
    assert all(r.about and r.title != r.name for r in found.values())


def test_a_report_leaves_notebook_page_and_results(tmp_path):
    run = run_report(small(tmp_path), dict(a='4', b='5', word='7', loud='yes'), tmp_path/'out')
    assert run.ok and run.result == dict(total=9.0, word='7', loud=True)
    kept = json.loads(Path(run.json).read_text())
    assert (
        kept['parameters'] == dict(a=4, b=5.0, word='7', loud=True)
        and kept['result'] == run.result
        and kept['error'] == ''
    )
    page = Path(run.html).read_text()
    assert 'assert' not in page and '<script' not in page and not re.search(r'''(src|href)=["']https?:''', page)
    assert nbformat.read(run.notebook, 4).cells[-1].source == 'assert a < b'
    assert sorted(f.suffix for f in (tmp_path/'out').iterdir()) == ['.html', '.ipynb', '.json']


def test_two_in_one_second_do_not_overwrite_each_other(tmp_path):
    first, second = (run_report(small(tmp_path), {}, tmp_path/'out', stem='same') for _ in range(2))
    assert first.json != second.json and len(list((tmp_path/'out').glob('*.json'))) == 2


def test_a_failing_check_leaves_a_notebook_that_shows_where(tmp_path):
    with pytest.raises(ReportError, match='a is too small') as failed:
        run_report(small(tmp_path, 'assert a > 10, "a is too small"'), {}, tmp_path/'out')
    run = failed.value.run
    assert not run.ok and run.result['total'] == 3.5
    assert 'a is too small' in Path(run.html).read_text() and 'AssertionError' in Path(run.notebook).read_text()


def test_a_dying_kernel_and_a_slow_cell_are_failures_like_others(tmp_path):
    with pytest.raises(ReportError, match='(?i)died|dead'):
        run_report(small(tmp_path, 'import os; os._exit(1)'), {}, tmp_path/'out')
    with pytest.raises(ReportError, match='(?i)time'):
        run_report(small(tmp_path, 'import time; time.sleep(60)'), {}, tmp_path/'out', timeout=2)


@pytest.mark.parametrize(
    'given, said',
    [
        (dict(aa='1'), "did you mean 'a'"),
        (dict(a='many'), 'a has to be int'),
        (dict(loud='maybe'), 'loud has to be bool'),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(tmp_path, given, said):
    with pytest.raises(UsageError, match=said): run_report(small(tmp_path), given, tmp_path/'out')
    assert not (tmp_path/'out').exists()


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'papermill', None)
    with pytest.raises(MissingExtraError, match=r'smartcloudops\[reports\]'):
        run_report(small(tmp_path), {}, tmp_path/'out')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A data folder of a made-up day."
    from smartcloudops.explore import practice
    return practice(tmp_path_factory.mktemp('place'), hours=17, every=300).data_dir


@pytest.mark.parametrize('name', ['daily', 'incident', 'policy_backtest', 'detector_review'])
def test_each_report_runs_and_its_page_stands_alone(tmp_path, monkeypatch, place, name):
    monkeypatch.chdir(tmp_path)
    run = run_report(name, dict(data_dir=str(place)) if name in ('daily', 'incident') else {}, tmp_path/'out')
    assert run.ok and run.result
    assert run.result.get('host', 'web-1') == 'web-1' and run.result.get('incidents', 1) >= 1
    assert page_is_whole(Path(run.html)) == []
    notebook = nbformat.read(run.notebook, 4)
    assert any('image/png' in o.get('data', {}) for c in notebook.cells if c.cell_type == 'code' for o in c.outputs)


@pytest.mark.parametrize(
    'day, says',
    [('', 'cpu'), ('2026-01-02', 'Nothing was measured on this day.')],
    ids=['the first day', 'a day without the loop'],
)
def test_daily_tells_of_the_first_day_and_of_one_without_samples(tmp_path, monkeypatch, day, says):
    monkeypatch.chdir(tmp_path)
    open_state(tmp_path/'smartcloudops.db')
    times = pd.date_range(end=now(), periods=30, freq='1s', name='time')
    with History(tmp_path/'history.db') as history:
        history.append(pd.DataFrame({'cpu_utilization_percent{host="web-1"}': 30.}, index=times))
    run = run_report('daily', dict(data_dir=str(tmp_path), day=day), tmp_path/'out')
    assert run.ok and says in Path(run.html).read_text()


@pytest.fixture
def storm(tmp_path, place):
    "The same folder after a day with 150 incidents, the last of a host that was never measured."
    from smartcloudops.detection.incidents import incidents
    shutil.copytree(place, tmp_path/'data')
    engine = open_state(tmp_path/'data'/'smartcloudops.db')
    with engine.begin() as c:
        row, day = dict(c.execute(sa.select(incidents).limit(1)).mappings().one()), 86400 * 10**6
        several = [
            row
            | dict(
                id=100 + k,
                episode=100 + k,
                fingerprint=f'storm {k}',
                opened=row['opened'] + day,
                closed=row['closed'] + day,
            )
            for k in range(150)
        ]
        several[-1] |= dict(host='db-9', hosts='["db-9"]', anomalies='[]')
        c.execute(incidents.insert(), several)
    return tmp_path/'data'


def test_what_came_after_hides_nothing_of_an_earlier_day(tmp_path, storm):
    told = {
        day: run_report('daily', dict(data_dir=str(storm), day=day), tmp_path / 'out').result['incidents']
        for day in ('2026-01-05', '2026-01-06')
    }
    assert 1 <= told['2026-01-05'] < 10 and told['2026-01-06'] >= 150


def test_daily_never_holds_two_weeks_of_a_whole_fleet(tmp_path, monkeypatch):
    from smartcloudops import explore
    open_state(tmp_path/'smartcloudops.db')
    names = [f'{metric}{{host="web-{n}"}}' for n in range(45) for metric in ('memory_used_percent', 'load1')]
    with History(tmp_path/'history.db') as history:
        history.append(
            pd.DataFrame(
                50.0, index=pd.date_range('2026-01-05', periods=96, freq='15min', tz='UTC', name='time'), columns=names
            )
        )
    load, held = explore.load_history, []
    def counting(*args, **asked):
        frame = load(*args, **asked)
        if asked['end'] - asked['start'] > pd.Timedelta('1D'): held.append(frame.shape[1])
        return frame
    monkeypatch.setattr(explore, 'load_history', counting)
    monkeypatch.setattr(pd, 'set_option', lambda *_: None)               # what a kernel of its own may set
    monkeypatch.setattr(logging.Logger, 'setLevel', lambda *_: None)
    found = dict(data_dir=str(tmp_path), day='2026-01-05')
    for cell in nbformat.read({r.name: r for r in list_reports()}['daily'].path, 4).cells:
        if cell.cell_type == 'code' and 'parameters' not in cell.metadata.get('tags', []): exec(cell.source, found)
    assert max(held) <= 20 and sum(held) == 45 == len(found['coming'])


def test_an_incident_of_a_host_without_samples_is_told(tmp_path, storm):
    run = run_report('incident', dict(data_dir=str(storm), incident='249'), tmp_path/'out')
    assert run.ok and 'No samples of db-9' in Path(run.html).read_text()


def test_an_incident_that_does_not_exist_is_said(tmp_path, place):
    with pytest.raises(ReportError, match='no incident 99'):
        run_report('incident', dict(data_dir=str(place), incident='99'), tmp_path/'out')


def test_the_command_ends_with_1_when_a_check_fails_and_2_when_misused(tmp_path):
    small(tmp_path, 'assert False, "no"', 'mine')
    failed = subprocess.run(
        [SCRIPT, 'report', str(tmp_path / 'mine.ipynb')], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert failed.returncode == 1 and 'no' in failed.stderr and 'Traceback' not in failed.stderr
    unknown = subprocess.run([SCRIPT, 'report', 'dayly'], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2 and "'daily'" in unknown.stderr


def test_nothing_about_the_kernel_stands_on_standard_error(tmp_path):
    "Values travel to the kernel encrypted, so ipykernel has nothing to warn of."
    done = subprocess.run(
        [SCRIPT, 'report', str(small(tmp_path))], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == ''


# To S3, over real HTTP

@pytest.fixture(scope='module')
def s3_server():
    "moto's server, one for all: papermill keeps the session that it made first."
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    server.start()
    yield 'http://{}:{}'.format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    "An empty bucket there; its client."
    import boto3
    for name, value in dict(
        AWS_ACCESS_KEY_ID='testing',
        AWS_SECRET_ACCESS_KEY='testing',
        AWS_DEFAULT_REGION='us-east-1',
        AWS_ENDPOINT_URL=s3_server,
    ).items():
        monkeypatch.setenv(name, value)
    client = boto3.client('s3')
    client.create_bucket(Bucket='mornings')
    yield client
    for key in kept_in(client): client.delete_object(Bucket='mornings', Key=key)


def kept_in(client) -> dict:
    return {
        o['Key']: client.get_object(Bucket='mornings', Key=o['Key'])['Body'].read()
        for o in client.list_objects_v2(Bucket='mornings').get('Contents', [])
    }


def test_a_report_goes_to_s3_whole_whether_it_worked_or_not(bucket, tmp_path):
    run = run_report(small(tmp_path), dict(b=4), 's3://mornings/team', stem='good')
    with pytest.raises(ReportError, match='too small'):
        run_report(small(tmp_path, 'assert a > 10, "a is too small"'), {}, 's3://mornings/team/', stem='bad')
    kept = kept_in(bucket)
    assert sorted(kept) == [f'team/{stem}.{suffix}' for stem in ('bad', 'good') for suffix in ('html', 'ipynb', 'json')]
    assert run.html == 's3://mornings/team/good.html' and json.loads(kept['team/good.json']) == {
        **json.loads(kept['team/good.json']),
        'ok': True,
        'result': run.result,
        'html': run.html,
    }
    assert (
        nbformat.reads(kept['team/good.ipynb'].decode(), 4).cells
        and b'too small' in kept['team/bad.html']
        and json.loads(kept['team/bad.json'])['ok'] is False
    )
    (tmp_path/'read.html').write_bytes(kept['team/good.html'])
    assert page_is_whole(tmp_path/'read.html') == []


def test_a_bucket_that_is_not_there_is_said_with_its_address(bucket, tmp_path):
    from smartcloudops.core.errors import AwsError
    with pytest.raises(AwsError, match=r's3://evenings/x\.ipynb.*NoSuchBucket.*s3:PutObject'):
        run_report(small(tmp_path), {}, 's3://evenings', stem='x')


@pytest.mark.soak
def test_a_scheduled_report_goes_where_the_settings_say(bucket, tmp_path, monkeypatch):
    import pandas as pd

    from smartcloudops.core.database import open_state
    from smartcloudops.core.settings import Settings
    from smartcloudops.reporting import Schedule, list_runs
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        data_dir=tmp_path / 'data', reports=dict(schedule={'policy_backtest': '*/5 * * * *'}, out='s3://mornings')
    )
    schedule, at = Schedule(settings, open_state(settings.state_path)), pd.Timestamp.now(tz='UTC')
    schedule.tick(at - pd.Timedelta('11min'))
    assert schedule.tick(at) and schedule.running.process.process.wait(200) == 0
    schedule.tick(at + pd.Timedelta('1s'))
    assert list_runs(schedule.engine).state.tolist()[-1] == 'done'
    assert {Path(k).suffix for k in kept_in(bucket)} == {'.html', '.ipynb', '.json'}


# On the dashboard

def test_a_report_executed_for_real_is_listed_and_read_on_the_dashboard(tmp_path, place):
    "gunicorn, a browser, the policy that forbids everything but the page's own style and pictures."
    import shutil
    import socket
    import time
    import urllib.request

    from playwright.sync_api import sync_playwright

    from tests.conftest import free_port
    data = shutil.copytree(place, tmp_path/'data')
    engine = open_state(data/'smartcloudops.db')
    last = last_heartbeat(engine, 'loop')
    write_heartbeat(
        engine, 'loop', last.detail | dict(aws_cost=1.23, status=dict(usd_per_month=9.87)), last.at
    )  # as a loop that reads CloudWatch says it
    engine.dispose()
    run = run_report('daily', dict(data_dir=str(data)), tmp_path/'reports')
    assert (
        run.result['cloudwatch_usd'] == 1.23 and '1.23 USD this month, 9.87 USD a month' in Path(run.html).read_text()
    )
    port, name = free_port(), Path(run.html).name
    env = dict(os.environ, SMARTCLOUDOPS_DATA_DIR=str(data), SMARTCLOUDOPS_REPORTS_DIR=str(tmp_path/'reports'))
    server = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'gunicorn',
            '--bind',
            f'127.0.0.1:{port}',
            '--threads',
            '4',
            'smartcloudops.dashboard:app',
        ],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(150):
            try: socket.create_connection(('127.0.0.1', port), 1).close()
            except OSError: time.sleep(.2)
            else: break
        ask = lambda path, **headers: urllib.request.urlopen(
            urllib.request.Request(f'http://127.0.0.1:{port}{path}', headers=headers), timeout=30
        )
        assert [r['name'] for r in json.load(ask('/api/v1/reports'))['items']] == [name]
        answer = ask(f'/reports/{name}', Accept='text/html')
        policy, body = answer.headers['Content-Security-Policy'], answer.read().decode()
        assert policy.startswith('sandbox') and "default-src 'none'" in policy and body == Path(run.html).read_text()
        assert json.load(ask(f'/reports/{name.replace(".html", ".ipynb")}'))['nbformat'] == 4
        complaints = []
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox'])
            tab = browser.new_page()
            tab.on('console', lambda m: complaints.append(m.text) if m.type == 'error' else None)
            tab.goto(f'http://127.0.0.1:{port}/reports')
            tab.get_by_role('link', name=re.compile('daily')).first.click()
            tab.wait_for_url('**/reports/daily-*.html')
            assert tab.locator('h1').inner_text() == 'Yesterday'
            assert (
                tab.evaluate("getComputedStyle(document.querySelector('h1')).marginTop") == '0px'
            ), 'its own style is in force'
            assert tab.eval_on_selector_all('img', 'all => all.length && all.every(i => i.complete && i.naturalWidth)')
            browser.close()
        assert complaints == []
    finally:
        server.terminate(); server.wait(20)
