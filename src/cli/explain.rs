//! `siteward explain`: why a charger has the limit that it has.

use std::io::{self, Write};

use super::client::{Client, segment};
use super::{ExplainArgs, Failure, plain};
use crate::engine::model::status::Explanation;

pub(super) fn explain(client: &Client, args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let explanation: Explanation = client.get(&format!("/api/v1/chargers/{}/explain", segment(&args.charger)))?;
    if args.json {
        let text = serde_json::to_string_pretty(&explanation)?;
        writeln!(out, "{text}")?;
        return Ok(());
    }
    Ok(write_explanation(&explanation, out)?)
}

fn write_explanation(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    let charger = plain(&explanation.charger);
    if !explanation.connected {
        writeln!(out, "{charger} is not connected: what it may draw is counted until it is known to draw less.")?;
    }
    for evse in &explanation.evses {
        writeln!(out, "{charger} EVSE {}: {}", evse.evse, plain(&evse.explanation))?;
        if !evse.wishes.is_empty() {
            writeln!(out, "  {}", plain(&evse.wishes))?;
        }
    }
    for circuit in &explanation.circuits {
        let room = |phase: usize| circuit.limit_a[phase] - circuit.background_a[phase] - circuit.committed_a[phase];
        let [l1, l2, l3] = [0, 1, 2].map(|phase| format!("{:.1}", room(phase)));
        let limits = circuit.limit_a.map(|limit| format!("{limit:.1}")).join("/");
        writeln!(out, "  circuit {}: limit {limits} A, free {l1}/{l2}/{l3} A on L1/L2/L3", plain(&circuit.id))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::status::{CircuitStatus, EvseStatus};

    #[test]
    fn one_sentence_for_each_evse_then_the_circuits() {
        let sentence = "16.0 A, as much as circuit garage has left on L2".to_owned();
        let explanation = Explanation {
            charger: "CP001".to_owned(),
            connected: true,
            evses: vec![EvseStatus {
                evse: 2,
                explanation: sentence,
                wishes: "goes first (boost) until 14:20".to_owned(),
                ..EvseStatus::default()
            }],
            circuits: vec![CircuitStatus {
                id: "garage".to_owned(),
                limit_a: [100.0; 3],
                background_a: [10.0, 20.0, 30.0],
                committed_a: [50.0; 3],
                ..CircuitStatus::default()
            }],
        };
        let mut out = Vec::new();
        write_explanation(&explanation, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "CP001 EVSE 2: 16.0 A, as much as circuit garage has left on L2\n  \
             goes first (boost) until 14:20\n  \
             circuit garage: limit 100.0/100.0/100.0 A, free 40.0/30.0/20.0 A on L1/L2/L3\n"
        );
    }
}
