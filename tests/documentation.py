"""Read the README and the pages of the documentation: code blocks, links, and sweeps in YAML."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def read(path):
    return path.read_text("utf-8")


def blocks(text, language):
    """The code blocks of a language, with the files that they include."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [SNIPPET.sub(lambda match: read(ROOT / match[1]), block) for block in found]


def links(text):
    """The targets of links and pictures inside the repository, without anchors, outside of code."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", prose)
    return [target for target in targets if "://" not in target]
