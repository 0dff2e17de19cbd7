"""What a card and a page both say about a run, each number with the file it was read from."""

from typing import Any

from tunesmith.cards.evidence import Evidence, Fact, point
from tunesmith.cards.goal import TRAIN, goal
from tunesmith.cards.verdict import REPORT

ACCOUNT = "data/account.json"
VERIFIED = "deploy/verified.json"

SEVERITIES = ("error", "warning", "info")

UNMEASURED = ("forgetting", "fairness", "safety", "memorisation")
"""What no stage of a run measures yet; a card says so instead of keeping quiet."""


ANSWERING = {
    "seconds answering": "seconds",
    "tokens answered": "tokens",
    "share that ended by itself": "stopped",
}


def base_facts(run: Evidence) -> list[Fact]:
    """What was tuned, and the earlier runs that it came from."""
    return [*run.facts(TRAIN, "base"), *lineage(run, ("from",))]


def lineage(run: Evidence, place: tuple[str, ...]) -> list[Fact]:
    """The run at `place` that training started from, its base, and what that run came from."""
    if not run.at(point(TRAIN, *place)):
        return []
    found = [*run.facts(TRAIN, *place), *run.facts(TRAIN, *place, "base")]
    before = "before that, " * (len(place) - 1)
    mine = [fact.model_copy(update={"label": f"{before}{named(fact)}"}) for fact in found]
    return [*mine, *lineage(run, (*place, "from"))]


def named(fact: Fact) -> str:
    """What a number of an earlier run is called in a card."""
    whose = "its base" if "/base/" in fact.source else "earlier run"
    return f"{whose}: {fact.label}"


def training_facts(run: Evidence) -> list[Fact]:
    """How it was tuned, and what that took."""
    found = [
        run.fact("method", TRAIN, "method", "kind"),
        *(f for f in run.facts(TRAIN, "method") if f.label != "kind" and f.value is not None),
        run.fact("objective", TRAIN, "objective", "kind"),
    ]
    for key in (
        "steps",
        "best_step",
        "measure",
        "best_value",
        "rate",
        "first_loss",
        "last_loss",
        "tokens",
        "trainable_parameters",
        "parameters",
        "seconds",
    ):
        found.append(run.fact(LABELS.get(key, key.replace("_", " ")), TRAIN, key))
    label, place = goal(run).learned
    words = run.fact("new words", TRAIN, "words")
    found += [run.fact(label, TRAIN, *place.split("/")), *([words] if words.value else [])]
    return [*found, *drawn_facts(run)]


def drawn_facts(run: Evidence) -> list[Fact]:
    """What was seen of each source of a mixture."""
    return [
        run.fact(f"{name}: {label}", TRAIN, "mixture", name, key)
        for name in run.at(f"{TRAIN}#/mixture") or {}
        for label, key in (
            ("rows seen, repeats too", "drawn"),
            ("rows never seen", "left_out"),
            ("share of what was seen", "share"),
        )
    ]


def source_facts(run: Evidence) -> list[Fact]:
    """The deciding measure of each source, before and after."""
    main = run.at(f"{REPORT}#/main")
    return [
        run.fact(f"{name}: {main}, {arm}", REPORT, "sources", name, "arms", arm, main, "value")
        for name, found in (run.at(f"{REPORT}#/sources") or {}).items()
        for arm in found.get("arms", ())
    ]


LABELS = {
    "measure": "best step by held-out",
    "best_value": "its value at the best step",
    "rate": "peak learning rate",
    "first_loss": "loss of the first step",
    "last_loss": "loss of the last step",
    "tokens": "tokens read",
    "trainable_parameters": "weights moved",
    "parameters": "weights in all",
    "seconds": "seconds of training",
}


def data_facts(run: Evidence) -> list[Fact]:
    """Rows by file and by part, and the digests that name them. An encoder has no template."""
    files = run.at(f"{ACCOUNT}#/files") or []
    found = [
        run.fact(f"rows of {name['file']} ({name['format']})", ACCOUNT, "files", str(i), "rows")
        for i, name in enumerate(files)
    ]
    uses = {"train": "trained on", "valid": "to choose the best step", "test": "held out to judge"}
    found += [run.fact(f"rows {use}", ACCOUNT, "parts", part) for part, use in uses.items()]
    template = run.fact("digest of the template", TRAIN, "tokenizer", "template")
    judged = [run.fact("rows judged", REPORT, "rows")] if run.read(REPORT) else []
    return [
        *found,
        *judged,
        run.fact("digest of the source", "manifest.json", "data", "source"),
        run.fact("digest of the prepared rows", "manifest.json", "data", "prepared"),
        run.fact("digest of the tokenizer", TRAIN, "tokenizer", "digest"),
        *([] if template.value == "" else [template]),
    ]


def account(run: Evidence) -> list[dict[str, Any]]:
    """What each transform took, kept and dropped, with its reasons."""
    return [
        {
            "name": step["kind"],
            "before": step["taken"],
            "kept": step["kept"],
            "dropped": step["taken"] - step["kept"],
            "reasons": ", ".join(f"{count} {reason}" for reason, count in step["dropped"].items()),
        }
        for step in run.at(f"{ACCOUNT}#/steps") or []
    ]


def findings(run: Evidence) -> list[tuple[Fact, dict[str, Any]]]:
    """What audits and evaluation found, severest first, each with where it is written."""
    places = [("data/findings.json", ()), (REPORT, ("findings",))]
    listed = [
        (run.fact(f"finding ({found['severity']})", file, *keys, str(i), "what"), found)
        for file, keys in places
        for i, found in enumerate(run.at(point(file, *keys)) or [])
    ]
    return sorted(listed, key=lambda pair: SEVERITIES.index(pair[1]["severity"]))


def answering_facts(run: Evidence) -> list[Fact]:
    """What answering took and, where answers were written, how many ended by themselves."""
    if not goal(run).judged:
        return []
    wrote = run.at(f"{REPORT}#/by") in (None, "generation")
    return [
        run.fact(f"{label}, {arm}", REPORT, "answering", arm, key)
        for label, key in ANSWERING.items()
        for arm in ("base", "tuned")
        if key == "seconds" or wrote
    ]


def export_facts(run: Evidence) -> list[tuple[str, list[Fact]]]:
    """What the reload of each export measured."""
    return [
        (kind, [*run.facts(VERIFIED, kind, "numbers"), run.fact("bytes", VERIFIED, kind, "bytes")])
        for kind in run.read(VERIFIED)
    ]


def environment_facts(run: Evidence) -> list[Fact]:
    """The machine and what was installed on it."""
    place = ("manifest.json", "environment")
    return [
        run.fact("seed", "manifest.json", "seed"),
        *run.facts(*place),
        *run.facts(*place, "versions"),
        run.fact("threads", *place, "torch", "threads"),
        run.fact("processor", *place, "torch", "cpu_capability"),
        run.fact("digest of the code", "manifest.json", "code"),
    ]
