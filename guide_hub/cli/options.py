"""Options that several commands have. No torch here: `--help` reads this."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

repo = click.option("--repo", "--repo-id", required=True, help="Hub id, folder or builtin:synthetic-heads.")
revision = click.option("--revision", help="Branch, tag or commit of the model.")
recipe = click.option("--recipe", help="Recipe name or file; default: the one that fits the model.")
base = click.option("--base", help="The original, where the record's chain does not lead there.")
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
seed = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)

push_to = click.option("--push-to", metavar="REPO", help="Push to this repository.")
push = click.option("--push/--no-push", default=None, help="Default: push when --repo is a Hub id.")
create_pr = click.option(
    "--create-pr/--no-create-pr", default=None, help="Default: a pull request when pushing to --repo."
)
delete_other_weights = click.option(
    "--delete-other-weights", is_flag=True, help="Delete further weight files in the same commit."
)
replace_record = click.option(
    "--replace-record", is_flag=True, help="Replace the target's record of other erasures, and its weights."
)
supersede = click.option(
    "--supersede", is_flag=True, help="Point to the target from the base's card, by a pull request there."
)
license_text = click.option("--license", type=FILE, help="Licence text of a model that has none.")

resume = click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from a killed run."
)
state = click.option("--state", type=FOLDER, help="Key, ledger and progress of killed runs.")
dry_run = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress; warnings stay.")
yes = click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing here asks.")
