"""docs/methods.md, from what bench/methods.py measured.

python bench/methods_page.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
RESULTS, PAGE = HOME / "bench" / "results" / "methods.json", HOME / "docs" / "methods.md"
FLOOR = 56.5
"""BLEU of a template of ten lines on the same inputs (the data set's README)."""
STEPS = 200
"""Steps of four rows in an epoch of 800."""
TWO_SIDED = 4.303
"""Student's t at 97.5 % for three seeds."""
WHEN = {
    "lora": "First choice: nearly as good as full tuning, merges, and one base serves many.",
    "lora+rslora": "Ranks above 32, for much data.",
    "lora+dora": "No better here, a third slower: where LoRA falls short on your rows.",
    "lora+pissa": "Few steps: it starts from what matters most in the weights.",
    "lora+plus": "A lower rate for A than for B; try it where LoRA learns too slowly.",
    "full": "The reference for quality; where a whole model may be stored for every task.",
    "full+blocks": "Less memory than full tuning, no layers added.",
    "adapter": "Swappable layers with more capacity than LoRA at the same place; never merged.",
    "prefix": "Very small, never touches the model; takes some context, and spoils other text.",
    "prompt": "The smallest of all; where thousands of tasks share one base.",
    "ia3": "A few thousand factors that merge; few rows, many clients.",
}
HEAD = """# Methods, side by side

<!-- Written by bench/methods_page.py from bench/results/methods.json; change those. -->

Restaurant data to text (e2e_nlg), 800 rows, one epoch, all 630 test inputs, the bundled
SmolLM2-135M-Instruct in single precision. Every method tried at most six settings on 400 rows
first, judged by the held-out loss, and trained on 800 with the best of them, on {where}.
Minutes (for the 800 rows) and memory are those of {cpu}, by ten steps of four
rows on a quiet machine and in passes of 512 tokens (1,024 are the default now: a little faster, 0.3
GB more). Where nothing else is said figures are of the first seed, which for `lora` and `full` is
the best of three; intervals are 95 %, by bootstrap over rows. A template of ten lines reaches BLEU
{floor}; what is *over* it is the mean.

{verdict}

"""


def figure(value: dict[str, Any]) -> str:
    """A value with its interval."""
    return f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}]"


def line(name: str, entry: dict[str, Any], general: float) -> str:
    """A method's row of the table: the first seed's figures, and the mean of BLEU over all."""
    seeds = entry["seeds"]
    first = seeds[0]
    bleus = [seed["values"]["bleu"]["value"] for seed in seeds]
    mean, extremes = statistics.mean(bleus), f"{min(bleus):.1f} to {max(bleus):.1f}"
    spread = f"; mean of {len(seeds)} seeds {mean:.1f}, {extremes}" if len(seeds) > 1 else ""
    cost = entry["cost_of_a_step"]
    cells = [
        f"`{name}`",
        f"{first['train']['trainable_parameters']:,}",
        figure(first["values"]["bleu"]) + spread,
        f"{mean - FLOOR:+.1f}",
        figure(first["values"]["chrf"]),
        figure(first["values"]["rougeL"]),
        f"{cost['seconds'] * STEPS / 60:.1f}" if cost else "not measured",
        f"{cost['peak_gb']:.1f}" if cost else "not measured",
        f"{general:.1f} to {first['values']['general']['value']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def rows_of(name: str, entry: dict[str, Any], general: float) -> list[str]:
    """A method at the settings its search found, and at its default rate where that was not it."""
    found = [line(name, entry, general)]
    if "at_the_default" in entry:
        default = entry | {"seeds": [entry["at_the_default"]]}
        found.append(line(name, default, general).replace(f"`{name}`", f"`{name}`, default rate"))
    return found


def against_full(methods: dict[str, Any]) -> str:
    """LoRA and adapter against full tuning, seed by seed."""
    said = []
    for name in ("lora", "adapter"):
        pairs = zip(methods[name]["seeds"], methods["full"]["seeds"], strict=True)
        gaps = [a["values"]["bleu"]["value"] - b["values"]["bleu"]["value"] for a, b in pairs]
        mean, half = statistics.mean(gaps), TWO_SIDED * statistics.stdev(gaps) / len(gaps) ** 0.5
        verdict = "equal within" if mean - half <= 0 <= mean + half else "apart beyond"
        said.append(f"{name} {mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}] ({verdict} it)")
    return f"BLEU against full tuning, three seeds, 95 % interval: {'; '.join(said)}."


def settings(entry: dict[str, Any]) -> str:
    """What a method was found to want."""
    chosen = entry["chosen"]
    said = ", ".join(f"{k} {v}" for k, v in chosen["method"].items() if k != "kind")
    return f"lr {chosen['lr']:g}, batch {chosen['batch']}{', ' + said if said else ''}"


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    methods = {n: e for n, e in found["methods"].items() if n != "base"}
    base = found["methods"]["base"]
    machine = found["machine"]
    trained = {
        seed["machine"].get("gpu", machine["cpu"]) for e in methods.values() for seed in e["seeds"]
    }
    text = HEAD.format(
        where=" and ".join(sorted(trained)),
        cpu=f"{machine['cores']} cores without a GPU",
        floor=FLOOR,
        verdict=against_full(methods),
    )
    names = ("method", "parameters", "BLEU", "over the template", "chrF", "ROUGE-L", "minutes")
    names += ("peak GB", "perplexity of general text, before and after")
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    blank = [
        "the base, untuned",
        "0",
        figure(base["bleu"]),
        f"{base['bleu']['value'] - FLOOR:+.1f}",
    ]
    blank += [
        figure(base["chrf"]) if "chrf" in base else "",
        figure(base["rougeL"]),
        "",
        "",
        f"{base['general']['value']:.1f}",
    ]
    lines += [f"| {' | '.join(blank)} |"]
    for name, entry in methods.items():
        lines += rows_of(name, entry, base["general"]["value"])
    text += "\n".join(lines) + "\n\n## When to use which\n\n| method | use it | settings found |\n"
    text += "| --- | --- | --- |\n"
    text += "".join(f"| `{n}` | {WHEN[n]} | {settings(e)} |\n" for n, e in methods.items())
    return text


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text())))
