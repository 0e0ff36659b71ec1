"""Names with a dot."""

import sys

import pytest

from spaces.core.errors import RequestError
from spaces.core.importing import accepted_options, import_dotted


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "roletune_user_code"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "data.py").write_text("def load_mine():\n    return 1\nclass Sets:\n    build = 2\n")
    (folder / "needs.py").write_text("import roletune_no_such_thing\n")
    (folder / "broken.py").write_text("raise ValueError('no license file')\n")
    (folder / "typo.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "roletune_user_code"
    for name in [name for name in sys.modules if name.startswith("roletune_user_code")]:
        del sys.modules[name]


@pytest.mark.parametrize("form", ["{}.data:load_mine", "{}.data.load_mine"])
def test_both_forms(package, form):
    assert import_dotted(form.format(package))() == 1


def test_attribute_of_a_class(package):
    assert import_dotted(f"{package}.data:Sets.build") == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}.nothing:f", "there is no module 'roletune_user_code.nothing'; put its folder on PYTHONPATH"),
        ("roletune_nowhere.data.f", "there is no module 'roletune_nowhere'"),
        (
            "{}.data:load_min",
            "unknown attribute of roletune_user_code.data 'load_min'; did you mean 'load_mine'?",
        ),
        (
            "{}.needs:f",
            "importing 'roletune_user_code.needs' failed: ModuleNotFoundError: No module named 'roletune_no_",
        ),
        ("{}.broken.f", "importing 'roletune_user_code.broken' failed: ValueError: no license file"),
        ("{}.typo:f", "failed: SyntaxError"),
        (
            "nodot",
            "a dotted name must have a module and an attribute, got 'nodot'; write `package.module:",
        ),
        (".relative:f", "must have a module and an attribute"),
        ("a.b:", "must have a module and an attribute"),
        ("a b.c:d", "must have a module and an attribute"),
    ],
)
def test_errors(package, name, message):
    with pytest.raises(RequestError) as caught:
        import_dotted(name.format(package))
    assert message in str(caught.value)


def test_accepted():
    options = {"a": 1, "b": 2}
    assert accepted_options(lambda a, /, b: 0, options) == {"b": 2}
    assert accepted_options(lambda *, a=3: 0, options) == {"a": 1}
    assert accepted_options(lambda **rest: 0, options) == options
    assert accepted_options(lambda *a: 0, options) == {}
    with pytest.raises(RequestError, match="must have a signature, got 3"):
        accepted_options(3, options)
