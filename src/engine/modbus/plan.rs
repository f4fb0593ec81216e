//! Which registers are asked for in which request.

use super::value::Value;
use super::{Function, Request};

/// Merges the registers of `values` into as few requests as `max_block` and `max_gap` (in registers) allow, in order of address.
pub(super) fn blocks(
    function: Function,
    values: &[Value],
    extra: &[u16],
    max_block: u16,
    max_gap: u16,
) -> Vec<Request> {
    let mut spans: Vec<(u16, u16)> = values.iter().flat_map(Value::registers).collect();
    spans.extend(extra.iter().map(|address| (*address, 1)));
    spans.sort_unstable();
    let mut blocks: Vec<Request> = Vec::new();
    for (address, count) in spans {
        let end = u32::from(address) + u32::from(count);
        if let Some(last) = blocks.last_mut() {
            let last_end = u32::from(last.address) + u32::from(last.count);
            let merged = u16::try_from(end.max(last_end) - u32::from(last.address)).unwrap_or(u16::MAX);
            if u32::from(address) <= last_end + u32::from(max_gap) && merged <= max_block {
                last.count = merged;
                continue;
            }
        }
        blocks.push(Request { function, address, count });
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::modbus::value::{ValueName, ValueType};

    fn values(addresses: &[u16]) -> Vec<Value> {
        addresses
            .iter()
            .map(|address| Value {
                name: ValueName::PowerW,
                address: *address,
                ty: ValueType::F32,
                scale: 1.0,
                scale_address: None,
                nan: Vec::new(),
                sign_from: Vec::new(),
                minimum: -1e7,
                maximum: 1e7,
            })
            .collect()
    }

    fn spans(addresses: &[u16], max_block: u16, max_gap: u16) -> Vec<(u16, u16)> {
        let blocks = blocks(Function::Input, &values(addresses), &[], max_block, max_gap);
        blocks.iter().map(|block| (block.address, block.count)).collect()
    }

    #[test]
    fn neighbours_are_read_together_and_gaps_up_to_the_limit_are_read_over() {
        assert_eq!(spans(&[4, 0, 2, 10], 80, 0), [(0, 6), (10, 2)]);
        assert_eq!(spans(&[4, 0, 2, 10], 80, 4), [(0, 12)]);
        assert_eq!(spans(&[0, 2, 4], 4, 0), [(0, 4), (4, 2)]);
        assert_eq!(spans(&[0xFFFE, 0xFFFC], 80, 0), [(0xFFFC, 4)]);
    }
}
