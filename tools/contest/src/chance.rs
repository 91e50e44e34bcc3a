//! The only source of chance in the simulation: splitmix64 (Steele, Lea, Flood, 2014). It is ten lines long and will give
//! the same numbers for a seed when every library has changed.

use wire::PaymentId;

/// A stream of numbers that a seed determines.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A random UUID, of version 4.
    pub fn payment_id(&mut self) -> PaymentId {
        let random = u128::from(self.bits()) << 64 | u128::from(self.bits());
        PaymentId(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().as_u128())
    }

    /// A number in `from..to`, which must not be empty.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.bits() % (to - from)
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.bits() % 100 < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.bits() % of.len() as u64).expect("an index")]
    }
}
