"""The language of the code: the field's names, docstrings that say what a thing does, American spelling."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("spaces", "trainables", "results", "search", "benchmarks", "examples", "docs")

OLD_MODULES = frozenset(
    re.findall(
        r"\w+",
        """
        population halving bandit watch guards distill layout travel low_bit relational portable sender
        calls family chapters wording besides difference overview theme own published readers numbers ours
        by_hand sleeper stand_in stacked folding
        """,
    )
)
OLD_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        obey asked Look judge forget descend mover Seen Keeper Watch Alarm Ticker Found Trained Standing
        Plate Sheet told mend got
        """,
    )
)
VAGUE = re.compile(r"(What|Whether|It is|Nothing|As `)")
BRITISH = re.compile(
    r"colour|\bgrey|behaviour|neighbour|catalogue|favour|centre|artefact|labelled|cancelled|travelled|"
    r"(?:normal|optim|util|initial|quant|regular|summar|synchron|recogn|serial|minim|maxim|general|random|parametr)is"
    r"(?:e\b|es\b|ed\b|er\b|ers\b|ing\b|ation)",
    re.IGNORECASE,
)
KEPT = re.compile(r"\w*utilisation\w*|regularisation|normalisation|\"Colour\"")
"""Keys of committed result files, the old key of sweep files and policy files, and a misspelling that a test makes."""


def files(*suffixes):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [path for path in listed if path.endswith(suffixes) and (ROOT / path).is_file()]


SOURCES = [path for path in files(".py") if path.startswith((*CODE, "roletune.py"))]


def tree(path):
    return ast.parse((ROOT / path).read_text("utf-8"))


def identifiers(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def test_no_module_has_an_old_name():
    assert [path for path in SOURCES if Path(path).stem in OLD_MODULES] == []


def test_no_identifier_is_an_old_name():
    assert {(path, name) for path in SOURCES for name in identifiers(path) if name in OLD_NAMES} == set()


def test_docstrings_begin_with_a_verb_or_a_noun_phrase():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    vague = [
        (path, text.splitlines()[0])
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and VAGUE.match(text)
    ]
    assert vague == []


@pytest.mark.parametrize("suffix", [".py", ".md", ".yaml", ".yml", ".toml", ".j2", ".sh"])
def test_spelling_is_american(suffix):
    found = {
        (path, match.group())
        for path in files(suffix)
        if path != "tests/test_language.py"
        for match in BRITISH.finditer(KEPT.sub("", (ROOT / path).read_text("utf-8")))
    }
    assert found == set()
