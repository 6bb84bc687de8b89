"""The documentation: builds without a warning, no dead link, nothing loaded from elsewhere, the search works from the
disk."""
import html
import importlib.util
import json
import re
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
    assert {
        'index.html',
        'install.html',
        'howto.html',
        'architecture.html',
        'operations.html',
        'security.html',
        'reference/core/frames.html',
        'reference/explore/samples.html',
        'reports/daily.html',
        'tutorials/index.html',
    } <= names


def test_every_module_has_its_page_with_parameters_explained(build):
    for notebook in (ROOT/'nbs').rglob('*.ipynb'):
        text = notebook.read_text(encoding='utf-8')
        if '.ipynb_checkpoints' in notebook.parts or 'default_exp' not in text: continue
        page = (build.SRC/build.page_name(notebook.relative_to(ROOT)))
        assert page.exists() and '# ' in page.read_text(encoding='utf-8'), notebook
    page = html.unescape((build.SITE/'reference'/'explore'/'samples.html').read_text(encoding='utf-8'))
    assert re.search(
        r'<code>series</code></td>\s*<td><code>str \| list\[str\] \|'
        r' None</code></td>\s*<td><code>None</code></td>\s*<td>canonical series names</td>',
        page,
    )


@pytest.mark.parametrize(
    'room', ['core', 'ingestion', 'monitoring', 'detection', 'remediation', 'dashboard', 'loop', 'explore', 'reporting']
)
def test_every_name_that_a_front_door_hands_on_is_in_the_reference(build, room):
    door = importlib.import_module(f'smartcloudops.{room}')
    for name in door.__all__:
        if name == 'app' or not callable(named := getattr(door, name)): continue
        page = build.SRC/'reference'/Path(*named.__module__.split('.')[1:]).with_suffix('.md')
        assert f'### `{name}`' in page.read_text(encoding='utf-8'), f'{named.__module__}.{name}'


def test_the_link_check_finds_what_is_broken(build, tmp_path):
    (tmp_path / 'a.html').write_text(
        '<a href="b.html">x</a><a href="#no">x</a><img src="https://elsewhere.example/x.png"><p id="yes"><a'
        ' href="a.html#yes">x</a>'
    )
    (tmp_path/'s.css').write_text('body{background:url(https://elsewhere.example/y.png)}')
    found = build.problems(tmp_path)
    assert (
        len(found) == 4
        and any('b.html is not there' in f for f in found)
        and any('#no has no such place' in f for f in found)
    )


def test_the_search_works_from_the_disk_and_asks_nobody(build):
    from playwright.sync_api import sync_playwright
    asked = []
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path='/usr/bin/chromium', args=['--no-sandbox', '--allow-file-access-from-files']
        )
        tab = browser.new_page()
        tab.on('request', lambda r: asked.append(r.url) if r.url.startswith('http') else None)
        tab.goto((build.SITE/'index.html').as_uri())
        tab.wait_for_timeout(1000)
        tab.locator('input[name=query]').first.fill('hash-chained ledger')
        tab.wait_for_selector('.md-search-result__item a', timeout=20_000)
        assert tab.locator('.md-search-result__item').count() >= 1
        tab.goto((build.SITE/'architecture.html').as_uri())
        assert (
            tab.eval_on_selector_all('.md-content img', 'all => all.filter(i => !i.complete || !i.naturalWidth).length')
            == 0
        )
        browser.close()
    assert asked == []


def test_the_architecture_names_what_is_there():
    text = (ROOT/'docs'/'architecture.md').read_text(encoding='utf-8')
    for room in ('ingestion', 'monitoring', 'detection', 'remediation', 'dashboard'):
        assert room in text and (ROOT/'smartcloudops'/room).is_dir()
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


def commands_named() -> dict[str, str]:
    "Each command line of smartcloudops that a text names, and where."
    texts = {p.name: p.read_text(encoding='utf-8') for p in [*(ROOT/'docs').glob('*.md'), *ROOT.glob('*.md')]}
    for path in (ROOT/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' not in path.parts:
            texts[path.name] = '\n'.join(
                ''.join(c['source'])
                for c in json.loads(path.read_text(encoding='utf-8'))['cells']
                if c['cell_type'] == 'markdown'
            )
    found = {}
    for name, text in texts.items():
        for line in re.findall(r'`smartcloudops ([^`\n]+)`', text) + re.findall(
            r'^(?:[A-Z_]+=\S+ )*smartcloudops ([a-z-][^\n]*?)(?: {2,}#.*)?$',
            '\n'.join(re.findall(r'^```(?:bash)?\n(.*?)^```', text, re.S | re.M)),
            re.M,
        ):
            found[line] = name
    return found


def unknown_in(line: str) -> str:
    "The first word of a command line that the program does not know; '' when it knows all of them."
    import shlex

    from smartcloudops.cli import main
    command, words, options = (
        main,
        [w.strip('[],') for w in shlex.split(re.split(r' (?:&&|>) ', line)[0].replace('…', ' '))],
        list(main.params),
    )
    while words:
        word, _, value = words.pop(0).partition('=')
        if word.startswith('-') and word != '--help':
            option = next((o for o in options if word in (*o.opts, *o.secondary_opts)), None)
            if option is None: return word
            if not option.is_flag and not value: del words[:option.nargs]
        elif hasattr(command, 'commands') and word:
            if missing := [w for w in word.split('|') if w not in command.commands]: return missing[0]
            command = command.commands[word.partition('|')[0]]
            options += command.params
    return ''


def test_every_command_that_the_texts_name_exists():
    named = commands_named()
    assert len(named) > 30
    assert {f'{where}: smartcloudops {line}': word for line, where in named.items() if (word := unknown_in(line))} == {}
    assert (
        unknown_in('histry info') == 'histry'
        and unknown_in('history infos') == 'infos'
        and unknown_in('run --nowhere') == '--nowhere'
        and not unknown_in('--log-format json run --once')
    )
