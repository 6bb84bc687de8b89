"The commands: what they print, their exit codes, and what they say when something is wrong."
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smartcloudops import __version__
from smartcloudops.cli import main
from smartcloudops.core.clock import now
from smartcloudops.core.database import open_state
from smartcloudops.core.kv import write_heartbeat

pytestmark = pytest.mark.phase7


@pytest.fixture
def cli(tmp_path, monkeypatch):
    "Runs a command in an empty folder."
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])


def series(n=400, start='2026-01-01', every='5min', seed=0):
    times = pd.date_range(start, periods=n, freq=every, tz='UTC')
    values = 30 + np.random.default_rng(seed).normal(0, 2, n)
    values[n - 50:n - 40] = 95
    return times, values


def commands(group=main, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, 'commands'): yield from commands(command, (*path, name))


@pytest.mark.parametrize('path', [p for p, _ in commands()], ids=' '.join)
def test_every_command_has_help_with_an_example(path):
    shown = CliRunner().invoke(main, [*path, '--help'])
    assert shown.exit_code == 0
    if not hasattr(dict(commands())[path], 'commands'): assert 'Example' in shown.output, shown.output


def test_version_and_unknown_words(cli):
    assert cli('--version').output.strip() == f'smartcloudops, version {__version__}'
    wrong = cli('detct')
    assert wrong.exit_code == 2 and "did you mean 'detect'" in wrong.output
    assert cli('run', '--port', '0').exit_code == 2
    assert cli('run', '--colour').exit_code == 2


def test_an_unknown_source_names_the_nearest(cli):
    wrong = cli('run', '--once', '--source', 'synthetc')
    assert wrong.exit_code == 1 and "did you mean 'synthetic'" in wrong.output and 'Traceback' not in wrong.output


@pytest.mark.parametrize('options', [('--source', 'synthetic'), ('--source', 'host')])
def test_once_prints_a_summary(cli, options):
    shown = cli('run', '--once', *options, '--json')
    summary = json.loads(shown.stdout)
    assert shown.exit_code == 0 and summary['rows'] >= 1 and summary['series'] > 5


def write_plain(path):
    times, values = series()
    pd.DataFrame({'timestamp': times.strftime('%Y-%m-%d %H:%M:%S'), 'value': values}).to_csv(path, index=False)

def write_wide(path):
    times, values = series()
    pd.DataFrame(
        {'time': times, 'cpu_utilization_percent{host="a"}': values, 'memory_used_percent{host="a"}': 50.0}
    ).to_csv(path, index=False)

def write_long(path):
    times, values = series()
    pd.DataFrame({'time': times, 'host': 'a', 'metric': 'cpu_utilization_percent', 'value': values}).to_csv(
        path, index=False
    )

def write_parquet(path):
    times, values = series()
    pd.DataFrame({'cpu_utilization_percent{host="a"}': values}, index=times.rename('time')).to_parquet(path)

LAYOUTS = dict(
    plain=('x.csv', write_plain),
    wide=('x.csv', write_wide),
    long=('x.csv', write_long),
    parquet=('x.parquet', write_parquet),
)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_detect_reads_each_layout(cli, tmp_path, layout):
    name, write = LAYOUTS[layout]
    write(tmp_path/name)
    done = cli('detect', name, '-o', 'out.csv', '--plot', 'out.png')
    assert done.exit_code == 0, done.output
    out = pd.read_csv('out.csv')
    if layout == 'plain':
        assert list(out) == ['timestamp', 'value', 'anomaly_score', 'expected', 'lower', 'upper', 'anomaly']
        original = pd.read_csv(name)
        assert (
            out['timestamp'].tolist() == original['timestamp'].tolist()
            and out['value'].tolist() == original['value'].tolist()
        )
    flagged = out[out['anomaly'] == 1]
    assert len(flagged), 'the burst was not seen'
    assert out['anomaly_score'].between(0, 1).all()
    assert Path('out.png').read_bytes().startswith(b'\x89PNG')


def test_replay_runs_through_the_whole_loop(cli, tmp_path):
    write_long(tmp_path/'x.csv')
    done = cli('run', '--once', '--source', 'replay:x.csv', '--json')
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary['rows'] == 400 and any('cpu' in title for title in summary['opened'])


def test_a_replay_of_what_is_older_says_that_it_was_not_judged(cli, tmp_path):
    "A second file, of January after one of February, was quiet whatever stood in it."
    for month in ('02', '01'):
        (tmp_path / f'{month}.csv').write_text(
            'timestamp,value\n' + ''.join(f'2026-{month}-01T00:{m:02}:00Z,95\n' for m in range(20))
        )
    first, second = (
        json.loads(cli('run', '--once', '--source', f'replay:{month}.csv', '--json').stdout) for month in ('02', '01')
    )
    assert first['rows'] == 20 and not first['notes']
    assert (
        second['rows'] == 0
        and second['samples'] == 20
        and second['notes']
        == [
            '20 rows are not newer than what was judged before: stored, not judged; to judge them, choose another'
            ' --data-dir'
        ]
    )


def test_one_row_out_for_each_row_in_whatever_the_order(cli, tmp_path):
    write_plain(tmp_path/'x.csv')
    lines = (tmp_path/'x.csv').read_text().splitlines()
    messy = [lines[0], *reversed(lines[1:]), lines[5].split(',')[0] + ',44.5']
    (tmp_path/'messy.csv').write_text('\n'.join(messy) + '\n')
    done = cli('detect', 'messy.csv', '-o', 'out.csv')
    assert done.exit_code == 0 and 'sorted' in done.stderr and 'last' in done.stderr
    out = pd.read_csv('out.csv')
    assert out['timestamp'].tolist() == [l.split(',')[0] for l in messy[1:]]
    assert out['value'].iloc[-1] == 44.5


BROKEN = {
    'missing': (None, 'no such'),
    'empty': (b'', 'empty'),
    'only a header': (b'timestamp,value\n', 'no rows|no data|only a header'),
    'text as value': (b'timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:05:00,high\n', r'line 3'),
    'not utf-8': (b'timestamp,value\n2026-01-01 00:00:00,\xff\xfe1\n', 'UTF-8'),
    'truncated': (b'timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:0', 'line 3'),
    'no time': (b'a,b\n1,2\n', 'time'),
    'bad time': (b'timestamp,value\nyesterday,1\n', 'line 2'),
}

@pytest.mark.parametrize('what', BROKEN)
@pytest.mark.parametrize(
    'command',
    [('detect', 'x.csv', '-o', 'out.csv'), ('run', '--once', '--source', 'replay:x.csv')],
    ids=['detect', 'run'],
)
def test_a_broken_file_is_a_clear_error(cli, tmp_path, what, command):
    content, says = BROKEN[what]
    if content is not None: (tmp_path/'x.csv').write_bytes(content)
    done = cli(*command)
    assert done.exit_code == 1, done.output
    assert 'x.csv' in done.output and re.search(says, done.output), done.output
    assert 'Traceback' not in done.output and not (tmp_path/'out.csv').exists()


def test_mixed_time_zones_become_utc(cli, tmp_path):
    (tmp_path / 'x.csv').write_text(
        'timestamp,value\n2026-01-01T12:00:00+01:00,1\n2026-01-01T11:05:00Z,2\n2026-01-01T06:10:00-05:00,3\n'
    )
    assert cli('detect', 'x.csv', '-o', 'out.csv').exit_code == 0
    assert len(pd.read_csv('out.csv')) == 3


@pytest.mark.parametrize('file, content, says', [
    ('config/smartcloudops.toml', '[dashboard]\nport = 99999', 'smartcloudops.toml, line 2: dashboard.port'),
    ('config/policies.yaml', 'policies:\n  - name: [x\n', 'policies.yaml'),
    ('config/aws_targets.json', '{"app": [', 'aws_targets.json'),
])
def test_a_broken_configuration_is_named(cli, tmp_path, file, content, says):
    (tmp_path/'config').mkdir()
    (tmp_path/file).write_text(content)
    done = cli('doctor')
    assert done.exit_code == 1 and says in done.output and 'Traceback' not in done.output


def test_a_history_of_another_program_is_left_alone(cli, tmp_path):
    import sqlite3
    (tmp_path/'data').mkdir()
    with sqlite3.connect(tmp_path/'data'/'history.db') as db: db.execute('create table bookmarks(x)')
    before = (tmp_path/'data'/'history.db').read_bytes()
    for command in (('run', '--once', '--source', 'synthetic'), ('history', 'info')):
        done = cli(*command)
        assert done.exit_code == 1 and 'history.db' in done.output and 'another program' in done.output, done.output
    assert (tmp_path/'data'/'history.db').read_bytes() == before


def test_targets_are_written_once(cli, tmp_path):
    (tmp_path/'config').mkdir()
    (tmp_path/'config'/'aws_targets.json').write_text('{"app": ["10.0.0.1:5000"], "node_exporter": ["10.0.0.1:9100"]}')
    assert cli('targets', 'check').exit_code == 1
    first = json.loads(cli('targets', 'write', '--json').stdout)
    assert any('app-and-node.json' in row['file'] for row in first) and all(row['changed'] for row in first)
    assert not any(row['changed'] for row in json.loads(cli('targets', 'write', '--json').stdout))
    assert cli('targets', 'check').exit_code == 0
    groups = json.loads((tmp_path/'infra/prometheus/file_sd/app-and-node.json').read_text())
    assert [g['labels']['job'] for g in groups] == ['app', 'node']


def test_config_show_and_history_info(cli, monkeypatch):
    monkeypatch.setenv('SMARTCLOUDOPS_NOTIFY__URLS', '["json://bob:hunter2@example.com"]')
    shown = cli('config', 'show')
    assert shown.exit_code == 0 and 'hunter2' not in shown.output and 'cpu_threshold' in shown.output
    assert cli('run', '--once', '--source', 'synthetic').exit_code == 0
    info = json.loads(cli('history', 'info', '--json').stdout)
    assert info['samples'] > 0 and info['series'] > 0


def test_doctor_is_well_on_an_empty_folder(cli):
    done = cli('doctor', '--json')
    assert done.exit_code == 0, done.output
    assert {r['check'] for r in json.loads(done.stdout)} >= {'settings', 'data folder', 'source', 'policies', 'aws'}


def test_doctor_believes_no_tick_that_is_still_to_come(cli):
    write_heartbeat(open_state('data/smartcloudops.db'), 'loop', {'interval': 5.}, now() + pd.Timedelta('1h'))
    line = next(r for r in json.loads(cli('doctor', '--json').stdout) if r['check'] == 'loop')
    assert line['state'] == 'optional' and 'still to come' in line['detail']


def test_doctor_tells_every_line_whatever_is_broken(cli, tmp_path, monkeypatch):
    cli('run', '--once', '--source', 'synthetic')
    file = tmp_path/'data/smartcloudops.db'
    file.write_bytes(file.read_bytes()[:4096] + b'\xff' * (file.stat().st_size - 4096))
    monkeypatch.setenv('AWS_PROFILE', 'nobody')
    done = cli('doctor', '--json')
    lines = {r['check']: r for r in json.loads(done.stdout)}
    assert done.exit_code == 1 and lines['state']['state'] == 'missing' and 'malformed' in lines['state']['detail']
    assert 'nobody' in lines['aws']['detail'] and 'reports' in lines


def test_a_user_without_a_name_may_decide(cli, monkeypatch):
    monkeypatch.setattr('getpass.getuser', lambda: {}['uid not found'])
    done = cli('switch', 'off', '--reason', 'night')
    assert done.exit_code == 0 and f'by uid {os.getuid()}' in done.output, done.output


def test_logs_are_json_when_asked(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'smartcloudops.cli',
            '--log-format',
            'json',
            '-v',
            'run',
            '--once',
            '--source',
            'synthetic',
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines(): assert json.loads(line)['level']


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    done = subprocess.run(
        f'{sys.executable} -m smartcloudops.cli config show | head -1',
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert 'Traceback' not in done.stderr and 'BrokenPipe' not in done.stderr


def test_incidents_over_ssh(cli, tmp_path):
    "The list and the story of an incident, without a browser."
    times, values = series()
    pd.DataFrame({'time': times, 'host': 'web-1', 'metric': 'cpu_utilization_percent', 'value': values}).to_csv(
        tmp_path / 'cpu.csv', index=False
    )
    assert cli('incidents', 'list').output == 'no incidents\n'
    cli('run', '--once', '--source', f"replay:{tmp_path/'cpu.csv'}")
    listed = json.loads(cli('incidents', 'list', '--json').stdout)
    about_cpu = next(i for i in listed if 'cpu' in i['title'])
    shown = cli('incidents', 'show', about_cpu['id'])
    assert (
        shown.exit_code == 0
        and about_cpu['title'] in shown.output
        and all(word in shown.output for word in ('first sign', 'detected', 'Evidence', 'Decided'))
    )
    assert json.loads(cli('incidents', 'show', about_cpu['id'], '--json').stdout)['incident']['host'] == 'web-1'
    missing = cli('incidents', 'show', '99')
    assert missing.exit_code == 1 and 'there is no incident 99' in missing.output


@pytest.mark.parametrize('since', ['7', 'week', '', '-5d', 'nan'])
@pytest.mark.parametrize(
    'command', [('history', 'export', 'week.csv'), ('ingest', '--source', 'prometheus')], ids=' '.join
)
def test_a_past_of_no_length_is_refused(cli, tmp_path, command, since):
    cli('run', '--once', '--source', 'synthetic')
    (tmp_path/'week.csv').write_text('the last good export')
    wrong = cli(*command, '--since', since)
    assert wrong.exit_code == 2 and f"--since '{since}' is no length of time" in wrong.output
    assert (tmp_path/'week.csv').read_text() == 'the last good export'


def test_a_path_that_says_no_is_one_line(cli, tmp_path):
    cli('run', '--once', '--source', 'synthetic')
    wrong = cli('history', 'export', '/nonexistent/out.csv')
    assert (
        wrong.exit_code == 1
        and '/nonexistent/' in wrong.output
        and 'check the path' in wrong.output
        and 'Traceback' not in wrong.output
    )


@pytest.mark.parametrize(
    'command',
    [
        ('actions', 'show', 'ID'),
        ('actions', 'approve', 'ID'),
        ('silence', 'end', 'ID'),
        ('incidents', 'show', 'ID'),
        ('feedback', 'ID', 'normal'),
        ('actions', 'list', '--limit', 'ID'),
    ],
    ids=' '.join,
)
def test_a_number_that_no_database_takes_is_no_traceback(cli, command):
    wrong = cli(*['9' * 20 if word == 'ID' else word for word in command])
    assert wrong.exit_code in (1, 2) and '9' * 20 in wrong.output and isinstance(wrong.exception, SystemExit)


def test_words_that_are_not_utf8_are_named(cli):
    wrong = cli('switch', 'off', '--reason', os.fsdecode(b'gr\xf6\xdfe'))
    assert wrong.exit_code == 1 and 'is not UTF-8' in wrong.output
    assert cli('switch', 'status').output.startswith('off')


def test_a_damaged_ledger_is_not_exported_with_a_traceback(cli, tmp_path):
    cli('silence', 'add', '--host', 'web-1', '--reason', 'work')
    file = tmp_path/'data'/'smartcloudops.db'
    with sqlite3.connect(file) as db: db.execute('pragma wal_checkpoint(truncate)')
    file.write_bytes(file.read_bytes()[:4096] + b'\xff' * (file.stat().st_size - 4096))
    wrong = cli('ledger', 'export')
    assert (
        wrong.exit_code == 1
        and 'smartcloudops.db: the ledger cannot be read' in wrong.output
        and isinstance(wrong.exception, SystemExit)
    )


def test_json_is_json_also_where_there_is_no_number(tmp_path):
    "A file without NAB's windows, beside one that has them, has no NAB score: null, which every reader of JSON takes."
    values = 30 + np.random.default_rng(0).normal(0, 2, 600); values[500:512] = 95
    frame = pd.DataFrame(dict(timestamp=pd.date_range('2026-01-01', periods=600, freq='5min'), value=values))
    (tmp_path/'nab/data').mkdir(parents=True); (tmp_path/'mine').mkdir()
    frame.to_csv(tmp_path/'nab/data/b.csv', index=False)
    (tmp_path/'nab/labels.json').write_text('{"b.csv": [["2026-01-02 17:00:00", "2026-01-02 20:00:00"]]}')
    frame.assign(label=((np.arange(600) >= 500) & (np.arange(600) < 512)).astype(int)).to_csv(
        tmp_path / 'mine/a.csv', index=False
    )
    told = CliRunner().invoke(main, ['evaluate', str(tmp_path), '--json'])
    def refuse(word): raise AssertionError(word)
    assert told.exit_code == 0 and None in [
        row.get('nab_standard') for row in json.loads(told.stdout, parse_constant=refuse)
    ]
