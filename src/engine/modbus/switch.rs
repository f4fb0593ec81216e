//! One bit of a device that says yes or no: a contact on a relay module, a flag in a register.

use super::{Answer, Function, Request};
use crate::engine::model::reading::DeviceFault;

/// Where the bit is, and which value means yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// From which table.
    pub function: Function,
    /// Its address, counted from 0 as on the wire.
    pub address: u16,
    /// The value that means yes; coils and discrete inputs have 0 and 1.
    pub active: u16,
}

impl Switch {
    /// How long an answer may take, in ms.
    pub const TIMEOUT_MS: u64 = 1_000;

    /// The request for it.
    #[must_use]
    pub const fn request(self) -> Request {
        Request { function: self.function, address: self.address, count: 1 }
    }

    /// What the answer says.
    ///
    /// # Errors
    /// As the answer, or if it is none to this request.
    pub fn read(self, answer: Answer) -> Result<bool, DeviceFault> {
        match answer?.as_slice() {
            [word] => Ok(*word == self.active),
            words => Err(DeviceFault::Garbage(format!("{} values instead of 1", words.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normally_closed_contact_is_active_when_it_is_open() {
        let open = Switch { function: Function::Discrete, address: 4, active: 0 };
        assert_eq!(open.request(), Request { function: Function::Discrete, address: 4, count: 1 });
        assert_eq!(open.read(Ok(vec![0])), Ok(true));
        assert_eq!(open.read(Ok(vec![1])), Ok(false));
        assert_eq!(open.read(Err(DeviceFault::Timeout)), Err(DeviceFault::Timeout));
        assert!(open.read(Ok(vec![])).is_err());
    }
}
