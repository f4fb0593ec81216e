//! Which of several brokers is next: in order of preference, and back to a better one when there is one again.

use std::time::Duration;

/// Where a better broker can be reached and is of no use, it is looked for less and less often, down to so many times the first wait.
const LOOK_LAST: u32 = 16;

/// The order in which brokers are tried.
#[derive(Debug)]
pub(super) struct Choice {
    count: usize,
    at: usize,
    first_look: Duration,
    look: Duration,
}

impl Choice {
    /// Of so many, at least one. `look`: how long to stay with a lesser one before a better one is looked for.
    pub(super) fn new(count: usize, look: Duration) -> Self {
        Self { count: count.max(1), at: 0, first_look: look, look }
    }

    /// The one to connect to; 0 is the preferred one.
    pub(super) const fn current(&self) -> usize {
        self.at
    }

    /// How long to stay before a better one is looked for, and between two looks; `None`: there is none.
    pub(super) fn look(&self) -> Option<Duration> {
        (self.at > 0).then_some(self.look)
    }

    /// The connection ended or could not be made. True: wait before the next one; all of them were tried, or this one was of use.
    pub(super) fn ended(&mut self, worked: bool) -> bool {
        if worked {
            if self.at == 0 {
                self.look = self.first_look;
            }
            self.at = 0;
            return true;
        }
        self.at = (self.at + 1) % self.count;
        self.at == 0
    }

    /// It was left because a better one could be reached.
    pub(super) fn left(&mut self) {
        self.at = 0;
        self.look = (self.look * 2).min(self.first_look * LOOK_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(900);

    #[test]
    fn brokers_are_tried_in_order_and_only_then_is_waited() {
        let mut choice = Choice::new(3, LOOK);
        let tried: Vec<_> = std::iter::repeat_with(|| (choice.current(), choice.ended(false))).take(4).collect();
        assert_eq!(tried, [(0, false), (1, false), (2, true), (0, false)]);
        let mut only = Choice::new(1, LOOK);
        assert_eq!((only.ended(false), only.current(), only.look()), (true, 0, None));
    }

    #[test]
    fn a_connection_that_was_of_use_is_followed_by_the_preferred_one() {
        let mut choice = Choice::new(2, LOOK);
        choice.ended(false);
        assert_eq!((choice.current(), choice.look()), (1, Some(LOOK)));
        assert!(choice.ended(true));
        assert_eq!(choice.current(), 0);
    }

    #[test]
    fn a_preferred_broker_that_is_of_no_use_is_gone_back_to_less_and_less_often() {
        let mut choice = Choice::new(2, LOOK);
        choice.ended(false);
        for _ in 0..10 {
            choice.left();
            assert_eq!(choice.current(), 0, "it has another chance");
            choice.ended(false);
        }
        assert_eq!(choice.look(), Some(16 * LOOK));
        choice.left();
        choice.ended(true);
        choice.ended(false);
        assert_eq!(choice.look(), Some(LOOK), "it was of use");
    }
}
