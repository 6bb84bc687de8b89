"What the README says is what happens: every command block is run in a copy of the project."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import free_port

pytestmark = pytest.mark.phase7
ROOT = Path(__file__).resolve().parent.parent
README = (ROOT/'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```bash\n(.*?)```', README, re.S)
PYTHON = re.findall(r'```python\n(.*?)```', README, re.S)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of what is under version control, with this environment as its .venv."
    copy = tmp_path_factory.mktemp('readme')/'smartcloudops'
    files = (
        subprocess.run(
            ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .split('\0')
    )
    compiled = [f.relative_to(ROOT) for f in (ROOT/'smartcloudops').rglob('*.nb[ci]')]     # half a minute's work anew
    for name in (*filter(None, files), *compiled):
        if not (ROOT/name).is_file(): continue
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, copy/name)
    made = copy/'.venv'
    made.mkdir()
    (made/'bin').symlink_to(Path(sys.executable).parent)
    (made/'.core').touch(); (made/'.dev').touch()          # as after `make setup`: nothing to install
    return copy


@pytest.fixture(scope='module')
def env(project):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(('SMARTCLOUDOPS_', 'AWS_'))}
    return dict(
        keep,
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        PYTHONPATH=str(project),
        AWS_EC2_METADATA_DISABLED='true',
    )


def test_the_readme_is_what_its_notebook_says():
    done = subprocess.run([sys.executable, ROOT/'docs'/'readme.py', '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_file_it_points_to_exists():
    links = re.findall(r'\]\((?!https?:|#)([^)#]+)', README)
    assert len(links) >= 8
    missing = [l for l in links if not (ROOT/l).exists()]
    assert not missing, missing
    for picture in (l for l in links if l.endswith('.png')):
        assert (ROOT/picture).read_bytes()[:4] == b'\x89PNG' and (ROOT/picture).stat().st_size < 300_000


def healthy(port: int) -> bool:
    "Whether /health says so; in its first seconds the loop has not ticked yet and it does not."
    try: return json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=10))['status'] == 'ok'
    except OSError: return False


def test_make_run_serves_this_host_and_stops(project, env):
    assert 'make run\n' in BLOCKS
    port = free_port()
    loop = subprocess.Popen(
        ['make', 'run', f'PORT={port}'],
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        seen = None
        for _ in range(120):
            time.sleep(.5)
            try:
                seen = json.load(
                    urllib.request.urlopen(
                        urllib.request.Request(f'http://127.0.0.1:{port}/', headers=dict(Accept='application/json')),
                        timeout=5,
                    )
                )
            except OSError: continue
            if seen.get('metrics') and healthy(port): break
        assert seen and seen['metrics'] and 'anomaly' in seen
        assert healthy(port)
    finally:
        os.killpg(loop.pid, signal.SIGTERM)
        said = loop.communicate(timeout=60)[0]
    assert f':{port}/' in said and 'Traceback' not in said


@pytest.mark.parametrize('line', [l for block in BLOCKS for l in block.splitlines() if not l.startswith('make ')])
def test_each_command_works(project, env, line):
    done = subprocess.run(line, shell=True, cwd=project, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    if 'detect' in line: assert (project/'scored.csv').stat().st_size > 100_000 and (project/'scored.png').exists()
    if 'e2e_local' in line:
        kept = json.loads(next((project/'reports').glob('e2e_local-*.json')).read_text())
        assert kept['ok'] and kept['result']['incidents'] >= 1 and kept['result']['sent'] == 0
        assert {f.suffix for f in (project/'reports').glob('e2e_local-*')} == {'.html', '.ipynb', '.json'}


@pytest.mark.parametrize('code', PYTHON)
def test_each_piece_of_python_works(project, env, code):
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=project, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
