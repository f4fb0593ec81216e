#!/usr/bin/env python3
"""bridge.py - run an external planner (any program) inside ACN-Sim, beside ACN-Sim's own algorithms.

  bridge.py --sessions S.csv|events.json.gz|gen:N:SEED[:DAYS] [--site caltech|jpl|simple] [--caps 30,50,70]
                   [--evse basic|real] [--battery ideal|real] [--also LLF,EDF,FCFS,RR,Unctrl] [--max-recompute 1]
                   [--timeout 10] [--out results.jsonl] [--trace FILE] -- PLANNER [ARG...]

Needs: Python 3.8-3.11 and the packages of requirements.txt (all on PyPI).

PROTOCOL  "edge-planner/1": one JSON object per line, UTF-8; the bridge writes to the planner's stdin and reads its
stdout (stderr passes through). Strict lock-step: one answer per request. Unknown fields must be ignored.

 1. bridge -> {"type":"hello","proto":"edge-planner/1","period_s":300,
      "stations":[{"id":"CA-148","voltage_v":208.0,"phase_deg":-90.0,"min_a":6.0,"max_a":32.0,
                   "levels_a":[0,6,7,...]|null}, ...],
         # a station takes 0 A, or a value in [min_a,max_a]; with levels_a, only one of those values
      "constraints":[{"id":"Secondary A","limit_a":138.9,"terms":[[station_index, re, im], ...]}, ...]}
         # each constraint is   | sum_i (re_i + j*im_i) * I_i |  <=  limit_a      (I_i >= 0, amps)
         # re,im = coefficient * exp(j*phase): a European per-phase fuse has im == 0 for all its terms (linear);
         # a North American delta (208 V line-to-line chargers) is a true phasor sum.
         # A tree of per-phase limits is given as one row per node and phase.
    planner -> {"type":"ready","name":"..."}
 2. every decision: bridge -> {"type":"plan","t":1234,"time_s":370200,"sessions":[
        {"station":17,"session":"2_39_..","arrival":1200,"departure":1300,"estimated_departure":1300,
         "requested_kwh":12.5,"delivered_kwh":3.25,"remaining_kwh":9.25,"remaining_amp_periods":533.7,
         "min_a":0.0,"max_a":32.0,"pilot_a":16.0,"measured_a":15.8}, ...]}
         # times in periods since start of the simulation; departure is what the driver said (known to the planner);
         # remaining_amp_periods = amps x periods to full at this station's voltage; min_a/max_a for THIS period;
         # pilot_a / measured_a: last limit sent and current drawn (a battery in taper draws less than its pilot)
    planner -> {"type":"pilots","t":1234,"amps":{"17":16.0, ...}|[a0,a1,...],"solve_us":41}
         # missing stations = 0 A; solve_us optional (planner's own time, without pipe and JSON)
         # or {"type":"error","message":"..."}: the decision counts as failed and every station keeps its last pilot
 3. end: bridge -> {"type":"bye"}; the planner exits within 5 s.

RESULT (one JSON line per capacity and algorithm): pct of requested energy delivered, periods with a violated limit
and the worst excess in A (recomputed here from the phasors, whoever planned), pauses per session (back to 0 A
between two charging spells: cars and contactors dislike it), sessions never charged, decisions, planner time.
"""
import argparse, copy, csv, gzip, json, math, os, random, select, subprocess, sys, time, warnings
from datetime import datetime
warnings.simplefilter("ignore")
import numpy as np
import pytz
from acnportal import acnsim, algorithms
from acnportal.acnsim import analysis
from acnportal.algorithms import BaseAlgorithm

TZ = pytz.timezone("America/Los_Angeles"); PERIOD = 5; VOLT = 208.0

class PlannerDied(RuntimeError): pass

class SubprocessPlanner(BaseAlgorithm):
    """An ACN-Sim algorithm that asks a child process over JSON lines (see the module's PROTOCOL)."""
    def __init__(self, argv, timeout=10.0, max_recompute=1, trace=None):
        super().__init__()
        self.argv, self.timeout, self.max_recompute, self.trace = argv, timeout, max_recompute, trace
        self.p = None; self.buf = b""; self.solve_us = []; self.round_us = []; self.failed = 0; self.name = argv[0]
    def __deepcopy__(self, memo): return self          # ACN-Sim copies interfaces, never the child
    def _send(self, o):
        s = json.dumps(o, separators=(",", ":"), default=float) + "\n"
        if self.trace: self.trace.write("> " + s)
        self.p.stdin.write(s.encode()); self.p.stdin.flush()
    def _recv(self):
        end = time.monotonic() + self.timeout
        while b"\n" not in self.buf:
            left = end - time.monotonic()
            if left <= 0: raise PlannerDied("planner gave no answer within %.1f s" % self.timeout)
            if not select.select([self.p.stdout], [], [], left)[0]: continue
            d = os.read(self.p.stdout.fileno(), 1 << 16)
            if not d: raise PlannerDied("planner closed its output (exit %s)" % self.p.poll())
            self.buf += d
        line, self.buf = self.buf.split(b"\n", 1)
        if self.trace: self.trace.write("< " + line.decode() + "\n")
        return json.loads(line)
    def start(self):
        inf = self.interface.infrastructure_info(); self.inf = inf
        self.p = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ph = np.deg2rad(inf.phases)
        st = []
        for i, sid in enumerate(inf.station_ids):
            cont = bool(inf.is_continuous[i]); al = inf.allowable_pilots[i]
            lv = None if cont else [float(x) for x in al]
            mn = float(al[0]) if cont else min([x for x in lv if x > 0] or [0.0])
            st.append(dict(id=sid, voltage_v=float(inf.voltages[i]), phase_deg=float(inf.phases[i]), min_a=mn, max_a=float(inf.max_pilot[i]), levels_a=lv))
        cs = []
        for j, row in enumerate(inf.constraint_matrix):
            cs.append(dict(id=str(inf.constraint_ids[j]), limit_a=float(inf.constraint_limits[j]),
                           terms=[[int(i), round(float(row[i] * np.cos(ph[i])), 12), round(float(row[i] * np.sin(ph[i])), 12)] for i in np.nonzero(row)[0]]))
        self._send(dict(type="hello", proto="edge-planner/1", period_s=self.interface.period * 60, stations=st, constraints=cs))
        r = self._recv()
        self.cpu_began = self.cpu_us(); self.cpu_per_decision = None
        if r.get("type") != "ready": raise PlannerDied("expected ready, got %r" % r)
        self.name = r.get("name", self.name)
    def schedule(self, active_sessions):
        if self.p is None: self.start()
        inf, it = self.inf, self.interface
        last = it.last_applied_pilot_signals; act = it.last_actual_charging_rate
        ss = []
        for s in active_sessions:
            i = inf.get_station_index(s.station_id)
            ss.append(dict(station=i, session=s.session_id, arrival=int(s.arrival), departure=int(s.departure), estimated_departure=int(s.estimated_departure),
                           requested_kwh=float(s.requested_energy), delivered_kwh=float(s.energy_delivered), remaining_kwh=float(s.remaining_demand),
                           remaining_amp_periods=float(it.remaining_amp_periods(s)), min_a=float(max(0, s.min_rates[0])), max_a=float(min(s.max_rates[0], inf.max_pilot[i])),
                           pilot_a=float(last.get(s.session_id, 0)), measured_a=float(act.get(s.session_id, 0))))
        t0 = time.perf_counter()
        self._send(dict(type="plan", t=int(it.current_time), time_s=int(it.current_time * it.period * 60), sessions=ss))
        r = self._recv()
        if ss: self.round_us.append((time.perf_counter() - t0) * 1e6)
        if r.get("type") != "pilots":
            self.failed += 1
            return {s.station_id: [float(last.get(s.session_id, 0))] for s in active_sessions}
        if ss and "solve_us" in r: self.solve_us.append(float(r["solve_us"]))
        a = r["amps"]; pairs = a.items() if isinstance(a, dict) else enumerate(a)
        out = {sid: [0.0] for sid in inf.station_ids}
        for k, v in pairs: out[inf.station_ids[int(k)]] = [float(v)]
        return out
    def cpu_us(self):
        """CPU time of the planner's process so far: what its decisions cost on a machine that is busy with other things."""
        with open("/proc/%d/schedstat" % self.p.pid) as f: return int(f.read().split()[0]) / 1000
    def close(self):
        if self.p:
            if self.round_us: self.cpu_per_decision = (self.cpu_us() - self.cpu_began) / len(self.round_us)
            try: self._send(dict(type="bye")); self.p.stdin.close(); self.p.wait(5)
            except Exception: self.p.kill()

# ---------------------------------------------------------------- sessions and sites
def _ev(arr, dep, kwh, station, sid, battery, pmax):
    dep = min(max(dep, arr + 1), arr + 144); kwh = min(kwh, pmax * (dep - arr) * PERIOD / 60)
    if battery == "ideal": b = acnsim.Battery(kwh, 0, pmax)
    else:
        kwh = min(kwh, .998 * pmax * (dep - arr) * PERIOD / 60); cap, init = acnsim.models.battery.batt_cap_fn(kwh, dep - arr, VOLT, PERIOD); b = acnsim.Linear2StageBattery(cap, init, pmax)
    return acnsim.EV(arr, dep, kwh, station, sid, b)
def load(spec, battery, ids):
    """-> (start, EventQueue). CSV columns: session,station,arrival,departure,kwh (arrival/departure in 5-min periods)."""
    start = TZ.localize(datetime(2019, 3, 1)); pmax = 6.656
    if spec.endswith(".json.gz"):
        with gzip.open(spec, "rt") as f: q = acnsim.EventQueue.from_json(json.load(f))
        return start, q
    if spec.startswith("gen:"):                         # deterministic, ACN-like workplace pattern; no data file needed
        _, n, seed, *d = spec.split(":"); days = int(d[0]) if d else 7; r = random.Random(int(seed)); rows = []
        for day in range(days):
            free = {s: 0 for s in ids}
            for k in range(int(n)):
                a = int(max(0, min(275, r.gauss(8.6, 1.3) * 12 if r.random() < .7 else r.gauss(14, 2.5) * 12)))
                dur = int(max(4, min(140, r.gauss(6.2, 2.2) * 12))); kwh = min(max(1.0, r.lognormvariate(2.1, .65)), 40.0)
                av = [s for s in ids if free[s] <= a]
                if not av: continue
                s = r.choice(av); dep = min(a + dur, 287); 
                if dep <= a: continue
                free[s] = dep + 1; rows.append((f"g{day}_{k}", s, day * 288 + a, day * 288 + dep, round(kwh, 3)))
        rows.sort(key=lambda x: x[2])
    else:
        rows = [(r["session"], r["station"], int(r["arrival"]), int(r["departure"]), float(r["kwh"])) for r in csv.DictReader(open(spec))]
    evs = [_ev(a, d, k, s, i, battery, pmax) for i, s, a, d, k in rows]
    return start, acnsim.EventQueue([acnsim.PluginEvent(e.arrival, e) for e in evs])
def site(name, cap, evse):
    if name == "caltech": return acnsim.sites.caltech_acn(basic_evse=(evse == "basic"), voltage=208, transformer_cap=cap)
    if name == "jpl": return acnsim.sites.jpl_acn(basic_evse=(evse == "basic"), voltage=208, transformer_cap=cap)
    return acnsim.sites.simple_acn(acnsim.sites.caltech_acn().station_ids, voltage=208, aggregate_cap=cap)
def builtin(n, evse, battery):
    kw = {}
    if battery == "real": kw.update(estimate_max_rate=True, max_rate_estimator=algorithms.SimpleRampdown())
    if evse == "real": kw["uninterrupted_charging"] = True
    f = {"LLF": algorithms.least_laxity_first, "EDF": algorithms.earliest_deadline_first, "FCFS": algorithms.first_come_first_served}
    if n in f: return algorithms.SortedSchedulingAlgo(f[n], **kw)
    if n == "RR": return algorithms.RoundRobin(algorithms.first_come_first_served, continuous_inc=1, **kw)
    if n == "Unctrl": return algorithms.UncontrolledCharging()
    raise SystemExit("unknown algorithm " + n)
def simulate(net, alg, events, start):
    """Runs one simulation; returns (result dict, simulator)."""
    sim = acnsim.Simulator(net, alg, events, start, period=PERIOD, verbose=False); t = time.time(); sim.run()
    cc = np.abs(net.constraint_current(sim.pilot_signals)); lim = net.magnitudes[:, None]; cr = np.abs(net.constraint_current(sim.charging_rates))
    us = np.array(getattr(alg, "solve_us", []) or getattr(alg, "round_us", []) or [x["solve_time"] * 1e6 for x in alg.solve_stats if x["active_sessions"]] or [0.0])
    r = dict(pct=round(analysis.proportion_of_energy_delivered(sim) * 100, 4), demands_met_pct=round(analysis.proportion_of_demands_met(sim) * 100, 3),
             delivered_kwh=round(analysis.total_energy_delivered(sim), 2), sessions=len(sim.ev_history),
             violated_periods_pilot=int(np.sum(np.any(cc > lim * (1 + 1e-6) + 1e-3, axis=0))), worst_excess_a=round(float(np.max(cc - lim)), 4),
             violated_periods_drawn=int(np.sum(np.any(cr > lim * (1 + 1e-6) + 1e-3, axis=0))),
             decisions=len(us), plan_us_p50=round(float(np.median(us)), 1), plan_us_p99=round(float(np.percentile(us, 99)), 1), plan_us_max=round(float(us.max()), 1), wall_s=round(time.time() - t, 1))
    idx = {x: i for i, x in enumerate(net.station_ids)}; pauses = 0; never = 0
    for e in sim.ev_history.values():                   # a pause: back to 0 A after charging began, before charging ended
        p = sim.pilot_signals[idx[e.station_id], e.arrival:e.departure] > 1e-6; on = np.nonzero(p)[0]
        if len(on) == 0: never += 1
        else: q = p[on[0]:on[-1] + 1]; pauses += int(np.sum(q[:-1] & ~q[1:]))
    r["pauses_per_session"] = round(pauses / max(1, len(sim.ev_history)), 3); r["never_charged"] = never
    if isinstance(alg, SubprocessPlanner): r["failed_decisions"] = alg.failed; r["round_trip_us_p50"] = round(float(np.median(alg.round_us or [0])), 1)
    return r, sim
def main():
    av = sys.argv[1:]; cmd = []
    if "--" in av: k = av.index("--"); av, cmd = av[:k], av[k + 1:]
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--sessions", default="gen:60:1"); ap.add_argument("--site", default="caltech"); ap.add_argument("--caps", default="30,50,70"); ap.add_argument("--evse", default="basic")
    ap.add_argument("--battery", default="ideal"); ap.add_argument("--also", default="LLF"); ap.add_argument("--max-recompute", type=int, default=1); ap.add_argument("--timeout", type=float, default=10)
    ap.add_argument("--out"); ap.add_argument("--trace"); o = ap.parse_args(av)
    algs = ([("planner", None)] if cmd else []) + [(a, a) for a in o.also.split(",") if a]
    ids = acnsim.sites.caltech_acn().station_ids if o.site != "jpl" else acnsim.sites.jpl_acn().station_ids
    for cap in [float(c) for c in o.caps.split(",")]:
        sims = {}
        for label, b in algs:
            start, ev = load(o.sessions, o.battery, ids)
            tr = open(o.trace, "w") if (o.trace and b is None) else None
            alg = SubprocessPlanner(cmd, o.timeout, o.max_recompute, tr) if b is None else builtin(b, o.evse, o.battery)
            try: r, sims[label] = simulate(site(o.site, cap, o.evse), alg, ev, start)
            finally:
                if isinstance(alg, SubprocessPlanner): alg.close()
            line = json.dumps(dict(sessions_from=os.path.basename(o.sessions), site=o.site, cap_kw=cap, evse=o.evse, battery=o.battery, alg=alg.name if b is None else b, **r))
            print(line, flush=True)
            if o.out: open(o.out, "a").write(line + "\n")
        if "planner" in sims and "LLF" in sims:
            p, q = sims["planner"].pilot_signals, sims["LLF"].pilot_signals; w = min(p.shape[1], q.shape[1]); d = np.abs(p[:, :w] - q[:, :w])
            print(json.dumps(dict(cap_kw=cap, compare="planner vs LLF pilots", equal_pct=round(float(np.mean(d < 0.02) * 100), 3), mean_abs_a=round(float(d.mean()), 5), max_abs_a=round(float(d.max()), 3))), flush=True)
if __name__ == "__main__": main()
