"""The build hook of the compiled wheel: a plain build knows nothing of it, it is asked for by

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 pip wheel --no-deps .

Law: what is compiled stands in pyproject.toml and nowhere else, and is compiled as it is
written. Nothing is left beside the sources: from there an editable install would load it.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledWheel(BuildHookInterface[Any]):
    """Adds the extension modules of the listed files to a wheel, beside the files themselves."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._made = tempfile.TemporaryDirectory()
        made = Path(self._made.name)
        compile_modules(Path(self.root, "src"), self.config["modules"], made)
        extensions = sorted(made.joinpath("lib").rglob("*.so"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(each): each.relative_to(made / "lib").as_posix() for each in extensions
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._made.cleanup()


def compile_modules(source: Path, files: list[str], made: Path) -> None:
    """Put extension modules for `files`, which are below `source`, into the folder `made`/lib."""
    # Here, because only this needs them.
    from mypyc.build import mypycify
    from setuptools import Distribution  # type: ignore[import-untyped]  # it has no types
    from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]  # nor here

    # Only the listed files are judged: what others import may be an extra that is not here.
    options = ["--config-file=", f"--cache-dir={made / 'cache'}", "--follow-imports=silent"]
    # mypy takes the name of a module from the folder that it is started in.
    with contextlib.chdir(source):
        extensions = mypycify(
            [*options, *files],
            debug_level="0",
            group_name="mailgw",
            target_dir=str(made / "c"),
        )
        command = build_ext(Distribution({"name": "mailgw", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(made / "lib"), str(made / "temp")
        command.ensure_finalized()
        command.run()
