//! What a commit's metadata holds: the committed offset is the lowest unfinished one, and the set finished beyond it travels in
//! the metadata, with the offsets that the commit itself finished.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use relay_log::port::Committed;

use super::fresh::Fresh;
use crate::job::aside::SIDES;

/// Offsets between the lowest unfinished job and the newest read one, at most: their bitmap in base64 and the head fit
/// the 4096 bytes of a commit's metadata.
pub const WINDOW_OFFSETS_MAX: u64 = 20_000;

/// First characters of the metadata, naming its format.
const FORMAT: &str = "b3";
/// The format without the offsets that the commit itself finished.
const FORMAT_WITHOUT_FRESH: &str = "b2";
/// The format without what is set aside, either.
const FORMAT_WITHOUT_SIDES: &str = "b1";

/// What a commit's metadata holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next offset that is not finished.
    pub next: u64,
    /// Since when the oldest unfinished job is known, in milliseconds since the Unix epoch: whoever takes over reads the
    /// control topic from here. That of the newest finished job if none is unfinished; 0 if unknown.
    pub oldest_ms: u64,
    /// Number of the commit: no two of a partition say the same.
    pub serial: u64,
    /// Where the parked topic and the delay tiers must be read from, in the order of their sides.
    pub sides: [u64; SIDES],
    /// What this very commit finished and has records of: finished only if they are there.
    pub fresh: Fresh,
    /// Bit `n` is set if offset `next + n` is finished.
    bits: Vec<u8>,
}

impl Progress {
    /// Nothing is finished at or beyond `next`.
    pub fn at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// Reads what was committed; metadata that is not ours counts as "nothing finished beyond".
    pub fn unpack(committed: &Committed) -> Self {
        Self { next: committed.next, ..Self::parse(&committed.metadata).unwrap_or_default() }
    }

    /// Whether a commit has metadata that is none of ours, or damaged: [`Progress::unpack`] ignores it.
    pub fn is_foreign(committed: &Committed) -> bool {
        !committed.metadata.is_empty() && Self::parse(&committed.metadata).is_none()
    }

    fn parse(metadata: &str) -> Option<Self> {
        let (format, rest) = metadata.split_once(':')?;
        let read = match format {
            FORMAT => Self::whole(rest),
            FORMAT_WITHOUT_FRESH => Self::with_sides(rest),
            FORMAT_WITHOUT_SIDES => Self::without_sides(rest),
            _ => None,
        };
        // More than a window was never committed.
        read.filter(|progress| progress.bits.len() as u64 <= WINDOW_OFFSETS_MAX.div_ceil(8))
    }

    fn whole(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ':');
        let (oldest, serial, sides) = (parts.next()?, parts.next()?, parts.next()?);
        let fresh = Fresh::parse(parts.next()?)?;
        Some(Self { fresh, ..Self::of_fields(oldest, serial, sides, parts.next()?)? })
    }

    fn with_sides(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        Self::of_fields(parts.next()?, parts.next()?, parts.next()?, parts.next()?)
    }

    fn of_fields(oldest: &str, serial: &str, sides: &str, bits: &str) -> Option<Self> {
        let sides: Vec<u64> = sides.split('.').map(|next| next.parse().ok()).collect::<Option<_>>()?;
        let (oldest_ms, serial) = (oldest.parse().ok()?, serial.parse().ok()?);
        Some(Self {
            next: 0,
            oldest_ms,
            serial,
            sides: sides.try_into().ok()?,
            fresh: Fresh::default(),
            bits: STANDARD_NO_PAD.decode(bits).ok()?,
        })
    }

    fn without_sides(text: &str) -> Option<Self> {
        let (oldest, bits) = text.split_once(':')?;
        Some(Self { oldest_ms: oldest.parse().ok()?, bits: STANDARD_NO_PAD.decode(bits).ok()?, ..Self::default() })
    }

    /// The metadata.
    pub fn pack(&self) -> String {
        let sides: Vec<String> = self.sides.iter().map(ToString::to_string).collect();
        let bits = STANDARD_NO_PAD.encode(&self.bits);
        let (oldest_ms, serial, sides, fresh) = (self.oldest_ms, self.serial, sides.join("."), self.fresh.pack());
        format!("{FORMAT}:{oldest_ms}:{serial}:{sides}:{fresh}:{bits}")
    }

    /// The records below this are needed no more, whatever became of the commit's own.
    pub fn done_below(&self) -> u64 {
        self.fresh.first().map_or(self.next, |first| first.min(self.next))
    }

    /// Whether `offset` is finished.
    pub fn is_finished(&self, offset: u64) -> bool {
        let Some(n) = offset.checked_sub(self.next) else { return true };
        let byte = usize::try_from(n / 8).ok().and_then(|index| self.bits.get(index));
        byte.is_some_and(|byte| byte >> (n % 8) & 1 == 1)
    }

    /// Counts `offset`, at or beyond the next one, as finished.
    pub(super) fn set(&mut self, offset: u64) {
        let n = offset - self.next;
        let index = (n / 8) as usize;
        if self.bits.len() <= index {
            self.bits.resize(index + 1, 0);
        }
        if let Some(byte) = self.bits.get_mut(index) {
            *byte |= 1 << (n % 8);
        }
    }

    /// The finished offsets at and beyond the next one.
    pub(super) fn finished_beyond(&self) -> impl Iterator<Item = u64> + '_ {
        (self.next..).take(self.bits.len() * 8).filter(|offset| self.is_finished(*offset))
    }
}
