//! The stored instances. `data/instances/README.md` says where they come from.

use serde::Deserialize;
use siteward::engine::model::topology::Topology;
use siteward::engine::plan::PlanState;
use siteward::engine::units::{Current, PerPhase, Phase};

use crate::exact::{Slow, SlowMember};
use crate::site;

#[derive(Deserialize)]
pub(crate) struct Instance {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) n: usize,
    parent: Vec<i64>,
    lim: Vec<[f64; 3]>,
    at: Vec<usize>,
    ph: Vec<usize>,
    hi: Vec<f64>,
    pub(crate) opt: Optima,
}

#[derive(Deserialize)]
pub(crate) struct Optima {
    pub(crate) served_max: usize,
    pub(crate) maxmin: MaxMin,
    pub(crate) maxmin_served: Served,
}

#[derive(Deserialize)]
pub(crate) struct MaxMin {
    pub(crate) sorted: Vec<f64>,
    #[serde(default)]
    pub(crate) x: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Served {
    pub(crate) sum_phaseamps: f64,
}

pub(crate) fn all() -> Vec<Instance> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/instances");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert_eq!(paths.len(), 11, "instances");
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a text");
        let mut instance: Instance = serde_json::from_str(&text).expect("an instance");
        instance.name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        instance
    };
    paths.iter().map(read).collect()
}

impl Instance {
    /// Whether the slow solver takes too long for it: then what is stored with it must do.
    pub(crate) const fn is_large(&self) -> bool {
        self.n > 1_000
    }

    fn phases(&self, connector: usize) -> Vec<Phase> {
        Phase::ALL.into_iter().filter(|phase| self.ph[connector] >> phase.index() & 1 == 1).collect()
    }

    fn rows(&self, connector: usize) -> Vec<usize> {
        let above = std::iter::successors(Some(self.at[connector]), |at| usize::try_from(self.parent[*at]).ok());
        above.flat_map(|at| self.phases(connector).into_iter().map(move |phase| at * 3 + phase.index())).collect()
    }

    pub(crate) fn site(&self) -> (Topology, PlanState) {
        let amps = |amps: f64| Current::from_ma(format!("{:.0}", amps * 1000.0).parse().expect("a current"));
        let circuit = |at: usize| {
            let parent = usize::try_from(self.parent[at]).ok();
            site::circuit(at, parent, PerPhase::from_fn(|phase| amps(self.lim[at][phase.index()])))
        };
        let circuits = (0..self.parent.len()).map(circuit).collect();
        let stations = (0..self.n)
            .map(|number| site::station(number, self.at[number], &self.phases(number), amps(self.hi[number])))
            .collect();
        let topology = site::topology(circuits, stations);
        let state = site::state(&topology, crate::NOW);
        (topology, state)
    }

    pub(crate) fn slow(&self, min: f64) -> Slow {
        let member = |number: usize| SlowMember {
            terms: self.rows(number).into_iter().map(|row| (row, 1)).collect(),
            min,
            max: self.hi[number],
            weight: 1.0,
        };
        Slow { capacities: self.lim.iter().flatten().copied().collect(), members: (0..self.n).map(member).collect() }
    }

    /// The exact shares of those who are served, with their minimums.
    pub(crate) fn slow_among(&self, is_served: &[bool]) -> Vec<f64> {
        let mut slow = self.slow(6.0);
        for (member, is_served) in slow.members.iter_mut().zip(is_served).filter(|(_, is_served)| !**is_served) {
            (member.min, member.max) = (0.0, if *is_served { member.max } else { 0.0 });
        }
        slow.solve()
    }

    pub(crate) fn is_feasible(&self, amps: &[f64]) -> bool {
        let mut load = vec![0.0; self.lim.len() * 3];
        for (number, amps) in amps.iter().enumerate() {
            self.rows(number).into_iter().for_each(|row| load[row] += amps);
        }
        load.iter().zip(self.lim.iter().flatten()).all(|(load, limit)| *load <= limit + 1e-9)
    }

    pub(crate) fn phase_amps(&self, amps: &[f64]) -> f64 {
        amps.iter().zip(&self.ph).map(|(amps, phases)| amps * f64::from(phases.count_ones())).sum()
    }
}
