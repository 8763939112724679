"""Whether a name that the documentation uses is there, as the text of its module says."""

import ast

from tests.docs import pages

OURS = ("mrcnn_tf", "data_prep")


def is_there(module: str, name: str) -> bool:
    """Whether a module of ours has a name; modules of others count as having all."""
    base = pages.ROOT / module.replace(".", "/")
    if module.split(".")[0] not in OURS:
        return True
    if (base / f"{name}.py").is_file() or (base / name).is_dir():
        return True
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return name in found
