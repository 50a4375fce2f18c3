"""The notebooks as pages: copies with the outputs that they were saved with."""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["notebooks"]


def notebooks(source: Path, folder: Path) -> None:
    """Copy the notebooks, their links to pages of `docs/` adjusted, and write an index."""
    index = [
        "# Notebooks",
        "",
        "The notebooks of the repository with their results. The site does not run them; the tests",
        "do (`pytest -m slow notebooks --durations=0` prints the times). To run one yourself:",
        "`pip install -e '.[notebooks]'`, then `jupyter lab notebooks`.",
        "",
    ]
    paths = sorted(source.glob("*.ipynb"))
    for path in paths:
        content = json.loads(path.read_text("utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                cell["source"] = re.sub(r"\]\((?:\.\./)?docs/", "](../", text)
        (folder / path.name).write_text(json.dumps(content), "utf-8")
        title, about = "".join(content["cells"][0]["source"]).split("\n\n")[:2]
        about = " ".join(about.split())
        index += [f"**[{title.lstrip('# ')}]({path.name})**", f": {about}", ""]
    toctree = ["```{toctree}", ":hidden:", "", *(path.stem for path in paths), "```", ""]
    (folder / "index.md").write_text("\n".join([*index, *toctree]), "utf-8")
