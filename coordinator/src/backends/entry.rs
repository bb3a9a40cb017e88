//! One entry of `backends.static`: `URL`, or `URL;slots=2;api_key_file=/run/secrets/key`. Pure.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;

/// Most slots of one backend.
pub const SLOTS_MAX: u32 = 1_024;
/// Most slots of all backends together; the fair plan is made anew with each heartbeat.
pub const SLOTS_TOTAL_MAX: u32 = 8_192;
/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// A backend as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEntry {
    /// Its URL without a slash at the end; also its name.
    pub url: Arc<str>,
    /// Requests that it may have at a time, at least 1.
    pub slots: u32,
    /// File with the bearer key for its probes.
    pub api_key_file: Option<PathBuf>,
}

/// Why `backends.static` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("backends.static {entry:?}: {problem}")]
pub struct EntryError {
    /// The entry as written.
    pub entry: String,
    /// What is wrong, and what to write.
    pub problem: String,
}

/// Reads the whole list; entries that do not say otherwise get `slots_default` and `api_key_file`.
///
/// # Errors
/// [`EntryError`] for the first entry that cannot be read, comes twice, or has too many slots.
pub fn read_all<S: AsRef<str>>(
    entries: &[S],
    slots_default: u32,
    api_key_file: Option<&PathBuf>,
) -> Result<Vec<BackendEntry>, EntryError> {
    let mut seen = HashSet::new();
    let mut slots_total = 0_u32;
    let mut all = Vec::with_capacity(entries.len());
    for text in entries.iter().map(AsRef::as_ref) {
        let refuse = |problem: String| EntryError { entry: text.to_owned(), problem };
        let entry = read(text, slots_default, api_key_file).map_err(refuse)?;
        if !seen.insert(entry.url.clone()) {
            return Err(refuse("the URL is listed twice; use slots=N for more requests at a time".to_owned()));
        }
        slots_total = slots_total.saturating_add(entry.slots);
        if slots_total > SLOTS_TOTAL_MAX {
            return Err(refuse(format!("all backends together may have at most {SLOTS_TOTAL_MAX} slots")));
        }
        all.push(entry);
    }
    Ok(all)
}

fn read(text: &str, slots_default: u32, api_key_file: Option<&PathBuf>) -> Result<BackendEntry, String> {
    let mut parts = text.split(';').map(str::trim);
    let url = read_url(parts.next().unwrap_or_default())?;
    let mut entry = BackendEntry { url, slots: slots_default, api_key_file: api_key_file.cloned() };
    for part in parts.filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("slots", number)) => {
                entry.slots = number.parse().map_err(|_| format!("slots={number} is not a whole number"))?;
            }
            Some(("api_key_file", path)) => entry.api_key_file = Some(path.into()).filter(|_| !path.is_empty()),
            _ => return Err(format!("{part:?} is not understood; write URL;slots=2;api_key_file=PATH")),
        }
    }
    match entry.slots {
        1..=SLOTS_MAX => Ok(entry),
        other => Err(format!("slots must be 1 to {SLOTS_MAX}, not {other}")),
    }
}

fn read_url(text: &str) -> Result<Arc<str>, String> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    if text.len() > URL_BYTES_MAX || !Url::parse(text).is_ok_and(|url| usable(&url)) {
        return Err("write http://HOST:PORT or https://HOST:PORT, without user, query or fragment".to_owned());
    }
    Ok(text.trim_end_matches('/').into())
}
