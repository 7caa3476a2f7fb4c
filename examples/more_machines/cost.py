"""What N erasures take, from measured step times: machine hours, days on so many machines, and money.

    python cost.py --seconds 3.2 --recipe heads                     # a step measured elsewhere
    python cost.py --times times.json --machines 8 --price 1.20     # {"H100, guide": 0.9, ...}
    python cost.py --times ../benchmarks/results --match full512    # what examples/benchmarks measured

Prints Markdown, and under it what in it is an assumption. Measures nothing and knows no prices.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from guide_hub.errors import InputError
from guide_hub.recipe import load_recipe

PEOPLE = (1, 10, 100, 1000, 10000)
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@dataclass(frozen=True)
class Costs:
    """`step`, `each`, `start` in seconds; `steps` an identity; `price` of a machine in an hour, if known."""

    step: float
    steps: int
    each: float = 0.0
    start: float = 0.0
    machines: int = 1
    price: float | None = None

    @property
    def identity(self) -> float:
        """Seconds of one erasure."""
        return self.steps * self.step + self.each

    def machine_hours(self, people: int) -> float:
        return (people * self.identity + min(people, self.machines) * self.start) / 3600

    def days(self, people: int) -> float:
        """Until the machine with the most shards' identities is done: they are dealt out evenly."""
        return (math.ceil(people / self.machines) * self.identity + self.start) / 86400

    def money(self, people: int) -> float | None:
        return None if self.price is None else self.machine_hours(people) * self.price


def read(path: Path, match: str = "") -> dict[str, float]:
    """Seconds a step by name: of a JSON file {name: seconds}, or of a folder of examples/benchmarks' results.

    Of a result that is the median of its rounds; those of other groups, or that failed, are left out.
    """
    if path.is_file():
        found = {str(name): float(seconds) for name, seconds in json.loads(path.read_text()).items()}
    else:
        found = {}
        for file in sorted(path.glob("*-step-*.json")):
            result = json.loads(file.read_text())
            if "wall_s" in result:
                machine = result.get("machine", {})
                words = [file.stem, *(f"{machine[k]}" for k in ("CPU", "GPU") if machine.get(k))]
                words += [f"{machine['threads']} threads"] if "threads" in machine else []
                found[", ".join(words)] = statistics.median(result["wall_s"])
    return {name: seconds for name, seconds in found.items() if match in name}


def table(costs: Costs, people: tuple[int, ...] = PEOPLE) -> list[str]:
    lines = [f"| N | machine hours | days on {costs.machines} | money |", "|---:|---:|---:|---:|"]
    for n in people:
        money = costs.money(n)
        cells = [f"{n}", number(costs.machine_hours(n)), number(costs.days(n)), number(money)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def assumptions(costs: Costs) -> list[str]:
    """What the table takes for granted."""
    each, start = (f"{s:g} s" if s else "nothing" for s in (costs.each, costs.start))
    return [
        "Measured: the seconds of a step. Not measured:",
        f"* {costs.steps} steps an identity, the most of the recipe: an early end makes it fewer.",
        "* Every identity takes as long as any other, and so many machines do so many times the work.",
        f"* {each} for inversion and measures of an identity, {start} for a machine to start.",
        "* Left out: the merge, measuring all N on the merged model, and whatever the merge did not keep.",
        "* Left out: a chain's rehearsal of earlier identities. Here every shard has one machine of its own.",
        "* Money is the price as given." if costs.price is not None else "* No price was given.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, help="of one step, measured")
    parser.add_argument("--times", type=Path, help="JSON file or folder of results; default: the benchmarks'")
    parser.add_argument("--match", default="", help="only times with this in their name")
    parser.add_argument("--recipe", default="guide", help="whose steps; default: guide")
    parser.add_argument("--steps", type=int, help="an identity, in place of the recipe's")
    parser.add_argument("--each", type=float, default=0.0, help="further seconds an identity")
    parser.add_argument("--start", type=float, default=0.0, help="seconds until a machine works")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--price", type=float, help="of one machine's hour")
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    args = parser.parse_args()
    if args.machines < 1 or min(args.people) < 1:
        parser.error("--machines and --people start at 1")
    try:
        optim = load_recipe(args.recipe).optim
        steps = args.steps or optim.steps
        times = {"as given": args.seconds} if args.seconds else read(args.times or BENCHMARKS, args.match)
    except (InputError, OSError, ValueError, AttributeError, TypeError) as error:
        sys.exit(f"cannot read this: {error}")
    if not times:
        sys.exit("no measured step times here; give --seconds or --times, or run examples/benchmarks")
    for name, seconds in times.items():
        costs = Costs(seconds, steps, args.each, args.start, args.machines, args.price)
        print(f"{name}: {seconds:.3g} s a step, {number(costs.identity)} s an identity\n")
        print("\n".join(table(costs, tuple(args.people))), end="\n\n")
    print("\n".join(assumptions(costs)))


if __name__ == "__main__":
    main()
