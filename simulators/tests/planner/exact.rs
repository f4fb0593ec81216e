//! Weighted max-min shares by bisection on the level: slow, in floating point, and written without a look at the planner.

#[derive(Clone, Debug)]
pub(crate) struct SlowMember {
    pub(crate) terms: Vec<(usize, i32)>,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) weight: f64,
}

impl SlowMember {
    pub(crate) fn load(&self, row: usize, amount: f64) -> f64 {
        self.terms.iter().filter(|term| term.0 == row).map(|term| f64::from(term.1) * amount).sum()
    }

    fn at(&self, level: f64) -> f64 {
        (level * self.weight).min(self.max).max(self.min)
    }
}

pub(crate) struct Slow {
    pub(crate) capacities: Vec<f64>,
    pub(crate) members: Vec<SlowMember>,
}

impl Slow {
    pub(crate) fn solve(&self) -> Vec<f64> {
        let mut settled: Vec<Option<f64>> = vec![None; self.members.len()];
        while settled.iter().any(Option::is_none) {
            let (mut fits, mut too_high) = (0.0, 1e6);
            for _ in 0..200 {
                let middle = f64::midpoint(fits, too_high);
                if self.full(&settled, middle).is_empty() { fits = middle } else { too_high = middle }
            }
            let full = self.full(&settled, too_high);
            for (member, settled) in self.members.iter().zip(&mut settled) {
                let is_on = member.terms.iter().any(|term| full.contains(&term.0));
                if settled.is_none() && (is_on || full.is_empty() || member.at(fits) >= member.max) {
                    *settled = Some(member.at(fits));
                }
            }
        }
        settled.into_iter().flatten().collect()
    }

    /// The rows that would carry too much, and could carry more yet.
    fn full(&self, settled: &[Option<f64>], level: f64) -> Vec<usize> {
        let mut load = vec![0.0; self.capacities.len()];
        let mut is_open = vec![false; self.capacities.len()];
        for (member, settled) in self.members.iter().zip(settled) {
            let amount = settled.unwrap_or_else(|| member.at(level));
            for (row, coefficient) in &member.terms {
                load[*row] += f64::from(*coefficient) * amount;
                is_open[*row] |= settled.is_none() && member.at(level) > member.min;
            }
        }
        (0..load.len()).filter(|row| is_open[*row] && load[*row] > self.capacities[*row] + 1e-6).collect()
    }
}
