"""guide-hub recipes"""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from guide_hub.errors import InputError
from guide_hub.recipe import list_recipes, load_recipe, recipe_text

COLUMNS = 80


@click.group("recipes")
def command() -> None:
    """The recipes that come with the package."""


@command.command("ls")
def ls() -> None:
    """List them, a line each."""
    width = max(map(len, list_recipes()))
    for name in list_recipes():
        title = recipe_text(name).partition("\n")[0].lstrip("# ")
        click.echo(f"{name:{width}}  {textwrap.shorten(title, COLUMNS - width - 2, placeholder=' ...')}")


@command.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Print one."""
    click.echo(recipe_text(name), nl=False)


@command.command("copy")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def copy(name: str, file: Path) -> None:
    """Copy one to a file, to change it."""
    if file.exists():
        raise InputError("the file exists", remedy="choose another name")
    load_recipe(name)
    file.write_text(recipe_text(name), encoding="utf-8")
