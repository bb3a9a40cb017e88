//! Which coordinator is asked, and whose word counts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// The code of a coordinator that does not lead.
const NOT_LEADER: &str = "not_leader";

/// One that did not answer gets a shorter time to answer, so often in a row: while it is frozen its successor may be there already. After
/// that it may be just slow.
const SHORT_TRIES: u32 = 12;
/// How much shorter.
const SHORTER: u32 = 4;

/// The coordinators of the settings, of which one leads.
#[derive(Debug)]
pub struct Leader {
    urls: Vec<String>,
    /// Whom to ask.
    current: usize,
    /// Highest incarnation whose answer was taken.
    newest: u64,
    /// Questions in a row that each did not answer.
    silences: BTreeMap<String, u32>,
}

/// An answer of a leader that was replaced.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is of the leader of incarnation {incarnation}, and {newest} leads")]
pub struct Replaced {
    /// Whose answer.
    pub incarnation: u64,
    /// Who leads.
    pub newest: u64,
}

#[derive(Deserialize)]
struct Envelope {
    error: Refused,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    #[serde(default)]
    leader: Option<String>,
}

impl Leader {
    /// Asks the first of `urls`, of which there is one at least, until it hears of another.
    pub fn new(urls: Vec<String>) -> Self {
        Self { urls, current: 0, newest: 0, silences: BTreeMap::new() }
    }

    /// Requests that one question may take: each coordinator once, and once more who is said to lead.
    pub fn tries_max(&self) -> usize {
        if self.urls.len() == 1 { 1 } else { self.urls.len() + 1 }
    }

    /// Whom to ask now.
    pub fn url(&self) -> &str {
        self.urls.get(self.current).map_or("", String::as_str)
    }

    /// How long `url` may take to answer a question that has `full` for it.
    pub fn patience(&self, url: &str, full: Duration) -> Duration {
        match self.silences.get(url) {
            Some(1..=SHORT_TRIES) => full / SHORTER,
            _ => full,
        }
    }

    /// `url` answered, whatever it said.
    pub fn spoke(&mut self, url: &str) {
        self.silences.remove(url);
    }

    /// `url` did not answer: the next one is asked, unless others turned away from it meanwhile.
    pub fn silent(&mut self, url: &str) {
        let silences = self.silences.entry(url.to_owned()).or_default();
        *silences = silences.saturating_add(1);
        self.next_after(url);
    }

    /// The next one is asked, unless others turned away from `url` meanwhile.
    pub fn next_after(&mut self, url: &str) {
        if self.url() == url {
            self.current = (self.current + 1) % self.urls.len().max(1);
        }
    }

    /// Whether the answer says that `url` does not lead; then whom it names is asked, or the next one. Only coordinators of the
    /// settings are believed in: requests carry the node's token.
    pub fn turned_away(&mut self, url: &str, status: u16, body: &[u8]) -> bool {
        if status != 503 {
            return false;
        }
        let Ok(Envelope { error }) = serde_json::from_slice(body) else { return false };
        if error.code != NOT_LEADER {
            return false;
        }
        let named = error.leader.map(|leader| leader.trim_end_matches('/').to_owned());
        let known = named.and_then(|leader| self.urls.iter().position(|known| *known == leader));
        match known.filter(|at| self.urls[*at] != url) {
            Some(at) => self.current = at,
            None => self.next_after(url),
        }
        true
    }

    /// Takes note of the leader that answered.
    ///
    /// # Errors
    /// It was replaced: a higher one answered before. Its answer must not be used.
    pub fn answered(&mut self, incarnation: u64) -> Result<(), Replaced> {
        if incarnation < self.newest {
            return Err(Replaced { incarnation, newest: self.newest });
        }
        self.newest = incarnation;
        Ok(())
    }

    /// What the leaders so far lent is over: whoever answers next is believed. That is nobody who was replaced before, because a
    /// question is given up long before a lease is over; but it may be one of a new election topic, whose incarnations begin anew.
    pub fn forget(&mut self) {
        self.newest = 0;
    }
}

#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;
