"""Pages of the site that are made of other files: notebooks, and CONTRIBUTING.md. mkdocs reads this (`mkdocs.yml`)."""

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, beside it, and one for CONTRIBUTING.md."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            text = show_notebook(json.loads(file.content_string), name=Path(file.src_uri).name)
            files.append(File.generated(config, file.src_uri.removesuffix("ipynb") + "md", content=text))
    contributing = Path(config.config_file_path).with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    text = contributing.replace("](docs/", "](")  # as seen from this folder
    files.append(File.generated(config, "contributing.md", content=text))
    return files


def show_notebook(notebook: dict[str, Any], *, name: str) -> str:
    """Lay a notebook out as Markdown: text as it is, code and what it printed as blocks of code.

    | cell                          | becomes                                    |
    |-------------------------------|--------------------------------------------|
    | Markdown                      | itself                                     |
    | code                          | a block of Python                          |
    | what the code printed, if any | a block of plain text                      |
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ()))
        if printed.strip():
            parts.append(f'```text title="prints"\n{printed.rstrip()}\n```')
    title, *rest = parts
    return "\n\n".join([title, f"This page is the notebook [{name}]({name}): download it and run it.", *rest]) + "\n"
