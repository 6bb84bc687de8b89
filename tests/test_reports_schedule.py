"Scheduled reports: the right ones, none twice, over clock changes, sleep and crashes."
import json
import logging
import shutil
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.errors import ConfigError
from smartcloudops.core.settings import Settings, load_settings
from smartcloudops.reporting import (
    Schedule,
    as_cron,
    as_systemd,
    jobs,
    last_due,
    list_runs,
    next_due,
    on_calendar,
    tidy_reports,
)
from tests.conftest import soak

pytestmark = pytest.mark.phase7
BERLIN = 'Europe/Berlin'


class Takes:
    "A report that takes some minutes of the fake clock, and may never end."
    def __init__(self, clock, minutes=3, code=0):
        self.clock, self.until, self.code, self.stopped = (
            clock,
            clock.now() + pd.Timedelta(minutes=minutes),
            code,
            False,
        )
    def poll(self): return self.code if self.clock.now() >= self.until else None
    def stop(self): self.stopped = True


def schedule_of(tmp_path, start, **reports):
    settings = Settings(
        data_dir=tmp_path / 'data',
        reports_dir=tmp_path / 'reports',
        reports=dict(schedule={'daily': '30 2 * * *'}, timezone=BERLIN, **reports),
    )
    return Schedule(settings, open_state(settings.state_path), start=start)


def test_a_month_with_a_clock_change_two_days_asleep_and_a_crash(tmp_path):
    began = []
    with use_clock(FakeClock('2026-03-09T12:00Z')) as clock:
        def start(job, due, row):
            began.append(due)
            return Takes(clock, minutes=1e6 if len(began) == 5 else 3)  # the fifth hangs until its process is killed
        schedule = schedule_of(tmp_path, start)
        crashed = False
        while clock.now() < pd.Timestamp('2026-04-09T12:00Z'):
            schedule.tick()
            clock.advance(300)
            if len(began) == 5 and not crashed and clock.now() > began[-1] + pd.Timedelta('20min'):
                crashed = True  # kill -9: nothing is closed, a new process starts
                schedule = schedule_of(tmp_path, start)
            if pd.Timestamp('2026-03-20T20:00Z') < clock.now() < pd.Timestamp('2026-03-20T20:10Z'):
                clock.advance(2 * 86400)     # asleep
        table = list_runs(schedule.engine, 200)
    done = table[table.state == 'done']
    assert done.due.is_unique and table.state.value_counts().to_dict() == {'done': len(done), 'lost': 1}
    wall = [t.tz_convert(BERLIN) for t in sorted(done.due)]
    days = [t.date() for t in wall]
    expected = {(datetime(2026, 3, 10) + timedelta(days=k)).date() for k in range(31)} - {
        datetime(2026, 3, 21).date()
    }  # the 21st was slept through, the 22nd made up for
    assert set(days) == expected and len(days) == len(expected)
    assert {t.strftime('%H:%M') for t in wall} == {'02:30', '03:30'} and [t.day for t in wall if t.hour == 3] == [
        29
    ]  # 02:30 did not exist on the 29th


def test_nothing_that_was_due_before_the_first_start_is_made_up_for(tmp_path):
    began = []
    with use_clock(FakeClock('2026-01-05T12:00Z')) as clock:
        schedule = schedule_of(tmp_path, lambda job, due, row: began.append(due) or Takes(clock, 0))
        schedule.tick(); clock.advance(3600); schedule.tick()
    assert began == []


@pytest.mark.parametrize('ahead', ['3h', '1D', '400D'])
@pytest.mark.parametrize('restarted', [False, True])
def test_after_a_clock_was_put_back_reports_come_as_before(tmp_path, ahead, restarted):
    began = []
    with use_clock(FakeClock(pd.Timestamp('2026-01-05T12:00Z') + pd.Timedelta(ahead))) as clock:
        start = lambda job, due, row: began.append(due) or Takes(clock)
        schedule = schedule_of(tmp_path, start)
        for _ in range(4): schedule.tick(); clock.advance(300)
        clock.set('2026-01-05T12:20Z')
        if restarted: schedule = schedule_of(tmp_path, start)
        while clock.now() < pd.Timestamp('2026-01-09T12:00Z'): schedule.tick(); clock.advance(300)
    assert [t.tz_convert(BERLIN).strftime('%d %H:%M') for t in began] == [
        '06 02:30',
        '07 02:30',
        '08 02:30',
        '09 02:30',
    ]


def test_two_reports_due_at_once_run_one_after_the_other(tmp_path):
    running = []
    with use_clock(FakeClock('2026-01-05T00:00Z')) as clock:
        settings = Settings(data_dir=tmp_path, reports=dict(schedule={'daily': '0 6 * * *', 'incident': '0 6 * * *'}))
        def start(job, due, row):
            assert not [r for r in running if r.poll() is None], 'two at once'
            running.append(Takes(clock, 10))
            return running[-1]
        schedule = Schedule(settings, open_state(settings.state_path), start=start)
        for _ in range(200): schedule.tick(); clock.advance(300)
    assert len(running) == 2


def test_a_second_process_on_the_same_folder_starts_nothing_twice(tmp_path):
    began = []
    with use_clock(FakeClock('2026-01-05T00:00Z')) as clock:
        both = [schedule_of(tmp_path, lambda job, due, row: began.append(due) or Takes(clock, 1)) for _ in range(2)]
        for _ in range(1000):
            for schedule in both: schedule.tick()
            clock.advance(300)
    assert len(began) == len(set(began)) == 4


def test_a_report_that_takes_too_long_is_stopped_and_told(tmp_path, caplog):
    with use_clock(FakeClock('2026-01-05T00:00Z')) as clock:
        slow = []
        schedule = schedule_of(
            tmp_path, lambda job, due, row: slow.append(Takes(clock, 1e6)) or slow[-1], timeout_seconds=600
        )
        logging.getLogger('smartcloudops').propagate = True
        with caplog.at_level('INFO'):
            for _ in range(40): schedule.tick(); clock.advance(300)
        table = list_runs(schedule.engine)
    assert slow[0].stopped and table.state.tolist() == ['failed'] and 'too long' in table.detail[0]
    assert 'report daily failed' in caplog.text


def test_old_reports_go_and_other_files_stay(tmp_path):
    folder = tmp_path/'reports'
    folder.mkdir()
    for name in (
        'daily-20250101-0230.html',
        'daily-20250101-0230.json',
        'daily-20260104-0230.html',
        'notes-2025.txt',
        'my-20250101-0230.csv',
    ):
        (folder/name).write_text('x')
    with use_clock(FakeClock('2026-01-05T00:00Z')) as clock:
        gone = tidy_reports(schedule_of(tmp_path, None, keep_days=30).settings, clock.now())
    assert gone == 2 and sorted(f.name for f in folder.iterdir()) == [
        'daily-20260104-0230.html',
        'my-20250101-0230.csv',
        'notes-2025.txt',
    ]


@pytest.mark.parametrize(
    'reports, said',
    [
        (dict(schedule={'dayly': '0 6 * * *'}), "'daily'"),
        (dict(schedule={'daily': '0 6 * *'}), 'five fields'),
        (dict(schedule={'daily': '61 6 * * *'}), 'not a cron'),
        (dict(schedule={'daily': '0 6 * * *'}, timezone='Europe/Berlinn'), 'Berlinn'),
        (dict(schedule={'daily': '0 6 * * *'}, parameters={'daily': {'dy': 'x'}}), "'day'"),
    ],
)
def test_a_wrong_schedule_is_an_error_at_the_start(reports, said):
    with pytest.raises(ConfigError, match=said): jobs(Settings(reports=reports))


EXPRESSIONS = ['30 2 * * *', '0 * * * *', '*/20 * * * *', '15 6 * * 1-5', '0 0 1 * *', '30 1,2,3 * * *', '5 */3 * * *']


@hypothesis_settings(max_examples=soak(60, 2000))
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([BERLIN, 'UTC', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata']),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),
)
def test_next_and_last_agree_and_move_on(expression, zone, at):
    at = pd.Timestamp(at, tz='UTC').floor('s')
    coming = next_due(expression, at, zone)
    assert coming > at and last_due(expression, coming, zone) == coming
    assert last_due(expression, coming - pd.Timedelta('1s'), zone) <= at
    assert next_due(expression, last_due(expression, at, zone), zone) == coming


@pytest.mark.parametrize('zone', [BERLIN, 'America/New_York'])
def test_a_year_of_a_fixed_hour_has_one_a_day_and_of_every_hour_one_an_hour(zone):
    at, daily = pd.Timestamp('2026-01-01', tz=zone).tz_convert('UTC'), []
    while (at := next_due('30 2 * * *', at, zone)) < pd.Timestamp('2027-01-01', tz=zone):
        daily.append(at.tz_convert(zone).date())
    assert len(daily) == len(set(daily)) == 365
    for change in ('2026-03-08', '2026-03-29', '2026-10-25', '2026-11-01'):
        at, hours = pd.Timestamp(change, tz='UTC') - pd.Timedelta('12h'), []
        for _ in range(36): hours.append(at := next_due('0 * * * *', at, zone))
        assert set(pd.Series(hours).diff().dropna()) == {pd.Timedelta('1h')}


def test_the_child_process_runs_the_report_and_writes_down_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        data_dir=tmp_path / 'data',
        reports_dir=tmp_path / 'reports',
        reports=dict(schedule={'policy_backtest': '*/5 * * * *'}),
    )
    schedule = Schedule(settings, open_state(settings.state_path))
    at = pd.Timestamp.now(tz='UTC')
    schedule.tick(at - pd.Timedelta('11min'))
    assert schedule.tick(at), 'one is due'
    assert schedule.running.process.process.wait(200) == 0
    schedule.tick(at + pd.Timedelta('1s'))
    table = list_runs(schedule.engine)
    assert table.state.iloc[-1] == 'done' and len(list((tmp_path/'reports').glob('policy_backtest-*.html'))) == 1
    assert json.loads(table.detail.iloc[-1])['html'].endswith('.html')
    schedule.close()


def test_reports_of_two_schedules_wait_for_each_other(tmp_path, monkeypatch):
    """The loop's and `smartcloudops schedule`'s, due in the same minute: the second failed at once and was not tried
    again."""
    (tmp_path / 'c.toml').write_text(
        f'data_dir = "{tmp_path/"data"}"\nreports_dir = "{tmp_path/"reports"}"\n[reports.schedule]\npolicy_backtest ='
        ' "* * * * *"\n'
    )
    settings = load_settings(tmp_path/'c.toml')
    schedule = Schedule(settings, open_state(settings.state_path), config=tmp_path/'c.toml')
    schedule.tick(pd.Timestamp('2026-03-09T12:00:30Z'))
    with schedule.lock.take():
        monkeypatch.setattr(
            schedule.lock, 'free', lambda: True
        )  # the other has not come to the lock yet when ours is begun
        at = pd.Timestamp('2026-03-09T12:01:10Z')
        assert schedule.tick(at)
        with pytest.raises(subprocess.TimeoutExpired): schedule.running.process.process.wait(6)
    assert schedule.running.process.process.wait(120) == 0
    schedule.tick(at)
    assert list_runs(schedule.engine).state.tolist() == ['done']


def test_alone_it_stops_when_told(tmp_path):
    stop = threading.Event()
    schedule = schedule_of(tmp_path, None)
    thread = threading.Thread(target=schedule.run, args=(stop,))
    thread.start(); stop.set(); thread.join(20)
    assert not thread.is_alive()


@pytest.mark.skipif(not shutil.which('systemd-analyze'), reason='no systemd here')
def test_systemd_understands_the_timers_and_means_the_same(tmp_path):
    settings = Settings(reports=dict(schedule={'daily': '15 6 * * 1-5'}, timezone=BERLIN))
    for name, text in as_systemd(settings, command='/bin/true', folder='/tmp').items(): (tmp_path/name).write_text(text)
    checked = subprocess.run(
        ['systemd-analyze', 'verify', *map(str, tmp_path.glob('*.timer'))], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    for expression in EXPRESSIONS:
        if len(lines := on_calendar(expression, BERLIN)) > 1: continue
        out = subprocess.run(
            ['systemd-analyze', 'calendar', '--base-time', '2026-05-05 10:00:00 UTC', lines[0]],
            capture_output=True,
            text=True,
            env=dict(TZ='UTC', PATH='/usr/bin:/bin'),
        )
        assert out.returncode == 0, (expression, out.stderr)
        shown = next(
            l.split(': ', 1)[1] for l in out.stdout.splitlines() if l.strip().startswith(('Next elapse', '(in UTC)'))
        )
        assert pd.Timestamp(shown.split(' ', 1)[1].removesuffix(' UTC'), tz='UTC') == next_due(
            expression, pd.Timestamp('2026-05-05T10:00Z'), BERLIN
        ), (expression, out.stdout)


def test_crontab_lines_keep_the_expression():
    text = as_cron(Settings(reports=dict(schedule={'daily': '15 6 * * 1-5'}, timezone=BERLIN)))
    assert 'CRON_TZ=Europe/Berlin' in text and '15 6 * * 1-5 cd ' in text and 'smartcloudops report daily' in text


def test_timers_and_crontab_bring_parameters_and_place_whole(tmp_path):
    "What is quoted here arrives as one word there, and a percent sign stays one."
    settings = Settings(
        data_dir=tmp_path / 'my data',
        reports=dict(
            schedule={'daily': '15 6 * * *'},
            parameters={'daily': {'data_dir': 'a folder/100% $HOME'}},
            out='s3://mornings/team',
        ),
    )
    service = as_systemd(settings, folder='/tmp/50%')['smartcloudops-report-daily.service']
    assert (
        'ExecStart=smartcloudops report daily -p data_dir "a folder/100%% $$HOME" --out s3://mornings/team\nTimeout'
        in service
        and 'WorkingDirectory=/tmp/50%%\n' in service
    )
    line = as_cron(settings, command='/bin/echo').splitlines()[-1]
    assert '100\\%' in line
    (tmp_path/'my data').mkdir()
    shown = subprocess.run(['sh', '-c', line.split(' ', 5)[5].replace('\\%', '%')], capture_output=True, text=True)
    assert shown.stdout == 'report daily -p data_dir a folder/100% $HOME --out s3://mornings/team\n', shown.stderr


def test_a_failure_reaches_the_people_who_are_named(tmp_path):
    "Over real HTTP: a webhook hears which report failed and why."
    import http.server
    heard = []
    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(self.rfile.read(int(self.headers['Content-Length'])).decode())
            self.send_response(200)
            self.end_headers()
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with use_clock(FakeClock('2026-01-05T00:00Z')) as clock:
            settings = Settings(
                data_dir=tmp_path / 'data',
                reports=dict(schedule={'daily': '30 2 * * *'}),
                notify=dict(urls=[f'json://127.0.0.1:{server.server_port}/']),
            )
            schedule = Schedule(
                settings, open_state(settings.state_path), start=lambda job, due, row: Takes(clock, 3, code=1)
            )
            for _ in range(60): schedule.tick(); clock.advance(300)
            assert schedule.notifier.flush(20)
    finally: server.shutdown()
    assert len(heard) == 1 and 'report daily failed' in heard[0] and 'exit code 1' in heard[0]


@pytest.mark.parametrize('form', ['systemd', 'cron'])
def test_what_is_printed_for_systemd_and_cron_runs_where_nothing_is_set(tmp_path, form):
    """From another folder, with an empty environment: the program is found, and it reads the settings that the schedule
    stood in."""
    import shlex
    program = Path(sys.executable).parent/'smartcloudops'
    (tmp_path/'own.toml').write_text('[reports]\nschedule = {daily = "15 6 * * *"}\nkeep_days = 77')
    said = subprocess.run(
        [program, '--config', 'own.toml', 'schedule', '--as', form],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(
        l.partition('ExecStart=')[2] if form == 'systemd' else l.split(' flock ')[1].partition(' ')[2]
        for l in said.splitlines()
        if 'report daily' in l and ('ExecStart=' in l or ' flock ' in l)
    )
    words = shlex.split(line)
    assert words[-2:] == ['report', 'daily']
    shown = subprocess.run([*words[:-2], 'config', 'show'], cwd='/', env={}, capture_output=True, text=True)
    assert shown.returncode == 0 and 'keep_days = 77' in shown.stdout, shown.stderr
