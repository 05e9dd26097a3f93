"""The measures of the code count what they say."""

from __future__ import annotations

from code_measures import measure


def test_each_measure_counts_what_it_says(tmp_path):
    body = "\n".join(f"    x{i} = {i}" for i in range(60))
    methods = "\n".join(f"    def m{i}(self): ..." for i in range(13))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "twice.py").write_text(
        f'__all__ = ["f", "g"]\n# why\ndef f():\n    """Says\n    it."""\n{body}\n'
    )
    (tmp_path / "b" / "twice.py").write_text(
        "def g(self, a, b, /, c, *d, e, f, g, h, **i): ...\n"
        "def h(self, a, b, c, d, e, f, g, h): ...\n"
    )
    (tmp_path / "wide.py").write_text(f"class Wide:\n{methods}\n")
    (tmp_path / "b" / "also.py").write_text("class Wide: ...\nclass Other: ...\n")
    found = measure(tmp_path)
    assert found.lines == 65 + 2 + 14 + 2
    assert found.comments == 1
    assert found.exported == 2
    assert found.long_functions == ["a/twice.py:3 f: 61 lines"]
    assert found.many_parameters == ["b/twice.py:1 g: 9"]
    assert found.wide_classes == ["wide.py:1 Wide: 13 methods"]
    assert found.names_twice == ["twice"]
    assert found.classes_twice == ["Wide"]


def test_a_function_at_the_limit_is_not_named(tmp_path):
    body = "\n".join(f"    x{i} = {i}" for i in range(59))
    (tmp_path / "one.py").write_text(f"def f():\n{body}\n")
    assert measure(tmp_path).long_functions == []
