//! Seeded dice: xoshiro256**, filled by splitmix64. The same seed gives the same throws on every machine.

/// Dice that throw the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Dice {
    /// Dice for a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut filler = seed;
        let state = [splitmix(&mut filler), splitmix(&mut filler), splitmix(&mut filler), splitmix(&mut filler)];
        Self { state }
    }

    /// Dice of their own for one thing in the world, so that one thing more does not change the throws of the others.
    #[must_use]
    pub fn named(seed: u64, name: &str) -> Self {
        let mut hash = Fnv::default();
        hash.write(name.as_bytes());
        Self::new(seed ^ hash.value())
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number from 0 to `end` - 1; 0 if `end` is 0. The bias of the remainder is below 2⁻³² for every range used here.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }

    /// A number from `first` to `last`, both possible. `first` if the range is empty.
    pub const fn between(&mut self, first: u64, last: u64) -> u64 {
        if last <= first { first } else { first + self.below(last - first + 1) }
    }

    /// A number from -`most` to +`most`.
    pub fn around_zero(&mut self, most: i32) -> i32 {
        let span = u64::from(most.unsigned_abs()) * 2;
        let throw = self.between(0, span);
        i32::try_from(throw).unwrap_or(0) - most.abs()
    }

    /// True in `in_a_million` of a million cases.
    pub const fn chance(&mut self, in_a_million: u64) -> bool {
        self.below(1_000_000) < in_a_million
    }

    /// One of several, each as likely. `None` if there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let end = u64::try_from(from.len()).unwrap_or(u64::MAX);
        usize::try_from(self.below(end)).ok().and_then(|index| from.get(index))
    }

    /// A random (version 4) UUID.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.bits(), self.bits());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

/// The 64-bit FNV-1a hash, for traces: small, and the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Takes in more bytes.
    pub const fn write(&mut self, bytes: &[u8]) {
        let mut index = 0;
        while index < bytes.len() {
            // Lossless widening; `u64::from` is not const.
            self.0 ^= bytes[index] as u64;
            self.0 = self.0.wrapping_mul(0x0000_0100_0000_01b3);
            index += 1;
        }
    }

    /// The same for long texts, eight bytes at a time: another hash of the same bytes, in an eighth of the steps.
    pub fn write_long(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 ^= u64::from_le_bytes(*word);
            self.0 = self.0.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        self.write(rest);
    }

    /// The hash of everything taken in.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same() {
        let (mut one, mut two) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| one.bits() == two.bits()));
        assert_ne!(Dice::named(7, "a").bits(), Dice::named(7, "b").bits());
    }

    #[test]
    fn throws_stay_in_their_range() {
        let mut dice = Dice::new(1);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert!((-4..=4).contains(&dice.around_zero(4)));
        }
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick::<u8>(&[]), None);
        assert_eq!(dice.uuid().len(), 36);
    }
}
