//! Dead letters over HTTP: `/v1/dlq`.

use std::collections::HashSet;
use std::str::FromStr;

use actix_web::{HttpResponse, web};
use relay_protocol::dead_letter::{
    LetterAnswer, LetterFilter, LetterId, LetterName, LetterOutcome, LetterPage, LetterRequest, LetterResult,
    LetterState,
};
use relay_protocol::time::parse_rfc3339;
use relay_protocol::{ErrorCode, JobError};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::ApiError;
use serde::Deserialize;

use super::answer::api_error;
use super::jobs::allow;
use crate::dlq::drop::DropLetters;
use crate::dlq::filter::Sight;
use crate::dlq::look::{Look, Reading};
use crate::dlq::redrive::Redrive;
use crate::state::{NodeState, Online};

/// Letters of a page when the request does not say.
const LIMIT_DEFAULT: usize = 100;
/// Largest body of a redrive or a drop, in bytes.
const BODY_BYTES_MAX: usize = 262_144;

/// Adds the dead letters to an app.
pub fn configure(config: &mut web::ServiceConfig) {
    let body = relay_runtime::http_error::json_config(BODY_BYTES_MAX);
    config
        .service(web::resource("/v1/dlq").route(web::get().to(list)))
        .service(web::resource("/v1/dlq/redrive").app_data(body.clone()).route(web::post().to(redrive)))
        .service(web::resource("/v1/dlq/drop").app_data(body).route(web::post().to(drop_letters)))
        .service(web::resource("/v1/dlq/{id}").route(web::get().to(show)));
}

/// A list's query, as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    lane: Option<String>,
    task: Option<String>,
    code: Option<String>,
    since: Option<String>,
    until: Option<String>,
    tenant: Option<String>,
    state: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// What a list is asked for.
struct Wanted {
    filter: LetterFilter,
    states: Vec<LetterState>,
    limit: usize,
    cursor: Option<LetterId>,
}

async fn list(node: web::Data<NodeState>, caller: Caller, query: web::Query<Query>) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "dlq.list")?;
    let page = page_of(&node, &identity, query.into_inner()).await.map_err(|error| api_error(&error))?;
    Ok(HttpResponse::Ok().json(page))
}

async fn page_of(node: &NodeState, identity: &Identity, query: Query) -> Result<LetterPage, JobError> {
    let online = node.online()?;
    let wanted = query.read()?;
    let _place = online.dead_letters.enter()?;
    let reading = reading(node, online, Sight::of(identity, &wanted.filter)?);
    let look = reading.page(&wanted.filter, wanted.cursor, wanted.limit).await?;
    let letters = look.found.iter().map(|found| found.dead.letter(&found.marks));
    Ok(LetterPage {
        letters: letters.filter(|letter| wanted.states.contains(&letter.state)).collect(),
        cursor: look.cursor,
    })
}

async fn show(node: web::Data<NodeState>, caller: Caller, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsRead, "dlq.show")?;
    let whole = async {
        let online = node.online()?;
        let name: LetterName = id.parse().map_err(invalid)?;
        let _place = online.dead_letters.enter()?;
        let reading = reading(&node, online, Sight::of(&identity, &LetterFilter::default())?);
        let (look, _) = reading.named(&[name]).await?;
        let found = look.found.first().ok_or_else(|| unknown(&name.to_string()))?;
        Ok(found.dead.whole(&found.marks))
    };
    let whole = whole.await.map_err(|error: JobError| api_error(&error))?;
    Ok(HttpResponse::Ok().json(whole))
}

async fn redrive(
    node: web::Data<NodeState>,
    caller: Caller,
    request: web::Json<LetterRequest>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsWrite, "dlq.redrive")?;
    to_the_end(node, identity, request.into_inner(), Action::Redrive).await
}

async fn drop_letters(
    node: web::Data<NodeState>,
    caller: Caller,
    request: web::Json<LetterRequest>,
) -> Result<HttpResponse, ApiError> {
    let identity = allow(&node, &caller, Scope::JobsCancel, "dlq.drop")?;
    to_the_end(node, identity, request.into_inner(), Action::Drop).await
}

/// What is done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Redrive,
    Drop,
}

/// Acts, also if the caller does not wait for the answer: what has begun is brought to its end.
async fn to_the_end(
    node: web::Data<NodeState>,
    identity: Identity,
    request: LetterRequest,
    action: Action,
) -> Result<HttpResponse, ApiError> {
    let acting = actix_web::rt::spawn(async move { act(&node, &identity, request, action).await });
    let answer = acting.await.map_err(|error| ApiError::internal(&error))?;
    Ok(HttpResponse::Ok().json(answer.map_err(|error| api_error(&error))?))
}

async fn act(
    node: &NodeState,
    identity: &Identity,
    request: LetterRequest,
    action: Action,
) -> Result<LetterAnswer, JobError> {
    let online = node.online()?;
    check(&request, node.settings.dlq.page_records_max)?;
    let _place = online.dead_letters.enter()?;
    let reading = reading(node, online, Sight::of(identity, &request.filter)?);
    let (mut look, mut letters) = if request.ids.is_empty() {
        let limit = request.limit.unwrap_or(LIMIT_DEFAULT);
        let mut look = reading.page(&request.filter, request.cursor, limit).await?;
        look.found.retain(|found| waits(found.marks.state()));
        (look, Vec::new())
    } else {
        named(&reading, &request.ids).await?
    };
    let dry_run = request.dry_run;
    letters.extend(match action {
        Action::Redrive => Redrive { node, online, identity, reading: &reading }.all(&mut look, dry_run).await,
        Action::Drop => DropLetters { node, online, identity, reading: &reading }.all(&mut look, dry_run).await,
    });
    // Who names one letter gets its refusal as the request's.
    if let ([only], [result]) = (&request.ids[..], &mut letters[..])
        && let Some(error) = result.error.take()
    {
        tracing::debug!(letter = only, %error, "refused");
        return Err(error);
    }
    Ok(LetterAnswer { dry_run, letters, cursor: look.cursor })
}

/// Redrives the newest letters of these jobs, but for those that are closed already; with `dry_run` only tells what would
/// happen. A job without a letter is refused in its result.
///
/// # Errors
/// Letters cannot be read now, or there are too many requests about them.
pub(super) async fn redrive_jobs(
    node: &NodeState,
    identity: &Identity,
    jobs: Vec<String>,
    dry_run: bool,
) -> Result<Vec<LetterResult>, JobError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let online = node.online()?;
    let _place = online.dead_letters.enter()?;
    let reading = reading(node, online, Sight::of(identity, &LetterFilter::default())?);
    let (mut look, mut letters) = named(&reading, &jobs).await?;
    look.found.retain(|found| waits(found.marks.state()));
    letters.extend(Redrive { node, online, identity, reading: &reading }.all(&mut look, dry_run).await);
    Ok(letters)
}

/// The letters of these names, and a refusal for each name that stands for none.
async fn named(reading: &Reading<'_>, ids: &[String]) -> Result<(Look, Vec<LetterResult>), JobError> {
    let names: Vec<LetterName> = ids.iter().map(|id| id.parse()).collect::<Result<_, _>>().map_err(invalid)?;
    let (look, known) = reading.named(&names).await?;
    let found: HashSet<LetterId> = look.found.iter().map(|found| found.dead.id).collect();
    let missing = names.iter().filter(|name| known.get(name).is_none_or(|id| !found.contains(id)));
    let refused = missing.map(|name| LetterResult {
        id: name.to_string(),
        job_id: None,
        outcome: LetterOutcome::Refused,
        redriven_as: None,
        error: Some(unknown(&name.to_string())),
    });
    let refused = refused.collect();
    Ok((look, refused))
}

fn check(request: &LetterRequest, records_max: usize) -> Result<(), JobError> {
    let by_filter = request.everything || !request.filter.is_empty();
    let wrong = |message: &str| Err(JobError::new(ErrorCode::BadRequest, message));
    match (request.ids.is_empty(), by_filter) {
        (true, false) => wrong("name letters in ids, or set a filter, or everything: true"),
        (false, true) => wrong("name letters in ids or set a filter, not both"),
        (false, false) if request.limit.is_some() || request.cursor.is_some() => {
            wrong("limit and cursor go with a filter, not with ids")
        }
        (false, false) if request.ids.len() > records_max => {
            let message = format!("a request may name {records_max} letters: name fewer at a time");
            Err(JobError::new(ErrorCode::TooLarge, message))
        }
        (true, true) if request.everything && !request.filter.is_empty() => {
            wrong("everything: true goes without a filter")
        }
        _ => check_limit(request.limit),
    }
}

/// More than a page may have is no mistake: the page has as many as it may.
fn check_limit(limit: Option<usize>) -> Result<(), JobError> {
    match limit {
        Some(0) => Err(invalid("limit must be at least 1".to_owned())),
        _ => Ok(()),
    }
}

fn waits(state: LetterState) -> bool {
    matches!(state, LetterState::Open | LetterState::Redriving)
}

fn reading<'a>(node: &'a NodeState, online: &'a Online, sight: Sight) -> Reading<'a> {
    Reading { log: &*online.log, partitions: online.dead_letters.partitions, settings: &node.settings.dlq, sight }
}

fn unknown(name: &str) -> JobError {
    JobError::new(ErrorCode::UnknownLetter, format!("there is no dead letter {name}"))
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidField, message)
}

impl Query {
    fn read(self) -> Result<Wanted, JobError> {
        let time = |name: &str, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => parse_rfc3339(&text).map(Some).map_err(|error| invalid(format!("{name}: {error}"))),
        };
        let unknown_task =
            |error: relay_protocol::task::UnknownTask| JobError::new(ErrorCode::UnknownTask, error.to_string());
        let filter = LetterFilter {
            lane: self.lane,
            task: self.task.map(|task| task.parse()).transpose().map_err(unknown_task)?,
            code: self.code,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            tenant: self.tenant,
        };
        let limit = self.limit.map(|text| number("limit", &text)).transpose()?;
        check_limit(limit)?;
        Ok(Wanted {
            filter,
            states: states(self.state.as_deref())?,
            limit: limit.unwrap_or(LIMIT_DEFAULT),
            cursor: self.cursor.map(|text| text.parse()).transpose().map_err(invalid)?,
        })
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, JobError> {
    text.parse().map_err(|_| invalid(format!("{name} must be a number, not {text:?}")))
}

/// The states that a list shows: without a word those that wait for somebody.
fn states(text: Option<&str>) -> Result<Vec<LetterState>, JobError> {
    match text {
        None => Ok(LetterState::ALL.into_iter().filter(|state| waits(*state)).collect()),
        Some("all") => Ok(LetterState::ALL.to_vec()),
        Some(text) => {
            let known = LetterState::ALL.into_iter().find(|state| state.name() == text);
            let message = || format!("state must be open, redriving, redriven, dropped or all, not {text:?}");
            Ok(vec![known.ok_or_else(|| invalid(message()))?])
        }
    }
}
