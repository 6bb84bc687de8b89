"Reports: each is executed, leaves a notebook, a page and results; a failing check is exit 1; the page asks nobody for anything."
import json, os, re, subprocess, sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from smartcloudops.core.runtime import MissingExtraError, UsageError
from smartcloudops.reporting import ReportError, list_reports, run_report

pytestmark = pytest.mark.phase7
SCRIPT = Path(sys.executable).parent/'smartcloudops'


def small(folder: Path, check: str = 'assert a < b', name: str = 'sums') -> Path:
    "A report of four cells."
    cells = [new_markdown_cell('# Sums\n> Adds what it is given'), new_code_cell('a = 1\nb = 2.5\nword = "x"\nloud = False', metadata=dict(tags=['parameters'])),
             new_code_cell('from smartcloudops.reporting import record\nrecord(total=a + b, word=word, loud=loud)'), new_code_cell(check)]
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
    assert kept['parameters'] == dict(a=4, b=5.0, word='7', loud=True) and kept['result'] == run.result and kept['error'] == ''
    page = Path(run.html).read_text()
    assert 'assert' not in page and '<script' not in page and not re.search(r'''(src|href)=["']https?:''', page)
    assert nbformat.read(run.notebook, 4).cells[-1].source == 'assert a < b'
    assert sorted(f.suffix for f in (tmp_path/'out').iterdir()) == ['.html', '.ipynb', '.json']


def test_two_in_one_second_do_not_overwrite_each_other(tmp_path):
    first, second = (run_report(small(tmp_path), {}, tmp_path/'out', stem='same') for _ in range(2))
    assert first.json != second.json and len(list((tmp_path/'out').glob('*.json'))) == 2


def test_a_failing_check_leaves_a_notebook_that_shows_where(tmp_path):
    with pytest.raises(ReportError, match='a is too small') as failed: run_report(small(tmp_path, 'assert a > 10, "a is too small"'), {}, tmp_path/'out')
    run = failed.value.run
    assert not run.ok and run.result['total'] == 3.5
    assert 'a is too small' in Path(run.html).read_text() and 'AssertionError' in Path(run.notebook).read_text()


def test_a_dying_kernel_and_a_slow_cell_are_failures_like_others(tmp_path):
    with pytest.raises(ReportError, match='(?i)died|dead'): run_report(small(tmp_path, 'import os; os._exit(1)'), {}, tmp_path/'out')
    with pytest.raises(ReportError, match='(?i)time'): run_report(small(tmp_path, 'import time; time.sleep(60)'), {}, tmp_path/'out', timeout=2)


@pytest.mark.parametrize('given, said', [(dict(aa='1'), "did you mean 'a'"), (dict(a='many'), 'a has to be int'), (dict(loud='maybe'), 'loud has to be bool')])
def test_a_wrong_parameter_is_refused_before_anything_runs(tmp_path, given, said):
    with pytest.raises(UsageError, match=said): run_report(small(tmp_path), given, tmp_path/'out')
    assert not (tmp_path/'out').exists()


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'papermill', None)
    with pytest.raises(MissingExtraError, match=r'smartcloudops\[reports\]'): run_report(small(tmp_path), {}, tmp_path/'out')


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


def test_an_incident_that_does_not_exist_is_said(tmp_path, place):
    with pytest.raises(ReportError, match='no incident 99'): run_report('incident', dict(data_dir=str(place), incident='99'), tmp_path/'out')


def test_the_command_ends_with_1_when_a_check_fails_and_2_when_misused(tmp_path):
    small(tmp_path, 'assert False, "no"', 'mine')
    failed = subprocess.run([SCRIPT, 'report', str(tmp_path/'mine.ipynb')], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and 'no' in failed.stderr and 'Traceback' not in failed.stderr
    unknown = subprocess.run([SCRIPT, 'report', 'dayly'], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2 and "'daily'" in unknown.stderr
