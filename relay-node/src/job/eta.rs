//! When an attempt will be done, from how far it has come so far. Pure.

use std::time::Duration;

/// Work that must be seen before it tells of the rest: its share of the whole.
const SEEN_MIN: f32 = 0.02;
/// Time that must have been measured before it tells of the rest.
const MEASURED_MIN: Duration = Duration::from_millis(250);

/// Goes by the mean speed since the first figure.
#[derive(Debug, Default)]
pub struct Eta {
    first: Option<(Duration, f32)>,
}

impl Eta {
    /// Time left at `since` (any steady clock) with `fraction` of a known amount of work done; `None` while too little was
    /// seen to say, and when nothing is left.
    pub fn left(&mut self, since: Duration, fraction: f32) -> Option<Duration> {
        let (began, at_first) = *self.first.get_or_insert((since, fraction));
        let (took, seen) = (since.checked_sub(began)?, fraction - at_first);
        if took < MEASURED_MIN || !(SEEN_MIN..=1.0).contains(&seen) || fraction >= 1.0 {
            return None;
        }
        Duration::try_from_secs_f32(took.as_secs_f32() * (1.0 - fraction) / seen).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    proptest! {
        #[test]
        fn steady_work_ends_when_it_says(total_ms in 500_u64..100_000, first in 0.0_f32..0.5, at in 0.02_f32..0.49) {
            let mut eta = Eta::default();
            let time = |fraction: f32| Duration::from_secs_f32(total_ms as f32 / 1e3 * fraction);
            prop_assert_eq!(eta.left(time(first), first), None, "one figure says nothing");
            let now = first + at;
            let left = eta.left(time(now), now);
            if time(now) - time(first) < MEASURED_MIN {
                prop_assert_eq!(left, None);
            } else if at > SEEN_MIN + 0.001 {
                let (left, right) = (left.unwrap().as_secs_f32(), time(1.0 - now).as_secs_f32());
                prop_assert!((left - right).abs() < 0.05 * right + 0.01, "{} instead of {}", left, right);
            }
        }

        #[test]
        fn whatever_comes_it_does_not_break(figures in prop::collection::vec((any::<u32>(), any::<f32>()), 0..20)) {
            let mut eta = Eta::default();
            for (ms, fraction) in figures {
                eta.left(MS(ms.into()), fraction);
            }
        }
    }

    #[test]
    fn nothing_is_said_of_what_does_not_move_or_is_done() {
        let mut eta = Eta::default();
        assert_eq!(eta.left(MS(0), 0.0), None);
        assert_eq!(eta.left(MS(60_000), 0.001), None, "it stands still");
        assert_eq!(eta.left(MS(60_000), 0.5), Some(MS(60_000)));
        assert_eq!(eta.left(MS(90_000), 1.0), None);
    }
}
