"The house keeps its order: who may know whom, notebooks as the only source, the names that other programs call."
import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house_limits import ORDER, problems

pytestmark = pytest.mark.phase0

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT/'smartcloudops'
MODULES = sorted(p for p in PACKAGE.rglob('*.py') if p.name != '_modidx.py')
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def imported(path: Path):
    "Absolute names that a module imports."
    parts = path.relative_to(ROOT).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import): yield from (n.name for n in node.names)
        if isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[:len(parts) - node.level]) + '.' if node.level else ''
            yield base + (node.module or '')


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_phase_knows_only_those_before_it(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    for name in imported(path):
        assert not name.startswith(('nbdev', 'fastcore')), f'{name} is a tool of development'
        if name.startswith('smartcloudops.') and room in ORDER:
            other = name.split('.')[1]
            assert other not in ORDER or ORDER.index(other) <= ORDER.index(room), f'{room} imports {other}'
        if room == 'detection': assert not name.startswith('smartcloudops.ingestion'), 'detection knows no source'
        # these replay samples, so they ask the detector; deciding never does
        rehearses = path.stem in ('sample_incidents', 'practice_fleet', 'backtest', 'drill')
        if room == 'remediation' and not rehearses:
            assert not re.match(
                r'smartcloudops\.detection\.(stream|joint|rules)', name
            ), 'remediation knows no detector'


def test_every_module_has_its_notebook():
    exported = {m[1] for nb in NOTEBOOKS if (m := re.search(r'#\|\s*default_exp\s+([\w.]+)', nb.read_text()))}
    modules = {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts) for p in MODULES if p.name != '__init__.py'}
    assert modules == exported


def test_the_house_keeps_its_limits():
    assert problems() == []


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_a_notebook_is_clean_and_reads_as_a_story(path):
    nb = json.loads(path.read_text())
    cells = nb['cells']
    first = next(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    assert first.startswith('# ') and '\n> ' in first, 'begins with its title and says what it is for'
    for cell in cells:
        assert set(cell['metadata']) <= {'tags'}, cell['metadata']
        for output in cell.get('outputs', []): assert output['output_type'] != 'error'
    assert set(nb['metadata']) == {
        'kernelspec'
    }, 'JupyterLab asks for a kernel where none is named, and other tools leave their marks'
    text = path.read_text()
    assert not re.search(r'(?<![\w.])/(work|root|home|Users)/\w', text), 'a path of the machine it ran on'
    assert path.stat().st_size < 700_000


@pytest.mark.parametrize(
    'module',
    [
        '.'.join(p.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        for p in MODULES
        if p.name != '__main__.py'
    ],
)
def test_public_functions_say_what_they_do(module):
    found = importlib.import_module(module)
    for name in getattr(found, '__all__', []):
        thing = getattr(found, name, None)
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == module:
            assert inspect.getdoc(thing), f'{module}.{name}'


@pytest.mark.parametrize(
    'module, name, signature',
    [
        ('ingestion', 'fetch_metrics', ['file_path', 'live']),
        ('monitoring', 'get_latest_metrics', ['file_path', 'live']),
        ('detection', 'detect_anomaly', ['metrics']),
        ('detection', 'log_anomaly_to_s3', ['metrics', 'bucket_name', 's3_client']),
        ('remediation', 'remediate_action', ['issue']),
        ('remediation', 'log_remediation_to_s3', ['action', 'bucket_name', 's3_client']),
        ('dashboard', 'create_app', []),
        ('main', 'run_pipeline', ['metrics_path', 's3_client', 'bucket_name']),
        ('detection', 'rank_suspects', ['frame', 'target', 'at', 'graph']),
    ],
)
def test_names_that_other_programs_call(module, name, signature):
    function = getattr(importlib.import_module(f'smartcloudops.{module}'), name)
    assert list(inspect.signature(function).parameters)[:len(signature)] == signature


def test_the_page_never_loads_the_detector():
    code = (
        "import sys; from smartcloudops.dashboard import app; app.test_client().get('/health'); print([m for m in"
        " ('numba', 'sklearn', 'duckdb', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd='/tmp')
    assert done.returncode == 0 and done.stdout.strip() == '[]', done.stdout + done.stderr


def test_the_version_has_one_home():
    import smartcloudops
    version = re.search(r'(?m)^version = (\S+)$', (ROOT/'settings.ini').read_text())[1]
    assert smartcloudops.__version__ == version
