"README.md from nbs/index.ipynb: `python docs/readme.py`, or `--check` to fail when they differ."
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def readme(notebook: Path = ROOT/'nbs'/'index.ipynb') -> str:
    "The notebook's text as Markdown, its relative links as seen from the project's root."
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    parts = [
        _markdown(''.join(c['source']), c['cell_type'])
        for c in cells
        if not re.match(r'#\|\s*hide', ''.join(c['source']))
    ]
    return '<!-- made from nbs/index.ipynb by docs/readme.py -->\n' + '\n\n'.join(p for p in parts if p).strip() + '\n'


def _markdown(source: str, kind: str) -> str:
    if kind == 'code': return f'```python\n{source}\n```'
    return re.sub(r'\]\((?!https?:|#|/)([^)]+)\)', lambda m: f']({_from_root(m[1])})', source)


def _from_root(link: str) -> str:
    return link[3:] if link.startswith('../') else f'nbs/{link}'


if __name__ == '__main__':
    target, text = ROOT/'README.md', readme()
    if '--check' in sys.argv:
        sys.exit(
            'README.md is not what nbs/index.ipynb says: python docs/readme.py'
            if target.read_text(encoding='utf-8') != text
            else 0
        )
    target.write_text(text, encoding='utf-8')
