"Every tutorial runs from top to bottom, unattended, in a folder of its own."
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.phase7
ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))


def test_there_are_six_and_each_says_what_it_is_for():
    assert len(TUTORIALS) >= 6
    for path in TUTORIALS:
        cells = nbformat.read(path, 4).cells
        assert cells[0].source.startswith('# ') and '\n> ' in cells[0].source, path.name
        assert any(
            'image/png' in o.get('data', {}) for c in cells if c.cell_type == 'code' for o in c.outputs
        ), f'{path.name} shows no plot'


@pytest.mark.soak      # in place they run with the other notebooks (tests/notebooks.py); here, away from the checkout
@pytest.mark.parametrize('path', TUTORIALS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient
    (tmp_path/'tutorials').mkdir()
    shutil.copytree(ROOT/'nbs'/'data', tmp_path/'data')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook, timeout=200, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path / 'tutorials')))
    ).execute()
    left = [p.name for p in (tmp_path/'tutorials').iterdir() if not p.name.startswith('.')]
    assert left == [], 'it leaves nothing behind'


# The launcher

START = ROOT/'nbs'/'start.ipynb'


def test_the_launcher_links_to_every_tutorial_and_report_and_begins_with_three_lines():
    cells = nbformat.read(START, 4).cells
    links = set(re.findall(r'\]\(([^)#]+)\)', '\n'.join(c.source for c in cells if c.cell_type == 'markdown')))
    assert [l for l in links if not (START.parent/l).exists()] == []
    for folder in ('tutorials', 'reports'):
        assert {f'{folder}/{p.name}' for p in (START.parent/folder).glob('*.ipynb')} <= links
    assert len(next(c for c in cells if c.cell_type == 'code').source.splitlines()) == 3


@pytest.mark.soak      # in place it runs with the other notebooks, too
def test_the_launcher_runs_from_top_to_bottom(tmp_path, monkeypatch):
    "Beside an empty folder, as after a checkout: this host, then a made-up day."
    from nbclient import NotebookClient
    (tmp_path/'nbs').mkdir()
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(START, 4)
    NotebookClient(
        notebook, timeout=200, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path / 'nbs')))
    ).execute()
    assert (
        sum('image/png' in o.get('data', {}) for c in notebook.cells if c.cell_type == 'code' for o in c.outputs) == 2
    )
    assert not any(
        o.output_type == 'stream' and o.name == 'stderr'
        for c in notebook.cells
        if c.cell_type == 'code'
        for o in c.outputs
    )
    assert list((tmp_path/'nbs').iterdir()) == [] and not (tmp_path/'data').exists()


def test_make_lab_opens_it(tmp_path):
    """The Makefile's own command, without a browser: the server names the launcher as the page to open, and hands it
    out."""
    from tests.conftest import free_port
    port = free_port()
    command = (
        subprocess.run(
            [
                'make',
                '--no-print-directory',
                '-n',
                'lab',
                (
                    f'LAB=--no-browser --allow-root --ServerApp.port={port} --IdentityProvider.token=x'
                    ' --ServerApp.port_retries=0'
                ),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.strip()
        .splitlines()[-1]
    )
    assert 'nbs/start.ipynb' in command
    env = dict(
        os.environ,
        JUPYTER_CONFIG_DIR=str(tmp_path),
        JUPYTER_DATA_DIR=str(tmp_path),
        JUPYTER_RUNTIME_DIR=str(tmp_path),
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    )
    words = [str(Path(sys.executable).parent/'jupyter') if w.endswith('/jupyter') else w for w in command.split()]
    lab = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ask = lambda path: urllib.request.urlopen(
            urllib.request.Request(f'http://127.0.0.1:{port}{path}', headers=dict(Authorization='token x')), timeout=10
        )
        for _ in range(200):
            try: found = json.load(ask('/api/contents/nbs/start.ipynb'))
            except OSError: time.sleep(.2)
            else: break
        assert found['type'] == 'notebook' and found['path'] == 'nbs/start.ipynb'
        assert (
            ask('/api/contents/docs/architecture.md?content=0').status == 200
        ), 'its links to the docs can be followed'
        assert any(
            'lab/tree/nbs/start.ipynb' in page.read_text() for page in tmp_path.glob('jpserver-*-open.html')
        )  # one page for the server, one for the file
    finally:
        lab.terminate(); lab.wait(20)
