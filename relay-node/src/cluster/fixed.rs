//! Backends of a node that has no coordinator: a fixed list, every slot its own.

use relay_protocol::cluster::{BackendInfo, SlotGrant};

/// Reads entries of `backends.static`: `URL` or `URL;slots=N`.
///
/// # Errors
/// The entry that cannot be read, and why.
pub fn parse(entries: &[String]) -> Result<Vec<SlotGrant>, String> {
    entries.iter().map(|entry| parse_entry(entry).map_err(|why| format!("{entry:?}: {why}"))).collect()
}

fn parse_entry(entry: &str) -> Result<SlotGrant, String> {
    let (url, slots) = match entry.split_once(';') {
        Some((url, rest)) => (url, rest.strip_prefix("slots=").ok_or("only ;slots=N may follow the URL")?),
        None => (entry, "1"),
    };
    let slots: u32 = slots.parse().map_err(|_| "slots must be a whole number")?;
    let parsed = url::Url::parse(url).map_err(|error| error.to_string())?;
    if !matches!(parsed.scheme(), "http" | "https") || slots == 0 {
        return Err("an http or https URL with at least one slot is needed".to_owned());
    }
    Ok(SlotGrant { backend: url.trim_end_matches('/').to_owned(), slots, in_use: 0 })
}

/// What the pool is told of them: healthy, of unknown models.
pub fn infos(grants: &[SlotGrant]) -> Vec<BackendInfo> {
    grants
        .iter()
        .map(|grant| BackendInfo {
            url: grant.backend.clone(),
            healthy: true,
            slots: grant.slots,
            slots_granted: grant.slots,
            ..BackendInfo::default()
        })
        .collect()
}
