//! Whose turn it is among the priorities: each gets its share of the turns by weight, so that none starves. Pure.
//!
//! Stride scheduling: every turn moves its priority on by a stride of one over the weight, and the priority that is least
//! far on is next. One that did not wait for a while starts where the others are, so it saves up no turns.

use relay_protocol::Priority;
use serde::Deserialize;

/// Distance that a priority of weight 1 moves on with each turn; large beside the rounding of any weight.
const STRIDE: u64 = 1 << 40;
/// Highest weight.
pub const WEIGHT_MAX: u32 = 1_000;

/// Turns of each priority while all three wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of interactive jobs.
    pub interactive: u32,
    /// Of normal jobs.
    pub normal: u32,
    /// Of batch jobs.
    pub batch: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { interactive: 16, normal: 4, batch: 1 }
    }
}

impl Weights {
    /// The weight of a priority, at least 1.
    pub fn of(&self, priority: Priority) -> u32 {
        let weight = match priority {
            Priority::Interactive => self.interactive,
            Priority::Normal => self.normal,
            Priority::Batch => self.batch,
        };
        weight.clamp(1, WEIGHT_MAX)
    }

    /// Each is from 1 to [`WEIGHT_MAX`].
    pub fn are_in_range(&self) -> bool {
        [self.interactive, self.normal, self.batch].iter().all(|weight| (1..=WEIGHT_MAX).contains(weight))
    }

    /// The bound on starvation: a priority that waits gets at least one of so many turns, whoever else waits.
    pub fn turns_max(&self, priority: Priority) -> u32 {
        let own = self.of(priority);
        let others = PRIORITIES.iter().filter(|one| **one != priority);
        1 + others.map(|one| self.of(*one).div_ceil(own) + 1).sum::<u32>()
    }
}

/// Highest first.
pub const PRIORITIES: [Priority; 3] = [Priority::Interactive, Priority::Normal, Priority::Batch];

/// How far each priority is ahead of the last turn.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    weights: Weights,
    ahead: [u64; 3],
}

impl Turns {
    /// Nobody had a turn yet.
    pub fn new(weights: Weights) -> Self {
        Self { weights, ahead: [0; 3] }
    }

    /// The priorities in the order in which they are asked: the one least far on first, and the higher of two that are
    /// equally far.
    pub fn order(&self) -> [Priority; 3] {
        let mut order = PRIORITIES;
        order.sort_by_key(|one| self.ahead[index(*one)]);
        order
    }

    /// A turn went to this priority: the first of [`Turns::order`] that waited.
    pub fn took(&mut self, priority: Priority) {
        let passed = self.ahead[index(priority)];
        for ahead in &mut self.ahead {
            *ahead = ahead.saturating_sub(passed);
        }
        self.ahead[index(priority)] = STRIDE / u64::from(self.weights.of(priority));
    }
}

fn index(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Normal => 1,
        Priority::Batch => 2,
    }
}
