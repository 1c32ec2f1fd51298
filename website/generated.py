"""Pages that are made from code: settings, commands, public names, examples, notebooks."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eapo_agents.cli import app
from eapo_agents.cli.settings import settings_page
from eapo_agents.training import TrainConfig
from eapo_env import EAPOMathEnv

_ENVIRONMENT = "EAPOMathEnv"
"""Has a page of its own."""
_HOW_MADE = "<!-- python -m website.generated > docs/environment.md -->\n\n"

_ROOT = Path(__file__).parents[1]
_PACKAGES = "policies rollouts learning evaluation training methods serving reproduction adapters"
_MODULES = ("eapo_env.testing", "eapo_agents.testing", "eapo_agents.training.presets")
"""Public modules."""


def environment() -> str:
    """Return the page of the environment, which is the docstring of its class."""
    name = f"eapo_env.{_ENVIRONMENT}"
    options = ("show_bases: false", "show_root_toc_entry: false")
    page = [f"# EAPO-Math-v0 {{ #{name} }}", "", f"::: {name}", "    options:"]
    return "\n".join([*page, *(f"      {option}" for option in options)])


def environment_as_markdown() -> str:
    """Return `docs/environment.md`: the docstring, for those who read it in the repository."""
    text = inspect.getdoc(EAPOMathEnv) or ""
    text = re.sub(
        r"^(Args|Raises):\n((?: {4}.*\n|\n(?= {4}))+)", _as_list, text, flags=re.MULTILINE
    )
    return f"{_HOW_MADE}# EAPO-Math-v0\n\n{text}\n"


def _as_list(section: re.Match[str]) -> str:
    entries = re.split(r"\n(?=\S)", textwrap.dedent(section[2]).strip())
    pairs = [" ".join(entry.split()).partition(": ") for entry in entries]
    label = "Raises " if section[1] == "Raises" else ""
    return "\n".join(f"- {label}`{name}`: {meaning}" for name, _, meaning in pairs) + "\n"


def settings() -> str:
    """Return the page of all settings."""
    return settings_page(TrainConfig())


def commands() -> str:
    """Return the page of all commands: the help of each, as it is printed."""
    page = ["# Commands\n", "```text", app.parser().format_help().strip(), "```\n"]
    for name, command in sorted(_commands().items()):
        page += [f"## eapo {name}\n", "```text", command.format_help().strip(), "```\n"]
    return "\n".join(page)


def public_names() -> dict[str, dict[str, str]]:
    """Return the public names of each package, with the package that each comes from."""
    packages = ["eapo_agents", *(f"eapo_agents.{name}" for name in _PACKAGES.split())]
    return {
        "eapo_env": dict.fromkeys(_listed(_ROOT / "eapo_env/__init__.py"), "eapo_env"),
        **{package: dict(_stub(package)) for package in packages},
        **{
            module: dict.fromkeys(_defined(_ROOT / f"{module.replace('.', '/')}.py"), module)
            for module in _MODULES
        },
    }


def anchors(public: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return where the reference has each public name: `eapo_agents.DAPO` is in `learning`."""
    found = {
        f"{package}.{name}": _place(home, name)
        for package, names in public.items()
        for name, home in names.items()
    }
    presets = public["eapo_agents.training.presets"]
    return found | {
        f"eapo_agents.presets.{name}": _place(home, name) for name, home in presets.items()
    }


def reference(public: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the pages of the reference: one a package, and one that leads to them."""
    pages = {
        f"reference/{package}.md": _reference(package, names) for package, names in public.items()
    }
    contents = "\n".join(f"- [`{Path(page).stem}`]({page})" for page in pages)
    intro = "The public names of each package, from their docstrings."
    return {"reference.md": f"# Python reference\n\n{intro}\n\n{contents}\n", **pages}


def page_of(path: Path) -> str:
    """Return a file as a page: Markdown as it is, programs as text and code, with their output."""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".ipynb":
            return "\n\n".join(_cells(text))
        case ".py":
            tree = ast.parse(text)
            code = "\n".join(text.splitlines()[tree.body[0].end_lineno :]).strip()
            return f"# {path.name}\n\n{ast.get_docstring(tree)}\n\n```python\n{code}\n```\n"
        case ".sh":
            return f"# {path.name}\n\n```bash\n{text}```\n"
        case _:
            return text


def _cells(text: str) -> Iterator[str]:
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        yield from map(_shown, cell.get("outputs", ()))


def _shown(output: Mapping[str, Any]) -> str:
    data = output.get("data", {})
    if picture := data.get("image/png"):
        return f'<img alt="what the code draws" src="data:image/png;base64,{picture.strip()}">'
    text = "".join(output.get("text") or data["text/plain"]).rstrip()
    return f'```text title="Output"\n{text}\n```'


def _commands() -> Mapping[str, argparse.ArgumentParser]:
    [commands] = [
        action for action in app.parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return commands.choices


def _reference(package: str, names: Mapping[str, str]) -> str:
    own = [name for name, home in names.items() if home == package and name != _ENVIRONMENT]
    others = [
        f"- [`{name}`][{_place(home, name)}]" for name, home in names.items() if home != package
    ]
    apart = [name for name in own if _place(package, name) != f"{package}.{name}"]
    members = [name for name in own if name not in apart]
    page = [f"# {package}", "", f"::: {package}", "    options:", f"      members: {members}"]
    for name in apart:
        page += [
            "",
            f"::: {_place(package, name)}",
            "    options:",
            "      show_root_heading: true",
        ]
    return "\n".join(
        [*page, *(["", "## Names from other packages", "", *others] if others else [])]
    )


def _place(package: str, name: str) -> str:
    """Return the anchor of a public name: of one that hides a module, that in the module."""
    hidden = _ROOT / package.replace(".", "/") / f"{name}.py"
    return f"{package}.{name}.{name}" if hidden.exists() else f"{package}.{name}"


def _listed(path: Path) -> list[str]:
    """Return the names in `__all__`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise ValueError(f"{path} has no __all__")


def _stub(package: str) -> Iterator[tuple[str, str]]:
    """Yield the public names of a stub, with the package that defines each."""
    stub = _ROOT / package.replace(".", "/") / "__init__.pyi"
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.module else package
            home = module if package == "eapo_agents" else package
            names = [alias.name for alias in node.names]
            yield from ((name, home) for name in names if f"{home}.{name}" not in _MODULES)


def _defined(path: Path) -> list[str]:
    """Return the public functions and classes of a module, and what it imports under its name."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.append(node.name)
            case ast.ImportFrom():
                names += [alias.asname for alias in node.names if alias.asname]
    return [name for name in names if not name.startswith("_")]


if __name__ == "__main__":
    print(environment_as_markdown(), end="")
