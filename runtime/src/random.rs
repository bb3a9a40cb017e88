//! Randomness as a port: unpredictable in production, repeatable in the simulator.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngCore;

/// Where random bits come from.
pub trait Random: Send + Sync {
    /// 64 uniform bits.
    fn next_u64(&self) -> u64;

    /// Fills `out` with uniform bytes, little endian from [`next_u64`](Self::next_u64).
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// A uniform number below `bound`; 0 when `bound` is 0. The bias is at most `bound / 2^64`.
    fn below(&self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next_u64()) * u128::from(bound)) >> 64).unwrap_or(0)
    }
}

/// Cryptographically strong, seeded by the operating system, one generator per thread: fit for ids and resume tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// The same numbers for the same seed, on every machine and in every version: SplitMix64 (Steele, Lea, Flood: "Fast
/// splittable pseudorandom number generators", OOPSLA 2014). Predictable: for simulation and tests only.
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

/// SplitMix64's step: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl SeededRandom {
    /// A source whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
