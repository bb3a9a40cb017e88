//! From a score per frame to speech segments: pure, one frame at a time.

/// How a segment begins and ends. Times in frames of the detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// A frame of at least this score is speech.
    pub(super) threshold: f32,
    /// Shorter speech is dropped.
    pub(super) speech_min: u64,
    /// A shorter pause does not end a segment.
    pub(super) silence_min: u64,
    /// For how many frames the score stays up after speech has ended; taken off each end.
    pub(super) release: u64,
}

/// A stretch of speech: frames from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Finds segments in a row of scores.
#[derive(Debug)]
pub(super) struct Segmenter {
    rules: Rules,
    at: u64,
    open: Option<Segment>,
}

impl Segmenter {
    pub(super) const fn new(rules: Rules) -> Self {
        Self { rules, at: 0, open: None }
    }

    /// Takes the next frame's score; returns the segment that has ended before it, if one has.
    pub(super) fn on(&mut self, score: f32) -> Option<Segment> {
        let at = self.at;
        self.at += 1;
        if score >= self.rules.threshold {
            self.open.get_or_insert(Segment { start: at, end: at }).end = self.at;
            return None;
        }
        let pause = self.at - self.open?.end + self.rules.release;
        if pause < self.rules.silence_min { None } else { self.close(self.rules.release) }
    }

    /// The segment that is still open when the sound ends. Speech up to the very end has had no release.
    pub(super) fn finish(&mut self) -> Option<Segment> {
        let to_the_end = self.open?.end == self.at;
        self.close(if to_the_end { 0 } else { self.rules.release })
    }

    fn close(&mut self, release: u64) -> Option<Segment> {
        let Segment { start, end } = self.open.take()?;
        let end = end.saturating_sub(release).max(start + 1);
        (end - start >= self.rules.speech_min).then_some(Segment { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { threshold: 0.5, speech_min: 2, silence_min: 3, release: 0 };

    fn segments(scores: &[f32]) -> Vec<(u64, u64)> {
        with(RULES, scores)
    }

    fn with(rules: Rules, scores: &[f32]) -> Vec<(u64, u64)> {
        let mut segmenter = Segmenter::new(rules);
        let mut found: Vec<_> = scores.iter().filter_map(|&score| segmenter.on(score)).collect();
        found.extend(segmenter.finish());
        found.into_iter().map(|segment| (segment.start, segment.end)).collect()
    }

    #[test]
    fn a_short_pause_does_not_split() {
        assert_eq!(segments(&[0.0, 0.9, 0.9, 0.0, 0.0, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0]), [(1, 7)]);
    }

    #[test]
    fn a_long_pause_splits() {
        assert_eq!(segments(&[0.9, 0.9, 0.0, 0.0, 0.0, 0.9, 0.9, 0.0, 0.0, 0.0]), [(0, 2), (5, 7)]);
    }

    #[test]
    fn a_click_is_dropped() {
        assert_eq!(segments(&[0.0, 0.9, 0.0, 0.0, 0.0, 0.0]), []);
    }

    #[test]
    fn speech_to_the_very_end_is_closed_there() {
        assert_eq!(segments(&[0.0, 0.9, 0.9, 0.9]), [(1, 4)]);
        assert_eq!(segments(&[0.0, 0.9, 0.9, 0.9, 0.0]), [(1, 4)]);
    }

    #[test]
    fn the_release_is_taken_off_and_counts_as_pause() {
        let rules = Rules { release: 2, ..RULES };
        assert_eq!(with(rules, &[0.9, 0.9, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9]), [(0, 2), (5, 9)]);
        assert_eq!(with(Rules { silence_min: 9, ..rules }, &[0.0, 0.9, 0.9, 0.9, 0.9, 0.0]), [(1, 3)]);
        assert_eq!(with(rules, &[0.0, 0.9, 0.9, 0.9]), [(1, 4)], "to the very end");
        assert_eq!(with(rules, &[0.9, 0.9, 0.0, 0.0]), [], "all of it was release");
    }
}
