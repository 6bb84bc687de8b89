"""The documentation site: `make docs` → site/, which opens from the disk as well as from a server.

Pages come from docs/*.md and from the notebooks as they are committed, outputs included, so building executes nothing.
Diagrams are mermaid in the sources and pictures on the site (docs/images/diagram-<hash>.svg), so no page loads a script
from elsewhere. mkdocs warns about nothing or it fails, and every link and every address that a page would load is
checked at the end.
"""
import ast
import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
WORK, SITE = ROOT/'_docs', ROOT/'site'
SRC = WORK/'src'
ROOMS = ['core', 'ingestion', 'monitoring', 'detection', 'remediation', 'dashboard', 'loop', 'explore', 'reporting']
PAGES = {
    'Start': [{'Home': 'index.md'}, 'install.md', 'howto.md'],
    'Understand': ['architecture.md', 'detection.md', 'safety.md', 'aws-cost.md'],
    'Operate': ['dashboard.md', 'operations.md', 'security.md'],
    'Project': ['phase_plan.md', 'contributing.md', 'changelog.md'],
}


# Notebooks

def notebook_page(path: Path, target: Path) -> None:
    "A notebook as Markdown: text, code, and what the code showed."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    parts = []
    for n, cell in enumerate(cells):
        source = ''.join(cell['source'])
        if re.match(r'#\|\s*hide', source): continue
        if cell['cell_type'] == 'markdown': parts.append(source)
        elif cell['cell_type'] == 'code': parts += [code(source), *shown(cell['outputs'], target, n)]
    target.parent.mkdir(parents=True, exist_ok=True)
    exported = [
        ''.join(c['source'])
        for c in cells
        if c['cell_type'] == 'code' and re.match(r'#\|\s*exports?\b', ''.join(c['source']))
    ]
    target.write_text(
        linked('\n\n'.join(filter(None, parts)), path, target) + '\n\n' + offers(exported) + '\n', encoding='utf-8'
    )


def code(source: str) -> str:
    "A code cell without nbdev's directives."
    text = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip('\n')
    return f'````python\n{text}\n````' if text else ''


def form_of(data: dict, kind: str) -> str:
    "One form of an output as text; '' when it has none."
    return ''.join(data[kind]) if isinstance(data.get(kind), list) else data.get(kind, '')


def shown(outputs: list, target: Path, n: int) -> list[str]:
    "A cell's outputs, the richest form of each; pictures become files."
    parts = []
    for k, output in enumerate(outputs):
        data = output.get('data', {})
        get = partial(form_of, data)
        if get('image/png'):
            picture = target.with_name(f'{target.stem}-{n}-{k}.png')
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(base64.b64decode(get('image/png')))
            parts.append(f'![What the code above shows]({picture.name})')
        elif get('text/markdown'): parts.append(get('text/markdown'))
        elif get('text/html'):
            parts.append(
                '<div class="output">'
                + re.sub(r'<(style|script)\b.*?</\1>|\n\s*', '', get('text/html'), flags=re.S)
                + '</div>'
            )
        else:
            text = ''.join(output.get('text', '')) or get('text/plain')
            if text.strip(): parts.append(f'````text\n{text.rstrip()}\n````')
    return parts


# What a module offers: signatures, and what its code says beside each parameter

def offers(sources: list[str]) -> str:
    "A module's public functions and classes as Markdown, parameters in tables; '' for a notebook that exports nothing."
    trees = [(ast.parse(source), comments(source)) for source in sources]
    parts = [part for tree, said in trees for node in tree.body if (part := offer(node, said))]
    return '\n\n'.join(['## In short: what this module offers', *parts]) if parts else ''


def comments(source: str) -> dict[int, str]:
    "Line → the comment at its end."
    return {
        t.start[0]: t.string.lstrip('# ')
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT
    }


def offer(node, said: dict[int, str]) -> str:
    "One function or class; '' for what is private or has nothing to say."
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): return ''
    about = (ast.get_docstring(node) or '').replace('\n', ' ')
    if isinstance(node, ast.FunctionDef):
        return '\n\n'.join(filter(None, [f'### `{node.name}`', about, parameters(node, said)]))
    first = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == '__init__'), None)
    own = [
        m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith('_') and ast.get_docstring(m)
    ]
    listed = '\n'.join(f'- `{m.name}`: {ast.get_docstring(m).splitlines()[0]}' for m in own)
    return '\n\n'.join(
        filter(None, [f'### `{node.name}`', about, parameters(first, said) if first else fields(node, said), listed])
    )


def parameters(node: ast.FunctionDef, said: dict[int, str]) -> str:
    "A function's parameters and what it returns, as a table."
    a = node.args
    defaults = dict(zip((p.arg for p in reversed([*a.posonlyargs, *a.args])), reversed(a.defaults))) | {
        p.arg: d for p, d in zip(a.kwonlyargs, a.kw_defaults) if d
    }
    stars = {id(a.vararg): '*', id(a.kwarg): '**'}
    rows = [
        (
            f'{stars.get(id(p), "")}{p.arg}',
            p.annotation,
            defaults.get(p.arg),
            said.get((defaults.get(p.arg) or p).end_lineno, ''),
        )
        for p in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
        if p and p.arg not in ('self', 'cls')
    ]
    if node.returns is not None and not (isinstance(node.returns, ast.Constant) and node.returns.value is None):
        rows.append(('→', node.returns, None, said.get(node.returns.end_lineno, '')))
    lines = [
        line
        for *_, line in (
            (p, p.lineno) for p in [*a.posonlyargs, *a.args, *a.kwonlyargs] if p.arg not in ('self', 'cls')
        )
    ]
    if len(set(lines)) < len(lines):
        rows = [
            (*row[:3], '' if len(rows) > 1 and row[0] != '→' else row[3]) for row in rows
        ]  # several on one line: its comment is not about one of them
    return table(rows)


def fields(node: ast.ClassDef, said: dict[int, str]) -> str:
    "A record's fields, as a table."
    return table(
        [
            (f.target.id, f.annotation, f.value, said.get(f.end_lineno, ''))
            for f in node.body
            if isinstance(f, ast.AnnAssign) and not f.target.id.startswith('_')
        ]
    )


def table(rows: list[tuple]) -> str:
    "(name, type, default, what) as a Markdown table."
    spelled = lambda node: (
        f'<code>{html.escape(ast.unparse(node)).replace("|", "&#124;")}</code>' if node is not None else ''
    )
    line = lambda name, kind, default, what: (
        f'| {name.replace("*", "&#42;") if name == "→" else f"<code>{name}</code>"} | {spelled(kind)} |'
        f' {spelled(default)} | {html.escape(what).replace("|", "&#124;")} |'
    )
    return (
        '\n'.join(['| name | type | default | what |', '|---|---|---|---|', *(line(*row) for row in rows)])
        if rows
        else ''
    )


# Links and diagrams

def place_of(path: Path) -> Path | None:
    "Where a file of the project stands on the site; None when it does not."
    path = path.resolve()
    if not path.is_relative_to(ROOT): return None
    rel = path.relative_to(ROOT)
    known = {
        'README.md': 'index.md',
        'CONTRIBUTING.md': 'contributing.md',
        'CHANGELOG.md': 'changelog.md',
        'nbs/tutorials': 'tutorials/index.md',
        'nbs/index.ipynb': 'index.md',
    }
    if str(rel) in known: return SRC/known[str(rel)]
    if rel.parts[0] == 'docs': return SRC/Path(*rel.parts[1:])
    if rel.parts[0] == 'nbs' and rel.suffix == '.ipynb': return SRC/page_name(rel)
    return None


def page_name(rel: Path) -> Path:
    "nbs/detection/21_stream.ipynb → reference/detection/stream.md"
    inside = rel.relative_to('nbs')
    if str(inside) == 'start.ipynb': return Path('tutorials')/'start.md'
    name = re.sub(r'^\d+_', '', inside.stem) + '.md'
    return inside.parent/name if inside.parts[0] in ('tutorials', 'reports') else Path('reference')/inside.parent/name


def linked(text: str, source: Path, target: Path) -> str:
    "Relative links as the site has them; to what the site does not have, only the words."
    up = Path(*['..']*len(target.parent.relative_to(SRC).parts))
    def one(m):
        link, _, anchor = m[3].partition('#')
        if re.match(r'[a-z]+:', m[3]) or not link or m[3].startswith(target.stem + '-'): return m[0]
        there = place_of(source.parent/link)
        if there is None: return m[2]
        address = (up/there.relative_to(SRC)).as_posix()
        return f'{m[1]}[{m[2]}]({address}{"#" + anchor if anchor else ""})'
    def inside(m):
        there = None if re.match(r'[a-z]+:|#', m[2]) else place_of(source.parent/m[2])
        if there is None: return m[0]
        page = there.with_suffix(there.suffix.replace('.md', '.html'))
        return f'{m[1]}="{(up/page.relative_to(SRC)).as_posix()}"'
    def prose(part):
        part = re.sub(r'(!?)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^()\s]+)\)', one, part)
        return re.sub(r'\b(src|href)="([^"#]+)"', inside, part)
    parts = re.split(r'(^(?:````?).*?^````?$)', text, flags=re.S | re.M)       # code is left alone
    return ''.join(part if part.startswith('```') else prose(part) for part in parts)


def diagrams(text: str, depth: int = 0) -> str:
    "Mermaid blocks as the pictures made from them."
    def one(m):
        name = f'images/diagram-{hashlib.sha256(m[1].encode()).hexdigest()[:12]}.svg'
        if not (ROOT/'docs'/name).exists():
            sys.exit(
                f'docs/{name}: no picture for a diagram that begins "{m[1].splitlines()[0]}"; render it with mermaid'
                ' and save it there'
            )
        return f'<figure class="diagram" markdown>[![Diagram; open it alone to see it larger]({name})]({name})</figure>'
    return re.sub(r'```mermaid\n(.*?)```', one, text, flags=re.S)


# Pages and navigation

def title_of(page: Path) -> str:
    return next(
        (
            re.sub(r'[`*]', '', l[2:]).strip()
            for l in page.read_text(encoding='utf-8').splitlines()
            if l.startswith('# ')
        ),
        page.stem,
    )


def pages_of(folder: str, notebooks: list[Path]) -> list[Path]:
    "A folder's pages in the order of their notebooks, the launcher first."
    written = [SRC/page_name(p.relative_to(ROOT)) for p in sorted(notebooks, key=lambda p: (p.stem != 'start', p))]
    return [p for p in written if p.parent == SRC/folder]


def list_of(folder: str, notebooks: list[Path], title: str, about: str) -> None:
    "An index page of a folder's pages."
    lines = [f'- [{title_of(p)}]({p.name}){purpose(p)}' for p in pages_of(folder, notebooks)]
    (SRC/folder/'index.md').write_text(f'# {title}\n\n{about}\n\n' + '\n'.join(lines) + '\n', encoding='utf-8')


def purpose(page: Path) -> str:
    found = re.search(r'^> (.+)$', page.read_text(encoding='utf-8'), re.M)
    return f': {found[1]}' if found else ''


def gather() -> list:
    "Write every page into the work folder; the navigation."
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT/'docs', SRC, ignore=shutil.ignore_patterns('*.py', '__pycache__'))
    for page in SRC.glob('*.md'):
        page.write_text(
            linked(diagrams(page.read_text(encoding='utf-8')), ROOT / 'docs' / page.name, page), encoding='utf-8'
        )
    for source, name in (
        ('README.md', 'index.md'),
        ('CONTRIBUTING.md', 'contributing.md'),
        ('CHANGELOG.md', 'changelog.md'),
    ):
        (SRC / name).write_text(
            linked((ROOT / source).read_text(encoding='utf-8'), ROOT / source, SRC / name), encoding='utf-8'
        )
    notebooks = [
        p
        for p in sorted((ROOT / 'nbs').rglob('*.ipynb'))
        if '.ipynb_checkpoints' not in p.parts and p != ROOT / 'nbs' / 'index.ipynb'
    ]
    for path in notebooks: notebook_page(path, SRC/page_name(path.relative_to(ROOT)))
    (SRC/'tutorials').mkdir(exist_ok=True)
    list_of(
        'tutorials',
        notebooks,
        'Tutorials',
        'Each runs from top to bottom on the data it ships with; change one cell to use your own. In a checkout they'
        ' are in `nbs/tutorials/`.',
    )
    list_of(
        'reports',
        notebooks,
        'Reports',
        'Notebooks that `smartcloudops report NAME` executes. What stands here is one run of each.',
    )
    return navigation(notebooks)


def navigation(notebooks: list[Path]) -> list:
    rooms = {
        room: [str(page_name(p.relative_to(ROOT))) for p in notebooks if p.relative_to(ROOT / 'nbs').parts[0] == room]
        for room in ROOMS
    }
    tops = [str(page_name(p.relative_to(ROOT))) for p in notebooks if p.parent == ROOT/'nbs' and p.stem != 'start']
    folder = lambda name: [f'{name}/index.md', *(f'{name}/{p.name}' for p in pages_of(name, notebooks))]
    start = [{k: v} for k, v in PAGES.items()]
    return [
        start[0],
        {'Tutorials': folder('tutorials')},
        start[1],
        {'Reference': [{r: pages} for r, pages in rooms.items()] + [{'together': tops}]},
        {'Reports': folder('reports')},
        *start[2:],
    ]


# What every page would load, and where every link leads

class Page(HTMLParser):
    "A page's links, what it loads, and its anchors."
    def __init__(self):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.anchors |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if a.get('src'): self.loads.append(a['src'])
        if tag == 'link' and a.get('href') and a.get('rel') not in ('canonical', 'prev', 'next'):
            self.loads.append(a['href'])


def problems(site: Path) -> list[str]:
    "Links that lead nowhere, and addresses of third parties that a page or style would load."
    pages, found = {}, []
    for path in site.rglob('*.html'):
        pages[path.resolve()] = page = Page()
        page.feed(path.read_text(encoding='utf-8'))
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        found += [f'{where}: loads {url}' for url in page.loads if urlsplit(url).netloc]
        for url in [*page.links, *page.loads]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or where.name == '404.html': continue
            there = (path.parent/unquote(parts.path)).resolve() if parts.path else path
            if not there.exists(): found.append(f'{where}: {url} is not there')
            elif (
                parts.fragment
                and there in pages
                and unquote(parts.fragment) not in pages[there].anchors | {'__top', '__skip'}
            ):
                found.append(f'{where}: {url} has no such place')
    found += [
        f'{css.name}: loads {url}'
        for css in site.rglob('*.css')
        for url in re.findall(r'url\(["\']?(https?:[^"\')]+)', css.read_text(encoding='utf-8', errors='replace'))
    ]
    return sorted(set(found))


def main() -> int:
    config = yaml.safe_load((ROOT/'mkdocs.yml').read_text(encoding='utf-8'))
    config |= dict(nav=gather(), docs_dir=str(SRC), site_dir=str(SITE))
    (WORK/'mkdocs.yml').write_text(yaml.safe_dump(config, sort_keys=False), encoding='utf-8')
    built = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '-f', WORK / 'mkdocs.yml'],
        env=dict(__import__('os').environ, NO_MKDOCS_2_WARNING='1', DISABLE_MKDOCS_2_WARNING='true'),
    )
    if built.returncode: return built.returncode
    wrong = problems(SITE)
    for line in wrong: print(line, file=sys.stderr)
    print(f'{len(list(SITE.rglob("*.html")))} pages in {SITE.name}/, {len(wrong)} problems')
    return int(bool(wrong))


if __name__ == '__main__': sys.exit(main())
