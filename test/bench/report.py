"""The table, the targets and the JSON file."""
import json

from jobs import FIGURES
from systems import BEFORE, OURS, RAW, STORAGE_DAEMON
from targets import TARGETS

TITLE_WIDTH = 42
CELL = "{value:>8} {raw:>6} {daemon:>6}"
CELL_WIDTH = 22
NAMES = 5
NOISE = 0.03


def number(value):
    if value is None:
        return "-"
    if value >= 99_950:
        return f"{value / 1000:.0f}k"
    if value >= 9_995:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def quotient(value, letter):
    return "" if value is None else f"{value:.2f}{letter}" if value < 100 else f"{value:.0f}{letter}"


def cell(results, job, figure, system):
    raw = results.ratio(job, figure, system, RAW) if system != RAW else None
    daemon = results.ratio(job, figure, system, STORAGE_DAEMON) if system != STORAGE_DAEMON else None
    return CELL.format(value=number(results.median(job, figure, system)), raw=quotient(raw, "r"),
                       daemon=quotient(daemon, "q"))


def table_lines(jobs, results):
    systems = results.systems()
    yield "Medians of the rounds; r: times raw, q: times qemu-storage-daemon (medians of the ratios in each round)."
    for figure in FIGURES:
        rows = [job for job in jobs if results.has(job.name, figure)]
        if rows:
            heading = f"{FIGURES[figure].heading} ({FIGURES[figure].better} is better)"
            yield ""
            yield heading
            yield " " * TITLE_WIDTH + "".join(f"{system:>{CELL_WIDTH + 2}}" for system in systems)
        for job in rows:
            cells = (cell(results, job.name, figure, system) for system in systems)
            yield f"{job.title:{TITLE_WIDTH}}" + "".join(f"  {text}" for text in cells)


def compared(jobs, results):
    """(job, figure, system, its ratio to the same of the other build)."""
    for job in jobs:
        for figure in FIGURES:
            for system in results.systems():
                before = system.replace(OURS, BEFORE, 1)
                ratio = results.ratio(job.name, figure, system, before) if before != system else None
                if ratio is not None:
                    yield job, figure, system, ratio


def is_worse(figure, ratio):
    return ratio < 1 - NOISE if FIGURES[figure].better == "more" else ratio > 1 + NOISE


def compared_lines(jobs, results):
    rows = list(compared(jobs, results))
    if rows:
        yield "This build, times the baseline: before, now, the median of the ratios in each round, and their quartiles:"
    for job, figure, system, ratio in rows:
        values = f"{number(results.median(job.name, figure, system.replace(OURS, BEFORE, 1))):>8}" \
                 f"{number(results.median(job.name, figure, system)):>8}"
        verdict = f"worse by more than {NOISE:.0%}" if is_worse(figure, ratio) else ""
        spread = results.spread(job.name, figure, system, system.replace(OURS, BEFORE, 1))
        quartiles = "{:.3f} to {:.3f}".format(*spread) if spread else ""
        yield f"  {system:20} {job.name:22} {figure:10} {values} {ratio:6.3f}  {quartiles:16} {verdict}".rstrip()


def left_out_lines(results):
    reasons = {}
    for (job, system), why in results.left_out.items():
        reasons.setdefault((system, why), []).append(job)
    for (system, why), jobs in reasons.items():
        names = ", ".join(jobs[:NAMES]) + (f" and {len(jobs) - NAMES} more" if len(jobs) > NAMES else "")
        yield f"left out: {system}: {names}: {why}"


def judged(results):
    for target in TARGETS:
        value = target.measured(results)
        if value is not None:
            yield target, value


def target_lines(results):
    lines = [f"  {target.subject:20} {target.job:22} {FIGURES[target.figure].unit:6} {target.text():48} "
             f"{number(value):>7}  {target.verdict(value)}" for target, value in judged(results)]
    if lines:
        yield "Targets, and what this run measured:"
        yield from lines


def broken_lines(results):
    for failure in results.broken:
        yield f"BROKEN: {failure['job']}, {failure['system']}, round {failure['round']}: {failure['why']}"


def text(facts, jobs, results):
    parts = ([f"{name}: {value}" for name, value in facts.items()], table_lines(jobs, results),
             compared_lines(jobs, results), left_out_lines(results), target_lines(results), broken_lines(results))
    return "\n\n".join(block for block in ("\n".join(part) for part in parts) if block)


def medians(results):
    keys = dict.fromkeys((sample["job"], sample["figure"], sample["system"]) for sample in results.samples)
    for job, figure, system in keys:
        yield {"job": job, "figure": figure, "unit": FIGURES[figure].unit, "system": system,
               "median": results.median(job, figure, system), "times_raw": results.ratio(job, figure, system, RAW),
               "times_qemu_storage_daemon": results.ratio(job, figure, system, STORAGE_DAEMON)}


def as_json(facts, jobs, results):
    return {"facts": facts, "jobs": {job.name: job.title for job in jobs}, "medians": list(medians(results)),
            "targets": [{"job": target.job, "figure": target.figure, "system": target.subject,
                         "target": target.text(), "measured": value, "verdict": target.verdict(value)}
                        for target, value in judged(results)],
            "left_out": [{"job": job, "system": system, "why": why}
                         for (job, system), why in results.left_out.items()],
            "broken": results.broken, "samples": results.samples, "series": results.series}


def write_json(path, facts, jobs, results):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(as_json(facts, jobs, results), file, indent=1)
        file.write("\n")
