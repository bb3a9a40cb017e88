//! What may be asked of the view: filters and the keyset cursor. Pure.
//!
//! Lists are ordered by (time of submission, tenant, job id), newest first. A cursor names the last job of a page: what is
//! submitted later comes before it, so that going on from it repeats and skips nothing.

use relay_protocol::limits::is_tenant;
use relay_protocol::time::parse_rfc3339;
use relay_protocol::{JobId, Task};
use serde::Deserialize;

use super::projection::JobRow;

/// Jobs on a page unless `limit` says otherwise.
pub const PAGE_DEFAULT: usize = 100;

/// The states that a job may be in.
pub const STATES: [&str; 7] = ["queued", "running", "completed", "failed", "cancelled", "expired", "dead_lettered"];

/// The filters, as a query string or a body of a bulk request has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// One of [`STATES`].
    pub status: Option<String>,
    /// Name of a task.
    pub task: Option<String>,
    /// Whose jobs.
    pub tenant: Option<String>,
    /// Submitted at or after this time, as RFC 3339.
    pub since: Option<String>,
    /// Jobs at most: 1 to `view.page_max`.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// One of [`STATES`].
    pub state: Option<&'static str>,
    /// Only jobs that have not ended.
    pub open_only: bool,
    /// Only this task's.
    pub task: Option<Task>,
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only those submitted at or after this many milliseconds since the Unix epoch.
    pub since: Option<u64>,
    /// Jobs at most.
    pub limit: usize,
    /// Only those that come after this one.
    pub after: Option<Cursor>,
}

/// The place of a job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When it was submitted, in milliseconds since the Unix epoch.
    pub submitted_at: u64,
    /// Whose it is.
    pub tenant: String,
    /// Which it is.
    pub job_id: JobId,
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The jobs, newest first.
    pub jobs: Vec<JobRow>,
    /// Where the next page begins, if there are more.
    pub next: Option<Cursor>,
}

/// A filter that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// The cursor is none that a page had.
    #[error("the cursor is none that this API gave: send `next` of the page before, unchanged, or none")]
    Cursor,
    /// A filter's value is outside its range.
    #[error("{field}: {problem}")]
    Filter {
        /// Which filter.
        field: &'static str,
        /// What is wrong, and what to write.
        problem: String,
    },
}

impl Filters {
    /// Whether nothing is filtered out.
    pub fn is_everything(&self) -> bool {
        let Self { status, task, tenant, since, limit: _, cursor: _ } = self;
        status.is_none() && task.is_none() && tenant.is_none() && since.is_none()
    }

    /// The question that they ask, of `page_max` jobs at most.
    ///
    /// # Errors
    /// [`BadQuery`] for the first value that cannot be used.
    pub fn read(self, page_max: usize) -> Result<Query, BadQuery> {
        let bad = |field, problem| BadQuery::Filter { field, problem };
        let state = self.status.map(|status| {
            let known = STATES.iter().find(|state| **state == status).copied();
            known.ok_or_else(|| bad("status", format!("{status:?} is none of {}", STATES.join(", "))))
        });
        let task = self.task.map(|task| task.parse::<Task>().map_err(|error| bad("task", error.to_string())));
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !is_tenant(tenant)) {
            return Err(bad("tenant", format!("{tenant:?} cannot be a tenant's name")));
        }
        let since = self.since.map(|since| parse_rfc3339(&since).map_err(|error| bad("since", error)));
        let limit = self.limit.unwrap_or(PAGE_DEFAULT.min(page_max));
        if !(1..=page_max).contains(&limit) {
            return Err(bad("limit", format!("must be 1 to {page_max}, not {limit}")));
        }
        let after = self.cursor.map(|cursor| Cursor::parse(&cursor).ok_or(BadQuery::Cursor));
        Ok(Query {
            state: state.transpose()?,
            open_only: false,
            task: task.transpose()?,
            tenant: self.tenant,
            since: since.transpose()?,
            limit,
            after: after.transpose()?,
        })
    }
}

impl Cursor {
    /// The place of `row`.
    pub fn of(row: &JobRow) -> Self {
        Self { submitted_at: row.submitted_at(), tenant: row.tenant.clone(), job_id: row.job_id }
    }

    /// As text: `MILLISECONDS.JOB.TENANT`, the numbers and the tenant in hex.
    pub fn text(&self) -> String {
        format!("{:x}.{}.{}", self.submitted_at, self.job_id, hex::encode(&self.tenant))
    }

    /// Reads what [`text`](Self::text) wrote, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (time, job_id, tenant) = (parts.next()?, parts.next()?, parts.next()?);
        let cursor = Self {
            submitted_at: u64::from_str_radix(time, 16).ok().filter(|ms| i64::try_from(*ms).is_ok())?,
            job_id: job_id.parse().ok()?,
            tenant: String::from_utf8(hex::decode(tenant).ok()?).ok().filter(|tenant| is_tenant(tenant))?,
        };
        (cursor.text() == text).then_some(cursor)
    }
}
