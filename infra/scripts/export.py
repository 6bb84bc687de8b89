"""Everything that is generated, written anew: modules, the generated script, README, the policy schema, the front
doors. `make export`."""
import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
ROOMS = ['core', 'ingestion', 'monitoring', 'detection', 'remediation', 'dashboard', 'loop', 'explore', 'reporting']


def export_modules() -> None:
    "Notebooks → smartcloudops/."
    subprocess.run([BIN/'nbdev_export'], cwd=ROOT, check=True)


def export_script() -> None:
    """The notebook of the Prometheus configuration → infra/scripts/prometheus_config.py, which needs the standard
    library only."""
    from nbdev.export import nb_export
    notebook = next((ROOT/'nbs'/'monitoring').glob('*_prometheus_config.ipynb'))
    nb_export(notebook, lib_path=ROOT/'infra'/'scripts', name='prometheus_config')


def export_readme() -> None:
    "nbs/index.ipynb → README.md."
    subprocess.run([sys.executable, ROOT/'docs'/'readme.py'], check=True)


def export_schema() -> None:
    "The policies' models → config/policies.schema.json, for editors."
    code = (
        'import json; from smartcloudops.remediation import policy_schema; print(json.dumps(policy_schema(), indent=1))'
    )
    schema = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (ROOT/'config'/'policies.schema.json').write_text(schema, encoding='utf-8')


# Front doors: the names that a room hands on are looked up when first used; editors and type checkers read the block
# below

BEGIN, END = 'if TYPE_CHECKING:', '\n__getattr__, __dir__, __all__'


def homes(text: str) -> dict[str, str]:
    "Public name → module, as the front door of a room says."
    call = next(
        n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'front_door'
    )
    return ast.literal_eval(call.args[1])


def by_kind(name: str) -> tuple[int, str, str]:
    "Constants, classes, functions, each by name: as ruff sorts imports."
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name.lower(), name


def front_door(text: str) -> str:
    "The front door with its static imports written anew."
    by_module: dict[str, list[str]] = {}
    for name, module in homes(text).items(): by_module.setdefault(module, []).append(name)
    lines = [BEGIN]
    for module, names in sorted(by_module.items()):
        known = [f'{n} as {n}' for n in sorted(names, key=by_kind)]
        line = f'    from .{module} import {", ".join(known)}'
        if len(line) > 120:
            line = f'    from .{module} import (\n' + ''.join(f'        {n},\n' for n in known) + '    )'
        lines.append(line)
    head, _, rest = text.partition(END)
    head = head.partition(BEGIN)[0].rstrip('\n')
    return f'{head}\n\n' + '\n'.join(lines) + f'\n{END}{rest}'


def export_front_doors() -> None:
    "The blocks that editors read in the rooms' __init__.py."
    for room in ROOMS:
        path = ROOT/'smartcloudops'/room/'__init__.py'
        if not path.exists(): continue
        text = path.read_text(encoding='utf-8')
        path.write_text(front_door(text), encoding='utf-8')


def main() -> int:
    "All of it."
    for step in (export_modules, export_script, export_front_doors, export_schema, export_readme): step()
    return 0


if __name__ == '__main__': sys.exit(main())
