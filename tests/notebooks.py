"""Are notebooks and modules in step, does every notebook run, and does it still print what it shows? The first half of
`make test`."""
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WRITTEN_BY_HAND = {'__init__', '_modidx', '__main__'}
GENERATED = ('nbs/**/*.ipynb', 'smartcloudops/**/*.py', 'infra/scripts/*.py', 'settings.ini', 'README.md',
             'config/policies.schema.json')

# Notebooks whose outputs depend on the machine or the moment: they have to run, what they print may differ
VOLATILE = {
    'nbs/reports/e2e_aws.ipynb': 'the stand-in for AWS keeps metrics by the wall clock',
}


def fingerprint() -> dict[str, bytes]:
    "What export and clean may touch."
    files = [f for pattern in GENERATED for f in ROOT.glob(pattern)]
    return {str(f.relative_to(ROOT)): f.read_bytes() for f in files if '.ipynb_checkpoints' not in f.parts}


def in_step() -> list[str]:
    "Files that nbdev_clean and the export would change: they were edited on one side only."
    before = fingerprint()
    for command in ([BIN/'nbdev_clean'], [sys.executable, 'infra/scripts/export.py']):
        subprocess.run(command, cwd=ROOT, check=True)
    after = fingerprint()
    return sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))


def orphans() -> list[str]:
    "Modules that no notebook exports."
    text = [nb.read_text(encoding='utf-8') for nb in ROOT.glob('nbs/**/*.ipynb')]
    exported = {m[1].replace('.', '/') for t in text if (m := re.search(r'#\|\s*default_exp\s+([\w.]+)', t))}
    package = ROOT/'smartcloudops'
    modules = {str(p.relative_to(package).with_suffix('')) for p in package.rglob('*.py')}
    return sorted(m for m in modules - exported if Path(m).name not in WRITTEN_BY_HAND)


# Outputs: text is compared, pictures are not; what no run repeats (addresses, durations of the run) is left out

ADDRESS, TAG = re.compile(r' at 0x[0-9a-f]{6,}'), re.compile(r'<style.*?</style>|<[^>]*>', re.S)


def shown(cell: dict) -> str:
    "The text that a cell shows, as it can be compared."
    parts = []
    for output in cell.get('outputs', []):
        if output.get('name') == 'stderr': continue
        data = output.get('data', {})
        if any(kind.startswith('image/') for kind in data): continue
        kind = (
            'text/html' if 'text/html' in data else 'text/plain'
        )  # a table's plain text depends on the width of a terminal
        text = output.get('text', data.get(kind, ''))
        text = text if isinstance(text, str) else ''.join(text)
        parts.append(TAG.sub(' ', text) if kind == 'text/html' else text)
    text = ADDRESS.sub('', ' '.join(parts)).replace('PosixPath(', 'Path(')  # fastcore's own way to show a path
    return ' '.join(text.split())


def runs(source: str) -> bool:
    "Whether a cell takes part in a run."
    return 'nbdev_export(' not in source and not re.search(r'^#\|\s*eval:\s*false', source, re.M | re.I)


def run(path: Path) -> tuple[str, str, float]:
    "(notebook, what is wrong or '', seconds): execute it, then compare what its cells print with what it shows."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell
    began, name = time.time(), str(path.relative_to(ROOT))
    committed = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    shell, nb = CaptureShell(path), read_nb(path)
    cells = [c for c in nb.cells if c.cell_type == 'code']
    os.chdir(path.parent)
    for cell, old in zip(cells, committed):
        source = ''.join(old['source'])
        if not runs(source): continue
        shell.cell(cell)
        if shell.exc: return name, f'{shell.prettytb(fname=name)}', time.time() - began
        new = shown(cell)
        if name not in VOLATILE and new != shown(old):
            return (
                name,
                (
                    f'{name}: a cell prints something else than it shows (execute it anew):\n{source}\nshows:'
                    f' {shown(old)}\nprints: {new}'
                ),
                time.time() - began,
            )
    return name, '', time.time() - began


def run_forked(path: Path) -> tuple[str, str, float]:
    "`run` in a process of its own; one that dies is a notebook that failed."
    fork = multiprocessing.get_context('fork')
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: there.send(run(path)))
    child.start()
    there.close()
    try: return here.recv()
    except EOFError: return str(path.relative_to(ROOT)), 'the process died', 0.
    finally: child.join()


def preload() -> None:
    """Import once what most notebooks use, and compile the detector: each of them runs in a process forked from this
    one."""
    ours = ('loop.runner', 'remediation.operators', 'dashboard.web', 'explore.chart', 'cli')
    for module in ('execnb.shell', 'matplotlib.pyplot', *(f'smartcloudops.{name}' for name in ours)):
        importlib.import_module(module)
    from smartcloudops.detection import StreamDetector
    StreamDetector().update(0., [1.])


def run_all(names: list[str]) -> int:
    "Run notebooks two at a time, the longest first; 1 when one fails."
    paths = [p for p in sorted(ROOT.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    paths = [p for p in paths if not names or any(n in str(p) for n in names)]
    failed = []
    preload()
    with ThreadPoolExecutor(2) as pool:
        for name, wrong, seconds in pool.map(run_forked, sorted(paths, key=lambda p: -p.stat().st_size)):
            print(f'{name} {seconds:.1f} s', 'FAILED' if wrong else '', flush=True)
            if wrong: failed.append(wrong)
    print(*failed, f'{len(paths)} notebooks, {len(failed)} failed', sep='\n\n')  # last, where a log is read first
    return int(bool(failed))


def main() -> int:
    "In step, no orphans, and all of them run."
    names = sys.argv[1:]
    if not names:
        for what, found in (
            ('generated files differ (run make export, or nbdev_update after editing a module)', in_step()),
            ('module without a notebook', orphans()),
        ):
            if found:
                print(f'{what}:', *found, sep='\n  ')
                return 1
    os.environ.update(PATH=f'{BIN}:{os.environ["PATH"]}', MPLBACKEND='agg', PYTHONWARNINGS='ignore', IN_TEST='1')
    return run_all(names)


if __name__ == '__main__': sys.exit(main())
