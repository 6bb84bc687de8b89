"""The diagrams of docs/*.md as pictures: `python docs/diagrams.py path/to/mermaid.min.js` (npm install mermaid).

Each mermaid block becomes docs/images/diagram-<hash>.svg, drawn by Chromium; pictures of diagrams that are gone are
removed.
"""
import hashlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def blocks() -> dict[str, str]:
    "Name of the picture → the diagram's text."
    found = [
        m[1]
        for page in DOCS.glob('*.md')
        for m in re.finditer(r'```mermaid\n(.*?)```', page.read_text(encoding='utf-8'), re.S)
    ]
    return {f'diagram-{hashlib.sha256(text.encode()).hexdigest()[:12]}.svg': text for text in found}


def main(script: str) -> None:
    "Draw what is missing, remove what is not needed any more."
    from playwright.sync_api import sync_playwright
    wanted = blocks()
    for old in (DOCS/'images').glob('diagram-*.svg'):
        if old.name not in wanted: old.unlink()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path='/usr/bin/chromium', args=['--no-sandbox'])
        page = browser.new_page()
        page.set_content('<body></body>')
        page.add_script_tag(path=script)
        options = "{startOnLoad: false, theme: 'neutral', flowchart: {htmlLabels: false}}"
        page.evaluate(f'mermaid.initialize({options})')
        for name, text in wanted.items():
            if (DOCS/'images'/name).exists(): continue
            svg = page.evaluate('async text => (await mermaid.render("d", text)).svg', text)
            (DOCS/'images'/name).write_text(svg, encoding='utf-8')
            print(name)
        browser.close()


if __name__ == '__main__': main(sys.argv[1])
