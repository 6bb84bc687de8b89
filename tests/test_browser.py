"The page in a real browser: an incident's story, keyboard, phone, dark, without JavaScript, nothing from elsewhere."

import re
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Error, expect, sync_playwright

import smartcloudops
from smartcloudops.core.clock import FakeClock, now, use_clock
from smartcloudops.core.database import open_state
from smartcloudops.core.inventory import own_host
from smartcloudops.core.kv import write_heartbeat
from smartcloudops.monitoring.history import History
from smartcloudops.remediation.ledger import Ledger
from smartcloudops.remediation.policy import load_policies
from tests.conftest import soak
from tests.fleet import anomaly, build, case, plan
from tests.screenshots import CHROMIUM, CPU, serving

pytestmark = pytest.mark.phase5
PAGES = [
    '/',
    '/incidents/6',
    '/incidents/5',
    '/incidents/1',
    '/incidents',
    '/hosts',
    '/hosts/web-7',
    '/hosts/web-7?start=2026-01-01&end=2026-01-02',
    f'/series/{CPU}',
    '/actions',
    '/policies',
    '/silences',
    '/reports',
    '/aws-health',
    '/settings',
    '/nothing',
]
AXE = (Path(__file__).parent / 'vendor' / 'axe' / 'axe.min.js').read_text()


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as p:
        chromium = p.chromium.launch(**CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope='module')
def night(tmp_path_factory):
    with serving(build(tmp_path_factory.mktemp('night'))) as address:
        yield address


class Watched:
    "A page whose console, errors and requests are written down."

    def __init__(self, browser, **look):
        self.context = browser.new_context(
            **{'viewport': dict(width=1280, height=800), 'reduced_motion': 'reduce', **look}
        )
        self.page, self.wrong, self.asked = self.context.new_page(), [], []
        self.page.on('console', lambda m: m.type in ('error', 'warning') and self.wrong.append(m.text))
        self.page.on('pageerror', lambda e: self.wrong.append(str(e)))
        self.page.on('request', lambda r: self.asked.append(r.url))

    def open(self, address: str):
        self.page.goto(address)
        self.page.wait_for_selector('html[data-drawn="1"]', state='attached')
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


def violations(page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")['violations']
    return [
        f"{v['id']}: {n['html'][:120]} | {(n['any'] or n['all'] or n['none'] or [{}])[0].get('message', '')[:120]}"
        for v in found
        for n in v['nodes'][:3]
    ]


@pytest.mark.parametrize('look', ['light', 'dark', 'phone'])
def test_every_page_is_accessible_and_quiet(browser, night, look):
    options = dict(light={}, dark=dict(color_scheme='dark'), phone=dict(viewport=dict(width=360, height=780)))[look]
    with Watched(browser, **options) as w:
        for path in PAGES if look == 'light' else PAGES[:: soak(4, 1)]:
            page = w.open(night + path)
            assert violations(page) == [], path
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth + 1'), (
                f'{path} is wider than the screen'
            )
        assert [t for t in w.wrong if '404' not in t] == []
        assert all(url.startswith((night, 'data:')) for url in w.asked)


def test_the_login_is_accessible_and_lets_one_in(browser, tmp_path):
    from smartcloudops.dashboard import hash_password

    folder = build(tmp_path, hosts={'web': 8, 'worker': 13})
    with (
        serving(folder, dashboard=dict(users={'mara': 'operator:' + hash_password('correct horse')})) as address,
        Watched(browser, viewport=dict(width=360, height=780)) as w,
    ):
        page = w.page
        page.goto(address + '/hosts')
        assert '/login?next=/hosts' in page.url and violations(page) == []
        page.keyboard.type('mara')
        page.keyboard.press('Tab')
        page.keyboard.type('wrong')
        page.keyboard.press('Enter')
        expect(page.locator('[role=alert]')).to_contain_text('do not belong together')
        assert violations(page) == []
        page.get_by_label('Name').fill('mara')
        page.get_by_label('Password').fill('correct horse')
        page.keyboard.press('Enter')
        page.wait_for_url('**/hosts')
        expect(page.get_by_role('button', name='log out mara')).to_be_visible()
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth + 1')


def test_without_room_for_a_stream_the_page_polls(browser, tmp_path):
    import httpx

    engine = open_state(build(tmp_path, hosts={'web': 8, 'worker': 13}) / 'smartcloudops.db')
    with (
        serving(tmp_path, dashboard=dict(streams=1)) as address,
        httpx.stream('GET', f'{address}/events', timeout=60) as held,
        Watched(browser) as w,
    ):
        heard = held.iter_text()  # kept: dropping it would close the stream
        assert 'hello' in next(heard)
        page = w.open(address)
        write_heartbeat(engine, 'loop', {'interval': 15.0, 'lag_seconds': 4321.0}, now())
        expect(page.locator('.loop')).to_contain_text('1\u202fh 12', timeout=20_000)
        expect(page.locator('[data-live] .state')).to_have_attribute('data-s', 'live')
        assert any('/api/v1/status' in u for u in w.asked)


def tick_box(box, on: bool):
    "Set a box that may be drawn anew while it is clicked."
    for last in (False, False, True):
        try:
            return box.set_checked(on)
        except Error:
            if last:
                raise


def test_the_age_of_every_host_when_asked_for(browser, tmp_path):
    "At the moment for which its night was made, however long the tests before took."
    at = now()
    with use_clock(FakeClock(at)), serving(build(tmp_path, at)) as address, Watched(browser) as w:
        page = w.open(address)
        cell = page.locator('[data-host="api-1"]')
        assert cell.locator('small').count() == 0
        tick_box(page.get_by_label('age on every host'), True)
        expect(cell.locator('small')).to_have_text(re.compile(r'\d+\u202f(s|min)'))
        cell.hover()
        expect(cell).to_have_attribute('title', re.compile(r'api-1: as expected, data \d+\u202f\w+ old'))
        tick_box(page.get_by_label('age on every host'), False)
        expect(cell.locator('small')).to_have_count(0)
        assert w.wrong == []


def test_dialogs_are_accessible_too(browser, night):
    with Watched(browser) as w:
        page = w.open(night + '/incidents/6')
        for key, dialog in (('?', 'help'), ('a', 'approve'), ('d', 'deny'), ('s', 'silence')):
            page.keyboard.press(key)
            expect(page.locator(f'dialog#{dialog}')).to_be_visible()
            assert violations(page) == [], dialog
            page.keyboard.press('Escape')
            expect(page.locator(f'dialog#{dialog}')).to_be_hidden()


def test_the_page_is_quiet_then_tells_and_an_operator_decides(browser, tmp_path):
    "From nothing abnormal over a decision to recovered; the test is the loop, the browser the person on call."
    folder = build(tmp_path, quiet=True, hosts={'web': 8})
    engine, policies = open_state(folder / 'smartcloudops.db'), load_policies(folder / 'policies.yaml')
    ledger, policy = Ledger(engine), policies.named('web-cpu-worker')
    tick = lambda: write_heartbeat(engine, 'loop', dict(interval=15.0, tick_seconds=0.2, lag_seconds=4.0), now())
    with serving(folder) as address, Watched(browser) as w:
        page = w.open(address)
        expect(page.locator('h1')).to_contain_text('Nothing is abnormal')
        at = now()
        told = case(
            engine,
            [anomaly('web-7', 'cpu_utilization_percent', at - pd.Timedelta('2min'), at, 97)],
            at - pd.Timedelta('1min'),
            at,
        )
        action = ledger.record(plan(told, policy, 'web-7', 0, at, 97.0), 'Restart worker.service on web-7', at=at)
        ledger.change(action.id, 'awaiting_approval', at=at)
        tick()
        expect(page.locator('h1')).to_contain_text('1 waits for you', timeout=8000)
        expect(page.locator('[data-host="web-7"]')).to_have_attribute('data-s', 'abnormal')
        page.get_by_role('link', name='Review and decide').click()
        expect(page.locator('[data-gate="approval"]')).to_contain_text('one operator has to say yes')
        page.locator('.decide').get_by_role('button', name='Approve…').click()
        page.get_by_role('button', name='Approve and send').click()
        expect(page.locator('[data-toast]')).to_contain_text('Approved by local')
        assert ledger.action(action.id).state == 'approved'
        sent = now()
        ledger.intend(
            action.id, ledger.take_lease('loop', 60), sent, judge_from=sent, judge_until=sent + pd.Timedelta('3min')
        )
        ledger.change(action.id, 'verifying', 'Sent.')
        tick()
        expect(page.locator('[data-incident]')).to_have_attribute('data-s', 'verifying', timeout=8000)
        ledger.change(action.id, 'recovered', 'cpu 31\u202f%, expected 20–44\u202f%, for 3\u202fmin.')
        from dataclasses import replace

        from smartcloudops.detection import incidents as cases

        over = replace(cases.get_incident(engine, told.id), state='closed', closed=now())
        cases.IncidentStore(engine).write(over, now(), True)
        tick()
        expect(page.locator('#decide-h')).to_contain_text('Recovered', timeout=8000)
        page.get_by_role('link', name='Now', exact=True).first.click()
        expect(page.locator('h1')).to_contain_text('Nothing is abnormal')
        expect(page.locator('.earlier')).to_contain_text('recovered')
        assert w.wrong == []


def test_a_value_changes_while_one_looks(browser, tmp_path):
    host, engine = own_host(), open_state(tmp_path / 'smartcloudops.db')
    name = f'cpu_utilization_percent{{host="{host}"}}'
    (tmp_path / 'policies.yaml').write_text('policies: []\n')

    def tick(value):
        with History(tmp_path / 'history.db') as history:
            history.append(pd.DataFrame({name: [value]}, index=pd.DatetimeIndex([now()], name='time')))
        write_heartbeat(engine, 'loop', {'interval': 5.0}, now())

    for value in (10.0, 11.0, 12.0):
        tick(value)
    with serving(tmp_path) as address, Watched(browser) as w:
        page = w.open(address)
        reading = page.locator(f'[data-reading][data-series="cpu_utilization_percent{{host=\\"{host}\\"}}"]')
        expect(reading).to_have_attribute('data-value', '12')
        tick(83.25)
        expect(reading).to_have_attribute('data-value', '83.25', timeout=8000)
        expect(reading).to_contain_text('83')
        assert w.wrong == []


ACCENT = """e => { const seen = e.querySelector('canvas'), c = new OffscreenCanvas(seen.width, seen.height);
  const to = c.getContext('2d', {willReadFrequently: true}); to.drawImage(seen, 0, 0);
  const p = document.createElement('span'); p.style.color = 'var(--accent)'; document.body.append(p);
  const want = getComputedStyle(p).color.match(/\\d+/g).slice(0, 3).map(Number);
  const d = to.getImageData(0, 0, c.width, c.height).data; let n = 0;
  for (let i = 0; i < d.length; i += 4)
    if (d[i + 3] > 200 && want.every((x, k) => Math.abs(x - d[i + k]) < 12)) n += 1; return n }"""


def test_rewritten_points_are_circles_with_a_word(browser, tmp_path):
    "On the canvas in the accent colour, in words under the cursor; and a chart that is open hears of a correction."
    folder = build(tmp_path, quiet=True, hosts={'web': 8})
    with serving(folder) as address, Watched(browser) as w:
        page = w.open(f'{address}/series/{CPU}?range=1h')
        plot = page.locator('.plot')
        before = plot.evaluate(ACCENT)
        assert before > 10
        expect(page.locator('#quality')).to_contain_text('rewritten 4')
        plot.focus()
        said = set()
        for _ in range(110):
            page.keyboard.press('ArrowLeft')
            said.add('rewritten' in page.locator('.chart [data-reading]').inner_text())
        assert said == {True, False}
        with History(folder / 'history.db') as history:
            history.append(history.read('cpu_utilization_percent{host="web-7"}').iloc[-140:-130] + 4.0)
        page.wait_for_function(f'() => ({ACCENT})(document.querySelector(".plot")) > {before} + 20', timeout=20_000)
        assert w.wrong == []
    with Watched(browser, java_script_enabled=False) as w, serving(folder) as address:
        w.page.goto(f'{address}/series/{CPU}?range=1h')
        assert w.page.locator('.plot .re').count() == 2 and '14 rewritten' in w.page.locator('.plot').inner_text()


def test_a_finger_zooms_and_a_button_leads_back(browser, night):
    with Watched(browser, viewport=dict(width=390, height=844), has_touch=True) as w:
        page = w.open(f'{night}/series/{CPU}?range=6h')
        page.locator('.plot').scroll_into_view_if_needed()
        touch, over, zoomed = (
            w.context.new_cdp_session(page),
            page.locator('.plot .u-over'),
            lambda: [u for u in w.asked if '/api/v1/points' in u and 'start=' in u],
        )

        def drag():
            box = over.bounding_box()
            go = lambda kind, *points: touch.send(
                'Input.dispatchTouchEvent',
                dict(type=kind, touchPoints=[dict(x=box['x'] + x, y=box['y'] + y) for x, y in points]),
            )
            go('touchStart', (60, 80))
            for x in range(70, 161, 15):
                go('touchMove', (x, 80))
            go('touchEnd')

        for _ in range(3):  # a chart that is drawn anew under the finger lets it go, as for a person
            drag()
            page.wait_for_timeout(1500)
            if page.locator('.unzoom').count():
                break
        expect(page.locator('.unzoom')).to_be_visible()
        start, end = (float(re.search(rf'{name}=([\d.]+)', zoomed()[-1])[1]) for name in ('start', 'end'))
        assert 1800 < end - start < 18_000
        assert violations(page) == []
        for _ in range(3):
            page.locator('.unzoom').tap()
            page.wait_for_timeout(1000)
            if not page.locator('.unzoom').count():
                break
        expect(page.locator('.unzoom')).to_have_count(0)
        assert page.evaluate('document.activeElement.classList.contains("plot")') and w.wrong == []


def test_pages_without_charts_do_not_stand_still_either(browser, tmp_path):
    "A host that becomes abnormal while somebody looks at its page or at the list; what is being typed stays."
    folder = build(tmp_path, quiet=True, hosts={'web': 8})
    engine = open_state(folder / 'smartcloudops.db')
    with serving(folder) as address, Watched(browser) as one, Watched(browser) as all_, Watched(browser) as quiet:
        host, hosts, silences = (
            one.open(f'{address}/hosts/web-7'),
            all_.open(f'{address}/hosts'),
            quiet.open(f'{address}/silences'),
        )
        expect(host.locator('h1 .state')).to_contain_text('as expected')
        silences.get_by_label('Reason').fill('I am writing')
        at = now()
        case(
            engine,
            [anomaly('web-7', 'cpu_utilization_percent', at - pd.Timedelta('2min'), at, 97)],
            at - pd.Timedelta('1min'),
            at,
        )
        Ledger(engine).add_silence('web-2', '*', at, at + pd.Timedelta('1h'), 'jon', 'work', at=at)
        write_heartbeat(engine, 'loop', dict(interval=15.0, tick_seconds=0.2, lag_seconds=4.0), now())
        expect(host.locator('h1 .state')).to_contain_text('abnormal', timeout=20_000)
        expect(hosts.locator('[data-host="web-7"]')).to_have_attribute('data-s', 'abnormal', timeout=20_000)
        expect(silences.locator('#rows')).to_contain_text('web-2', timeout=20_000)
        expect(silences.get_by_label('Reason')).to_have_value('I am writing')
        assert one.wrong == all_.wrong == quiet.wrong == []


def test_a_stretch_is_chosen_in_the_reader_s_zone(browser, night):
    with Watched(browser, timezone_id='America/New_York') as w:
        page = w.open(f'{night}/hosts/web-7?range=1h')
        page.get_by_text('from … to').click()
        expect(page.locator('[data-zone]')).to_have_text('America/New_York')
        page.get_by_label('from').fill('2026-03-01T08:00:00')
        page.get_by_label('to', exact=True).fill('2026-03-01T09:30:00')
        page.get_by_role('button', name='Show', exact=True).click()
        page.wait_for_url('**start=2026-03-01T13%3A00%3A00Z&end=2026-03-01T14%3A30%3A00Z')
        expect(page.locator('.between summary')).to_contain_text('1\u202fh 30\u202fmin')
        page.get_by_role('link', name='earlier').click()
        page.wait_for_url('**start=2026-03-01T11%3A30%3A00Z&end=2026-03-01T13%3A00%3A00Z')
        assert [t for t in w.wrong if '404' not in t] == []


def test_keyboard_alone(browser, night):
    with Watched(browser) as w:
        page = w.open(night)
        page.keyboard.press('Tab')
        expect(page.locator('.skip')).to_be_focused()
        page.keyboard.press('j')
        expect(page.locator('[data-row].sel')).to_have_attribute('data-incident', '6')
        page.keyboard.press('j')
        page.keyboard.press('k')
        page.keyboard.press('Enter')
        page.wait_for_url('**/incidents/6')
        page.wait_for_selector('html[data-drawn="1"]', state='attached')
        page.keyboard.press('a')
        expect(page.get_by_role('button', name='Approve and send')).to_be_focused()
        page.keyboard.press('Escape')
        chart = page.locator('.plot').first
        chart.focus()
        page.keyboard.press('ArrowLeft')
        reading = page.locator('.evidence [data-reading]').first
        expect(reading).to_contain_text(':')  # the time under the cursor
        page.keyboard.press('+')
        page.keyboard.press('0')
        page.locator('body').click(position=dict(x=5, y=400))
        page.keyboard.press('g')
        page.keyboard.press('h')
        page.wait_for_url('**/hosts')
        page.keyboard.press('t')
        expect(page.locator('html')).to_have_attribute('data-theme', 'light')
        page.keyboard.press('t')
        expect(page.locator('html')).to_have_attribute('data-theme', 'dark')
        page.reload()
        expect(page.locator('html')).to_have_attribute('data-theme', 'dark')  # remembered, before anything is painted
        assert w.wrong == []


def test_without_javascript_one_can_read_and_decide(browser, tmp_path):
    with (
        serving(build(tmp_path, hosts={'web': 8, 'worker': 13})) as address,
        Watched(browser, java_script_enabled=False) as w,
    ):
        page = w.page
        page.goto(address)
        assert '1 waits for you' in page.locator('h1').inner_text()
        assert (
            re.search(r'as of \d\d:\d\d:\d\d, all times UTC; reload', page.locator('.live').inner_text())
            and 'live' not in page.locator('.live').inner_text().split()
        )
        assert page.locator('.small noscript svg, .small svg.spark').count() >= 4 or 'spark' in page.content()
        for path in PAGES[:-1]:
            page.goto(address + path)
            assert page.locator('h1').inner_text().strip() and page.locator('main').inner_text().strip(), path
        page.goto(address + '/hosts/web-7')
        assert 'cpu' in page.locator('.stack').inner_text()
        page.goto(address + '/incidents/6')
        page.get_by_role('button', name='Deny').click()
        assert 'Denied' in page.content() and page.get_by_role('button', name='Deny').count() == 0


def test_a_lost_connection_is_said(browser, tmp_path):
    with Watched(browser) as w:
        with serving(build(tmp_path, hosts={'web': 8, 'worker': 13})) as address:
            page = w.open(address)
            expect(page.locator('[data-live] .state')).to_have_attribute('data-s', 'live')
        w.context.set_offline(True)
        expect(page.locator('[data-lost]')).to_contain_text('does not change until it is back', timeout=8000)
        expect(page.locator('[data-live] .state')).to_have_attribute('data-s', 'lost')


def test_zoom_brings_back_what_was_decimated(browser, tmp_path):
    "A chart of many samples is drawn coarse; zooming asks the server for that stretch again."
    folder = build(tmp_path, quiet=True, hosts={'web': 8})
    with serving(folder) as address, Watched(browser) as w:
        page = w.open(f'{address}/series/{CPU}?range=6h')
        box = page.locator('.plot').bounding_box()
        page.mouse.move(box['x'] + 500, box['y'] + 60)
        page.mouse.down()
        page.mouse.move(box['x'] + 700, box['y'] + 60, steps=4)
        page.mouse.up()
        page.wait_for_timeout(600)
        asked = [u for u in w.asked if '/api/v1/points' in u][-1]
        start, end = (float(re.search(rf'{name}=([\d.]+)', asked)[1]) for name in ('start', 'end'))
        assert 1800 < end - start < 6000  # the stretch that was dragged, not the six hours
        assert w.wrong == []


@pytest.mark.parametrize(
    'values, unit, labels',
    [
        ([0, 2.5, 5], 'percent', ['0 %', '2.5 %', '5.0 %']),
        ([0.4], '', ['0.4']),
        ([0, 25, 50], 'percent', ['0 %', '25 %', '50 %']),
        ([57, 57.2], 'percent', ['57.0 %', '57.2 %']),
    ],
)
def test_the_labels_of_an_axis_say_where_they_stand(browser, values, unit, labels):
    "The page's own function, out of its script: 2.5 is neither 2 nor 3."
    lines = (Path(smartcloudops.__file__).parent / 'dashboard/static/charts.js').read_text().split('\n')
    upto = next(n for n, line in enumerate(lines) if line.startswith('const ticks'))
    page = browser.new_page()
    told = page.evaluate(f"() => {{ {' '.join(lines[2 : upto + 1])}; return ticks({values}, '{unit}') }}")
    page.close()
    assert [t.replace('\u202f', ' ') for t in told] == labels
