"""dreamloom: turns your own images into a fine-tuned Stable Diffusion model.

`import dreamloom as dl` offers what notebooks and scripts need; docs/python.md shows it at work. What is offered stands
in `__init__.pyi`, and a name is imported when it is first used, so importing dreamloom itself costs nothing.

A stage function is called as its command is: `dl.score`, `dl.balance`, `dl.evaluate`. Where that name is taken, by a
package of dreamloom or by Python, the function says what it works on: `dl.filter_laion`, `dl.scrape_images`,
`dl.caption_images`, `dl.train_model`.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


@cache
def _homes() -> dict[str, tuple[str, str]]:
    """Returns name → (module, name in that module), as the stub beside this file imports them."""
    import ast

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: (node.module or "", alias.name) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        value: Any = sorted(_homes())
    elif name in _homes():
        module, original = _homes()[name]
        value = getattr(import_module(module), original)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("dreamloom")
    else:
        near = ", ".join(other for other in sorted(_homes()) if name in other)
        raise AttributeError(f"dreamloom has no {name}; " + (f"it has {near}" if near else "see dir(dreamloom)"))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*sorted(_homes()), "__version__"]
