//! One entry of `backends.static` or `backends.dns`: `URL`, or `URL;slots=2;api_key_file=/run/secrets/key`. Pure.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;

/// Most slots of one backend.
pub const SLOTS_MAX: u32 = 1_024;
/// Most slots of all backends together; the fair plan is made anew with each heartbeat.
pub const SLOTS_TOTAL_MAX: u32 = 8_192;
/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Most entries of `backends.dns`: all are looked up at a time.
pub const DNS_ENTRIES_MAX: usize = 100;

const STATIC: &str = "backends.static";
const DNS: &str = "backends.dns";

/// A backend as configured, or as a name led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendEntry {
    /// Its URL without a slash at the end; also its name.
    pub url: Arc<str>,
    /// The URL by the DNS name that led to it, if one did.
    pub via: Option<Arc<str>>,
    /// Requests that it may have at a time, at least 1.
    pub slots: u32,
    /// File with the bearer key for its probes.
    pub api_key_file: Option<PathBuf>,
}

/// Which addresses of a name count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// All.
    #[default]
    Any,
    /// Those of A records.
    V4,
    /// Those of AAAA records.
    V6,
}

/// A DNS name of which every address is a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsEntry {
    /// URL with the name, without a slash at the end: what requests to its backends are about.
    pub url: Arc<str>,
    /// What is looked up; a dot at its end keeps search domains out.
    pub name: String,
    /// Which addresses count.
    pub family: Family,
    /// Requests that each backend may have at a time, at least 1.
    pub slots: u32,
    /// File with the bearer key for its backends' probes.
    pub api_key_file: Option<PathBuf>,
    parsed: Url,
}

/// One place where a server can listen: host or address, port, path.
pub(super) type Place = (String, u16, String);

/// Why `backends.static` or `backends.dns` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {entry:?}: {problem}")]
pub struct EntryError {
    /// Which list.
    pub key: &'static str,
    /// The entry as written.
    pub entry: String,
    /// What is wrong, and what to write.
    pub problem: String,
}

/// What entries get that do not say otherwise.
#[derive(Debug, Clone, Copy)]
pub struct EntryDefaults<'a> {
    /// Requests at a time.
    pub slots: u32,
    /// File with the key.
    pub api_key_file: Option<&'a PathBuf>,
}

/// Reads `backends.static`.
///
/// # Errors
/// [`EntryError`] for the first entry that cannot be read, comes twice, or has too many slots.
pub fn read_all<S: AsRef<str>>(entries: &[S], defaults: EntryDefaults<'_>) -> Result<Vec<BackendEntry>, EntryError> {
    let mut seen = HashSet::new();
    let mut slots_total = 0_u32;
    let mut all = Vec::with_capacity(entries.len());
    for text in entries.iter().map(AsRef::as_ref) {
        let refuse = |problem: String| EntryError { key: STATIC, entry: text.to_owned(), problem };
        let entry = read(text, defaults).map_err(refuse)?;
        if entry.family.is_some() {
            return Err(refuse("family= is for backends.dns".to_owned()));
        }
        if !seen.insert(place_of(&entry.url)) {
            return Err(refuse("the URL is listed twice; use slots=N for more requests at a time".to_owned()));
        }
        slots_total = slots_total.saturating_add(entry.slots);
        if slots_total > SLOTS_TOTAL_MAX {
            return Err(refuse(format!("all backends together may have at most {SLOTS_TOTAL_MAX} slots")));
        }
        all.push(BackendEntry {
            url: entry.text.trim_end_matches('/').into(),
            via: None,
            slots: entry.slots,
            api_key_file: entry.api_key_file,
        });
    }
    Ok(all)
}

/// Reads `backends.dns`, beside the entries of `backends.static`.
///
/// # Errors
/// [`EntryError`] for the first entry that cannot be read, names no name, or names one that is listed before.
pub fn read_dns<S: AsRef<str>>(
    entries: &[S],
    statics: &[BackendEntry],
    defaults: EntryDefaults<'_>,
) -> Result<Vec<DnsEntry>, EntryError> {
    let mut seen: HashSet<Place> = statics.iter().filter_map(BackendEntry::place).collect();
    let mut all = Vec::with_capacity(entries.len());
    for text in entries.iter().map(AsRef::as_ref) {
        let refuse = |problem: &str| EntryError { key: DNS, entry: text.to_owned(), problem: problem.to_owned() };
        let entry = read(text, defaults).map_err(|problem| refuse(&problem))?;
        let name = entry.url.domain().ok_or_else(|| refuse("an address is for backends.static"))?.to_owned();
        let mut parsed = entry.url;
        parsed.set_host(Some(name.trim_end_matches('.'))).map_err(|_| refuse("the name is not usable"))?;
        if !seen.insert(place_of(&parsed)) {
            return Err(refuse("the name is listed twice, or in backends.static too"));
        }
        if all.len() >= DNS_ENTRIES_MAX {
            return Err(refuse(&format!("at most {DNS_ENTRIES_MAX} names may be listed")));
        }
        let family = entry.family.unwrap_or_default();
        let (slots, api_key_file, url) = (entry.slots, entry.api_key_file, trimmed(&parsed));
        all.push(DnsEntry { url, name, family, slots, api_key_file, parsed });
    }
    Ok(all)
}

impl BackendEntry {
    /// Where it listens, if its URL says so.
    pub(super) fn place(&self) -> Option<Place> {
        Url::parse(&self.url).ok().map(|url| place_of(&url))
    }
}

impl DnsEntry {
    /// The backend at one of its addresses, and where that is.
    pub(super) fn at(&self, address: IpAddr) -> (BackendEntry, Place) {
        let mut url = self.parsed.clone();
        // Err only for a URL without a host; this one has a name.
        _ = url.set_ip_host(address);
        let (slots, api_key_file) = (self.slots, self.api_key_file.clone());
        (BackendEntry { url: trimmed(&url), via: Some(self.url.clone()), slots, api_key_file }, place_of(&url))
    }
}

/// An entry of either list.
struct Raw<'a> {
    text: &'a str,
    url: Url,
    slots: u32,
    api_key_file: Option<PathBuf>,
    family: Option<Family>,
}

fn read<'a>(text: &'a str, defaults: EntryDefaults<'_>) -> Result<Raw<'a>, String> {
    let mut parts = text.split(';').map(str::trim);
    let text = parts.next().unwrap_or_default();
    let url = read_url(text)?;
    let mut entry =
        Raw { text, url, slots: defaults.slots, api_key_file: defaults.api_key_file.cloned(), family: None };
    for part in parts.filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("slots", number)) => {
                entry.slots = number.parse().map_err(|_| format!("slots={number} is not a whole number"))?;
            }
            Some(("api_key_file", path)) => entry.api_key_file = Some(path.into()).filter(|_| !path.is_empty()),
            Some(("family", "ipv4")) => entry.family = Some(Family::V4),
            Some(("family", "ipv6")) => entry.family = Some(Family::V6),
            _ => return Err(format!("{part:?} is not understood; write URL;slots=2;api_key_file=PATH")),
        }
    }
    match entry.slots {
        1..=SLOTS_MAX => Ok(entry),
        other => Err(format!("slots must be 1 to {SLOTS_MAX}, not {other}")),
    }
}

fn read_url(text: &str) -> Result<Url, String> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let url = Url::parse(text).ok().filter(|url| text.len() <= URL_BYTES_MAX && usable(url));
    url.ok_or_else(|| "write http://HOST:PORT or https://HOST:PORT, without user, query or fragment".to_owned())
}

/// The same for URLs that differ in spelling only. The scheme does not count: a port speaks one of them.
fn place_of(url: &Url) -> Place {
    let host = url.host_str().unwrap_or_default();
    (host.to_owned(), url.port_or_known_default().unwrap_or_default(), url.path().trim_end_matches('/').to_owned())
}

fn trimmed(url: &Url) -> Arc<str> {
    url.as_str().trim_end_matches('/').into()
}
