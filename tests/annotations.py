"""Annotations of the package, checked at every call while tests run."""

import ast
import importlib.abc
import importlib.machinery
import sys

CHECKER = """
from beartype import BeartypeConf, beartype
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as for type checkers, an integer is a float too
"""


def check(package: str) -> None:
    """Check the annotations of all functions and methods of a package that is imported from now on."""
    sys.meta_path.insert(0, _Finder(package))


class _Decorating(ast.NodeTransformer):
    """Decorate the functions of a module and the methods of its classes.

    The decorator is the innermost: what others make of a function may take other arguments. A function inside another
    is left alone, as it would be decorated again by each call of that.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(ast.Name("_checked", ast.Load()))
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    """Load a module from its source; stored bytecode, which checks nothing, is neither read nor written."""

    def get_code(self, fullname: str):
        path = self.get_filename(fullname)
        module = _Decorating().visit(ast.parse(self.get_data(path)))
        after_docstring = int(ast.get_docstring(module) is not None)
        module.body[after_docstring:after_docstring] = ast.parse(CHECKER).body
        return compile(ast.fix_missing_locations(module), path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None):
        if name.split(".")[0] != self.package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec
