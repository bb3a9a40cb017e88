//! Lowest and highest sample per stretch of sound, in bounded memory, without knowing the length beforehand.

/// Stretches kept per point asked for. More make the borders of the points finer: 1/16 to 1/32 of a point.
const FINENESS: usize = 16;

/// The lowest and the highest sample of a stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peak {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Peak {
    const NONE: Self = Self { low: f32::INFINITY, high: f32::NEG_INFINITY };

    fn and(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// Collects peaks over stretches of equal length; when there are too many, neighbours are merged and the length doubles.
pub(super) struct Peaks {
    done: Vec<Peak>,
    done_max: usize,
    /// Frames per stretch: a power of two.
    stretch: u64,
    open: Peak,
    open_frames: u64,
}

impl Peaks {
    /// Fine enough for `points` points.
    pub(super) fn new(points: usize) -> Self {
        // Even, so that merging leaves no single stretch over.
        let done_max = points.max(1) * FINENESS * 2;
        Self { done: Vec::new(), done_max, stretch: 1, open: Peak::NONE, open_frames: 0 }
    }

    /// Takes the next frame: one sample of each channel.
    pub(super) fn add(&mut self, frame: &[f32]) {
        self.open = frame.iter().fold(self.open, |peak, &sample| peak.and(Peak { low: sample, high: sample }));
        self.open_frames += 1;
        if self.open_frames == self.stretch {
            self.done.push(std::mem::replace(&mut self.open, Peak::NONE));
            self.open_frames = 0;
            if self.done.len() == self.done_max {
                self.merge();
            }
        }
    }

    fn merge(&mut self) {
        for index in 0..self.done.len() / 2 {
            self.done[index] = self.done[2 * index].and(self.done[2 * index + 1]);
        }
        self.done.truncate(self.done.len() / 2);
        self.stretch *= 2;
    }

    /// Closes the last stretch.
    pub(super) fn finish(mut self) -> Fine {
        let frames = self.done.len() as u64 * self.stretch + self.open_frames;
        if self.open_frames > 0 {
            self.done.push(self.open);
        }
        Fine { peaks: self.done, stretch: self.stretch, frames }
    }
}

/// All the peaks of a sound, finer than asked for.
pub(super) struct Fine {
    peaks: Vec<Peak>,
    stretch: u64,
    frames: u64,
}

impl Fine {
    /// `points` peaks over equal parts of the sound, or one per frame when it has fewer frames. A stretch that lies
    /// across a border counts on both sides: no peak is ever lost.
    pub(super) fn points(&self, points: usize) -> Vec<Peak> {
        let points = (points as u64).min(self.frames);
        let border = |point: u64| u128::from(self.frames) * u128::from(point);
        (0..points)
            .map(|point| {
                let unit = u128::from(points) * u128::from(self.stretch);
                let first = (border(point) / unit) as usize;
                let end = (border(point + 1).div_ceil(unit) as usize).min(self.peaks.len());
                self.peaks[first..end].iter().fold(Peak::NONE, |all, &peak| all.and(peak))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(samples: &[f32], points: usize) -> Vec<Peak> {
        let mut peaks = Peaks::new(points);
        samples.chunks(1).for_each(|frame| peaks.add(frame));
        peaks.finish().points(points)
    }

    fn direct(samples: &[f32], from: usize, to: usize) -> Peak {
        samples[from..to].iter().fold(Peak::NONE, |all, &sample| all.and(Peak { low: sample, high: sample }))
    }

    /// A walk without a pattern that could hide a border error.
    fn noise(length: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn short_sounds_are_exact() {
        let samples = noise(1_003);
        for points in [1, 7, 100, 1_003, 5_000] {
            let found = collect(&samples, points);
            let points = points.min(samples.len());
            assert_eq!(found.len(), points);
            for (point, peak) in found.iter().enumerate() {
                let (from, to) = (point * samples.len() / points, ((point + 1) * samples.len()).div_ceil(points));
                assert_eq!(*peak, direct(&samples, from, to), "point {point} of {points}");
            }
        }
    }

    #[test]
    fn long_sounds_lose_no_peak_and_reach_at_most_a_stretch_further() {
        let samples = noise(300_001);
        let points = 50;
        let stretch = samples.len().div_ceil(points * FINENESS).next_power_of_two();
        for (point, peak) in collect(&samples, points).iter().enumerate() {
            let (from, to) = (point * samples.len() / points, (point + 1) * samples.len() / points);
            let inner = direct(&samples, from, to);
            let outer = direct(&samples, from.saturating_sub(stretch), (to + stretch).min(samples.len()));
            assert!(peak.low <= inner.low && peak.high >= inner.high, "point {point} lost a peak");
            assert!(peak.low >= outer.low && peak.high <= outer.high, "point {point} reaches too far");
        }
    }

    #[test]
    fn memory_does_not_grow_with_length() {
        let mut peaks = Peaks::new(10);
        for sample in 0..1_000_000u32 {
            peaks.add(&[(sample % 7) as f32]);
        }
        assert!(peaks.done.capacity() <= 10 * FINENESS * 4, "{}", peaks.done.capacity());
    }
}
