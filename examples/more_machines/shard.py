"""A request in shards that are erased apart from each other, each from the original: `ids[rank::world]`.

    python shard.py takedown.yaml --repo org/eg3d --revision COMMIT --world 4 --staging /private/staging
    python shard.py takedown.yaml --repo org/eg3d --revision COMMIT --world 4 \\
        --bucket org/takedown-staging --requests org/takedown-requests/2026-0042

Writes the shards beside the request, so that the paths of its photos stay, and prints the commands that erase
them: for shells on any machines, or with `--bucket` for `hf jobs`. It starts none of them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from guide_hub.errors import InputError
from guide_hub.request import load_request


def split(request: Path, world: int, repo: str | None = None) -> list[Path]:
    """Writes `world` shards, fewer where there are fewer identities. InputError: the request has mistakes."""
    world = min(world, len(load_request(request, repo).identities))
    whole = yaml.safe_load(request.read_text(encoding="utf-8"))
    shards = []
    for rank in range(world):
        shard = request.with_name(f"{request.stem}.shard-{rank}-of-{world}.yaml")
        part = {**whole, "identities": whole["identities"][rank::world]}
        text = yaml.safe_dump(part, sort_keys=False, allow_unicode=True)
        with os.fdopen(os.open(shard, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        load_request(shard, repo)
        shards.append(shard)
    return shards


def local(shards: list[Path], args: argparse.Namespace) -> Iterator[str]:
    """One command a shard; each may run on another machine that sees the request and the staging folder."""
    yield "umask 077"
    yield shlex.join(["mkdir", "-p", args.staging])
    for rank, shard in enumerate(shards):
        yield shlex.join(erase(str(shard), f"{args.staging}/shard-{rank}", args))


def jobs(shards: list[Path], args: argparse.Namespace) -> Iterator[str]:
    """One job a shard. Request and photos are mounted from a private dataset, the results go to a bucket."""
    owner, name, *folder = args.requests.strip("/").split("/")
    yield shlex.join(["hf", "buckets", "create", args.bucket, "--private"])
    for rank, shard in enumerate(shards):
        where = "/".join(["/requests", *folder, shard.name])
        yield shlex.join(
            [
                "hf", "jobs", "uv", "run", "--detach", "--flavor", args.flavor, "--timeout", args.timeout,
                "--secrets", "HF_TOKEN", "--secrets", "GUIDE_HUB_KEY",
                "--volume", f"hf://datasets/{owner}/{name}:/requests:ro",
                "--volume", f"hf://buckets/{args.bucket}:/staging",
                "--with", "guide-hub", "--", *erase(where, f"/staging/shard-{rank}", args),
            ]
        )  # fmt: skip


def erase(request: str, output: str, args: argparse.Namespace) -> list[str]:
    words = ["guide-hub", "erase", "--repo", args.repo, "--request", request, "--no-push", "--output", output]
    words += ["--revision", args.revision] if args.revision else []
    return words + (["--recipe", args.recipe] if args.recipe else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("request", type=Path)
    parser.add_argument("--repo", required=True, help="the original: Hub id or folder")
    parser.add_argument("--revision", help="its commit; needed for a Hub id, so that all start from the same")
    parser.add_argument("--world", type=int, required=True, help="how many shards")
    parser.add_argument("--recipe")
    parser.add_argument("--staging", help="a private folder for the results")
    parser.add_argument("--bucket", help="for hf jobs: the private bucket for the results")
    parser.add_argument("--requests", help="for hf jobs: private dataset and the request's folder in it")
    parser.add_argument("--flavor", default="a10g-small")
    parser.add_argument("--timeout", default="6h", help="of a job; the service's own default is 30 minutes")
    args = parser.parse_args()
    if args.world < 1:
        parser.error("--world must be at least 1")
    if not Path(args.repo).exists() and ":" not in args.repo and not args.revision:
        parser.error("a Hub id needs --revision: all shards must start from the same commit")
    if bool(args.staging) == bool(args.bucket) or bool(args.bucket) != bool(args.requests):
        parser.error("give --staging, or --bucket and --requests")
    if args.requests and "/" not in args.requests.strip("/"):
        parser.error("--requests is OWNER/DATASET or OWNER/DATASET/FOLDER")
    try:
        shards = split(args.request, args.world, args.repo)
    except InputError as error:
        sys.exit(str(error))
    for line in (jobs if args.bucket else local)(shards, args):
        print(line)


if __name__ == "__main__":
    main()
