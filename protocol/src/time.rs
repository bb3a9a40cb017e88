//! Points in time as they cross a border: milliseconds since the Unix epoch in frames, RFC 3339 in JSON.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// Latest time that can be written, in milliseconds since the Unix epoch: the end of the year 9999.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// `ms` since the Unix epoch as RFC 3339 in UTC with milliseconds: `2026-11-23T18:30:00.000Z`. Later than the year 9999 is cut to its end.
pub fn format_rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(TIME_MS_MAX))).to_string()
}

/// Milliseconds since the Unix epoch of an RFC 3339 time, in UTC (`Z`) or with an offset (`+02:00`); what is finer than
/// a millisecond is cut, a leap second is the second before it.
///
/// # Errors
/// The reason in words: not RFC 3339, no time zone, before 1970, after the year 9999.
pub fn parse_rfc3339(text: &str) -> Result<u64, String> {
    let (local, offset_min) =
        split_zone(text).ok_or_else(|| format!("{text:?} is not an RFC 3339 time with a zone"))?;
    let time = humantime::parse_rfc3339_weak(&format!("{local}Z")).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    let local_ms = i64::try_from(since.as_millis()).map_err(|error| error.to_string())?;
    let ms = u64::try_from(local_ms - offset_min * 60_000).map_err(|_| "before 1970".to_owned())?;
    if ms > TIME_MS_MAX { Err("after the year 9999".to_owned()) } else { Ok(ms) }
}

/// The local part of a time in upper case, and its zone in minutes east of UTC.
fn split_zone(text: &str) -> Option<(String, i64)> {
    if !text.is_ascii() {
        return None;
    }
    let text = text.to_ascii_uppercase();
    let (local, offset_min) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, zone) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
            (local, zone_minutes(zone.as_bytes())?)
        }
    };
    let shaped = !local.ends_with('.') && local.bytes().all(|b| b.is_ascii_digit() || b"-:. T".contains(&b));
    shaped.then(|| (local.to_owned(), offset_min))
}

/// Minutes east of UTC of `+02:00`.
fn zone_minutes(zone: &[u8]) -> Option<i64> {
    let &[sign, h1, h0, b':', m1, m0] = zone else { return None };
    let digit = |b: u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
    let (hours, minutes) = (digit(h1)? * 10 + digit(h0)?, digit(m1)? * 10 + digit(m0)?);
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Serde adapter for `#[serde(with = "rfc3339")]` on a `u64` of milliseconds.
pub mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, format_rfc3339, parse_rfc3339};

    /// Writes RFC 3339.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_rfc3339(*ms))
    }

    /// Reads RFC 3339.
    ///
    /// # Errors
    /// Not a string, or not RFC 3339, see [`parse_rfc3339`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

/// The same for an `Option<u64>`.
pub mod rfc3339_option {
    use super::{Deserialize, Deserializer, Serializer, format_rfc3339, parse_rfc3339};

    /// Writes RFC 3339 or null.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(ms: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => serializer.serialize_str(&format_rfc3339(*ms)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads RFC 3339 or null.
    ///
    /// # Errors
    /// Neither null nor RFC 3339, see [`parse_rfc3339`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_rfc3339(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
