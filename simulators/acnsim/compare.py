#!/usr/bin/env python3
"""compare.py - `siteward plan` against ACN-Sim's own LLF and EDF over several seeds and capacities.

  compare.py [--seeds 1,2,3] [--caps 20,30] [--cars 60] [--evse basic|real] [--fresh] [--update] -- PLANNER [ARG...]

Prints a table and ends with status 1 where a goal is missed (see README.md). --fresh runs LLF and EDF again instead of reading
baseline.jsonl; --update writes them there.
"""
import argparse, json, os, sys
import numpy as np
from acnportal import acnsim
import bridge

HERE = os.path.dirname(os.path.abspath(__file__))
BASELINE = os.path.join(HERE, "baseline.jsonl")


def run(name, command, cap, seed, options):
    ids = acnsim.sites.caltech_acn().station_ids
    start, events = bridge.load("gen:%d:%d" % (options.cars, seed), "ideal", ids)
    planner = bridge.SubprocessPlanner(command) if name == "siteward" else bridge.builtin(name, options.evse, "ideal")
    try:
        result, sim = bridge.simulate(bridge.site("caltech", float(cap), options.evse), planner, events, start)
    finally:
        if name == "siteward":
            planner.close()
    cars = sim.ev_history.values()
    row = dict(alg=name, cap_kw=cap, seed=seed, cars=options.cars, evse=options.evse, pct=result["pct"],
               full=sum(1 for car in cars if car.remaining_demand <= 0.1), sessions=len(cars),
               violations=result["violated_periods_pilot"] + result["violated_periods_drawn"],
               pauses=result["pauses_per_session"], never=result["never_charged"])
    if name == "siteward":
        row.update(us=planner.solve_us, failed=planner.failed, cpu_us=planner.cpu_per_decision)
    return row


def baseline(options):
    rows = {}
    if os.path.exists(BASELINE):
        with open(BASELINE) as lines:
            for row in map(json.loads, lines):
                rows[row["alg"], row["cap_kw"], row["seed"], row["cars"], row["evse"]] = row
    for cap in options.caps:
        for seed in options.seeds:
            for name in ("LLF", "EDF"):
                key = (name, cap, seed, options.cars, options.evse)
                if options.fresh or key not in rows:
                    print("computing %s at %d kW, seed %d" % (name, cap, seed), file=sys.stderr, flush=True)
                    rows[key] = run(name, None, cap, seed, options)
                    if options.update:
                        with open(BASELINE, "w") as out:
                            out.writelines(json.dumps(rows[k]) + "\n" for k in sorted(rows))
    return rows


def main():
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1:]
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=numbers, default=list(range(101, 111)))
    parser.add_argument("--caps", type=numbers, default=[20, 30, 40, 50, 70])
    parser.add_argument("--cars", type=int, default=60)
    parser.add_argument("--evse", choices=["basic", "real"], default="basic")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args(arguments)
    if not command:
        parser.error("the planner's command is missing after --")
    print("seeds %s, %d cars a day, %s stations" % (options.seeds, options.cars, options.evse))
    known = baseline(options)
    print("  kW | energy: siteward     LLF     EDF | full cars: siteward  LLF  EDF of | violations | never, pauses | us per decision: p50  p99   max   cpu")
    missed = []
    for cap in options.caps:
        ours = [run("siteward", command, cap, seed, options) for seed in options.seeds]
        llf, edf = ([known[name, cap, seed, options.cars, options.evse] for seed in options.seeds] for name in ("LLF", "EDF"))
        mean = lambda rows: float(np.mean([row["pct"] for row in rows]))
        total = lambda rows, key="full": sum(row[key] for row in rows)
        us = np.concatenate([row["us"] for row in ours])
        cpu = float(np.mean([row["cpu_us"] for row in ours]))
        p50, p99 = float(np.percentile(us, 50)), float(np.percentile(us, 99))
        print("%4d | %15.3f %% %6.3f %% %6.3f %% | %19d %4d %4d %4d | %10d | %5d  %6.2f | %21.0f %5.0f %6.0f %5.0f"
              % (cap, mean(ours), mean(llf), mean(edf), total(ours), total(llf), total(edf), total(ours, "sessions"),
                 total(ours, "violations"), total(ours, "never"), float(np.mean([row["pauses"] for row in ours])), p50, p99, us.max(), cpu), flush=True)
        goals = [("0 violations", total(ours, "violations") == 0), ("0 failed decisions", total(ours, "failed") == 0)]
        if options.evse == "basic":
            goals += [("LLF's energy", mean(ours) >= mean(llf)), ("EDF's full cars", total(ours) >= total(edf)),
                      ("1 ms a decision", p99 <= 1000 and cpu <= 1000)]
        missed += ["%d kW: %s" % (cap, goal) for goal, met in goals if not met]
    for goal in missed:
        print("MISSED at " + goal)
    if options.evse == "basic" and not missed:
        print("every goal is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
