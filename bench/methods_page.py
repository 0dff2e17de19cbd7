"""docs/methods.md, from what bench/methods.py measured.

python bench/methods_page.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
RESULTS, PAGE = HOME / "bench" / "results" / "methods.json", HOME / "docs" / "methods.md"
FLOOR = 56.7
"""BLEU of a template of ten lines on the same rows (the data set's README)."""
WHEN = {
    "lora": "First choice: nearly as good as full tuning, merges, and one base serves many.",
    "lora+rslora": "Ranks above 32, for much data.",
    "lora+dora": "A little more quality may be worth a slower step.",
    "lora+pissa": "Few steps: it starts from what matters most in the weights.",
    "lora+plus": "A lower rate for A than for B; try it where LoRA learns too slowly.",
    "full": "The reference for quality; where a whole model may be stored for every task.",
    "full+blocks": "Less memory than full tuning, no layers added.",
    "adapter": "Swappable layers with more capacity than LoRA at the same place; never merged.",
    "prefix": "Very small and never touches the model; takes some of the context.",
    "prompt": "The smallest of all; where thousands of tasks share one base.",
    "ia3": "A few thousand factors that merge; few rows, many clients.",
}
HEAD = """# Methods, side by side

<!-- Written by bench/methods_page.py from bench/results/methods.json; change those. -->

Restaurant data to text (e2e_nlg), {rows}, one epoch, all {test} test inputs, the bundled
SmolLM2-135M-Instruct, on {cpu}. Every method tried a few settings on 400 rows first, judged by the
held-out loss, and trained on 800 with the best of them. Intervals are 95 %, by bootstrap over rows.
A template of ten lines reaches BLEU {floor}: a method below that has not paid yet at 800 rows.

"""


def figure(value: dict[str, Any]) -> str:
    """A value with its interval."""
    return f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}]"


def line(name: str, entry: dict[str, Any], general: float) -> str:
    """A method's row of the table: means over its seeds, the first seed's intervals."""
    seeds = entry["seeds"]
    first = seeds[0]
    bleus = [seed["values"]["bleu"]["value"] for seed in seeds]
    spread = f"; {len(seeds)} seeds {min(bleus):.1f} to {max(bleus):.1f}" if len(seeds) > 1 else ""
    minutes = statistics.mean(seed["train"]["seconds"] for seed in seeds) / 60
    memory = statistics.mean(seed["peak_gb"] for seed in seeds)
    cells = [
        f"`{name}`",
        f"{first['train']['trainable_parameters']:,}",
        figure(first["values"]["bleu"]) + spread,
        f"{statistics.mean(bleus) - FLOOR:+.1f}",
        figure(first["values"]["chrf"]),
        figure(first["values"]["rougeL"]),
        f"{minutes:.1f}",
        f"{memory:.1f}",
        f"{general:.1f} to {first['values']['general']['value']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def settings(entry: dict[str, Any]) -> str:
    """What a method was found to want."""
    chosen = entry["chosen"]
    said = ", ".join(f"{k} {v}" for k, v in chosen["method"].items() if k != "kind")
    return f"lr {chosen['lr']:g}, batch {chosen['batch']}{', ' + said if said else ''}"


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    methods = {n: e for n, e in found["methods"].items() if n != "base" and e["seeds"]}
    base = found["methods"]["base"]
    text = HEAD.format(
        rows="800 rows",
        test=630,
        cpu=f"{found['machine']['cores']} cores without a GPU",
        floor=FLOOR,
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
        figure(base["chrf"]),
        figure(base["rougeL"]),
        "",
        "",
        f"{base['general']['value']:.1f}",
    ]
    lines += [f"| {' | '.join(blank)} |"]
    lines += [line(name, entry, base["general"]["value"]) for name, entry in methods.items()]
    text += "\n".join(lines) + "\n\n## When to use which\n\n| method | use it | settings found |\n"
    text += "| --- | --- | --- |\n"
    text += "".join(f"| `{n}` | {WHEN[n]} | {settings(e)} |\n" for n, e in methods.items())
    return text


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text())))
