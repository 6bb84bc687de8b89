"The documentation: builds without a warning, no dead link, nothing loaded from elsewhere, the search works from the disk."
import importlib.util, re, subprocess, sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.phase7
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def build(tmp_path_factory):
    "docs/build.py with its output in a folder of its own, run once."
    spec = importlib.util.spec_from_file_location('docs_build', ROOT/'docs'/'build.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    place = tmp_path_factory.mktemp('site')
    module.WORK, module.SITE, module.SRC = place/'work', place/'site', place/'work'/'src'
    module.code_of_build = module.main()
    return module


def test_it_builds_without_warning_and_every_link_leads_somewhere(build):
    assert build.code_of_build == 0
    assert build.problems(build.SITE) == []
    names = {p.relative_to(build.SITE).as_posix() for p in build.SITE.rglob('*.html')}
    assert {'index.html', 'install.html', 'howto.html', 'architecture.html', 'operations.html', 'security.html', 'reference/core/frames.html', 'reference/explore.html', 'reports/daily.html', 'tutorials/index.html'} <= names


def test_every_module_has_its_page_with_parameters_explained(build):
    for notebook in (ROOT/'nbs').rglob('*.ipynb'):
        text = notebook.read_text(encoding='utf-8')
        if '.ipynb_checkpoints' in notebook.parts or 'default_exp' not in text: continue
        page = (build.SRC/build.page_name(notebook.relative_to(ROOT)))
        assert page.exists() and '# ' in page.read_text(encoding='utf-8'), notebook
    page = (build.SITE/'reference'/'explore.html').read_text(encoding='utf-8')
    assert 'load_history' in page and 'canonical series names' in page


def test_the_link_check_finds_what_is_broken(build, tmp_path):
    (tmp_path/'a.html').write_text('<a href="b.html">x</a><a href="#no">x</a><img src="https://elsewhere.example/x.png"><p id="yes"><a href="a.html#yes">x</a>')
    (tmp_path/'s.css').write_text('body{background:url(https://elsewhere.example/y.png)}')
    found = build.problems(tmp_path)
    assert len(found) == 4 and any('b.html is not there' in f for f in found) and any('#no has no such place' in f for f in found)


def test_the_search_works_from_the_disk_and_asks_nobody(build):
    from playwright.sync_api import sync_playwright
    asked = []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox', '--allow-file-access-from-files'])
        tab = browser.new_page()
        tab.on('request', lambda r: asked.append(r.url) if r.url.startswith('http') else None)
        tab.goto((build.SITE/'index.html').as_uri())
        tab.wait_for_timeout(1000)
        tab.locator('input[name=query]').first.fill('hash-chained ledger')
        tab.wait_for_selector('.md-search-result__item a', timeout=20_000)
        assert tab.locator('.md-search-result__item').count() >= 1
        tab.goto((build.SITE/'architecture.html').as_uri())
        assert tab.eval_on_selector_all('.md-content img', 'all => all.filter(i => !i.complete || !i.naturalWidth).length') == 0
        browser.close()
    assert asked == []


def test_the_architecture_names_what_is_there():
    text = (ROOT/'docs'/'architecture.md').read_text(encoding='utf-8')
    for room in ('ingestion', 'monitoring', 'detection', 'remediation', 'dashboard'): assert room in text and (ROOT/'smartcloudops'/room).is_dir()
    plan = (ROOT/'docs'/'phase_plan.md').read_text(encoding='utf-8')
    assert all(f'phase{n}' in plan for n in range(8))


def test_the_changelog_has_this_version_once():
    text = (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')
    version = re.search(r'^version = (\S+)', (ROOT/'settings.ini').read_text(), re.M)[1]
    assert text.count(f'## [{version}]') == 1


def test_the_runbook_knows_every_alert_of_our_own():
    rules = (ROOT/'infra'/'prometheus'/'rules'/'smartcloudops.yml').read_text(encoding='utf-8')
    alerts = re.findall(r'alert: (\w+)\n(?:.*\n){1,3}?.*origin: smartcloudops', rules)
    runbook = (ROOT/'docs'/'operations.md').read_text(encoding='utf-8')
    assert alerts and [a for a in alerts if f'| {a} |' not in runbook] == []
