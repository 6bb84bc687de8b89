"Are notebooks and modules in step, and does every notebook run? The first half of `make test`."
import os, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WRITTEN_BY_HAND = {'__init__', '_modidx', '__main__'}


def fingerprint() -> dict[str, bytes]:
    "What export and clean may touch."
    files = [*ROOT.glob('nbs/**/*.ipynb'), *ROOT.glob('smartcloudops/**/*.py'), *ROOT.glob('infra/scripts/*.py'), ROOT/'settings.ini']
    return {str(f.relative_to(ROOT)): f.read_bytes() for f in files if '.ipynb_checkpoints' not in f.parts}


def in_step() -> list[str]:
    "Files that nbdev_clean and nbdev_export would change: they were edited on one side only."
    before = fingerprint()
    for command in ('nbdev_clean', 'nbdev_export'): subprocess.run([BIN/command], cwd=ROOT, check=True)
    after = fingerprint()
    return sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))


def orphans() -> list[str]:
    "Modules that no notebook exports."
    exported = {m[1].replace('.', '/') for nb in ROOT.glob('nbs/**/*.ipynb') if (m := re.search(r'#\|\s*default_exp\s+([\w.]+)', nb.read_text()))}
    modules = {str(p.relative_to(ROOT/'smartcloudops').with_suffix('')) for p in (ROOT/'smartcloudops').rglob('*.py')}
    return sorted(m for m in modules - exported if Path(m).name not in WRITTEN_BY_HAND)


def main() -> int:
    for what, found in (('notebook and module differ (run nbdev_export, or nbdev_update after editing a module)', in_step()), ('module without a notebook', orphans())):
        if found:
            print(f'{what}:', *found, sep='\n  ')
            return 1
    env = dict(os.environ, PATH=f'{BIN}:{os.environ["PATH"]}', MPLBACKEND='agg', PYTHONWARNINGS='ignore')
    return subprocess.run([BIN/'nbdev_test', '--n_workers', '2', '--timing'], cwd=ROOT, env=env).returncode


if __name__ == '__main__': sys.exit(main())
